// Package pon watches the registration of the gateway at its OLT: the state
// of the ONU, whether the OLT has provisioned it, alarms and error counters.
//
// The package declares the Reader it needs and knows no source; states are
// normalised here, in one place, and the vendor's own word is kept beside the
// normalised one. A state of operational alone proves little: OMCI says
// whether the OLT has given the line anything to do.
package pon

import (
	"context"
	"strings"
	"time"
)

// State is the normalised state of an ONU. It is an alias so that a source
// can declare a struct that converts to Status without importing this package.
type State = string

// The states. GPON, XG(S)-PON and EPON share them.
const (
	StateLOS         State = "los"         // O1, O1.1: no signal, or not in sync
	StateSearching   State = "searching"   // O1.2, O2, EPON waiting: in sync, waiting to be found
	StateSerial      State = "serial"      // O3, O2-3: serial number asked for
	StateRanging     State = "ranging"     // O4
	StateOperational State = "operational" // O5, O5.1, O5.2, EPON registered
	StatePopup       State = "popup"       // O6: signal lost for a moment
	StateStopped     State = "stopped"     // O7: silenced by the OLT
	StateUnknown     State = "unknown"
)

// Answer is yes, no or unknown.
type Answer = string

// The answers.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// Names of counters. All are running totals since the start of the ONU.
const (
	FECCorrected   = "fec_corrected"   // codewords
	FECUncorrected = "fec_uncorrected" // codewords
	BIP            = "bip"             // error bits
	LODSEvents     = "lods_events"
	SDTooLong      = "sd_too_long" // rogue laser
	SDMismatch     = "sd_mismatch" // rogue laser
)

// Status is what one source said about the registration at one moment.
//
// The field types are basic ones on purpose: a source declares a struct of
// the same fields and is converted where it is wired.
type Status struct {
	// State is the normalised Raw; a Reader may leave it empty, the Collector
	// fills it in.
	State State
	// Raw is the O name ("O5", "O5.1"), else the word or number of the
	// vendor; empty if the source did not tell.
	Raw string
	// Serial is the GPON serial number, 4 letters and 8 hexadecimal digits;
	// empty if unknown.
	Serial string
	// OMCIProvisioned says whether the OLT has provisioned services.
	OMCIProvisioned Answer
	// OMCIEvidence says in one clause what that is based on.
	OMCIEvidence string
	// GEMPorts and TConts count what carries user traffic upstream; they
	// mean something only with FlowsKnown.
	GEMPorts, TConts int
	FlowsKnown       bool
	// LOIDStatus is what the chip says about authentication by LOID or
	// password, in its own words; empty if it does not tell.
	LOIDStatus string
	// Alarms are the active alarms, sorted, by the names los lof lom lods sf
	// sd tx_too_long tx_mismatch and the like.
	Alarms []string
	// AlarmsKnown are the alarms whose state was read, active or not, sorted.
	// What is not among them is not known to be clear.
	AlarmsKnown []string
	// Counters by name; a counter that was not read is absent.
	Counters map[string]uint64
	// Source is where it came from: "console:rtl960x".
	Source string
	// At is when it was read, with a monotonic reading; the zero time means
	// "just now".
	At time.Time
}

// A Reader is one source of the registration state.
type Reader interface {
	// Name is the source as it appears in a Status.
	Name() string
	// ReadPON reads once; a source may serve a status that is a few seconds
	// old. An error compatible with errors.Is(err, collectors.ErrNoData)
	// means that there is nothing to read here; with any other the Status is
	// what could be read all the same.
	ReadPON(ctx context.Context) (Status, error)
}

// A FreshReader is a Reader that may serve a remembered status, and can be
// told not to.
type FreshReader interface {
	Reader
	// ReadPONFresh is ReadPON with everything read after the call began.
	ReadPONFresh(ctx context.Context) (Status, error)
}

// Normalise maps the name of a state – an O name of G.984.3 or G.9807.1, or
// the MPCP state of an EPON ONU, as number or as word – to a State; what it
// does not know is StateUnknown. O8 and O9 (tuning) are unknown: they say
// nothing about light or registration. So is MPCP's 2, a state in transition.
func Normalise(raw string) State {
	name := strings.ToUpper(strings.TrimSpace(raw))
	name = strings.NewReplacer("_", " ", "-", " ").Replace(name)
	switch name {
	case "O1", "O1.1", "LOS":
		return StateLOS
	case "O1.2", "O2", "1",
		"WAIT", "WAITING", "WAIT FOR DISCOVERY", "DISCOVERY", "DISCOVERING", "REGISTERING",
		"UNREGISTERED", "DEREGISTERED", "NOT REGISTERED":
		return StateSearching
	case "O3", "O2 3", "O2.3":
		return StateSerial
	case "O4":
		return StateRanging
	case "O5", "O5.1", "O5.2", "3", "REGISTERED":
		return StateOperational
	case "O6":
		return StatePopup
	case "O7", "O7.1", "O7.2", "O7.3":
		return StateStopped
	}
	return StateUnknown
}

// InService says whether the line is registered and given something to do: an
// ONU may call itself operational without ever having been provisioned, as
// some do that were cloned or that the OLT does not know. It is yes or no only
// where state and provisioning both say so; out of operation is no.
func (st *Status) InService() Answer {
	switch st.State {
	case StateOperational:
		if st.OMCIProvisioned == Yes || st.OMCIProvisioned == No {
			return st.OMCIProvisioned
		}
		return Unknown
	case StateLOS, StateSearching, StateSerial, StateRanging, StatePopup, StateStopped:
		return No
	}
	return Unknown
}
