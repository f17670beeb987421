package spool_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/spool"
)

// filled returns a gateway whose spool holds a full segment of a class, a
// second one that is not full, and a few messages of each other class; and
// where in the full segment each message is.
func filled(t *testing.T, class transport.Class) (w *world, path string, spans map[int][2]int) {
	t.Helper()
	w = newWorld(0, 1)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry} {
		for i := 0; i < 3 || c == class && len(segments(w.disk, class)) < 2; i++ {
			w.clock.now = w.clock.now.Add(time.Second) // at the pace that events are written at
			w.add(c)
			if c == transport.ClassTelemetry && i%40 == 39 {
				w.flush()
			}
		}
	}
	w.clock.now = w.clock.now.Add(time.Minute)
	if err := w.q.Close(); err != nil {
		t.Fatal(err)
	}
	w.end("cut")
	if len(w.problems) > 0 {
		t.Fatal(w.problems)
	}
	path = segments(w.disk, class)[0]
	data, _ := w.disk.Get(path)
	if len(data) < 60<<10 || len(data) > 64<<10 {
		t.Fatalf("the segment has %d bytes", len(data))
	}
	// A record is 24 bytes, its name, its body, 4 bytes.
	spans = map[int][2]int{}
	for id, s := range w.byID {
		if at := bytes.Index(data, []byte(s.body)); at >= 0 {
			name := len("optics")
			if class == transport.ClassRecord {
				if name = len(fmt.Sprint("WO-", id)); id%2 == 0 {
					name = len(fmt.Sprint("c", id))
				}
			}
			spans[id] = [2]int{at - 24 - name, at + len(s.body) + 4}
		}
	}
	return w, path, spans
}

// corruption tries one thing after another on twins of w, by two workers.
// Each try changes the disk and says what it may lose; every some are read to
// the end, the others are held to what is counted.
type corruption struct {
	w     *world
	class transport.Class
	whole int // one in so many is read to the end

	mu    sync.Mutex
	tries int
	drawn int
	worst time.Duration
	bad   []string
}

