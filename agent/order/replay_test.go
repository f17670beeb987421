package order

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"
)

// requestBy is request, signed by another technician.
func (w *world) requestBy(o Order, c Command, technician ed25519.PrivateKey) Request {
	w.t.Helper()
	mine := w.technician
	defer func() { w.technician = mine }()
	w.technician = technician
	return w.request(o, c)
}

// requestByNew is request, for an order of a technician never seen before.
func (w *world) requestByNew(o Order, c Command) Request {
	w.t.Helper()
	key := newKey(w.t)
	o.Technicians = []Technician{{"T-9", public(key)}}
	return w.requestBy(o, c, key)
}

func TestCountersAreOfKeysNotOfOrders(t *testing.T) {
	w := newWorld(t)
	second := newKey(t)
	shared := w.order()
	shared.MaxRuns = 9
	shared.Technicians = append(shared.Technicians, Technician{"T-8", public(second)})
	other := w.order()
	other.Order, other.MaxRuns = "WO-2", 9

	cmd := func(o Order, counter uint64) Command {
		c := w.command()
		c.Order, c.Counter = o.Order, counter
		return c
	}
	for i, step := range []struct {
		r    Request
		want Reason
	}{
		{w.request(shared, cmd(shared, 5)), ""},
		{w.requestBy(shared, cmd(shared, 5), second), ""}, // a counter of another's key is no matter
		{w.request(other, cmd(other, 5)), ReasonReplayed}, // of the same key it is, under any order
		{w.request(other, cmd(other, 6)), ""},
		{w.request(shared, cmd(shared, 6)), ReasonReplayed},
		{w.requestBy(shared, cmd(shared, 4), second), ReasonReplayed},
		{w.requestBy(shared, cmd(shared, 6), second), ""},
	} {
		if _, err := run(w.authority(), step.r); reasonOf(err) != step.want {
			t.Errorf("step %d: %v, want %q", i+1, err, step.want)
		}
	}
}

// fill makes n orders used, each by a technician of its own, ending at end.
func (w *world) fill(a *Authority, n int, end time.Time) {
	for i := range n {
		name := fmt.Sprintf("fill-%d", i)
		a.state.Orders[name] = usedOrder{Rev: 1, Runs: 1, NotAfter: end}
		a.state.Counters[name] = usedKey{Counter: 1, NotAfter: end}
	}
}

func TestFullTableDoesNotLockTheGatewayForEver(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	w.fill(a, maxUsed, testNow.Add(time.Hour))
	if _, err := run(a, w.request(w.order(), w.command())); reasonOf(err) != ReasonInternal {
		t.Fatalf("order %d of those that are valid: %v", maxUsed+1, err)
	}
	w.clock.now = testNow.Add(72 * time.Hour)
	o := w.order()
	o.NotAfter = w.clock.now.Add(time.Hour)
	if _, err := run(a, w.request(o, w.command())); err != nil {
		t.Errorf("when all others have expired: %v", err)
	}
}

// TestForgottenUsesAreNotUsableAgain: the clock jumps ahead, old orders are
// pruned, and the clock comes back.
func TestForgottenUsesAreNotUsableAgain(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	used := w.request(w.order(), w.command())
	if _, err := run(a, used); err != nil {
		t.Fatal(err)
	}
	w.fill(a, maxUsed/2, testNow.Add(time.Hour))

	w.clock.now = testNow.AddDate(30, 0, 0)
	later := w.order()
	later.Order, later.NotAfter = "WO-later", w.clock.now.Add(time.Hour)
	c := w.command()
	c.Order = later.Order
	if _, err := run(a, w.requestByNew(later, c)); err != nil {
		t.Fatal(err)
	}
	if _, known := a.state.Orders["WO-1"]; known {
		t.Fatal("nothing was pruned: the test tests nothing")
	}
	w.clock.now = testNow
	for name, a := range map[string]*Authority{"at once": a, "after a restart": w.authority()} {
		if _, err := run(a, used); err == nil {
			t.Errorf("%s: ran again", name)
		}
	}
}

func TestNOCKeyThatIsATechniciansTooIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	open := func(o *Options) { o.NOCDiagnose = true }
	a := w.authority(open)
	c := w.command()
	c.Order, c.Rev, c.Type = "", 0, Diagnose
	trust := must(w.trust.Sign(w.root))
	diagnosis := w.parse(Request{V: 1, Trust: &trust, Command: new(must(c.Sign(w.noc)))})
	if _, err := run(a, diagnosis); err != nil {
		t.Fatal(err)
	}
	o := w.order()
	o.Technicians[0].Key = public(w.noc)
	if _, err := run(a, w.requestBy(o, w.command(), w.noc)); err != nil {
		t.Fatal(err)
	}
	w.fill(a, maxUsed/2, testNow.Add(time.Hour))
	w.clock.now = testNow.AddDate(1, 0, 0)
	o = w.order()
	o.Order, o.NotAfter = "WO-later", w.clock.now.Add(time.Hour)
	c = w.command()
	c.Order = o.Order
	if _, err := run(a, w.requestByNew(o, c)); err != nil {
		t.Fatal(err)
	}
	if _, err := run(a, diagnosis); reasonOf(err) != ReasonReplayed {
		t.Errorf("a NOC's command, a year later: %v, want replayed", err)
	}
}

func TestClosedOrderStillLetsItsJobBeStopped(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	if _, err := run(a, w.request(w.order(), w.command())); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseOrder("WO-1"); err != nil {
		t.Fatal(err)
	}
	c := w.command()
	c.Type, c.Args.Target = Cancel, "cmd-1"
	if _, err := run(a, w.request(w.order(), c)); err != nil {
		t.Errorf("cancel: %v", err)
	}
	if _, err := run(a, w.request(w.order(), w.command())); reasonOf(err) != ReasonOrderClosed {
		t.Errorf("another run: %v", err)
	}
}

// TestTrustListThatComesInBetweenCounts: between the check of the signatures and
// the grant a list arrives that revokes.
func TestTrustListThatComesInBetweenCounts(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	v, err := a.Verify(w.request(w.order(), w.command()))
	if err != nil {
		t.Fatal(err)
	}
	w.trust.Version, w.trust.RevokedOrders = 2, []string{"WO-1"}
	if err := a.AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Admit(v, begin); reasonOf(err) != ReasonOrderRevoked {
		t.Errorf("got %v, want order_revoked", err)
	}
}

func TestTrustListOfAnotherTenantDoesNotComeBackWithARestart(t *testing.T) {
	w := newWorld(t)
	if err := w.authority().AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
		t.Fatal(err)
	}
	o := w.order()
	o.Tenant = "other"
	r := w.request(o, w.command())
	r.Trust = nil
	moved := func(opts *Options) { opts.Tenant = "other" }
	if _, err := run(w.authority(moved), w.parse(r)); reasonOf(err) != ReasonUnknownKey {
		t.Errorf("the old tenant's operator signs for the new one: %v", err)
	}
}

func TestRefusalLeavesNoTrace(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	for name, prepare := range map[string]func() Request{
		"expired":   func() Request { w.clock.now = testNow.Add(2 * time.Hour); return w.request(w.order(), w.command()) },
		"challenge": func() Request { w.clock.trusted = false; return w.request(w.order(), w.command()) },
	} {
		v, err := a.Verify(prepare())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Admit(v, func() error { t.Errorf("%s: began", name); return nil }); err == nil {
			t.Errorf("%s: granted", name)
		}
		w.clock.now, w.clock.trusted = testNow, true
	}
	v, err := a.Verify(w.request(w.order(), w.command()))
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	if _, err := a.Admit(v, func() error { return full }); !errors.Is(err, full) {
		t.Errorf("begin failed: %v", err)
	}
	if len(a.state.Orders) != 0 || len(a.state.Counters) != 0 {
		t.Errorf("used up: %+v", a.state)
	}
}

