package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/audit"
	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/consumer"
	"ontagent/transport/durable"
	"ontagent/transport/mqtt"
)

// newCollector opens a collection in dir, as a start does.
func newCollector(t *testing.T, dir string, out *strings.Builder) *collector {
	t.Helper()
	c := &collector{
		tenant: "lab", key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), maxDevices: 10,
		devices: map[string]*collected{}, tell: teller{out, true},
	}
	var err error
	if c.archive, err = openArchive(dir, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := c.recover(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.archive.close() })
	return c
}

func (c *collector) stop(t *testing.T) {
	t.Helper()
	if err := c.archive.close(); err != nil {
		t.Fatal(err)
	}
}

func packet(t *testing.T, kind transport.Kind, name string, h transport.Header, body string) mqtt.Packet {
	t.Helper()
	h.V, h.Device = 1, device
	if h.Clock == "" {
		h.Clock = transport.ClockNone
	}
	payload, err := transport.Encode(h, json.RawMessage(body))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := transport.Topic("lab", device, kind, name)
	if err != nil {
		t.Fatal(err)
	}
	return mqtt.Packet{Topic: topic, Payload: payload}
}

func (c *collector) must(t *testing.T, p mqtt.Packet) {
	t.Helper()
	if err := c.take(time.Now(), p, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCollectKeepsPayloadsExactly(t *testing.T) {
	dir, out := t.TempDir(), &strings.Builder{}
	c := newCollector(t, dir, out)
	p := packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 1}, `{"what":"<a> & \u00e9","before":"","after":""}`)
	odd := packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 2}, `{"what":"x"}`)
	odd.Payload = []byte("{\n  " + strings.TrimPrefix(string(odd.Payload), "{"))
	c.must(t, p)
	c.must(t, odd)
	c.must(t, odd)
	c.stop(t)
	data, err := os.ReadFile(filepath.Join(dir, "messages-00000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"payload":`+string(p.Payload)+"}") || !strings.Contains(lines[0], `"time_quality":"none"`) {
		t.Fatalf("%s", data)
	}
	var e entry
	if err := json.Unmarshal([]byte(lines[1]), &e); err != nil || string(e.message()) != string(odd.Payload) {
		t.Errorf("%v: %s", err, e.message())
	}
	if !strings.Contains(out.String(), `"event":"duplicate"`) {
		t.Errorf("%s", out)
	}
}

// TestJournalCutAnywhere cuts the journal at every byte of its last append, and
// pads it with what a power cut leaves: what was whole is there, and what comes
// again is stored once.
func TestJournalCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	c := newCollector(t, dir, &strings.Builder{})
	var packets []mqtt.Packet
	for seq := range uint64(3) {
		packets = append(packets, packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: seq + 1}, `{"what":"x"}`))
		c.must(t, packets[seq])
	}
	c.stop(t)
	whole, err := os.ReadFile(filepath.Join(dir, "messages-00000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndexByte(strings.TrimSuffix(string(whole), "\n"), '\n') + 1
	for _, pad := range []string{"", "\x00\x00\x00\x00", "\x00\n\x00"} {
		for cut := last; cut < len(whole); cut += 7 {
			dir := t.TempDir()
			path := filepath.Join(dir, "messages-00000001.jsonl")
			if err := os.WriteFile(path, append(whole[:cut:cut], pad...), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newCollector(t, dir, &strings.Builder{})
			if got := c.devices[device].tracker.Totals().Received; got != 2 {
				t.Fatalf("cut at %d: %d received", cut, got)
			}
			for _, p := range packets {
				c.must(t, p)
			}
			if got := c.devices[device].tracker.Totals(); got.Received != 3 || got.Duplicates != 2 {
				t.Fatalf("cut at %d: %+v", cut, got)
			}
			if err := c.save(); err != nil {
				t.Fatal(err)
			}
			c.stop(t)
			again := newCollector(t, dir, &strings.Builder{})
			if got := again.devices[device].tracker.Totals().Received; got != 3 {
				t.Fatalf("cut at %d, again: %d received", cut, got)
			}
			again.stop(t)
		}
	}
}

// fullFS is a disk without room for more of the journal.
type fullFS struct{ durable.FS }

type fullFile struct{ durable.File }

func (f fullFS) OpenFile(op, path string, flag int, perm os.FileMode) (durable.File, error) {
	file, err := f.FS.OpenFile(op, path, flag, perm)
	return fullFile{file}, err
}

func (fullFile) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestFullDiskIsNotAcknowledged(t *testing.T) {
	dir := t.TempDir()
	c := newCollector(t, dir, &strings.Builder{})
	c.must(t, packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 1}, `{}`))
	log, err := durable.OpenLog(fullFS{durable.OS{}}, "x", c.archive.journal(1), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.archive.log.Close()
	c.archive.log = log
	err = c.take(time.Now(), packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 2}, `{}`), nil)
	var store *storeError
	if !errors.As(err, &store) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if sent, err := c.acknowledge(t.Context(), nil, time.Now(), 0); sent != nil || !errors.As(err, &store) {
		t.Errorf("acknowledged all the same: %v", err)
	}
}