func (c *corruption) try(n int, what string, change func(w *world), touched func(*sent) bool) {
	w := c.w.twin(uint64(n))
	change(w)
	lost := 0
	for _, s := range w.put {
		if touched(s) {
			lost++
		}
	}
	again := w.twin(1)
	took := w.open()
	for tries := 0; took > 150*time.Millisecond && tries < 3; tries++ {
		took = min(took, again.twin(1).open()) // the machine is shared: a pause of it is not the spool's
	}
	depth := 0
	for _, s := range w.q.Stats() {
		if s.Class == c.class {
			depth = s.Depth
		}
	}
	put := 0
	for k := range w.put {
		if k.class == c.class {
			put++
		}
	}
	if c.class != "" && depth != put-lost {
		w.fail("holds %d messages of %d, of which %d were touched", depth, put, lost)
	}
	drain := n%c.whole == 0
	if drain {
		w.must = func(s *sent) bool { return !touched(s) }
		w.drain()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tries++
	if drain {
		c.drawn++
	}
	c.worst = max(c.worst, took)
	for _, p := range w.problems {
		if len(c.bad) < 6 {
			c.bad = append(c.bad, what+": "+p)
		}
	}
}

// open begins a life and returns how long that took.
func (w *world) open() time.Duration {
	began := time.Now()
	if err := w.start(); err != nil {
		w.fail("open: %v", err)
	}
	return time.Since(began)
}

// each runs f for 0, stride, 2·stride … below n.
func each(n, stride int, f func(i int)) {
	var wg sync.WaitGroup
	const workers = 2
	for worker := range workers {
		wg.Go(func() {
			for i := worker * stride; i < n; i += workers * stride {
				f(i)
			}
		})
	}
	wg.Wait()
}

func (c *corruption) line(t *testing.T, variant string) {
	t.Helper()
	for _, b := range c.bad {
		t.Error(b)
	}
	reliability(t, "corruption", variant, c.tries, len(c.bad) == 0 && c.worst < 200*time.Millisecond,
		"no panic; tries that lost an untouched record or left one in no gap %d (%d read to the end); slowest opening %d µs", len(c.bad), c.drawn, c.worst.Microseconds())
}

// TestReliabilityCorruptionOfSegment flips every byte of a full segment – that
// of every second message at a time, and single ones – and truncates it at every
// offset.
func TestReliabilityCorruptionOfSegment(t *testing.T) {
	for _, class := range []transport.Class{transport.ClassRecord, transport.ClassTelemetry} {
		w, path, spans := filled(t, class)
		data, _ := w.disk.Get(path)
		w.disk.Put(path, nil) // each try places its own
		in := func(s *sent, from, to int) bool {
			span, here := spans[s.id]
			return here && span[0] < to && from < span[1]
		}
		stride := size(997, 13, 1)
		short := stride // of the truncations
		if class == transport.ClassRecord {
			short = size(997, 1, 1)
		}
		flip := func(i int) byte {
			if i%3 == 0 {
				return 0xff
			}
			return 1 << (i % 8)
		}

		inOrder := slices.SortedFunc(maps.Keys(spans), func(a, b int) int { return spans[a][0] - spans[b][0] })
		longest := 0
		for _, span := range spans {
			longest = max(longest, span[1]-span[0])
		}
		many := corruption{w: w, class: class, whole: 1}
		each(2*longest, size(101, 1, 1), func(i int) {
			hit := map[int]bool{}
			many.try(i, fmt.Sprintf("byte %d of every second", i/2), func(w *world) {
				changed := slices.Clone(data)
				for n := i % 2; n < len(inOrder); n += 2 {
					if at := spans[inOrder[n]][0] + i/2; at < spans[inOrder[n]][1] {
						changed[at] ^= flip(i / 2)
						hit[inOrder[n]] = true
					}
				}
				w.disk.Put(path, changed)
			}, func(s *sent) bool { return hit[s.id] })
		})
		many.line(t, fmt.Sprintf("64 KiB segment of class %s, each byte of every second message flipped", class))

		single := corruption{w: w, class: class, whole: 29}
		each(len(data), stride, func(i int) {
			single.try(i, fmt.Sprintf("byte %d", i), func(w *world) {
				changed := slices.Clone(data)
				changed[i] ^= flip(i)
				w.disk.Put(path, changed)
			}, func(s *sent) bool { return in(s, i, i+1) })
		})
		single.line(t, fmt.Sprintf("64 KiB segment of class %s, single bytes flipped", class))

		cuts := corruption{w: w, class: class, whole: 67}
		each(len(data), short, func(i int) {
			cuts.try(i, fmt.Sprintf("cut to %d", i), func(w *world) { w.disk.Put(path, data[:i:i]) },
				func(s *sent) bool { return in(s, i, len(data)) })
		})
		cuts.line(t, fmt.Sprintf("64 KiB segment of class %s, truncated", class))
	}
}

// TestReliabilityCorruptionOfDirectory puts into the spool what has no business
// there.
func TestReliabilityCorruptionOfDirectory(t *testing.T) {
	w, path, spans := filled(t, transport.ClassRecord)
	data, _ := w.disk.Get(path)
	paths := segments(w.disk, transport.ClassRecord)
	newest := paths[len(paths)-1]
	tail, _ := w.disk.Get(newest)
	all := func(s *sent) bool { _, here := spans[s.id]; return here }
	none := func(*sent) bool { return false }
	second := func(s *sent) bool { return s.key.class == transport.ClassRecord && !all(s) }
	tries := map[string]struct {
		change  func(w *world, rnd *rand.Rand)
		touched func(*sent) bool
	}{
		"zeros behind the newest": {func(w *world, rnd *rand.Rand) {
			w.disk.Put(newest, append(slices.Clone(tail), make([]byte, 1+rnd.IntN(9000))...))
		}, none},
		"garbage behind the newest": {func(w *world, rnd *rand.Rand) {
			w.disk.Put(newest, append(slices.Clone(tail), garbage(rnd, 1+rnd.IntN(9000))...))
		}, none},
		"all zeros": {func(w *world, _ *rand.Rand) { w.disk.Put(path, make([]byte, len(data))) }, all},
		"all garbage": {func(w *world, rnd *rand.Rand) {
			w.disk.Put(path, garbage(rnd, rnd.IntN(100_000)))
		}, all},
		"empty":  {func(w *world, _ *rand.Rand) { w.disk.Put(path, []byte{}) }, all},
		"absent": {func(w *world, _ *rand.Rand) { w.disk.Put(path, nil) }, all},
		"another's bytes": {func(w *world, _ *rand.Rand) {
			w.disk.Put(path, tail)
		}, all},
		"swapped": {func(w *world, _ *rand.Rand) {
			w.disk.Put(path, tail)
			w.disk.Put(newest, data)
		}, func(s *sent) bool { return all(s) || second(s) }},
		"a copy under another name": {func(w *world, rnd *rand.Rand) {
			w.disk.Put(fmt.Sprintf("%s/record/%016x-%016x.seg", testDir, 1, 5+rnd.IntN(1000)), data)
		}, none},
		"a copy of another class": {func(w *world, _ *rand.Rand) {
			w.disk.Put(fmt.Sprintf("%s/event/%016x-%016x-01.seg", testDir, 1, 1), data)
		}, none},
		"a copy of a later epoch": {func(w *world, _ *rand.Rand) {
			w.disk.Put(fmt.Sprintf("%s/record/%016x-%016x.seg", testDir, 7, 1), data)
		}, none},
		"foreign files": {func(w *world, rnd *rand.Rand) {
			for _, name := range []string{"x", "record/x", "record/x.seg", "event/.seg", "telemetry/0-0.seg", "cursor.tmp~", "record/" + fmt.Sprintf("%016x-%016x.seg.tmp~", 1, 1)} {
				w.disk.Put(testDir+"/"+name, garbage(rnd, rnd.IntN(5000)))
			}
		}, none},
		"a huge file": {func(w *world, rnd *rand.Rand) {
			w.disk.Put(fmt.Sprintf("%s/record/%016x-%016x.seg", testDir, 1, uint64(1)<<40), garbage(rnd, 3<<20))
		}, none},
		"garbage in all files that are no segments": {func(w *world, rnd *rand.Rand) {
			for _, p := range w.disk.Files() {
				if len(p) < 4 || p[len(p)-4:] != ".seg" {
					w.disk.Put(p, garbage(rnd, rnd.IntN(200)))
				}
			}
		}, none},
		"random bytes over random places": {func(w *world, rnd *rand.Rand) {
			for _, p := range w.disk.Files() {
				b, _ := w.disk.Get(p)
				for range rnd.IntN(20) {
					if len(b) > 0 {
						copy(b[rnd.IntN(len(b)):], garbage(rnd, rnd.IntN(300)))
					}
				}
				w.disk.Put(p, b)
			}
		}, func(*sent) bool { return true }},
	}
	names := slices.Sorted(maps.Keys(tries))
	c := corruption{w: w, whole: 1}
	each(len(names)*size(1, 10, 300), 1, func(i int) {
		x := tries[names[i%len(names)]]
		rnd := rand.New(rand.NewPCG(uint64(i), 9))
		c.try(i, names[i%len(names)], func(w *world) { x.change(w, rnd) }, x.touched)
	})
	c.line(t, fmt.Sprintf("%d kinds of foreign, swapped, copied, zeroed and random files", len(names)))
}

func garbage(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.IntN(256))
	}
	return b
}

