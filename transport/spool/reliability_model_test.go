package spool_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable/faultfs"
	"ontagent/transport/spool"
)

const (
	testDevice = "HWTC12345678"
	testDir    = "/spool"
)

// reliability prints the line of one measured property and fails the test where
// it does not hold.
func reliability(t *testing.T, property, variant string, trials int, ok bool, format string, args ...any) {
	t.Helper()
	verdict := "ok"
	if !ok {
		verdict = "FAIL"
		t.Fail()
	}
	t.Logf("reliability: %s | %s | %d | %s | %s", property, variant, trials, fmt.Sprintf(format, args...), verdict)
}

// size picks how much of a property is tried.
func size(tiny, short, long int) int {
	switch {
	case testing.Short():
		return tiny
	case os.Getenv("LONG") != "":
		return long
	}
	return short
}

// clock is both clocks of a gateway. It counts the headers that were made,
// which is how a test knows the number of every message.
type clock struct {
	now    time.Time // monotonic
	boot   time.Time
	wall   time.Duration // what the time of day is ahead of now
	stamps int
}

func newClock() *clock {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	return &clock{now: at, boot: at}
}

func (c *clock) Wall() (int64, string) {
	c.stamps++
	return c.now.Add(c.wall).UnixMilli(), transport.ClockNTP
}

func (c *clock) Uptime() time.Duration { return c.now.Sub(c.boot) }
func (c *clock) Now() time.Time        { return c.now }

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
	id   int
	key  key
	body string
	// durable is set once the message was promised, or seen, to survive.
	durable bool
	// kept is set where the power cut last found it on the disk for sure.
	kept bool
}

// collector is the far end: what arrived and what was reported lost.
type collector struct {
	got     map[key]string
	gaps    []transport.Gap
	version uint64
	order   []key // as it arrived, first arrivals only
}

// covers reports whether g says of k that it may never arrive.
func covers(g transport.Gap, k key) bool {
	if g.Class != k.class {
		return false
	}
	if k.epoch == g.Epoch {
		return k.seq >= g.FromSeq && (g.ToSeq == 0 || k.seq <= g.ToSeq)
	}
	return g.FromEpoch != 0 && k.epoch >= g.FromEpoch && k.epoch < g.Epoch
}

// accounted reports whether k arrived or lies in a gap; blind gaps are those of
// a restart and of what does not hold any more.
func (c *collector) accounted(k key, blind bool) bool {
	if _, ok := c.got[k]; ok {
		return true
	}
	for _, g := range c.gaps {
		if covers(g, k) && (blind || g.Reason != transport.GapRestart && g.Reason != transport.GapCorrupt) {
			return true
		}
	}
	return false
}

