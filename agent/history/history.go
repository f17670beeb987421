// Package history remembers for some minutes what telemetry has seen change, so
// that a diagnosis can tell what came first – and for as long as it lasts what
// is not as it was.
//
// It listens beside whoever sends telemetry away, keeps what it hears in memory,
// within a bound, on the monotonic clock, and judges nothing.
package history

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// What a History does where its maker did not say.
const (
	DefaultWindow   = 15 * time.Minute
	DefaultMaxBytes = 32 << 10
)

const (
	// fallDB is the change of the received power, in dB, between samples that
	// is kept, if the next sample confirms it. It is above what readings wander
	// by and below what is an event by itself.
	fallDB = 2.0
	// calm is how long a counter stands still before its rising is over.
	calm = 3 * time.Minute
	// unconfirmed is how long what was remembered from before a restart holds
	// without a reading that says so.
	unconfirmed = 5 * time.Minute

	maxValue    = 64 // bytes of a value or a subject
	maxStanding = 96 // properties that are not as they were
	maxSubjects = 64 // things whose readings are compared
	overhead    = 112
)

// Options configure a History. Now is needed.
type Options struct {
	// Now is the time since the daemon's start, or since any one moment.
	Now func() time.Duration
	// Window is how far back it remembers; zero means DefaultWindow.
	Window time.Duration
	// MaxBytes bounds the memory for what happened; zero means DefaultMaxBytes.
	// What is over it is let go early, the oldest first.
	MaxBytes int
}

// key is one property of one thing.
type key struct{ group, name, subject, family string }

// standing is how a property differs from what it was before all that is
// remembered.
type standing struct {
	h diagnosis.Happening
	// until is when a property remembered from before a restart is let go
	// unless a reading confirms it; zero: it needs none.
	until time.Duration
}

// level is a received power that later ones are compared with.
type level struct {
	reference, candidate float64
	doubtful             bool // candidate differs, and waits to be confirmed
}

// count is a counter that counts errors.
type count struct {
	total uint64
	rose  time.Duration // when last
	since uint64        // total before it began to rise
	begun time.Duration
	up    bool
}

// History is safe for concurrent use.
type History struct {
	o Options

	mu       sync.Mutex // guards what follows
	recent   []diagnosis.Happening
	size     int
	standing map[key]standing
	last     map[key]string // the value of each property of recent
	levels   map[string]level
	counts   map[key]count
	version  uint64
}

// New returns an empty History.
func New(o Options) *History {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	return &History{
		o: o, standing: map[key]standing{}, last: map[key]string{}, levels: map[string]level{}, counts: map[key]count{},
	}
}

// Event takes a change that a collector told.
func (h *History) Event(e collectors.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := diagnosis.Happening{
		At: h.o.Now(), Group: e.Type, Name: e.What, Subject: clip(e.Subject), Before: value(e.Before), After: value(e.After),
	}
	// Told twice: a sample showed it already.
	if last, ok := h.last[keyOf(x)]; ok && last == x.After && x.Group == "optics" {
		return
	}
	h.add(x)
}

// Samples takes what a collector read: what only readings tell – light that
// falls little by little, counters of errors – and what was remembered from
// before a restart and is not so, or still so.
func (h *History) Samples(collector string, samples []collectors.Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.o.Now()
	for _, s := range samples {
		h.confirm(now, collector, s)
		switch collector {
		case "optics":
			if v, ok := number(s, "rx_power_dbm"); ok {
				h.light(now, s.Subject, v)
			}
		case "pon":
			h.errors(now, collector, s, "fec_uncorrected")
			h.errors(now, collector, s, "bip")
		case "link":
			h.errors(now, collector, s, "rx_crc_errors")
			h.errors(now, collector, s, "rx_errors")
		}
	}
	h.forget(now)
}

// light compares a received power with the level before.
func (h *History) light(now time.Duration, subject string, dBm float64) {
	l, known := h.levels[subject]
	if !known {
		if len(h.levels) < maxSubjects {
			h.levels[subject] = level{reference: dBm}
		}
		return
	}
	away := func(from float64) bool { return dBm-from >= fallDB || from-dBm >= fallDB }
	switch {
	case !away(l.reference):
		l.doubtful = false
	case !l.doubtful || away(l.candidate):
		l.doubtful, l.candidate = true, dBm
	default:
		x := diagnosis.Happening{
			At: now, Group: "optics", Name: "rx_power", Subject: clip(subject),
			Before: decimals(l.reference), After: decimals(dBm),
		}
		if h.last[keyOf(x)] != x.After {
			h.add(x)
		}
		l = level{reference: dBm}
	}
	h.levels[subject] = l
}

