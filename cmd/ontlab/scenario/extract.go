package scenario

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"gopkg.in/yaml.v3"

	"ontagent/agent/acceptance"
)

// Extract is what the operator's AAA tells of the order's account, signed, with
// the order. Without a file's own words it is the lab's truth.
type Extract struct {
	Given       bool     `yaml:"given"`
	AgeS        float64  `yaml:"age_s"`
	Account     string   `yaml:"account"` // in full; the extract carries it masked
	State       string   `yaml:"state"`
	DownMbps    float64  `yaml:"down_mbps"`
	UpMbps      float64  `yaml:"up_mbps"`
	Template    string   `yaml:"template"`
	Pools       []string `yaml:"pools"`
	DNS         []string `yaml:"dns"`
	MTU         int      `yaml:"mtu"`
	VLAN        uint16   `yaml:"vlan"` // 0: not in the extract
	MaxSessions int      `yaml:"max_sessions"`
	Session     string   `yaml:"session"` // SessionTrue and so on
	Address     string   `yaml:"address"` // of the session; "": the gateway's
	MAC         string   `yaml:"mac"`     // of the session; "": the gateway's
	Omit        []string `yaml:"omit"`
}

// What an extract says of the session.
const (
	SessionTrue   = "as_is" // as it is when the visit starts
	SessionOnline = "online"
	SessionNone   = "none"
)

// What an extract can leave out.
const (
	OmitAccount = "account"
	OmitState   = "state"
	OmitRates   = "rates"
	OmitPools   = "pools"
	OmitDNS     = "dns"
	OmitMTU     = "mtu"
	OmitVLAN    = "vlan"
	OmitSession = "session"
)

func extractKeys() []key {
	parts := []string{OmitAccount, OmitState, OmitRates, OmitPools, OmitDNS, OmitMTU, OmitVLAN, OmitSession}
	rate := func(name string) key {
		return key{name: name, derived: "the account's in `network.accounts`, or that of the contract", example: "20", doc: "Rate that the AAA gives the account.", spec: spec{kind: number, min: 0.1, max: 1000, unit: "Mbit/s"}}
	}
	return []key{
		{name: "given", derived: "whether `account` is among the rungs that decide", example: "false", doc: "Whether an extract travels with the order.", spec: spec{kind: yesNo}},
		{name: "age_s", def: "60", example: "172800", doc: "How old it is when the visit starts; below 0 it is from the future.", spec: spec{kind: number, min: -864000, max: 31536000, unit: "s"}},
		{name: "account", derived: "as ordered", example: "u2@isp", doc: "Account in full; the extract carries it masked.", spec: spec{kind: text, maxLen: 128}},
		{name: "state", derived: "`active`; `missing` if `network.accounts` does not know it, `suspended` if it says so", example: "suspended", doc: "State of the account.", spec: spec{kind: text, oneOf: []string{"active", "suspended", "closed", "missing"}}},
		rate("down_mbps"),
		rate("up_mbps"),
		{name: "template", def: `""`, example: "plan-50", doc: "The AAA's name for the rates.", spec: spec{kind: text, maxLen: 64}},
		{name: "pools", derived: "`network.pool`, and with IPv6 what the lab gives out", example: "[198.51.100.0/24]", doc: "Networks that addresses come from.", spec: spec{kind: list, maxItems: 8, items: &spec{kind: text, maxLen: 43}}},
		{name: "dns", derived: "those that the network names", example: "[192.0.2.53]", doc: "Resolvers that the AAA has the BRAS name.", spec: spec{kind: list, maxItems: 8, items: &spec{kind: text, maxLen: 39}}},
		{name: "mtu", derived: "that of the connection", example: "1480", doc: "MTU of the session.", spec: spec{kind: whole, min: 576, max: 1500, unit: "bytes"}},
		{name: "vlan", derived: "the network's", example: "42", doc: "VLAN that the account is bound to; 0 is none that the extract could tell.", spec: spec{kind: whole, max: 4094}},
		{name: "max_sessions", derived: "the account's `sessions`, or 1", example: "2", doc: "Sessions allowed at once.", spec: spec{kind: whole, max: 100}},
		{name: "session", def: SessionTrue, example: SessionNone, doc: "What accounting shows: what is there when the visit starts, a session in any case, or none.", spec: spec{kind: text, oneOf: []string{SessionTrue, SessionOnline, SessionNone}}},
		{name: "address", derived: "that of whoever gets on", example: "203.0.113.99", doc: "IPv4 address of the session.", spec: spec{kind: text, maxLen: 15}},
		{name: "mac", derived: "that of whoever gets on", example: `"02:00:00:00:00:99"`, doc: "MAC of the session.", spec: spec{kind: text, maxLen: 32}},
		{name: "omit", def: "[]", example: "[session]", doc: "What it does not say. Of a bridged line `pools`, `dns` and `mtu` are left out in any case.", spec: spec{kind: list, maxItems: 8, unique: true, items: &spec{kind: text, oneOf: parts}}},
	}
}

