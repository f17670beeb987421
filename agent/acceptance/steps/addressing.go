package steps

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// WAN is the way to the internet as the kernel has it now. A reader that cannot
// tell returns an error; an interface that does not exist, as that of a PPP
// session that is down, has no addresses.
type WAN struct {
	Interface string
	// Addresses of the interface with their prefix lengths, without those that
	// are tentative, deprecated or failed duplicate detection.
	Addresses []netip.Prefix
	// DefaultV4 and DefaultV6 say whether there is a default route through the
	// interface. A PPP link has one without a gateway.
	DefaultV4, DefaultV6 bool
	// Gateways are the next hops of these routes that have one. Link-local
	// ones carry their zone.
	Gateways []netip.Addr
	Source   string // never empty: without it nothing was read
}

// WANReader reads the WAN.
type WANReader interface {
	ReadWAN(ctx context.Context) (WAN, error)
}

// AddressingOptions configure the addressing rung.
type AddressingOptions struct {
	Reader WANReader // nil: nothing to read
	// NeedV4 and NeedV6 say which families the ordered services need; if
	// neither is set, one of the two is enough.
	NeedV4, NeedV6 bool
	Reads          int           // at most, while something is missing; 5 if zero
	Pause          time.Duration // between reads; 1 s if zero
	Deadline       time.Duration // 15 s if zero
}

// Addressing judges whether the WAN has addresses that can be used and a way
// out.
type Addressing struct{ o AddressingOptions }

var _ acceptance.Step = (*Addressing)(nil)

// NewAddressing returns the addressing rung.
func NewAddressing(o AddressingOptions) *Addressing {
	o.Reads = orDefault(o.Reads, 5)
	o.Pause = orDefault(o.Pause, time.Second)
	o.Deadline = orDefault(o.Deadline, 15*time.Second)
	return &Addressing{o: o}
}

var errNothingRead = errors.New("the source said nothing")

// Rung implements acceptance.Step.
func (*Addressing) Rung() acceptance.Rung { return acceptance.Addressing }

// Needs implements acceptance.Step.
func (*Addressing) Needs() []acceptance.Rung {
	return []acceptance.Rung{acceptance.Registration, acceptance.Dial}
}

// Deadline implements acceptance.Step.
func (s *Addressing) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (*Addressing) Estimate() time.Duration { return 500 * time.Millisecond }

// Run reads the WAN until nothing is missing or Reads are used up. A family is
// complete with an address that works beyond the link and a default route.
//
// A private or carrier-grade NAT address is usual and passes with a warning;
// 169.254/16 means that nobody gave out an address, and fails. If the last read
// fails, the rung is inconclusive.
func (s *Addressing) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	if s.o.Reader == nil {
		decide(&out, acceptance.Inconclusive, "no source of the addresses", diagnosis.AddrUnreadable)
		return out
	}
	var wan WAN
	var err error
	for i := range s.o.Reads {
		if i > 0 && pause(ctx, s.o.Pause) != nil {
			break
		}
		if wan, err = s.o.Reader.ReadWAN(ctx); err != nil {
			note(err.Error())
			continue
		}
		if wan.Source == "" {
			err = errNothingRead
			continue
		}
		note(fmt.Sprintf("%s: %v, default route v4 %t v6 %t", wan.Interface, wan.Addresses, wan.DefaultV4, wan.DefaultV6))
		if s.complete(wan) {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
		return out
	case err != nil:
		put(&out, missing("wan_addresses", collectors.StatusError, wan.Source, err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot read the WAN: %v", err), diagnosis.AddrUnreadable)
		return out
	}
	s.measurements(&out, wan)
	s.judge(&out, wan)
	return out
}

// scopes sorts the addresses of a WAN by what they are good for.
type scopes struct {
	usableV4, usableV6, privateV4, linkLocalV4, publicV4 bool
}

// shared is the range for carrier-grade NAT, RFC 6598.
func shared(a netip.Addr) bool {
	b := a.As4()
	return b[0] == 100 && b[1]&0xc0 == 64
}

func sortAddresses(ps []netip.Prefix) scopes {
	var s scopes
	for _, p := range ps {
		a := p.Addr().Unmap()
		switch {
		case !a.IsValid(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast():
		case a.Is4() && a.IsLinkLocalUnicast():
			s.linkLocalV4 = true
		case a.Is4() && (a.IsPrivate() || shared(a)):
			s.usableV4, s.privateV4 = true, true
		case a.Is4():
			s.usableV4, s.publicV4 = true, true
		case a.IsLinkLocalUnicast(), a.IsPrivate(): // unique local addresses lead nowhere either
		default:
			s.usableV6 = true
		}
	}
	return s
}

func (s *Addressing) complete(wan WAN) bool {
	a := sortAddresses(wan.Addresses)
	v4, v6 := a.usableV4 && wan.DefaultV4, a.usableV6 && wan.DefaultV6
	if !s.o.NeedV4 && !s.o.NeedV6 {
		return v4 || v6
	}
	return (v4 || !s.o.NeedV4) && (v6 || !s.o.NeedV6)
}

func (s *Addressing) judge(out *acceptance.Outcome, wan WAN) {
	a := sortAddresses(wan.Addresses)
	if s.complete(wan) {
		decide(out, acceptance.Pass, "")
		if a.privateV4 && !a.publicV4 {
			warn(out, diagnosis.AddrPrivate)
		}
		return
	}
	missV4 := s.o.NeedV4 && !a.usableV4
	missV6 := s.o.NeedV6 && !a.usableV6
	switch {
	case missV4 && a.linkLocalV4, !a.usableV4 && !a.usableV6 && a.linkLocalV4:
		decide(out, acceptance.Fail, "only a link-local IPv4 address: nobody gave out one", diagnosis.AddrLinkLocal)
	case !a.usableV4 && !a.usableV6, missV4:
		decide(out, acceptance.Fail, "no usable address", diagnosis.AddrNone)
	case missV6:
		decide(out, acceptance.Fail, "no usable IPv6 address", diagnosis.AddrNoIPv6)
	default:
		decide(out, acceptance.Fail, "no default route through the WAN", diagnosis.AddrNoDefaultRoute)
	}
}

func (s *Addressing) measurements(out *acceptance.Outcome, wan WAN) {
	add := func(name string, v any) {
		measured(out, name, v, wan.Source, wan.Interface)
	}
	var list, gateways []string
	for _, p := range wan.Addresses {
		list = append(list, p.String())
	}
	for _, g := range wan.Gateways {
		gateways = append(gateways, g.String())
	}
	add("wan_addresses", strings.Join(list, " "))
	add("default_route_v4", wan.DefaultV4)
	add("default_route_v6", wan.DefaultV6)
	add("gateways", strings.Join(gateways, " "))
	a := sortAddresses(wan.Addresses)
	scope := "none"
	switch {
	case a.publicV4:
		scope = "public"
	case a.privateV4:
		scope = "private"
	case a.linkLocalV4:
		scope = "link_local"
	}
	add("ipv4_scope", scope)
}
