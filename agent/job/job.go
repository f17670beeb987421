// Package job carries commands through their life: received, accepted or
// rejected, run, ended – each state on flash before what it announces happens.
//
// The same command id always gets the same answer; a job found running when
// the daemon starts is interrupted, never run again. One job disturbs the line
// or the console at a time. What a command does is a Handler's business.
//
// What is granted, and how it ends, is told to the audit trail: the grant before
// anything is done, and what the trail cannot take is not done.
//
// Only what is granted is kept. Refusals and challenges are answered and
// forgotten: sending what others have signed must not wear the flash, nor push
// out of the table what did run.
package job

import (
	"context"
	"time"

	"ontagent/agent/order"
)

// State is where a job stands.
type State string

// The states.
const (
	Received    State = "RECEIVED"
	Accepted    State = "ACCEPTED"
	Rejected    State = "REJECTED"
	Challenge   State = "CHALLENGE" // the same command again, with a signed time
	Running     State = "RUNNING"
	Succeeded   State = "SUCCEEDED" // the job ran to its end, whatever the verdict
	Failed      State = "FAILED"    // the job could not run
	TimedOut    State = "TIMED_OUT"
	Cancelled   State = "CANCELLED"
	Interrupted State = "INTERRUPTED" // by a stop of the daemon or a power cut
)

// Terminal reports whether s is an end.
func (s State) Terminal() bool {
	switch s {
	case Rejected, Succeeded, Failed, TimedOut, Cancelled, Interrupted:
		return true
	case Received, Accepted, Challenge, Running:
	}
	return false
}

// Status is what the outside learns of a job: the body of status/<id>.
type Status struct {
	ID          string            `json:"id"`
	Order       string            `json:"order,omitempty"`
	CommandType order.CommandType `json:"command_type,omitempty"`
	State       State             `json:"state"`
	Reason      order.Reason      `json:"reason,omitempty"` // of REJECTED
	Detail      string            `json:"detail,omitempty"` // English, for experts
	Nonce       string            `json:"nonce,omitempty"`  // of CHALLENGE
	Step        string            `json:"step,omitempty"`   // rung that runs or just ended
	StepVerdict string            `json:"step_verdict,omitempty"`
	StepReason  string            `json:"step_reason,omitempty"` // English, for experts
	StepCause   string            `json:"step_cause,omitempty"`  // catalogue code
	Progress    float64           `json:"progress"`              // 0 to 1
	EtaS        float64           `json:"eta_s,omitempty"`       // estimate of what is left, while it runs
	Verdict     string            `json:"verdict,omitempty"`     // of the whole
	FirstCause  string            `json:"first_cause,omitempty"` // catalogue code
	Summary     []RungVerdict     `json:"summary,omitempty"`
	RecordSHA   string            `json:"record_sha256,omitempty"`
	// Recent is what the last minutes of telemetry look like, beside a diagnosis.
	Recent []RecentCause `json:"recent,omitempty"`
}

// RecentCause is a cause that telemetry shows.
type RecentCause struct {
	Code       string  `json:"code"`
	Kind       string  `json:"kind"` // fault; warning: it is over
	Side       string  `json:"side"`
	Confidence float64 `json:"confidence"`
}

// RungVerdict is one line of the result.
type RungVerdict struct {
	Rung     string `json:"rung"`
	Verdict  string `json:"verdict"`
	Required bool   `json:"required"`
	Cause    string `json:"cause,omitempty"`
}

// Outcome is what a Handler ends with.
type Outcome struct {
	// Err says that the job could not run; the rest is then ignored.
	Err        error
	Verdict    string
	FirstCause string
	Summary    []RungVerdict
	RecordSHA  string
	Recent     []RecentCause
}

// Progress is what a Handler tells while it runs.
type Progress struct {
	Step        string
	StepVerdict string
	StepReason  string  // English, for experts
	StepCause   string  // catalogue code
	Fraction    float64 // 0 to 1
	EtaS        float64 // seconds that are left, as far as can be told
}

// Handler carries one granted command out. It returns soon after ctx ends.
type Handler func(ctx context.Context, g order.Grant, tell func(Progress)) Outcome

// Authority is what judges requests; *order.Authority is one.
type Authority interface {
	Verify(order.Request) (order.Verified, error)
	// Admit calls begin when all is checked and nothing is used up yet.
	Admit(v order.Verified, begin func() error) (order.Grant, error)
	CloseOrder(string) error
}

// Store keeps jobs. Put returns only when the job is durable.
type Store interface {
	Load() ([]Stored, error)
	Put(Stored) error
	Forget(id string) error
}

// Stored is a job as it is kept.
type Stored struct {
	N      uint64    `json:"n"` // order of arrival
	Status Status    `json:"status"`
	At     time.Time `json:"at"` // wall time of the last change, as good as the clock
	By     Origin    `json:"by,omitzero"`
}

// Origin says who asked for a job, by which exact bytes.
type Origin struct {
	KeyID         string `json:"key_id"`
	Technician    string `json:"technician,omitempty"` // or the NOC key's name
	Rev           uint64 `json:"rev,omitempty"`        // of the order
	CommandSHA256 string `json:"command_sha256"`       // of the signed payload
}

// AuditEvent is what the audit trail is told of a job: that it was granted, or
// how it ended. Status.State tells which: ACCEPTED, or an end.
type AuditEvent struct {
	Status Status
	By     Origin
}
