package spool

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"slices"
	"sort"
	"strconv"

	"ontagent/transport"
)

// windows are those of the rollups, in seconds, by level. The longest is what it
// takes to keep three days of the default collectors in 2 MiB.
var windows = [...]uint64{1: 60, 2: 300, 3: 1800}

// thinMost bounds how many segments become one at once.
const thinMost = 4

// thin rewrites the oldest segments of telemetry that can be thinned as
// rollups, and reports whether anything came of it. The rollup is durable
// first, then the gap that tells of the numbers that vanish, then the
// originals go. After a cut in between both are found: see single. io is held.
func (q *Queue) thin(c *class) bool {
	from := q.thinnable(c)
	if len(from) == 0 {
		return false
	}
	level := from[0].level + 1
	roll := &rollup{window: windows[level] * 1000, windowS: windows[level], open: map[string]*window{}}
	q.mu.Lock()
	upTo := c.goneUpTo(from[0].epoch)
	q.mu.Unlock()
	size, used := int64(0), 0
	for _, s := range from {
		b, err := q.load(c, s.segID, false)
		if err != nil {
			break
		}
		scan(b, s.segID, c.rank, func(_ int, r record) {
			q.mu.Lock() // an acknowledgement may come
			i := s.search(r.seq)
			waits := r.seq > upTo && i < len(s.entries) && s.seq(i) == r.seq && s.entries[i].state() == waiting
			q.mu.Unlock()
			if waits {
				roll.add(r)
			}
		})
		size += s.size
		if used++; roll.bytes > c.full/2 {
			break
		}
	}
	thawed := from[used:]
	from = from[:used]
	roll.flush()
	done := false
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, s := range append(slices.Clone(thawed), from...) {
			s.frozen = false
		}
		q.wake()
	}()
	if used == 0 {
		return false
	}
	if int64(roll.bytes) > size*3/4 {
		// Nothing to gain: slow samples.
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, s := range from {
			s.level = level
		}
		return true
	}
	if len(roll.out) > 0 {
		done = q.replace(c, from, roll, level)
	}
	return done
}

// thinnable freezes and returns the segments to be thinned next: of one epoch
// and level, in a row.
func (q *Queue) thinnable(c *class) []*segment {
	q.mu.Lock()
	defer q.mu.Unlock()
	var from []*segment
	for level := uint8(0); int(level)+1 < len(windows) && len(from) == 0; level++ {
		for _, s := range c.segs {
			fit := s.level == level && s != c.active && s.leased == 0 && s.live > 0 && !s.owed && !q.now().Before(s.paused)
			if !fit || len(from) > 0 && from[0].epoch != s.epoch {
				if len(from) > 0 {
					break
				}
				continue
			}
			if from = append(from, s); len(from) == thinMost {
				break
			}
		}
	}
	for _, s := range from {
		s.frozen = true
	}
	return from
}

// replace puts a rollup in the place of the segments it was made from. io is
// held.
func (q *Queue) replace(c *class, from []*segment, roll *rollup, level uint8) bool {
	sort.Slice(roll.out, func(i, j int) bool { return roll.out[i].Header.Seq < roll.out[j].Header.Seq })
	s := &segment{segID: segID{epoch: from[0].epoch, first: roll.out[0].Header.Seq}, level: level}
	q.mu.Lock()
	for c.knows(s.segID) && s.part < math.MaxUint8 {
		s.part++
	}
	q.mu.Unlock()
	b := appendHeader(nil, s.segID, c.rank, level, span{})
	for _, e := range roll.out {
		at := len(b)
		b = appendRecord(b, s.seed(c.rank), s.first, e)
		s.add(at, len(b)-at, e.Header.Seq, waiting, 0)
	}
	s.uptimeMS = uint64(math.Round(roll.out[0].Header.UptimeS * 1000))
	s.size = int64(len(b))
	if !q.writeWhole(c, s, b) {
		return false
	}
	kept := make(map[uint64]bool, len(roll.out))
	for _, e := range roll.out {
		kept[e.Header.Seq] = true
	}
	slices.Sort(roll.seen) // the segments may overlap
	gap := transport.Gap{Class: c.name, Epoch: s.epoch, Reason: transport.GapThinned}
	for _, seq := range roll.seen {
		if !kept[seq] {
			if gap.Count++; gap.FromSeq == 0 {
				gap.FromSeq = seq
			}
			gap.ToSeq = seq
		}
	}
	q.mu.Lock()
	s.frozen = true // until it is clear which of both stays
	c.insertSegment(s)
	if gap.Count > 0 {
		q.addGap(gap)
	}
	q.mu.Unlock()
	if err := q.tell(true); err != nil {
		q.mu.Lock()
		for i := range s.entries {
			s.set(i, gone, 0)
		}
		c.bury(s)
		q.mu.Unlock()
		q.remove(c)
		return false
	}
	q.mu.Lock()
	c.dropped += gap.Count
	for _, old := range from {
		for i := range old.entries {
			old.set(i, gone, 0)
		}
		c.bury(old)
	}
	s.frozen = false
	q.mu.Unlock()
	q.remove(c)
	return true
}

