package consumer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"ontagent/transport"
)

// place is an epoch and a class.
type place struct {
	epoch uint64
	class transport.Class
}

// message is what the simulated gateway sends.
type message struct {
	h    transport.Header
	kind transport.Kind
	name string
	body []byte
	gap  *transport.Gap
}

// gateway is a simulated one: it numbers, drops what it says it drops, restarts,
// and sends again what is not acknowledged.
type gateway struct {
	random *rand.Rand
	epoch  uint64
	boot   time.Time // wall time of the boot, which nobody there knows at first
	up     time.Duration
	seq    map[place]uint64
	held   []message // on flash, or on the way
	acked  map[place]uint64
	silent uint64 // first of the epochs that nothing is left of
}

func (g *gateway) put(class transport.Class, gap *transport.Gap) {
	p := place{g.epoch, class}
	g.seq[p]++
	m := message{kind: transport.KindStatus, name: "x", gap: gap}
	m.h = transport.Header{
		V: 1, Device: device, Epoch: g.epoch, Class: class, Seq: g.seq[p], UptimeS: g.up.Seconds(),
		TimeMS: g.boot.Add(g.up).UnixMilli(), Clock: transport.ClockNTP,
	}
	if gap != nil {
		m.kind, m.name = transport.KindEvent, transport.EventGap
	}
	m.body = encode(m.h, gap)
	g.held = append(g.held, m)
}

// encode makes a payload.
func encode(h transport.Header, body any) []byte {
	b, err := json.Marshal(body)
	if err == nil && string(b) == "null" {
		b = []byte("{}")
	}
	if err == nil {
		b, err = transport.Encode(h, b)
	}
	if err != nil {
		panic(err)
	}
	return b
}

// drop gives up a held message and says so.
func (g *gateway) drop(i int) {
	m := g.held[i]
	g.held = append(g.held[:i:i], g.held[i+1:]...)
	gap := transport.Gap{Class: m.h.Class, Epoch: m.h.Epoch, FromSeq: m.h.Seq, ToSeq: m.h.Seq, Count: 1, Reason: transport.GapClassFull}
	g.put(transport.ClassEvent, &gap)
	if m.gap != nil {
		again := *m.gap
		g.put(transport.ClassEvent, &again)
	}
}

// restart loses what is in memory: telemetry altogether, of the others the last
// few, and says so in the next epoch.
func (g *gateway) restart() {
	old := g.epoch
	lost := map[place]uint64{} // lowest lost
	again := []transport.Gap{}
	tail := g.random.IntN(4)
	keep := g.held[:0:0]
	for i, m := range g.held {
		volatile := m.h.Class == transport.ClassTelemetry || m.h.Class == transport.ClassDebug || i >= len(g.held)-tail
		if m.h.Epoch != old || !volatile {
			keep = append(keep, m)
			continue
		}
		if m.gap != nil {
			again = append(again, *m.gap)
		}
		p := place{old, m.h.Class}
		if lost[p] == 0 || m.h.Seq < lost[p] {
			lost[p] = m.h.Seq
		}
	}
	g.held = keep
	g.epoch += 1 + g.random.Uint64N(3) // starts that sent nothing
	for _, class := range classes() {
		p := place{old, class}
		from := g.seq[p] + 1
		if lost[p] > 0 {
			from = lost[p]
		}
		// A gap covers nothing that is still here, of what is acknowledged.
		if class == transport.ClassRecord || class == transport.ClassEvent {
			for _, m := range keep {
				if m.h.Epoch == old && m.h.Class == class && m.h.Seq >= from {
					from = m.h.Seq + 1
				}
			}
			if lost[p] > 0 && from > lost[p] {
				again = append(again, transport.Gap{Class: class, Epoch: old, FromSeq: lost[p], ToSeq: lost[p], Count: 1, Reason: transport.GapCorrupt})
			}
		}
		gap := transport.Gap{Class: class, Epoch: old, FromSeq: from, Reason: transport.GapRestart}
		if g.silent > 0 && g.random.IntN(2) == 0 {
			gap.FromEpoch = g.silent
		}
		g.put(transport.ClassEvent, &gap)
	}
	g.silent = 0
	if g.epoch > old+1 {
		g.silent = old + 1
	}
	for _, gap := range again {
		g.put(transport.ClassEvent, &gap)
	}
	g.up += time.Minute
}

