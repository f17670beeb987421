//nolint:thelper // what takes a *testing.T here are parts of one test, not helpers
package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/lab"
	"ontagent/cmd/ontlab/ontsim"
	"ontagent/transport"
)

// TestConfigurationThatCannotBeMeant: the daemon says file, line and cause, and
// does not start.
func TestConfigurationThatCannotBeMeant(t *testing.T) {
	needLab(t)
	t.Parallel()
	dir := t.TempDir()
	l, err := lab.New(dir, shared.bin, device)
	must(t, err)
	garbage := filepath.Join(dir, "garbage.pem")
	must(t, os.WriteFile(garbage, []byte("not a certificate\n"), 0o600))
	const head = "config main\n\toption device 'HWTC12345678'\n\toption state_dir '%s/state'\n\toption run_dir '%s/run'\n\n"
	tls := func(ca string) string {
		return "config mqtt\n\toption enabled '1'\n\toption broker 'ssl://broker:8883'\n\toption ca_file '" + ca + "'\n"
	}
	for i, c := range []struct {
		name, text string
		line       int
		want       string // besides file and line
	}{
		{"a number that is none", head + "config collector 'link'\n\toption interval 'soon'\n", 7, `option interval: "soon" is not a whole number of seconds`},
		{"a switch that is none", head + "config mqtt\n\toption enabled 'perhaps'\n", 7, "option enabled"},
		{"a threshold out of range", head + "config thresholds\n\toption cpu_max '7'\n", 7, "option cpu_max"},
		{"an unknown section", head + "config wlan\n\toption ssid 'x'\n", 6, "wlan"},
		{"an unknown option", head + "config mqtt\n\toption brokr 'tcp://x'\n", 7, "brokr"},
		{"a list where one value belongs", head + "config mqtt\n\tlist broker 'tcp://x'\n", 7, "broker"},
		{"a section twice", head + "config mqtt\n\nconfig mqtt\n", 8, "mqtt"},
		{"a quote that does not end", head + "config mqtt\n\toption broker 'tcp://x\n", 7, "quote"},
		{"bytes that are no text", head + "config mqtt\n\toption username '\xff\xfe'\n", 7, ""},
		{"no device", "config main\n\toption state_dir '%s/state'\n\toption run_dir '%s/run'\n", 1, "device"},
		{"a certificate that is not there", head + tls("/nowhere/ca.pem"), 9, "option ca_file: cannot read /nowhere/ca.pem: no such file or directory"},
		{"a certificate that is a directory", head + tls("/"), 9, "option ca_file: cannot read /: is a directory"},
		{"a certificate that is none", head + tls(garbage), 9, "holds no PEM certificate"},
		{"a root key that is none", head + "config authority\n\toption root_key_file '" + garbage + "'\n", 7, "option root_key_file"},
		{"a console driver that nobody knows", head + "config console\n\toption enabled '1'\n\toption port '/dev/null'\n\toption driver 'zx'\n", 9, "option driver"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, fmt.Sprintf("bad%d.conf", i))
			text := c.text
			if strings.Contains(text, "%s") {
				text = fmt.Sprintf(text, dir, dir)
			}
			must(t, os.WriteFile(file, []byte(text), 0o600))
			_, err := l.Run(bounded(t), l.Agent, "run", "--config", file)
			place := fmt.Sprintf("%s:%d: ", file, c.line)
			if lab.ExitCode(err) != 2 || !strings.Contains(fmt.Sprint(err), place) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("want exit code 2, %q and %q; got %v", place, c.want, err)
			}
		})
	}
	if _, err := l.Run(bounded(t), l.Agent, "run", "--config", filepath.Join(dir, "none.conf")); lab.ExitCode(err) != 2 {
		t.Errorf("no file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("a daemon that did not start has made its state directory")
	}
}

// trouble is a serial port that cannot be read, and what must be said of it.
type trouble struct {
	name   string
	device string
	mode   ontsim.Mode
	user   string // of the simulated console
	port   func(t *testing.T, sim *ontsim.Sim) string
	config string // further options of the section
	want   string
	typed  []string // all that may have been typed; nil: whatever

	conf string
	sim  *ontsim.Sim
}

// TestSerialPortInTrouble: the daemon stays up, the other collectors go on, and
// status and telemetry say what is wrong with the port.
func TestSerialPortInTrouble(t *testing.T) {
	needLab(t)
	t.Parallel()
	const address = lab.OperatorAddr + ":1884"
	broker, err := lab.NewMosquitto(t.TempDir(), address)
	must(t, err)
	must(t, broker.Start(t.Context()))
	t.Cleanup(func() { _ = broker.Stop() })
	ear := lab.Subscribe(t.Context(), "tcp://"+address)
	t.Cleanup(ear.Close)
	must(t, ear.Connected(bounded(t)))

	simulated := func(_ *testing.T, sim *ontsim.Sim) string { return sim.Path() }
	cases := []*trouble{
		{name: "absent", port: func(*testing.T, *ontsim.Sim) string { return "/dev/ttyNONE0" }, want: "serial port does not exist"},
		{name: "no serial port", port: func(*testing.T, *ontsim.Sim) string { return "/dev/null" }, want: "not a serial port"},
		{name: "busy", port: heldPort, want: "serial port is used by another process", typed: []string{}},
		{name: "vanishing", port: simulated, mode: ontsim.Vanish, want: "serial port"},
		{name: "babbling", port: simulated, mode: ontsim.Babble, want: "console does not stop talking", typed: []string{}},
		{name: "silent", port: simulated, mode: ontsim.Hang, want: "console does not answer"},
		{name: "asking for a login again and again", port: simulated, mode: ontsim.LoginLoop, user: "admin", want: "keeps asking for a login", typed: []string{}},
		{name: "asking for a login that is not configured", port: simulated, user: "admin", want: "asks for a login and none is configured", typed: []string{""}},
		{
			name: "refusing the login", port: simulated, user: "admin", want: "console refused the login",
			config: "\toption username 'admin'\n\toption password 'hunter2'\n",
		},
		{name: "in a boot loader", port: simulated, mode: ontsim.BootLoader, want: "console is in a boot loader", typed: []string{""}},
		{name: "of another family", port: simulated, mode: ontsim.UnknownPrompt, want: "unknown prompt", typed: []string{""}},
	}
	runner := command.New(command.Options{})
	for i, c := range cases {
		c.device = fmt.Sprintf("TROUBLE%02d", i)
		c.start(t, runner, address)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, runner, ear) })
	}
	for _, c := range cases {
		if lost := missing(t, ear, c.device); len(lost) > 0 {
			t.Errorf("%s: never arrived: %q", c.name, lost)
		}
	}
	if problems := ear.Problems(); len(problems) > 0 {
		t.Errorf("messages against the contract: %q", problems)
	}
	if secret := "hunter2"; slices.ContainsFunc(ear.Messages(0), func(m lab.Message) bool { return strings.Contains(string(m.Body), secret) }) {
		t.Error("the password was published")
	}
}

