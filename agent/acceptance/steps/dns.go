package steps

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dns"
	"ontagent/collectors"
)

// ResolverReader lists the resolvers that the operator gave to the WAN.
type ResolverReader interface {
	ReadResolvers(ctx context.Context) ([]netip.AddrPort, error)
}

// DNSProber asks resolvers.
type DNSProber interface {
	Probe(ctx context.Context, resolvers []netip.AddrPort, names []string) []dns.Result
}

var _ DNSProber = dns.Prober{}

// DNSOptions configure the dns rung.
type DNSOptions struct {
	Resolvers  ResolverReader // nil: nothing to read
	Prober     DNSProber      // dns.Prober{} if nil
	Names      []string       // that must resolve: well-known sites
	Thresholds acceptance.Thresholds
	Deadline   time.Duration // 15 s if zero
}

// DNS judges whether names can be resolved.
type DNS struct{ o DNSOptions }

var _ acceptance.Step = (*DNS)(nil)

// NewDNS returns the dns rung.
func NewDNS(o DNSOptions) *DNS {
	if o.Prober == nil {
		o.Prober = dns.Prober{}
	}
	o.Thresholds = orNorms(o.Thresholds)
	o.Deadline = orDefault(o.Deadline, 15*time.Second)
	return &DNS{o: o}
}

// Rung implements acceptance.Step.
func (*DNS) Rung() acceptance.Rung { return acceptance.DNS }

// Needs implements acceptance.Step.
func (*DNS) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Addressing} }

// Deadline implements acceptance.Step.
func (s *DNS) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (*DNS) Estimate() time.Duration { return time.Second }

// resolver is the judgement of one resolver.
type resolver struct {
	works   bool
	cause   diagnosis.Code // why not; "" if it could not be asked at all
	local   error          // could not be asked at all: why
	slowest time.Duration  // of its answers
}

// Run asks every resolver for every name. A resolver works if it gives an
// address, of either family, for each name.
//
// One that works is enough, because then the customer's pages open: pass. The
// others, and invented answers for names that do not exist, are warnings. If
// none works, the rung fails – with no resolver at all, no answer, an error
// answer, or the same answer for everything (a hijack: a walled garden).
// Without names to ask for, or if the questions could not even be sent for
// reasons of our own, it is inconclusive.
func (s *DNS) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	if s.o.Resolvers == nil || len(s.o.Names) == 0 {
		decide(&out, acceptance.Inconclusive, "no names to ask for, or nothing tells the resolvers", diagnosis.AgentCannotMeasure)
		return out
	}
	servers, err := s.o.Resolvers.ReadResolvers(ctx)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
		return out
	case err != nil:
		put(&out, missing("resolvers", collectors.StatusError, "", err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot read the resolvers: %v", err), diagnosis.AgentCannotMeasure)
		return out
	}
	measured(&out, "resolvers", joined(servers), "", "")
	if len(servers) == 0 {
		decide(&out, acceptance.Fail, "the WAN was given no resolver", diagnosis.DNSNoResolver)
		return out
	}

	results := s.o.Prober.Probe(ctx, servers, s.o.Names)
	judged := make([]resolver, 0, len(results))
	for _, r := range results {
		j := judge(r)
		s.measurements(&out, r, j, note)
		judged = append(judged, j)
	}
	if ctx.Err() != nil {
		stopped(ctx, &out)
		return out
	}
	s.verdict(&out, results, judged)
	return out
}

