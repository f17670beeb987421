package ontsim_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/cmd/ontlab/ontsim"
	"ontagent/collectors"
	"ontagent/collectors/optics/console"
)

// family is what a driver may ever send, and what it can tell.
type family struct {
	allowed []string // besides the empty line, name and password
	leaves  []string // the last lines of a session with a login
	state   string   // of O5
	rx, tx  bool
	bias    bool
	bip     bool
	los     bool
}

func families() map[string]family {
	falcon := []string{"linuxshell", "exit", "otop -b -g s", "onu ploamsg", "onu ploam_state_get"}
	return map[string]family{
		"rtl960x":        {allowed: allowed, leaves: []string{"exit", "exit"}, state: "O5", rx: true, tx: true, bias: true, bip: true, los: true},
		"falcon":         {allowed: falcon, leaves: []string{"exit"}, state: "O5", rx: true, tx: true, bias: true},
		"falcon-pmg3000": {allowed: falcon, leaves: []string{"exit", "exit"}, state: "O5", rx: true, tx: true, bias: true},
		"prx126": {
			allowed: []string{
				"exit", "i2c_cmd show optical", "pon psg", "pon alarm_status_get 0", "pon alarm_status_get 1", "pon alarm_status_get 2",
				"pon alarm_status_get 3", "pon alarm_status_get 4", `pontop -b -g "FEC Status & Counters"`,
			},
			leaves: []string{"exit"}, state: "O5.1", rx: true, tx: true, bias: true, bip: true, los: true,
		},
		"cig": {allowed: []string{"enable", "exit", "traffic/pon/show link"}, leaves: []string{"exit", "exit"}, state: "O5"},
		"huawei": {
			allowed: []string{"su", "quit", "display optic", "display onu info", "display pon statistics"},
			leaves:  []string{"quit", "quit"}, state: "O5", rx: true, tx: true, bias: true, bip: true,
		},
		"zte":           {allowed: []string{"exit", "redir printf", "opticaltst -getpara", "gpontest -gstate"}, leaves: []string{"exit"}, state: "O5", rx: true, tx: true, bias: true},
		"broadcom":      {allowed: []string{"exit", "laser power --rxread", "laser power --txread", "gponctl getState"}, leaves: []string{"exit"}, state: "O5", rx: true, tx: true},
		"broadcom-epon": {allowed: []string{"exit", "mpcp/info"}, state: "3"},
		"econet": {
			allowed: []string{"exit", "ponmgr gpon get info", "ponmgr gpon get phyTransParams", "echo show_BoB_information >/proc/pon_phy/debug"},
			leaves:  []string{"exit"}, state: "O5", rx: true, tx: true, los: true,
		},
	}
}

// startDialect is startSim with the family's own list of what may be sent.
func startDialect(t *testing.T, opts ontsim.Options) *ontsim.Sim {
	t.Helper()
	sim, err := ontsim.Start(t.Context(), opts)
	if err != nil {
		noTerminal(t, err)
	}
	may := families()[opts.Driver].allowed
	t.Cleanup(func() {
		_ = sim.Close()
		for _, line := range sim.Received() {
			if line != "" && line != opts.Username && line != opts.Password && !slices.Contains(may, line) {
				t.Errorf("the ONT was sent %q", line)
			}
		}
	})
	return sim
}

func dialectConsole(t *testing.T, sim *ontsim.Sim, dialect string, change ...func(*console.Options)) *console.Console {
	t.Helper()
	driver, _, _ := strings.Cut(dialect, "-")
	return read(t, sim, append(change, func(o *console.Options) { o.Driver = driver })...)
}

func TestDialectsAreCovered(t *testing.T) {
	for _, name := range ontsim.Dialects() {
		if _, ok := families()[name]; !ok {
			t.Errorf("dialect %s has no row here", name)
		}
	}
	for _, driver := range console.Drivers() {
		if !slices.Contains(ontsim.Dialects(), driver) {
			t.Errorf("driver %s has no dialect", driver)
		}
	}
}

