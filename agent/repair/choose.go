package repair

import (
	"slices"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
)

// The ways in which a line gets its addresses.
const (
	AccessPPPoE = "pppoe"
	AccessDHCP  = "ipoe"
)

// session lists the causes that a new session may end: what the gateway holds
// for its session, and the BRAS does not, or no more. Where not even a fresh
// dial gets through – no PADO, no offer, a refusal – another one would be
// answered the same, so those are not here.
var session = [...]diagnosis.Code{
	diagnosis.DialDropped, diagnosis.DialGatewaySettings, // a test dial gets through, the gateway's own does not
	diagnosis.AddrNone, diagnosis.AddrLinkLocal, diagnosis.AddrNoDefaultRoute,
	diagnosis.DNSNoResolver,
	diagnosis.ReachGatewaySilent, diagnosis.ReachNoReply,
}

// reading lists the causes that may be the reading's rather than the light's.
var reading = [...]diagnosis.Code{
	diagnosis.OpticalReadBroken, diagnosis.OpticalUnreadable, diagnosis.OpticalSourcesDisagree,
}

// Advise returns the action that may end a cause, or none and why. access is
// how the line gets its addresses: AccessPPPoE, AccessDHCP, or empty if nothing
// on this gateway says so.
func Advise(cause diagnosis.Code, access string) (action order.RepairAction, why string) {
	entry, known := diagnosis.Lookup(cause)
	again := slices.Contains(session[:], cause)
	switch {
	case slices.Contains(reading[:], cause):
		return order.ActionReread, ""
	case again && access == AccessPPPoE:
		return order.ActionRedial, ""
	case again && access == AccessDHCP:
		return order.ActionRenew, ""
	case again:
		return "", "a new session might help, but neither a PPPoE session nor a DHCP client was found that could be asked for one"
	case !known || cause == diagnosis.Unknown:
		return "", "the cause is not known, and what may help is not tried by chance"
	case entry.Side == diagnosis.SideDevice:
		return "", "no action of a repair ends this cause; it takes a person or a change of settings"
	}
	return "", "the cause is not on this gateway's side (" + string(entry.Side) + "): nothing that it could do to itself would end it"
}

// disturbs reports whether an action interrupts what the line carries.
func disturbs(a order.RepairAction) bool { return a != order.ActionReread }
