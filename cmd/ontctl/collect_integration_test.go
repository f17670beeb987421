//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// asProgram makes the test binary be ontctl, so that it can be killed.
const asProgram = "ONTCTL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		a := &app{out: os.Stdout, err: os.Stderr}
		os.Exit(cli.Main(a.run)) //nolint:forbidigo // it is main here
	}
	os.Exit(m.Run()) //nolint:forbidigo // as every TestMain
}

// startBroker starts mosquitto on a free port and returns its URL.
func startBroker(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/mosquitto")
	}
	if err != nil {
		if os.Getenv("CI") == "true" && !testing.Short() {
			t.Fatal("no mosquitto (Debian package mosquitto)")
		}
		t.Skip("no mosquitto (Debian package mosquitto)")
	}
	for range 5 { // another may take the port between here and there
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		_ = ln.Close()
		_, port, _ := net.SplitHostPort(addr)
		conf := filepath.Join(t.TempDir(), "mosquitto.conf")
		text := "listener " + port + " 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nuser root\n"
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(context.Background(), path, "-c", conf)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		for range 500 {
			if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				_ = c.Close()
				return "tcp://" + addr
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	t.Fatal("mosquitto did not start")
	return ""
}

// fakeGateway publishes numbered messages, and judges what is acknowledged.
type fakeGateway struct {
	t    *testing.T
	id   string
	conn *mqtt.Conn

	mu      sync.Mutex
	seq     map[transport.Class]uint64
	acks    []order.Ack
	held    map[transport.Stored]bool // records that are not acknowledged
	problem error
	disk    *reader // of the collector
}

func newFakeGateway(t *testing.T, broker, dir, id string, collector ed25519.PublicKey) *fakeGateway {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Broker: broker, ClientID: id, InboundDepth: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	g := &fakeGateway{t: t, id: id, conn: conn, disk: newReader(dir), seq: map[transport.Class]uint64{}, held: map[transport.Stored]bool{}}
	if err := conn.Subscribe(t.Context(), "ont/1/lab/"+id+"/ack"); err != nil {
		t.Fatal(err)
	}
	trust := order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{{ID: "c", Role: order.RoleCollector, Key: order.PublicKey(collector)}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case p := <-conn.Inbound():
				g.heard(p.Payload, trust)
			case <-conn.Lost():
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close(context.Background())
		<-done
	})
	return g
}

// heard holds an acknowledgement against what is on the collector's disk now.
func (g *fakeGateway) heard(payload []byte, trust order.TrustList) {
	env, err := order.ParseEnvelope(payload)
	var ack order.Ack
	if err == nil {
		ack, err = order.OpenAck(env, trust)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.acks); err == nil && n > 0 && ack.Version <= g.acks[n-1].Version {
		err = fmt.Errorf("version %d after %d", ack.Version, g.acks[n-1].Version)
	}
	for _, p := range ack.Points {
		for seq := uint64(1); err == nil && seq <= p.Seq; seq++ {
			if n := (number{g.id, p.Class, p.Epoch, seq}); g.disk.stored[n] == 0 {
				if g.disk.read()[n] > 0 {
					continue
				}
				err = fmt.Errorf("acknowledged %s %d.%d, which is not on disk", p.Class, p.Epoch, seq)
			}
		}
	}
	for _, s := range ack.Stored {
		if err == nil && !g.disk.digests[s.SHA256] {
			if g.disk.read(); !g.disk.digests[s.SHA256] {
				err = fmt.Errorf("acknowledged record %d.%d, which is not on disk", s.Epoch, s.Seq)
			}
		}
		delete(g.held, s)
	}
	g.acks = append(g.acks, ack)
	if g.problem == nil {
		g.problem = err
	}
}

func (g *fakeGateway) payload(class transport.Class, seq uint64) []byte {
	b, err := transport.Encode(transport.Header{
		V: 1, Device: g.id, Epoch: 3, Class: class, Seq: seq, UptimeS: float64(seq), TimeMS: time.Now().UnixMilli(), Clock: transport.ClockNTP,
	}, json.RawMessage(`{"what":"x","before":"a","after":"b"}`))
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

func (g *fakeGateway) publish(class transport.Class) {
	g.t.Helper()
	g.seq[class]++
	topic := "ont/1/lab/" + g.id + "/event/link"
	if class == transport.ClassTelemetry {
		topic = "ont/1/lab/" + g.id + "/telemetry/x"
	}
	payload := g.payload(class, g.seq[class])
	if class == transport.ClassRecord {
		g.mu.Lock()
		g.held[transport.Stored{Class: class, Epoch: 3, Seq: g.seq[class], SHA256: digestOf(payload)}] = true
		g.mu.Unlock()
	}
	if err := g.conn.Publish(g.t.Context(), topic, 1, false, payload); err != nil {
		g.t.Fatal(err)
	}
}

type number struct {
	device     string
	class      transport.Class
	epoch, seq uint64
}

// reader counts the messages in a collector's directory, as someone would who
// knows nothing of it but the format.
type reader struct {
	dir    string
	at     map[string]int64 // up to where a file was read
	stored map[number]int
	// digests are of payloads.
	digests map[string]bool
}

func digestOf(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

func newReader(dir string) *reader {
	return &reader{dir, map[string]int64{}, map[number]int{}, map[string]bool{}}
}

// read takes in what was added.
func (r *reader) read() map[number]int {
	files, _ := filepath.Glob(filepath.Join(r.dir, "messages-*.jsonl"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		_, _ = f.Seek(r.at[name], io.SeekStart)
		in := bufio.NewReader(f)
		for {
			text, err := in.ReadBytes('\n')
			if err != nil {
				break // a line that is being written, or was when the writer was killed
			}
			r.at[name] += int64(len(text))
			var line struct{ Payload json.RawMessage }
			if json.Unmarshal(text, &line) != nil || line.Payload == nil {
				continue
			}
			if h, _, err := transport.Decode(line.Payload); err == nil {
				r.stored[number{h.Device, h.Class, h.Epoch, h.Seq}]++
				r.digests[digestOf(line.Payload)] = true
			}
		}
		_ = f.Close()
	}
	return r.stored
}

// program starts ontctl as a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), exe, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s", tail(out.String(), 4000))
		}
	})
	return cmd
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("never: %s", what)
}

