package steps_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dns"
	"ontagent/agent/probe/ping"
	"ontagent/collectors"
)

const (
	pass    = acceptance.Pass
	fail    = acceptance.Fail
	unclear = acceptance.Inconclusive
)

func TestIdentity(t *testing.T) {
	have := inventory("ABCD12345678", "lan1", "02:00:00:00:00:01")
	blind := have
	blind.SNStatus = collectors.StatusError
	for _, tt := range []struct {
		name    string
		ordered steps.Resources
		have    steps.Inventory
		verdict acceptance.Verdict
		causes  []diagnosis.Code
	}{
		{"all match", steps.Resources{SN: "ABCD12345678", MAC: "02:00:00:00:00:01", LANPort: "lan1", PONPort: "1/1/1"}, have, pass, nil},
		{"SN in hexadecimal", steps.Resources{SN: "4142434412345678"}, have, pass, nil},
		{"SN in lower case, with a dash", steps.Resources{SN: "abcd-12345678"}, have, pass, nil},
		{"another MAC of the device", steps.Resources{MAC: "0200.0000.0099"}, have, pass, nil},
		{"MAC with dashes", steps.Resources{MAC: "02-00-00-00-00-01"}, have, pass, nil},
		{"MAC without anything", steps.Resources{MAC: "020000000001"}, have, pass, nil},
		{"wrong SN", steps.Resources{SN: "ABCD12345679"}, have, fail, []diagnosis.Code{diagnosis.IdentitySNMismatch}},
		{"wrong MAC", steps.Resources{SN: "ABCD12345678", MAC: "02:00:00:00:00:02"}, have, fail, []diagnosis.Code{diagnosis.IdentityMACMismatch}},
		{"wrong port", steps.Resources{LANPort: "lan9"}, have, fail, []diagnosis.Code{diagnosis.IdentityPortMismatch}},
		{"all wrong", steps.Resources{SN: "ABCD00000000", MAC: "02:00:00:00:00:02", LANPort: "lan9"}, have, fail, []diagnosis.Code{
			diagnosis.IdentitySNMismatch, diagnosis.IdentityMACMismatch, diagnosis.IdentityPortMismatch,
		}},
		{"SN not readable, MAC matches", steps.Resources{SN: "ABCD12345678", MAC: "02:00:00:00:00:01"}, blind, unclear, []diagnosis.Code{diagnosis.IdentityUnreadable}},
		{"SN not readable, MAC wrong", steps.Resources{SN: "ABCD12345678", MAC: "02:00:00:00:00:02"}, blind, fail, []diagnosis.Code{diagnosis.IdentityMACMismatch}},
		{"SN not readable and not stated", steps.Resources{MAC: "02:00:00:00:00:01"}, blind, pass, nil},
		{"a typing error in the order's SN", steps.Resources{SN: "ABCD1234567"}, have, unclear, []diagnosis.Code{diagnosis.IdentityUnreadable}},
		{"a typing error in the order's MAC", steps.Resources{MAC: "02:00:00:00:00:0G"}, have, unclear, []diagnosis.Code{diagnosis.IdentityUnreadable}},
		{"an order of all-zero MACs", steps.Resources{MAC: "00:00:00:00:00:00"}, have, unclear, []diagnosis.Code{diagnosis.IdentityUnreadable}},
		{"nothing stated", steps.Resources{}, have, unclear, []diagnosis.Code{diagnosis.IdentityNothingToCompare}},
		{"only what a device can't see", steps.Resources{PONPort: "1/1/1", SplitterPort: "7"}, have, unclear, []diagnosis.Code{diagnosis.IdentityNothingToCompare}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			step := steps.NewIdentity(steps.IdentityOptions{Ordered: tt.ordered, Reader: inventoryFunc(func(context.Context) (steps.Inventory, error) { return tt.have, nil })})
			res := run(t, step)
			check(t, res, tt.verdict, tt.causes, nil)
			for _, m := range res.Measurements {
				if m.Name == "pon_port" && (m.Status != "unsupported" || !strings.Contains(m.Note, "not visible") || !strings.Contains(m.Note, tt.ordered.PONPort)) {
					t.Errorf("%+v", m)
				}
			}
		})
	}
}