// TestReliabilityCorruptionIsChecked offline, at every offset of the first two
// messages and at some others, without changing anything.
func TestReliabilityCorruptionIsChecked(t *testing.T) {
	w, path, _ := filled(t, transport.ClassRecord)
	data, _ := w.disk.Get(path)
	offsets := []int{-1, 5000, len(data) / 2, len(data) - 1}
	for at := range 400 {
		offsets = append(offsets, at)
	}
	unseen := 0
	for _, at := range offsets {
		c := w.twin(1)
		if at >= 0 {
			changed := slices.Clone(data)
			changed[at] ^= 0x10
			c.disk.Put(path, changed)
		}
		c.disk.ResetCounts()
		r, err := spool.Check(c.disk, testDir)
		if err != nil {
			t.Errorf("byte %d: %v", at, err)
		}
		if n := c.disk.Count(""); n.Writes+n.Creates+n.Removes+n.Renames+n.Syncs > 0 {
			t.Errorf("checking wrote: %+v", n)
		}
		if (at >= 0) != (r.Damaged == 1) {
			unseen++
			t.Errorf("byte %d: %+v", at, r)
		}
	}
	reliability(t, "corruption", "flipped bytes looked for by Check, read-only", len(offsets), unseen == 0, "%d not seen", unseen)
}
