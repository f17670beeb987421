package scenario

import (
	"math"

	"gopkg.in/yaml.v3"

	"ontagent/agent/acceptance"
)

// derive fills in the defaults that depend on other fields. root tells what the
// file itself says.
func (s *Scenario) derive(root *yaml.Node) {
	has := func(path ...string) bool { return lookup(root, path...) != nil }
	if !has("title") {
		s.Title = s.Name
	}
	s.deriveServices(lookupList(root, "services"))
	if !has("order", "require") {
		s.Order.Require = DefaultRequire(s.Services)
	}
	for name, resource := range map[string]struct{ at, as *string }{
		"sn":       {&s.Order.SN, &s.Gateway.Serial},
		"mac":      {&s.Order.MAC, &s.Gateway.MAC},
		"lan_port": {&s.Order.LANPort, new(LANPort)},
	} {
		if !has("order", name) {
			*resource.at = *resource.as
		}
	}
	s.Gateway.Module.Given, s.Gateway.LAN.Given, s.Gateway.Load.Given = has("gateway", "module"), has("gateway", "lan"), has("gateway", "load")
	// The load of the machine that plays a gateway is no criterion.
	for _, name := range []string{acceptance.CPUMax, acceptance.MemoryMax} {
		if !has("order", "thresholds", name) && !s.Gateway.Load.Given {
			s.Order.Thresholds[name] = 2
		}
	}
	s.deriveGateway(has)
	s.deriveNetwork(root, has)
	s.deriveExtract(root)
	for i, n := range lookupList(root, "timeline") {
		s.deriveMoment(&s.Timeline[i], n)
	}
}

// dials reports whether somebody dials by PPPoE: the gateway or, behind a
// bridge, the PC.
func (s Service) dials() bool {
	return s.Access == PPPoE || s.Access == Bridge && s.Behind == PPPoE
}

func (s *Scenario) deriveServices(nodes []*yaml.Node) {
	for i := range s.Services {
		service := &s.Services[i]
		said := func(name string) bool { return i < len(nodes) && lookup(nodes[i], name) != nil }
		if service.Kind != Internet {
			continue
		}
		if service.Access == Bridge && service.Behind == "" {
			service.Behind = PPPoE
		}
		if service.dials() && !said("account") {
			service.Account = "u1@isp"
		}
		if service.dials() && !said("password") {
			service.Password = "p1"
		}
	}
}

func (s *Scenario) deriveGateway(has func(...string) bool) {
	g := &s.Gateway.Internet
	ordered, _ := s.Service(Internet)
	said := func(name string) bool { return has("gateway", "internet", name) }
	if !said("access") {
		g.Access = ordered.Access
	}
	if !said("vlan") {
		g.VLAN = ordered.VLAN
	}
	if !said("account") {
		g.Account = ordered.Account
	}
	if !said("password") {
		g.Password = ordered.Password
	}
	if !said("ipv6") {
		g.IPv6 = ordered.IPv6
	}
	if !said("mtu") {
		g.MTU = 1500
		if g.Access == PPPoE || g.Access == Bridge && ordered.dials() {
			g.MTU = 1492
		}
	}
}

func (s *Scenario) deriveNetwork(root *yaml.Node, has func(...string) bool) {
	n := &s.Network
	ordered, _ := s.Service(Internet)
	if !has("network", "accounts") && ordered.Account != "" {
		n.Accounts = []Account{{Account: ordered.Account, Password: ordered.Password, State: "ok"}}
	}
	for i, node := range lookupList(root, "network", "accounts") {
		a := &n.Accounts[i]
		if lookup(node, "password") == nil && a.Account == ordered.Account {
			a.Password = ordered.Password
		}
		if lookup(node, "reply") == nil {
			a.Reply = StateReply(a.State)
		}
	}
	if n.VLANs == nil {
		n.VLANs = map[string]uint16{}
	}
	for _, service := range s.Services {
		if !has("network", "vlans", service.Kind) {
			n.VLANs[service.Kind] = service.VLAN
		}
	}
	// What the headers between TCP and ethernet take, and a little.
	const headroom = 1.08
	stream, _ := s.Service(IPTV)
	if !has("network", "line", "down_mbps") && ordered.Kind != "" {
		n.Line.DownMbps = math.Round((ordered.DownMbps+stream.RateMbps)*headroom*100) / 100
	}
	if !has("network", "line", "up_mbps") && ordered.Kind != "" {
		n.Line.UpMbps = math.Round(ordered.UpMbps*headroom*100) / 100
	}
}

