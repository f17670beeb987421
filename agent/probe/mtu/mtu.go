// Package mtu finds the largest packet that passes to an address and back, and
// whether what is larger is refused with a word (ICMP "fragmentation needed",
// "packet too big") or vanishes: a black hole. A transfer by TCP shows the
// other kind, in which a server's full segments never arrive. It resolves no
// names and judges nothing.
package mtu

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What errors.Is finds in the error of a Run, beside ctx.Err().
var (
	// ErrNoInterface: there is no interface of that name, or it went away.
	ErrNoInterface = errors.New("no such interface")
	// ErrNotPermitted: the process may open no ICMP socket, or not bind it.
	ErrNotPermitted = errors.New("not permitted")
)

// Options say what to measure. Target is required.
type Options struct {
	Target netip.Addr
	// Interface is the one to send from, whatever the routes say; "": as they
	// say. It is also the zone of a link-local target that has none.
	Interface string
	// Expected is the path MTU that is good, in bytes of IP packet; the
	// interface's if zero.
	Expected int
	// Wait is how long a reply may take at most; 1 s if zero. Once replies have
	// shown the round-trip time, a multiple of that is enough.
	Wait time.Duration
	// Port is that of a web server on Target, for the transfer by TCP; 0:
	// none. Host and Path are asked for: Target and "/" if empty. What is
	// there should be some full packets long.
	Port       uint16
	Host, Path string
	// Stall is how long a transfer may pause; 2 s if zero.
	Stall time.Duration
	// Timeout bounds a run; 15 s if zero.
	Timeout time.Duration
}

func (o Options) normalise() Options {
	positive := func(d *time.Duration, orElse time.Duration) {
		if *d <= 0 {
			*d = orElse
		}
	}
	positive(&o.Wait, time.Second)
	positive(&o.Stall, 2*time.Second)
	positive(&o.Timeout, 15*time.Second)
	o.Target = o.Target.Unmap()
	if o.Host == "" {
		o.Host = o.Target.WithZone("").String()
		if !o.Target.Is4() {
			o.Host = "[" + o.Host + "]"
		}
	}
	if o.Path == "" {
		o.Path = "/"
	}
	return o
}

// Duration returns the longest time that a run takes.
func (o Options) Duration() time.Duration { return o.normalise().Timeout }

// Outcome is what a run shows, in a word: the worst of echo and transfer.
type Outcome string

// The outcomes.
const (
	OK           Outcome = "ok"             // what is expected passes
	Reduced      Outcome = "reduced"        // less passes, and a router, or the interface's MTU, tells so
	BlackHole    Outcome = "black_hole"     // less passes, and what is larger vanishes
	MSSBlackHole Outcome = "mss_black_hole" // a transfer stalls in full segments, and works in small ones
	NoReply      Outcome = "no_reply"       // not even a small request is answered
	Unreachable  Outcome = "unreachable"    // the kernel has no route, or a router says so
)

// Probe is one size that was tried.
type Probe struct {
	Size     int  `json:"size"` // of the IP packet, in bytes
	Sent     int  `json:"sent"`
	Answered bool `json:"answered"`
	// Refused says that a router sent an error instead, ToldMTU what it told.
	Refused bool `json:"refused,omitempty"`
	ToldMTU int  `json:"told_mtu,omitempty"`
}

// Result is what a run measured. All sizes are of IP packets, in bytes.
type Result struct {
	Outcome      Outcome    `json:"outcome"`
	Target       netip.Addr `json:"target"`
	Mode         string     `json:"mode"` // of the ICMP socket: "raw" or "datagram"
	InterfaceMTU int        `json:"interface_mtu"`
	ExpectedMTU  int        `json:"expected_mtu"`
	// PathMTU is the largest size that was answered; 0 if none was.
	PathMTU int `json:"path_mtu"`
	// ToldMTU is the least that a router told, ToldBy that router.
	ToldMTU int        `json:"told_mtu,omitempty"`
	ToldBy  netip.Addr `json:"told_by,omitzero"`
	// RTTMs is the longest round-trip time of those that were answered.
	RTTMs  float64 `json:"rtt_ms,omitempty"`
	Probes []Probe `json:"probes,omitempty"` // in the order of trying
	// Error is the text of why the target is unreachable.
	Error string `json:"error,omitempty"`

	TCP       *Transfer `json:"tcp,omitempty"` // nil if not asked for
	DurationS float64   `json:"duration_s"`
}