func (s *DNS) verdict(out *acceptance.Outcome, results []dns.Result, judged []resolver) {
	works := func(j resolver) bool { return j.works }
	if slices.ContainsFunc(judged, works) {
		slow := s.o.Thresholds.Limit(acceptance.DNSLatencyWarnMs)
		out.Limits = append(out.Limits, slow)
		decide(out, acceptance.Pass, "")
		for i, j := range judged {
			switch {
			case !j.works && j.local == nil:
				warn(out, diagnosis.DNSResolverDead)
			case j.works && results[i].Invents():
				warn(out, diagnosis.DNSNXDomainRewritten)
			}
			if j.works && !slow.Holds(ms(j.slowest)) {
				warn(out, diagnosis.DNSSlow)
			}
		}
		return
	}
	var causes []diagnosis.Code
	var local error
	for _, j := range judged {
		if j.local != nil {
			local = j.local
			continue
		}
		causes = append(causes, j.cause)
	}
	if len(causes) == 0 {
		reason := "no resolver could be asked"
		if local != nil {
			reason += ": " + local.Error()
		}
		decide(out, acceptance.Inconclusive, reason, diagnosis.AgentCannotMeasure)
		return
	}
	// The most telling cause first, whichever resolver it is of.
	order := []diagnosis.Code{diagnosis.DNSHijack, diagnosis.DNSServfail, diagnosis.DNSWrongAnswer, diagnosis.DNSNoAnswer}
	sort.SliceStable(causes, func(i, j int) bool { return slices.Index(order, causes[i]) < slices.Index(order, causes[j]) })
	decide(out, acceptance.Fail, fmt.Sprintf("none of %d resolvers works", len(judged)), causes...)
}

// judge looks at what one resolver said.
func judge(r dns.Result) resolver {
	var j resolver
	names := map[string]bool{} // asked → has an address
	var answers, servfails, silent int
	for _, reply := range r.Replies {
		names[reply.Name] = names[reply.Name] || reply.Err == nil && reply.Found()
		switch {
		case reply.Err == nil:
			answers++
			j.slowest = max(j.slowest, reply.Latency)
			if reply.Rcode == "SERVFAIL" || reply.Rcode == "REFUSED" {
				servfails++
			}
		case errors.Is(reply.Err, dns.ErrTimeout), errors.Is(reply.Err, dns.ErrUnreachable), errors.Is(reply.Err, dns.ErrMalformed):
			silent++
		default:
			j.local = reply.Err
		}
	}
	found := 0
	for _, ok := range names {
		if ok {
			found++
		}
	}
	switch {
	case r.Captures():
		j.cause = diagnosis.DNSHijack
	case len(names) > 0 && found == len(names):
		j.works = true
	case answers == 0 && silent == 0: // local errors only, or nothing was asked
		if j.local == nil {
			j.local = errors.New("no question was asked")
		}
		return j
	case answers == 0:
		j.cause = diagnosis.DNSNoAnswer
	case servfails > 0:
		j.cause = diagnosis.DNSServfail
	case silent > 0:
		j.cause = diagnosis.DNSNoAnswer // some questions are answered, others never
	default:
		j.cause = diagnosis.DNSWrongAnswer
	}
	j.local = nil // something was said, so the resolver is judged
	return j
}

func (s *DNS) measurements(out *acceptance.Outcome, r dns.Result, j resolver, note func(string)) {
	source := "dns:" + r.Resolver.String()
	show := func(name string, reply dns.Reply) {
		label := reply.Name + " " + reply.Type.String()
		if reply.Err != nil {
			note(reply.Err.Error())
			put(out, missing(name, collectors.StatusError, source, label+": "+reason(reply.Err)))
			return
		}
		m := value(name, ms(reply.Latency), source, label+" "+reply.Rcode)
		m.Raw = joined(reply.Addresses)
		if reply.TCP {
			m.Note += ", over TCP"
		}
		put(out, m)
	}
	measured(out, "dns_resolver_works", j.works, source, "")
	for _, reply := range r.Replies {
		show("dns_latency_ms", reply)
	}
	show("dns_nonexistent_latency_ms", r.Bogus)
	measured(out, "dns_invents_answers", r.Invents(), source, "for a name that cannot exist")
}

// reason returns the short form of an error of a lookup.
func reason(err error) string {
	for _, known := range []error{dns.ErrTimeout, dns.ErrUnreachable, dns.ErrMalformed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func joined[T fmt.Stringer](vs []T) string {
	words := make([]string, 0, len(vs))
	for _, v := range vs {
		words = append(words, v.String())
	}
	return strings.Join(words, " ")
}