// heldPort is the port of a console that another program has open and locked.
func heldPort(t *testing.T, sim *ontsim.Sim) string {
	t.Helper()
	f, err := os.OpenFile(sim.Path(), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	return sim.Path()
}

func (c *trouble) start(t *testing.T, runner *command.Runner, broker string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ontlab-") //nolint:usetesting // the path of the control socket must stay short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c.sim, err = ontsim.Start(t.Context(), ontsim.Options{Modes: c.mode, Username: c.user, Password: "secret"})
	must(t, err)
	t.Cleanup(func() { _ = c.sim.Close() })
	c.conf = filepath.Join(dir, "conf")
	text := fmt.Sprintf(`config main
	option device '%s'
	option tenant 'lab'
	option state_dir '%s/state'
	option run_dir '%s/run'

config mqtt
	option enabled '1'
	option broker 'tcp://%s'
	option spread '0'

config console
	option enabled '1'
	option port '%s'
%s
config collector 'link'
	option interval '1'
	list include 'lo'

config collector 'host'
	option interval '1'

config collector 'optics'
	option interval '86400'

config collector 'pon'
	option interval '86400'
`, c.device, dir, dir, broker, c.port(t, c.sim), c.config)
	must(t, os.WriteFile(c.conf, []byte(text), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	p, err := runner.Start(t.Context(), command.Spec{Path: filepath.Join(shared.bin, "ontagent"), Args: []string{"run", "--config", c.conf}, Stdout: log, Stderr: log})
	must(t, err)
	t.Cleanup(func() {
		_ = p.Stop()
		log.Close()
		data, _ := os.ReadFile(log.Name())
		if code := p.Result().ExitCode; code != 0 || t.Failed() {
			t.Logf("%s: exit code %d, log:\n%s", c.name, code, data)
		}
		if regexp.MustCompile(`panic|hunter2|DATA RACE`).Match(data) {
			t.Errorf("%s: the log has what it must not have:\n%s", c.name, data)
		}
	})
}

func (c *trouble) check(t *testing.T, runner *command.Runner, ear *lab.Subscriber) {
	status := func() agentStatus {
		var st agentStatus
		result, err := runner.Run(t.Context(), command.Spec{Path: filepath.Join(shared.bin, "ontagent"), Args: []string{"status", "--json", "--config", c.conf}})
		if err == nil {
			must(t, json.Unmarshal(result.Stdout, &st))
		}
		return st
	}
	failed := func(st agentStatus, name string) string {
		for _, h := range st.Collectors {
			if h.Name == name {
				return h.LastError
			}
		}
		return ""
	}
	// A console that talks is listened to for 20 s.
	var st agentStatus
	eventually(t, "both readers of the console say what is wrong", func() bool {
		st = status()
		return failed(st, "optics") != "" && failed(st, "pon") != ""
	})
	for _, name := range []string{"optics", "pon"} {
		if text := failed(st, name); !strings.Contains(text, c.want) {
			t.Errorf("collector %s says %q, want %q", name, text, c.want)
		}
	}
	for _, name := range []string{"link", "host"} { // every second
		eventually(t, name+" goes on", func() bool {
			return slices.ContainsFunc(status().Collectors, func(h collectorStatus) bool {
				return h.Name == name && h.LastError == "" && h.Runs > 1
			})
		})
	}
	if c.typed != nil {
		if typed := c.sim.Received(); len(typed) > 0 && !slices.Equal(typed, c.typed) {
			t.Errorf("typed at the console: %q", typed)
		}
	}
	// The health of the collectors is telemetry as well, once a minute.
	_, _, err := ear.Wait(withTimeout(t, 75*time.Second), 0, func(m lab.Message) bool {
		var h struct{ Subject, Error string }
		return m.Device == c.device && m.Kind == transport.KindTelemetry && m.Name == "collector" &&
			json.Unmarshal(m.Body, &h) == nil && h.Subject == "optics" && strings.Contains(h.Error, c.want)
	})
	if err != nil {
		t.Errorf("no telemetry of the collector's error: %v", err)
		for _, m := range ear.Messages(0) {
			if m.Device == c.device && m.Name == "collector" {
				t.Logf("%s %d %s", m.At.Format(time.TimeOnly), m.Header.Seq, m.Body)
			}
		}
	}
}