// errors follows a counter. One rise is one happening, however long it goes on.
func (h *History) errors(now time.Duration, group string, s collectors.Sample, name string) {
	total, ok := whole(s, name)
	if !ok {
		return
	}
	k := key{group: group, name: name, subject: clip(s.Subject)}
	c, known := h.counts[k]
	switch {
	case !known:
		if len(h.counts) < 2*maxSubjects {
			h.counts[k] = count{total: total}
		}
		return
	case total < c.total: // reset
		c = count{total: total}
	case total == c.total:
		if c.up && now-c.rose >= calm {
			c.up = false
		}
	default:
		if !c.up {
			c.up, c.since, c.begun = true, c.total, now
		}
		c.total, c.rose = total, now
		x := diagnosis.Happening{
			At: c.begun, Group: group, Name: name, Subject: k.subject,
			Before: strconv.FormatUint(c.since, 10), After: strconv.FormatUint(total, 10),
		}
		if !h.extend(x) {
			x.At, c.begun = now, now
			h.add(x)
		}
	}
	h.counts[k] = c
}

// extend replaces the value after a rise that is still remembered.
func (h *History) extend(x diagnosis.Happening) bool {
	for i := len(h.recent) - 1; i >= 0; i-- {
		if r := &h.recent[i]; r.At == x.At && r.Group == x.Group && r.Name == x.Name && r.Subject == x.Subject {
			h.size += len(x.After) - len(r.After)
			r.After = x.After
			h.version++
			return true
		}
	}
	return false
}

// add keeps a happening.
func (h *History) add(x diagnosis.Happening) {
	h.recent = append(h.recent, x)
	h.size += weight(x)
	h.last[keyOf(x)] = x.After
	h.version++
	h.forget(x.At)
}

// forget lets go what is too old or too much. What it leaves changed stands.
func (h *History) forget(now time.Duration) {
	n := 0
	for n < len(h.recent) && (now-h.recent[n].At > h.o.Window || h.size > h.o.MaxBytes) {
		h.size -= weight(h.recent[n])
		h.fold(h.recent[n])
		n++
	}
	if n > 0 {
		h.recent = append(h.recent[:0], h.recent[n:]...)
		h.version++
		clear(h.last)
		for _, x := range h.recent {
			h.last[keyOf(x)] = x.After
		}
	}
	for k, s := range h.standing {
		if s.until != 0 && now > s.until {
			delete(h.standing, k)
			h.version++
		}
	}
}

// fold adds a happening that is let go to what stands: one that undoes what
// stands leaves nothing.
func (h *History) fold(x diagnosis.Happening) {
	if counts(x) {
		return // a number that was higher once is no state
	}
	k := keyOf(x)
	s, known := h.standing[k]
	if known {
		s.h.After, s.until = x.After, 0
		if s.h.At == 0 {
			s.h.At = x.At
		}
	} else {
		s = standing{h: x}
	}
	if same(s.h) {
		delete(h.standing, k)
		return
	}
	if !known && len(h.standing) == maxStanding {
		h.evict()
	}
	h.standing[k] = s
}

// evict makes room by what has stood for longest.
func (h *History) evict() {
	var oldest key
	found := false
	for k, s := range h.standing {
		if !found || before(s.h, h.standing[oldest].h) {
			oldest, found = k, true
		}
	}
	delete(h.standing, oldest)
}

// same reports whether a property is as it was: the light within what readings
// wander by, an address whichever it is.
func same(x diagnosis.Happening) bool {
	switch {
	case x.Before == x.After:
		return true
	case x.Group == "wan":
		return x.Before != "" && x.After != ""
	case x.Group == "optics" && x.Name == "rx_power":
		before, err1 := strconv.ParseFloat(x.Before, 64)
		after, err2 := strconv.ParseFloat(x.After, 64)
		return err1 == nil && err2 == nil && before-after < fallDB && after-before < fallDB
	}
	return false
}

// counts reports whether x tells a counter.
func counts(x diagnosis.Happening) bool {
	switch x.Name {
	case "bip", "fec_uncorrected", "rx_crc_errors", "rx_errors", "lods_events", "sd_too_long", "sd_mismatch":
		return true
	}
	return false
}

// Recent returns what is remembered: first what stands since before the window,
// each property once, then what happened in it, both oldest first.
func (h *History) Recent() []diagnosis.Happening {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(h.o.Now())
	out := h.stands(make([]diagnosis.Happening, 0, len(h.standing)+len(h.recent)))
	return append(out, h.recent...)
}

// Version changes whenever what Recent returns does. It also lets go what is
// too old.
func (h *History) Version() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(h.o.Now())
	return h.version
}

// Standing returns every property that is not as it was, at most limit of them,
// those that changed last: what a later start may go on with.
func (h *History) Standing(limit int) []diagnosis.Happening {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The same folding as with time, on a copy.
	all := &History{o: h.o, standing: maps.Clone(h.standing)}
	for _, x := range h.recent {
		all.fold(x)
	}
	out := all.stands(nil)
	if over := len(out) - limit; over > 0 {
		out = out[over:]
	}
	return out
}

// stands appends what stands, oldest first.
func (h *History) stands(to []diagnosis.Happening) []diagnosis.Happening {
	from := len(to)
	for _, s := range h.standing {
		i := len(to)
		for i > from && before(s.h, to[i-1]) {
			i--
		}
		to = append(to, s.h)
		copy(to[i+1:], to[i:])
		to[i] = s.h
	}
	return to
}