func TestLANCabling(t *testing.T) {
	gigabit := steps.LANPort{Carrier: true, CarrierKnown: true, SpeedMbps: 1000, Duplex: "full", MaxMbps: 1000, CRCKnown: true, CRCErrors: 7}
	with := func(change func(*steps.LANPort)) steps.LANPort {
		p := gigabit
		change(&p)
		return p
	}
	hundred := with(func(p *steps.LANPort) { p.SpeedMbps = 100 })
	down := with(func(p *steps.LANPort) { p.Carrier, p.SpeedMbps, p.Duplex = false, 0, "" })
	for _, tt := range []struct {
		name          string
		before, after steps.LANPort
		contract      float64
		attached      bool
		verdict       acceptance.Verdict
		causes        []diagnosis.Code
		warnings      []diagnosis.Code
	}{
		{name: "gigabit", before: gigabit, verdict: pass},
		{name: "gigabit proves eight wires whatever else is unknown", before: with(func(p *steps.LANPort) { p.MaxMbps, p.Duplex, p.CRCKnown = 0, "", false }), verdict: pass},
		{name: "2.5 gigabit", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps = 2500, 2500 }), verdict: pass},
		{name: "100 on a gigabit port", before: hundred, verdict: fail, causes: []diagnosis.Code{diagnosis.LANPortSlow}},
		{name: "100, and the other end can do 1000", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.PeerMaxMbps = 100, 1000 }), verdict: fail, causes: []diagnosis.Code{diagnosis.LANPortSlow}},
		{name: "100, and the other end can do no more", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.PeerMaxMbps = 100, 100 }), verdict: unclear, causes: []diagnosis.Code{diagnosis.LANPeerSlow}},
		{name: "100 with a contract of 500, port unknown", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps = 100, 0 }), contract: 500, verdict: fail, causes: []diagnosis.Code{diagnosis.LANPortSlow}},
		{name: "100 with a contract of 100.1, port of 100", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps = 100, 100 }), contract: 100.1, verdict: fail, causes: []diagnosis.Code{diagnosis.LANPortSlow}},
		{name: "100 with a contract of 100, port of 100", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps = 100, 100 }), contract: 100, verdict: pass, warnings: []diagnosis.Code{diagnosis.LANWiresUnproven}},
		{name: "100 with a contract of 50, port unknown", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps = 100, 0 }), contract: 50, verdict: unclear, causes: []diagnosis.Code{diagnosis.LANUnreadable}},
		{name: "10 on a port of 100", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps = 10, 100 }), verdict: fail, causes: []diagnosis.Code{diagnosis.LANPortSlow}},
		{name: "100 on a port of 100, duplex unknown", before: with(func(p *steps.LANPort) { p.SpeedMbps, p.MaxMbps, p.Duplex = 100, 100, "" }), verdict: unclear, causes: []diagnosis.Code{diagnosis.LANUnreadable}},
		{name: "half duplex", before: with(func(p *steps.LANPort) { p.Duplex = "half" }), verdict: fail, causes: []diagnosis.Code{diagnosis.LANHalfDuplex}},
		{name: "errors grow", before: gigabit, after: with(func(p *steps.LANPort) { p.CRCErrors++ }), verdict: fail, causes: []diagnosis.Code{diagnosis.LANCRCErrors}},
		{name: "the error counter was reset", before: gigabit, after: with(func(p *steps.LANPort) { p.CRCErrors = 0 }), verdict: pass},
		{name: "old errors are no errors", before: with(func(p *steps.LANPort) { p.CRCErrors = 99999 }), verdict: pass},
		{name: "no link", before: down, verdict: unclear, causes: []diagnosis.Code{diagnosis.LANNoLink}},
		{name: "no link, although a computer is attached", before: down, attached: true, verdict: fail, causes: []diagnosis.Code{diagnosis.LANNoLink}},
		{name: "link lost meanwhile", before: gigabit, after: down, attached: true, verdict: unclear, causes: []diagnosis.Code{diagnosis.LANUnsteady}},
		{name: "link went and came", before: gigabit, after: with(func(p *steps.LANPort) { p.CarrierChanges = 2 }), verdict: unclear, causes: []diagnosis.Code{diagnosis.LANUnsteady}},
		{name: "speed fell meanwhile", before: gigabit, after: hundred, verdict: unclear, causes: []diagnosis.Code{diagnosis.LANUnsteady}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.after == (steps.LANPort{}) {
					tt.after = tt.before
				}
				n := 0
				read := lanFunc(func(_ context.Context, name string) (steps.LANPort, error) {
					if name != "lan1" {
						return steps.LANPort{}, fmt.Errorf("there is no %s", name)
					}
					n++
					if n == 1 {
						return tt.before, nil
					}
					return tt.after, nil
				})
				res := run(t, steps.NewLANCabling(steps.LANCablingOptions{Reader: read, Ordered: "lan1", ContractMbps: tt.contract, DeviceAttached: tt.attached}))
				check(t, res, tt.verdict, tt.causes, tt.warnings)
			})
		})
	}
}

