package steps_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dns"
	"ontagent/agent/probe/ping"
	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/pon"
)

var errBroken = errors.New("broken")

// run climbs the one step, as the daemon would, and returns its result.
func run(t *testing.T, step acceptance.Step) acceptance.Result {
	t.Helper()
	plan, err := acceptance.NewPlan([]acceptance.Rung{step.Rung()}, []acceptance.Step{step})
	if err != nil {
		t.Fatal(err)
	}
	report := acceptance.Runner{Now: time.Now}.Run(t.Context(), plan)
	return report.Results[0]
}

// check compares the verdict, causes and warnings of a result.
func check(t *testing.T, res acceptance.Result, verdict acceptance.Verdict, causes, warnings []diagnosis.Code) {
	t.Helper()
	list := func(cs []diagnosis.Code) []string {
		var out []string
		for _, c := range cs {
			out = append(out, string(c))
		}
		return out
	}
	if res.Verdict != verdict {
		t.Errorf("verdict %s (%s), want %s", res.Verdict, res.Reason, verdict)
	}
	if diff := cmp.Diff(list(causes), res.Causes, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("causes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(list(warnings), res.Warnings, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if res.Verdict != acceptance.Pass && res.Reason == "" {
		t.Errorf("%s for no reason", res.Verdict)
	}
	if res.Verdict != acceptance.Pass && len(res.Causes) == 0 {
		t.Errorf("%s without a cause", res.Verdict)
	}
	for _, m := range res.Measurements {
		if (m.Value != nil) != (m.Status == string(collectors.StatusOK)) {
			t.Errorf("measurement %s has value %v and status %q", m.Name, m.Value, m.Status)
		}
		if m.Name == "" || m.Status == "" {
			t.Errorf("measurement %+v", m)
		}
	}
	for _, l := range res.Limits {
		if l.Name == "" || l.Op == "" || l.Origin == "" {
			t.Errorf("limit %+v", l)
		}
	}
}

func measurement(t *testing.T, res acceptance.Result, name string) acceptance.Measurement {
	t.Helper()
	i := slices.IndexFunc(res.Measurements, func(m acceptance.Measurement) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("there is no measurement %s in %+v", name, res.Measurements)
	}
	return res.Measurements[i]
}

// The fakes: a source is a function.

type opticsFunc struct {
	name string
	read func(n int) (optics.Reading, error) // n counts from 0
	n    int
}

func (f *opticsFunc) Name() string { return f.name }

func (f *opticsFunc) ReadOptics(ctx context.Context) (optics.Reading, error) {
	f.n++
	return f.read(f.n - 1)
}

type ponFunc struct {
	read func(n int) (pon.Status, error)
	n    int
}

func (*ponFunc) Name() string { return "console:test" }

func (f *ponFunc) ReadPON(context.Context) (pon.Status, error) {
	f.n++
	return f.read(f.n - 1)
}

type inventoryFunc func(context.Context) (steps.Inventory, error)

func (f inventoryFunc) ReadInventory(ctx context.Context) (steps.Inventory, error) { return f(ctx) }

type lanFunc func(ctx context.Context, name string) (steps.LANPort, error)

func (f lanFunc) ReadLANPort(ctx context.Context, name string) (steps.LANPort, error) {
	return f(ctx, name)
}

type wanFunc func(context.Context) (steps.WAN, error)

func (f wanFunc) ReadWAN(ctx context.Context) (steps.WAN, error) { return f(ctx) }

type resolverFunc func(context.Context) ([]netip.AddrPort, error)

func (f resolverFunc) ReadResolvers(ctx context.Context) ([]netip.AddrPort, error) { return f(ctx) }

type dnsFunc func(ctx context.Context, resolvers []netip.AddrPort, names []string) []dns.Result

func (f dnsFunc) Probe(ctx context.Context, r []netip.AddrPort, n []string) []dns.Result {
	return f(ctx, r, n)
}

type hostFunc func(context.Context) (steps.HostLoad, error)

func (f hostFunc) ReadHost(ctx context.Context) (steps.HostLoad, error) { return f(ctx) }

func hang[T any](ctx context.Context) (T, error) {
	var zero T
	<-ctx.Done()
	return zero, ctx.Err()
}

// TestWhatCannotBeMeasuredIsInconclusive gives every step every way in which its
// source can fail.
func TestWhatCannotBeMeasuredIsInconclusive(t *testing.T) {
	gateway := netip.MustParseAddr("192.0.2.1")
	target := netip.MustParseAddr("198.51.100.1")
	resolver := netip.MustParseAddrPort("192.0.2.53:53")
	wan := wanFunc(func(context.Context) (steps.WAN, error) {
		return steps.WAN{Source: "test", Gateways: []netip.Addr{gateway}}, nil
	})
	resolvers := resolverFunc(func(context.Context) ([]netip.AddrPort, error) { return []netip.AddrPort{resolver}, nil })

	optical := func(read func(ctx context.Context) (optics.Reading, error)) acceptance.Step {
		return steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{opticsCtx(read)}})
	}
	registration := func(read func(ctx context.Context) (pon.Status, error)) acceptance.Step {
		return steps.NewRegistration(steps.RegistrationOptions{Reader: ponCtx(read)})
	}
	identity := func(read inventoryFunc) acceptance.Step {
		return steps.NewIdentity(steps.IdentityOptions{Reader: read, Ordered: steps.Resources{SN: "ABCD12345678", MAC: "02:00:00:00:00:01", LANPort: "lan1"}})
	}
	lan := func(read lanFunc) acceptance.Step {
		return steps.NewLANCabling(steps.LANCablingOptions{Reader: read, Ordered: "lan1", ContractMbps: 500, DeviceAttached: true})
	}
	addressing := func(read wanFunc) acceptance.Step {
		return steps.NewAddressing(steps.AddressingOptions{Reader: read, NeedV4: true})
	}
	dnsStep := func(r steps.ResolverReader, p steps.DNSProber) acceptance.Step {
		return steps.NewDNS(steps.DNSOptions{Resolvers: r, Prober: p, Names: []string{"www.example"}})
	}
	reach := func(w steps.WANReader, p steps.PingFunc, targets ...netip.Addr) acceptance.Step {
		return steps.NewReachability(steps.ReachabilityOptions{WAN: w, Pinger: p, Targets: targets})
	}
	host := func(read hostFunc) acceptance.Step { return steps.NewHost(steps.HostOptions{Reader: read}) }

	status := func(s collectors.Status) collectors.Reading { return collectors.Reading{Status: s, Source: "test"} }
	ok := func(v float64) collectors.Reading { return collectors.Reading{Status: collectors.StatusOK, Value: v} }
	okPing := func(context.Context, netip.Addr, ping.Options) (ping.Result, error) {
		return ping.Result{}, errBroken
	}
	localDNS := dnsFunc(func(_ context.Context, rs []netip.AddrPort, names []string) []dns.Result {
		return []dns.Result{{
			Resolver: rs[0], Replies: []dns.Reply{{Answer: dns.Answer{Name: names[0], Type: dns.A}, Err: errBroken}}, Bogus: dns.Reply{Err: errBroken},
		}}
	})

	for name, step := range map[string]acceptance.Step{
		"optical, no source":       steps.NewOptical(steps.OpticalOptions{}),
		"optical, error":           optical(func(context.Context) (optics.Reading, error) { return optics.Reading{}, errBroken }),
		"optical, nothing to read": optical(func(context.Context) (optics.Reading, error) { return optics.Reading{}, collectors.ErrNoData }),
		"optical, zero reading":    optical(func(context.Context) (optics.Reading, error) { return optics.Reading{}, nil }),
		"optical, unsupported": optical(func(context.Context) (optics.Reading, error) {
			return optics.Unread("x", collectors.StatusUnsupported), nil
		}),
		"optical, untrusted": optical(func(context.Context) (optics.Reading, error) {
			return optics.Unread("x", collectors.StatusUntrusted), nil
		}),
		"optical, hangs":  optical(hang[optics.Reading]),
		"optical, panics": optical(func(context.Context) (optics.Reading, error) { panic("broken") }),
		"optical, error and status": optical(func(context.Context) (optics.Reading, error) {
			return optics.Unread("x", collectors.StatusError), errBroken
		}),

		"registration, no source":       steps.NewRegistration(steps.RegistrationOptions{}),
		"registration, error":           registration(func(context.Context) (pon.Status, error) { return pon.Status{}, errBroken }),
		"registration, nothing to read": registration(func(context.Context) (pon.Status, error) { return pon.Status{}, collectors.ErrNoData }),
		"registration, zero status":     registration(func(context.Context) (pon.Status, error) { return pon.Status{}, nil }),
		"registration, unknown state": registration(func(context.Context) (pon.Status, error) {
			return pon.Status{Raw: "O99", OMCIProvisioned: pon.Yes}, nil
		}),
		"registration, no word on OMCI": registration(func(context.Context) (pon.Status, error) { return pon.Status{Raw: "O5"}, nil }),
		"registration, OMCI unknown": registration(func(context.Context) (pon.Status, error) {
			return pon.Status{Raw: "O5", OMCIProvisioned: pon.Unknown}, nil
		}),
		"registration, hangs": registration(hang[pon.Status]),

		"identity, no source":       steps.NewIdentity(steps.IdentityOptions{Ordered: steps.Resources{SN: "ABCD12345678"}}),
		"identity, error":           identity(func(context.Context) (steps.Inventory, error) { return steps.Inventory{}, errBroken }),
		"identity, zero inventory":  identity(func(context.Context) (steps.Inventory, error) { return steps.Inventory{}, nil }),
		"identity, hangs":           identity(hang[steps.Inventory]),
		"identity, nothing ordered": steps.NewIdentity(steps.IdentityOptions{Reader: inventoryFunc(hangless)}),
		"identity, only unseen":     steps.NewIdentity(steps.IdentityOptions{Reader: inventoryFunc(hangless), Ordered: steps.Resources{PONPort: "1/1/1", SplitterPort: "7"}}),
		"identity, SN not a number": identity(func(context.Context) (steps.Inventory, error) {
			return inventory("garbage", "lan1", "02:00:00:00:00:01"), nil
		}),
		"identity, interfaces error": identity(func(context.Context) (steps.Inventory, error) {
			return steps.Inventory{SN: "ABCD12345678", SNStatus: collectors.StatusOK, InterfacesErr: errBroken}, nil
		}),

		"lan, no source": steps.NewLANCabling(steps.LANCablingOptions{Ordered: "lan1"}),
		"lan, no port":   steps.NewLANCabling(steps.LANCablingOptions{Reader: lanFunc(nil)}),
		"lan, error":     lan(func(context.Context, string) (steps.LANPort, error) { return steps.LANPort{}, errBroken }),
		"lan, zero port": lan(func(context.Context, string) (steps.LANPort, error) { return steps.LANPort{}, nil }),
		"lan, speed unknown": lan(func(context.Context, string) (steps.LANPort, error) {
			return steps.LANPort{Carrier: true, CarrierKnown: true}, nil
		}),
		"lan, hangs":             lan(func(ctx context.Context, _ string) (steps.LANPort, error) { return hang[steps.LANPort](ctx) }),
		"addressing, no source":  steps.NewAddressing(steps.AddressingOptions{}),
		"addressing, error":      addressing(func(context.Context) (steps.WAN, error) { return steps.WAN{}, errBroken }),
		"addressing, zero WAN":   addressing(func(context.Context) (steps.WAN, error) { return steps.WAN{}, nil }),
		"addressing, hangs":      addressing(hang[steps.WAN]),
		"dns, no source":         steps.NewDNS(steps.DNSOptions{Names: []string{"www.example"}}),
		"dns, no names":          steps.NewDNS(steps.DNSOptions{Resolvers: resolvers}),
		"dns, resolvers unknown": dnsStep(resolverFunc(func(context.Context) ([]netip.AddrPort, error) { return nil, errBroken }), localDNS),
		"dns, resolvers hang":    dnsStep(resolverFunc(hang[[]netip.AddrPort]), localDNS),
		"dns, cannot ask":        dnsStep(resolvers, localDNS),
		"dns, no results":        dnsStep(resolvers, dnsFunc(func(context.Context, []netip.AddrPort, []string) []dns.Result { return nil })),
		"dns, empty result": dnsStep(resolvers, dnsFunc(func(_ context.Context, rs []netip.AddrPort, _ []string) []dns.Result {
			return []dns.Result{{Resolver: rs[0]}}
		})),
		"dns, hangs":             dnsStep(resolvers, dnsFunc(func(ctx context.Context, _ []netip.AddrPort, _ []string) []dns.Result { <-ctx.Done(); return nil })),
		"reach, nothing to ping": reach(nil, okPing),
		"reach, no gateway":      reach(wanFunc(func(context.Context) (steps.WAN, error) { return steps.WAN{Source: "test"}, nil }), okPing),
		"reach, gateway unknown": reach(wanFunc(func(context.Context) (steps.WAN, error) { return steps.WAN{}, errBroken }), okPing),
		"reach, no socket": reach(wan, func(context.Context, netip.Addr, ping.Options) (ping.Result, error) {
			return ping.Result{}, ping.ErrNoSocket
		}, target),
		"reach, zero result": reach(wan, func(context.Context, netip.Addr, ping.Options) (ping.Result, error) { return ping.Result{}, nil }, target),
		"reach, hangs": reach(wan, func(ctx context.Context, _ netip.Addr, _ ping.Options) (ping.Result, error) {
			return hang[ping.Result](ctx)
		}, target),
		"reach, gateway silent": reach(wan, func(context.Context, netip.Addr, ping.Options) (ping.Result, error) {
			return ping.Result{Sent: 20, LossRatio: 1}, nil
		}),
		"host, no source": steps.NewHost(steps.HostOptions{}),
		"host, error":     host(func(context.Context) (steps.HostLoad, error) { return steps.HostLoad{}, errBroken }),
		"host, zero load": host(func(context.Context) (steps.HostLoad, error) { return steps.HostLoad{}, nil }),
		"host, hangs":     host(hang[steps.HostLoad]),
		"host, no memory": host(func(context.Context) (steps.HostLoad, error) {
			return steps.HostLoad{CPUBusy: ok(0.1), MemoryUsed: status(collectors.StatusError)}, nil
		}),
		"host, no CPU": host(func(context.Context) (steps.HostLoad, error) {
			return steps.HostLoad{MemoryUsed: ok(0.1), CPUBusy: status(collectors.StatusUnsupported)}, nil
		}),
		"host, temperature broken": host(func(context.Context) (steps.HostLoad, error) {
			return steps.HostLoad{CPUBusy: ok(0.1), MemoryUsed: ok(0.1), Temperature: status(collectors.StatusUntrusted)}, nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res := run(t, step)
				if res.Verdict != acceptance.Inconclusive {
					t.Fatalf("verdict %s, causes %v", res.Verdict, res.Causes)
				}
				check(t, res, acceptance.Inconclusive, codes(res.Causes), codes(res.Warnings))
				for _, c := range append(codes(res.Causes), codes(res.Warnings)...) {
					if _, ok := diagnosis.Lookup(c); !ok {
						t.Errorf("cause %s is not in the catalogue", c)
					}
				}
			})
		})
	}
}

