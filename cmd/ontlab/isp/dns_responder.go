package isp

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// dnsResponder answers at one address, by UDP and TCP, for what dnsmasq can't
// play.
type dnsResponder struct {
	servers [2]*dns.Server
	served  sync.WaitGroup
	ended   chan struct{} // closed by stop: whoever is kept waiting goes
}

// dnsHandler answers a query with the message that it returns; ended tells
// that nobody waits for it any more. nil is no answer.
type dnsHandler func(q *dns.Msg, ended <-chan struct{}) *dns.Msg

// newDNSResponder serves on sockets that it owns.
func newDNSResponder(packet net.PacketConn, stream net.Listener, answer dnsHandler) *dnsResponder {
	r := &dnsResponder{ended: make(chan struct{})}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if m := answer(q, r.ended); m != nil {
			_ = w.WriteMsg(m) // who does not wait has none
		}
	})
	var started sync.WaitGroup
	started.Add(len(r.servers))
	r.servers[0] = &dns.Server{PacketConn: packet, Handler: handler, NotifyStartedFunc: started.Done}
	r.servers[1] = &dns.Server{Listener: stream, Handler: handler, NotifyStartedFunc: started.Done}
	for _, server := range r.servers {
		r.served.Go(func() { _ = server.ActivateAndServe() }) // it ends with its socket
	}
	started.Wait()
	return r
}

func (r *dnsResponder) stop() error {
	close(r.ended)
	var err error
	for _, server := range r.servers {
		err = errors.Join(err, server.Shutdown())
	}
	r.served.Wait()
	return err
}

func dnsServfail(q *dns.Msg, _ <-chan struct{}) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	m.RecursionAvailable = true
	return m
}

// dnsSlow answers as next does, but later.
func dnsSlow(by time.Duration, next dnsHandler) dnsHandler {
	return func(q *dns.Msg, ended <-chan struct{}) *dns.Msg {
		wait := time.NewTimer(by)
		defer wait.Stop()
		select {
		case <-wait.C:
			return next(q, ended)
		case <-ended:
			return nil
		}
	}
}

// dnsAnswers answers as a resolver does who knows these names only.
func dnsAnswers(names map[string][]netip.Addr, ttl time.Duration) dnsHandler {
	table := make(map[string][]netip.Addr, len(names))
	for name, addrs := range names {
		table[strings.ToLower(dns.Fqdn(name))] = addrs
	}
	return func(q *dns.Msg, _ <-chan struct{}) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if len(q.Question) != 1 {
			m.Rcode = dns.RcodeFormatError
			return m
		}
		addrs, known := table[strings.ToLower(q.Question[0].Name)]
		if !known {
			m.Rcode = dns.RcodeNameError
			return m
		}
		header := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
		for _, addr := range addrs {
			switch {
			case header.Rrtype == dns.TypeA && addr.Is4():
				m.Answer = append(m.Answer, &dns.A{Hdr: header, A: addr.AsSlice()})
			case header.Rrtype == dns.TypeAAAA && addr.Is6():
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
			}
		}
		return m
	}
}
