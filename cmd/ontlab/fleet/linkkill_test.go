package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ontagent/cmd/ontlab/fleet"
	"ontagent/transport"
	"ontagent/transport/durable"
	"ontagent/transport/mqtt"
	"ontagent/transport/spool"
)

const (
	tenant = "reliability"
	// killCap is the cap of the backoff while links are killed: milliseconds,
	// so that thousands of kills fit into a test.
	killCap = 20 * time.Millisecond
	// grace is what a busy machine may take on top of any wait.
	grace = 5 * time.Second
	// killWrite is how long the library may hold on to a packet that it cannot
	// write any more; goroutines of a connection that was lost end with it.
	killWrite = time.Second
	// patience is how long what was put may take over links that live.
	patience = 30 * time.Second
)

// TestReliabilityLinkKill kills the link between a real session and a real
// broker again and again, at every boundary of a packet and inside packets.
func TestReliabilityLinkKill(t *testing.T) {
	kills, devices := 2000, 4
	switch {
	case testing.Short():
		kills, devices = 40, 2
	case os.Getenv("LONG") == "1":
		kills = 20_000
	}
	r := newKillRun(t, kills, devices)
	r.run()
	verdict := "ok"
	if t.Failed() {
		verdict = "FAIL"
	}
	t.Logf("reliability: link-kill | queues on flash and in memory; before, inside and after packets both ways; FIN and RST | %d | %s | %s", r.kills.Load(), r.result(), verdict)
}

// body is what message n of a class says: the same whenever it is asked.
func body(class transport.Class, n int) json.RawMessage {
	return fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, n, strings.Repeat(string(class[:1]), n*37%200))
}

// told are the classes that a source tells in, by rank.
var told = [...]transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry}

func rank(class transport.Class) int { return slices.Index(told[:], class) }

// source is a gateway behind a relay that cuts, with a queue that outlives
// sessions.
type source struct {
	run     *killRun
	name    string
	stamper *transport.Stamper
	queue   transport.Queue
	spool   *spool.Queue // the queue, nil if that is in memory
	signed  bool         // it waits for acknowledgements of a collector
	relay   *fleet.Relay

	mu     sync.Mutex
	cutAt  time.Time     // of a cut that no connection has followed yet; guarded by mu
	waits  time.Duration // the longest from a cut to the next connection; guarded by mu
	heard  time.Time     // the last new message at the subscriber; guarded by mu
	silent time.Duration // the longest time without one; guarded by mu
	// seq is the number under which message n of a class arrived, 0 if it has
	// not; n of what has no room is above any that will be put. Guarded by mu.
	seq [len(told)][]uint32
	// arrived and dropped tell numbers of a class that did, or that a gap
	// covers. Guarded by mu.
	arrived, dropped [len(told)]bits
	duplicates       int // guarded by mu
}

// bits is a set of small numbers.
type bits []uint64

func (b *bits) add(n uint64) {
	for uint64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bits) has(n uint64) bool { return n/64 < uint64(len(b)) && b[n/64]&(1<<(n%64)) != 0 }

// killRun is one run of the test.
type killRun struct {
	t       *testing.T
	broker  *broker
	want    int
	sources map[string]*source
	kills   atomic.Int64
	by      [2][3][2]atomic.Int64 // kills by direction, place and kind of end
	over    chan struct{}         // closed when there were enough kills
	pause   atomic.Bool           // nothing is put and nothing more is killed

	usage [2]usage // at rest, after the first tenth of the kills and at their end
}

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	heap                    uint64
}

func newKillRun(t *testing.T, kills, devices int) *killRun {
	t.Helper()
	r := &killRun{t: t, want: kills, sources: map[string]*source{}, over: make(chan struct{})}
	r.broker = newBroker(t, nil)
	for i := range devices {
		s := &source{run: r, name: fmt.Sprintf("KILL%08d", i)}
		var err error
		if s.stamper, err = transport.NewStamper(s.name, 1, machineClock{time.Now()}); err != nil {
			t.Fatal(err)
		}
		s.newQueue(i)
		for class := range s.seq {
			s.seq[class] = make([]uint32, 0, 200*kills/devices)
		}
		random := rand.New(rand.NewPCG(uint64(i), 3))
		s.relay, err = fleet.NewRelay(t.Context(), fleet.RelayOptions{
			Broker: r.broker.addr,
			Plan:   func(int) fleet.Cut { return r.plan(random) },
			Made:   s.made, Accepted: s.accepted,
		})
		if err != nil {
			t.Fatal(err)
		}
		r.sources[s.name] = s
	}
	return r
}