func TestLANCablingManyPorts(t *testing.T) {
	up := steps.LANPort{Carrier: true, CarrierKnown: true, SpeedMbps: 1000, Duplex: "full", MaxMbps: 1000}
	slow, down := up, steps.LANPort{CarrierKnown: true, MaxMbps: 1000}
	slow.SpeedMbps = 100
	ports := map[string]steps.LANPort{"up": up, "slow": slow, "down": down, "down2": down}
	read := lanFunc(func(_ context.Context, name string) (steps.LANPort, error) {
		p, ok := ports[name]
		if !ok {
			return p, errBroken
		}
		return p, nil
	})
	for _, tt := range []struct {
		ports   string
		verdict acceptance.Verdict
		causes  []diagnosis.Code
	}{
		{"up down", pass, nil},
		{"down up", pass, nil},
		{"down down2", unclear, []diagnosis.Code{diagnosis.LANNoLink}},
		{"up slow", fail, []diagnosis.Code{diagnosis.LANPortSlow}},
		{"missing up", unclear, []diagnosis.Code{diagnosis.LANUnreadable}},
		{"missing slow", fail, []diagnosis.Code{diagnosis.LANPortSlow}},
	} {
		t.Run(tt.ports, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check(t, run(t, steps.NewLANCabling(steps.LANCablingOptions{Reader: read, Ports: strings.Fields(tt.ports)})), tt.verdict, tt.causes, nil)
			})
		})
	}
}

func TestAddressing(t *testing.T) {
	type need struct{ v4, v6 bool }
	for _, tt := range []struct {
		name     string
		addrs    string
		v4, v6   bool // default routes
		need     need
		verdict  acceptance.Verdict
		causes   []diagnosis.Code
		warnings []diagnosis.Code
	}{
		{name: "public", addrs: "203.0.113.7/24", v4: true, verdict: pass},
		{name: "PPP", addrs: "203.0.113.7/32", v4: true, need: need{v4: true}, verdict: pass},
		{name: "both", addrs: "203.0.113.7/24 2001:db8::7/64 fe80::1/64", v4: true, v6: true, need: need{true, true}, verdict: pass},
		{name: "only IPv6, which is enough", addrs: "2001:db8::7/128", v6: true, verdict: pass},
		{name: "only IPv6, which is not", addrs: "2001:db8::7/128", v6: true, need: need{v4: true}, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNone}},
		{name: "no IPv6 where it is needed", addrs: "203.0.113.7/24 fe80::1/64", v4: true, need: need{true, true}, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNoIPv6}},
		{name: "only unique local IPv6", addrs: "203.0.113.7/24 fd00::1/64", v4: true, v6: true, need: need{v6: true}, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNoIPv6}},
		{name: "private", addrs: "10.1.2.3/8", v4: true, verdict: pass, warnings: []diagnosis.Code{diagnosis.AddrPrivate}},
		{name: "carrier NAT", addrs: "100.64.0.1/10", v4: true, verdict: pass, warnings: []diagnosis.Code{diagnosis.AddrPrivate}},
		{name: "just outside carrier NAT", addrs: "100.128.0.1/10", v4: true, verdict: pass},
		{name: "public and private", addrs: "10.1.2.3/8 203.0.113.7/24", v4: true, verdict: pass},
		{name: "link-local", addrs: "169.254.7.7/16", v4: true, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrLinkLocal}},
		{name: "link-local, IPv6 works", addrs: "169.254.7.7/16 2001:db8::7/64", v6: true, verdict: pass},
		{name: "link-local, IPv4 needed", addrs: "169.254.7.7/16 2001:db8::7/64", v6: true, need: need{v4: true}, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrLinkLocal}},
		{name: "none", addrs: "", v4: true, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNone}},
		{name: "only link-local IPv6", addrs: "fe80::1/64", v6: true, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNone}},
		{name: "loopback is no address", addrs: "127.0.0.1/8 ::1/128", v4: true, v6: true, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNone}},
		{name: "no default route", addrs: "203.0.113.7/24", verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNoDefaultRoute}},
		{name: "a default route of the other family", addrs: "203.0.113.7/24", v6: true, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNoDefaultRoute}},
		{name: "one family without a route", addrs: "203.0.113.7/24 2001:db8::7/64", v4: true, need: need{true, true}, verdict: fail, causes: []diagnosis.Code{diagnosis.AddrNoDefaultRoute}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wan := steps.WAN{Interface: "wan", DefaultV4: tt.v4, DefaultV6: tt.v6, Source: "test"}
				for a := range strings.FieldsSeq(tt.addrs) {
					wan.Addresses = append(wan.Addresses, netip.MustParsePrefix(a))
				}
				step := steps.NewAddressing(steps.AddressingOptions{
					NeedV4: tt.need.v4, NeedV6: tt.need.v6, Reader: wanFunc(func(context.Context) (steps.WAN, error) { return wan, nil }),
				})
				res := run(t, step)
				check(t, res, tt.verdict, tt.causes, tt.warnings)
				if m := measurement(t, res, "wan_addresses"); m.Value != tt.addrs {
					t.Errorf("addresses %q", m.Value)
				}
			})
		})
	}
}

