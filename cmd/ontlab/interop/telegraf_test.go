package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

// built returns the program that `make interop` built and names in a variable
// of the environment. It is a large download, so without it the test is
// skipped, in CI as well.
func built(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("%s is not set: run `make interop`", variable)
	}
	return path
}

// point is a line of Influx's line protocol.
type point struct {
	measurement  string
	tags, fields map[string]string // as they are written, quotes and type suffixes included
	ns           string
}

// parseLine takes a line apart.
func parseLine(line string) (p point, err error) {
	series, rest, ok := cutUnquoted(line, ' ')
	fields, ns, ok2 := cutUnquoted(rest, ' ')
	if !ok || !ok2 {
		return p, fmt.Errorf("not a line of the protocol: %q", line)
	}
	p = point{tags: map[string]string{}, fields: map[string]string{}, ns: ns}
	var more bool
	for p.measurement, series, more = cutUnquoted(series, ','); more; {
		var tag string
		tag, series, more = cutUnquoted(series, ',')
		key, value, _ := strings.Cut(tag, "=")
		p.tags[key] = strings.ReplaceAll(value, `\`, "")
	}
	for more = true; more; {
		var field string
		field, fields, more = cutUnquoted(fields, ',')
		key, value, _ := strings.Cut(field, "=")
		p.fields[key] = value
	}
	return p, nil
}

// cutUnquoted cuts s at the first sep that is neither quoted nor escaped.
func cutUnquoted(s string, sep byte) (before, after string, found bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// expected returns the point that docs/brokers/telegraf.conf makes of a
// message.
func expected(t *testing.T, topic string, payload []byte) point {
	t.Helper()
	address, err := transport.ParseTopic(topic)
	if err != nil {
		t.Fatal(err)
	}
	p := point{measurement: address.Name, tags: map[string]string{"tenant": address.Tenant}, fields: map[string]string{}}
	if address.Kind == transport.KindEvent {
		p.measurement, p.tags["type"] = "event", address.Name
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(payload, &body); err != nil {
		t.Fatal(err)
	}
	for key, raw := range body {
		switch key {
		case "v":
		case "device", "class", "subject":
			p.tags[key] = strings.Trim(string(raw), `"`)
		case "time_unix_ms":
			p.ns = string(raw) + "000000"
		case "epoch", "seq", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets":
			p.fields[key] = string(raw) + "i"
		default:
			p.fields[key] = string(raw)
		}
	}
	return p
}