// newQueue makes the queue under test: that of a gateway, on flash, which
// forgets records and events when the broker has them or when a collector
// signed for them; and one in memory, which soon has no room and must drop.
func (s *source) newQueue(i int) {
	t := s.run.t
	t.Helper()
	if i%4 == 1 {
		s.queue = transport.NewRAMQueue(transport.RAMOptions{
			Stamper: s.stamper, MaxEntries: map[transport.Class]int{transport.ClassTelemetry: 200},
		})
		return
	}
	o := spool.Options{
		Stamper: s.stamper, FS: durable.OS{}, Dir: filepath.Join(t.TempDir(), "spool"), Confirm: spool.ByBroker,
		BackfillBytesPerSecond: 100 << 20, // not what is looked at here
	}
	if i%4 > 1 {
		o.Confirm = spool.BySignature
	}
	q, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s.queue, s.spool, s.signed = q, q, o.Confirm == spool.BySignature
}

type machineClock struct{ start time.Time }

func (machineClock) Wall() (int64, string)   { return time.Now().UnixMilli(), transport.ClockNTP }
func (c machineClock) Uptime() time.Duration { return time.Since(c.start) }

// plan makes up the end of a connection: often in the handshake and greeting,
// which is where the states are, and else among the messages.
func (r *killRun) plan(random *rand.Rand) fleet.Cut {
	switch {
	case r.kills.Load() >= int64(r.want):
		return fleet.Cut{}
	case r.pause.Load(): // lives until messages go again
		return fleet.Cut{Packet: 200}
	}
	packet := 1 + random.IntN(10)
	if random.IntN(2) == 0 {
		packet = 1 + random.IntN(60)
	}
	return fleet.Cut{
		Packet: packet, Down: random.IntN(2) == 0, Where: fleet.Where(random.IntN(3)), Reset: random.IntN(2) == 0,
	}
}

func (s *source) made(c fleet.Cut, at time.Time) {
	index := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	s.run.by[index(c.Down)][c.Where][index(c.Reset)].Add(1)
	s.mu.Lock()
	s.cutAt = at
	s.mu.Unlock()
	if s.run.kills.Add(1) == int64(s.run.want) {
		close(s.run.over)
	}
}

func (s *source) accepted(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cutAt.IsZero() {
		s.waits = max(s.waits, at.Sub(s.cutAt))
		s.cutAt = time.Time{}
	}
}