func TestAnswerOfAnotherTechnicianOrCommandIsNone(t *testing.T) {
	w := newWorld(t)
	w.clock.trusted, w.clock.now = false, time.Unix(0, 0)
	a := w.authority()
	second := newKey(t)
	o := w.order()
	o.Technicians = append(o.Technicians, Technician{"T-8", public(second)})
	var asked, again *ChallengeError
	if _, err := run(a, w.request(o, w.command())); !errors.As(err, &asked) {
		t.Fatal(err)
	}
	answer := func(key ed25519.PrivateKey) error {
		c := w.command()
		c.Nonce = asked.Nonce
		r := w.requestBy(o, c, key)
		r.Time = new(must(TimeStatement{Device: testDevice, Nonce: asked.Nonce, UTC: testNow}.Sign(w.timeKey)))
		_, err := run(a, w.parse(r))
		return err
	}
	for name, key := range map[string]ed25519.PrivateKey{"another technician": second, "another command": w.technician} {
		if err := answer(key); !errors.As(err, &again) || again.Nonce == asked.Nonce {
			t.Errorf("%s: %v, want a challenge of its own", name, err)
		}
	}
}

func TestOneKeyOfTwoTechniciansIsRefused(t *testing.T) {
	w := newWorld(t)
	o := w.order()
	o.Technicians = append(o.Technicians, Technician{"T-8", public(w.technician)})
	if _, err := o.Sign(w.operator); err == nil {
		t.Error("signed: nobody could tell whose command it is")
	}
}

func TestWhatNoRecordCouldCarryIsRefusedFirst(t *testing.T) {
	w := newWorld(t)
	for range 200 {
		w.trust.Keys = append(w.trust.Keys, TrustKey{"op", RoleOperator, public(newKey(t))})
	}
	for i := range 1000 {
		w.trust.RevokedOrders = append(w.trust.RevokedOrders, fmt.Sprintf("revoked-order-%d", i))
	}
	if _, err := run(w.authority(), w.request(w.order(), w.command())); reasonOf(err) != ReasonTooLarge {
		t.Errorf("got %v, want too_large", err)
	}
}

// TestTimeKeyAloneCannotSpoilTheClock: the floor is for ever. Whoever holds a
// time key must not be able to put it where no order is valid any more.
func TestTimeKeyAloneCannotSpoilTheClock(t *testing.T) {
	w := newWorld(t)
	w.clock.trusted, w.clock.now = false, time.Unix(0, 0)
	a := w.authority(func(o *Options) { o.NOCDiagnose = true })
	trust := must(w.trust.Sign(w.root))
	look := w.command()
	look.Order, look.Rev, look.Type = "", 0, Diagnose
	for name, request := range map[string]func(nonce string) Request{
		"under an order": func(nonce string) Request {
			c := w.command()
			c.ID, c.Nonce = "visit", nonce
			return w.request(w.order(), c)
		},
		"a NOC's look": func(nonce string) Request {
			c := look
			c.Nonce = nonce
			return Request{V: 1, Trust: &trust, Command: new(must(c.Sign(w.noc)))}
		},
	} {
		for _, at := range []time.Time{testNow.AddDate(100, 0, 0), testNow.AddDate(-1, 0, 0)} {
			var asked *ChallengeError
			if _, err := run(a, w.parse(request(""))); !errors.As(err, &asked) {
				t.Fatalf("%s: %v", name, err)
			}
			r := request(asked.Nonce)
			r.Time = new(must(TimeStatement{Device: testDevice, Nonce: asked.Nonce, UTC: at}.Sign(w.timeKey)))
			_, err := run(a, w.parse(r))
			if name == "under an order" && err == nil {
				t.Errorf("%s: granted at %v", name, at)
			}
			if len(w.clock.raised) != 0 {
				t.Fatalf("%s: the floor was raised to %v", name, w.clock.raised)
			}
			look.ID, look.Counter = w.command().ID, w.counter
		}
	}
}