// Run measures. That nothing passes is an Outcome. The error is compatible with
// ErrNoInterface, ErrNotPermitted or ctx.Err().
//
// The echo comes back in the size it went, so its path MTU is that of both
// directions, unless a router on the way back may fragment (IPv4). The transfer
// shows the way back alone.
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.normalise()
	res := Result{Target: o.Target}
	err := res.run(ctx, o)
	if err != nil {
		return res, fmt.Errorf("cannot measure the path MTU to %s: %w", o.Target, err)
	}
	return res, nil
}

func (r *Result) run(ctx context.Context, o Options) error {
	begin := time.Now()
	if a := o.Target; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return errors.New("not the address of a host")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	watched, stop, err := watch(ctx, o.Interface)
	if err != nil {
		return err
	}
	defer stop()
	limited, cancel := context.WithTimeout(watched, o.Timeout)
	defer cancel()

	err = r.echo(limited, o)
	if err == nil && o.Port != 0 && r.Outcome != Unreachable {
		r.TCP = &Transfer{}
		if err = r.TCP.run(limited, o); err == nil && r.TCP.Outcome == TransferBlackHole {
			r.Outcome = MSSBlackHole
		}
	}
	r.DurationS = time.Since(begin).Seconds()
	if watched.Err() != nil {
		return context.Cause(watched)
	}
	return err
}

// echo searches by echo requests, and sets the outcome they show.
func (r *Result) echo(ctx context.Context, o Options) error {
	s, err := open(o.Target, o.Interface)
	if err != nil {
		return err
	}
	defer s.close()
	e := &echoes{socket: s, wait: o.Wait, res: r}
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails
	e.id, e.tok = binary.BigEndian.Uint16(random[:]), token(random[2:])
	r.Mode = "datagram"
	if s.raw {
		r.Mode = "raw"
	}
	largest, err := e.interfaceMTU()
	if err != nil {
		return r.unreachable(err)
	}
	r.InterfaceMTU, r.ExpectedMTU = largest, o.Expected
	if o.Expected <= 0 {
		r.ExpectedMTU = largest
	}
	e.search = newSearch(e.header()+smallest, largest)
	for sizes := e.search.next(r.ExpectedMTU); len(sizes) > 0; sizes = e.search.next() {
		if err := e.try(ctx, sizes); err != nil {
			return r.unreachable(err)
		}
	}
	// Those that larger ones made needless.
	r.Probes = slices.DeleteFunc(r.Probes, func(p Probe) bool { return p.Sent == 0 })
	r.PathMTU, r.ToldMTU, r.ToldBy = e.search.good, e.search.told, e.search.toldBy
	r.RTTMs = float64(e.rtt) / float64(time.Millisecond)
	switch {
	case r.PathMTU == 0 && r.Error != "":
		r.Outcome = Unreachable
	case r.PathMTU == 0:
		r.Outcome = NoReply
	case r.PathMTU >= r.ExpectedMTU:
		r.Outcome = OK
	case r.PathMTU == r.InterfaceMTU, e.search.explained():
		r.Outcome = Reduced
	default:
		r.Outcome = BlackHole
	}
	return nil
}

// unreachable turns an error of sending into an outcome, if it says that there
// is no way to the target.
func (r *Result) unreachable(err error) error {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETDOWN),
		errors.Is(err, unix.EACCES): // a route that says "prohibit"
		r.Outcome, r.Error = Unreachable, err.Error()
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	return err
}