// TestReliabilityCollectorKilled kills the collector at any moment, time and
// again, while gateways publish: nothing that the broker took is lost or stored
// twice, and nothing is acknowledged that is not on disk.
func TestReliabilityCollectorKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds, and a process to kill")
	}
	kills := 12
	if os.Getenv("LONG") == "1" {
		kills = 200
	}
	broker := startBroker(t)
	d := newDesk(t)
	d.do("keygen", "--out", "@collector")
	dir := d.path("collected")
	args := []string{
		"collect", "--broker", broker, "--dir", dir, "--key", d.path("collector.key"), "--tenant", "lab",
		"--ack-interval", "20ms", "--rotate", "20000",
	}
	disk := newReader(dir)
	// The session exists before anything is sent.
	first := program(t, args...)
	key, _ := d.key("collector.key").Public().(ed25519.PublicKey)
	gateways := []*fakeGateway{newFakeGateway(t, broker, dir, "HWTC12345678", key), newFakeGateway(t, broker, dir, "ZTEG87654321", key)}
	eventually(t, "something is stored", func() bool {
		gateways[0].publish(transport.ClassTelemetry)
		return len(disk.read()) > 0
	})
	gateways[0].seq[transport.ClassTelemetry] = 0
	// What was published before the subscription nobody has: count anew, in
	// numbers that come again.
	random := rand.New(rand.NewPCG(1, 1))
	cmd := first
	sent := map[number]bool{}
	for kill := range kills {
		stop := make(chan struct{})
		go func() {
			time.Sleep(time.Duration(50+random.IntN(400)) * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGKILL)
			_ = cmd.Wait()
			close(stop)
		}()
		for going, round := true, 0; going; round++ {
			select {
			case <-stop:
				going = false
			default:
				time.Sleep(time.Millisecond) // enough is enough
				for _, g := range gateways {
					for _, class := range []transport.Class{transport.ClassEvent, transport.ClassRecord, transport.ClassTelemetry} {
						if class == transport.ClassRecord && round%5 > 0 {
							continue // more than can wait to be signed for would have to come again
						}
						g.publish(class)
						sent[number{g.id, class, 3, g.seq[class]}] = true
					}
				}
			}
		}
		if kill%3 == 0 { // the snapshot, too, may be lost; the journal is what counts
			_ = os.Remove(filepath.Join(dir, stateFile))
		}
		cmd = program(t, args...)
	}
	for _, g := range gateways {
		eventually(t, "all of "+g.id+" is acknowledged", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			if len(g.acks) == 0 {
				return false
			}
			up := map[transport.Class]uint64{}
			for _, p := range g.acks[len(g.acks)-1].Points {
				up[p.Class] = p.Seq
			}
			return up[transport.ClassEvent] == g.seq[transport.ClassEvent] && len(g.held) == 0
		})
	}
	eventually(t, "all telemetry is stored", func() bool {
		stored := disk.read()
		for n := range sent {
			if stored[n] == 0 {
				return false
			}
		}
		return true
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	stored := newReader(dir).read()
	lost, twice := 0, 0
	for n := range sent {
		switch stored[n] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
	}
	acks := 0
	var problem error
	for _, g := range gateways {
		g.mu.Lock()
		acks += len(g.acks)
		if g.problem != nil {
			problem = g.problem
		}
		g.mu.Unlock()
	}
	verdict := "ok"
	if lost > 0 || twice > 0 || problem != nil || t.Failed() {
		verdict = "FAIL"
		t.Errorf("%d lost, %d stored twice, %v", lost, twice, problem)
	}
	t.Logf("reliability: duplicates | collector killed -9 and restarted | %d | lost %d and stored twice %d of %d; %d acknowledgements, none ahead of the disk | %s",
		kills, lost, twice, len(sent), acks, verdict)
}