// points reads what Telegraf wrote so far.
func points(t *testing.T, file string) []point {
	t.Helper()
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	var all []point
	for line := range strings.Lines(string(data)) {
		if !strings.HasSuffix(line, "\n") {
			break // is being written
		}
		p, err := parseLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// sameNumber writes floats alike: 1200000 and 1.2e+06 are one.
func sameNumber(fields map[string]string) map[string]string {
	all := maps.Clone(fields)
	for key, value := range all {
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			all[key] = strconv.FormatFloat(f, 'g', -1, 64)
		}
	}
	return all
}

func TestTelegraf(t *testing.T) {
	path := built(t, "TELEGRAF")
	b := startMosquitto(t, "")
	dir := t.TempDir()
	conf, out := filepath.Join(dir, "telegraf.conf"), filepath.Join(dir, "ont.influx")
	files := b.member("telegraf.1").TLS
	configure(t, "telegraf.conf", conf,
		"ssl://broker.example:8884", b.staffURL, "/etc/telegraf/broker-ca.pem", files.CAFile,
		"/etc/telegraf/telegraf.pem", files.CertFile, "/etc/telegraf/telegraf.key", files.KeyFile,
		"/var/lib/telegraf/ont.influx", out, `flush_interval = "10s"`, `flush_interval = "200ms"`)
	telegraf := program{t: t, name: path, args: []string{"--config", conf}}
	start := func() {
		before := len(telegraf.log.String())
		telegraf.start()
		eventually(t, "Telegraf is connected", time.Minute, func() bool {
			return strings.Contains(telegraf.log.String()[before:], "Connected [")
		})
	}
	start()
	time.Sleep(500 * time.Millisecond) // it does not tell when it has subscribed
	count := func(match func(point) bool) int {
		n := 0
		for _, p := range points(t, out) {
			if match(p) {
				n++
			}
		}
		return n
	}

	t.Run("every golden message", func(t *testing.T) {
		wire := dial(t, b.gateway(ours))
		goldens, err := filepath.Glob("../../../transport/testdata/*.golden.json")
		if err != nil {
			t.Fatal(err)
		}
		tried := 0
		for _, file := range goldens {
			kind, name, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".golden.json"), "-")
			if kind != "telemetry" && kind != "event" {
				continue
			}
			tried++
			payload := strings.TrimSpace(read(t, file))
			name = strings.TrimSuffix(name, "-dark")
			for _, kind := range map[string][]string{"telemetry": {"telemetry", "backfill"}, "event": {"event"}}[kind] {
				topic := "ont/1/" + tenant + "/" + ours + "/" + kind + "/" + name
				before := len(points(t, out))
				wire.publish(topic, false, payload)
				eventually(t, "a point of "+topic, 20*time.Second, func() bool { return len(points(t, out)) > before })
				got, want := points(t, out)[before], expected(t, topic, []byte(payload))
				got.fields, want.fields = sameNumber(got.fields), sameNumber(want.fields)
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(point{})); diff != "" {
					t.Errorf("%s as %s (-want +got):\n%s", filepath.Base(file), kind, diff)
				}
			}
		}
		if tried < 8 {
			t.Errorf("only %d goldens", tried)
		}
		t.Logf("%d messages became the points that the contract says", tried)
	})

	t.Run("without a clock", func(t *testing.T) {
		payload := strings.Replace(read(t, "../../../transport/testdata/telemetry-host.golden.json"), `"ntp"`, `"none"`, 1)
		before := len(points(t, out))
		wire := dial(t, b.gateway(ours))
		wire.publish("ont/1/isp/"+ours+"/telemetry/host", false, payload)
		wire.publish("ont/1/isp/"+ours+"/telemetry/fence", false, strings.Replace(payload, `"none"`, `"ntp"`, 1))
		eventually(t, "the next message", 20*time.Second, func() bool { return len(points(t, out)) > before })
		if got := points(t, out)[before].measurement; got != "fence" {
			t.Errorf("a point of %s was written", got)
		}
	})

	t.Run("what is no message stops nothing", func(t *testing.T) {
		before := len(points(t, out))
		wire := dial(t, b.gateway(ours))
		for _, junk := range []string{"", "{", "[]", "null", "7", `{"a":`, strings.Repeat("[", 10000), "\xff\xfe"} {
			wire.publish("ont/1/isp/"+ours+"/telemetry/link", false, junk)
		}
		wire.publish("ont/1/isp/"+ours+"/telemetry/fence", false, read(t, "../../../transport/testdata/telemetry-host.golden.json"))
		eventually(t, "the next message", 20*time.Second, func() bool {
			all := points(t, out)
			return len(all) > before && all[len(all)-1].measurement == "fence"
		})
	})

	// Telegraf is killed while a gateway goes on: what the broker holds for it
	// comes when it is back.
	t.Run("conservation", func(t *testing.T) {
		const n = 300
		g, _ := startGateway(t, b.gateway(ours), nil)
		eventually(t, "connected", 10*time.Second, func() bool { return g.device.Status().Connected })
		for i := range n {
			switch i {
			case n / 3:
				eventually(t, "queue is empty", 20*time.Second, func() bool { return g.depth() == 0 })
				telegraf.stop(syscall.SIGKILL)
			case 2 * n / 3:
				eventually(t, "queue is empty", 20*time.Second, func() bool { return g.depth() == 0 })
				start()
			}
			g.put(transport.ClassEvent, transport.KindEvent, "link", body(i))
			g.put(transport.ClassTelemetry, transport.KindTelemetry, "link", body(i))
		}
		for _, class := range []string{"event", "telemetry"} {
			seen := map[string]int{}
			eventually(t, "all of class "+class, time.Minute, func() bool {
				clear(seen)
				count(func(p point) bool {
					if p.tags["class"] == class && p.fields["epoch"] == "7i" {
						seen[p.fields["seq"]]++
					}
					return true
				})
				return len(seen) >= n
			})
			again := 0
			for seq := 1; seq <= n; seq++ {
				if seen[fmt.Sprint(seq, "i")] == 0 {
					t.Errorf("%s %d is lost", class, seq)
				}
				again += seen[fmt.Sprint(seq, "i")] - 1
			}
			t.Logf("%s: %d of %d messages, Telegraf killed once; %d written twice", class, len(seen), n, again)
		}
	})
}
