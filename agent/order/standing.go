package order

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
	if err == nil {
		err = a.stands(&v)
	}
	return v, err
}

// stands refuses what may not be acted under, although it is signed.
func (a *Authority) stands(v *Verified) error {
	order, admitted := a.state.Orders[v.Order.Order]
	now, trusted := a.o.Clock.Now()
	if !trusted {
		now = a.o.Clock.Floor()
	}
	switch {
	case v.Command.Type != RepairCmd || !v.Command.Args.Standing:
		return refuse(ReasonActionNotAllowed, "the command asks for nothing standing")
	case !admitted || v.Command.Counter > a.state.Counters[v.keyID].Counter:
		// Whoever put it there did not get it past Admit.
		return refuse(ReasonActionNotAllowed, "the command was never granted")
	case order.Closed:
		return refuse(ReasonOrderClosed, "the order is closed")
	case v.Order.Rev < order.Rev:
		return refuse(ReasonOrderSuperseded, "a newer revision of the order is in force")
	case now.After(v.Order.NotAfter):
		return refuse(ReasonExpired, "the order has expired")
	case !trusted:
		return refuse(ReasonClockUntrusted, "the clock cannot tell whether the order still holds")
	case now.Before(v.Order.NotBefore):
		return refuse(ReasonNotYetValid, "the order is not valid yet")
	}
	return nil
}
