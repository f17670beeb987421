package config_test

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

const minimal = "config main\n\toption device 'ONT0123456789'\n"

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, text string) config.Config {
	t.Helper()
	c, _, err := config.Parse("test.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sameValues() cmp.Options {
	return cmp.Options{cmpopts.IgnoreUnexported(config.Config{}), cmpopts.IgnoreFields(config.Config{}, "Path")}
}

func TestBadFileIsRefusedExactly(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.conf")
	if err != nil || len(files) < 50 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want := strings.TrimSuffix(string(read(t, strings.TrimSuffix(path, ".conf")+".err")), "\n")
			c, _, err := config.Parse(config.DefaultPath, read(t, path))
			if err == nil {
				t.Fatal("was accepted")
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Errorf("error %T holds no *config.Error", err)
			}
			if c.Main.Device != "" {
				t.Error("a refused file left a configuration")
			}
		})
	}
}

func TestHugeFileIsRefused(t *testing.T) {
	_, _, err := config.Parse("test.conf", bytes.Repeat([]byte("#\n"), 200<<10))
	if err == nil || err.Error() != "test.conf: is larger than 256 KiB" {
		t.Errorf("error %v", err)
	}
}

func TestErrorsQuoteLittle(t *testing.T) {
	_, _, err := config.Parse("test.conf", bytes.Repeat([]byte("é"), 100<<10))
	if err == nil || len(err.Error()) > 400 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}

