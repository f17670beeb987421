package ontsim_test

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/ontsim"
	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/console"
	"ontagent/collectors/pon"
)

// quick are timeouts for a console that answers at once.
func quick() console.Timeouts {
	return console.Timeouts{
		Listen: 2 * time.Second,
		Quiet:  80 * time.Millisecond,
		Settle: 10 * time.Millisecond,
		Answer: 1200 * time.Millisecond,
		Login:  1500 * time.Millisecond,
	}
}

// allowed is every line that may ever reach an ONT of the family, besides
// user name and password.
var allowed = []string{
	"", "ps", "diag", "exit",
	"pon get transceiver rx-power", "pon get transceiver tx-power", "pon get transceiver bias-current",
	"pon get transceiver temperature", "pon get transceiver voltage", "pon get transceiver alarm-status",
	"gpon get onu-state", "gpon get alarm-status", "gpon get rogue-sd-cnt",
	"gpon show counter global ds-phy", "gpon show us-flow", "epon get llid-table",
}

// noTerminal skips a test where there are no pseudo-terminals; where the tests
// must be complete, it fails.
func noTerminal(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("cannot open a pseudo-terminal: %v", err)
	}
	t.Skipf("cannot open a pseudo-terminal here: %v", err)
}

func startSim(t *testing.T, opts ontsim.Options) *ontsim.Sim {
	t.Helper()
	sim, err := ontsim.Start(t.Context(), opts)
	if err != nil {
		noTerminal(t, err)
	}
	t.Cleanup(func() {
		_ = sim.Close()
		for _, line := range sim.Received() {
			if !slices.Contains(allowed, line) && line != opts.Username && line != opts.Password {
				t.Errorf("the ONT was sent %q", line)
			}
		}
	})
	return sim
}