func (r *killRun) run() {
	t := r.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	stop := func() { cancel(); wg.Wait() }
	defer stop()

	subscriber, err := mqtt.Dial(ctx, mqtt.Options{Broker: "tcp://" + r.broker.addr, ClientID: "subscriber", InboundDepth: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = subscriber.Close(ctx)
	}()
	for _, kind := range []transport.Kind{transport.KindTelemetry, transport.KindBackfill, transport.KindEvent, transport.KindStatus} {
		if err := subscriber.Subscribe(ctx, "ont/1/"+tenant+"/+/"+string(kind)+"/+"); err != nil {
			t.Fatal(err)
		}
	}
	wg.Go(func() { r.hear(ctx, subscriber) })

	producing, enough := context.WithCancel(ctx)
	defer enough()
	var producers sync.WaitGroup
	for _, s := range r.sources {
		s.heard = time.Now()
		wg.Go(func() { _ = s.relay.Serve(ctx) })
		wg.Go(func() { s.sessions(ctx) })
		if s.spool != nil {
			wg.Go(func() { _ = s.spool.Serve(ctx) })
		}
		if s.signed {
			wg.Go(func() { s.sign(ctx) })
		}
		producers.Go(func() { s.produce(producing) })
	}
	if r.usage[0] = r.rest(ctx, r.want/10); !t.Failed() {
		for _, s := range r.sources { // the rest was no silence
			s.mu.Lock()
			s.heard = time.Now()
			s.mu.Unlock()
		}
		r.pause.Store(false)
		r.usage[1] = r.rest(ctx, r.want)
	}
	enough()
	producers.Wait()
	if n := subscriber.Dropped(); n > 0 {
		t.Fatalf("the subscriber of the test was too slow for %d messages", n)
	}
	stop()
	r.judge()
}

// sessions serves one Device after the other, as restarts of a daemon that
// keeps its queue do.
func (s *source) sessions(ctx context.Context) {
	online := func(bool) {}
	if s.spool != nil {
		online = s.spool.Online
	}
	for ctx.Err() == nil {
		device, err := mqtt.New(mqtt.DeviceOptions{
			Online: online,
			Dial:   mqtt.Options{Broker: "tcp://" + s.relay.Addr(), WriteTimeout: killWrite}, Tenant: tenant, Stamper: s.stamper, Queue: s.queue,
			Backoff: mqtt.Backoff{Spread: time.Millisecond, Base: 2 * time.Millisecond, Cap: killCap},
		})
		if err != nil {
			s.run.t.Error(err)
			return
		}
		life, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { s.restart(life, cancel) })
		_ = device.Serve(life)
		cancel()
		wg.Wait()
	}
}

// restart ends a life of a session after some seconds, at whatever it is.
func (s *source) restart(life context.Context, end func()) {
	for {
		select {
		case <-time.After(3 * time.Second):
		case <-s.run.over:
			return
		case <-life.Done():
			return
		}
		if !s.run.pause.Load() {
			end()
			return
		}
	}
}

// produce puts messages of all classes as fast as they get away, and now and
// then more than there is room for.
func (s *source) produce(ctx context.Context) {
	room := func() bool {
		depth := 0
		for _, c := range s.queue.Stats() {
			depth += c.Depth
		}
		return depth < 60 && !s.run.pause.Load()
	}
	for n := 1; ctx.Err() == nil; n++ {
		if !room() {
			time.Sleep(time.Millisecond)
			continue
		}
		s.tell(ctx, transport.Message{Class: transport.ClassTelemetry, Kind: transport.KindTelemetry, Name: "link"})
		if n%4 == 0 {
			s.tell(ctx, transport.Message{Class: transport.ClassEvent, Kind: transport.KindEvent, Name: "link"})
		}
		if n%9 == 0 {
			s.tell(ctx, transport.Message{Class: transport.ClassRecord, Kind: transport.KindStatus, Name: "command"})
		}
		if n%1000 == 0 {
			for range 300 {
				s.tell(ctx, transport.Message{Class: transport.ClassTelemetry, Kind: transport.KindTelemetry, Name: "link"})
			}
		}
	}
}

func (s *source) tell(ctx context.Context, m transport.Message) {
	i := rank(m.Class)
	s.mu.Lock()
	n := len(s.seq[i])
	s.seq[i] = append(s.seq[i], 0)
	s.mu.Unlock()
	m.Body = body(m.Class, n)
	// Events that come this fast may be on flash a little later.
	if err := s.queue.Put(ctx, m); err != nil && !errors.Is(err, transport.ErrNotDurable) {
		s.run.t.Errorf("%s: cannot put message: %v", s.name, err)
	}
}

// sign does the collector's part: it acknowledges all numbers up to the first
// that is neither here nor in a gap.
func (s *source) sign(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var upTo [len(told)]uint64
	for version := uint64(1); ; version++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		var points []transport.Point
		s.mu.Lock()
		for _, class := range []transport.Class{transport.ClassRecord, transport.ClassEvent} {
			i := rank(class)
			for next := upTo[i] + 1; s.arrived[i].has(next) || s.dropped[i].has(next); next++ {
				upTo[i] = next
			}
			if upTo[i] > 0 {
				points = append(points, transport.Point{Class: class, Epoch: s.stamper.Epoch(), Seq: upTo[i]})
			}
		}
		s.mu.Unlock()
		if err := s.spool.Acknowledge(version, points); err != nil {
			s.run.t.Errorf("%s: cannot acknowledge %v: %v", s.name, points, err)
			return
		}
	}
}