// points are the checkpoint that a collector would sign, as far as it dares to.
func (c *collector) points() []transport.Point {
	top := map[key]uint64{}
	for k := range c.got {
		at := key{k.class, k.epoch, 0}
		top[at] = max(top[at], k.seq)
	}
	for _, g := range c.gaps {
		at := key{g.Class, g.Epoch, 0}
		top[at] = max(top[at], g.ToSeq)
	}
	var points []transport.Point
	for at, last := range top {
		if at.class != transport.ClassRecord && at.class != transport.ClassEvent {
			continue
		}
		seq := uint64(0)
		for seq < last && c.accounted(key{at.class, at.epoch, seq + 1}, true) {
			seq++
		}
		if seq > 0 {
			points = append(points, transport.Point{Class: at.class, Epoch: at.epoch, Seq: seq})
		}
	}
	slices.SortFunc(points, func(a, b transport.Point) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return points
}

// world is a gateway with a simulated disk, its broker and its collector.
type world struct {
	disk    *faultfs.FS
	rnd     *rand.Rand
	clock   *clock
	confirm spool.Confirmation
	limits  map[transport.Class]spool.Limits

	epoch  uint64
	q      *spool.Queue
	nth    map[transport.Class]uint64 // numbers given in this life
	ids    int
	put    map[key]*sent
	byID   map[int]*sent
	leased []transport.Entry
	given  map[key]bool // leased once or more in this life
	online bool
	col    collector
	acks   [][]transport.Point // by version, from 1

	// must says that a message has to arrive; nil means those that were on the
	// disk for sure when the power was last cut.
	must func(*sent) bool
	// full says that the disk may be in trouble for good.
	full bool

	rollups  int
	both     map[key]bool // came as a sample and in a rollup
	promised int
	drops    map[transport.Class]uint64 // counted in lives that ended
	silent   int                        // dropped, but reported as a restart
	problems []string
	tell     func(format string, args ...any) // of what happens; nil means silence
}

// say tells who debugs a schedule what happens in it.
func (w *world) say(format string, args ...any) {
	if w.tell != nil {
		w.tell(fmt.Sprintf("epoch %d, call %d: ", w.epoch, w.disk.Calls())+format, args...)
	}
}

func newWorld(like faultfs.Like, seed uint64) *world {
	return &world{
		disk: faultfs.New(like, seed), rnd: rand.New(rand.NewPCG(seed, 7)), clock: newClock(),
		put: map[key]*sent{}, byID: map[int]*sent{}, col: collector{got: map[key]string{}},
		drops: map[transport.Class]uint64{}, both: map[key]bool{},
	}
}

// fail notes what must not be.
func (w *world) fail(format string, args ...any) {
	if len(w.problems) < 8 {
		w.problems = append(w.problems, fmt.Sprintf("epoch %d: ", w.epoch)+fmt.Sprintf(format, args...))
	}
}

// start begins a life.
func (w *world) start() error {
	w.epoch++
	w.nth, w.leased, w.given, w.online = map[transport.Class]uint64{}, nil, map[key]bool{}, false
	stamper, err := transport.NewStamper(testDevice, w.epoch, w.clock)
	if err != nil {
		return err
	}
	w.say("open: %v", w.disk.Files())
	w.quietly(func() {
		w.q, err = spool.Open(spool.Options{
			Stamper: stamper, FS: w.disk, Dir: testDir, Limits: w.limits, Confirm: w.confirm,
			BackfillBytesPerSecond: 1 << 30, Now: w.clock.Now,
		})
	})
	return err
}

// quietly does what makes no message but gap events, which take numbers too.
func (w *world) quietly(f func()) {
	before := w.clock.stamps
	f()
	w.nth[transport.ClassEvent] += uint64(w.clock.stamps - before)
}

// message makes a message of a class, and its id.
func (w *world) message(class transport.Class) (transport.Message, int) {
	w.ids++
	id := w.ids
	fill := strings.Repeat("x", w.rnd.IntN(200))
	body := fmt.Appendf(nil, `{"id":%d,"level_dbm":%d.5,"fill":"%s"}`, id, -w.rnd.IntN(30), fill)
	m := transport.Message{Class: class, Body: body}
	switch class {
	case transport.ClassRecord:
		m.Kind, m.Name = transport.KindRecord, "WO-"+strconv.Itoa(id)
		if id%2 == 0 {
			m.Kind, m.Name = transport.KindStatus, "c"+strconv.Itoa(id)
		}
	case transport.ClassEvent:
		m.Kind, m.Name = transport.KindEvent, "link"
	default:
		m.Kind, m.Name = transport.KindTelemetry, "optics"
	}
	return m, id
}

// add puts a message of a class.
func (w *world) add(class transport.Class) {
	m, id := w.message(class)
	drops := w.dropped()[class]
	before := w.clock.stamps
	err := w.q.Put(context.Background(), m)
	w.nth[class]++
	s := &sent{id: id, key: key{class, w.epoch, w.nth[class]}, body: string(m.Body)}
	w.nth[transport.ClassEvent] += uint64(w.clock.stamps - before - 1)
	w.put[s.key], w.byID[id] = s, s
	w.say("put %v, id %d: %v", s.key, id, err)
	switch {
	case err != nil && !errors.Is(err, transport.ErrNotDurable):
		w.fail("put of %v: %v", s.key, err)
	case err == nil && (class == transport.ClassRecord || class == transport.ClassEvent):
		s.durable = true
		w.promised++
		if !w.onDisk()[id] && w.dropped()[class] == drops {
			w.fail("%v was acknowledged, but is not on the disk", s.key)
		}
	}
}

// onDisk returns the ids of messages that are on the disk for sure, whole or as
// the number of a rollup.
func (w *world) onDisk() map[int]bool {
	found := map[int]bool{}
	for _, path := range w.disk.Files() {
		data, _ := w.disk.Durable(path)
		for id, rest := range numbersBehind(data, `{"id":`) {
			if s := w.byID[id]; s != nil && bytes.HasPrefix(rest, []byte(s.body[strings.IndexByte(s.body, ','):])) {
				found[id] = true
			}
		}
		for id := range numbersBehind(data, `"id_max":`) {
			found[id] = true
		}
	}
	return found
}

// numbersBehind yields the whole numbers that follow key in data, and what
// follows them.
func numbersBehind(data []byte, key string) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for {
			_, rest, more := bytes.Cut(data, []byte(key))
			end := bytes.IndexByte(rest, ',')
			if !more || end < 0 {
				return
			}
			data = rest
			if n, err := strconv.Atoi(string(rest[:end])); err == nil && !yield(n, rest[end:]) {
				return
			}
		}
	}
}