// StateReply returns the Reply-Message that goes with the state of an account
// if a file does not say another one; "" for ok.
func StateReply(state string) string {
	switch state {
	case "suspended":
		return "状态错"
	case "no_access":
		return "无认证接入校验属性"
	case "prepaid":
		return "OCS_Err"
	case "binding":
		return "绑定校验错"
	case "pool_exhausted":
		return "地址池耗尽"
	case "bandwidth_template":
		return "带宽模板错误"
	}
	return ""
}

func (s *Scenario) deriveMoment(m *Moment, n *yaml.Node) {
	said := func(name string) bool { return lookup(n, name) != nil }
	switch m.Fault {
	case "account_reject":
		if !said("account") {
			ordered, _ := s.Service(Internet)
			m.Params.Account = ordered.Account
		}
	case "session_limit":
		if !said("reply") {
			m.Params.Reply = s.Network.AAA.SessionLimit
		}
	case "pon_state":
		if !said("omci") {
			m.Params.OMCI = m.Params.State == "O5"
		}
	case "laser":
		p, g := &m.Params, s.Gateway
		if !said("tx_power_dbm") {
			p.TxPowerDBm = g.TxPowerDBm
		}
		if !said("bias_ma") {
			p.BiasMA = g.BiasMA
		}
	case "lan_port":
		p, lan := &m.Params, s.Gateway.LAN
		for name, v := range map[string]struct {
			at *int
			as int
		}{
			"speed_mbps": {&p.SpeedMbps, lan.SpeedMbps}, "port_max_mbps": {&p.PortMaxMbps, lan.PortMaxMbps},
			"peer_max_mbps": {&p.PeerMaxMbps, lan.PeerMaxMbps},
		} {
			if !said(name) {
				*v.at = v.as
			}
		}
		if !said("duplex") {
			p.Duplex = lan.Duplex
		}
	case "gateway_load":
		p, load := &m.Params, s.Gateway.Load
		for name, v := range map[string]struct {
			at *float64
			as float64
		}{
			"cpu_busy_ratio": {&p.CPUBusyRatio, load.CPUBusyRatio}, "memory_used_ratio": {&p.MemoryUsed, load.MemoryUsedRatio},
			"temperature_celsius": {&p.Temperature, load.TemperatureCelsius},
		} {
			if !said(name) {
				*v.at = v.as
			}
		}
	case "line":
		p, line := &m.Params, s.Network.Line
		for name, v := range map[string]struct {
			at *float64
			as float64
		}{
			"down_mbps": {&p.DownMbps, line.DownMbps}, "up_mbps": {&p.UpMbps, line.UpMbps}, "delay_ms": {&p.DelayMS, line.DelayMS},
			"jitter_ms": {&p.JitterMS, line.JitterMS}, "loss_ratio": {&p.LossRatio, line.LossRatio},
			"duplicate_ratio": {&p.DuplicateRatio, line.DuplicateRatio}, "reorder_ratio": {&p.ReorderRatio, line.ReorderRatio},
		} {
			if !said(name) {
				*v.at = v.as
			}
		}
		if !said("mtu") {
			p.MTU = line.MTU
		}
		if !said("queue_ms") {
			p.QueueMS = line.QueueMS
		}
	}
}

// Line returns the properties that a fault named line sets.
func (p Params) Line() Line {
	return Line{
		DownMbps: p.DownMbps, UpMbps: p.UpMbps, DelayMS: p.DelayMS, JitterMS: p.JitterMS, LossRatio: p.LossRatio,
		DuplicateRatio: p.DuplicateRatio, ReorderRatio: p.ReorderRatio, QueueMS: p.QueueMS, MTU: p.MTU,
	}
}
