package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ontagent/cmd/ontlab/lab"
	"ontagent/cmd/ontlab/ontsim"
	"ontagent/transport"
)

// measurement is what was measured of one program.
type measurement struct {
	Program, Broker string
	Steady          memory
	CPUPercent      float64 // of one core
	CPUPerRunMS     float64 // everything the daemon did, by collections
	Runs            uint64  // collections in the window
	SentPerHourKiB  float64
	Events          latency
	Visit           visitCost
}

// memory of a process, in bytes.
type memory struct {
	RSS, Anon, High int64
	Threads         int64
}

// latency of events, in milliseconds.
type latency struct {
	Count                      int
	MedianMS, P99MS, LongestMS float64
}

// visitCost is what an acceptance took.
type visitCost struct {
	Seconds   float64
	Verdict   string
	RSS, Anon int64 // highest seen, in bytes
	CPUMS     float64
}

// benchEvents is how many times the cable is pulled or plugged in.
const benchEvents = 200

// benchInLab measures the program in args for as many minutes as they say.
func (a *app) benchInLab(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return fmt.Errorf("%w: %s PROGRAM MINUTES", errUsage, benchOneVerb)
	}
	minutes, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	dir, err := os.MkdirTemp("", "ontlab-bench-")
	if err != nil {
		return fmt.Errorf("cannot make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	l, err := lab.New(dir, filepath.Dir(self), demoDevice)
	if err != nil {
		return err
	}
	l.Agent = args[0]
	b := &bench{Lab: l}
	b.m.Program = describe(l.Agent)
	if err := b.run(ctx, time.Duration(minutes*float64(time.Minute))); err != nil {
		return err
	}
	return json.NewEncoder(a.out).Encode(b.m)
}

// bench is one measurement under way.
type bench struct {
	*lab.Lab
	m   measurement
	ear *lab.Subscriber
}

func (b *bench) run(ctx context.Context, window time.Duration) (err error) {
	stop, err := b.broker(ctx)
	if err != nil {
		return err
	}
	defer stop()
	sim, err := ontsim.Start(ctx, ontsim.Options{Serial: demoSerial})
	if err != nil {
		return fmt.Errorf("cannot start the ONT simulator: %w", err)
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	if err := b.WriteConfig(lab.GatewayConfig{ConsolePath: sim.Path(), RootKey: b.Path("root.pub")}); err != nil {
		return err
	}
	if err := b.Enrol(ctx); err != nil {
		return err
	}
	if err := b.Order(ctx, "WO-bench", "--type", "repair", "--require", lab.BuiltRungs(), "--sn", demoSerial, "--mac", lab.WANMAC,
		"--lan-port", lab.LANInterface, "--threshold", "cpu.max=2,memory.max=2"); err != nil {
		return err
	}
	b.ear = lab.Subscribe(ctx, lab.BrokerURL)
	defer b.ear.Close()
	log, err := os.Create(b.Path("ontagent.log"))
	if err != nil {
		return fmt.Errorf("cannot write log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := b.StartGateway(ctx, log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.StopGateway()) }()
	stopDNS, err := lab.StartDNS(ctx)
	if err != nil {
		return err
	}
	defer stopDNS()

	for _, part := range []func(context.Context) error{
		func(ctx context.Context) error { return b.steady(ctx, window) },
		b.events,
		b.visit,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// broker starts mosquitto or, where there is none, the embedded one.
func (b *bench) broker(ctx context.Context) (stop func(), err error) {
	m, err := lab.NewMosquitto(b.Dir, lab.OperatorAddr+":1883")
	if errors.Is(err, lab.ErrNoMosquitto) {
		b.m.Broker = "embedded"
		return lab.StartBroker()
	}
	if err == nil {
		b.m.Broker = "mosquitto"
		err = m.Start(ctx)
	}
	return func() { _ = m.Stop() }, err
}

// usage is what the daemon had used and done at one moment.
type usage struct {
	at   time.Time
	cpu  time.Duration
	runs uint64
	sent int64 // bytes
}

func (b *bench) usage(ctx context.Context) (usage, error) {
	out, err := b.Run(ctx, b.Agent, "status", "--json", "--config", b.Path("ontagent.conf"))
	if err != nil {
		return usage{}, err
	}
	var st struct {
		MQTT struct {
			BytesOut int64 `json:"bytes_out"`
		} `json:"mqtt"`
		Collectors []struct {
			Runs uint64 `json:"runs"`
		} `json:"collectors"`
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return usage{}, fmt.Errorf("cannot read status: %w", err)
	}
	u := usage{at: time.Now(), sent: st.MQTT.BytesOut}
	for _, c := range st.Collectors {
		u.runs += c.Runs
	}
	u.cpu, err = processorTime(b.Gateway().PID())
	return u, err
}

// steady watches the daemon at its default schedule.
func (b *bench) steady(ctx context.Context, window time.Duration) error {
	began, err := b.usage(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.Gateway().Done():
		return fmt.Errorf("the gateway ended: %w", b.Gateway().Wait())
	case <-time.After(window):
	}
	if b.m.Steady, err = memoryOf(b.Gateway().PID()); err != nil {
		return err
	}
	ended, err := b.usage(ctx)
	if err != nil {
		return err
	}
	b.m.Runs = ended.runs - began.runs
	cpu, wall := ended.cpu-began.cpu, ended.at.Sub(began.at)
	b.m.CPUPercent = 100 * cpu.Seconds() / wall.Seconds()
	if b.m.Runs > 0 {
		b.m.CPUPerRunMS = 1000 * cpu.Seconds() / float64(b.m.Runs)
	}
	b.m.SentPerHourKiB = float64(ended.sent-began.sent) / 1024 / wall.Hours()
	return nil
}

// events pulls the LAN cable and plugs it in, and measures from before the
// system call to the arrival at a subscriber.
func (b *bench) events(ctx context.Context) error {
	if err := b.ear.Connected(ctx); err != nil {
		return err
	}
	var took []time.Duration
	for i := range benchEvents {
		up := i%2 == 1
		from, began := b.ear.Heard(), time.Now()
		if err := lab.SetHomeCable(up); err != nil {
			return err
		}
		waitCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
		m, _, err := b.ear.Wait(waitCtx, from, func(m lab.Message) bool {
			var e struct{ Subject, What, After string }
			return m.Kind == transport.KindEvent && json.Unmarshal(m.Body, &e) == nil &&
				e.Subject == lab.LANInterface && e.What == "carrier" && (e.After == "up") == up
		})
		cancel()
		if err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
		took = append(took, m.At.Sub(began))
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.m.Events = latency{
		Count: len(took), MedianMS: ms(took[len(took)/2]), P99MS: ms(took[len(took)*99/100]), LongestMS: ms(took[len(took)-1]),
	}
	return nil
}

// visit runs an acceptance and looks at the daemon's memory meanwhile.
func (b *bench) visit(ctx context.Context) error {
	pid := b.Gateway().PID()
	before, err := processorTime(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	type answer struct {
		out []byte
		err error
	}
	done := make(chan answer, 1)
	go func() {
		out, err := b.Run(ctx, b.Ctl, "accept", "--order", b.Path("WO-bench.signed"), "--key", b.Path("technician.key"),
			"--time-key", b.Path("time.key"), "--broker", lab.BrokerURL, "--json")
		done <- answer{out, err}
	}()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m, err := memoryOf(pid)
			if err != nil {
				return err
			}
			b.m.Visit.RSS, b.m.Visit.Anon = max(b.m.Visit.RSS, m.RSS), max(b.m.Visit.Anon, m.Anon)
			continue
		case a := <-done:
			if code := lab.ExitCode(a.err); code < 0 || code == 2 || code > 3 {
				return a.err
			}
			after, err := processorTime(pid)
			if err != nil {
				return err
			}
			b.m.Visit.Seconds = time.Since(began).Seconds()
			b.m.Visit.CPUMS = 1000 * (after - before).Seconds()
			lines := strings.Split(strings.TrimSpace(string(a.out)), "\n")
			var last struct {
				Verdict string `json:"verdict"`
			}
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
				return fmt.Errorf("cannot read job status: %w", err)
			}
			b.m.Visit.Verdict = last.Verdict
			return nil
		}
	}
}

// clockTicks is USER_HZ, which Linux fixes at 100 for all our architectures.
const clockTicks = 100

// processorTime is what a process used, in user and system mode, of all its
// threads. The kernel tells it in hundredths of a second.
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cannot read processor time: %w", err)
	}
	// The name in parentheses may hold anything; 14th and 15th are counted
	// from the start, the state behind it is the 3rd.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot read processor time: %q", data)
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return 0, fmt.Errorf("cannot read processor time: %w", err)
	}
	return time.Duration(user+system) * time.Second / clockTicks, nil
}

// memoryOf reads what a process has in memory.
func memoryOf(pid int) (memory, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, fmt.Errorf("cannot read memory: %w", err)
	}
	var m memory
	fields := map[string]struct {
		to   *int64
		unit int64
	}{"VmRSS": {&m.RSS, 1024}, "RssAnon": {&m.Anon, 1024}, "VmHWM": {&m.High, 1024}, "Threads": {&m.Threads, 1}}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if f, ok := fields[name]; ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return memory{}, fmt.Errorf("cannot read memory: %q", line)
			}
			*f.to = n * f.unit
		}
	}
	if m.RSS == 0 {
		return memory{}, errors.New("cannot read memory: the process has none")
	}
	return m, nil
}