// before orders happenings, so that the same ones always come in one order.
func before(a, b diagnosis.Happening) bool {
	if a.At != b.At {
		return a.At < b.At
	}
	text := func(x diagnosis.Happening) string {
		return x.Group + "\x00" + x.Name + "\x00" + x.Subject + "\x00" + x.Before
	}
	return text(a) < text(b)
}

// Remember begins with what stood when the daemon last looked, before it was
// started again. It holds until readings say otherwise, and for some minutes
// without any.
func (h *History) Remember(stood []diagnosis.Happening) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range stood {
		if len(h.standing) == maxStanding {
			break
		}
		x.At, x.Subject, x.Before, x.After = 0, clip(x.Subject), clip(x.Before), clip(x.After)
		h.standing[keyOf(x)] = standing{h: x, until: h.o.Now() + unconfirmed}
	}
	h.version++
}

// Reset forgets everything: the line is another one.
func (h *History) Reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent, h.size = nil, 0
	clear(h.standing)
	clear(h.last)
	clear(h.levels)
	clear(h.counts)
	h.version++
}

// confirm holds what was remembered from before a restart against a reading.
func (h *History) confirm(now time.Duration, collector string, s collectors.Sample) {
	for k, stands := range h.standing {
		if stands.until == 0 || k.group != collector || k.subject != s.Subject && collector != "wan" {
			continue
		}
		v, told := told(s, k)
		switch {
		case !told:
		case v == "" && stands.h.After == "", same(diagnosis.Happening{Group: k.group, Name: k.name, Before: stands.h.After, After: v}):
			stands.until = 0
			h.standing[k] = stands
		default:
			stands.until = 0
			h.standing[k] = stands
			h.add(diagnosis.Happening{At: now, Group: k.group, Name: k.name, Subject: k.subject, Before: stands.h.After, After: v})
		}
	}
}

// told returns what a sample says of a property, in the words of its events.
func told(s collectors.Sample, k key) (value string, ok bool) {
	switch k.group {
	case "link":
		switch k.name {
		case "carrier", "admin_state":
			name := k.name
			if name == "admin_state" {
				name = "admin_up"
			}
			if up, ok := field(s, name).(bool); ok {
				if up {
					return "up", true
				}
				return "down", true
			}
			return "", false
		case "presence":
			return "present", true
		}
	case "wan":
		switch k.name {
		case "address":
			v, _ := field(s, "ip"+k.family+"_address").(string)
			return v, true
		case "default_route":
			if on, ok := field(s, "ip"+k.family+"_default").(bool); ok {
				if on {
					return "present", true
				}
				return "", true
			}
			return "", false
		case "default_interface":
			v, _ := field(s, "ip"+k.family+"_default_interface").(string)
			return v, true
		}
	case "optics":
		if k.name == "rx_power" {
			v, ok := number(s, "rx_power_dbm")
			return decimals(v), ok
		}
	}
	for _, set := range [...]string{"alarm_", "warning_"} {
		name, is := strings.CutPrefix(k.name, set)
		if !is {
			continue
		}
		on, known := field(s, set[:len(set)-1]+"s").(string)
		if !known {
			return "", false
		}
		if listed(on, name) {
			return "active", true
		}
		// A source may say of which alarms it knows.
		if all, says := field(s, "alarms_known").(string); says && !listed(all, name) {
			return "", false
		}
		return "clear", true
	}
	v, ok := field(s, k.name).(string)
	return v, ok
}

func listed(list, name string) bool { return strings.Contains(","+list+",", ","+name+",") }

// keyOf is the property that a happening tells.
func keyOf(x diagnosis.Happening) key {
	k := key{group: x.Group, name: x.Name, subject: x.Subject}
	if x.Group == "wan" {
		k.family = "v4"
		if strings.Contains(x.Before+x.After, ":") {
			k.family = "v6"
		}
	}
	return k
}

// weight is what a happening takes, in bytes: itself and its strings.
func weight(x diagnosis.Happening) int {
	return overhead + len(x.Group) + len(x.Name) + len(x.Subject) + len(x.Before) + len(x.After)
}

func field(s collectors.Sample, name string) any {
	for _, f := range s.Fields {
		if f.Key == name {
			return f.Value
		}
	}
	return nil
}

func number(s collectors.Sample, name string) (float64, bool) {
	v, ok := field(s, name).(float64)
	return v, ok
}

func whole(s collectors.Sample, name string) (uint64, bool) {
	v, ok := field(s, name).(uint64)
	return v, ok
}

// decimals is a level without its unit.
func decimals(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// value is a value as an event tells it, without a unit.
func value(s string) string { return clip(strings.TrimSuffix(s, " dBm")) }

func clip(s string) string {
	if len(s) > maxValue {
		return strings.ToValidUTF8(s[:maxValue], "")
	}
	return s
}
