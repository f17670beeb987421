package pppoe

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// Options of LCP (RFC 1661, 6).
const (
	lcpMRU   = 1
	lcpAuth  = 3
	lcpMagic = 5
)

const chapMD5 = 5 // the algorithm of RFC 1994

// minPeerMRU is the least MRU of a peer that is believed.
const minPeerMRU = 64

func (s *session) newMagic() []byte {
	b := make([]byte, 4)
	for binary.BigEndian.Uint32(b) == 0 {
		rand.Read(b)
	}
	s.magic = binary.BigEndian.Uint32(b)
	return b
}

// startLCP begins LCP, also anew.
func (s *session) startLCP() error {
	s.enter(StageLCP, lcpTime)
	s.lcp = negotiation{proto: protoLCP, want: []option{
		{lcpMRU, append16(nil, s.maxMRU)},
		{lcpMagic, s.newMagic()},
	}}
	s.result.LCP.MRUAsked = s.maxMRU
	return s.lcp.request(s, false)
}

// restartLCP follows a peer that begins anew in the middle: a network server
// behind a tunnel may do so after the access concentrator has let us in. It
// will want an authentication of its own.
func (s *session) restartLCP() error {
	if s.restarts++; s.restarts > maxRestarts {
		s.outcome = LCPNoAgreement
		return nil
	}
	s.summarise()
	s.auth = auth{refused: s.auth.refused}
	s.ipcp, s.ipv6cp, s.echo = negotiation{}, negotiation{}, echo{}
	r := &s.result
	r.Auth = Auth{Attempts: r.Auth.Attempts, Sends: r.Auth.Sends}
	r.Address, r.Peer, r.DNS1, r.DNS2 = netip.Addr{}, netip.Addr{}, netip.Addr{}, netip.Addr{}
	r.IPv6, r.Echo, r.MTU = IPv6{}, Echo{}, 0
	return s.startLCP()
}

const maxRestarts = 2

func (s *session) handleLCP(c control, at time.Duration) error {
	switch c.code {
	case configureRequest:
		return s.lcpRequested(c)
	case configureAck, configureNak, configureReject:
		if s.stage != StageLCP {
			return nil
		}
		err := s.lcp.answer(s, c, s.adoptLCP)
		if s.lcp.exhausted() && !s.lcp.up() {
			s.outcome = LCPNoAgreement
		}
		return err
	case terminateRequest:
		s.result.TerminateReason, s.result.TerminateReasonHex = text(c.data)
		s.outcome = Terminated
		if s.auth.proto == 0 && s.auth.refused > 0 {
			// It did without, to the letter of LCP, and then would not.
			s.outcome = AuthUnsupported
		}
		return s.send(protoLCP, control{code: terminateAck, id: c.id})
	case codeReject:
		s.codeRejected(c)
	case protocolReject:
		s.protocolRejected(c)
	case echoRequest:
		return s.answerEcho(c)
	case echoReply:
		s.echoed(c, at)
	case terminateAck, discardRequest, identification, timeRemaining:
	default:
		return s.rejectCode(protoLCP, c)
	}
	return nil
}

// lcpRequested answers the peer's Configure-Request.
func (s *session) lcpRequested(c control) error {
	repeated := s.lcp.agreed && slices.Equal(c.data, s.lcp.given)
	if s.stage != StageLCP && !repeated {
		if err := s.restartLCP(); err != nil || s.outcome != "" {
			return err
		}
	}
	var mru uint16
	var magic uint32
	var proto uint16
	mine := false
	agreed, err := s.lcp.consider(s, c, func(o option) (judgement, option) {
		switch {
		case o.kind == lcpMRU && len(o.data) == 2:
			if mru = binary.BigEndian.Uint16(o.data); mru < minPeerMRU {
				return suggest, option{lcpMRU, append16(nil, defaultMRU)}
			}
			return accept, option{}
		case o.kind == lcpMagic && len(o.data) == 4:
			if magic = binary.BigEndian.Uint32(o.data); magic == s.magic {
				mine = true
				b := make([]byte, 4)
				rand.Read(b)
				return suggest, option{lcpMagic, b}
			}
			return accept, option{}
		case o.kind == lcpAuth && len(o.data) >= 2:
			proto = binary.BigEndian.Uint16(o.data)
			return s.judgeAuth(o)
		}
		return reject, option{}
	})
	switch {
	case err != nil:
		return err
	case mine:
		if s.looped++; s.looped >= 3 {
			s.outcome = Loop
		}
	case agreed:
		s.auth.proto = proto
		s.result.LCP.PeerMRU, s.result.LCP.PeerMagic = mru, magic
	case s.auth.refused > maxAuthRefusals:
		s.outcome = AuthUnsupported
	case s.lcp.exhausted():
		s.outcome = LCPNoAgreement
	}
	return nil
}

