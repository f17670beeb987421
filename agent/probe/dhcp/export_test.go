package dhcp

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
)

// What the tests from outside see of the inside.
type (
	Datagram = datagram
	MAC      = mac
	Tag      = tag
	Received = received
)

var (
	ErrOther     = errOther
	ErrFrame     = errFrame
	ErrForeign   = errForeign
	ErrMalformed = errMalformed
	ErrBusy      = errBusy

	NewTag        = newTag
	Parse         = parse
	NeighbourTell = neighbourTell
	LinkLocal     = linkLocal
	Answer4       = answer4
	Answer6       = answer6
)

// Marshal is marshal.
func (p *Datagram) Marshal() []byte { return p.marshal() }

// Packet makes a datagram of UDP, or of ICMPv6 if the ports are 0.
func Packet(srcMAC, dstMAC MAC, t Tag, src, dst netip.Addr, hops uint8, srcPort, dstPort uint16, payload []byte) *Datagram {
	return &Datagram{srcMAC, dstMAC, t, src, dst, hops, srcPort == 0, srcPort, dstPort, payload}
}

func (p *Datagram) Parts() (src, dst netip.Addr, srcPort, dstPort uint16, payload []byte) {
	return p.src, p.dst, p.srcPort, p.dstPort, p.payload
}

func (p *Datagram) Ethernet() (src, dst MAC, t Tag) { return p.srcMAC, p.dstMAC, p.tag }

func (t Tag) VLAN() uint16 { return t.vlan() }

// Frame says what was received: n bytes, with that tag taken out.
func Frame(n int, t Tag) Received { return received{n: n, tag: t} }

func ParseOffer(b []byte) (o Offer, err error) { err = o.parse(b); return o, err }

func ParseAdvertise(b, duid []byte) (a Advertise, err error) { err = a.parse(b, duid); return a, err }

func ParseRA(p *Datagram) (ra RA, err error) { err = ra.parse(p); return ra, err }

func Filter() []bpf.RawInstruction { return filter() }

// RunOn is Run on a wire of the test's own.
func RunOn(ctx context.Context, o Options, w FakeWire) (Result, error) {
	o = o.normalise()
	if err := o.check(); err != nil {
		return Result{}, err
	}
	res := Result{Interface: o.Interface, VLAN: o.VLAN}
	err := newExchange(&o, &res, outsideWire{w}).run(ctx)
	return res, err
}

// FakeWire is wire with exported names.
type FakeWire interface {
	Send(frame []byte) error
	Receive(b []byte) (Received, error)
	SetDeadline(t time.Time) error
	Wake()
}

type outsideWire struct{ w FakeWire }

func (o outsideWire) send(frame []byte) error            { return o.w.Send(frame) }
func (o outsideWire) receive(b []byte) (received, error) { return o.w.Receive(b) }
func (o outsideWire) setDeadline(t time.Time) error      { return o.w.SetDeadline(t) }
func (o outsideWire) wake()                              { o.w.Wake() }
func (o outsideWire) close()                             {}
