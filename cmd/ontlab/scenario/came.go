package scenario

import "slices"

// EventsCame reports whether each expected event is among those that came.
func (e Expect) EventsCame(events []string) bool {
	for _, expected := range e.Events {
		if !slices.ContainsFunc(events, func(came string) bool { return fits(expected, came) }) {
			return false
		}
	}
	return true
}
