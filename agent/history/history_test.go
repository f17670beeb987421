package history_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
	"ontagent/agent/history"
	"ontagent/collectors"
)

// hands is a clock that tests turn.
type hands struct{ now time.Duration }

func (c *hands) pass(d time.Duration) { c.now += d }

func newHistory(c *hands) *history.History {
	return history.New(history.Options{Now: func() time.Duration { return c.now }})
}

func event(group, subject, what, before, after string) collectors.Event {
	return collectors.Event{Type: group, Subject: subject, What: what, Before: before, After: after}
}

func sample(subject string, kv ...any) []collectors.Sample {
	s := collectors.Sample{Subject: subject}
	for i := 0; i+1 < len(kv); i += 2 {
		name, _ := kv[i].(string)
		s.Fields = append(s.Fields, collectors.F(name, kv[i+1]))
	}
	return []collectors.Sample{s}
}

// lines are happenings to compare: when, what, from, to.
func lines(all []diagnosis.Happening) []string {
	out := []string{}
	for _, x := range all {
		out = append(out, fmt.Sprintf("%v %s %s %s: %s → %s", x.At, x.Group, x.Subject, x.Name, x.Before, x.After))
	}
	return out
}

func expect(t *testing.T, h *history.History, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), lines(h.Recent())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatHappenedIsForgottenAfterTheWindow(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	h.Event(event("link", "wan", "carrier", "up", "down"))
	c.pass(10 * time.Minute)
	h.Event(event("link", "wan", "carrier", "down", "up"))
	expect(t, h, "0s link wan carrier: up → down", "10m0s link wan carrier: down → up")
	c.pass(6 * time.Minute) // the fall is out of the window, the return is not
	expect(t, h, "0s link wan carrier: up → down", "10m0s link wan carrier: down → up")
	c.pass(10 * time.Minute)
	expect(t, h)
}

func TestWhatLastsStandsHoweverLong(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	h.Event(event("optics", "", "rx_power_status", "ok", "no_light"))
	c.pass(time.Second)
	h.Event(event("pon", "", "state", "operational", "los"))
	c.pass(30 * 24 * time.Hour)
	expect(t, h, "0s optics  rx_power_status: ok → no_light", "1s pon  state: operational → los")
	if first, ok := diagnosis.FromHappenings(h.Recent()).First(); !ok || first.Code != diagnosis.OpticalNoLight || first.Kind != diagnosis.KindFault {
		t.Errorf("diagnosis %+v", first)
	}
	h.Event(event("pon", "", "state", "los", "operational"))
	h.Event(event("optics", "", "rx_power_status", "no_light", "ok"))
	c.pass(time.Hour)
	expect(t, h)
}

func TestAnotherAddressIsNoLoss(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	h.Event(event("wan", "ppp0", "address", "198.51.100.7/32", ""))
	h.Event(event("wan", "ppp0", "address", "", "198.51.100.9/32"))
	h.Event(event("wan", "ppp0", "address", "2001:db8::1/64", ""))
	c.pass(time.Hour)
	expect(t, h, "0s wan ppp0 address: 2001:db8::1/64 → ")
}

func TestLightThatFallsBetweenSamples(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	for _, dBm := range []float64{-20, -21.5, -20.3, -24, -20.1, -22.4, -22.6, -22.5} {
		h.Samples("optics", sample("", "rx_power_dbm", dBm))
		c.pass(time.Minute)
	}
	// One reading of -24 is not believed, the second below -22 is.
	expect(t, h, "6m0s optics  rx_power: -20.00 → -22.60")
	// The event about the same fall adds nothing.
	h.Event(event("optics", "", "rx_power", "-20.00 dBm", "-22.60 dBm"))
	expect(t, h, "6m0s optics  rx_power: -20.00 → -22.60")
}

func TestErrorsThatRiseAreOneHappening(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	for _, n := range []uint64{7, 7, 9, 30, 30, 95} {
		h.Samples("pon", sample("", "fec_uncorrected", n))
		c.pass(time.Minute)
	}
	expect(t, h, "2m0s pon  fec_uncorrected: 7 → 95")
	for range 4 { // it stops
		h.Samples("pon", sample("", "fec_uncorrected", uint64(95)))
		c.pass(time.Minute)
	}
	h.Samples("pon", sample("", "fec_uncorrected", uint64(96)))
	h.Samples("pon", sample("", "fec_uncorrected", uint64(3))) // a reset is no error
	h.Samples("pon", sample("", "fec_uncorrected", uint64(3)))
	expect(t, h, "2m0s pon  fec_uncorrected: 7 → 95", "10m0s pon  fec_uncorrected: 95 → 96")
	c.pass(time.Hour)
	expect(t, h) // how many there were is no state
}

