package steps

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// extract compares an extract with the order and with the line. What decides
// and is not in it is lacking; all else that is not in it is not compared.
func (c *comparison) extract(e *Extract) {
	c.told(e)
	switch e.State {
	case AccountActive:
	case AccountMissing:
		c.differ(diagnosis.AccountNoSuchUser, "the AAA does not know the account")
		return
	case AccountSuspended, AccountClosed:
		c.differ(diagnosis.AccountState, "the AAA has the account as "+e.State)
	default:
		c.lack(diagnosis.AccountNoExtract, "the extract says no state that is known")
	}
	c.names(e.Account)
	c.vlans(e)
	c.session(e)
	c.rate("downstream", c.contract.DownMbps, e.DownMbps)
	c.rate("upstream", c.contract.UpMbps, e.UpMbps)
	if c.contract.Access == AccessBridge {
		return // what the line gives, it gives somebody behind the gateway
	}
	c.pools(e.Pools)
	c.dns(e.DNS)
	switch mtu := c.mtu(); {
	case e.MTU == 0:
	case mtu == 0:
		c.unproven("the connection's MTU is not known")
	case mtu != int(e.MTU):
		c.differ(diagnosis.AccountNotSynced, fmt.Sprintf("MTU %d on the line, %d in the AAA", mtu, e.MTU))
	}
}

// told keeps what the extract says.
func (c *comparison) told(e *Extract) {
	say := func(name string, v any, said bool) {
		if said {
			measured(c.out, name, v, extractSource, "")
			return
		}
		put(c.out, missing(name, collectors.StatusUnsupported, extractSource, "not extracted"))
	}
	say("aaa_account", e.Account, e.Account != "")
	say("aaa_state", e.State, e.State != "")
	say("aaa_down_mbps", e.DownMbps, e.DownMbps > 0)
	say("aaa_up_mbps", e.UpMbps, e.UpMbps > 0)
	say("aaa_template", e.Template, e.Template != "")
	say("aaa_pools", joined(e.Pools), len(e.Pools) > 0)
	say("aaa_dns", joined(e.DNS), len(e.DNS) > 0)
	say("aaa_mtu_bytes", int(e.MTU), e.MTU > 0)
	say("aaa_vlan", int(e.VLAN), e.VLAN > 0)
	say("aaa_max_sessions", int(e.MaxSessions), e.MaxSessions > 0)
	if e.Session == nil {
		say("aaa_session_online", nil, false)
		return
	}
	n := e.Session
	say("aaa_session_online", n.Online, true)
	if !n.Online {
		return
	}
	since := ""
	if !n.Since.IsZero() {
		since = n.Since.UTC().Format(time.RFC3339)
	}
	say("aaa_session_since", since, since != "")
	say("aaa_session_address", n.V4.String(), n.V4.IsValid())
	say("aaa_session_prefix", n.V6.String(), n.V6.IsValid())
	say("aaa_session_delegated", n.PD.String(), n.PD.IsValid())
	say("aaa_session_mac", n.MAC, n.MAC != "")
	say("aaa_session_vlan", int(n.VLAN), n.VLAN > 0)
	say("aaa_session_nas", strings.TrimSpace(n.NAS+" "+n.NASPort), n.NAS != "" || n.NASPort != "")
}

// names compares the masked accounts. Lines without a login have none.
func (c *comparison) names(aaa string) {
	ours := c.contract.Account
	switch {
	case ours != "" && aaa != "":
		if !sameMasked(ours, aaa) {
			c.differ(diagnosis.AccountNotSynced, fmt.Sprintf("the order is for account %q, the extract of %q", ours, aaa))
		}
	case c.contract.Access == AccessPPPoE || ours != "":
		what := "the extract does not say of which account it is"
		if ours == "" {
			what = "the order does not say which account it is for"
		}
		c.lack(diagnosis.AccountNoExtract, what)
	}
}

// sameMasked reports whether two masked accounts can be one: some hide more of
// it than others.
func sameMasked(a, b string) bool {
	ends := func(s string) (head, tail string) {
		return s[:max(strings.IndexByte(s, '*'), 0)], s[strings.LastIndexByte(s, '*')+1:]
	}
	aHead, aTail := ends(a)
	bHead, bTail := ends(b)
	return (strings.HasPrefix(aHead, bHead) || strings.HasPrefix(bHead, aHead)) &&
		(strings.HasSuffix(aTail, bTail) || strings.HasSuffix(bTail, aTail))
}

func (c *comparison) vlans(e *Extract) {
	bound := []uint16{e.VLAN}
	if e.Session != nil {
		bound = append(bound, e.Session.VLAN)
	}
	seen, known := c.vlan()
	for _, id := range bound {
		switch {
		case id == 0:
		case c.contract.VLAN != 0 && id != c.contract.VLAN:
			c.differ(diagnosis.AccountBinding, fmt.Sprintf("VLAN %d in the AAA, %d in the order", id, c.contract.VLAN))
		case known && int(id) != seen:
			c.differ(diagnosis.AccountBinding, fmt.Sprintf("VLAN %d in the AAA, %d on the line", id, seen))
		case c.contract.VLAN == 0 && !known:
			c.unproven("neither order nor line tell the VLAN")
		}
	}
}

func (c *comparison) rate(way string, contract, aaa float64) {
	switch {
	case aaa == 0:
		c.lack(diagnosis.AccountNoExtract, "the extract says no "+way+" rate")
	case contract == 0:
		c.lack(diagnosis.AgentCannotMeasure, "the order says no "+way+" rate")
	case aaa < contract*rateSlack || aaa > contract*rateHeadroom:
		c.differ(diagnosis.AccountBandwidthTemplate, fmt.Sprintf("%s %g Mbit/s in the AAA, %g in the contract", way, aaa, contract))
	}
}

