// Package agent is the gateway daemon's core: it keeps the parts running, turns
// what they say into messages, and carries out visits.
//
// It knows collectors and transport by their interfaces only. Which collectors,
// which transport and which steps there are is decided in cmd/ontagent.
package agent
