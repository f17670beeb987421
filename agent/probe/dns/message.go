package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// rcodes are the names of the response codes that resolvers give, by number
// (RFC 1035 section 4.1.1, RFC 2136 section 2.2).
var rcodes = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
}

// question is a query, and what it takes to know its answer.
type question struct {
	id   uint16
	name dnsmessage.Name
	typ  Type
	wire []byte
}

// newQuestion encodes a query. The error says why name is no domain name.
func newQuestion(id uint16, name string, t Type) (question, error) {
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	n, err := dnsmessage.NewName(name)
	if err != nil || strings.Contains(name, "..") && name != "." {
		return question{}, errors.New("not a domain name")
	}
	// No EDNS: old forwarders choke on it, and the answers looked for fit.
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.Type(t), Class: dnsmessage.ClassINET}},
	}
	wire, err := m.Pack()
	if err != nil {
		return question{}, errors.New("not a domain name")
	}
	return question{id: id, name: n, typ: t, wire: wire}, nil
}

// reply is what counts of an answer.
type reply struct {
	rcode     dnsmessage.RCode
	truncated bool
	asked     []dnsmessage.Question
	addresses []netip.Addr // distinct, of the type asked for; at most maxAddresses
}

func (r reply) rcodeName() string {
	if int(r.rcode) < len(rcodes) {
		return rcodes[r.rcode]
	}
	return fmt.Sprintf("RCODE%d", r.rcode)
}

// answers reports whether r answers q. Some resolvers leave the question out of
// an error.
func (r reply) answers(q question) bool {
	if len(r.asked) == 0 {
		return r.rcode != dnsmessage.RCodeSuccess || r.truncated
	}
	got := r.asked[0]
	return strings.EqualFold(got.Name.String(), q.name.String()) &&
		got.Type == dnsmessage.Type(q.typ) && got.Class == dnsmessage.ClassINET
}

// parse decodes a message, looking for addresses of type t whatever the chain
// of aliases before them. A truncated message need not be whole.
func parse(wire []byte, t Type) (reply, error) {
	var p dnsmessage.Parser
	h, err := p.Start(wire)
	if err != nil {
		return reply{}, fmt.Errorf("%w: %v", ErrMalformed, err) //nolint:errorlint // the library's errors are not ours to promise
	}
	r := reply{rcode: h.RCode, truncated: h.Truncated}
	if err := r.read(&p, t); err != nil && !r.truncated {
		return reply{}, fmt.Errorf("%w: %v", ErrMalformed, err) //nolint:errorlint // as above
	}
	return r, nil
}

func (r *reply) read(p *dnsmessage.Parser, t Type) error {
	for {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return err
		}
		if len(r.asked) == 0 {
			r.asked = append(r.asked, q)
		}
	}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return err
		}
		if err := r.answer(p, h, t); err != nil {
			return err
		}
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	return p.SkipAllAdditionals()
}

func (r *reply) answer(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, t Type) error {
	var addr netip.Addr
	switch {
	case h.Type == dnsmessage.TypeA && t == A:
		a, err := p.AResource()
		if err != nil {
			return err
		}
		addr = netip.AddrFrom4(a.A)
	case h.Type == dnsmessage.TypeAAAA && t == AAAA:
		a, err := p.AAAAResource()
		if err != nil {
			return err
		}
		addr = netip.AddrFrom16(a.AAAA)
	default:
		return p.SkipAnswer()
	}
	if len(r.addresses) < maxAddresses && !slices.Contains(r.addresses, addr) {
		r.addresses = append(r.addresses, addr)
	}
	return nil
}
