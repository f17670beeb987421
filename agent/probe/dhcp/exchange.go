package dhcp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// wire sends and receives frames on one interface.
type wire interface {
	// send returns ErrDown or ErrNoInterface if nothing can be sent any more,
	// and errBusy if this frame could not.
	send(frame []byte) error
	// receive reads one frame into b. It returns os.ErrDeadlineExceeded at the
	// deadline, or when wake has been called since setDeadline.
	receive(b []byte) (received, error)
	setDeadline(t time.Time) error
	wake()
	close()
}

// received says what the kernel knows about a frame.
type received struct {
	n        int // bytes in the buffer
	tag      tag // that it took out of the frame
	unsummed bool
	skip     bool // sent by this host, cut short, or in a VLAN of another kind
}

var errBusy = errors.New("no room to send")

// query is one family's questions.
type query struct {
	asked    bool
	xids     []uint32    // of the tries
	sent     []time.Time // when
	next     time.Time   // when the next try is due, or the last one has failed
	answered time.Time   // when first, zero if not
	damaged  bool        // something came that was ours and could not be read
}

// due says when something has to be done about the family next: when it is to
// be asked again or given up. open is false when nothing is.
func (q *query) due(o *Options, now time.Time) (at time.Time, open bool) {
	if !q.asked {
		return at, false
	}
	if at = q.next; !q.answered.IsZero() {
		at = q.answered.Add(o.Collect)
	}
	return at, now.Before(at) || q.answered.IsZero() && len(q.sent) < o.Tries
}

// exchange is one run over one wire.
type exchange struct {
	o    *Options
	res  *Result
	wire wire
	hw   mac
	self netip.Addr // our link-local address
	duid []byte

	v4, v6, ra query
	heard      []string // who answered, to keep each once
	tells      int
	busy       error
}

const maxTells = 32 // answers to neighbours, in one run

func newExchange(o *Options, res *Result, w wire) *exchange {
	x := &exchange{o: o, res: res, wire: w, hw: mac(o.MAC), duid: o.DUID}
	x.self = linkLocal(x.hw)
	if len(x.duid) == 0 {
		x.duid = append([]byte{0, 3, 0, 1}, o.MAC...) // DUID-LL, Ethernet
	}
	res.MAC = x.hw.String()
	x.v4.asked, x.v6.asked, x.ra.asked = o.Families&V4 != 0, o.Families&V6 != 0, o.Families&Routers != 0
	return x
}

// linkLocal is the address that follows from a MAC (RFC 4291, appendix A).
func linkLocal(hw mac) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
}

// queries returns those of the families in the order in which they are asked:
// first the routers, who so learn our MAC.
func (x *exchange) queries() [3]*query { return [3]*query{&x.ra, &x.v4, &x.v6} }

func (x *exchange) run(ctx context.Context) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { x.wire.wake(); close(woken) })
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	begin := time.Now()
	err := x.talk(ctx, begin)
	x.res.DurationS = time.Since(begin).Seconds()
	x.judge()
	if err == nil && x.res.Sent == 0 {
		err = x.busy
	}
	return err
}

func (x *exchange) talk(ctx context.Context, begin time.Time) error {
	buf := make([]byte, 4096)
	for _, q := range x.queries() {
		q.next = begin
	}
	for {
		now := time.Now()
		var wake time.Time
		for _, q := range x.queries() {
			if err := x.step(q, now); err != nil {
				return err
			}
			if at, open := q.due(x.o, now); open && (wake.IsZero() || at.Before(wake)) {
				wake = at
			}
		}
		if wake.IsZero() {
			return ctx.Err()
		}
		if err := x.wire.setDeadline(wake); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := x.wire.receive(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		case !r.skip:
			x.handle(buf[:r.n], r, time.Now())
		}
	}
}

// step sends what is due of a family.
func (x *exchange) step(q *query, now time.Time) error {
	if !q.asked || !q.answered.IsZero() || len(q.sent) >= x.o.Tries || now.Before(q.next) {
		return nil
	}
	q.next = now.Add(x.o.wait(len(q.sent)))
	q.sent = append(q.sent, now)
	q.xids = append(q.xids, newXID())
	if q == &x.v4 {
		return x.ask4(now)
	}
	if q == &x.ra || !x.ra.asked {
		if err := x.askRA(); err != nil || q == &x.ra {
			return err
		}
	}
	return x.ask6(now)
}

// send counts a request. An interface that takes none is told of at the end.
func (x *exchange) send(p *datagram) error {
	err := x.wire.send(p.marshal())
	if errors.Is(err, errBusy) {
		x.busy = ErrDown // nothing else keeps a queue of one frame full
		return nil
	}
	if err == nil {
		x.res.Sent++
	}
	return err
}

