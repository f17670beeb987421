// Package pppoe dials a PPPoE session in user space, to see how far a line
// gets and what the servers say: discovery, LCP, authentication by PAP or
// CHAP-MD5, addresses by IPCP and IPv6CP, a few echoes, and an orderly end. It
// carries no traffic, needs no PPP in the kernel, and leaves the interface as
// it was. It judges nothing.
//
// Frames are sent and received on an AF_PACKET socket; a VLAN tag can be in
// the frame, so that no VLAN device need exist. Where a session is up, only
// Options.DiscoveryOnly does no harm: a second session may cost the customer
// the first.
//
// A network adapter that filters VLANs in hardware (rx-vlan-filter) drops the
// answers to tagged frames unless somebody has made a device for that VLAN or
// switched the filter off. Then probe on the VLAN's device.
package pppoe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// What errors.Is finds in errors of Dial: nothing was measured, or the
// measurement was cut off.
var (
	ErrOptions       = errors.New("bad options")
	ErrNoInterface   = errors.New("no such interface") // also one that went away
	ErrInterfaceDown = errors.New("interface is down") // also one that was set down
	ErrNotEthernet   = errors.New("not an Ethernet interface")
	ErrNotPermitted  = errors.New("no permission for packet sockets")
)

// Options say what to dial. Interface is needed; the other zero values are
// sensible.
type Options struct {
	Interface string
	VLAN      uint16 // 1 to 4094: a 802.1Q tag in the frame; 0: untagged
	Priority  uint8  // of the tag, 0 to 7

	ServiceName string // "": any
	ACName      string // "": whoever answers first

	Username string // at most 255 bytes, as the password
	Password Password

	// MaxPayload is asked for by PPP-Max-Payload (RFC 4638), and is the MRU
	// if the access concentrator agrees. It is cut to what the interface's
	// MTU allows; below 1493 it isn't asked for.
	MaxPayload uint16
	MRU        uint16 // 128 to 1492; 1492 if zero

	// DiscoveryOnly sends PADIs and nothing else, and takes no offer.
	DiscoveryOnly bool
	// Alias asks from another address than the interface's: one that is made of
	// it and locally administered. It goes with DiscoveryOnly alone, and shows
	// whether an access concentrator ignores this one.
	Alias bool
	IPv6  bool // negotiate IPv6CP too

	// Attempts is how many authentications there may be in all, 1 or 2; 1 if
	// zero. There is a second one only where the first got no answer.
	Attempts int
	// Echoes is how many LCP echoes are sent once up; 3 if zero, none if
	// negative. Two more are sent where there is no answer at the end.
	Echoes       int
	EchoInterval time.Duration // 200 ms if zero
	// MaxDuration bounds everything but the end of the session, which takes
	// 0.6 s at most; one minute for each attempt if zero.
	MaxDuration time.Duration
}

// How long things take. The times between repetitions are short beside those
// of routers, since somebody is waiting.
const (
	discoveryTime = 5 * time.Second
	// setupTime is longer: a BRAS that made an offer is there, and may have to
	// make room for a session first.
	setupTime = 10 * time.Second
	// collectTime is how long after the first offer others are waited for.
	collectTime = 200 * time.Millisecond
	// errorTime is how long after a PADO with an error others may still come:
	// another access concentrator may have been told to answer late.
	errorTime = time.Second
	// lcpTime is as long as a busy server may take to start a program for the
	// session; nobody is asked for anything meanwhile.
	lcpTime = 20 * time.Second
	// authTime is longer than any AAA takes whose BRAS still waits for it.
	authTime      = 25 * time.Second
	challengeTime = 10 * time.Second
	// authRepeat is when an unanswered request is repeated, once.
	authRepeat  = 6 * time.Second
	networkTime = 10 * time.Second
	// ipv6Time is how long IPv6CP may take beyond IPCP.
	ipv6Time = 3 * time.Second
	// echoTime is how long the last echo is waited for. Before a peer is said
	// to be dead, it is asked deadEchoes times more.
	echoTime      = time.Second
	deadEchoes    = 2
	terminateTime = 300 * time.Millisecond
	// cancelledTime is what remains of the above after a cancellation.
	cancelledTime = 40 * time.Millisecond
)

const (
	maxEchoes      = 100
	maxAuthSends   = 2  // authentication messages per Dial, repetitions included
	maxConfigure   = 10 // Configure-Requests, as Max-Configure of RFC 1661
	maxRefusals    = 10 // of the peer's Configure-Requests
	maxRejects     = 16 // Code-Rejects and Protocol-Rejects
	maxReplies     = 64 // answers to what the peer sends of its own accord
	maxOffers      = 16
	maxLate        = 64 // frames that are read after the time was up
	maxEarly       = 4  // frames of a session before its PADS
	maxErrors      = 16
	maxText        = 512 // bytes of a text that is kept
	defaultMRU     = 1492
	defaultPeerMRU = 1500 // of a peer that names none (RFC 1661, 6.1)
)

