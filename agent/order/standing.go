package order

import "time"

// Standing judges anew a request that was granted before and that is kept, so
// that the gateway may act under it without a further command: a repair with
// Args.Standing. It uses nothing up. Signatures are checked by the trust list
// in force now; an order that is revoked, closed, superseded or outside its
// validity is refused, and where the clock is not trusted any is. Errors are
// *RefusalError.
func (a *Authority) Standing(req Request) (Verified, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.trusted || req.Command == nil || req.Order == nil {
		return Verified{}, refuse(ReasonActionNotAllowed, "no order and command are kept")
	}
	v, err := a.verify(req)
	if err != nil {
		return Verified{}, err
	}
	order, admitted := a.state.Orders[v.Order.Order]
	switch {
	case v.Command.Type != RepairCmd || !v.Command.Args.Standing:
		return Verified{}, refuse(ReasonActionNotAllowed, "command %s asks for nothing standing", v.Command.ID)
	case !admitted || v.Command.Counter > a.state.Counters[v.keyID].Counter:
		// Whoever put it there did not get it past Admit.
		return Verified{}, refuse(ReasonActionNotAllowed, "command %s was never granted", v.Command.ID)
	case order.Closed:
		return Verified{}, refuse(ReasonOrderClosed, "order %s is closed", v.Order.Order)
	case v.Order.Rev < order.Rev:
		return Verified{}, refuse(ReasonOrderSuperseded, "rev %d of order %s is superseded by %d", v.Order.Rev, v.Order.Order, order.Rev)
	}
	now, trusted := a.o.Clock.Now()
	if !trusted {
		if floor := a.o.Clock.Floor(); floor.After(v.Order.NotAfter) {
			return Verified{}, v.validAt(floor)
		}
		return Verified{}, refuse(ReasonClockUntrusted, "the clock cannot tell whether order %s, valid until %s, still holds",
			v.Order.Order, v.Order.NotAfter.UTC().Format(time.RFC3339))
	}
	return v, v.validAt(now)
}
