package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The bounds of a survey.
const (
	maxResolvers = 16
	maxNames     = 32
)

// tops are the top-level domains in which names are asked for that cannot
// exist: two real ones, and the one that never will be (RFC 6761).
var tops = [...]string{"com", "cn", "invalid"}

// SurveyOptions say what to ask, and how. Resolvers and Names are required.
type SurveyOptions struct {
	Resolvers []netip.AddrPort // at most 16
	Names     []string         // that exist; at most 32
	Prober    Prober           // timeout, attempts, interface
}

// questions is how many go to each resolver.
func (o SurveyOptions) questions() int { return 2*len(o.Names) + len(tops) + 1 }

// Duration returns the longest time that a survey takes.
func (o SurveyOptions) Duration() time.Duration {
	rounds := (len(o.Resolvers)*o.questions() + maxParallel - 1) / maxParallel
	return time.Duration(rounds) * o.Prober.Duration()
}

// Outcome is what a resolver, or all of them, show, in a word.
type Outcome string

// The outcomes. Of a resolver all but Degraded; of all together all.
const (
	OK          Outcome = "ok"                // every name has an address, nothing is invented
	Degraded    Outcome = "degraded"          // one resolver at least is ok, another is not
	Rewrites    Outcome = "nxdomain_rewrites" // every name has an address, and so has one that cannot exist
	Hijacks     Outcome = "hijacks"           // leads elsewhere: see Surveyed.Hijacked
	Wrong       Outcome = "wrong_answer"      // says that there is no such name or address
	Servfail    Outcome = "servfail"          // answers with a failure: SERVFAIL, or an odd code
	Refused     Outcome = "refused"           // refuses to answer
	Partial     Outcome = "partial"           // some questions are answered, others never
	Dead        Outcome = "dead"              // no answer at all
	Unreachable Outcome = "unreachable"       // the port is closed, or there is no route
	Malformed   Outcome = "malformed"         // what it sends is no answer
	NotAsked    Outcome = "not_asked"         // could not be asked, for reasons of our own: see Error
)