// maxAuthRefusals is how often another authentication is suggested: CHAP-MD5,
// then PAP, and once more each.
const maxAuthRefusals = 4

// judgeAuth accepts PAP and CHAP-MD5, and suggests them instead of others.
func (s *session) judgeAuth(o option) (judgement, option) {
	proto := binary.BigEndian.Uint16(o.data)
	name := authName(proto, o.data[2:])
	if asked := s.result.LCP.AuthAsked; len(asked) < 8 && !slices.Contains(asked, name) {
		s.result.LCP.AuthAsked = append(asked, name)
	}
	if name == authPAP && len(o.data) == 2 || name == authCHAP && len(o.data) == 3 {
		return accept, option{}
	}
	s.auth.refused++
	if s.auth.refused%2 == 1 {
		return suggest, option{lcpAuth, []byte{protoCHAP >> 8, protoCHAP & 0xff, chapMD5}}
	}
	return suggest, option{lcpAuth, []byte{protoPAP >> 8, protoPAP & 0xff}}
}

// The names of authentication protocols.
const (
	authPAP   = "pap"
	authCHAP  = "chap_md5"
	authOther = "other"
)

func authName(proto uint16, algorithm []byte) string {
	switch {
	case proto == protoPAP:
		return authPAP
	case proto == protoEAP:
		return "eap"
	case proto != protoCHAP || len(algorithm) == 0:
		return authOther
	case algorithm[0] == chapMD5:
		return authCHAP
	case algorithm[0] == 0x80:
		return "mschap"
	case algorithm[0] == 0x81:
		return "mschap_v2"
	}
	return "chap_other"
}

// adoptLCP takes over what the peer would rather have.
func (s *session) adoptLCP(o option) bool {
	switch {
	case o.kind == lcpMRU && len(o.data) == 2:
		mru := binary.BigEndian.Uint16(o.data)
		return mru >= 128 && mru <= s.maxMRU
	case o.kind == lcpMagic && len(o.data) == 4:
		// Our own choice, not the peer's; ours comes back in a loop.
		if s.looped > 0 || binary.BigEndian.Uint32(o.data) != 0 {
			find(s.lcp.want, lcpMagic).data = s.newMagic()
		}
	}
	return false
}

// finishLCP notes what was agreed on.
func (s *session) finishLCP() {
	r := &s.result.LCP
	r.MRU = defaultPeerMRU
	if o := find(s.lcp.want, lcpMRU); o != nil {
		r.MRU = binary.BigEndian.Uint16(o.data)
	}
	if find(s.lcp.want, lcpMagic) == nil {
		s.magic = 0
	}
	r.Magic = s.magic
	peer := r.PeerMRU
	if peer == 0 {
		peer = defaultPeerMRU
	}
	s.result.MTU = min(peer, max(s.maxMRU, defaultMRU))
}

// summarise puts what was counted into the result.
func (s *session) summarise() {
	r := &s.result.LCP
	r.Requests += s.lcp.requests
	r.Rejected, r.PeerRejected = s.lcp.rejected, s.lcp.refused
}

// codeRejected handles a peer that doesn't know a kind of packet. All that we
// send are needed but the echoes.
func (s *session) codeRejected(c control) {
	if len(c.data) == 0 {
		s.result.Malformed++
		return
	}
	switch c.data[0] {
	case configureRequest, configureAck, configureNak, configureReject:
		s.outcome = LCPRejected
	case echoRequest:
		s.echo.refused = true
		s.finishEcho()
	}
}

// protocolRejected handles a peer that doesn't know a protocol.
func (s *session) protocolRejected(c control) {
	if len(c.data) < 2 {
		s.result.Malformed++
		return
	}
	switch proto := binary.BigEndian.Uint16(c.data); {
	case proto == protoLCP:
		s.outcome = LCPRejected
	case proto == s.auth.proto && s.stage == StageAuth:
		s.outcome = AuthUnsupported
	case proto == protoIPCP && s.stage == StageIPCP:
		s.outcome = IPCPFailed
	case proto == protoIPv6CP && s.o.IPv6 && s.result.IPv6.Result == "":
		s.ipv6cp.next = 0
		s.result.IPv6.Result = "rejected"
	}
}
