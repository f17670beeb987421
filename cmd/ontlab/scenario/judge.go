package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"ontagent/agent/acceptance"
)

// judge tells what is wrong with a scenario whose fields are each right: what
// they say together. root tells where.
func (ms *mistakes) judge(s Scenario, root *yaml.Node) {
	j := &judge{mistakes: ms, root: root, s: s}
	if name := base(s.File); s.Name != "" && name != s.Name {
		j.wrong("scenario", fmt.Sprintf("is %s, but the file is named %s; both must be the same", quote(s.Name), quote(name)))
	}
	j.order()
	j.extract()
	j.services()
	if lan := j.s.Gateway.LAN; lan.Given {
		j.speeds("gateway.lan", lan.SpeedMbps, lan.PortMaxMbps, lan.PeerMaxMbps)
	}
	j.network()
	j.timeline()
	for i, event := range s.Expect.Events {
		if err := checkEvent(event); err != nil {
			j.wrong(fmt.Sprintf("expect.events[%d]", i), err.Error())
		}
	}
}

type judge struct {
	*mistakes

	root *yaml.Node
	s    Scenario
}

// wrong tells a mistake in a field; it stands where the field does or, if the
// file does not have it, where what is around it does.
func (j *judge) wrong(field, text string) {
	n := j.root
	for _, part := range strings.FieldsFunc(field, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		var next *yaml.Node
		if i, err := strconv.Atoi(part); err == nil && n.Kind == yaml.SequenceNode {
			if i < len(n.Content) {
				next = n.Content[i]
			}
		} else {
			next = lookup(n, part)
		}
		if next == nil {
			break
		}
		n = next
	}
	j.add(n.Line, n.Column, field, text)
}

// said reports whether the file has the field.
func (j *judge) said(path ...string) bool { return lookup(j.root, path...) != nil }

func (j *judge) order() {
	thresholds := lookup(j.root, "order", "thresholds")
	if thresholds == nil {
		return
	}
	single := true
	for i := 0; i+1 < len(thresholds.Content); i += 2 {
		name := thresholds.Content[i].Value
		_, err := acceptance.Norms().With(acceptance.OriginOrder, map[string]float64{name: j.s.Order.Thresholds[name]})
		if err != nil {
			single = false
			j.add(thresholds.Content[i+1].Line, thresholds.Content[i+1].Column, "order.thresholds."+name, err.Error())
		}
	}
	if _, err := acceptance.Norms().With(acceptance.OriginOrder, j.s.Order.Thresholds); err != nil && single {
		j.wrong("order.thresholds", err.Error())
	}
}

func (j *judge) services() {
	kinds, vlans := map[string]int{}, map[uint16]string{}
	for i, service := range j.s.Services {
		field := func(name string) string { return fmt.Sprintf("services[%d].%s", i, name) }
		if service.Kind == "" {
			continue // told already
		}
		if at, twice := kinds[service.Kind]; twice {
			j.wrong(field("kind"), fmt.Sprintf("%s is ordered twice, also by services[%d]", service.Kind, at))
			continue
		}
		kinds[service.Kind] = i
		if other, taken := vlans[service.VLAN]; taken {
			j.wrong(field("vlan"), fmt.Sprintf("VLAN %d is that of %s already; each service has one of its own", service.VLAN, other))
		}
		vlans[service.VLAN] = service.Kind
		j.service(service, lookupList(j.root, "services"), i, field)
	}
}

func (j *judge) service(service Service, nodes []*yaml.Node, i int, field func(string) string) {
	said := func(name string) bool { return i < len(nodes) && lookup(nodes[i], name) != nil }
	if said("behind") && service.Access != Bridge {
		j.wrong(field("behind"), "needs access: bridge")
	}
	if service.Address != "" {
		if service.Access != Static {
			j.wrong(field("address"), "needs access: static")
		}
		if p, err := netip.ParsePrefix(service.Address); err != nil || !p.Addr().Is4() || p.Bits() > 30 || p.Bits() < 8 {
			j.wrong(field("address"), "must be an IPv4 address with the length of its network, as 203.0.113.10/24, not "+quote(service.Address))
		}
	}
	switch service.Kind {
	case Internet:
		for _, name := range []string{"account", "password"} {
			if said(name) && !service.dials() {
				j.wrong(field(name), "nobody dials: it needs access: pppoe")
			}
		}
		if service.dials() && service.Account == "" {
			j.wrong(field("account"), "must not be empty: somebody dials with it")
		}
		if service.dials() && service.Password == "" {
			j.wrong(field("password"), "must not be empty: somebody dials with it")
		}
	case IPTV:
		if a, err := netip.ParseAddr(service.Group); err != nil || !a.IsMulticast() || a.Zone() != "" {
			j.wrong(field("group"), "must be a multicast address, 224.0.1.0 to 239.255.255.255 or ff00::/8, not "+quote(service.Group))
		} else if a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast() {
			j.wrong(field("group"), service.Group+" never leaves its link")
		}
	}
}

