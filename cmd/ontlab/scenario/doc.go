// Package scenario reads the files that say what a lab is to play: the
// operator's side and the home's side of a line, the work order, what goes
// wrong when, and what the visit must come to. It compares what was expected
// with what came, and prints results.
//
// The file format is documented in docs/scenarios.md and docs/scenario.schema.json,
// both written from the tables of this package. It knows nothing of how a lab
// is built; cmd/ontlab plays.
package scenario