// rest waits for a number of kills, lets everything that was put arrive over
// links that live, and looks at what the process holds then.
func (r *killRun) rest(ctx context.Context, kills int) usage {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	// A kill takes some 30 ms of a machine that has nothing else to do.
	limit := time.Now().Add(time.Duration(kills)*150*time.Millisecond + time.Minute)
	before, since, flushed := int64(0), time.Now(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return usage{}
		case <-ticker.C:
		}
		now, made := time.Now(), r.kills.Load()
		if enough := made >= int64(kills); r.pause.Swap(enough) != enough && enough {
			limit = now.Add(patience)
		}
		if r.pause.Load() && now.Sub(flushed) > time.Second {
			flushed = now
			r.flush()
		}
		switch {
		case now.After(limit):
			r.t.Errorf("%d of %d kills; what was put did not all arrive over links that live, or the kills take too long", made, kills)
			return usage{}
		case made < int64(kills) || made != before || !r.settled():
			before, since = made, now
		case now.Sub(since) > 2*killWrite:
			return r.look()
		}
	}
}

// flush makes the spools tell their gaps now rather than within a minute.
func (r *killRun) flush() {
	for _, s := range r.sources {
		if s.spool == nil {
			continue
		}
		if err := s.spool.Flush(); err != nil {
			r.t.Errorf("%s: cannot flush: %v", s.name, err)
		}
	}
}

func (r *killRun) look() usage {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		r.t.Error(err)
	}
	return usage{runtime.NumGoroutine(), len(fds), m.HeapAlloc}
}