func newXID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])
}

// elapsed is the time since the first try.
func (q *query) elapsed(now time.Time) time.Duration { return now.Sub(q.sent[0]) }

func (q *query) latency(try int, now time.Time) float64 {
	return float64(now.Sub(q.sent[try])) / float64(time.Millisecond)
}

func (q *query) xid() uint32 { return q.xids[len(q.xids)-1] }

func (x *exchange) packet(dst mac) *datagram {
	return &datagram{srcMAC: x.hw, dstMAC: dst, tag: newTag(x.o.VLAN, x.o.Priority), hops: hopsND, src: x.self}
}

func (x *exchange) ask4(now time.Time) error {
	p := x.packet(mac{255, 255, 255, 255, 255, 255})
	p.hops = 64
	p.src, p.dst = netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if x.o.Inform {
		p.src = x.o.Address
	}
	p.srcPort, p.dstPort = clientPort4, serverPort4
	p.payload = request4(x.o, x.hw, x.v4.xid(), uint16(x.v4.elapsed(now)/time.Second))
	return x.send(p)
}

func (x *exchange) ask6(now time.Time) error {
	p := x.packet(mac{0x33, 0x33, 0, 1, 0, 2})
	p.dst = netip.AddrFrom16([16]byte{0xff, 2, 13: 1, 15: 2}) // ff02::1:2
	p.srcPort, p.dstPort = clientPort6, serverPort6
	p.payload = request6(x.o, x.duid, x.hw, x.v6.xid(), uint16(x.v6.elapsed(now)/(10*time.Millisecond)))
	return x.send(p)
}

func (x *exchange) askRA() error {
	p := x.packet(mac{0x33, 0x33, 0, 0, 0, 2})
	p.dst = netip.IPv6LinkLocalAllRouters()
	p.icmp, p.payload = true, routerSolicit(x.hw)
	return x.send(p)
}

// handle takes one frame that came at now.
func (x *exchange) handle(frame []byte, r received, now time.Time) {
	p, err := parse(frame, r.tag, r.unsummed)
	switch {
	case errors.Is(err, errOther):
		return
	case p.srcMAC == x.hw:
		x.res.Looped = true
		return
	case err != nil:
		if p.tag.vlan() == x.o.VLAN {
			x.res.Damaged++
		}
		return
	}
	var kept bool
	switch {
	case p.icmp:
		kept = x.discovery(&p, now)
	case p.src.Is4() && p.dstPort == clientPort4 && x.v4.asked:
		kept = x.offer(&p, now)
	case !p.src.Is4() && p.dstPort == clientPort6 && x.v6.asked:
		kept = x.advertise(&p, now)
	}
	if kept && x.o.Answered != nil {
		x.judge()
		x.o.Answered(*x.res)
	}
}

// discovery takes a message of neighbour discovery.
func (x *exchange) discovery(p *datagram, now time.Time) (kept bool) {
	if p.tag.vlan() != x.o.VLAN || !x.v6.asked && !x.ra.asked {
		return false
	}
	if told := neighbourTell(p, x.self, x.hw); told != nil && x.tells < maxTells {
		x.tells++
		answer := x.packet(p.srcMAC)
		answer.dst = p.src
		answer.icmp, answer.payload = true, told
		_ = x.wire.send(answer.marshal()) // the neighbour asks again
		return false
	}
	var ra RA
	err := ra.parse(p)
	if !x.valid(&x.ra, err, now) {
		return false
	}
	if !x.fresh(len(x.res.Routers), p, "ra") {
		return false
	}
	q := &x.ra
	if !q.asked {
		q = &x.v6
	}
	ra.FromMAC, ra.LatencyMs = p.srcMAC.String(), q.latency(len(q.sent)-1, now)
	x.res.Routers = append(x.res.Routers, ra)
	return true
}

// offer takes a DHCPv4 message to a client.
func (x *exchange) offer(p *datagram, now time.Time) (kept bool) {
	try, err := answer4(p.payload, x.hw, x.v4.xids)
	if err != nil {
		x.res.Foreign++
		return false
	}
	if x.elsewhere(p) {
		return false
	}
	var o Offer
	err = o.parse(p.payload)
	if err == nil && o.Type != "nak" && (o.Type == "ack") != x.o.Inform {
		err = errMalformed // an ACK to a DISCOVER would be rapid commit, which was not asked for
	}
	if !x.valid(&x.v4, err, now) {
		return false
	}
	// What tells two answers apart: type, server, and the addresses of BOOTP.
	if !x.fresh(len(x.res.V4), p, o.Type+o.ServerID.String()+string(p.payload[bootpYours:bootpHardware])) {
		return false
	}
	o.From, o.FromMAC = p.src, p.srcMAC.String()
	o.Try, o.LatencyMs = try, x.v4.latency(try, now)
	x.res.V4 = append(x.res.V4, o)
	return true
}

