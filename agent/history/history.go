// Package history remembers for some minutes what telemetry has seen change, so
// that a diagnosis can tell what came first – and for as long as it lasts what
// is not as it was.
//
// It listens beside whoever sends telemetry away, keeps what it hears in memory,
// within a bound, on the monotonic clock, and judges nothing.
package history

import (
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
	maxFollowed = 128
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

// standing is how a property differs from what it was before all that is
// remembered.
type standing struct {
	h diagnosis.Happening
	// until is when a property remembered from before a restart is let go
	// unless a reading confirms it; zero: it needs none.
	until time.Duration
}

// followed is a number that is compared from sample to sample: a received power,
// or a counter of errors.
type followed struct {
	_                    [0]func() // never compared: that would cost code on MIPS
	group, name, subject string

	level    float64 // later ones are compared with it
	next     float64 // differs, and waits to be confirmed
	doubtful bool

	total, since uint64 // now, and before it began to rise
	rises        bool
	begun, rose  time.Duration
}

// History is safe for concurrent use.
type History struct {
	o Options

	mu       sync.Mutex // guards what follows
	recent   []*diagnosis.Happening
	size     int
	standing []*standing // each property once
	followed []*followed
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
	return &History{o: o}
}

// Event takes a change that a collector told.
func (h *History) Event(e collectors.Event) {
	h.mu.Lock()
	h.add(&diagnosis.Happening{
		At: h.o.Now(), Group: e.Type, Name: e.What, Subject: clip(e.Subject), Before: value(e.Before), After: value(e.After),
	})
	h.mu.Unlock()
}

// Samples takes what a collector read: what only readings tell – light that
// falls little by little, counters of errors – and what was remembered from
// before a restart and is not so, or still so.
func (h *History) Samples(collector string, samples []collectors.Sample) {
	h.mu.Lock()
	now := h.o.Now()
	for i := range samples {
		s := &samples[i]
		h.confirm(now, collector, s)
		for _, f := range s.Fields {
			switch v := f.Value.(type) {
			case float64:
				if collector == "optics" && f.Key == "rx_power_dbm" {
					h.light(now, s.Subject, v)
				}
			case uint64:
				if counts(f.Key) {
					h.errors(now, collector, f.Key, s.Subject, v)
				}
			}
		}
	}
	h.forget(now)
	h.mu.Unlock()
}

// follow returns what is known of a number, and whether anything was.
func (h *History) follow(group, name, subject string) (f *followed, known bool) {
	for _, f := range h.followed {
		if f.subject == subject && f.name == name && f.group == group {
			return f, true
		}
	}
	f = &followed{group: group, name: name, subject: subject}
	if len(h.followed) < maxFollowed {
		h.followed = append(h.followed, f)
	}
	return f, false
}

// light compares a received power with the level before.
func (h *History) light(now time.Duration, subject string, dBm float64) {
	f, known := h.follow("optics", "rx_power", clip(subject))
	switch {
	case !known:
		f.level = dBm
	case near(dBm, f.level):
		f.doubtful = false
	case !f.doubtful || !near(dBm, f.next):
		f.doubtful, f.next = true, dBm
	default:
		h.add(&diagnosis.Happening{
			At: now, Group: f.group, Name: f.name, Subject: f.subject, Before: decimals(f.level), After: decimals(dBm),
		})
		f.level, f.doubtful = dBm, false
	}
}

// near reports whether two levels differ by no more than readings wander.
func near(a, b float64) bool { return a-b < fallDB && b-a < fallDB }

// errors follows a counter. One rise is one happening, however long it goes on.
func (h *History) errors(now time.Duration, group, name, subject string, total uint64) {
	f, known := h.follow(group, name, clip(subject))
	was := f.total
	f.total = total
	switch {
	case !known:
	case total < was: // reset
		f.rises = false
	case total == was:
		f.rises = f.rises && now-f.rose < calm
	default:
		if !f.rises {
			f.rises, f.since, f.begun = true, was, now
		}
		f.rose = now
		x := &diagnosis.Happening{
			At: f.begun, Group: group, Name: name, Subject: f.subject,
			Before: strconv.FormatUint(f.since, 10), After: strconv.FormatUint(total, 10),
		}
		for _, r := range h.recent {
			if r.At == x.At && property(r, x) {
				h.size += len(x.After) - len(r.After)
				r.After = x.After
				h.version++
				return
			}
		}
		x.At, f.begun = now, now
		h.add(x)
	}
}

// add keeps a happening, unless a sample showed the same already.
func (h *History) add(x *diagnosis.Happening) {
	if x.Group == "optics" {
		for n := len(h.recent); n > 0; n-- {
			if r := h.recent[n-1]; property(r, x) {
				if r.After == x.After {
					return
				}
				break
			}
		}
	}
	h.recent = append(h.recent, x)
	h.size += weight(x)
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
	}
	for i := 0; i < len(h.standing); i++ {
		if until := h.standing[i].until; until != 0 && now > until {
			h.drop(i)
			h.version++
			i--
		}
	}
}

func (h *History) drop(i int) { h.standing = append(h.standing[:i], h.standing[i+1:]...) }

