// Package diagnosis owns the catalogue of cause codes – what each means, whose
// side it is, what to do next, in Chinese and English – and ranks the causes
// that explain the evidence of a ladder.
//
// It is also the one place for the words technicians read: rungs, verdicts, job
// states, reasons of refusal. Codes and keys travel in records and are never
// renamed; texts may be improved at any time.
//
// It measures nothing and imports nothing of the product, so that programs on
// both sides of the line can use it.
package diagnosis