// TestAddressingWaits: an address that comes within some seconds counts, and an
// error that passes does not.
func TestAddressingWaits(t *testing.T) {
	for name, early := range map[string]func() (steps.WAN, error){
		"no address yet": func() (steps.WAN, error) { return steps.WAN{Source: "test"}, nil },
		"error at first": func() (steps.WAN, error) { return steps.WAN{}, errBroken },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				read := wanFunc(func(context.Context) (steps.WAN, error) {
					if n++; n < 4 {
						return early()
					}
					return steps.WAN{Source: "test", Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24")}, DefaultV4: true}, nil
				})
				check(t, run(t, steps.NewAddressing(steps.AddressingOptions{Reader: read})), pass, nil, nil)
			})
		})
	}
}

// zone makes the results of resolvers.
type zone struct {
	replies map[string]dns.Reply // by name and type
	bogus   dns.Reply
}

func found(addrs ...string) dns.Reply {
	r := dns.Reply{Answer: dns.Answer{Rcode: "NOERROR", Latency: 20 * time.Millisecond}}
	for _, a := range addrs {
		r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
	}
	return r
}

func answered(rcode string) dns.Reply { return dns.Reply{Answer: dns.Answer{Rcode: rcode}} }

func failed(err error) dns.Reply { return dns.Reply{Err: err} }

func (z zone) result(resolver netip.AddrPort, names []string) dns.Result {
	r := dns.Result{Resolver: resolver, Bogus: z.bogus}
	for _, name := range names {
		for _, typ := range []dns.Type{dns.A, dns.AAAA} {
			reply, ok := z.replies[name+" "+typ.String()]
			if !ok {
				reply = z.replies[typ.String()]
			}
			reply.Name, reply.Type = name, typ
			r.Replies = append(r.Replies, reply)
		}
	}
	return r
}

