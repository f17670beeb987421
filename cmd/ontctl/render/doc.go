// Package render shows evidence records to people: as text for a terminal and
// as one printable HTML page, in Chinese and in English.
//
// It decides nothing and verifies nothing: what a record is worth is told by
// the record.Verification that comes with it, and is shown first. Everything in
// a record is taken for what somebody else wrote: it is escaped, bounded, and
// cannot move the cursor or turn the direction of writing.
//
// Ontctl uses it.
package render