// pools compares the addresses, family by family.
func (c *comparison) pools(pools []netip.Prefix) {
	if len(pools) == 0 {
		return
	}
	compared := false
	for _, v4 := range []bool{true, false} {
		var own, given []netip.Prefix
		for _, p := range pools {
			if p.Addr().Unmap().Is4() == v4 {
				own = append(own, p)
			}
		}
		for _, a := range c.addresses() {
			if a.Is4() == v4 {
				given = append(given, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		if !v4 && c.online {
			given = append(given, c.line.Delegated...)
		}
		if len(own) == 0 || len(given) == 0 {
			continue
		}
		compared = true
		fits := false
		for _, g := range given {
			fits = fits || overlapsAny(own, g)
		}
		if !fits {
			c.differ(diagnosis.AccountNotSynced, fmt.Sprintf("the line gives %s, the AAA's pools are %s", joined(given), joined(own)))
		}
	}
	if !compared {
		c.unproven("there is no address to compare with the AAA's pools")
	}
}

func overlapsAny(all []netip.Prefix, p netip.Prefix) bool {
	for _, o := range all {
		if o.Overlaps(p) {
			return true
		}
	}
	return false
}

// dns compares resolvers of the families that the gateway was given any of: an
// AAA may have more to give than was asked for.
func (c *comparison) dns(aaa []netip.Addr) {
	if len(aaa) == 0 {
		return
	}
	given, compared := c.resolvers(), false
	var has4, has6 bool
	for _, g := range given {
		has4, has6 = has4 || g.Is4(), has6 || !g.Is4()
	}
	for _, a := range aaa {
		if a.Is4() && !has4 || !a.Is4() && !has6 {
			continue
		}
		compared = true
		if !slices.Contains(given, a) {
			c.differ(diagnosis.AccountNotSynced, fmt.Sprintf("the AAA gives resolver %s, the gateway has %s", a, joined(given)))
		}
	}
	if !compared {
		c.unproven("which resolvers the line gives is not known")
	}
}

// session compares what accounting shows with what the gateway has.
func (c *comparison) session(e *Extract) {
	n := e.Session
	foreign, told := false, false // the session's MAC: not ours; known
	if n != nil {
		if mac, ok := macAddress(n.MAC); ok && len(c.line.MACs) > 0 {
			told, foreign = true, true
			for _, text := range c.line.MACs {
				own, ok := macAddress(text)
				foreign = foreign && (!ok || own != mac)
			}
		}
	}
	switch {
	case n == nil && c.contract.Access == AccessStatic: // there need not be any
	case n == nil:
		c.lack(diagnosis.AccountNoExtract, "the extract says nothing of sessions")
	case c.contract.Access == AccessBridge:
		if !n.Online {
			c.lack(diagnosis.AgentCannotMeasure, "accounting shows no session, and on a bridged line none can be seen from here")
		}
	case !c.online && c.lineErr == nil && n.Online && told && foreign && e.MaxSessions == 1 && c.age <= sessionFresh:
		c.differ(diagnosis.AccountTooManySessions, "the one session that the account may have is that of "+n.MAC)
	case !c.online:
		c.unproven("there is no connection to compare with accounting: " + c.barred)
	case !n.Online:
		c.elsewhere(diagnosis.AccountNotSynced, "the gateway is online, accounting shows no session")
	default:
		c.whose(n, told, foreign)
	}
}

// whose compares a session that is online with the gateway's own.
func (c *comparison) whose(n *ExtractSession, told, foreign bool) {
	var same, other []string
	weigh := func(what string, comparable, equal bool) {
		switch {
		case !comparable:
		case equal:
			same = append(same, what)
		default:
			other = append(other, what)
		}
	}
	var v4, v6 []netip.Addr
	for _, a := range c.addresses() {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	inside := func(p netip.Prefix) bool { return slices.ContainsFunc(v6, p.Contains) }
	weigh("address "+n.V4.String(), n.V4.IsValid() && len(v4) > 0, slices.Contains(v4, n.V4.Unmap()))
	weigh("prefix "+n.V6.String(), n.V6.IsValid() && len(v6) > 0, n.V6.IsValid() && inside(n.V6))
	weigh("delegated prefix "+n.PD.String(), n.PD.IsValid() && len(c.line.Delegated) > 0, n.PD.IsValid() && overlapsAny(c.line.Delegated, n.PD))
	weigh("MAC "+n.MAC, told, !foreign)
	switch {
	case len(other) == 0 && len(same) == 0:
		c.lack(diagnosis.AccountNoExtract, "the extract does not say whose session is online")
	case len(other) == 0:
	case foreign && len(same) == 0:
		c.elsewhere(diagnosis.AccountTooManySessions, "the session that accounting shows is another's: "+strings.Join(other, ", "))
	default:
		c.elsewhere(diagnosis.AccountNotSynced, "accounting shows another "+strings.Join(other, ", ")+" than the gateway has")
	}
}

// elsewhere is a session that is not this one: a fail where the extract is so
// fresh that the gateway has hardly dialled since.
func (c *comparison) elsewhere(code diagnosis.Code, reason string) {
	if c.age <= sessionFresh {
		c.differ(code, reason)
		return
	}
	c.lack(code, fmt.Sprintf("%s; but the extract is %v old, and the gateway may have dialled since", reason, c.age.Round(time.Second)))
}