func TestDNS(t *testing.T) {
	nx := answered("NXDOMAIN")
	same := func(r dns.Reply) zone { return zone{map[string]dns.Reply{"A": r, "AAAA": r}, r} }
	good := zone{map[string]dns.Reply{"a.example A": found("192.0.2.1"), "b.example A": found("192.0.2.2"), "AAAA": answered("NOERROR")}, nx}
	with := func(z zone, change func(*zone)) zone {
		z.replies = maps.Clone(z.replies)
		change(&z)
		return z
	}
	dead, servfail := same(failed(dns.ErrTimeout)), same(answered("SERVFAIL"))
	slow := with(good, func(z *zone) {
		r := z.replies["a.example A"]
		r.Latency = 501 * time.Millisecond
		z.replies["a.example A"] = r
	})
	atLimit := with(good, func(z *zone) {
		r := z.replies["a.example A"]
		r.Latency = 500 * time.Millisecond
		z.replies["a.example A"] = r
	})
	rewriting := with(good, func(z *zone) { z.bogus = found("198.51.100.1") })
	captive := zone{map[string]dns.Reply{"A": found("198.51.100.1"), "AAAA": answered("NOERROR")}, found("198.51.100.1")}
	v6only := zone{map[string]dns.Reply{"A": answered("NOERROR"), "AAAA": found("2001:db8::1")}, nx}
	for _, tt := range []struct {
		name      string
		resolvers []zone
		verdict   acceptance.Verdict
		causes    []diagnosis.Code
		warnings  []diagnosis.Code
	}{
		{name: "one that works", resolvers: []zone{good}, verdict: pass},
		{name: "only IPv6 addresses", resolvers: []zone{v6only}, verdict: pass},
		{name: "AAAA times out, which the pages don't need", resolvers: []zone{with(good, func(z *zone) { z.replies["AAAA"] = failed(dns.ErrTimeout) })}, verdict: pass},
		{name: "one of two is dead", resolvers: []zone{dead, good}, verdict: pass, warnings: []diagnosis.Code{diagnosis.DNSResolverDead}},
		{name: "one of two fails", resolvers: []zone{good, servfail}, verdict: pass, warnings: []diagnosis.Code{diagnosis.DNSResolverDead}},
		{name: "one could not be asked, which says nothing of it", resolvers: []zone{good, same(failed(errBroken))}, verdict: pass},
		{name: "slow", resolvers: []zone{slow}, verdict: pass, warnings: []diagnosis.Code{diagnosis.DNSSlow}},
		{name: "not yet slow", resolvers: []zone{atLimit}, verdict: pass},
		{name: "invents answers", resolvers: []zone{rewriting}, verdict: pass, warnings: []diagnosis.Code{diagnosis.DNSNXDomainRewritten}},
		{name: "all dead", resolvers: []zone{dead, dead}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSNoAnswer}},
		{name: "unreachable", resolvers: []zone{same(failed(dns.ErrUnreachable))}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSNoAnswer}},
		{name: "malformed answers", resolvers: []zone{same(failed(dns.ErrMalformed))}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSNoAnswer}},
		{name: "SERVFAIL", resolvers: []zone{servfail}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSServfail}},
		{name: "REFUSED", resolvers: []zone{same(answered("REFUSED"))}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSServfail}},
		{name: "dead and SERVFAIL", resolvers: []zone{dead, servfail}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSServfail, diagnosis.DNSNoAnswer}},
		{name: "NXDOMAIN for everything", resolvers: []zone{same(nx)}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSWrongAnswer}},
		{name: "one name of two is missing", resolvers: []zone{with(good, func(z *zone) { z.replies["b.example A"] = nx })}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSWrongAnswer}},
		{name: "one name of two never answers", resolvers: []zone{with(good, func(z *zone) {
			z.replies["b.example A"], z.replies["AAAA"] = failed(dns.ErrTimeout), failed(dns.ErrTimeout)
		})}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSNoAnswer}},
		{name: "the same for everything", resolvers: []zone{captive}, verdict: fail, causes: []diagnosis.Code{diagnosis.DNSHijack}},
		{name: "captive beside a good one", resolvers: []zone{captive, good}, verdict: pass, warnings: []diagnosis.Code{diagnosis.DNSResolverDead}},
		{name: "none at all", verdict: fail, causes: []diagnosis.Code{diagnosis.DNSNoResolver}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var servers []netip.AddrPort
				for i := range tt.resolvers {
					servers = append(servers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(53 + i)}), 53))
				}
				res := run(t, steps.NewDNS(steps.DNSOptions{
					Names:     []string{"a.example", "b.example"},
					Resolvers: resolverFunc(func(context.Context) ([]netip.AddrPort, error) { return servers, nil }),
					Prober: dnsFunc(func(_ context.Context, rs []netip.AddrPort, names []string) []dns.Result {
						var out []dns.Result
						for i, r := range rs {
							out = append(out, tt.resolvers[i].result(r, names))
						}
						return out
					}),
				}))
				check(t, res, tt.verdict, tt.causes, tt.warnings)
			})
		})
	}
}

