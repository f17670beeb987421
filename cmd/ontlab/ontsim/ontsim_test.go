package ontsim_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/ontsim"
)

func start(t *testing.T, opts ontsim.Options) *ontsim.Sim {
	t.Helper()
	sim, err := ontsim.Start(t.Context(), opts)
	if err != nil {
		noTerminal(t, err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	return sim
}

// terminal is a person at the console.
type terminal struct {
	t *testing.T
	f *os.File
}

func open(t *testing.T, sim *ontsim.Sim) *terminal {
	t.Helper()
	fd, err := unix.Open(sim.Path(), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), sim.Path())
	t.Cleanup(func() { _ = f.Close() })
	return &terminal{t: t, f: f}
}

// enter types a line and returns what comes until want.
func (c *terminal) enter(line, want string) string {
	c.t.Helper()
	if _, err := c.f.WriteString(line + "\r"); err != nil {
		c.t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 256)
	_ = c.f.SetReadDeadline(time.Now().Add(5 * time.Second))
	for !strings.HasSuffix(got.String(), want) {
		n, err := c.f.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			c.t.Fatalf("%q: got %q, then %v", line, got.String(), err)
		}
	}
	return got.String()
}

// The dialect, byte by byte as it was captured.
func TestSimDialect(t *testing.T) {
	sim := start(t, ontsim.Options{Username: "admin", Password: "pw", RxPowerDBm: -22.924298})
	c := open(t, sim)
	c.enter("", "login: ")
	if got := c.enter("admin", "Password: "); got != "admin\r\nPassword: " {
		t.Errorf("got %q", got)
	}
	if got := c.enter("wrong", "login: "); got != "*****\r\nLogin incorrect\r\nlogin: " {
		t.Errorf("got %q", got)
	}
	c.enter("admin", "Password: ")
	c.enter("pw", "# ")
	if got := c.enter("ps", "# "); !strings.Contains(got, "  321 admin    22616 S    omci_app -s ONTS00000001 -f off 0 -m enable_wq -d err\r\n") {
		t.Errorf("got %q", got)
	}
	c.enter("diag", "RTK.0> ")
	for command, want := range map[string]string{
		"pon get transceiver rx-power":    "Rx Power: -22.924298  dBm\r\n",
		"pon get transceiver temperature": "Temperature: 42.359375 C\r\n",
		"gpon get onu-state":              "ONU state: Operation State(O5) \r\n\r",
		"flash all":                       "^Incomplete command\r\n",
	} {
		if got := c.enter(command, "RTK.0> "); got != command+"\r\n"+want+"RTK.0> " {
			t.Errorf("%s: got %q", command, got)
		}
	}
	sim.SetRxPower(ontsim.NoLight())
	sim.SetTemperature(-5.25)
	if got := c.enter("pon get transceiver rx-power", "RTK.0> "); !strings.Contains(got, "Rx Power: -inf  dBm\r\n") {
		t.Errorf("dark: got %q", got)
	}
	if got := c.enter("pon get transceiver temperature", "RTK.0> "); !strings.Contains(got, "Temperature: 250.750000 C\r\n") {
		t.Errorf("cold: got %q", got)
	}
	c.enter("exit", "# ")
	c.enter("exit", "login: ")
	if got := sim.Received(); !slices.Contains(got, "flash all") || got[0] != "" {
		t.Errorf("received %q", got)
	}
}

// Like a UART, the console stays where it was while nobody has it open.
func TestSimSurvivesReopening(t *testing.T) {
	sim := start(t, ontsim.Options{})
	for i := range 5 {
		c := open(t, sim)
		if i == 0 {
			c.enter("diag", "RTK.0> ")
		}
		c.enter("", "RTK.0> ")
		_ = c.f.Close()
		sim.Say("nobody reads this\n")
		time.Sleep(20 * time.Millisecond)
	}
}

func TestSimVanishes(t *testing.T) {
	sim := start(t, ontsim.Options{Modes: ontsim.Vanish})
	c := open(t, sim)
	c.enter("diag", "RTK.0> ")
	c.enter("pon get transceiver rx-power", "Rx Power: -1")
	buf := make([]byte, 16)
	_ = c.f.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.f.Read(buf); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v, of a line that vanished", n, err)
	}
}

func TestSimClose(t *testing.T) {
	sim := start(t, ontsim.Options{Modes: ontsim.Babble})
	c := open(t, sim)
	if err := sim.Close(); err != nil {
		t.Error(err)
	}
	_ = c.f.Close()
	if _, err := os.Stat(sim.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the device is still there: %v", err)
	}
}