func TestAckVersionsRiseOverRestarts(t *testing.T) {
	dir := t.TempDir()
	c := newCollector(t, dir, &strings.Builder{})
	ahead := uint64(time.Now().Add(time.Hour).UnixMilli())
	ack := order.Ack{V: 1, Tenant: "lab", Device: device, Version: ahead, Points: []transport.Point{{Class: transport.ClassEvent, Epoch: 3, Seq: 1}}}
	if err := errors.Join(c.note(entry{ReceivedAt: time.Now(), Ack: &ack}), c.flush()); err != nil {
		t.Fatal(err)
	}
	c.stop(t)
	again := newCollector(t, dir, &strings.Builder{})
	if d := again.devices[device]; d == nil || d.version != ahead || !d.again {
		t.Errorf("%+v", d)
	}
}

func TestCollectRefusesWhatIsNotTheGateways(t *testing.T) {
	c := newCollector(t, t.TempDir(), &strings.Builder{})
	p := packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 1}, `{}`)
	p.Topic = strings.Replace(p.Topic, device, "OTHER12345678", 1)
	c.must(t, p)
	c.must(t, mqtt.Packet{Topic: "x/y", Payload: []byte("{}")})
	c.must(t, mqtt.Packet{Topic: "ont/1/lab/" + device + "/event/x", Payload: []byte("{")})
	if c.stats.Unreadable != 3 || c.stats.Stored != 0 || len(c.devices) != 0 {
		t.Errorf("%+v", c.stats)
	}
}

func TestTwoCollectorsDoNotShareADirectory(t *testing.T) {
	dir := t.TempDir()
	newCollector(t, dir, &strings.Builder{})
	if _, err := openArchive(dir, 1); err == nil || !strings.Contains(err.Error(), "another collector") {
		t.Errorf("%v", err)
	}
}