// Asked is one question and what came of it.
type Asked struct {
	Name      string       `json:"name"`
	Type      string       `json:"type"` // "A" or "AAAA"
	Rcode     string       `json:"rcode,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	LatencyMs float64      `json:"latency_ms,omitempty"`
	TCP       bool         `json:"tcp,omitempty"`
	Attempts  int          `json:"attempts"`
	Error     string       `json:"error,omitempty"` // why there is no answer
}

// Surveyed is what one resolver showed.
type Surveyed struct {
	Resolver netip.AddrPort `json:"resolver"`
	Outcome  Outcome        `json:"outcome"`
	// V6 says that it was asked over IPv6, and answered; A and AAAA that it
	// gave an address of that kind for at least one name.
	V6   bool `json:"v6_transport"`
	A    bool `json:"a"`
	AAAA bool `json:"aaaa"`
	// TCP is what a question over TCP showed: OK (any answer), Dead,
	// Unreachable, Malformed or NotAsked.
	TCP Outcome `json:"tcp"`
	// LatencyMs is the median of its answers over UDP to names that exist,
	// MaxLatencyMs the longest.
	LatencyMs    float64 `json:"latency_ms,omitempty"`
	MaxLatencyMs float64 `json:"max_latency_ms,omitempty"`
	// Hijacked are the names it leads elsewhere with: its addresses are none
	// that another resolver gives, and either no host on the internet can have
	// them or another name has just the same, both unlike the other's. All
	// names, if it gives one answer for everything, even for what cannot exist.
	Hijacked []string `json:"hijacked,omitempty"`
	// Invented are the names that cannot exist for which it gave an address.
	Invented  []string `json:"invented,omitempty"`
	Questions []Asked  `json:"questions"`
	Error     string   `json:"error,omitempty"`
}

// SurveyResult is what all resolvers showed.
type SurveyResult struct {
	Outcome   Outcome    `json:"outcome"`
	Resolvers []Surveyed `json:"resolvers"`
	// V6Transport says that a resolver answered over IPv6, AAAA that one gave
	// an IPv6 address.
	V6Transport bool    `json:"v6_transport"`
	AAAA        bool    `json:"aaaa"`
	DurationS   float64 `json:"duration_s"`
}

// Survey asks each resolver for the A and AAAA of each name, for names that
// cannot exist, and once over TCP, and compares the answers. Resolvers that are
// dead or lie are Outcomes. The error is ctx.Err(), or compatible with
// ErrNoInterface, or says what is wrong with the options or why no resolver
// could be asked.
func Survey(ctx context.Context, o SurveyOptions) (SurveyResult, error) {
	if len(o.Resolvers) == 0 || len(o.Resolvers) > maxResolvers || len(o.Names) == 0 || len(o.Names) > maxNames {
		return SurveyResult{}, fmt.Errorf("cannot survey: %d resolvers and %d names, must be 1 to %d and 1 to %d",
			len(o.Resolvers), len(o.Names), maxResolvers, maxNames)
	}
	begin := time.Now()
	questions := both(o.Names)
	for _, top := range tops {
		name, err := o.Prober.nonexistent(top)
		if err != nil {
			return SurveyResult{}, fmt.Errorf("cannot survey: %w", err)
		}
		questions = append(questions, Answer{Name: name, Type: A})
	}
	questions = append(questions, Answer{Name: o.Names[0], Type: A, TCP: true})
	replies := o.Prober.askAll(ctx, o.Resolvers, questions)
	if err := ctx.Err(); err != nil {
		return SurveyResult{}, err
	}
	res := SurveyResult{Resolvers: make([]Surveyed, len(replies))}
	var local error
	for i, all := range replies {
		s := &res.Resolvers[i]
		s.Resolver = o.Resolvers[i]
		s.note(all)
		s.Hijacked = hijacked(replies, i, 2*len(o.Names))
		s.judge(all, 2*len(o.Names))
		if s.Outcome == NotAsked {
			local = all[0].Err
		}
		res.V6Transport = res.V6Transport || s.V6
		res.AAAA = res.AAAA || s.AAAA
	}
	res.Outcome = overall(res.Resolvers)
	res.DurationS = time.Since(begin).Seconds()
	if res.Outcome == NotAsked {
		return res, fmt.Errorf("cannot survey: %w", local)
	}
	return res, nil
}

// note keeps what was said.
func (s *Surveyed) note(all []Reply) {
	for _, r := range all {
		q := Asked{
			Name: r.Name, Type: r.Type.String(), Rcode: r.Rcode, Addresses: r.Addresses,
			LatencyMs: float64(r.Latency) / float64(time.Millisecond), TCP: r.TCP, Attempts: r.Attempts,
		}
		if r.Err != nil {
			q.Error = reason(r.Err)
		} else if a := s.Resolver.Addr(); a.Is6() && !a.Is4In6() {
			s.V6 = true
		}
		s.Questions = append(s.Questions, q)
	}
}

// reason is the short form of an error.
func reason(err error) string {
	for _, known := range [...]error{ErrTimeout, ErrUnreachable, ErrMalformed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

// lost is the outcome of a question without an answer.
func lost(err error) Outcome {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, ErrTimeout):
		return Dead
	case errors.Is(err, ErrUnreachable):
		return Unreachable
	case errors.Is(err, ErrMalformed):
		return Malformed
	}
	return NotAsked
}

// judge finds the outcome of all replies of one resolver; the first n are about
// the names, A and AAAA of each, the last is that over TCP.
func (s *Surveyed) judge(all []Reply, n int) {
	var latencies []float64
	counts := make(map[Outcome]int) // of questions about names
	found := true                   // each name has an address
	for i, r := range all[:n] {
		switch {
		case r.Err != nil:
			counts[lost(r.Err)]++
			if s.Error == "" {
				s.Error = reason(r.Err)
			}
		case r.Rcode == "REFUSED":
			counts[Refused]++
		case r.Rcode != "NOERROR" && r.Rcode != "NXDOMAIN":
			counts[Servfail]++
		default:
			counts[Wrong]++ // unless each name has an address
		}
		if r.Err == nil && !r.TCP {
			latencies = append(latencies, s.Questions[i].LatencyMs)
		}
		s.A = s.A || r.Err == nil && r.Found() && r.Type == A
		s.AAAA = s.AAAA || r.Err == nil && r.Found() && r.Type == AAAA
		if i%2 == 1 {
			found = found && (r.Err == nil && r.Found() || all[i-1].Err == nil && all[i-1].Found())
		}
	}
	if slices.Sort(latencies); len(latencies) > 0 {
		s.LatencyMs, s.MaxLatencyMs = latencies[(len(latencies)-1)/2], latencies[len(latencies)-1]
	}
	tcp := len(all) - 1
	for _, r := range all[n:tcp] {
		if r.Err == nil && r.Found() {
			s.Invented = append(s.Invented, r.Name)
		}
	}
	s.TCP = lost(all[tcp].Err)
	s.Outcome = outcome(counts, n, found)
	switch {
	case len(s.Hijacked) > 0:
		s.Outcome = Hijacks
	case found && len(s.Invented) > 0:
		s.Outcome = Rewrites
	}
}

// outcome is that of a resolver whose answers are true.
func outcome(counts map[Outcome]int, n int, found bool) Outcome {
	if found {
		return OK
	}
	for _, o := range [...]Outcome{NotAsked, Unreachable, Malformed, Dead} {
		if counts[o] == n {
			return o
		}
	}
	for _, o := range [...]Outcome{Refused, Servfail} {
		if counts[o] > 0 {
			return o
		}
	}
	switch {
	case counts[Wrong] == n:
		return Wrong
	case counts[Wrong] > 0:
		return Partial
	}
	for _, o := range [...]Outcome{Dead, Malformed, Unreachable} {
		if counts[o] > 0 {
			return o
		}
	}
	return NotAsked
}

// overall is the outcome of all resolvers together.
func overall(all []Surveyed) Outcome {
	has := func(o Outcome) bool { return slices.ContainsFunc(all, func(s Surveyed) bool { return s.Outcome == o }) }
	others := func(o Outcome) bool { return slices.ContainsFunc(all, func(s Surveyed) bool { return s.Outcome != o }) }
	switch {
	case has(OK) && others(OK):
		return Degraded
	case has(OK):
		return OK
	}
	// The one that still opens pages, then the most telling.
	for _, o := range [...]Outcome{Rewrites, Hijacks, Servfail, Refused, Wrong, Partial, Malformed, Dead, Unreachable} {
		if has(o) {
			return o
		}
	}
	return NotAsked
}

// hijacked returns the names for which resolver i leads elsewhere; the first n
// replies are about names, A and AAAA of each, and one for a name that cannot
// exist in a real domain follows.
func hijacked(replies [][]Reply, i, n int) []string {
	own := replies[i]
	everything := Result{Replies: own[:n], Bogus: own[n]}.Captures()
	var names []string
	for j, r := range own[:n] {
		if !given(r) || slices.Contains(names, r.Name) {
			continue
		}
		if everything || contradicted(replies, i, j, nowhere) ||
			contradicted(replies, i, j, func(all []Reply, j int) bool { return shared(all[:n], j) }) {
			names = append(names, r.Name)
		}
	}
	return names
}

func given(r Reply) bool { return r.Err == nil && r.Found() }

// nowhere reports whether no host on the internet can have what reply j gives.
func nowhere(all []Reply, j int) bool {
	return !slices.ContainsFunc(all[j].Addresses, func(a netip.Addr) bool { return !bogon(a) })
}

// shared reports whether another name has just the same addresses.
func shared(all []Reply, j int) bool {
	r := all[j]
	return slices.ContainsFunc(all, func(x Reply) bool {
		return !strings.EqualFold(x.Name, r.Name) && given(x) && x.Type == r.Type && sameAddresses(x.Addresses, r.Addresses)
	})
}

// contradicted reports whether reply j of resolver i is suspect, while another
// resolver gives addresses that are not, and no other gives any of i's. Where
// all are suspect, as in a network of private addresses, nobody is a witness.
func contradicted(replies [][]Reply, i, j int, suspect func(all []Reply, j int) bool) bool {
	if !suspect(replies[i], j) {
		return false
	}
	witness := false
	for k, theirs := range replies {
		if k == i || !given(theirs[j]) {
			continue
		}
		for _, a := range theirs[j].Addresses {
			if slices.Contains(replies[i][j].Addresses, a) {
				return false
			}
		}
		witness = witness || !suspect(theirs, j)
	}
	return witness
}

// bogon reports whether a can be no host on the internet: private and reserved
// space (RFC 6890 and its registries). The prefixes of address translation
// (NAT64) are no bogons.
func bogon(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return true
	}
	if !a.Is4() {
		b := a.As16()
		global := b[0]&0xe0 == 0x20
		documentation := b[0] == 0x20 && b[1] == 0x01 && b[2] == 0x0d && b[3] == 0xb8
		nat64 := b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b
		return documentation || !global && !nat64
	}
	b := a.As4()
	switch {
	case b[0] == 0, b[0] >= 240,
		b[0] == 100 && b[1]&0xc0 == 64,             // shared address space
		b[0] == 192 && b[1] == 0 && b[2]&0xfd == 0, // 192.0.0.0/24, 192.0.2.0/24
		b[0] == 198 && b[1]&0xfe == 18,             // benchmarks
		b[0] == 198 && b[1] == 51 && b[2] == 100,
		b[0] == 203 && b[1] == 0 && b[2] == 113:
		return true
	}
	return false
}
