package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/transport"
	"ontagent/transport/durable"
	"ontagent/transport/spool"
)

const device = "HWTC12345678"

// clock is both clocks of a gateway. It counts the headers that were made,
// which is how a test knows the number of every message.
type clock struct {
	now    time.Time
	stamps int
}

func newClock() *clock { return &clock{now: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Wall() (int64, string) {
	c.stamps++
	return c.now.UnixMilli(), transport.ClockNTP
}

func (c *clock) Uptime() time.Duration {
	return c.now.Sub(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
}
func (c *clock) Now() time.Time { return c.now }

// key names a message for good.
type key struct {
	class transport.Class
	epoch uint64
	seq   uint64
}

func (k key) String() string { return fmt.Sprintf("%s %d/%d", k.class, k.epoch, k.seq) }

func keyOf(h transport.Header) key { return key{h.Class, h.Epoch, h.Seq} }

// sent is a message that was put.
type sent struct {
	body string
	// durable is set once the spool said that it is.
	durable bool
}

// history is what was promised to somebody outside, and what they have.
type history struct {
	epoch uint64
	puts  map[key]sent
	// got is what arrived for good, gaps what of that were gaps.
	got  map[key]bool
	gaps []transport.Gap
}

func (h *history) clone() history {
	return history{h.epoch, maps.Clone(h.puts), maps.Clone(h.got), slices.Clone(h.gaps)}
}

// covers reports whether g says of k that it may never arrive.
func covers(g transport.Gap, k key) bool {
	switch {
	case g.Class != k.class:
		return false
	case k.epoch == g.Epoch:
		return k.seq >= g.FromSeq && (g.ToSeq == 0 || k.seq <= g.ToSeq)
	}
	return g.FromEpoch != 0 && k.epoch >= g.FromEpoch && k.epoch < g.Epoch
}

// told reports whether a gap covers k; blindly those count too by which a
// gateway says that it doesn't know.
func told(gaps []transport.Gap, k key, blindly bool) bool {
	return slices.ContainsFunc(gaps, func(g transport.Gap) bool {
		return covers(g, k) && (blindly || g.Reason != transport.GapRestart && g.Reason != transport.GapCorrupt)
	})
}

// style is how a gateway is configured.
type style struct {
	confirm spool.Confirmation
	// small bounds make telemetry drop; then it is never promised.
	small bool
}

func styleFor(seed uint64) style {
	return style{confirm: [...]spool.Confirmation{spool.BySignature, spool.ByBroker}[seed%2], small: seed/2%3 == 2}
}

func (s style) limits() map[transport.Class]spool.Limits {
	if !s.small {
		return nil
	}
	return map[transport.Class]spool.Limits{
		transport.ClassTelemetry: {FlashBytes: 16 << 10, Files: 6, RAMBytes: 16 << 10, RAMEntries: 24},
	}
}

// gateway is a spool in a directory, with its broker and its collector.
type gateway struct {
	style
	fs  *files
	dir string
	rnd *rand.Rand

	clock  *clock
	q      *spool.Queue
	nth    map[transport.Class]uint64 // numbers given in this life
	ids    int
	leased []transport.Entry
	online bool
	acks   uint64 // version of the last acknowledgement

	mu   sync.Mutex // guards hist, which others copy while the gateway works
	hist history

	problems []string
}

func newGateway(dir string, fsys *files, seed uint64) *gateway {
	return &gateway{
		style: styleFor(seed), fs: fsys, dir: dir, rnd: rand.New(rand.NewPCG(seed, 11)), clock: newClock(),
		hist: history{puts: map[key]sent{}, got: map[key]bool{}},
	}
}

func (g *gateway) fail(format string, args ...any) {
	if len(g.problems) < 8 {
		g.problems = append(g.problems, fmt.Sprintf("epoch %d: ", g.hist.epoch)+fmt.Sprintf(format, args...))
	}
}

// snapshot returns what was promised so far.
func (g *gateway) snapshot() history {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hist.clone()
}

func openSpool(fsys durable.FS, dir string, epoch uint64, c *clock, s style) (*spool.Queue, error) {
	stamper, err := transport.NewStamper(device, epoch, c)
	if err != nil {
		return nil, err
	}
	return spool.Open(spool.Options{
		Stamper: stamper, FS: fsys, Dir: filepath.Join(dir, "spool"), Limits: s.limits(), Confirm: s.confirm,
		BackfillBytesPerSecond: 1 << 30, Now: c.Now,
		// An image this small is never a tenth empty for long.
		Free: func() (int64, int64, error) { return 1 << 30, 1 << 30, nil },
	})
}

// start begins a life: a new epoch, then the spool.
func (g *gateway) start() error {
	epoch, err := durable.NextEpoch(g.fs, filepath.Join(g.dir, "epoch"))
	if err != nil {
		return err
	}
	if epoch <= g.hist.epoch {
		g.fail("epoch %d is given after %d", epoch, g.hist.epoch)
		epoch = g.hist.epoch + 1
	}
	g.mu.Lock()
	g.hist.epoch = epoch
	g.mu.Unlock()
	g.nth, g.leased, g.online = map[transport.Class]uint64{}, nil, false
	g.quietly(func() { g.q, err = openSpool(g.fs, g.dir, epoch, g.clock, g.style) })
	return err
}

// quietly does what makes no message but the spool's own events, which take
// numbers too.
func (g *gateway) quietly(f func()) {
	before := g.clock.stamps
	f()
	g.nth[transport.ClassEvent] += uint64(g.clock.stamps - before)
}

// add puts a message.
func (g *gateway) add(class transport.Class) {
	g.ids++
	m := transport.Message{Class: class, Body: fmt.Appendf(nil, `{"id":%d,"level_dbm":%d.5,"fill":"%s"}`,
		g.ids, -g.rnd.IntN(30), strings.Repeat("x", g.rnd.IntN(300)))}
	switch class {
	case transport.ClassRecord:
		m.Kind, m.Name = transport.KindRecord, "WO-"+strconv.Itoa(g.ids)
	case transport.ClassEvent:
		m.Kind, m.Name = transport.KindEvent, "link"
	default:
		m.Kind, m.Name = transport.KindTelemetry, "optics"
	}
	g.nth[class]++
	k := key{class, g.hist.epoch, g.nth[class]}
	// Known before the spool knows: the power may be cut before Put returns.
	g.mu.Lock()
	g.hist.puts[k] = sent{body: string(m.Body)}
	g.mu.Unlock()
	before := g.clock.stamps
	err := g.q.Put(context.Background(), m)
	g.nth[transport.ClassEvent] += uint64(g.clock.stamps - before - 1)
	switch {
	case err != nil && !errors.Is(err, transport.ErrNotDurable):
		g.fail("put of %v: %v", k, err)
	case err == nil && (class == transport.ClassRecord || class == transport.ClassEvent):
		g.promise(k)
	}
}

func (g *gateway) promise(k key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.hist.puts[k]
	s.durable = true
	g.hist.puts[k] = s
}

// next leases what waits.
func next(q *spool.Queue) (transport.Entry, bool) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e, err := q.Next(ctx)
	return e, err == nil
}

// settle ends a random lease.
func (g *gateway) settle() {
	if len(g.leased) == 0 {
		return
	}
	i := g.rnd.IntN(len(g.leased))
	e := g.leased[i]
	g.leased = slices.Delete(g.leased, i, i+1)
	if g.rnd.IntN(4) == 0 {
		g.quietly(func() { g.q.Return(e) })
		return
	}
	signed := g.confirm == spool.BySignature && (e.Header.Class == transport.ClassRecord || e.Header.Class == transport.ClassEvent)
	if !signed || g.rnd.IntN(4) != 0 { // else the broker loses it
		g.arrive(e)
	}
	g.quietly(func() { g.q.Done(e) })
}

// arrive is the collector storing e.
func (g *gateway) arrive(e transport.Entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hist.got[keyOf(e.Header)] = true
	if gap, ok := gapOf(e); ok {
		g.hist.gaps = append(g.hist.gaps, gap)
	}
}

func gapOf(e transport.Entry) (gap transport.Gap, ok bool) {
	if e.Message.Kind != transport.KindEvent || e.Message.Name != transport.EventGap {
		return gap, false
	}
	return gap, json.Unmarshal(e.Message.Body, &gap) == nil
}

// acknowledge is the collector signing for what it has.
func (g *gateway) acknowledge() {
	last := map[key]uint64{} // that arrived, by class and epoch
	for k := range g.hist.got {
		if k.class == transport.ClassRecord || k.class == transport.ClassEvent {
			of := key{k.class, k.epoch, 0}
			last[of] = max(last[of], k.seq)
		}
	}
	var points []transport.Point
	for of, end := range last {
		p := transport.Point{Class: of.class, Epoch: of.epoch}
		for p.Seq < end {
			k := key{of.class, of.epoch, p.Seq + 1}
			if !g.hist.got[k] && !told(g.hist.gaps, k, true) {
				break
			}
			p.Seq++
		}
		if p.Seq > 0 {
			points = append(points, p)
		}
	}
	g.acks++
	g.quietly(func() {
		if err := g.q.Acknowledge(g.acks, points); err != nil && !g.fs.dead.Load() {
			g.fail("acknowledgement: %v", err)
		}
	})
}

// flush makes everything durable, telemetry too.
func (g *gateway) flush() {
	var err error
	g.quietly(func() { err = g.q.Flush() })
	if err != nil || g.small {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, s := range g.hist.puts {
		if k.class == transport.ClassTelemetry && k.epoch == g.hist.epoch && !g.hist.got[k] {
			s.durable = true
			g.hist.puts[k] = s
		}
	}
}

// drain brings everything to the collector, which signs for it.
func (g *gateway) drain() {
	g.quietly(func() {
		for {
			e, ok := next(g.q)
			if !ok {
				return
			}
			g.arrive(e)
			g.q.Done(e)
		}
	})
	g.acknowledge()
	g.mu.Lock()
	defer g.mu.Unlock()
	for k := range g.hist.puts { // keeps checks quick
		if g.hist.got[k] {
			delete(g.hist.puts, k)
		}
	}
}

// writeback is the kernel writing what it likes when it likes: here, all of a
// file's data, but not what says that it is the file's.
func (g *gateway) writeback() {
	paths, _ := filepath.Glob(filepath.Join(g.dir, "spool", "*", "*"))
	if len(paths) == 0 {
		return
	}
	f, err := os.Open(paths[g.rnd.IntN(len(paths))])
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// step does something at random.
func (g *gateway) step() {
	switch n := g.rnd.IntN(44); {
	case n < 6:
		g.add(transport.ClassRecord)
	case n < 11:
		g.add(transport.ClassEvent)
	case n < 18:
		for range 1 + g.rnd.IntN(4) {
			g.add(transport.ClassTelemetry)
		}
	case n < 19:
		g.add(transport.ClassDebug)
	case n < 24:
		g.clock.now = g.clock.now.Add([...]time.Duration{
			10 * time.Millisecond, time.Second, 5 * time.Second, 31 * time.Second, 61 * time.Second, 11 * time.Minute,
		}[g.rnd.IntN(6)])
		g.quietly(g.q.Maintain)
	case n < 26:
		g.online = !g.online
		g.quietly(func() { g.q.Online(g.online) })
	case n < 32:
		g.quietly(func() {
			if e, ok := next(g.q); ok {
				g.leased = append(g.leased, e)
			}
		})
	case n < 38:
		g.settle()
	case n < 39:
		g.acknowledge()
	case n < 40:
		g.flush()
	case n < 42:
		g.writeback()
	default:
		g.quietly(g.q.Maintain)
	}
}

// end ends a life without a power cut: in good order, or by a kill.
func (g *gateway) end() {
	if g.rnd.IntN(2) == 0 {
		g.quietly(func() {
			if err := g.q.Close(); err != nil && !g.fs.dead.Load() {
				g.fail("close: %v", err)
			}
		})
	}
	g.fs.abandon()
}

// finding is what a check after a cut found.
type finding struct {
	acked     int // messages promised to be durable when the power went, and not yet with the collector
	lost      []key
	dropped   int   // covered by a gap
	uncovered []key // neither there nor in a gap
	problems  []string
}

// recovered is what a spool has after a cut.
type recovered struct {
	epoch   uint64
	entries map[key]transport.Entry
	gaps    []transport.Gap
}

// recoverAll reads a whole spool: what it holds is leased and returned, so that
// nothing changes but what the opening changed.
func recoverAll(q *spool.Queue, c *clock, epoch uint64) recovered {
	r := recovered{epoch: epoch, entries: map[key]transport.Entry{}}
	var leased []transport.Entry
	q.Online(true)
	for idle := 0; idle < 3; {
		q.Maintain()
		idle++
		for {
			e, ok := next(q)
			if !ok {
				break
			}
			idle = 0
			leased = append(leased, e)
			r.entries[keyOf(e.Header)] = e
			if gap, ok := gapOf(e); ok {
				r.gaps = append(r.gaps, gap)
			}
		}
		// Gaps are not told faster than every few seconds.
		c.now = c.now.Add(61 * time.Second)
	}
	for _, e := range leased {
		q.Return(e)
	}
	q.Online(false)
	return r
}

// check holds what came up after a cut against what was promised before the
// earliest moment of the cut, and what had arrived by its latest.
func check(before, after history, r recovered) (f finding) {
	gaps := append(slices.Clone(after.gaps), r.gaps...)
	for k, s := range after.puts {
		promised := before.puts[k].durable
		if promised && !after.got[k] {
			f.acked++
		}
		if e, here := r.entries[k]; here {
			if string(e.Message.Body) != s.body && !strings.Contains(string(e.Message.Body), "_min") {
				f.problems = append(f.problems, fmt.Sprintf("%v came up as %s, put was %s", k, e.Message.Body, s.body))
			}
			continue
		}
		switch {
		case after.got[k]:
		case k.class == transport.ClassDebug && k.epoch < r.epoch:
			// Debug is in memory alone, and nothing is told of it.
		case promised && !told(gaps, k, false):
			f.lost = append(f.lost, k)
		case !told(gaps, k, true):
			f.uncovered = append(f.uncovered, k)
		default:
			f.dropped++
		}
	}
	for k, e := range r.entries {
		if _, put := after.puts[k]; !put && !after.got[k] && e.Message.Kind != transport.KindEvent {
			f.problems = append(f.problems, fmt.Sprintf("%v was never put: %s", k, e.Message.Body))
		}
	}
	return f
}

// tally adds findings up.
type tally struct {
	cuts, acked, lost, dropped, uncovered int
	problems                              []string
}

func (t *tally) add(f finding, where string) {
	t.cuts++
	t.acked += f.acked
	t.lost += len(f.lost)
	t.dropped += f.dropped
	t.uncovered += len(f.uncovered)
	for _, k := range f.lost[:min(len(f.lost), 3)] {
		t.problem("%s: %v was acknowledged and is lost", where, k)
	}
	for _, k := range f.uncovered[:min(len(f.uncovered), 3)] {
		t.problem("%s: %v is neither there nor in a gap", where, k)
	}
	for _, p := range f.problems[:min(len(f.problems), 3)] {
		t.problem("%s: %s", where, p)
	}
}

func (t *tally) problem(format string, args ...any) {
	if len(t.problems) < 20 {
		t.problems = append(t.problems, fmt.Sprintf(format, args...))
	}
}

func (t *tally) String() string {
	return fmt.Sprintf("acknowledged loss %d of %d; %d drops, %d outside a gap", t.lost, t.acked, t.dropped, t.uncovered)
}