// advertise takes a DHCPv6 message to a client.
func (x *exchange) advertise(p *datagram, now time.Time) (kept bool) {
	try, err := answer6(p.payload, x.v6.xids)
	if err != nil {
		x.res.Foreign++
		return false
	}
	if x.elsewhere(p) {
		return false
	}
	var a Advertise
	err = a.parse(p.payload, x.duid)
	if err == nil && (a.Type == "reply") != x.o.Inform {
		err = errMalformed
	}
	if !x.valid(&x.v6, err, now) {
		return false
	}
	if !x.fresh(len(x.res.V6), p, a.Type+a.ServerDUID) {
		return false
	}
	a.From, a.FromMAC = p.src, p.srcMAC.String()
	a.Try, a.LatencyMs = try, x.v6.latency(try, now)
	x.res.V6 = append(x.res.V6, a)
	return true
}

// elsewhere says whether an answer to us came in another VLAN than the one in
// which we asked, and notes it.
func (x *exchange) elsewhere(p *datagram) bool {
	vlan := p.tag.vlan()
	if vlan == x.o.VLAN {
		return false
	}
	if len(x.res.OtherVLANs) < 4 && !slices.Contains(x.res.OtherVLANs, vlan) {
		x.res.OtherVLANs = append(x.res.OtherVLANs, vlan)
	}
	return true
}

// valid counts what is wrong with an answer, and notes a good one.
func (x *exchange) valid(q *query, err error, now time.Time) bool {
	switch {
	case errors.Is(err, errForeign):
		if q != &x.ra { // where it is only another message
			x.res.Foreign++
		}
	case err != nil:
		x.res.Damaged++
		q.damaged = true
	case q.answered.IsZero():
		q.answered = now
	}
	return err == nil
}

// fresh says whether an answer from there that says so is to be kept: each once,
// in a list that is bounded.
func (x *exchange) fresh(kept int, p *datagram, what string) bool {
	key := string(p.srcMAC[:]) + p.src.String() + what
	if kept >= maxAnswers || slices.Contains(x.heard, key) {
		return false
	}
	x.heard = append(x.heard, key)
	return true
}

// judge sets the outcomes.
func (x *exchange) judge() {
	r := x.res
	r.V4Outcome, r.V6Outcome, r.RAOutcome = x.v4.unanswered(), x.v6.unanswered(), x.ra.unanswered()
	for i := range r.V4 {
		switch r.V4[i].Type {
		case "offer":
			r.V4Outcome = Offered
		case "ack":
			r.V4Outcome = Informed
		default:
			if !r.V4Outcome.good() {
				r.V4Outcome = Nak
			}
		}
	}
	if len(r.V6) > 0 {
		r.V6Outcome = x.judge6()
	}
	if x.ra.asked && len(r.Routers) > 0 {
		r.RAOutcome = Offered
	}
	r.Outcome = ""
	for _, o := range [3]Outcome{r.V4Outcome, r.V6Outcome, r.RAOutcome} {
		switch {
		case o == "":
		case r.Outcome == "":
			r.Outcome = o
		case o.good() != r.Outcome.good():
			r.Outcome = Partial
			return
		}
	}
}

func (o Outcome) good() bool { return o == Offered || o == Informed }

// unanswered is the outcome of a family from which nothing was kept.
func (q *query) unanswered() Outcome {
	switch {
	case !q.asked:
		return ""
	case q.damaged:
		return Malformed
	}
	return Silent
}

func (x *exchange) judge6() Outcome {
	if x.o.Inform {
		return Informed
	}
	addresses, prefixes := false, false
	for i := range x.res.V6 {
		addresses = addresses || len(x.res.V6[i].Addresses) > 0
		prefixes = prefixes || len(x.res.V6[i].Prefixes) > 0
	}
	switch {
	case prefixes, addresses && !x.o.PrefixDelegation:
		return Offered
	case addresses:
		return NoPrefix
	}
	return NoAddresses
}

func (m mac) String() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 17)
	for i, c := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

// failure translates what the kernel says of a socket whose interface changed.
func failure(err error) error {
	switch {
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EAGAIN):
		return errBusy
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return ErrNoInterface
	case errors.Is(err, unix.ENETDOWN):
		return ErrDown
	}
	return err
}