func codes(ss []string) []diagnosis.Code {
	var out []diagnosis.Code
	for _, s := range ss {
		out = append(out, diagnosis.Code(s))
	}
	return out
}

func hangless(context.Context) (steps.Inventory, error) {
	return inventory("ABCD12345678", "lan1", "02:00:00:00:00:01"), nil
}

func inventory(sn, port, mac string) steps.Inventory {
	return steps.Inventory{
		SN: sn, SNStatus: collectors.StatusOK, SNSource: "console:test",
		Interfaces: []steps.Interface{{Name: "lo"}, {Name: port, MAC: mac}, {Name: "br-lan", MAC: "02:00:00:00:00:99"}},
	}
}

type opticsCtx func(context.Context) (optics.Reading, error)

func (opticsCtx) Name() string { return "test" }

func (f opticsCtx) ReadOptics(ctx context.Context) (optics.Reading, error) { return f(ctx) }

type ponCtx func(context.Context) (pon.Status, error)

func (ponCtx) Name() string { return "test" }

func (f ponCtx) ReadPON(ctx context.Context) (pon.Status, error) { return f(ctx) }

// TestStepsFitTheLadder makes a plan of all steps and looks at what they say of
// themselves.
func TestStepsFitTheLadder(t *testing.T) {
	all := []acceptance.Step{
		steps.NewHost(steps.HostOptions{}), steps.NewReachability(steps.ReachabilityOptions{}), steps.NewDNS(steps.DNSOptions{}),
		steps.NewAddressing(steps.AddressingOptions{}), steps.NewLANCabling(steps.LANCablingOptions{}),
		steps.NewRegistration(steps.RegistrationOptions{}), steps.NewOptical(steps.OpticalOptions{}), steps.NewIdentity(steps.IdentityOptions{}),
		steps.NewDial(steps.DialOptions{}), steps.NewIPTV(steps.IPTVOptions{}), steps.NewVoice(steps.VoiceOptions{}), steps.NewManagement(steps.ManagementOptions{}),
	}
	plan, err := acceptance.NewPlan(nil, all)
	if err != nil {
		t.Fatal(err)
	}
	want := []acceptance.Rung{"identity", "optical", "registration", "lan_cabling", "dial", "addressing", "dns", "reachability", "iptv", "voice", "management", "host"}
	if diff := cmp.Diff(want, plan.Rungs()); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
	var healthy time.Duration
	for _, s := range all {
		e, ok := s.(acceptance.Estimator)
		if !ok {
			t.Errorf("%s has no estimate", s.Rung())
			continue
		}
		healthy += e.Estimate()
		if s.Deadline() <= e.Estimate() {
			t.Errorf("%s: deadline %v, estimate %v", s.Rung(), s.Deadline(), e.Estimate())
		}
	}
	if healthy > 40*time.Second {
		t.Errorf("a healthy line takes %v of the 60 s for a whole acceptance", healthy)
	}
}
