package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// eventType is a type of event messages: the last level of the topic event/NAME.
type eventType struct {
	name  string
	whats []string // a - at the end stands for whatever begins like it; nil: an event without a what
}

// eventTypes are those that a gateway sends.
func eventTypes() []eventType {
	return []eventType{
		{"link", []string{"presence", "name", "admin_state", "carrier", "oper_state", "mac", "mtu"}},
		{"wan", []string{"address", "default_route", "default_interface"}},
		{"optics", []string{
			"rx_power", "rx_power_status", "rx_level", "rx_baseline", "baseline", "rx_trend", "laser", "cross_check", "module",
			"limit_-", "alarm_-", "warning_-",
		}},
		{"pon", []string{"state", "state_raw", "serial", "omci_provisioned", "loid_status", "alarm_-", "lods_events", "sd_too_long", "sd_mismatch"}},
		{"certificate", nil},
		{"sync", nil},
		{"audit", nil},
		{"spool", nil},
		{"gap", nil},
	}
}

// EventName is an event as expectations name it: the type, of events that tell
// one what has changed, and if that is so what it is now.
func EventName(kind, what, after string) string {
	name := kind
	if what != "" {
		name += "." + what
		if after != "" {
			name += "=" + after
		}
	}
	return name
}

// fits reports whether an event that came is one that was expected.
func fits(expected, came string) bool {
	rest, ok := strings.CutPrefix(came, expected)
	return ok && (rest == "" || rest[0] == '=' || rest[0] == '.' && !strings.ContainsAny(expected, ".="))
}

// checkEvent says what is wrong with an expected event.
func checkEvent(name string) error {
	head, _, valued := strings.Cut(name, "=")
	kind, what, changed := strings.Cut(head, ".")
	types := eventTypes()
	at := slices.IndexFunc(types, func(t eventType) bool { return t.name == kind })
	if at < 0 {
		var known []string
		for _, t := range types {
			known = append(known, t.name)
		}
		return fmt.Errorf("there is no event of type %s%s", quote(kind), choice(kind, known))
	}
	whats := types[at].whats
	switch {
	case !changed && valued:
		return fmt.Errorf("%s is TYPE=AFTER; it must be TYPE, TYPE.WHAT or TYPE.WHAT=AFTER", quote(name))
	case !changed:
		return nil
	case whats == nil:
		return fmt.Errorf("an event of type %s does not say what has changed: write %s alone", kind, kind)
	}
	for _, w := range whats {
		prefix, open := strings.CutSuffix(w, "-")
		if w == what || open && strings.HasPrefix(what, prefix) && len(what) > len(prefix) {
			return nil
		}
	}
	var known []string
	for _, w := range whats {
		if prefix, open := strings.CutSuffix(w, "-"); open {
			w = prefix + "NAME"
		}
		known = append(known, w)
	}
	return fmt.Errorf("an event of type %s never says %s%s", kind, quote(what), choice(what, known))
}