func TestReachability(t *testing.T) {
	const gw, t1, t2 = "192.0.2.1", "198.51.100.1", "203.0.113.1"
	type answer struct {
		lost  [2]int // of the first and the second run
		rtt   float64
		err   error
		noWay bool
	}
	silent, ok := answer{lost: [2]int{20, 80}}, answer{rtt: 5}
	for _, tt := range []struct {
		name     string
		gateway  bool
		answers  map[string]answer // targets but gw
		verdict  acceptance.Verdict
		causes   []diagnosis.Code
		warnings []diagnosis.Code
	}{
		{name: "all answer", gateway: true, answers: map[string]answer{gw: ok, t1: ok}, verdict: pass},
		{name: "a silent gateway is no fault", gateway: true, answers: map[string]answer{gw: silent, t1: ok}, verdict: pass, warnings: []diagnosis.Code{diagnosis.ReachGatewaySilent}},
		{name: "only a gateway", gateway: true, answers: map[string]answer{gw: ok}, verdict: pass},
		{name: "only a silent gateway proves nothing", gateway: true, answers: map[string]answer{gw: silent}, verdict: unclear, causes: []diagnosis.Code{diagnosis.ReachGatewaySilent}},
		{name: "nothing answers", gateway: true, answers: map[string]answer{gw: silent, t1: silent, t2: silent}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachNoReply}},
		{name: "nothing answers, no gateway known", answers: map[string]answer{t1: silent}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachNoReply}},
		{name: "nothing beyond the gateway", gateway: true, answers: map[string]answer{gw: ok, t1: silent}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachTargetSilent}},
		{name: "a gateway that broke off answers no more", gateway: true, answers: map[string]answer{gw: {lost: [2]int{15, 80}, rtt: 5}, t1: silent}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachNoReply}},
		{name: "one of two targets is silent", answers: map[string]answer{t1: silent, t2: ok}, verdict: pass, warnings: []diagnosis.Code{diagnosis.ReachTargetSilent}},
		{name: "no route to the target", answers: map[string]answer{t1: {noWay: true}}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachNoReply}},
		{name: "one lost of 100 is within the limit", answers: map[string]answer{t1: {lost: [2]int{1, 0}, rtt: 5}}, verdict: pass},
		{name: "two lost of 100 are within the limit", answers: map[string]answer{t1: {lost: [2]int{1, 1}, rtt: 5}}, verdict: pass},
		{name: "three lost of 100 are not", answers: map[string]answer{t1: {lost: [2]int{1, 2}, rtt: 5}}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachLoss}},
		{name: "the best target shows the line", answers: map[string]answer{t1: {lost: [2]int{10, 40}, rtt: 5}, t2: ok}, verdict: pass},
		{name: "a gateway without loss does not vouch for what is beyond", gateway: true, answers: map[string]answer{gw: ok, t1: {lost: [2]int{10, 40}, rtt: 5}}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachLoss}},
		{name: "100 ms pass", answers: map[string]answer{t1: {rtt: 100}}, verdict: pass},
		{name: "100.1 ms don't", answers: map[string]answer{t1: {rtt: 100.1}}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachLatency}},
		{name: "loss and latency", answers: map[string]answer{t1: {lost: [2]int{10, 40}, rtt: 300}}, verdict: fail, causes: []diagnosis.Code{diagnosis.ReachLoss, diagnosis.ReachLatency}},
		{name: "no right to ping", gateway: true, answers: map[string]answer{gw: {err: ping.ErrNoSocket}, t1: {err: ping.ErrNoSocket}}, verdict: unclear, causes: []diagnosis.Code{diagnosis.AgentCannotMeasure}},
		{name: "one target could not be pinged, the other is silent", answers: map[string]answer{t1: {err: errBroken}, t2: silent}, verdict: unclear, causes: []diagnosis.Code{diagnosis.AgentCannotMeasure}},
		{name: "one target could not be pinged, the other answers", answers: map[string]answer{t1: {err: errBroken}, t2: ok}, verdict: pass},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := steps.ReachabilityOptions{}
				if tt.gateway {
					o.WAN = wanFunc(func(context.Context) (steps.WAN, error) {
						return steps.WAN{Source: "test", Gateways: []netip.Addr{netip.MustParseAddr(gw)}}, nil
					})
				}
				for _, target := range []string{t1, t2} {
					if _, ok := tt.answers[target]; ok {
						o.Targets = append(o.Targets, netip.MustParseAddr(target))
					}
				}
				runs := map[string]int{}
				o.Pinger = steps.PingFunc(func(_ context.Context, target netip.Addr, po ping.Options) (ping.Result, error) {
					a := tt.answers[target.String()]
					n := runs[target.String()]
					runs[target.String()]++
					switch {
					case a.err != nil:
						return ping.Result{}, a.err
					case a.noWay:
						return ping.Result{}, fmt.Errorf("cannot ping: %w", syscall.ENETUNREACH)
					}
					res := ping.Result{Target: target, Sent: po.Count, Received: po.Count - a.lost[n]}
					res.LossRatio = float64(a.lost[n]) / float64(po.Count)
					if res.Received > 0 {
						res.P50Ms = a.rtt
					}
					return res, nil
				})
				res := run(t, steps.NewReachability(o))
				check(t, res, tt.verdict, tt.causes, tt.warnings)
				for target, a := range tt.answers {
					want := 1
					if a.lost[0] > 0 && a.lost[0] < 20 {
						want = 2
					}
					if runs[target] != want {
						t.Errorf("%s was pinged in %d runs, want %d", target, runs[target], want)
					}
				}
			})
		})
	}
}

