package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestReliabilityStorm kills the broker of thousands of real gateways, starts
// it again, and counts how many come in each second: at the broker, by its own
// log. The gateways are a process of their own.
func TestReliabilityStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: this takes a minute")
	}
	gateways, spread := 5000, 12*time.Second
	if os.Getenv("LONG") == "1" {
		gateways, spread = 9000, 20*time.Second
	}
	program := buildOntlab(t)
	var o stormOutcome
	for try := 1; ; try++ {
		o = playStorm(t, program, gateways, spread)
		// Who doesn't get the processor for a while sees what should have been
		// spread over that while in one moment.
		if o.peak(gateways, spread) <= tooMany || o.stall < 150*time.Millisecond || try == 3 {
			break
		}
		t.Logf("the machine stood still for %v, which shows as a peak of %.2f: playing it again", o.stall, o.peak(gateways, spread))
	}
	verdict := "ok"
	if o.back == 0 || o.peak(gateways, spread) > tooMany {
		verdict = "FAIL"
		t.Errorf("peak %.2f × fleet/spread, 99 %% back after %v; accepted in each second: %v", o.peak(gateways, spread), o.back, o.seconds)
	}
	t.Logf("reliability: storm | real sessions, mosquitto killed and restarted | %d | peak %d/s, %.2f × fleet/spread of %.0f s; 99 %% back after %.0f s; %.0f KiB a gateway | %s",
		gateways, slices.Max(o.seconds), o.peak(gateways, spread), spread.Seconds(), o.back.Seconds(), o.memory, verdict)
}

// stormOutcome is how a fleet came back.
type stormOutcome struct {
	seconds []int         // connections that the broker accepted in each second after it was killed
	back    time.Duration // until 99 % were connected again; 0: not in time
	stall   time.Duration // the longest time that this process waited for the processor
	memory  float64       // KiB of the fleet's process for each gateway
}

// peak is the highest second, in parts of fleet / spread.
func (o stormOutcome) peak(gateways int, spread time.Duration) float64 {
	return float64(slices.Max(o.seconds)) * spread.Seconds() / float64(gateways)
}

// fleetLine is what `ontlab fleet --json` tells once a second.
type fleetLine struct {
	Connected int     `json:"connected"`
	Gateways  int     `json:"gateways"`
	LastError string  `json:"last_error"`
	KiB       float64 `json:"kib_per_gateway"`
	at        time.Time
}

func playStorm(t *testing.T, program string, gateways int, spread time.Duration) stormOutcome {
	t.Helper()
	needFiles(t, gateways+1000)
	var mu sync.Mutex
	var accepted []time.Time
	b := newBroker(t, func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		accepted = append(accepted, at)
	})
	defer b.kill()
	lines := startFleet(t, program, "--broker", "tcp://"+b.addr, "--gateways", fmt.Sprint(gateways), "--spread", spread.String(),
		"--telemetry-interval", "1m", "--json")
	wait := func(what string, limit time.Duration, ok func(fleetLine) bool) fleetLine {
		t.Helper()
		var last fleetLine
		for deadline := time.After(limit); ; {
			select {
			case line, open := <-lines:
				if !open {
					t.Fatalf("the fleet ended: %s", what)
				}
				if last = line; ok(line) {
					return line
				}
			case <-deadline:
				t.Fatalf("not within %v: %s; %+v", limit, what, last)
			}
		}
	}
	up := wait("all are connected", 3*spread+30*time.Second, func(l fleetLine) bool { return l.Connected == l.Gateways })

	o := stormOutcome{memory: up.KiB}
	ctx, cancel := context.WithCancel(t.Context())
	var stalls sync.WaitGroup
	defer stalls.Wait()
	defer cancel()
	stalls.Go(func() { o.stall = longestStall(ctx) })
	b.kill()
	killed := time.Now()
	b.start()
	// Those who were connected at the kill are told so for a while.
	wait("the loss shows", 30*time.Second, func(l fleetLine) bool { return l.Connected < gateways/2 })
	back := wait("99 % are back", 3*spread+30*time.Second, func(l fleetLine) bool { return l.Connected*100 >= gateways*99 })
	o.back = back.at.Sub(killed)
	time.Sleep(time.Second)
	cancel()
	stalls.Wait()
	mu.Lock()
	defer mu.Unlock()
	for _, at := range accepted {
		if s := int(at.Sub(killed) / time.Second); at.After(killed) {
			for len(o.seconds) <= s {
				o.seconds = append(o.seconds, 0)
			}
			o.seconds[s]++
		}
	}
	return o
}

// longestStall returns by how much a short sleep was overslept, at most.
func longestStall(ctx context.Context) (longest time.Duration) {
	const nap = 5 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		time.Sleep(nap)
		longest = max(longest, time.Since(began)-nap)
	}
	return longest
}

// buildOntlab builds the program as it is released, without the race detector
// even where the tests have it: that would not let so many goroutines live.
func buildOntlab(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ontlab")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "ontagent/cmd/ontlab")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the fleet: %v\n%s", err, out)
	}
	return program
}

// startFleet starts a fleet that ends with the test. The channel gives its
// lines and is closed when it ends.
func startFleet(t *testing.T, program string, args ...string) <-chan fleetLine {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, append([]string{"fleet"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan fleetLine, 1000)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(lines)
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			line := fleetLine{at: time.Now()}
			if err := json.Unmarshal(in.Bytes(), &line); err != nil {
				t.Errorf("the fleet said %q: %v", in.Text(), err)
				return
			}
			lines <- line
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		impatient := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer impatient.Stop()
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the fleet did not end well: %v: %s", err, strings.TrimSpace(stderr.String()))
		}
	})
	return lines
}

// needFiles lets the processes that this test starts have n files open.
func needFiles(t *testing.T, n int) {
	t.Helper()
	want := syscall.Rlimit{Cur: uint64(n), Max: uint64(n)}
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	want.Max = max(want.Max, have.Max)
	want.Cur = max(want.Cur, have.Cur)
	// Also where it is high enough: what a program sets itself its children get.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot have %d files open, %d are allowed: %v", n, have.Max, err)
		}
		t.Skipf("cannot have %d files open, %d are allowed: %v", n, have.Max, err)
	}
}