// ack forgets what is acknowledged, and reports what was never received.
func (g *gateway) ack(points []transport.Point, stored []transport.Stored, received map[place]map[uint64]bool) (never []message) {
	for _, p := range points {
		g.acked[place{p.Epoch, p.Class}] = p.Seq
	}
	named := map[transport.Stored]bool{}
	for _, s := range stored {
		named[s] = true
	}
	keep := g.held[:0:0]
	for _, m := range g.held {
		p := place{m.h.Epoch, m.h.Class}
		switch {
		case m.h.Seq > g.acked[p] && !named[digestOf(m)]:
			keep = append(keep, m)
		case !received[p][m.h.Seq]:
			never = append(never, m)
		}
	}
	g.held = keep
	return never
}

// digestOf is what an acknowledgement must name for the gateway to forget m.
func digestOf(m message) transport.Stored {
	sum := sha256.Sum256(m.body)
	return transport.Stored{Class: m.h.Class, Epoch: m.h.Epoch, Seq: m.h.Seq, SHA256: hex.EncodeToString(sum[:])}
}

// truth is the account kept the plain way: number by number.
type truth struct {
	received map[place]map[uint64]bool
	told     map[place]map[uint64]bool // finite ranges
	open     map[place]uint64          // lowest number of an open range
	first    map[place]uint64          // lowest number that was not from before our time
	top      map[place]uint64
}

func newTruth() *truth {
	return &truth{map[place]map[uint64]bool{}, map[place]map[uint64]bool{}, map[place]uint64{}, map[place]uint64{}, map[place]uint64{}}
}

func (r *truth) mark(m map[place]map[uint64]bool, p place, n uint64) {
	if m[p] == nil {
		m[p] = map[uint64]bool{}
	}
	m[p][n] = true
	r.top[p] = max(r.top[p], n)
}

// begin notes where the account of a place begins.
func (r *truth) begin(p place, n uint64, cold bool) {
	if _, ok := r.first[p]; !ok {
		if r.first[p] = n; !cold {
			r.first[p] = 1
		}
	}
}

func (r *truth) observe(m message, cold uint64) {
	p := place{m.h.Epoch, m.h.Class}
	r.begin(p, m.h.Seq, p.epoch <= cold)
	r.mark(r.received, p, m.h.Seq)
	if g := m.gap; g != nil {
		p := place{g.Epoch, g.Class}
		r.begin(p, g.FromSeq, p.epoch <= cold)
		if g.ToSeq == 0 {
			if r.open[p] == 0 || g.FromSeq < r.open[p] {
				r.open[p] = g.FromSeq
			}
			r.top[p] = max(r.top[p], g.FromSeq-1)
			for e := g.FromEpoch; e > 0 && e < g.Epoch; e++ {
				r.open[place{e, g.Class}] = 1
			}
			return
		}
		for n := g.FromSeq; n <= g.ToSeq; n++ {
			r.mark(r.told, p, n)
		}
	}
}

func (r *truth) accounted(p place, n uint64) bool {
	return r.received[p][n] || r.told[p][n] || r.open[p] > 0 && n >= r.open[p]
}

func (r *truth) missing(p place) (n uint64) {
	for seq := r.first[p]; seq <= r.top[p]; seq++ {
		if !r.accounted(p, seq) {
			n++
		}
	}
	return n
}

// TestReliabilityAccount plays gateways whose messages are lost, doubled and
// reordered, that drop and restart, and a collector that comes in anywhere and
// is restored from its snapshot now and then: what the Tracker says must be what
// an account number by number says, and no acknowledgement may cost a message.
func TestReliabilityAccount(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs = 30
	}
	if os.Getenv("LONG") == "1" {
		runs = 10000
	}
	messages, dups := 0, 0
	for seed := range runs {
		n, d := play(t, uint64(seed))
		messages += n
		dups += d
		if t.Failed() {
			t.Fatalf("reliability: duplicates | collector's account, number by number | %d | wrong with seed %d | FAIL", runs, seed)
		}
	}
	t.Logf("reliability: duplicates | collector's account, number by number | %d | "+
		"%d messages lost, doubled and reordered over restarts, %d came again: none told wrong, nothing acknowledged that was neither received nor told | ok",
		runs, messages, dups)
}

