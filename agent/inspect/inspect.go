// Package inspect decides when a line is inspected (巡检), keeps the log of the
// inspections, and measures between them how much of the line was used.
//
// A Scheduler inspects every two months or so, at an hour and on a day that
// follow from the gateway's name, so that a fleet does not inspect at once;
// when nothing else is being done; and again after some hours while what an
// inspection found is not known to be gone. Where no clock can be relied on it
// goes by the time the gateway has run. A power cut neither skips an inspection
// nor repeats it endlessly.
//
// What an inspection is, is the business of who gives the Scheduler one.
package inspect

import (
	"errors"
	"time"
)

// Why an inspection was made.
const (
	WhySchedule = "schedule"
	WhyFollowUp = "follow_up" // what the last one found may be gone
	WhyCommand  = "command"
)

// Entry is one inspection in the log, and the body of event/inspection.
type Entry struct {
	ID         string     `json:"id"`
	Why        string     `json:"why"`
	Job        string     `json:"job,omitempty"` // of a command
	Started    Stamp      `json:"started"`
	DurationS  float64    `json:"duration_s"`
	Verdict    string     `json:"verdict"`
	FirstCause string     `json:"first_cause,omitempty"`
	Rungs      []Rung     `json:"rungs"`
	Compared   []Compared `json:"compared"`
	// Problem says why it came to nothing.
	Problem string `json:"problem,omitempty"`
}

// Stamp is a moment as well as the gateway knew it.
type Stamp struct {
	UTC     string  `json:"utc,omitempty"` // RFC 3339; empty where no clock could be relied on
	Clock   string  `json:"clock"`
	UptimeS float64 `json:"uptime_s"`
}

// Rung is what one rung came to.
type Rung struct {
	_       [0]func() // never compared: that would cost code on MIPS
	Rung    string    `json:"rung"`
	Verdict string    `json:"verdict"`
	Cause   string    `json:"cause,omitempty"`
}

// Compared is one figure beside what it was and what it may be. What is not
// known is nil.
type Compared struct {
	_        [0]func() // never compared: that would cost code on MIPS
	Name     string    `json:"name"` // snake_case with the unit
	Baseline *float64  `json:"baseline,omitempty"`
	Now      *float64  `json:"now,omitempty"`
	Limit    *float64  `json:"limit,omitempty"`
	Op       string    `json:"op,omitempty"` // what passes: ">", ">=", "<", "<="
	OK       *bool     `json:"ok,omitempty"` // nil: nobody can say
	// Source says where the baseline or the figure is from, or why there is
	// none.
	Source string `json:"source,omitempty"`
}

// Moment is now, as well as the gateway knows it.
type Moment struct {
	Uptime time.Duration
	UTC    time.Time // zero where no clock can be relied on
	Clock  string
}

func (m Moment) stamp() Stamp {
	s := Stamp{Clock: m.Clock, UptimeS: float64(m.Uptime.Milliseconds()) / 1000}
	if !m.UTC.IsZero() {
		s.UTC = m.UTC.UTC().Format(time.RFC3339)
	}
	return s
}

// time returns the zero time for a moment that nobody dated.
func (s Stamp) time() time.Time {
	t, err := time.Parse(time.RFC3339, s.UTC)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Bounds of the log.
const (
	maxLog = 32
	maxAge = 183 * 24 * time.Hour
	// MaxState bounds what a Store is given, in bytes.
	MaxState = 256 << 10
	// Of one inspection; there are fewer rungs, and fewer figures.
	maxRungs, maxCompared, maxProblem = 16, 16, 256
)

// state is what is kept.
type state struct {
	Version int `json:"v"`
	// Last is the begin of the period whose inspection was made, in seconds
	// since 1970; meaningful if Dated.
	Last  int64 `json:"last"`
	Dated bool  `json:"dated"`
	// Days is how many days the gateway has run without a clock since the last
	// inspection. Begun: they are counted from the gateway's own day.
	Days  int  `json:"days"`
	Begun bool `json:"begun"`
	// Attempts counts inspections begun for what is due that did not end.
	Attempts int      `json:"attempts"`
	Untold   int      `json:"untold"` // entries at the end of Log that may not have been told
	Log      []*Entry `json:"log"`
}

const stateVersion = 1

var errState = errors.New("these are no inspections that were saved")

// check refuses whatever could not have been saved.
func (s *state) check() error {
	if s.Version != stateVersion || len(s.Log) > maxLog || s.Untold < 0 || s.Untold > len(s.Log) || s.Days < 0 || s.Attempts < 0 {
		return errState
	}
	for _, e := range s.Log {
		if e == nil {
			return errState
		}
	}
	return nil
}

// add appends an entry that is not told yet and lets old ones go: those that
// are too old, then the oldest, follow-ups first. It keeps what is not told.
func (s *state) add(e *Entry, now time.Time) {
	e.Rungs, e.Compared = e.Rungs[:min(len(e.Rungs), maxRungs)], e.Compared[:min(len(e.Compared), maxCompared)]
	e.Problem = e.Problem[:min(len(e.Problem), maxProblem)]
	s.Log = append(s.Log, e)
	s.Untold++
	told := len(s.Log) - s.Untold
	gone := 0 // the first of the follow-ups, else the first of all
	for i := told - 1; i >= 0; i-- {
		if at := s.Log[i].Started.time(); !now.IsZero() && !at.IsZero() && now.Sub(at) > maxAge {
			s.drop(i)
			told--
		}
	}
	if len(s.Log) <= maxLog {
		return
	}
	for i := told - 1; i >= 0; i-- {
		if s.Log[i].Why == WhyFollowUp {
			gone = i
		}
	}
	if told == 0 {
		s.Untold--
	}
	s.drop(gone)
}

func (s *state) drop(i int) { s.Log = append(s.Log[:i], s.Log[i+1:]...) }
