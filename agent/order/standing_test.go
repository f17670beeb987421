package order

import (
	"testing"
	"time"
)

// standing grants a repair that asks to stay in force, and returns what a
// gateway keeps of it.
func standing(t *testing.T, w *world, a *Authority, change ...func(*Order, *Command)) Request {
	t.Helper()
	o, c := w.order(), w.command()
	o.Allow = append(o.Allow, RepairCmd)
	c.Type, c.Args.Standing = RepairCmd, true
	for _, f := range change {
		f(&o, &c)
	}
	r := w.request(o, c)
	if _, err := run(a, r); err != nil {
		t.Fatal(err)
	}
	return Request{V: 1, Order: r.Order, Command: r.Command}
}

func TestStandingOrderHolds(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	kept := standing(t, w, a)
	for range 5 { // far more than the order has runs: it uses none up
		v, err := a.Standing(kept)
		if err != nil {
			t.Fatal(err)
		}
		if v.Order.Order != "WO-1" || !v.Command.Args.Standing || v.Technician.ID != "T-7" {
			t.Errorf("verified = %+v", v)
		}
	}
	if _, err := w.authority().Standing(kept); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestStandingOrderEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		want Reason
		then func(t *testing.T, w *world, a *Authority, kept *Request)
	}{
		"closed": {ReasonOrderClosed, func(t *testing.T, _ *world, a *Authority, _ *Request) {
			t.Helper()
			if err := a.CloseOrder("WO-1"); err != nil {
				t.Fatal(err)
			}
		}},
		"revoked": {ReasonOrderRevoked, func(t *testing.T, w *world, a *Authority, _ *Request) {
			t.Helper()
			w.trust.Version, w.trust.RevokedOrders = 2, []string{"WO-1"}
			if err := a.AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
				t.Fatal(err)
			}
		}},
		"the technician's key is revoked": {ReasonRevoked, func(t *testing.T, w *world, a *Authority, _ *Request) {
			t.Helper()
			w.trust.Version, w.trust.RevokedKeys = 2, []string{public(w.technician).ID()}
			if err := a.AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
				t.Fatal(err)
			}
		}},
		"the operator's key is off the list": {ReasonUnknownKey, func(t *testing.T, w *world, a *Authority, _ *Request) {
			t.Helper()
			w.trust.Version, w.trust.Keys = 2, w.trust.Keys[1:]
			if err := a.AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
				t.Fatal(err)
			}
		}},
		"superseded": {ReasonOrderSuperseded, func(t *testing.T, w *world, a *Authority, _ *Request) {
			t.Helper()
			o, c := w.order(), w.command()
			o.Rev, c.Rev = 2, 2
			if _, err := run(a, w.request(o, c)); err != nil {
				t.Fatal(err)
			}
		}},
		"expired": {ReasonExpired, func(_ *testing.T, w *world, _ *Authority, _ *Request) {
			w.clock.now = testNow.Add(2 * time.Hour)
		}},
		"certainly expired, without a clock": {ReasonExpired, func(_ *testing.T, w *world, _ *Authority, _ *Request) {
			w.clock.trusted, w.clock.floor = false, testNow.Add(2*time.Hour)
		}},
		"no clock": {ReasonClockUntrusted, func(_ *testing.T, w *world, _ *Authority, _ *Request) { w.clock.trusted = false }},
		"never granted": {ReasonActionNotAllowed, func(t *testing.T, w *world, _ *Authority, kept *Request) {
			t.Helper()
			o, c := w.order(), w.command()
			o.Allow = append(o.Allow, RepairCmd)
			c.Type, c.Args.Standing, c.Counter = RepairCmd, true, 99
			r := w.request(o, c)
			kept.Command = r.Command
		}},
		"of another order that was never used": {ReasonActionNotAllowed, func(t *testing.T, w *world, _ *Authority, kept *Request) {
			t.Helper()
			o, c := w.order(), w.command()
			o.Allow = append(o.Allow, RepairCmd)
			o.Order, c.Order, c.Type, c.Args.Standing, c.Counter = "WO-9", "WO-9", RepairCmd, true, 1
			r := w.request(o, c)
			kept.Order, kept.Command = r.Order, r.Command
		}},
		"a plain repair": {ReasonActionNotAllowed, func(t *testing.T, w *world, a *Authority, kept *Request) {
			t.Helper()
			o, c := w.order(), w.command()
			o.Allow, c.Type = append(o.Allow, RepairCmd), RepairCmd
			r := w.request(o, c)
			if _, err := run(a, r); err != nil {
				t.Fatal(err)
			}
			kept.Order, kept.Command = r.Order, r.Command
		}},
		"an acceptance": {ReasonActionNotAllowed, func(t *testing.T, w *world, a *Authority, kept *Request) {
			t.Helper()
			r := w.request(w.order(), w.command())
			if _, err := run(a, r); err != nil {
				t.Fatal(err)
			}
			kept.Order, kept.Command = r.Order, r.Command
		}},
		"nothing": {ReasonActionNotAllowed, func(_ *testing.T, _ *world, _ *Authority, kept *Request) { *kept = Request{V: 1} }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.authority()
			kept := standing(t, w, a)
			tc.then(t, w, a, &kept)
			if _, err := a.Standing(kept); reasonOf(err) != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
