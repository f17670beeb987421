package isp

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// DNSFault is what a resolver does wrong, all of it at once. The zero value is
// nothing.
type DNSFault struct {
	Silent   bool          // it does not answer; the rest is for nobody then
	Servfail bool          // it answers SERVFAIL
	NoNames  bool          // it knows no name: NXDOMAIN
	Late     time.Duration // it answers so much later
	// Every is the address of every name, those that exist as well; Missing is
	// that of names that do not exist. Of the other family they have none. The
	// zero Addr is no fault.
	Every, Missing netip.Addr
}

// Play lets the resolver at an address do just this wrong, in place of any
// other fault; the zero DNSFault heals it.
func (d *DNS) Play(ctx context.Context, addr netip.Addr, f DNSFault) error {
	switch f {
	case DNSFault{}:
		return d.Healthy(ctx, addr)
	case DNSFault{Silent: true}:
		return d.Dead(ctx, addr)
	}
	return d.each(addr, "break", func(r *resolver) error {
		return d.respond(ctx, r, f.handler(dnsAnswers(d.opts.Names, d.opts.TTL), d.opts.TTL))
	})
}

// handler answers as the fault has it, where it leaves anything to healthy.
func (f DNSFault) handler(healthy dnsHandler, ttl time.Duration) dnsHandler {
	answer := healthy
	switch {
	case f.Silent:
		return func(*dns.Msg, <-chan struct{}) *dns.Msg { return nil }
	case f.Servfail:
		answer = dnsServfail
	case f.NoNames:
		answer = func(q *dns.Msg, _ <-chan struct{}) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeNameError) }
	case f.Every.IsValid():
		answer = dnsEvery(f.Every, ttl)
	case f.Missing.IsValid():
		invent := dnsEvery(f.Missing, ttl)
		answer = func(q *dns.Msg, ended <-chan struct{}) *dns.Msg {
			if m := healthy(q, ended); m == nil || m.Rcode != dns.RcodeNameError {
				return m
			}
			return invent(q, ended)
		}
	}
	if f.Late > 0 {
		answer = dnsSlow(f.Late, answer)
	}
	return answer
}

// dnsEvery answers that every name has an address.
func dnsEvery(to netip.Addr, ttl time.Duration) dnsHandler {
	return func(q *dns.Msg, _ <-chan struct{}) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if len(q.Question) != 1 {
			m.Rcode = dns.RcodeFormatError
			return m
		}
		header := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
		switch {
		case header.Rrtype == dns.TypeA && to.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: to.AsSlice()})
		case header.Rrtype == dns.TypeAAAA && to.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: to.AsSlice()})
		}
		return m
	}
}
