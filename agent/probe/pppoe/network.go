package pppoe

import (
	"crypto/rand"
	"net/netip"
)

// Options of IPCP (RFC 1332, RFC 1877) and IPv6CP (RFC 5072).
const (
	ipcpAddress     = 3
	ipcpDNS1        = 129
	ipcpDNS2        = 131
	ipv6Interface   = 1
	maxZeroSuggests = 2 // Naks with 0.0.0.0 until it is believed
)

func (s *session) startNetwork() error {
	zero := func() []byte { return make([]byte, 4) }
	s.ipcp = negotiation{proto: protoIPCP, want: []option{
		{ipcpAddress, zero()}, {ipcpDNS1, zero()}, {ipcpDNS2, zero()},
	}}
	if err := s.ipcp.request(s, false); err != nil {
		return err
	}
	if !s.o.IPv6 {
		return nil
	}
	id := make([]byte, 8)
	rand.Read(id)
	id[0] &^= 2 // not a universal identifier
	id[7] |= 1  // not zero
	s.ipv6cp = negotiation{proto: protoIPv6CP, want: []option{{ipv6Interface, id}}}
	return s.ipv6cp.request(s, false)
}

// address returns the IPv4 address of an option, or an invalid one.
//
//go:noinline
func address(o *option) netip.Addr {
	if o == nil || len(o.data) != 4 {
		return netip.Addr{}
	}
	a := netip.AddrFrom4([4]byte(o.data))
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func (s *session) handleIPCP(c control) error {
	switch c.code {
	case configureRequest:
		if s.stage != StageIPCP {
			return s.repeated(&s.ipcp, c)
		}
		var peer netip.Addr
		agreed, err := s.ipcp.consider(s, c, func(o option) (judgement, option) {
			// A peer that asks for an address of its own has the parts mixed
			// up; it may do without.
			if a := address(&o); o.kind == ipcpAddress && a.IsValid() {
				peer = a
				return accept, option{}
			}
			return reject, option{}
		})
		if agreed {
			s.result.Peer = peer
		}
		if s.ipcp.exhausted() && !s.ipcp.up() {
			s.outcome = IPCPFailed
		}
		return err
	case configureAck, configureNak, configureReject:
		return s.ipcpAnswered(c)
	case terminateRequest:
		s.result.TerminateReason, s.result.TerminateReasonHex = text(c.data)
		s.outcome = IPCPFailed
		if s.stage == StageUp || s.stage == StageIPv6CP {
			s.outcome = Terminated
		}
		return s.send(protoIPCP, control{code: terminateAck, id: c.id})
	case codeReject:
		if s.stage == StageIPCP {
			s.outcome = IPCPFailed
		}
	case terminateAck:
	default:
		return s.rejectCode(protoIPCP, c)
	}
	return nil
}

// repeated acknowledges once more what was agreed on; the first time was lost.
func (s *session) repeated(n *negotiation, c control) error {
	if string(c.data) != string(n.given) {
		return nil
	}
	return s.reply(n.proto, control{configureAck, c.id, c.data})
}

func (s *session) ipcpAnswered(c control) error {
	if s.stage != StageIPCP {
		return nil
	}
	zeros := 0
	err := s.ipcp.answer(s, c, func(o option) bool {
		if o.kind == ipcpAddress && !address(&o).IsValid() {
			zeros++
		}
		return len(o.data) == 4
	})
	switch {
	case s.ipcp.acked:
	case find(s.ipcp.want, ipcpAddress) == nil:
		s.outcome = NoAddress
	case zeros > 0 && s.ipcp.requests > maxZeroSuggests:
		s.outcome = NoAddress
	case s.ipcp.exhausted():
		s.outcome = IPCPFailed
	}
	return err
}

// finishIPCP takes over the addresses, and says whether there is one.
func (s *session) finishIPCP() bool {
	r := &s.result
	r.Address = address(find(s.ipcp.want, ipcpAddress))
	r.DNS1, r.DNS2 = address(find(s.ipcp.want, ipcpDNS1)), address(find(s.ipcp.want, ipcpDNS2))
	return r.Address.IsValid()
}

// linkLocal returns an interface identifier as an address, or an invalid one.
//
//go:noinline
func linkLocal(o *option) netip.Addr {
	if o == nil || len(o.data) != 8 || string(o.data) == "\x00\x00\x00\x00\x00\x00\x00\x00" {
		return netip.Addr{}
	}
	b := [16]byte{0: 0xfe, 1: 0x80}
	copy(b[8:], o.data)
	return netip.AddrFrom16(b)
}

func (s *session) handleIPv6CP(c control) error {
	if s.result.IPv6.Result == "rejected" {
		return nil
	}
	switch c.code {
	case configureRequest:
		if s.stage == StageUp {
			return s.repeated(&s.ipv6cp, c)
		}
		var peer netip.Addr
		agreed, err := s.ipv6cp.consider(s, c, func(o option) (judgement, option) {
			if a := linkLocal(&o); o.kind == ipv6Interface && a.IsValid() {
				peer = a
				return accept, option{}
			}
			return reject, option{}
		})
		if agreed {
			s.result.IPv6.Peer = peer
		}
		return err
	case configureAck, configureNak, configureReject:
		err := s.ipv6cp.answer(s, c, func(o option) bool { return linkLocal(&o).IsValid() })
		if !s.ipv6cp.acked && (len(s.ipv6cp.want) == 0 || s.ipv6cp.exhausted()) {
			s.refuseIPv6()
		}
		return err
	case terminateRequest:
		s.refuseIPv6()
		return s.send(protoIPv6CP, control{code: terminateAck, id: c.id})
	case codeReject:
		s.refuseIPv6()
	case terminateAck:
	default:
		return s.rejectCode(protoIPv6CP, c)
	}
	return nil
}

func (s *session) refuseIPv6() {
	s.ipv6cp.next = 0
	s.result.IPv6.Result = "rejected"
}

func (s *session) finishIPv6CP() {
	s.result.IPv6.Result = "up"
	s.result.IPv6.Local = linkLocal(find(s.ipv6cp.want, ipv6Interface))
}
