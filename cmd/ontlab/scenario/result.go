package scenario

import (
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// Observed is what a played scenario came to.
type Observed struct {
	Verdict  acceptance.Verdict
	Rungs    []RungVerdict    // in climbing order
	Causes   []diagnosis.Code // of the diagnosis, most likely first
	Events   []string         // as EventName, in order of arrival
	Duration time.Duration    // of the visit
	Where    string           // where it was played: WhereHost, WhereGuest
	Err      error            // why it could not be played; the rest is not compared then
}

// RungVerdict is what a rung came to.
type RungVerdict struct {
	Rung    acceptance.Rung
	Verdict acceptance.Verdict
}

// Where a scenario was played.
const (
	WhereHost  = "host"  // on the running kernel
	WhereGuest = "guest" // in a QEMU guest
)