// next leases what waits, if anything does.
func (w *world) next() (e transport.Entry, ok bool) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.quietly(func() {
		var err error
		e, err = w.q.Next(ctx)
		ok = err == nil
	})
	if ok {
		w.say("next %v %s %.60s", keyOf(e.Header), e.Message.Name, e.Message.Body)
		w.check(e)
		w.given[keyOf(e.Header)] = true
	}
	return e, ok
}

// check holds a delivered entry against what was put.
func (w *world) check(e transport.Entry) {
	k := keyOf(e.Header)
	if e.Header.Class != e.Message.Class || e.Header.Device != testDevice || e.Header.V != transport.Version {
		w.fail("%v has header %+v", k, e.Header)
	}
	if before, again := w.col.got[k]; again && before != string(e.Message.Body) {
		if k.class != transport.ClassTelemetry || !isRollup([]byte(before)) && !isRollup(e.Message.Body) {
			w.fail("%v came as %s and as %s", k, before, e.Message.Body)
		}
		w.both[k] = true
	}
	if e.Message.Kind == transport.KindEvent && e.Message.Name == "spool" && w.put[k] == nil {
		return // about the spool itself
	}
	if e.Message.Name == transport.EventGap {
		var g transport.Gap
		if err := json.Unmarshal(e.Message.Body, &g); err != nil || g.FromSeq == 0 && g.FromEpoch == 0 {
			w.fail("%v is gap %s, %v", k, e.Message.Body, err)
		}
		if w.put[k] != nil {
			w.fail("%v is a gap, and %s was put under that number", k, w.put[k].body)
		}
		return
	}
	s := w.put[k]
	switch {
	case s == nil:
		w.fail("%v was never put: %s", k, e.Message.Body)
	case s.body == string(e.Message.Body):
	case k.class == transport.ClassTelemetry && isRollup(e.Message.Body):
		w.rollups++
	default:
		w.fail("%v is %s, but %s was put", k, e.Message.Body, s.body)
	}
}

// isRollup reports whether body carries a range of values that were put.
func isRollup(body []byte) bool {
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		return false
	}
	low, ok1 := fields["level_dbm_min"].(float64)
	high, ok2 := fields["level_dbm_max"].(float64)
	mid, ok3 := fields["level_dbm"].(float64)
	return ok1 && ok2 && ok3 && -30 <= low && low <= mid && mid <= high && high <= 0.5
}

// arrive is the collector storing e.
func (w *world) arrive(e transport.Entry) {
	k := keyOf(e.Header)
	if _, again := w.col.got[k]; again {
		return
	}
	w.col.got[k] = string(e.Message.Body)
	w.col.order = append(w.col.order, k)
	if e.Message.Name == transport.EventGap {
		var g transport.Gap
		if json.Unmarshal(e.Message.Body, &g) == nil {
			w.col.gaps = append(w.col.gaps, g)
		}
	}
}

// settle ends a random lease.
func (w *world) settle() {
	if len(w.leased) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.leased))
	e := w.leased[i]
	w.leased = slices.Delete(w.leased, i, i+1)
	signed := w.confirm == spool.BySignature && (e.Header.Class == transport.ClassRecord || e.Header.Class == transport.ClassEvent)
	if w.rnd.IntN(4) == 0 {
		if w.rnd.IntN(2) == 0 { // it arrived, but its acknowledgement did not
			w.arrive(e)
		}
		w.say("return %v", keyOf(e.Header))
		w.quietly(func() { w.q.Return(e) })
		return
	}
	lost := signed && w.rnd.IntN(5) == 0 // by the broker
	if !lost {
		w.arrive(e)
	}
	w.say("done %v, lost %v", keyOf(e.Header), lost)
	w.quietly(func() { w.q.Done(e) })
}