// fold adds a happening that is let go to what stands: one that undoes what
// stands leaves nothing.
func (h *History) fold(x *diagnosis.Happening) {
	if counts(x.Name) {
		return // a number that was higher once is no state
	}
	s := &standing{h: *x}
	for i, old := range h.standing {
		if property(&old.h, x) {
			s.h.At, s.h.Before = old.h.At, old.h.Before
			h.drop(i)
			break
		}
	}
	if same(&s.h) {
		return
	}
	if len(h.standing) == maxStanding {
		h.drop(0)
	}
	h.standing = append(h.standing, s)
}

// same reports whether a property is as it was: the light within what readings
// wander by, an address whichever it is.
func same(x *diagnosis.Happening) bool {
	if x.Group == "wan" {
		return (x.Before == "") == (x.After == "")
	}
	if x.Name == "rx_power" {
		before, err1 := strconv.ParseFloat(x.Before, 64)
		after, err2 := strconv.ParseFloat(x.After, 64)
		if err1 == nil && err2 == nil {
			return near(before, after)
		}
	}
	return x.Before == x.After
}

// counts reports whether a name is a counter's.
func counts(name string) bool {
	switch name {
	case "bip", "fec_uncorrected", "rx_crc_errors", "rx_errors", "lods_events", "sd_too_long", "sd_mismatch":
		return true
	}
	return false
}

// property reports whether two happenings are of the same property.
func property(a, b *diagnosis.Happening) bool {
	return a.Name == b.Name && a.Subject == b.Subject && a.Group == b.Group && (a.Group != "wan" || v6(a) == v6(b))
}

// v6 reports whether a happening of a WAN is of IPv6.
func v6(x *diagnosis.Happening) bool {
	return strings.Contains(x.Before, ":") || strings.Contains(x.After, ":")
}

// Recent returns what is remembered: first what stands since before the window,
// each property once, then what happened in it, oldest first.
func (h *History) Recent() []diagnosis.Happening {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(h.o.Now())
	out := make([]diagnosis.Happening, 0, len(h.standing)+len(h.recent))
	for _, s := range h.standing {
		out = append(out, s.h)
	}
	for _, x := range h.recent {
		out = append(out, *x)
	}
	return out
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
	// The same folding as with time, on a copy.
	all := &History{standing: append([]*standing(nil), h.standing...)}
	for _, x := range h.recent {
		all.fold(x)
	}
	h.mu.Unlock()
	var out []diagnosis.Happening
	for i, s := range all.standing {
		if i >= len(all.standing)-limit {
			out = append(out, s.h)
		}
	}
	return out
}

// Remember begins with what stood when the daemon last looked, before it was
// started again. It holds until readings say otherwise, and for some minutes
// without any.
func (h *History) Remember(stood []diagnosis.Happening) {
	h.mu.Lock()
	for i := range stood {
		s := &standing{h: stood[i], until: h.o.Now() + unconfirmed}
		s.h.At = 0
		if len(h.standing) < maxStanding {
			h.standing = append(h.standing, s)
		}
	}
	h.version++
	h.mu.Unlock()
}

// Reset forgets everything: the line is another one.
func (h *History) Reset() {
	h.mu.Lock()
	h.recent, h.size, h.standing, h.followed = nil, 0, nil, nil
	h.version++
	h.mu.Unlock()
}

// confirm holds what was remembered from before a restart against a reading.
func (h *History) confirm(now time.Duration, collector string, sample *collectors.Sample) {
	for _, s := range h.standing {
		if s.until == 0 || s.h.Group != collector || s.h.Subject != sample.Subject && collector != "wan" {
			continue
		}
		v, told := told(sample, &s.h)
		if !told {
			continue
		}
		s.until = 0
		x := s.h
		x.At, x.Before, x.After = now, s.h.After, v
		if !same(&x) {
			h.add(&x)
		}
	}
}

// told returns what a sample says of a property, in the words of its events.
func told(s *collectors.Sample, x *diagnosis.Happening) (value string, ok bool) {
	name := x.Name
	if x.Group == "wan" {
		// The sample has it, or there is none.
		family := "ipv4_"
		if v6(x) {
			family = "ipv6_"
		}
		if name == "default_route" {
			name = "default_interface"
		}
		value, _ = field(s, family+name).(string)
		return value, true
	}
	if name == "rx_power" {
		name = "rx_power_dbm"
	}
	if alarm, is := strings.CutPrefix(name, "alarm_"); is {
		on, known := field(s, "alarms").(string)
		all, says := field(s, "alarms_known").(string)
		switch {
		case listed(on, alarm):
			return "active", true
		case says:
			known = listed(all, alarm) // a source may say of which alarms it knows
		}
		return "clear", known
	}
	switch v := field(s, name).(type) {
	case string:
		return v, true
	case float64:
		return decimals(v), true
	case bool: // of a link's carrier
		if v {
			return "up", true
		}
		return "down", true
	}
	return "", false
}

func listed(list, name string) bool { return strings.Contains(","+list+",", ","+name+",") }

// weight is what a happening takes, in bytes: itself and its strings.
func weight(x *diagnosis.Happening) int {
	return overhead + len(x.Group) + len(x.Name) + len(x.Subject) + len(x.Before) + len(x.After)
}

func field(s *collectors.Sample, name string) any {
	for i := range s.Fields {
		if s.Fields[i].Key == name {
			return s.Fields[i].Value
		}
	}
	return nil
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
