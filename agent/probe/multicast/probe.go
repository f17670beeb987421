package multicast

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"
)

// The bounds of lists in Result, and of groups that others were heard to have.
const (
	maxQueriers = 4
	maxForeign  = 16
	maxTheirs   = 64
)

// minQuiet is the shortest silence that counts as the end of a stream.
const minQuiet = 300 * time.Millisecond

// probe is one run.
type probe struct {
	o       *Options
	wire    wire
	member  member
	hostHas []netip.Addr // groups of this host
	theirs  []netip.Addr // groups of others
	buf     []byte
	begin   time.Time
	wake    time.Duration // the deadline of wire; times are counted from begin

	res   Result
	meter *meter
	spoke string // protocol of the last report from this host
}

func (p *probe) run(ctx context.Context) (Result, error) {
	// A receive that waits ends with ctx.
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = p.wire.setDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-over
		}
	}()

	err := p.measure(ctx)
	switch p.res.Mode {
	case ModeFrame:
		p.res.Protocol = p.member.protocol()
	case ModeKernel:
		p.res.Protocol = p.spoke
	case ModeAuto, ModeListen:
	}
	switch r := &p.res; {
	case r.Stalls > 0:
		r.Outcome = Intermittent
	case r.Packets > 0:
		r.Outcome = Streaming
	case len(r.Queriers) > 0:
		r.Outcome = NoStream
	default:
		r.Outcome = NoQuerier
	}
	return p.res, err
}

func (p *probe) now() time.Duration { return time.Since(p.begin) }

func (p *probe) measure(ctx context.Context) error {
	p.begin = time.Now()
	p.meter = newMeter(p.o)
	if err := p.listen(ctx, p.o.Before, nil); err != nil {
		return err
	}
	flows := p.meter.packets > 0
	if flows || p.res.Member == MemberOther && p.res.Mode == ModeKernel {
		// Another member's: the kernel couldn't be kept from leaving.
		p.res.Mode, p.res.AlreadyFlowing = ModeListen, flows
		if p.res.Member == "" {
			p.res.Member = MemberOther
		}
		err := p.stream(ctx, p.now())
		p.fill()
		return err
	}

	p.wire.drops() // of before
	p.meter = newMeter(p.o)
	joined := p.now()
	if err := p.member.join(joined); err != nil {
		return err
	}
	err := p.stream(ctx, joined)
	if p.meter.packets > 0 {
		ms := millis(p.meter.first - joined)
		p.res.JoinMs = &ms
	}
	p.fill()

	silent := p.res.Member != ""
	left := p.now()
	leaveErr := p.member.leave(silent)
	if silent || leaveErr != nil {
		return errors.Join(err, leaveErr)
	}
	p.res.Leave = LeaveUnknown
	if err == nil {
		err = p.watchLeave(ctx, left)
	}
	return err
}

func (p *probe) fill() {
	p.res.Dropped = p.wire.drops()
	p.meter.fill(&p.res, p.now())
}

// stream waits for the stream, and listens to it.
func (p *probe) stream(ctx context.Context, begin time.Duration) error {
	come := func() bool { return p.meter.packets > 0 }
	if err := p.listen(ctx, begin+p.o.Wait, come); err != nil || !come() {
		return err
	}
	p.member.flowing()
	return p.listen(ctx, p.meter.last+p.o.Listen, nil)
}

// watchLeave looks whether the stream ends.
func (p *probe) watchLeave(ctx context.Context, left time.Duration) error {
	quiet := min(max(2*p.meter.gap, minQuiet), p.o.Stall)
	if p.meter.packets == 0 || left-p.meter.last >= quiet {
		// A querier asks at once whether there are other members.
		err := p.listen(ctx, left+min(time.Second, p.o.LeaveWait), func() bool { return len(p.res.Queriers) > 0 })
		if err == nil {
			p.res.Leave = LeaveNothing
		}
		return err
	}
	p.meter = p.meter.anew()
	last, end := left, left+p.o.LeaveWait
	for {
		until, seen := min(last+quiet, end), p.meter.packets
		if err := p.listen(ctx, until, func() bool { return p.meter.packets > seen }); err != nil {
			return err
		}
		switch {
		case p.meter.packets > seen:
			last = p.meter.last
		case until == end:
			p.res.Leave = LeaveFlowing
			return nil
		default:
			ms := millis(last - left)
			p.res.Leave, p.res.LeaveMs = LeaveStopped, &ms
			return nil
		}
	}
}