// acknowledge is the collector signing, and the gateway hearing of it, late,
// twice or never.
func (w *world) acknowledge() {
	w.col.version++
	w.acks = append(w.acks, w.col.points())
	i := len(w.acks) - 1
	if w.rnd.IntN(4) == 0 {
		i = w.rnd.IntN(len(w.acks))
	}
	w.deliver(i)
}

func (w *world) deliver(i int) {
	var err error
	w.quietly(func() { err = w.q.Acknowledge(uint64(i+1), w.acks[i]) })
	w.say("acknowledge %d %v: %v", i+1, w.acks[i], err)
	if err != nil && !errors.Is(err, spool.ErrStale) && !w.disk.IsCut() {
		w.fail("acknowledgement %d: %v", i+1, err)
	}
}

func (w *world) setOnline(online bool) {
	w.online = online
	w.say("online %v", online)
	w.quietly(func() { w.q.Online(online) })
}

// step does something at random.
func (w *world) step() {
	switch n := w.rnd.IntN(40); {
	case n < 4:
		w.add(transport.ClassRecord)
	case n < 8:
		w.add(transport.ClassEvent)
	case n < 16:
		for range 1 + w.rnd.IntN(3) {
			w.add(transport.ClassTelemetry)
		}
	case n < 17:
		w.add(transport.ClassDebug)
	case n < 22:
		w.clock.now = w.clock.now.Add([...]time.Duration{
			10 * time.Millisecond, time.Second, 5 * time.Second, 31 * time.Second, 61 * time.Second, 11 * time.Minute,
		}[w.rnd.IntN(6)])
		w.quietly(w.q.Maintain)
	case n < 24:
		w.setOnline(!w.online)
	case n < 30:
		if e, ok := w.next(); ok {
			w.leased = append(w.leased, e)
		}
	case n < 36:
		w.settle()
	case n < 37:
		w.acknowledge()
	case n < 38:
		w.flush()
	default:
		w.quietly(w.q.Maintain)
	}
}

func (w *world) flush() {
	var err error
	w.quietly(func() { err = w.q.Flush() })
	if err != nil || w.disk.IsCut() {
		return
	}
	on := w.onDisk()
	for k, s := range w.put {
		if k.epoch == w.epoch && k.class == transport.ClassTelemetry && on[s.id] {
			s.durable = true
		}
	}
}

// dropped are the messages of each class that this life dropped.
func (w *world) dropped() map[transport.Class]uint64 {
	d := map[transport.Class]uint64{}
	for _, s := range w.q.Stats() { // takes a number of the session's, which means nothing
		d[s.Class] = s.Dropped
	}
	return d
}

// end ends a life: by a power cut, a kill, or in good order. What a power cut
// found on the disk must come up again.
func (w *world) end(how string) {
	dropped := w.dropped()
	w.say("%s, dropped %v, health %+v", how, dropped, w.q.Health())
	switch how {
	case "close":
		w.quietly(func() {
			if err := w.q.Close(); err != nil && !w.disk.IsCut() && !w.full {
				w.fail("close: %v", err)
			}
		})
		dropped = w.dropped()
		if how = "closed"; w.disk.IsCut() {
			how = "cut"
			break
		}
		w.disk.Kill()
	case "kill":
		w.disk.Kill()
	}
	on := w.onDisk()
	vanished := map[transport.Class]uint64{}
	for k, s := range w.put {
		was := s.durable || s.kept
		// What an earlier life left may be torn: its body, but not its checksum.
		s.kept = on[s.id] && (s.durable || k.epoch == w.epoch)
		s.durable = s.durable || s.kept
		if was && !s.kept && !w.col.accounted(k, true) {
			vanished[k.class]++
			w.say("vanished: %v", k)
		}
	}
	for class, n := range dropped {
		w.drops[class] += n
	}
	for class, n := range vanished {
		if n > w.drops[class] {
			w.fail("%d messages of class %s were durable and are nowhere; %d drops are counted", n, class, w.drops[class])
		}
	}
	if how == "cut" {
		w.disk.PowerOn()
	}
}