func play(t *testing.T, seed uint64) (messages, duplicates int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 77))
	g := &gateway{random: random, epoch: 1 + random.Uint64N(50), boot: start, seq: map[place]uint64{}, acked: map[place]uint64{}}
	o := Options{Grace: -1, Digests: []int{0, 4}[random.IntN(2)]}
	tr := NewTracker(device, o)
	r := newTruth()
	at := start
	all := classes()
	joined := random.IntN(2) * random.IntN(200)
	loss := random.IntN(40)
	var way []message // on the way, to come in any order
	steps := 100 + random.IntN(400)
	deliver := func(m message) {
		at = at.Add(time.Duration(random.IntN(60)) * time.Second)
		p := place{m.h.Epoch, m.h.Class}
		before := r.received[p][m.h.Seq]
		out := tr.Observe(at, m.h, m.kind, m.name, m.body)
		messages++
		if before {
			duplicates++
		}
		// Of a record that is not remembered nobody knows which content it had.
		known := out.Verdict == Duplicate || m.h.Class == transport.ClassRecord && out.Verdict == Late
		if known != before || !before && out.Verdict != New {
			t.Errorf("%+v is %v, came before: %v", m.h, out.Verdict, before)
		}
		if before {
			return
		}
		r.observe(m, tr.cold)
		if m.gap != nil && out.Gap == nil {
			t.Errorf("gap %+v in epoch %d ignored: %s", m.gap, m.h.Epoch, out.Ignored)
		}
	}
	for step := range steps {
		g.up += time.Duration(random.IntN(5000)) * time.Millisecond
		switch n := random.IntN(100); {
		case n < 60:
			g.put(all[random.IntN(len(all))], nil)
		case n < 64 && len(g.held) > 0:
			g.drop(random.IntN(len(g.held)))
		case n < 66:
			g.restart()
		case n < 70 && step > joined:
			stored := tr.Stored()
			if never := g.ack(tr.Checkpoint(), stored, r.received); len(never) > 0 {
				t.Errorf("acknowledged and never received: %+v", never)
			}
			tr.Acknowledged(stored)
		case n < 72:
			data, err := json.Marshal(tr)
			if err == nil {
				tr, err = Restore(data, o)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		// Everything is sent at least once, some of it again.
		for _, m := range g.held {
			if random.IntN(8) == 0 {
				way = append(way, m)
			}
		}
		for len(way) > 0 && random.IntN(3) > 0 {
			i := random.IntN(len(way))
			m := way[i]
			way[i] = way[len(way)-1]
			way = way[:len(way)-1]
			if step >= joined && random.IntN(100) >= loss {
				deliver(m)
			}
		}
		if len(way) > 200 {
			way = way[100:]
		}
	}
	compare(t, tr, r)
	// At last everything that is still there comes through.
	for _, m := range g.held {
		if !r.received[place{m.h.Epoch, m.h.Class}][m.h.Seq] {
			deliver(m)
		}
	}
	compare(t, tr, r)
	return messages, duplicates
}

// compare holds the Tracker's account to the truth.
func compare(t *testing.T, tr *Tracker, r *truth) {
	t.Helper()
	for _, a := range tr.Accounts() {
		p := place{a.Epoch, a.Class}
		want := fmt.Sprintf("received %d missing %d top %d open %v", len(r.received[p]), r.missing(p), r.top[p], r.open[p] > 0)
		got := fmt.Sprintf("received %d missing %d top %d open %v", a.Received, a.Missing, tr.find(a.Epoch).sets[index(a.Class)].top, a.Open)
		if got != want {
			t.Errorf("%v: %s, truth %s", p, got, want)
		}
	}
	seen := map[place]bool{}
	for _, a := range tr.Accounts() {
		seen[place{a.Epoch, a.Class}] = true
	}
	for p := range r.received {
		if !seen[p] {
			t.Errorf("%v: no account", p)
		}
	}
	for _, point := range tr.Checkpoint() {
		p := place{point.Epoch, point.Class}
		if point.Class != transport.ClassEvent {
			t.Errorf("%+v: acknowledged by number", point)
		}
		if point.Seq > r.top[p] {
			t.Errorf("%v: acknowledged up to %d, given up to %d", p, point.Seq, r.top[p])
			continue
		}
		for n := uint64(1); n <= point.Seq; n++ {
			if !r.accounted(p, n) {
				t.Errorf("%v: acknowledged up to %d, but %d is neither received nor told", p, point.Seq, n)
				break
			}
		}
		if next := point.Seq + 1; r.received[p][next] {
			t.Errorf("%v: acknowledged up to %d only", p, point.Seq)
		}
	}
}

// FuzzObserve feeds anything: no panic, bounded memory, a snapshot that can be
// restored and says the same, and no point above what was received.
func FuzzObserve(f *testing.F) {
	f.Add([]byte{1, 0, 0, 1, 1, 0, 0, 2, 1, 1, 0, 9, 4, 2, 1, 3})
	f.Add([]byte("a gateway says what it likes, and so does everyone else"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Options{Epochs: 5, Ranges: 16, Grace: time.Minute, Digests: 4, Waiting: 3}
		stored := map[transport.Stored]bool{}
		tr := NewTracker(device, o)
		at := start
		high := map[place]uint64{}
		numbers := [...]uint64{1, 2, 3, 5, 8, 13, 1 << 20, 1 << 24, 1<<24 + 1, 1 << 40, 1 << 63, math.MaxUint64 - 1, math.MaxUint64, 0}
		all := append([]transport.Class{transport.ClassSession, "x"}, transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry, transport.ClassDebug)
		for len(data) >= 8 {
			pick := func(i int) uint64 {
				n := numbers[int(data[i])%len(numbers)]
				return n + uint64(data[i])/uint64(len(numbers)) // may wrap
			}
			at = at.Add(time.Duration(data[7]) * time.Second)
			h := transport.Header{
				V: 1, Device: device, Epoch: pick(0), Class: all[int(data[1])%len(all)], Seq: max(1, pick(2)),
				UptimeS: float64(pick(3)), TimeMS: start.UnixMilli() + int64(pick(4)), Clock: transport.ClockNTP,
			}
			body := data[5:8]
			if data[6]%2 == 0 {
				body, _ = json.Marshal(transport.Gap{
					Class: all[int(data[3])%len(all)], FromEpoch: pick(4) * uint64(data[6]&2), Epoch: pick(5), FromSeq: pick(6), ToSeq: pick(7),
					Reason: transport.GapRestart,
				})
			}
			out := tr.Observe(at, h, transport.KindEvent, transport.EventGap, body)
			if p := (place{h.Epoch, h.Class}); out.Verdict == New {
				high[p] = max(high[p], h.Seq)
			}
			if h.Class == transport.ClassRecord {
				s := digestOf(message{h: h, body: body})
				if out.Verdict == Duplicate && !stored[s] {
					t.Fatalf("%+v is a duplicate, and is not stored", s)
				}
				stored[s] = true
			}
			for _, s := range tr.Stored() {
				if !stored[s] || s.Epoch == 0 || s.Seq == 0 {
					t.Fatalf("%+v is to be acknowledged, and is not stored", s)
				}
			}
			if len(tr.ledger.kept) > o.Digests || tr.Waiting() > o.Waiting {
				t.Fatalf("%d digests, %d waiting", len(tr.ledger.kept), tr.Waiting())
			}
			if data[7]%3 == 0 {
				tr.Acknowledged(tr.Stored())
			}
			data = data[8:]
			if n := tr.ranges(); n > o.Ranges+3*4*o.Epochs || len(tr.epochs) > o.Epochs {
				t.Fatalf("%d ranges, %d epochs", n, len(tr.epochs))
			}
			for _, p := range tr.Checkpoint() {
				if p.Seq > high[place{p.Epoch, p.Class}] || p.Seq == 0 || p.Epoch == 0 {
					t.Fatalf("point %+v, highest received %d", p, high[place{p.Epoch, p.Class}])
				}
			}
			tr.Date(h.Epoch, h.UptimeS)
		}
		snap, err := json.Marshal(tr)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Restore(snap, o)
		if err != nil {
			t.Fatalf("%v: %s", err, snap)
		}
		twice, err := json.Marshal(again)
		if err != nil || string(twice) != string(snap) {
			t.Fatalf("%v\n%s\n%s", err, snap, twice)
		}
	})
}