// listen takes what comes until a time, or until done says so.
func (p *probe) listen(ctx context.Context, until time.Duration, done func() bool) error {
	for done == nil || !done() {
		now := p.now()
		if now >= until {
			return ctx.Err()
		}
		wake := until
		if due := p.member.due(); due != never && due < wake {
			if due <= now {
				if err := p.member.tick(now); err != nil {
					return err
				}
				continue
			}
			wake = due
		}
		if wake != p.wake {
			if err := p.wire.setDeadline(p.begin.Add(wake)); err != nil {
				return err
			}
			p.wake = wake
		}
		// After the deadline, lest it outlive the one of ctx's end.
		if err := ctx.Err(); err != nil {
			return err
		}
		n, own, err := p.wire.receive(p.buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		default:
			p.take(p.now(), p.buf[:n], own)
		}
	}
	return nil
}

// take looks at one packet.
func (p *probe) take(now time.Duration, b []byte, own bool) {
	var d datagram
	if !d.parse(b) {
		p.meter.malformed++
		return
	}
	if d.proto == protoUDP {
		if d.dst == p.o.Group {
			p.meter.take(now, d.src, d.payload)
		} else {
			p.foreign(d.dst)
		}
		return
	}
	var c control
	if !c.read(&d) {
		return
	}
	name := protocol(d.src.Is4(), c.version)
	switch {
	case own:
		if c.kind == report && slices.Contains(c.members, p.o.Group) {
			p.spoke = name
		}
	case c.kind == query:
		p.querier(d.src, name)
		p.member.heard(now, &c)
	}
	if own || c.kind != report {
		return
	}
	for _, g := range c.members {
		if g == p.o.Group && p.res.Member == "" {
			p.res.Member = MemberOther
		}
		if len(p.theirs) < maxTheirs && !slices.Contains(p.theirs, g) {
			p.theirs = append(p.theirs, g)
		}
	}
}

func (p *probe) querier(addr netip.Addr, protocol string) {
	for i := range p.res.Queriers {
		if q := &p.res.Queriers[i]; q.Address == addr {
			q.Protocol = protocol
			q.Queries++
			return
		}
	}
	if len(p.res.Queriers) < maxQueriers {
		p.res.Queriers = append(p.res.Queriers, Querier{Address: addr, Protocol: protocol, Queries: 1})
	}
}

func (p *probe) foreign(group netip.Addr) {
	if local(group) || slices.Contains(p.hostHas, group) || slices.Contains(p.theirs, group) {
		return
	}
	p.res.ForeignPackets++
	for i := range p.res.Foreign {
		if f := &p.res.Foreign[i]; f.Group == group {
			f.Packets++
			return
		}
	}
	if len(p.res.Foreign) < maxForeign {
		p.res.Foreign = append(p.res.Foreign, Foreign{Group: group, Packets: 1})
	}
}

// local reports whether a group is one of those that every network has, and
// that are not worth snooping: of a link, or of service discovery.
func local(group netip.Addr) bool {
	if group.IsLinkLocalMulticast() || group.IsInterfaceLocalMulticast() {
		return true
	}
	if group.Is4() {
		a := group.As4()
		return a[0] == 239 && a[1] == 255 && a[2] == 255 && a[3] >= 250
	}
	a := group.As16()
	a[1] = 0
	return a == [16]byte{0xff, 15: 0x0c} || a == [16]byte{0xff, 15: 0xfb}
}
