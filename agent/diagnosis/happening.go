package diagnosis

import "time"

// Happening is something that telemetry has seen change.
type Happening struct {
	// At is when, since the daemon's start: wall clocks jump.
	At time.Duration
	// Group and Name say what, as events do: "pon" and "state", "optics" and
	// "rx_level", "link" and "carrier".
	Group, Name string
	// Subject is which one, where there are several: an interface's name.
	Subject string
	// Before and After are the values, as the event tells them; a number has no
	// unit beside it.
	Before, After string
}