func TestAStormIsBoundedInBytes(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	long := ""
	for range 400 {
		long += "光"
	}
	for i := range 5000 {
		c.pass(10 * time.Millisecond)
		h.Event(event("link", "eth"+strconv.Itoa(i%300)+long, "carrier", "up", "down"+strconv.Itoa(i)))
		h.Samples("optics", sample(strconv.Itoa(i), "rx_power_dbm", float64(-i%30)))
		h.Samples("link", sample(strconv.Itoa(i), "rx_errors", uint64(i)))
	}
	h.Event(event("pon", "", "state", "operational", "los"))
	all := h.Recent()
	size := 0
	for _, x := range all {
		size += len(x.Group) + len(x.Name) + len(x.Subject) + len(x.Before) + len(x.After) + 96
	}
	if size > 32<<10+96*400 || len(all) < 100 {
		t.Errorf("%d happenings take %d bytes", len(all), size)
	}
	if last := all[len(all)-1]; last.Name != "state" || last.After != "los" {
		t.Errorf("the last one is %+v", last)
	}
}

// stood is what the tests below go on with after a restart.
func stood(t *testing.T, events ...collectors.Event) *history.History {
	t.Helper()
	c := &hands{}
	before := newHistory(c)
	for _, e := range events {
		before.Event(e)
	}
	return before
}

func TestARestartGoesOnWithWhatStood(t *testing.T) {
	before := stood(
		t,
		event("pon", "", "state", "operational", "los"),
		event("pon", "", "alarm_los", "clear", "active"),
		event("wan", "ppp0", "address", "198.51.100.7/32", ""),
		event("wan", "ppp0", "default_route", "198.51.100.1 ppp0", ""),
		event("link", "eth1", "carrier", "up", "down"),
		event("optics", "", "rx_power", "-20.00 dBm", "-26.00 dBm"),
		event("optics", "", "cross_check", "agree", "disagree"),
		event("link", "eth2", "carrier", "up", "down"),
		event("link", "eth2", "carrier", "down", "up"),
	)
	c := &hands{}
	h := newHistory(c)
	h.Remember(before.Standing(16))
	if n := len(h.Recent()); n != 7 {
		t.Fatalf("%d happenings are remembered: %q", n, lines(h.Recent()))
	}
	c.pass(time.Minute)
	h.Samples("pon", sample("", "state", "operational", "alarms", "", "alarms_known", "lof"))
	h.Samples("wan", sample("", "interface", "ppp0", "ipv4_address", "198.51.100.8/32", "ipv4_default", true, "ipv4_default_interface", "ppp0"))
	h.Samples("link", sample("eth1", "carrier", false))
	h.Samples("optics", sample("", "rx_power_dbm", -26.4))
	expect(
		t, h,
		"0s pon  state: operational → los",
		"0s pon  alarm_los: clear → active",
		"0s wan ppp0 address: 198.51.100.7/32 → ",
		"0s wan ppp0 default_route: 198.51.100.1 ppp0 → ",
		"0s link eth1 carrier: up → down",
		"0s optics  rx_power: -20.00 → -26.00",
		"0s optics  cross_check: agree → disagree",
		"1m0s pon  state: los → operational",
		"1m0s wan ppp0 address:  → 198.51.100.8/32",
		"1m0s wan ppp0 default_route:  → ppp0",
	)
	// What no reading confirmed – an alarm of which the source says nothing, a
	// second source that is gone – is let go; what one did, stays.
	c.pass(time.Hour)
	expect(t, h, "0s link eth1 carrier: up → down", "0s optics  rx_power: -20.00 → -26.00")
}

func TestStandingIsBounded(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	for i := range 300 {
		c.pass(time.Second)
		h.Event(event("link", "eth"+strconv.Itoa(i), "carrier", "up", "down"))
	}
	if got := lines(h.Standing(2)); len(got) != 2 || got[1] != "5m0s link eth299 carrier: up → down" {
		t.Errorf("%q", got)
	}
	c.pass(time.Hour)
	if n := len(h.Recent()); n > 96 {
		t.Errorf("%d properties stand", n)
	}
}

func TestVersionTellsChanges(t *testing.T) {
	c := &hands{}
	h := newHistory(c)
	v := h.Version()
	if c.pass(time.Hour); h.Version() != v {
		t.Error("time alone changed an empty history")
	}
	h.Event(event("link", "wan", "carrier", "up", "down"))
	w := h.Version()
	if w == v {
		t.Error("an event changed nothing")
	}
	if c.pass(20 * time.Minute); h.Version() == w {
		t.Error("what is too old was let go unnoticed")
	}
	h.Reset()
	expect(t, h)
}