// drain brings everything to the collector and says what is missing.
func (w *world) drain() {
	w.setOnline(true)
	mark, before := maps.Clone(w.nth), maps.Clone(w.given)
	for _, e := range w.leased {
		w.q.Return(e)
	}
	w.leased = nil
	w.col.order = nil
	idle := 0
	// What the broker lost goes again after ten minutes at first, at last after
	// a day; what could not be read is tried again after ten minutes.
	const soon, later, late = 6 * time.Second, 11 * time.Minute, 25 * time.Hour
	waits := []time.Duration{0, soon, soon, soon, soon, later, later, later, late, late}
	for round := 0; idle < len(waits) && (idle < 4 || w.depth() > 0) && round < 400; round++ {
		w.quietly(w.q.Maintain)
		idle++
		for range 20000 {
			e, ok := w.next()
			if !ok {
				break
			}
			idle = 0
			w.arrive(e)
			w.quietly(func() { w.q.Done(e) })
		}
		w.acks = append(w.acks, w.col.points())
		w.deliver(len(w.acks) - 1)
		w.clock.now = w.clock.now.Add(waits[min(idle, len(waits)-1)])
	}
	w.inOrder(mark, before)
	for k, s := range w.put {
		switch {
		case k.class == transport.ClassDebug && k.epoch != w.epoch:
			// In memory only, and worth no word about a life that ended.
		case w.col.accounted(k, false):
		case w.must == nil && s.kept || w.must != nil && w.must(s):
			w.fail("%v was on the disk when the power was cut, and never came: %s; gaps %+v", k, s.body[:20], w.col.gaps)
		case !w.col.accounted(k, true):
			w.fail("%v never came and lies in no gap (durable %v)", k, s.durable)
		case s.durable:
			w.silent++
		}
	}
	for _, s := range w.q.Stats() {
		if s.Depth != 0 {
			w.fail("after everything was acknowledged, %d messages of class %s are left", s.Depth, s.Class)
		}
	}
	if n := len(w.disk.Files()); n > 16 {
		w.fail("after everything was acknowledged, %d files are left", n)
	}
}

// depth is what is left in the queue, gaps that wait included.
func (w *world) depth() (n int) {
	for _, s := range w.q.Stats() {
		n += s.Depth
	}
	return n
}

// inOrder holds first arrivals of the drain to their order: of a class first
// what is new, and each part in the order of its numbers – but for what was given
// before.
func (w *world) inOrder(mark map[transport.Class]uint64, before map[key]bool) {
	type lane struct {
		class transport.Class
		live  bool
	}
	last := map[lane]key{}
	for _, k := range w.col.order {
		if before[k] {
			continue
		}
		l := lane{k.class, k.epoch == w.epoch && k.seq > mark[k.class]}
		if p := last[l]; p.epoch > k.epoch || p.epoch == k.epoch && p.seq >= k.seq {
			w.fail("%v came after %v", k, p)
		}
		last[l] = k
	}
}

// bounded holds what the queue takes to its limits.
func (w *world) bounded() {
	for _, s := range w.q.Stats() {
		l, ok := w.limits[s.Class]
		if !ok {
			continue
		}
		if s.Files > max(4, l.Files)+2 || s.FlashBytes > l.FlashBytes+8<<10 {
			w.fail("class %s takes %d files, %d bytes; limits are %+v", s.Class, s.Files, s.FlashBytes, l)
		}
	}
}

func report(t *testing.T, w *world, seed uint64, what string) {
	t.Helper()
	for _, p := range w.problems {
		t.Errorf("%s, seed %d: %s", what, seed, p)
	}
}

// segments are the files of a class, oldest first.
func segments(disk *faultfs.FS, class transport.Class) []string {
	var paths []string
	for _, path := range disk.Files() {
		if filepath.Base(filepath.Dir(path)) == string(class) {
			paths = append(paths, path)
		}
	}
	return paths
}

// twin returns a gateway in the same state, with a disk of its own. What was
// put is shared.
func (w *world) twin(seed uint64) *world {
	c := newWorld(faultfs.Ext4, seed)
	c.disk = w.disk.Clone(seed)
	c.confirm, c.limits, c.epoch = w.confirm, w.limits, w.epoch
	at := *w.clock
	c.clock = &at
	c.put, c.byID, c.ids = w.put, w.byID, w.ids
	return c
}