func TestReachabilityKeepsEveryRoundTrip(t *testing.T) {
	target := netip.MustParseAddr("198.51.100.1")
	res := run(t, steps.NewReachability(steps.ReachabilityOptions{
		Targets: []netip.Addr{target},
		Ping:    ping.Options{Count: 4},
		Pinger: steps.PingFunc(func(_ context.Context, a netip.Addr, o ping.Options) (ping.Result, error) {
			return ping.Result{Target: a, Sent: 4, Received: 2, LossRatio: 0.5, P50Ms: 2, Replies: []ping.Reply{{Seq: 0, RTTMs: 1.25}, {Seq: 2, RTTMs: 2}}}, nil
		}),
	}))
	if m := measurement(t, res, "target_loss_ratio"); m.Raw != "1.2 - 2.0 -" && m.Raw != "1.3 - 2.0 -" {
		t.Errorf("raw %q", m.Raw)
	}
}

func TestHost(t *testing.T) {
	ok := func(v float64) collectors.Reading {
		return collectors.Reading{Status: collectors.StatusOK, Value: v, Source: "host"}
	}
	none := collectors.Reading{Status: collectors.StatusUnsupported}
	load := func(cpu, mem, temp collectors.Reading) steps.HostLoad {
		return steps.HostLoad{CPUBusy: cpu, MemoryUsed: mem, Temperature: temp}
	}
	for _, tt := range []struct {
		name    string
		loads   []steps.HostLoad // one after the other, the last for ever
		verdict acceptance.Verdict
		causes  []diagnosis.Code
	}{
		{"idle", []steps.HostLoad{load(ok(0.1), ok(0.3), ok(50))}, pass, nil},
		{"no temperature", []steps.HostLoad{load(ok(0.1), ok(0.3), none)}, pass, nil},
		{"just below", []steps.HostLoad{load(ok(0.4999), ok(0.5999), ok(94.9))}, pass, nil},
		{"CPU at 50 %", []steps.HostLoad{load(ok(0.5), ok(0.3), none)}, fail, []diagnosis.Code{diagnosis.HostCPU}},
		{"memory at 60 %", []steps.HostLoad{load(ok(0.1), ok(0.6), none)}, fail, []diagnosis.Code{diagnosis.HostMemory}},
		{"hot", []steps.HostLoad{load(ok(0.1), ok(0.3), ok(95))}, fail, []diagnosis.Code{diagnosis.HostTemperature}},
		{"all three", []steps.HostLoad{load(ok(1), ok(1), ok(120))}, fail, []diagnosis.Code{diagnosis.HostCPU, diagnosis.HostMemory, diagnosis.HostTemperature}},
		{"a short peak", []steps.HostLoad{load(ok(1), ok(0.3), none), load(ok(1), ok(0.3), none), load(ok(0.1), ok(0.3), none)}, pass, nil},
		{"one failed read", []steps.HostLoad{{}, load(ok(0.1), ok(0.3), none)}, pass, nil},
		{"busy and memory unknown", []steps.HostLoad{load(ok(0.9), none, none)}, fail, []diagnosis.Code{diagnosis.HostCPU}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				res := run(t, steps.NewHost(steps.HostOptions{Reader: hostFunc(func(context.Context) (steps.HostLoad, error) {
					n++
					return tt.loads[min(n, len(tt.loads))-1], nil
				})}))
				check(t, res, tt.verdict, tt.causes, nil)
			})
		})
	}
}