func TestMinimalFileTakesDefaults(t *testing.T) {
	want := config.Default()
	want.Main.Device = "ONT0123456789"
	if diff := cmp.Diff(want, parse(t, minimal), sameValues()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFilesLieInTheirDirectories(t *testing.T) {
	c := parse(t, minimal+"\toption state_dir /data/state\n\toption run_dir /data/run\n")
	for got, want := range map[string]string{
		c.Authority.TrustList: "/data/state/trust.json",
		c.Authority.Statement: "/data/state/statement.json",
		c.Spool.Dir:           "/data/state/spool",
		c.Control.Socket:      "/data/run/control.sock",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestFullFile(t *testing.T) {
	got, warnings, err := config.Parse("full.conf", read(t, "testdata/full.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 0 {
		t.Errorf("warnings %v", warnings)
	}
	want := config.Default()
	want.Main = config.Main{
		Device: "ONT0123456789", Tenant: "north-1", StateDir: "/data/it's here", RunDir: "/tmp/run", LogLevel: "debug", Language: "en",
	}
	want.Authority = config.Authority{
		RootKey: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", TrustList: "/data/trust.json",
		Statement: "/data/it's here/statement.json", NOCDiagnose: true,
	}
	want.MQTT = config.MQTT{
		Enabled: true, Broker: "ssl://broker.example.net:8883", ServerName: "mqtt.example.net",
		CAFile: "/etc/ontagent/ca.crt", CertFile: "/etc/ontagent/device.crt", KeyFile: "/etc/ontagent/device.key",
		Username: "ont", Password: "it's a \"secret\"; # with \\ all\nand a second line",
		Keepalive: time.Minute, BackoffCap: 5 * time.Minute, BindInterface: "eth0.46",
		SourceAddress: "2001:db8::7", Session: "persistent",
	}
	want.Spool = config.Spool{
		Dir: "/data/spool", Confirm: "broker", RecordKiB: 192, EventKiB: 65536, TelemetryKiB: 1000, BackfillBytesPerS: 256,
	}
	want.Control = config.Control{Socket: "/tmp/control.sock", LANListen: "[fd00::1]:7443"}
	want.Console = config.Console{Enabled: true, Port: "/dev/ttyUSB0", Baud: 9600, Driver: "rtl960x", Username: "admin", Password: `back\slash "quoted"`}
	want.Module = config.Module{Interface: "eth1", Hwmon: "sfp"}
	want.WAN = config.WAN{
		Interface: "pppoe-wan", Device: "eth0", VLAN: 41, CheckURL: "http://check.example.net/generate_204", LANPort: "lan1", OpticsClass: "B+", Resolvers: []string{"192.0.2.53", "2001:db8::53"}, ProbeTargets: []string{"gateway.example.net"},
	}
	want.IPTV = config.IPTV{Group: "239.1.1.1", Port: 5000, Source: "192.0.2.9"}
	want.Voice = config.Voice{Registrar: "[2001:db8::5060]:5061", Domain: "ims.example.net"}
	want.Management.ACS = "https://acs.example.net:7548/cwmp"
	want.Throughput = config.Throughput{
		URL: "http://speed.example.net:8080/1g", UploadURL: "iperf3://[2001:db8::5201]", UploadMethod: "PUT",
		SecondURL: "http://192.0.2.80/1g?x=y", Connections: 8, Window: 15 * time.Second,
	}
	want.Repair = config.Repair{
		Interface: "pon0.41", Session: "pppoe-wan", PerHour: 3, PerDay: 9, Wait: 45 * time.Second, Grace: 2 * time.Minute,
	}
	want.Collectors.Link = config.Collector{
		Enabled: true, Interval: time.Second, Timeout: time.Second, Include: []string{"eth*", "pon[0-9]"}, Exclude: []string{"lo"},
	}
	want.Collectors.PON = config.Collector{Interval: 24 * time.Hour, Timeout: 10 * time.Minute}
	want.Thresholds = map[string]float64{"optical.rx_min_dbm": -24.5, "cpu.max": 0.8, "record.retention": 2e7}
	want.Clock.TrustSystem = "never"
	// go-cmp would print differing secrets; they are compared on their own.
	if got.MQTT.Password != want.MQTT.Password || got.Console.Password != want.Console.Password {
		t.Error("a password differs")
	}
	got.MQTT.Password, got.Console.Password, want.MQTT.Password, want.Console.Password = "", "", "", ""
	if diff := cmp.Diff(want, got, sameValues()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPrintGoesRound(t *testing.T) {
	c, _, err := config.Parse("full.conf", read(t, "testdata/full.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := c.Print(&printed); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/full.golden"
	if *update {
		if err := os.WriteFile(golden, printed.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, golden)), printed.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	again, _, err := config.Parse("printed.conf", printed.Bytes())
	if err != nil {
		t.Fatalf("cannot read back what was printed: %v", err)
	}
	if diff := cmp.Diff(c.Redacted(), again, sameValues()); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestPrintFailsWithItsWriter(t *testing.T) {
	c := config.Default()
	full := errors.New("no space left")
	if err := c.Print(failing{full}); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestRedactedIsACopy(t *testing.T) {
	c := parse(t, minimal+"config console\n\toption username a\n\toption password b\nconfig thresholds\n\toption cpu_max 1\n")
	r := c.Redacted()
	if got := r.Console.Password.Reveal(); got != "***" {
		t.Errorf("password %q in the copy", got)
	}
	if r.MQTT.Password != "" {
		t.Error("a secret that isn't given became one")
	}
	r.Thresholds["cpu.max"] = 2
	if c.Console.Password.Reveal() != "b" || c.Thresholds["cpu.max"] != 1 {
		t.Error("the original changed with its copy")
	}
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		name, text string
		mode       fs.FileMode
		want       []string
	}{
		{"nothing odd", minimal + "config authority\n\toption root_key_file '/root.pub'\n", 0o644, nil},
		{"no root key", minimal, 0o600, []string{"FILE: no root key is given: every order will be refused"}},
		{
			"unencrypted", minimal + "config authority\n\toption root_key_file '/root.pub'\nconfig mqtt\n\toption enabled 1\n\toption broker tcp://h\n", 0o644,
			[]string{"FILE:7: option broker: tcp:// encrypts nothing and proves nobody's identity"},
		},
		{
			"password for everybody", minimal + "config authority\n\toption root_key_file '/root.pub'\nconfig console\n\toption username a\n\toption password b\n", 0o640,
			[]string{"FILE: holds a password and can be read by others (mode 0640): chmod 600 FILE"},
		},
		{"password for root", minimal + "config authority\n\toption root_key_file '/root.pub'\nconfig console\n\toption username a\n\toption password b\n", 0o600, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ontagent")
			if err := os.WriteFile(path, []byte(test.text), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
			_, warnings, err := config.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, strings.ReplaceAll(w.String(), path, "FILE"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadWithoutFile(t *testing.T) {
	_, _, err := config.Load("/no/such/file")
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "cannot read configuration /no/such/file: no such file or directory" {
		t.Errorf("error %v", err)
	}
	if _, _, err := config.Load("/"); err == nil || err.Error() != "cannot read configuration /: is a directory" {
		t.Errorf("error %v", err)
	}
}

func TestAtNamesTheLine(t *testing.T) {
	c := parse(t, minimal+"config collector link\n\n\toption interval 5\n")
	for _, test := range []struct{ section, option, want string }{
		{"main", "device", "test.conf:2"},
		{"collector link", "interval", "test.conf:5"},
		{"mqtt", "broker", "test.conf"},
	} {
		if got := c.At(test.section, test.option); got != test.want {
			t.Errorf("%s.%s is at %q, want %q", test.section, test.option, got, test.want)
		}
	}
	cause := errors.New("cannot bind")
	err := c.OptionError("control", "lan_listen", cause)
	if want := "test.conf: option lan_listen (by default) in section control: cannot bind"; err.Error() != want || !errors.Is(err, cause) {
		t.Errorf("error %q, want %q", err, want)
	}
}