func (o Options) normalise() (Options, error) {
	bad := ""
	switch {
	case o.Interface == "":
		bad = "no interface is given"
	case o.VLAN > 4094:
		bad = "the VLAN is not between 1 and 4094"
	case o.Priority > 7:
		bad = "the priority is above 7"
	case len(o.Username) > 255 || len(o.Password) > 255:
		bad = "user name or password is longer than 255 bytes"
	case len(o.ServiceName) > 255 || len(o.ACName) > 255:
		bad = "service or access concentrator name is longer than 255 bytes"
	case o.MRU != 0 && o.MRU < 128 || o.MRU > defaultMRU:
		bad = "the MRU is not between 128 and 1492"
	case o.Attempts < 0 || o.Attempts > 2:
		bad = "the attempts are not 1 or 2"
	case o.Echoes > maxEchoes:
		bad = "more than 100 echoes"
	case o.Alias && !o.DiscoveryOnly:
		bad = "a session from another address"
	case o.EchoInterval < 0 || o.MaxDuration < 0:
		bad = "a negative time"
	}
	if bad != "" {
		return o, fmt.Errorf("%w: %s", ErrOptions, bad)
	}
	if o.MRU == 0 {
		o.MRU = defaultMRU
	}
	if o.MaxPayload <= defaultMRU {
		o.MaxPayload = 0
	}
	if o.Attempts == 0 {
		o.Attempts = 1
	}
	if o.Echoes == 0 {
		o.Echoes = 3
	}
	if o.EchoInterval == 0 {
		o.EchoInterval = 200 * time.Millisecond
	}
	o.EchoInterval = max(o.EchoInterval, 10*time.Millisecond)
	if o.MaxDuration == 0 {
		o.MaxDuration = time.Duration(o.Attempts) * time.Minute
	}
	return o, nil
}

// Duration returns the longest time that a dial with these options takes.
func (o Options) Duration() time.Duration {
	o, err := o.normalise()
	switch {
	case err != nil:
		return 0
	case o.DiscoveryOnly:
		return min(o.MaxDuration, discoveryTime+collectTime)
	}
	return o.MaxDuration + time.Duration(o.Attempts)*2*terminateTime
}

// Dial dials once and ends the session again. What came of it, success or
// not, is in the result; the error says why there is none, or only a part: it
// is compatible with ErrOptions, ErrNoInterface, ErrInterfaceDown,
// ErrNotEthernet, ErrNotPermitted, or ctx.Err(). A session that was opened is
// closed in every case, while there is an interface to do it by.
func Dial(ctx context.Context, o Options) (Result, error) {
	o, err := o.normalise()
	if err != nil {
		return Result{}, fmt.Errorf("cannot dial: %w", err)
	}
	l, err := openSocket(o.Interface, o.VLAN, o.Alias)
	if err != nil {
		return Result{Interface: o.Interface, VLAN: o.VLAN}, fmt.Errorf("cannot dial on %s: %w", o.Interface, err)
	}
	r, err := dial(ctx, o, l)
	if err != nil {
		err = fmt.Errorf("cannot dial on %s: %w", o.Interface, err)
	}
	return r, err
}

// link is where frames go and come from.
type link interface {
	// receive waits for a frame and puts it into b. The tag is the VLAN tag
	// (its TCI) that came beside the frame, not in it, and tagged says that
	// there was one. After close, receive returns an error.
	receive(b []byte) (n int, tag uint16, tagged bool, err error)
	send(frame []byte) error
	// admit lets session frames from the given address pass; until then, only
	// discovery frames do.
	admit(ac mac) error
	close() error
	hardware() (address mac, mtu int)
}

// dial runs everything on l, and closes it.
func dial(ctx context.Context, o Options, l link) (Result, error) {
	d := &dialer{
		o: o, link: l,
		began:  time.Now(),
		frames: make(chan *frame, 32), stop: make(chan struct{}), ended: make(chan struct{}),
		result: Result{Interface: o.Interface, VLAN: o.VLAN},
	}
	var mtu int
	d.own, mtu = l.hardware()
	if limit := mtu - headerLen; limit < int(d.o.MaxPayload) {
		d.o.MaxPayload = 0
		if limit > defaultMRU {
			d.o.MaxPayload = uint16(limit)
		}
	}
	rand.Read(d.uniq[:])
	go d.read()
	err := d.run(ctx)
	close(d.stop)
	if closeErr := l.close(); err == nil && closeErr != nil {
		err = closeErr
	}
	<-d.ended
	d.result.TotalMs = millis(d.now())
	return d.result, err
}

// run makes the attempts.
func (d *dialer) run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		outcome, err := d.attempt(ctx)
		if err != nil {
			return err
		}
		d.result.Outcome = outcome
		if outcome != AuthNoAnswer || attempt >= d.o.Attempts || d.sends == 0 || d.sends >= maxAuthSends || d.o.MaxDuration-d.now() < time.Second {
			return nil
		}
		d.result.again()
	}
}

// attempt runs one discovery, and what follows.
func (d *dialer) attempt(ctx context.Context) (Outcome, error) {
	chosen, outcome, err := d.discover(ctx)
	if err != nil || chosen == nil {
		return outcome, err
	}
	s, outcome, err := d.open(ctx, chosen)
	if err != nil || s == nil {
		return outcome, err
	}
	outcome, err = s.run(ctx)
	s.terminate(ctx, err)
	return outcome, err
}

// millis is out of line, as append16: without floating point in hardware it
// takes room.
//
//go:noinline
func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