// writeWhole makes a file of a segment in one go, durable when it returns
// true. io is held.
func (q *Queue) writeWhole(c *class, s *segment, b []byte) bool {
	f, err := q.fs.OpenFile("spool.thin", q.path(c, s.segID), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false
	}
	active, file := c.active, c.file
	c.active, c.file = s, f
	err = q.append(c, b, true)
	c.active, c.file = active, file
	if err != nil {
		_ = q.fs.Remove("spool.thin", q.path(c, s.segID)) // at worst a copy of what is there
	}
	return err == nil
}

// rollup gathers telemetry into windows by name and subject.
type rollup struct {
	window  uint64 // ms
	windowS uint64
	open    map[string]*window
	out     []transport.Entry
	seen    []uint64
	bytes   int
}

// window is one window of one name and subject.
type window struct {
	index   uint64
	last    transport.Entry
	samples float64
	rolled  bool // made of more than one sample
	fields  map[string]*field
}

// field is one key in a window.
type field struct {
	raw            json.RawMessage // the last value
	numeric        bool
	sum, weight    float64
	low, high      float64
	minRaw, maxRaw json.RawMessage // as they were written
}

// add takes the next record. Its bytes are kept.
func (r *rollup) add(rec record) {
	r.seen = append(r.seen, rec.seq)
	e := rec.entry("", 0, transport.ClassTelemetry)
	var body map[string]json.RawMessage
	if err := json.Unmarshal(rec.body, &body); err != nil || len(body) == 0 {
		r.emit(e) // as it is: nothing to fold
		return
	}
	key := e.Message.Name + "\x00" + string(body["subject"])
	index := rec.uptimeMS / r.window
	w := r.open[key]
	if w != nil && w.index != index {
		r.close(key, w)
		w = nil
	}
	if w == nil {
		w = &window{index: index, fields: make(map[string]*field, len(body))}
		r.open[key] = w
	}
	w.last = e
	w.fold(body)
}

// fold adds one sample, or the rollup of several.
func (w *window) fold(body map[string]json.RawMessage) {
	samples, one := number(body["samples"])
	_, two := number(body["window_s"])
	rolled := one && two && samples >= 1
	if !rolled {
		samples = 1
	}
	w.rolled = w.rolled || rolled || w.samples > 0
	w.samples += samples
	for key, raw := range body {
		if rolled && (key == "samples" || key == "window_s") {
			continue
		}
		if rolled {
			base, isMin := bytes.CutSuffix([]byte(key), []byte("_min"))
			if !isMin {
				base, isMin = bytes.CutSuffix([]byte(key), []byte("_max"))
			}
			if _, own := body[string(base)]; isMin && own {
				continue // goes with its base
			}
		}
		f := w.fields[key]
		v, numeric := number(raw)
		if f == nil {
			f = &field{numeric: numeric, low: math.Inf(1), high: math.Inf(-1)}
			w.fields[key] = f
		}
		f.raw = raw
		if f.numeric = f.numeric && numeric; !numeric {
			continue
		}
		f.sum += v * samples
		f.weight += samples
		f.extend(raw)
		if rolled {
			f.extend(body[key+"_min"])
			f.extend(body[key+"_max"])
		}
	}
}

func (f *field) extend(raw json.RawMessage) {
	v, ok := number(raw)
	if ok && v < f.low {
		f.low, f.minRaw = v, raw
	}
	if ok && v > f.high {
		f.high, f.maxRaw = v, raw
	}
}

func number(raw json.RawMessage) (float64, bool) {
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	return v, err == nil
}

func (r *rollup) flush() {
	for key, w := range r.open {
		r.close(key, w)
	}
}

// close makes an entry of a window.
func (r *rollup) close(key string, w *window) {
	delete(r.open, key)
	e := w.last
	if w.rolled {
		e.Message.Body = w.body(r.windowS)
	}
	r.emit(e)
}

func (r *rollup) emit(e transport.Entry) {
	e.Message.Body = slices.Clone(e.Message.Body) // not the whole segment
	r.out = append(r.out, e)
	r.bytes += recordSize(e.Message)
}

// body writes the fields by key: numbers as their mean with KEY_min and
// KEY_max, other values as the last one.
func (w *window) body(windowS uint64) json.RawMessage {
	keys := make([]string, 0, len(w.fields))
	for key := range w.fields {
		if key != "samples" && key != "window_s" { // a sample's own must not stand twice
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	var b bytes.Buffer
	for _, key := range keys {
		f := w.fields[key]
		if !f.numeric {
			member(&b, key, f.raw)
			continue
		}
		member(&b, key, strconv.AppendFloat(nil, f.sum/f.weight, 'g', 10, 64))
		if _, own := w.fields[key+"_min"]; !own {
			member(&b, key+"_min", f.minRaw)
		}
		if _, own := w.fields[key+"_max"]; !own {
			member(&b, key+"_max", f.maxRaw)
		}
	}
	member(&b, "samples", strconv.AppendFloat(nil, w.samples, 'f', -1, 64))
	member(&b, "window_s", strconv.AppendUint(nil, windowS, 10))
	b.WriteByte('}')
	return b.Bytes()
}

// member writes a key and its value behind those that are in b.
func member(b *bytes.Buffer, key string, value []byte) {
	quoted, err := json.Marshal(key)
	if err != nil {
		return // cannot be: a string
	}
	if b.Len() == 0 {
		b.WriteByte('{')
	} else {
		b.WriteByte(',')
	}
	b.Write(quoted)
	b.WriteByte(':')
	b.Write(value)
}