func TestConsoleReadsEveryDialect(t *testing.T) {
	t.Parallel()
	credentials := func(o *console.Options) { o.Username, o.Password = "admin", "stdONU101" }
	variants := []struct {
		name  string
		login bool
		modes ontsim.Mode
	}{
		{"plain", false, 0},
		{"login", true, 0},
		{"login buried by a daemon", true, ontsim.DaemonText},
		{"kernel lines, LF CR, NULs, colours", true, ontsim.KernelLines | ontsim.LFCR | ontsim.NULs | ontsim.Colours},
		{"no echo", false, ontsim.NoEcho},
	}
	for dialect, fam := range families() {
		for _, v := range variants {
			t.Run(dialect+"/"+v.name, func(t *testing.T) {
				t.Parallel()
				opts := ontsim.Options{Driver: dialect, RxPowerDBm: -22.5181, Modes: v.modes}
				if v.login {
					opts.Username, opts.Password = "admin", "stdONU101"
				}
				sim := startDialect(t, opts)
				sim.AddErrors(17, 5, 2)
				c := dialectConsole(t, sim, dialect, credentials)
				r, err := c.ReadOptics(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				value := func(what string, has bool, q collectors.Reading, want, tolerance float64) {
					if has && (!q.OK() || math.Abs(q.Value-want) > tolerance) || !has && q.OK() {
						t.Errorf("%s: got %+v, want %v (told: %v)", what, q, want, has)
					}
				}
				value("rx", fam.rx, r.RxPower, -22.5181, 0.06)
				value("tx", fam.tx, r.TxPower, 2.287339, 0.06)
				value("bias", fam.bias, r.Bias, 14.35, 0.5)
				p, err := c.ReadPON(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if p.Raw != fam.state {
					t.Errorf("state %q, want %q", p.Raw, fam.state)
				}
				if fam.bip && p.Counters["bip"] != 17 {
					t.Errorf("counters %v", p.Counters)
				}
				got := sim.Received()
				if v.login && !slices.Equal(got[len(got)-len(fam.leaves):], fam.leaves) {
					t.Errorf("left by %q, want %q", got[len(got)-len(fam.leaves):], fam.leaves)
				}
				if v.login {
					// Left in order, it is found at its login again.
					if _, err := c.ReadOpticsFresh(t.Context()); err != nil {
						t.Errorf("second session: %v", err)
					}
				}
			})
		}
	}
}

func TestDialectsInTheDark(t *testing.T) {
	t.Parallel()
	for dialect, fam := range families() {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			sim := startDialect(t, ontsim.Options{Driver: dialect, State: "O1"})
			sim.SetRxPower(ontsim.NoLight())
			c := dialectConsole(t, sim, dialect)
			r, err := c.ReadOptics(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if fam.rx && r.RxPower.Status != collectors.StatusNoLight || r.RxPower.OK() || r.TxPower.OK() {
				t.Errorf("rx %+v, tx %+v", r.RxPower, r.TxPower)
			}
			p, err := c.ReadPON(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := "O1"
			switch dialect {
			case "falcon-pmg3000":
				want = "" // it prints 1 for every state but O5
			case "broadcom-epon":
				want = "1"
			}
			if p.Raw != want {
				t.Errorf("state %q, want %q", p.Raw, want)
			}
			if fam.los && !slices.Contains(p.Alarms, "los") {
				t.Errorf("alarms %v of %v", p.Alarms, p.AlarmsKnown)
			}
			sim.SetModes(ontsim.ReadFailed)
			if r, err = c.ReadOpticsFresh(t.Context()); err != nil || fam.rx && (r.RxPower.Status != collectors.StatusError && dialect != "falcon" && dialect != "falcon-pmg3000") || r.RxPower.OK() {
				t.Errorf("refused: %+v, %v", r.RxPower, err)
			}
		})
	}
}

// Nothing is sent to a boot loader, or to a prompt nobody knows, by any driver.
func TestDialectsSendNothingElsewhere(t *testing.T) {
	t.Parallel()
	for dialect := range families() {
		for mode, want := range map[ontsim.Mode]error{
			ontsim.BootLoader: console.ErrBootLoader, ontsim.UnknownPrompt: console.ErrUnknownPrompt,
			ontsim.Hang: console.ErrNoAnswer,
		} {
			t.Run(fmt.Sprintf("%s/%v", dialect, want), func(t *testing.T) {
				t.Parallel()
				sim := startDialect(t, ontsim.Options{Driver: dialect, Modes: mode})
				c := dialectConsole(t, sim, dialect, func(o *console.Options) { o.Username, o.Password = "admin", "x" })
				if _, err := c.ReadOptics(t.Context()); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
				if got := sim.Received(); !slices.Equal(got, []string{""}) {
					t.Errorf("sent %q, want one carriage return", got)
				}
			})
		}
		t.Run(dialect+"/prompt on the screen", func(t *testing.T) {
			t.Parallel()
			// Where the prompt can be seen, not even the carriage return.
			sim := startDialect(t, ontsim.Options{Driver: dialect, Modes: ontsim.Hang})
			c := dialectConsole(t, sim, dialect, func(o *console.Options) { o.Timeouts.Quiet = 300 * time.Millisecond })
			done := make(chan error, 1)
			go func() { _, err := c.ReadOptics(t.Context()); done <- err }()
			time.Sleep(60 * time.Millisecond)
			sim.Say("\nFALCON => ")
			if err := <-done; !errors.Is(err, console.ErrBootLoader) {
				t.Errorf("got %v", err)
			}
			if got := sim.Received(); len(got) != 0 {
				t.Errorf("sent %q", got)
			}
		})
	}
}

func TestDialectLoginRefused(t *testing.T) {
	t.Parallel()
	for dialect := range families() {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			sim, err := ontsim.Start(t.Context(), ontsim.Options{Driver: dialect, Username: "admin", Password: "right"})
			if err != nil {
				noTerminal(t, err)
			}
			defer sim.Close()
			c := dialectConsole(t, sim, dialect, func(o *console.Options) { o.Username, o.Password = "admin", "wrong" })
			if _, err := c.ReadOptics(t.Context()); !errors.Is(err, console.ErrLoginRefused) {
				t.Errorf("got %v", err)
			}
			if got := sim.Received(); !slices.Equal(got, []string{"", "admin", "wrong"}) {
				t.Errorf("sent %q, want one attempt", got)
			}
		})
	}
}