// deriveExtract makes what a file does not say of the extract the lab's truth.
// The network and the gateway are derived already.
func (s *Scenario) deriveExtract(root *yaml.Node) {
	e := &s.Order.Extract
	said := func(name string) bool { return lookup(root, "order", "extract", name) != nil }
	inet, ordered := s.Service(Internet)
	if !said("given") {
		e.Given = ordered && slices.Contains(s.Order.Require, acceptance.Account)
	}
	if !said("account") {
		e.Account = inet.Account
	}
	known := Account{State: "ok"}
	if inet.Account != "" {
		known.State = "missing"
	}
	for _, a := range s.Network.Accounts {
		if a.Account == e.Account {
			known = a
		}
	}
	if !said("state") {
		e.State = "active"
		switch known.State {
		case "missing", "suspended":
			e.State = known.State
		}
	}
	for _, rate := range []struct {
		name          string
		at            *float64
		aaa, contract float64
	}{{"down_mbps", &e.DownMbps, known.DownMbps, inet.DownMbps}, {"up_mbps", &e.UpMbps, known.UpMbps, inet.UpMbps}} {
		if !said(rate.name) {
			*rate.at = rate.contract
			if rate.aaa > 0 {
				*rate.at = rate.aaa
			}
		}
	}
	if !said("pools") {
		e.Pools = []string{s.Network.Pool}
		if own, err := netip.ParsePrefix(inet.Address); err == nil {
			e.Pools = []string{own.Masked().String()}
		}
		if inet.IPv6 {
			e.Pools = append(e.Pools, "2001:db8:1000::/48", "2001:db8:2000::/40")
		}
	}
	if !said("mtu") {
		e.MTU = s.Gateway.Internet.MTU
		if s.Gateway.Internet.Access == PPPoE {
			e.MTU = int(math.Min(float64(e.MTU), float64(s.Network.BRAS.MTU)))
		}
	}
	if !said("vlan") {
		e.VLAN = s.Network.VLANs[Internet]
	}
	if !said("max_sessions") {
		e.MaxSessions = max(known.Sessions, 1)
	}
	if inet.Access == Bridge {
		for _, part := range []string{OmitPools, OmitDNS, OmitMTU} {
			if !slices.Contains(e.Omit, part) {
				e.Omit = append(e.Omit, part)
			}
		}
	}
}

// extract tells what cannot be an extract.
func (j *judge) extract() {
	e := j.s.Order.Extract
	for i, p := range e.Pools {
		if _, err := netip.ParsePrefix(p); err != nil && j.said("order", "extract", "pools") {
			j.wrong(fmt.Sprintf("order.extract.pools[%d]", i), "must be a network such as 203.0.113.0/24, not "+quote(p))
		}
	}
	for i, a := range e.DNS {
		if _, err := netip.ParseAddr(a); err != nil {
			j.wrong(fmt.Sprintf("order.extract.dns[%d]", i), "must be an address, not "+quote(a))
		}
	}
	if a, err := netip.ParseAddr(e.Address); e.Address != "" && (err != nil || !a.Is4()) {
		j.wrong("order.extract.address", "must be an IPv4 address, not "+quote(e.Address))
	}
	if _, ordered := j.s.Service(Internet); e.Given && !ordered {
		j.wrong("order.extract", "needs the service internet: it is that account which an extract tells of")
	}
}
