package repair

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/transport/durable"
)

const (
	journalFile = "repair.json"
	maxJournal  = 32 << 10
	// maxAttempts bounds what is remembered, and so the limits.
	maxAttempts = 64
)

// MaxPerDay bounds Options.PerDay: more could not be remembered.
const MaxPerDay = maxAttempts

// Attempt is one action, as the journal remembers it.
type Attempt struct {
	N      uint64             `json:"n"` // from 1, never again
	Action order.RepairAction `json:"action"`
	Cause  diagnosis.Code     `json:"cause,omitempty"`
	Auto   bool               `json:"auto,omitempty"`
	// Outcome is empty while it runs; and for one that was cut short.
	Outcome string `json:"outcome,omitempty"`

	Start uint64    `json:"start"` // which start of the daemon: its epoch
	AtS   float64   `json:"at_s"`  // since then
	UTC   time.Time `json:"utc,omitzero"`
}

// JournalOptions say where a Journal is and what time it is.
type JournalOptions struct {
	FS  durable.FS
	Dir string // exists
	// Start is the daemon's epoch: different at every start.
	Start uint64
	// Now is monotonic; the journal counts from its opening.
	Now func() time.Time
	// Wall returns the time and whether it can be relied on.
	Wall func() (utc time.Time, trusted bool)
}

// Journal remembers the actions of the last day, and what must be undone if the
// daemon is killed in the middle of one. It survives restarts and is bounded. It
// is safe for concurrent use.
type Journal struct {
	o      JournalOptions
	opened time.Time

	mu    sync.Mutex
	state journalState
}

type journalState struct {
	V        int       `json:"v"`
	N        uint64    `json:"n"`
	Attempts []Attempt `json:"attempts,omitempty"` // the oldest first
	// Intent is what an action that is under way leaves undone if it is cut
	// short; its owner knows what it means.
	Intent json.RawMessage `json:"intent,omitempty"`
}

// OpenJournal reads what was kept. A journal that is damaged is an error: the
// limits could not be kept to. The Journal it returns then is full: it lets
// nothing be done for a day of running, and is overwritten by then.
func OpenJournal(o JournalOptions) (*Journal, error) {
	j := &Journal{o: o, opened: o.Now(), state: journalState{V: 1}}
	data, err := durable.ReadFile(o.FS, "repair.read", j.path(), maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &j.state)
	}
	if err == nil && (j.state.V != 1 || len(j.state.Attempts) > maxAttempts) {
		err = errors.New("it is of another version")
	}
	if err != nil {
		j.state = journalState{V: 1}
		for range maxAttempts {
			j.state.Attempts = append(j.state.Attempts, Attempt{})
		}
		return j, fmt.Errorf("cannot read the journal of repairs: %w", err)
	}
	return j, nil
}

func (j *Journal) path() string { return filepath.Join(j.o.Dir, journalFile) }

// age returns how long ago an attempt was at the least. That is less than the
// truth where the daemon was restarted and the clock cannot be trusted: then all
// that is certain is how long this start has run.
func (j *Journal) age(a Attempt) time.Duration {
	running := j.o.Now().Sub(j.opened)
	if a.Start == j.o.Start {
		return running - time.Duration(a.AtS*float64(time.Second))
	}
	if now, trusted := j.o.Wall(); trusted && !a.UTC.IsZero() {
		running = max(running, now.Sub(a.UTC))
	}
	return running
}

// Since returns how many attempts there were within the last d, at most: what
// may have been then, was.
func (j *Journal) Since(d time.Duration) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, a := range j.state.Attempts {
		if j.age(a) < d {
			n++
		}
	}
	return n
}

// Failures returns how many automatic attempts since the last one that helped
// did not, and how long ago the last of them was at the least. A commanded
// repair in between does not count.
func (j *Journal) Failures() (n int, last time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, a := range slices.Backward(j.state.Attempts) {
		switch {
		case !a.Auto:
		case a.Outcome == Helped:
			return n, last
		default:
			if n++; n == 1 {
				last = j.age(a)
			}
		}
	}
	return n, last
}

// Begin puts an attempt on flash before it is made.
func (j *Journal) Begin(a Attempt) (n uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := j.state
	next.Attempts = nil
	for _, old := range j.state.Attempts {
		if j.age(old) < 24*time.Hour {
			next.Attempts = append(next.Attempts, old)
		}
	}
	if len(next.Attempts) >= maxAttempts {
		return 0, fmt.Errorf("%d repairs are remembered already", maxAttempts)
	}
	next.N++
	a.N, a.Outcome, a.Start, a.AtS = next.N, "", j.o.Start, j.o.Now().Sub(j.opened).Seconds()
	if now, trusted := j.o.Wall(); trusted {
		a.UTC = now.UTC()
	}
	next.Attempts = append(next.Attempts, a)
	return next.N, j.save(next)
}

// End notes how an attempt ended.
func (j *Journal) End(n uint64, outcome string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := j.state
	next.Attempts = append([]Attempt(nil), next.Attempts...)
	for i := range next.Attempts {
		if next.Attempts[i].N == n {
			next.Attempts[i].Outcome = outcome
		}
	}
	return j.save(next)
}

// Keep puts on flash what must be undone if the daemon is killed from now on;
// nil: nothing must any more.
func (j *Journal) Keep(intent []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := j.state
	next.Intent = intent
	return j.save(next)
}

// Intent returns what was kept and never taken back; nil: nothing was.
func (j *Journal) Intent() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.Intent
}

func (j *Journal) save(next journalState) error {
	data, err := json.Marshal(next)
	if err == nil && len(data) > maxJournal {
		err = fmt.Errorf("%d bytes are more than %d", len(data), maxJournal)
	}
	if err == nil {
		err = durable.WriteFile(j.o.FS, "repair.write", j.path(), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the journal of repairs: %w", err)
	}
	j.state = next
	return nil
}