// speeds tells those of a LAN port that no port has.
func (j *judge) speeds(field string, speed, port, peer int) {
	for _, s := range []struct {
		name string
		mbps int
	}{{"speed_mbps", speed}, {"port_max_mbps", port}, {"peer_max_mbps", peer}} {
		if s.mbps != 0 && !slices.Contains([]int{10, 100, 1000, 2500}, s.mbps) {
			j.wrong(field+"."+s.name, fmt.Sprintf("must be 10, 100, 1000 or 2500, not %d", s.mbps))
		}
	}
	if speed > port && j.clean(field) {
		j.wrong(field+".speed_mbps", "must be at most port_max_mbps")
	}
}

func (j *judge) network() {
	n := j.s.Network
	for i, a := range n.Accounts {
		field := func(name string) string { return fmt.Sprintf("network.accounts[%d].%s", i, name) }
		if a.Account != "" && slices.ContainsFunc(n.Accounts[:i], func(b Account) bool { return a.Account == b.Account }) {
			j.wrong(field("account"), quote(a.Account)+" stands twice")
		}
		if nodes := lookupList(j.root, "network", "accounts"); a.Password == "" && i < len(nodes) {
			j.wrong(field("password"), "is missing; only the ordered account has a default")
		}
		if a.FramedIP != "" && !isIPv4(a.FramedIP) {
			j.wrong(field("framed_ip"), "must be an IPv4 address, not "+quote(a.FramedIP))
		}
	}
	if p, err := netip.ParsePrefix(n.Pool); err != nil || !p.Addr().Is4() || p != p.Masked() || p.Bits() < 8 || p.Bits() > 29 {
		j.wrong("network.pool", "must be an IPv4 network of /8 to /29, as 203.0.113.0/24, not "+quote(n.Pool))
	}
	if j.said("network", "bras", "auth") && len(n.BRAS.Auth) == 0 {
		j.wrong("network.bras.auth", "must name at least one of pap, chap")
	}
	used := map[uint16]string{}
	for _, kind := range []string{Internet, IPTV, Voice, Management} {
		vlan, there := n.VLANs[kind]
		if !there {
			continue
		}
		if _, ordered := j.s.Service(kind); !ordered && j.clean("services") {
			j.wrong("network.vlans."+kind, kind+" is not ordered; name it among the services")
		}
		if other, taken := used[vlan]; taken && j.said("network", "vlans") {
			j.wrong("network.vlans."+kind, fmt.Sprintf("VLAN %d is that of %s already", vlan, other))
		}
		used[vlan] = kind
	}
	if n.Speed.Second && n.Speed.UplinkMbps == 0 {
		j.wrong("network.speed_server.second", "needs an uplink_mbps; without one the first is that on core")
	}
	if n.Line.JitterMS > n.Line.DelayMS {
		j.wrong("network.line.jitter_ms", "must be at most delay_ms")
	}
	if n.Line.ReorderRatio > 0 && n.Line.DelayMS == 0 {
		j.wrong("network.line.reorder_ratio", "needs a delay_ms to overtake in")
	}
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

// clean reports whether nothing was wrong with a field so far, so that nothing
// is told twice.
func (j *judge) clean(field string) bool {
	return !slices.ContainsFunc(j.list, func(m Mistake) bool { return strings.HasPrefix(m.Field, field) })
}

func (j *judge) timeline() {
	set := map[string]bool{}
	complete := j.clean("timeline")
	for i, m := range j.s.Timeline {
		n := lookupList(j.root, "timeline")[i]
		at := fmt.Sprintf("timeline[%d]", i)
		said := func(name string) bool { return lookup(n, name) != nil }
		switch {
		case m.Fault == "" && m.Clear == "":
			if j.clean(at) {
				j.wrong(at, "needs a fault, or what to clear")
			}
		case m.Fault != "" && m.Clear != "":
			j.wrong(at+".clear", "stands beside a fault; use an entry for each")
		case m.Clear != "":
			j.clear(m, at, said, set, complete)
		default:
			set[m.Fault] = true
			j.fault(m, at, said)
		}
		for _, name := range []string{"at_s", "rung"} {
			if m.Before && said(name) {
				j.wrong(at+"."+name, "does not go with before: true")
			}
		}
		if limit := j.s.Measure.LimitS; m.AtS > limit {
			j.wrong(at+".at_s", fmt.Sprintf("is after measure.limit_s, %g s", limit))
		}
	}
}

func (j *judge) clear(m Moment, at string, said func(string) bool, set map[string]bool, complete bool) {
	known := Faults()
	switch {
	case m.Clear == "all":
	case !slices.Contains(known, m.Clear):
		j.wrong(at+".clear", "there is no fault "+quote(m.Clear)+choice(m.Clear, known))
	case !set[m.Clear] && complete:
		j.wrong(at+".clear", m.Clear+" was not set by an entry before")
	}
	if said("for_s") {
		j.wrong(at+".for_s", "goes with a fault only")
	}
	if m.Before {
		j.wrong(at+".before", "goes with a fault only")
	}
}

func (j *judge) fault(m Moment, at string, said func(string) bool) {
	field := at + ".fault"
	var v variant
	for _, v = range faults() {
		if v.value == m.Fault {
			break
		}
	}
	if j.clean("services") && !j.s.meets(v.needs) {
		j.wrong(field, m.Fault+" needs "+v.needs.String())
	}
	p := m.Params
	j.speeds(at, p.SpeedMbps, p.PortMaxMbps, p.PeerMaxMbps)
	if p.Address != "" && !isIPv4(p.Address) {
		j.wrong(at+".address", "must be an IPv4 address, not "+quote(p.Address))
	}
	if most := j.s.Network.DNS.Resolvers; p.Resolver > most {
		j.wrong(at+".resolver", fmt.Sprintf("there is no resolver %d; network.dns.resolvers is %d", p.Resolver, most))
	}
	if most := j.s.Network.Targets; p.Target > most {
		j.wrong(at+".target", fmt.Sprintf("there is no target %d; network.targets is %d", p.Target, most))
	}
	switch m.Fault {
	case "vlan_wrong":
		vlan, ordered := j.s.Network.VLANs[p.Service]
		switch {
		case !ordered && j.clean("services"):
			j.wrong(at+".service", p.Service+" is not ordered")
		case ordered && vlan == p.VLAN:
			j.wrong(at+".vlan", fmt.Sprintf("%s is in VLAN %d already", p.Service, vlan))
		}
		for _, kind := range []string{Internet, IPTV, Voice, Management} {
			if other, there := j.s.Network.VLANs[kind]; there && kind != p.Service && other == p.VLAN {
				j.wrong(at+".vlan", fmt.Sprintf("VLAN %d is that of %s already", p.VLAN, kind))
			}
		}
	case "line":
		if p.JitterMS > p.DelayMS {
			j.wrong(at+".jitter_ms", "must be at most delay_ms")
		}
		if p.ReorderRatio > 0 && p.DelayMS == 0 {
			j.wrong(at+".reorder_ratio", "needs a delay_ms to overtake in")
		}
	case "account_reject":
		known := func(a Account) bool { return a.Account == p.Account }
		if said("account") && !slices.ContainsFunc(j.s.Network.Accounts, known) {
			j.wrong(at+".account", quote(p.Account)+" is not among network.accounts")
		}
	}
}

// meets reports whether the scenario has what a fault needs.
func (s Scenario) meets(n need) bool {
	has := func(kind string) bool { _, ok := s.Service(kind); return ok }
	ordered, online := s.Service(Internet)
	switch n {
	case needPPPoE:
		return ordered.dials() || online && s.Gateway.Internet.Access == PPPoE
	case needDHCP:
		return ordered.Behind == IPoE || s.Gateway.Internet.Access == IPoE ||
			slices.ContainsFunc(s.Services, func(service Service) bool { return service.Access == IPoE })
	case needInternet:
		return online
	case needIPv6:
		return online && ordered.IPv6
	case needIPTV:
		return has(IPTV)
	case needVoice:
		return has(Voice)
	case needManagement:
		return has(Management)
	case needLAN:
		return s.Gateway.LAN.Given
	case needLoad:
		return s.Gateway.Load.Given
	case needNothing:
	}
	return true
}

// lookupList returns the entries of the list at a path of keys.
func lookupList(n *yaml.Node, path ...string) []*yaml.Node {
	found := lookup(n, path...)
	if found == nil || found.Kind != yaml.SequenceNode {
		return nil
	}
	return found.Content
}