func read(t *testing.T, sim *ontsim.Sim, change ...func(*console.Options)) *console.Console {
	t.Helper()
	opts := console.Options{Port: sim.Path(), Driver: "rtl960x", Timeouts: quick(), Linger: -1}
	for _, f := range change {
		f(&opts)
	}
	c, err := console.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestConsoleReadsSimulatedONT(t *testing.T) {
	t.Parallel()
	login := ontsim.Options{Username: "admin", Password: "stdONU101"}
	credentials := func(o *console.Options) { o.Username, o.Password = login.Username, login.Password }
	tests := []struct {
		name  string
		sim   ontsim.Options
		modes ontsim.Mode
		opts  func(*console.Options)
	}{
		{name: "plain"},
		{name: "login", sim: login, opts: credentials},
		{name: "kernel lines in answers", modes: ontsim.KernelLines},
		{name: "login buried by a daemon", sim: login, modes: ontsim.DaemonText, opts: credentials},
		{name: "NULs", modes: ontsim.NULs},
		{name: "LF CR", modes: ontsim.LFCR},
		{name: "no echo", modes: ontsim.NoEcho},
		{name: "literal command prompt", modes: ontsim.CommandPrompt},
		{name: "colours", modes: ontsim.Colours},
		{
			name: "all at once", sim: login, opts: credentials,
			modes: ontsim.KernelLines | ontsim.LFCR | ontsim.NULs | ontsim.CommandPrompt | ontsim.Colours,
		},
		{name: "slow", sim: ontsim.Options{Delay: 30 * time.Millisecond}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.sim.Modes = tt.modes
			tt.sim.RxPowerDBm = -22.924298
			tt.sim.Serial = "ONTS0A1B2C3D"
			sim := startSim(t, tt.sim)
			sim.AddErrors(17, 5, 2)
			c := read(t, sim)
			if tt.opts != nil {
				c = read(t, sim, tt.opts)
			}
			r, err := c.ReadOptics(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := collectors.Reading{Value: -22.924298, Unit: "dBm", Status: collectors.StatusOK, Source: "console:rtl960x", Raw: "-22.924298  dBm"}
			if r.RxPower != want {
				t.Errorf("rx power %+v, want %+v", r.RxPower, want)
			}
			for what, got := range map[string]struct {
				r    collectors.Reading
				want float64
			}{
				"tx": {r.TxPower, 2.287339}, "bias": {r.Bias, 14.35}, "temperature": {r.Temperature, 42.359375}, "voltage": {r.Voltage, 3.1703},
			} {
				if !got.r.OK() || got.r.Value != got.want {
					t.Errorf("%s: got %+v, want %v", what, got.r, got.want)
				}
			}
			if !r.AlarmsKnown || len(r.Alarms) != 0 || !r.WarningsKnown {
				t.Errorf("alarms %v (known: %v), warnings known: %v", r.Alarms, r.AlarmsKnown, r.WarningsKnown)
			}
			p, err := c.ReadPON(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if p.Raw != "O5" || p.Serial != "ONTS0A1B2C3D" || p.OMCIProvisioned != pon.Yes || p.GEMPorts != 3 || p.TConts != 2 {
				t.Errorf("pon %+v", p)
			}
			if len(p.AlarmsKnown) != 7 || len(p.Alarms) != 0 {
				t.Errorf("pon alarms %v of %v", p.Alarms, p.AlarmsKnown)
			}
			if p.Counters[pon.BIP] != 17 || p.Counters[pon.FECCorrected] != 5 || p.Counters[pon.FECUncorrected] != 2 {
				t.Errorf("counters %v", p.Counters)
			}
			diags := 0
			for _, line := range sim.Received() {
				if line == "diag" {
					diags++
				}
			}
			if diags != 1 {
				t.Errorf("%d polls for an optical and a PON reading that may share one", diags)
			}
		})
	}
}

func TestConsoleConditions(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{})
	c := read(t, sim)
	both := func() (optics.Reading, console.PON) {
		t.Helper()
		r, err := c.ReadOpticsFresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.ReadPON(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r, p
	}
	sim.SetRxPower(ontsim.NoLight())
	sim.SetState("O1")
	sim.SetOMCI(false)
	r, p := both()
	if r.RxPower.Status != collectors.StatusNoLight || r.TxPower.Status != collectors.StatusNoLight {
		t.Errorf("dark: rx %+v, tx %+v", r.RxPower, r.TxPower)
	}
	if !slices.Contains(r.Alarms, "optical_los") || !slices.Contains(r.Alarms, "rx_low") || !slices.Contains(p.Alarms, "los") {
		t.Errorf("dark: alarms %v, %v", r.Alarms, p.Alarms)
	}
	if p.Raw != "O1" || p.OMCIProvisioned != pon.No {
		t.Errorf("dark: %+v", p)
	}
	sim.SetRxPower(-27.4)
	sim.SetState("O5")
	sim.SetTemperature(-5.25)
	sim.SetAlarms("SD", "TX Too Long")
	sim.SetSerial("ONTS00000002")
	r, p = both()
	if !r.RxPower.OK() || math.Abs(r.RxPower.Value+27.4) > 1e-9 || r.Temperature.Value != -5.25 {
		t.Errorf("weak: %+v", r)
	}
	if !slices.Equal(p.Alarms, []string{"sd", "tx_too_long"}) || p.Serial != "ONTS00000002" {
		t.Errorf("weak: %+v", p)
	}
	sim.SetModes(ontsim.ReadFailed | ontsim.OldTool)
	r, p = both()
	if r.RxPower.Status != collectors.StatusError || r.RxPower.Value != 0 || r.RxPower.Raw != "% transceiver read failed" {
		t.Errorf("refused: %+v", r.RxPower)
	}
	if r.AlarmsKnown || p.Raw != "O5" {
		t.Errorf("refused: alarms known %v, state %q", r.AlarmsKnown, p.Raw)
	}
	sim.SetModes(ontsim.OldTool)
	if r, _ = both(); !r.RxPower.OK() || r.AlarmsKnown {
		t.Errorf("old tool: %+v", r)
	}
}

func TestConsoleFailures(t *testing.T) {
	t.Parallel()
	login := ontsim.Options{Username: "admin", Password: "right"}
	// A machine under load pauses, and a pause is not the end of a babble.
	patient := func(o *console.Options) { o.Timeouts.Quiet = 700 * time.Millisecond }
	tests := []struct {
		name  string
		sim   ontsim.Options
		modes ontsim.Mode
		opts  func(*console.Options)
		want  error
		// sent is all that may have been typed.
		sent []string
	}{
		{name: "boot loader", modes: ontsim.BootLoader, want: console.ErrBootLoader, sent: []string{""}},
		{name: "boot loader counting down", modes: ontsim.Booting, want: console.ErrBootLoader, opts: func(o *console.Options) {
			o.Timeouts.Listen = 100 * time.Millisecond
			o.Timeouts.Quiet = 200 * time.Millisecond
		}},
		{name: "unknown prompt", modes: ontsim.UnknownPrompt, want: console.ErrUnknownPrompt, sent: []string{""}},
		{name: "hang", modes: ontsim.Hang, want: console.ErrNoAnswer, sent: []string{""}},
		{name: "babble", modes: ontsim.Babble, want: console.ErrBabble, opts: patient},
		{name: "login loop", sim: login, modes: ontsim.LoginLoop, want: console.ErrLoginLoop, opts: patient},
		{name: "no credentials", sim: login, want: console.ErrNoCredentials, sent: []string{""}},
		{name: "wrong password", sim: login, want: console.ErrLoginRefused, sent: []string{"", "admin", "wrong"}, opts: func(o *console.Options) {
			o.Username, o.Password = "admin", "wrong"
		}},
		{name: "no diag", modes: ontsim.NoDiag, want: console.ErrWrongFamily, sent: []string{"", "ps", "diag"}},
		{name: "vanishes", modes: ontsim.Vanish, want: console.ErrGone, sent: []string{"", "ps", "diag", "pon get transceiver rx-power"}},
		{name: "no wake", want: console.ErrNoAnswer, opts: func(o *console.Options) { o.NoWake = true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.sim.Modes = tt.modes
			sim, err := ontsim.Start(t.Context(), tt.sim)
			if err != nil {
				noTerminal(t, err)
			}
			defer sim.Close()
			c := read(t, sim)
			if tt.opts != nil {
				c = read(t, sim, tt.opts)
			}
			r, err := c.ReadOptics(t.Context())
			if !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if r.RxPower.Status != collectors.StatusError || r.RxPower.Value != 0 {
				t.Errorf("reading %+v beside the error", r.RxPower)
			}
			if err != nil && strings.Contains(err.Error(), "wrong") && tt.name == "wrong password" {
				t.Error("the error holds the password")
			}
			if got := sim.Received(); !slices.Equal(got, tt.sent) {
				t.Errorf("sent %q, want %q", got, tt.sent)
			}
		})
	}
}

// A countdown that is running is never stopped: the ONT starts, and is read
// then.
func TestConsoleLetsBootLoaderFinish(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{Modes: ontsim.Booting})
	c := read(t, sim, func(o *console.Options) { o.Timeouts.Quiet = 600 * time.Millisecond })
	r, err := c.ReadOptics(t.Context())
	if err != nil || !r.RxPower.OK() {
		t.Errorf("got %+v, %v", r.RxPower, err)
	}
}

func TestConsoleLeavesAsFound(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{Username: "admin", Password: "x"})
	c := read(t, sim, func(o *console.Options) { o.Username, o.Password = "admin", "x" })
	if _, err := c.ReadOptics(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := sim.Received()
	if n := len(got); n < 2 || got[n-1] != "exit" || got[n-2] != "exit" {
		t.Errorf("the session ended with %q, want an exit for the tool and one for the login", got[max(0, len(got)-3):])
	}
	// Left at the login again, a second reading logs in again.
	if _, err := c.ReadOpticsFresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A daemon that was killed leaves the tool running; the next one goes on
// from there.
func TestConsoleFindsToolRunning(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{})
	f, err := os.OpenFile(sim.Path(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("diag\r"); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(sim.Received(), "diag") {
		time.Sleep(time.Millisecond)
	}
	_ = f.Close()
	c := read(t, sim)
	r, err := c.ReadOptics(t.Context())
	if err != nil || !r.RxPower.OK() {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestConsoleKeepsSessionForAMoment(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{})
	c := read(t, sim, func(o *console.Options) { o.Linger = 250 * time.Millisecond })
	count := func(line string) (n int) {
		for _, got := range sim.Received() {
			if got == line {
				n++
			}
		}
		return n
	}
	for range 3 {
		if _, err := c.ReadOpticsFresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := count("diag"); n != 1 {
		t.Errorf("%d sessions for three readings in a row, want 1", n)
	}
	if n := count("pon get transceiver rx-power"); n != 3 {
		t.Errorf("%d polls for three fresh readings", n)
	}
	deadline := time.Now().Add(5 * time.Second)
	for count("exit") == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if n := count("exit"); n != 1 {
		t.Errorf("%d exits after the session was left alone, want 1", n)
	}
	// The port is free for somebody else.
	if _, err := c.ReadOpticsFresh(t.Context()); err != nil {
		t.Error(err)
	}
}

// A session that the ONT lost – it restarted – is not missed.
func TestConsoleSurvivesRestartBetweenPolls(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{})
	c := read(t, sim, func(o *console.Options) { o.Linger = 10 * time.Second })
	if _, err := c.ReadOpticsFresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	sim.Restart() // back at the shell: diag's commands are unknown there
	r, err := c.ReadOpticsFresh(t.Context())
	if err != nil || !r.RxPower.OK() {
		t.Errorf("got %+v, %v", r.RxPower, err)
	}
	got := sim.Received()
	bad := 0
	for _, line := range got {
		if !slices.Contains(allowed, line) {
			bad++
		}
	}
	if bad > 0 {
		t.Errorf("sent %q", got)
	}
}

func TestConsoleSharesOnePollAmongMany(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{})
	c := read(t, sim)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.ReadOptics(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := c.ReadPON(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, line := range sim.Received() {
		if line == "gpon get onu-state" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d polls for 16 readers at once", n)
	}
}

func TestConsolePortBusy(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{})
	f, err := os.OpenFile(sim.Path(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	c := read(t, sim)
	if _, err := c.ReadOptics(t.Context()); !errors.Is(err, console.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if got := sim.Received(); len(got) != 0 {
		t.Errorf("sent %q to a port that is another's", got)
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	if _, err := c.ReadOpticsFresh(t.Context()); err != nil {
		t.Errorf("after it was given free: %v", err)
	}
}

func TestConsoleCancelled(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{Delay: 50 * time.Millisecond})
	c := read(t, sim)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err := c.ReadOptics(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	// What was cut short says nothing of the console: the next reading works.
	if r, err := c.ReadOptics(t.Context()); err != nil || !r.RxPower.OK() {
		t.Errorf("next reading: %+v, %v", r.RxPower, err)
	}
}

func TestConsoleClosed(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{Modes: ontsim.Hang})
	c := read(t, sim, func(o *console.Options) { o.Timeouts.Answer = time.Minute })
	done := make(chan error, 1)
	go func() {
		_, err := c.ReadOptics(context.Background())
		done <- err
	}()
	for len(sim.Received()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, console.ErrClosed) {
		t.Errorf("the reading that was cut off: %v", err)
	}
	if _, err := c.ReadOptics(t.Context()); !errors.Is(err, console.ErrClosed) {
		t.Errorf("a reading afterwards: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// After a refused login the console is left alone, even by who wants a fresh
// reading: one more attempt might lock the account.
func TestConsoleBacksOff(t *testing.T) {
	t.Parallel()
	sim := startSim(t, ontsim.Options{Username: "admin", Password: "right"})
	c := read(t, sim, func(o *console.Options) { o.Username, o.Password, o.MaxAge = "admin", "admin", -1 })
	for range 3 {
		if _, err := c.ReadOpticsFresh(t.Context()); !errors.Is(err, console.ErrLoginRefused) {
			t.Errorf("got %v", err)
		}
	}
	if got := sim.Received(); len(got) != 3 { // carriage return, name, password
		t.Errorf("sent %q, want one attempt", got)
	}
}