// hear takes down what the subscriber gets.
func (r *killRun) hear(ctx context.Context, subscriber *mqtt.Conn) {
	for {
		select {
		case p := <-subscriber.Inbound():
			r.take(p)
		case <-subscriber.Lost():
			if ctx.Err() == nil {
				r.t.Errorf("the subscriber of the test lost its connection: %v", subscriber.Err())
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *killRun) take(p mqtt.Packet) {
	h, rest, err := transport.Decode(p.Payload)
	s := r.sources[h.Device]
	if err != nil || s == nil || rank(h.Class) < 0 || h.Epoch != s.stamper.Epoch() {
		r.t.Errorf("strange message on %s: %v: %.200s", p.Topic, err, p.Payload)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := rank(h.Class)
	if s.arrived[i].has(h.Seq) {
		s.duplicates++
	} else {
		s.arrived[i].add(h.Seq)
		now := time.Now()
		if !r.pause.Load() {
			s.silent = max(s.silent, now.Sub(s.heard))
		}
		s.heard = now
	}
	if strings.HasSuffix(p.Topic, "/event/"+transport.EventGap) {
		var gap transport.Gap
		if err := json.Unmarshal(rest, &gap); err != nil || rank(gap.Class) < 0 || gap.ToSeq < gap.FromSeq || gap.Epoch != h.Epoch {
			r.t.Errorf("strange gap: %v: %s", err, rest)
			return
		}
		for n := gap.FromSeq; n <= gap.ToSeq; n++ {
			s.dropped[rank(gap.Class)].add(n)
		}
		return
	}
	if h.Class == transport.ClassEvent && !strings.HasSuffix(p.Topic, "/event/link") {
		return // what the queue tells of itself
	}
	var said struct {
		N *int `json:"n"`
	}
	if err := json.Unmarshal(rest, &said); err != nil || said.N == nil || *said.N >= len(s.seq[i]) {
		r.t.Errorf("message that was never put: %s", p.Payload)
		return
	}
	if string(rest) != string(body(h.Class, *said.N)) {
		r.t.Errorf("message came altered: %s, want %s", rest, body(h.Class, *said.N))
	}
	switch had := s.seq[i][*said.N]; had {
	case 0, uint32(h.Seq):
		s.seq[i][*said.N] = uint32(h.Seq)
	default:
		r.t.Errorf("%s: message %d of class %s came as number %d and as %d", s.name, *said.N, h.Class, had, h.Seq)
	}
}

// settled reports whether all queues are empty and everything has come.
func (r *killRun) settled() bool {
	for _, s := range r.sources {
		for _, c := range s.queue.Stats() {
			if c.Depth > 0 {
				return false
			}
		}
		if missing, uncovered := s.missing(); missing > uncovered.covered || uncovered.not > 0 {
			return false
		}
	}
	return true
}

// numbers says what became of the numbers that did not arrive.
type numbers struct{ covered, not int }

// missing counts the messages put that did not arrive, and the numbers.
func (s *source) missing() (messages int, n numbers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range told {
		for _, seq := range s.seq[i] {
			if seq == 0 {
				messages++
			}
		}
		var last uint64
		for seq := uint64(len(s.arrived[i])) * 64; seq > 0 && last == 0; seq-- {
			if s.arrived[i].has(seq) || s.dropped[i].has(seq) {
				last = seq
			}
		}
		for seq := uint64(1); seq <= last; seq++ {
			switch {
			case s.arrived[i].has(seq):
			case s.dropped[i].has(seq):
				n.covered++
			default:
				n.not++
			}
		}
	}
	return messages, n
}

// judge compares what was put with what arrived.
func (r *killRun) judge() {
	t := r.t
	for _, s := range r.sources {
		missing, n := s.missing()
		if missing > n.covered || n.not > 0 {
			t.Errorf("%s: %d messages did not arrive, gaps cover %d numbers, %d numbers are missing without a gap; the queue: %+v",
				s.name, missing, n.covered, n.not, s.queue.Stats())
		}
		if s.waits > killCap+grace {
			t.Errorf("%s: %v from a kill to the next connection; the backoff's cap is %v", s.name, s.waits, killCap)
		}
		if s.silent > 2*grace {
			t.Errorf("%s: nothing got through for %v", s.name, s.silent)
		}
	}
	for down, direction := range []string{"up", "down"} {
		for where := range r.by[down] {
			for reset, end := range []string{"FIN", "RST"} {
				if r.by[down][where][reset].Load() == 0 {
					t.Errorf("no kill %v a packet going %s by %s", fleet.Where(where), direction, end)
				}
			}
		}
	}
	a, b := r.usage[0], r.usage[1]
	// A spool has a segment of each class open, or has not.
	if b.goroutines > a.goroutines+5 || b.descriptors > a.descriptors+2+len(told)*len(r.sources) {
		t.Errorf("goroutines and descriptors grew from %d and %d to %d and %d", a.goroutines, a.descriptors, b.goroutines, b.descriptors)
	}
	if b.heap > a.heap+4<<20 {
		t.Errorf("heap grew from %d to %d KiB", a.heap>>10, b.heap>>10)
	}
}

// result says what happened, in a line.
func (r *killRun) result() string {
	put, duplicates := 0, 0
	var covered int
	var waits, silent time.Duration
	for _, s := range r.sources {
		for i := range told {
			put += len(s.seq[i])
		}
		_, n := s.missing()
		covered += n.covered
		duplicates += s.duplicates
		waits, silent = max(waits, s.waits), max(silent, s.silent)
	}
	lost := 0
	for _, s := range r.sources {
		missing, n := s.missing()
		lost += max(0, missing-n.covered)
	}
	a, b := r.usage[0], r.usage[1]
	return fmt.Sprintf("lost %d of %d; %d dropped, all in gaps; %d duplicates, all alike; longest kill to next connection %d ms (cap %d ms), longest silence %d ms; "+
		"goroutines %d to %d, descriptors %d to %d, heap %.1f to %.1f MiB between kill %d and the end",
		lost, put, covered, duplicates, waits.Milliseconds(), killCap.Milliseconds(), silent.Milliseconds(),
		a.goroutines, b.goroutines, a.descriptors, b.descriptors, float64(a.heap)/(1<<20), float64(b.heap)/(1<<20), r.want/10)
}
