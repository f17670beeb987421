package control

import "ontagent/agent/order"

// Operations. Submit and hello are offered on the LAN too.
const (
	OpHello    = "hello"
	OpSubmit   = "submit"   // args: order.Request; status messages, then the record
	OpStatus   = "status"   // the agent's own state
	OpCollect  = "collect"  // every collector once
	OpOptics   = "optics"   // every optical source, fresh
	OpQueue    = "queue"    // what waits for the broker
	OpDiagnose = "diagnose" // the read-only rungs, by local root, without a record
	OpRecent   = "recent"   // what telemetry saw in the last minutes

	OpInspections = "inspections" // the log of the inspections
)

// Message kinds in answers.
const (
	KindHello    = "hello"
	KindStatus   = "status" // job.Status
	KindRecord   = "record" // order.Envelope
	KindAgent    = "agent"
	KindCollect  = "collect"
	KindOptics   = "optics"
	KindQueue    = "queue"
	KindProgress = "progress"
	KindResult   = "result"
)

// Hello is how a gateway introduces itself on the LAN.
type Hello struct {
	Device    string          `json:"device"`
	Tenant    string          `json:"tenant"`
	Version   string          `json:"version"`
	Trust     *order.Envelope `json:"trust,omitempty"`
	Statement *order.Envelope `json:"statement,omitempty"`
}
