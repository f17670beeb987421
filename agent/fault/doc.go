// Package fault turns causes that last into faults: opened once, with the class
// and the deadlines of the field norms, and cleared when they are gone.
//
// A Tracker is shown every diagnosis of the last minutes of telemetry, and of
// every inspection. It debounces what it is shown, counts a line that comes and
// goes as one fault, knows how often a fault recurred, and keeps what is open on
// flash, written only when something opens or clears, so that a restart neither
// opens a fault again nor forgets to clear it.
//
// It finds no cause by itself; that is package diagnosis's business.
package fault
