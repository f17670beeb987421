package fault

import (
	"time"

	"ontagent/agent/diagnosis"
)

// Class says which deadline of the field norms holds for a fault.
type Class string

// The classes.
const (
	Line    Class = "line"    // 线路故障: within 24 h
	Network Class = "network" // 网络故障: within 36 h
)

// ClassOf returns the class of a fault by who has to act. Where that is the
// gateway, the customer's side or nobody known, a technician has to come to the
// line: the shorter deadline.
func ClassOf(side diagnosis.Side) Class {
	switch side {
	case diagnosis.SideOLT, diagnosis.SideBRAS, diagnosis.SidePlatform:
		return Network
	case diagnosis.SideCustomer, diagnosis.SideDrop, diagnosis.SideODN, diagnosis.SideDevice, diagnosis.SideUnknown:
	}
	return Line
}

// Source says what showed a fault.
type Source string

// The sources.
const (
	Telemetry  Source = "telemetry"  // the last minutes of it
	Inspection Source = "inspection" // a ladder that was climbed
)

// Moment is now, as well as the gateway knows it.
type Moment struct {
	// Uptime is the time since boot, Boot which boot that was.
	Uptime time.Duration
	Boot   string
	// UTC is the zero time where no clock can be relied on. Clock says what it
	// is known by.
	UTC   time.Time
	Clock string
}

// What Moment.Clock may say.
const (
	ClockNTP    = "ntp"    // the kernel's clock is disciplined
	ClockSigned = "signed" // a time key signed it since the start
	ClockNone   = "none"   // it isn't known
)

// Limits are the deadlines of the field norms, from the moment a fault opens.
type Limits struct{ Respond, Line, Network time.Duration }

// Fault is one that is open, as it is kept.
type Fault struct {
	Told
	Opened Stamp `json:"opened"`
	// Rung is the one that showed it, of an inspection.
	Rung string `json:"rung,omitempty"`

	Phase phase `json:"phase"`
	// Cleared is when; only while that is being told.
	Cleared *Stamp `json:"cleared,omitempty"`
	Why     string `json:"why,omitempty"`
}

// Told is what is kept of a fault, and told of it, in the same words.
type Told struct {
	_        [0]func()          // never compared: that would cost code on MIPS
	ID       string             `json:"id"` // unique for this gateway
	Code     diagnosis.Code     `json:"code"`
	Class    Class              `json:"fault_class"`
	Side     diagnosis.Side     `json:"side"`
	OrSide   diagnosis.Side     `json:"or_side,omitempty"`
	Severity diagnosis.Severity `json:"severity"`
	Source   Source             `json:"source"`
	// Recurrence is how many faults of this code were opened on this line in
	// the 30 days before.
	Recurrence int `json:"recurrence"`
	// Flaps is how often it was gone for a while and came back.
	Flaps int `json:"flaps"`
}

// Stamp is a moment as it is kept.
type Stamp struct {
	_       [0]func() // never compared: that would cost code on MIPS
	Unix    int64     `json:"utc"` // seconds since 1970; 0: not known
	Clock   string    `json:"clock"`
	UptimeS float64   `json:"uptime_s"`
	Boot    string    `json:"boot"`
}

// phase is how far a fault has been told.
type phase string

const (
	opening  phase = "opening"  // it may not have been told yet
	open     phase = "open"     //
	clearing phase = "clearing" // that it is gone may not have been told yet
)

func (m *Moment) stamp() Stamp {
	s := Stamp{Clock: m.Clock, UptimeS: seconds(m.Uptime), Boot: m.Boot}
	if m.UTC.IsZero() {
		s.Clock = ClockNone
	} else {
		s.Unix = m.UTC.Unix()
	}
	return s
}

// date dates a stamp of the same boot by a clock that is known now, and reports
// whether that made a difference.
func (s *Stamp) date(m *Moment) bool {
	if m.UTC.IsZero() || s.Boot != m.Boot || m.Boot == "" {
		return false
	}
	at := m.UTC.Add(-(m.Uptime - s.uptime())).Unix()
	if s.Unix != 0 && at-s.Unix <= stepped && s.Unix-at <= stepped {
		return false
	}
	s.Unix, s.Clock = at, m.Clock
	return true
}

// stepped is by how many seconds a clock must have been wrong for a date to be
// told anew.
const stepped = 60

func (s *Stamp) uptime() time.Duration { return time.Duration(s.UptimeS * float64(time.Second)) }

// since returns the time from s to later. Without one clock for both it is the
// least that it can have been, and exact is false.
func (s *Stamp) since(later *Stamp) (d time.Duration, exact bool) {
	switch {
	case s.Boot == later.Boot && s.Boot != "":
		d, exact = later.uptime()-s.uptime(), true
	case s.Unix != 0 && later.Unix != 0 && later.Unix >= s.Unix:
		d, exact = time.Duration(later.Unix-s.Unix)*time.Second, true
	default:
		d = later.uptime() // of the boot in which it was still there
	}
	return max(d, 0), exact
}

// text is the stamp and a while, as RFC 3339; empty where there is no date.
func (s *Stamp) text(and time.Duration) string {
	if s.Unix == 0 {
		return ""
	}
	return time.Unix(s.Unix, 0).Add(and).UTC().Format(time.RFC3339)
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