// trailOf makes an audit trail of n entries, and its head.
func trailOf(t *testing.T, n int) ([]string, audit.Head) {
	t.Helper()
	log, err := audit.Open(audit.Options{FS: durable.OS{}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var lines []string
	for range n {
		line, err := log.Append(audit.Entry{Event: audit.Granted, UTC: "2026-01-01T00:00:00Z", Clock: "ntp"})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSuffix(string(line), "\n"))
	}
	return lines, log.Head()
}

func TestAuditTrailIsProvenByHeads(t *testing.T) {
	lines, head := trailOf(t, 5)
	var trail auditTrail
	for _, i := range []int{0, 2, 1, 4, 3} {
		if problem := trail.take(lines[i]); problem != "" {
			t.Errorf("entry %d: %s", i, problem)
		}
	}
	if problem := trail.ends(head); problem != "" || trail.Proven != head || len(trail.Lines) != 0 {
		t.Errorf("%q %+v", problem, trail)
	}
	trail = auditTrail{}
	for i, line := range lines {
		if i == 2 {
			line = strings.Replace(line, "granted", "ended", 1)
		}
		trail.take(line)
	}
	if problem := trail.ends(head); !strings.Contains(problem, "entry 3 is altered") {
		t.Errorf("%q", problem)
	}
}

func TestAuditVerify(t *testing.T) {
	d := newDesk(t)
	lines, head := trailOf(t, 4)
	d.write("trail", strings.Join(lines, "\n")+"\n")
	d.write("altered", strings.Replace(strings.Join(lines, "\n"), "granted", "ended", 1))
	d.write("missing", lines[0]+"\n"+lines[1]+"\n"+lines[3]+"\n")
	d.write("none", "hello\n")
	at := "4:" + head.SHA256
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--head", at, "@trail"}, cli.OK, "intact: 4 entries"},
		{[]string{"@trail"}, cli.Inconclusive, "unproven"},
		{[]string{"--head", at, "@altered"}, cli.Fail, "broken"},
		{[]string{"--head", at, "@missing"}, cli.Fail, "broken"},
		{[]string{"--head", "5:" + head.SHA256, "@trail"}, cli.Fail, "broken"},
		{[]string{"--head", "x", "@trail"}, cli.Usage, ""},
		{[]string{"@none"}, cli.Usage, ""},
		{[]string{"@absent"}, cli.Usage, ""},
	} {
		name := strings.Join(tt.args, " ")
		code, out, errs := d.ontctl(append([]string{"audit", "verify"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %d, want %d: %s%s", name, code, tt.code, out, errs)
		}
	}
	// As a collector stores them.
	c := newCollector(t, d.path("c"), &strings.Builder{})
	for i, line := range lines {
		body, err := json.Marshal(map[string]any{"audit_n": i + 1, "audit_line": line})
		if err != nil {
			t.Fatal(err)
		}
		c.must(t, packet(t, transport.KindEvent, "audit", transport.Header{Epoch: 3, Class: transport.ClassRecord, Seq: uint64(i) + 1}, string(body)))
	}
	c.must(t, packet(t, transport.KindTelemetry, "heartbeat", transport.Header{Epoch: 3, Class: transport.ClassTelemetry, Seq: 1},
		`{"audit_n":4,"audit_sha256":"`+head.SHA256+`"}`))
	if got := c.devices[device].audit.Proven; got != head {
		t.Errorf("proven %+v", got)
	}
	if out := d.do("audit", "verify", "@c/messages-00000001.jsonl"); !strings.Contains(out, device+": intact: 4 entries") {
		t.Errorf("%s", out)
	}
}

func TestCfgIsSigned(t *testing.T) {
	d := newDesk(t)
	d.furnish()
	d.do("cfg", "--key", "@operator.key", "--tenant", "lab", "--device", device, "--version", "4", "--spread", "1m", "--backfill", "4096", "--trust", "@trust", "--out", "@cfg")
	root, _ := d.key("root.key").Public().(ed25519.PublicKey)
	list, err := order.OpenTrustList(d.envelope("trust"), root)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := order.OpenConfig(d.envelope("cfg"), list)
	if err != nil || c.Version != 4 || c.Device != device || *c.Settings.SpreadS != 60 || *c.Settings.BackfillBytesPerS != 4096 ||
		c.Settings.KeepaliveS != nil || c.Trust == nil {
		t.Errorf("%+v %v", c, err)
	}
	for _, args := range [][]string{
		{"--version", "4", "--device", device},
		{"--version", "0", "--device", device, "--out", "@x"},
		{"--version", "4", "--device", device, "--out", "@x", "--spread", "1500ms"},
		{"--version", "4", "--device", device, "--out", "@x", "--spread", "2h"},
		{"--version", "4", "--out", "@x", "--trust", "@absent"},
		{"--version", "4", "--broker", "tcp://127.0.0.1:1"},
	} {
		if code, _, _ := d.ontctl(append([]string{"cfg", "--key", "@operator.key", "--tenant", "lab"}, args...)...); code != cli.Usage {
			t.Errorf("%v ended with %d", args, code)
		}
	}
}

func TestWatchLeavesOutWhatComesAgain(t *testing.T) {
	for _, raw := range []bool{false, true} {
		var out strings.Builder
		f := &follower{raw: raw, w: &lineWatcher{out: &out}, devices: map[string]*consumer.Tracker{}}
		p := packet(t, transport.KindEvent, "link", transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 1, UptimeS: 60}, `{"what":"x"}`)
		f.take(time.Now(), p)
		f.take(time.Now(), p)
		f.take(time.Now(), packet(t, transport.KindEvent, "sync", transport.Header{
			Epoch: 3, Class: transport.ClassEvent, Seq: 4, UptimeS: 90, TimeMS: time.Now().UnixMilli(), Clock: transport.ClockNTP,
		}, `{"what":"set"}`))
		now := time.Now()
		f.look(now)
		f.look(now.Add(2 * missingAfter))
		text := out.String()
		if got := strings.Count(text, "event/link"); got != map[bool]int{false: 1, true: 2}[raw] {
			t.Errorf("raw %v: shown %d times", raw, got)
		}
		for _, want := range []string{"undated " + device, "epoch 3 is dated", "missing event 3.2–3"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
}