// The way to SU_WAP> may ask for a password: ours is tried, once and for all,
// and what can be asked at WAP> is asked there.
func TestHuaweiSuperUser(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"stdONU101", "another"} {
		sim := startDialect(t, ontsim.Options{Driver: "huawei", Username: "root", Password: "stdONU101", StepPassword: password})
		c := dialectConsole(t, sim, "huawei", func(o *console.Options) { o.Username, o.Password = "root", "stdONU101" })
		for range 2 {
			r, err := c.ReadOpticsFresh(t.Context())
			if err != nil || !r.RxPower.OK() {
				t.Fatalf("%+v, %v", r.RxPower, err)
			}
		}
		want, state := 2, "O5"
		if password == "another" {
			want, state = 1, ""
		}
		p, err := c.ReadPON(t.Context())
		if err != nil || p.Raw != state {
			t.Errorf("state %q, want %q; %v", p.Raw, state, err)
		}
		n := 0
		for _, line := range sim.Received() {
			if line == "su" {
				n++
			}
		}
		if n != want {
			t.Errorf("su %d times in two sessions, want %d", n, want)
		}
	}
}

// A shell that was open when we came stays open.
func TestDialectsLeaveAnothersShell(t *testing.T) {
	t.Parallel()
	for _, dialect := range []string{"falcon", "prx126", "zte", "broadcom", "econet"} {
		sim := startDialect(t, ontsim.Options{Driver: dialect})
		if _, err := dialectConsole(t, sim, dialect).ReadOptics(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := sim.Received(); slices.Contains(got, "exit") {
			t.Errorf("%s: sent %q", dialect, got)
		}
	}
}

// BenchmarkPoll measures what a poll of each dialect costs: processor time of
// this process, the simulator's share included, and bytes on the wire.
func BenchmarkPoll(b *testing.B) {
	for _, dialect := range ontsim.Dialects() {
		b.Run(dialect, func(b *testing.B) {
			sim, err := ontsim.Start(b.Context(), ontsim.Options{Driver: dialect})
			if err != nil {
				b.Skipf("cannot open a pseudo-terminal: %v", err)
			}
			defer sim.Close()
			driver, _, _ := strings.Cut(dialect, "-")
			c, err := console.New(console.Options{Port: sim.Path(), Driver: driver, Timeouts: quick(), Linger: time.Hour, MaxAge: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			if _, err := c.ReadOpticsFresh(b.Context()); err != nil {
				b.Fatal(err)
			}
			in, out := sim.Traffic()
			cpu := processorTime()
			for b.Loop() {
				if _, err := c.ReadOpticsFresh(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			spent := processorTime() - cpu
			in2, out2 := sim.Traffic()
			n := float64(b.N)
			b.ReportMetric(spent.Seconds()*1e3/n, "cpu-ms/poll")
			b.ReportMetric(float64(in2-in)/n, "sent-B/poll")
			b.ReportMetric(float64(out2-out)/n, "received-B/poll")
		})
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
