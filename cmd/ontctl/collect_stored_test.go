package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/transport"
	"ontagent/transport/mqtt"
)

func recordHeader(seq uint64) transport.Header {
	return transport.Header{Epoch: 3, Class: transport.ClassRecord, Seq: seq}
}

func storedOf(p mqtt.Packet, seq uint64) transport.Stored {
	return transport.Stored{Class: transport.ClassRecord, Epoch: 3, Seq: seq, SHA256: digestOf(p.Payload)}
}

func (c *collector) wantStored(t *testing.T, what string, want ...transport.Stored) {
	t.Helper()
	got := c.devices[device].tracker.Stored()
	if len(got) != len(want) {
		t.Fatalf("%s: %d wait to be acknowledged, want %d: %+v", what, len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s: %+v, want %+v", what, got[i], want[i])
		}
	}
}

// TestForgedRecordIsStoredBesideTheRealOne: both are in the journal, each is
// acknowledged for itself, and what is odd around a payload is kept.
func TestForgedRecordIsStoredBesideTheRealOne(t *testing.T) {
	dir, out := t.TempDir(), &strings.Builder{}
	c := newCollector(t, dir, out)
	forged := packet(t, transport.KindStatus, "job", recordHeader(1), `{"state":"SUCCEEDED"}`)
	real := packet(t, transport.KindStatus, "job", recordHeader(1), `{"state":"FAILED"}`)
	spaced := forged
	spaced.Payload = []byte(" " + string(real.Payload) + "\t")
	c.must(t, forged)
	c.must(t, spaced)
	c.must(t, packet(t, transport.KindEvent, transport.EventGap, transport.Header{Epoch: 3, Class: transport.ClassEvent, Seq: 1},
		`{"gap_class":"record","gap_epoch":3,"from_seq":1,"to_seq":9,"count":9,"reason":"disk_full"}`))
	c.wantStored(t, "before the real one", storedOf(forged, 1))
	c.must(t, real)
	c.must(t, real)
	if c.stats.Conflicts != 2 || c.stats.Duplicates != 1 || c.stats.Stored != 4 || strings.Count(out.String(), `"event":"conflict"`) != 2 {
		t.Errorf("%+v\n%s", c.stats, out)
	}
	for i, p := range []mqtt.Packet{forged, spaced, real} {
		c.stop(t)
		c = newCollector(t, dir, out)
		c.wantStored(t, "restarted", storedOf(p, 1))
		d := c.devices[device]
		named := d.tracker.Stored()
		// As acknowledge and delivered do.
		ack := order.Ack{V: 1, Tenant: "lab", Device: device, Version: d.version + 1, Stored: named}
		if err := errors.Join(ack.Validate(), c.note(entry{ReceivedAt: time.Now(), Ack: &ack}), c.flush()); err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			d.tracker.Acknowledged(named)
			if err := c.save(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		// Killed before it was published: it is named again, then replaced.
		c.stop(t)
		c = newCollector(t, dir, out)
		if again := c.devices[device].tracker.Stored(); len(again) != 1 || again[0] != storedOf(spaced, 1) {
			t.Errorf("%+v", again)
		}
		c.devices[device].tracker.Acknowledged(named)
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
	}
	c.wantStored(t, "at last")
	for _, p := range []mqtt.Packet{forged, real} {
		c.must(t, p)
	}
	c.wantStored(t, "came again", storedOf(forged, 1))
	if c.stats.Duplicates != 2 || c.stats.Stored != 0 {
		t.Errorf("%+v", c.stats)
	}
}

// TestReplayedAcknowledgementsAreNotRepeated: of those in the journal, only
// whether the last was published is not known.
func TestReplayedAcknowledgementsAreNotRepeated(t *testing.T) {
	dir := t.TempDir()
	c := newCollector(t, dir, &strings.Builder{})
	var all []transport.Stored
	for seq := uint64(1); seq <= 4; seq++ {
		p := packet(t, transport.KindStatus, "job", recordHeader(seq), `{"state":"RUNNING"}`)
		c.must(t, p)
		all = append(all, storedOf(p, seq))
	}
	// The second failed, and what it named stands in the third.
	for i, named := range [][]transport.Stored{all[:1], all[1:2], all[1:3]} {
		ack := order.Ack{V: 1, Tenant: "lab", Device: device, Version: uint64(i) + 1, Stored: named}
		if err := errors.Join(c.note(entry{ReceivedAt: time.Now(), Ack: &ack}), c.flush()); err != nil {
			t.Fatal(err)
		}
	}
	c.stop(t)
	again := newCollector(t, dir, &strings.Builder{})
	again.wantStored(t, "replayed", all[1:]...)
	if d := again.devices[device]; d.version != 3 || !d.again {
		t.Errorf("version %d", d.version)
	}
}

// TestRecordIsFiledWhereverItComes: the digest that is acknowledged says nothing
// of the topic, and forged signatures take nobody's place.
func TestRecordIsFiledWhereverItComes(t *testing.T) {
	d := newDesk(t)
	d.furnish()
	data := d.read(d.visitRecords(acceptance.Pass)[0][1:])
	real, err := order.ParseEnvelope([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	dir, out := d.path("c"), &strings.Builder{}
	c := newCollector(t, dir, out)
	seq := uint64(0)
	send := func(kind transport.Kind, name string, env order.Envelope) {
		seq++
		body, err := json.Marshal(agent.RecordMessage{Order: "WO-7", Record: env})
		if err != nil {
			t.Fatal(err)
		}
		c.must(t, packet(t, kind, name, recordHeader(seq), string(body)))
	}
	for i := range byte(3) { // of the same content
		forged := real
		forged.Signatures = []order.Signature{{KeyID: real.Signatures[0].KeyID, Sig: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{i}, ed25519.SignatureSize))}}
		send(transport.KindRecord, "WO-7", forged)
	}
	send(transport.KindStatus, "record1", real)
	send(transport.KindTelemetry, "x", real)
	files, err := filepath.Glob(filepath.Join(dir, "records", device, "*.record"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%v %q\n%s", err, files, out)
	}
	found := 0
	for _, file := range files {
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(have) == data && record.Verify(have, record.VerifyOptions{}).Status == record.SignerUnknown {
			found++
		}
	}
	if found != 1 || len(c.devices[device].tracker.Stored()) != 5 {
		t.Errorf("filed %d times; %d wait", found, len(c.devices[device].tracker.Stored()))
	}
}

// TestRecordsAreConfirmedWithinSeconds: also more than one acknowledgement
// names, at the pace a collector has by default, and before it leaves.
func TestRecordsAreConfirmedWithinSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds, and a process to end")
	}
	broker := startBroker(t)
	d := newDesk(t)
	d.do("keygen", "--out", "@collector")
	dir := d.path("collected")
	cmd := program(t, "collect", "--broker", broker, "--dir", dir, "--key", d.path("collector.key"), "--tenant", "lab")
	key, _ := d.key("collector.key").Public().(ed25519.PublicKey)
	g := newFakeGateway(t, broker, dir, device, key)
	disk := newReader(dir)
	eventually(t, "something is stored", func() bool {
		g.publish(transport.ClassTelemetry)
		return len(disk.read()) > 0
	})
	held := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.held)
	}
	for range 40 {
		g.publish(transport.ClassRecord)
	}
	begun := time.Now()
	eventually(t, "a visit is confirmed", func() bool { return held() == 0 })
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("a visit took %v", took)
	}
	for range 150 {
		g.publish(transport.ClassRecord)
	}
	begun = time.Now()
	eventually(t, "three acknowledgements' worth are confirmed", func() bool { return held() == 0 })
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("three acknowledgements took %v", took)
	}
	for range 150 {
		g.publish(transport.ClassRecord)
	}
	eventually(t, "all is stored", func() bool { return disk.read()[number{device, transport.ClassRecord, 3, 340}] > 0 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	eventually(t, "what it left behind is confirmed", func() bool { return held() == 0 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.problem != nil {
		t.Error(g.problem)
	}
}
