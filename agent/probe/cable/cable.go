// Package cable says what can be known about the cable at a LAN port: what the
// two ends negotiated and could have, errors and flaps while it watches, and,
// where the driver of the port's PHY has it, the state of each pair by the
// kernel's cable test. It yields facts and names them; what an order makes of
// them is the acceptance's.
//
// The cable test takes the link down for seconds, so it is only done if asked
// for. It is unverified on hardware: no such PHY was at hand, and it is tested
// on messages made after the kernel's linux/ethtool_netlink.h.
package cable

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that callers may want to tell apart with errors.Is.
var (
	ErrNoInterface   = errors.New("no such interface")
	ErrInterfaceDown = errors.New("interface is switched off")
	ErrNotPermitted  = errors.New("not permitted")
	// ErrTestTimeout: the cable test was begun and did not end in time.
	ErrTestTimeout = errors.New("the cable test did not end")
)

// Outcome is the gravest thing that was found.
type Outcome string

// The outcomes, the gravest first. Those of pairs come from the cable test only.
const (
	Short    Outcome = "short"    // within a pair or between pairs
	Open     Outcome = "open"     // a pair ends before it should
	Mismatch Outcome = "mismatch" // of impedance: damage, or a cable of another kind
	// Unsteady: the link came, went or changed while it was watched.
	Unsteady   Outcome = "unsteady"
	NoLink     Outcome = "no_link"
	HalfDuplex Outcome = "half_duplex"
	CRCErrors  Outcome = "crc_errors" // they grew while it was watched
	// Downgraded: both ends offered more than they got. A pair is bad, or the
	// plug has four wires.
	Downgraded Outcome = "downgraded"
	// Unsupported: the driver does not say enough, such as what the other end
	// offered where the port could do more.
	Unsupported Outcome = "unsupported"
	OK          Outcome = "ok"
)

// Test is what became of the cable test.
type Test string

// The values of Result.Test.
const (
	TestNotAsked    Test = "not_asked"   // Options.Disturb is not set
	TestUnsupported Test = "unsupported" // by the kernel or by the PHY
	TestDone        Test = "done"
)

// Options say which cable. Interface is required.
type Options struct {
	Interface string        // the name of the port
	Disturb   bool          // allows the cable test, which takes the link down for seconds
	Watch     time.Duration // how long errors and flaps are counted; 2 s if zero
}

// The bounds of a run.
const (
	defaultWatch = 2 * time.Second
	maxWatch     = 10 * time.Minute
	// testWait bounds a cable test; PHYs take up to about five seconds.
	testWait = 12 * time.Second
	// backWait is how long the link may take to come back after it.
	backWait = 10 * time.Second
	// pulse is how often the port is looked at while waiting.
	pulse = 250 * time.Millisecond
)

func (o Options) normalise() Options {
	if o.Watch <= 0 {
		o.Watch = defaultWatch
	}
	o.Watch = min(o.Watch, maxWatch)
	return o
}

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o = o.normalise()
	d := o.Watch
	if o.Disturb {
		d += testWait + backWait
	}
	return d + 500*time.Millisecond
}

// Result is what was found. Numbers that the driver does not give are nil or 0.
type Result struct {
	Outcome   Outcome `json:"outcome"`
	Interface string  `json:"interface"`

	Carrier   bool   `json:"carrier"`
	SpeedMbps int    `json:"speed_mbps,omitempty"` // negotiated
	Duplex    string `json:"duplex,omitempty"`     // full or half
	Autoneg   bool   `json:"autoneg"`
	// LocalMaxMbps is the best the port offers, PeerMaxMbps the best the other
	// end has offered.
	LocalMaxMbps int `json:"local_max_mbps,omitempty"`
	PeerMaxMbps  int `json:"peer_max_mbps,omitempty"`

	WatchedS            float64 `json:"watched_s"`
	CRCErrors           *uint64 `json:"crc_errors,omitempty"`       // while watched
	CRCErrorsTotal      *uint64 `json:"crc_errors_total,omitempty"` // since the driver was loaded
	CarrierChanges      *uint64 `json:"carrier_changes,omitempty"`
	CarrierChangesTotal *uint64 `json:"carrier_changes_total,omitempty"`

	Test  Test   `json:"cable_test"`
	Pairs []Pair `json:"pairs,omitempty"` // by name
	// LinkBackMs is the time from the end of the cable test until the link was
	// back; nil if there was no link before, or it did not come back within
	// 10 s.
	LinkBackMs *float64 `json:"link_back_ms,omitempty"`
}

// Pair is the state of one pair by the cable test.
type Pair struct {
	Name string `json:"pair"` // A to D: in a plug after T568B the wires 1-2, 3-6, 4-5, 7-8
	Code Code   `json:"code"`
	// FaultM is the distance of the fault in metres, as far as the PHY can
	// tell; nil if it doesn't.
	FaultM *float64 `json:"fault_m,omitempty"`
}

// Code is the state of a pair.
type Code string

// The codes, as the kernel has them.
const (
	CodeOK         Code = "ok"
	CodeOpen       Code = "open"
	CodeSameShort  Code = "same_short"  // within the pair
	CodeCrossShort Code = "cross_short" // with another pair
	CodeMismatch   Code = "impedance_mismatch"
	CodeNoise      Code = "noise"      // too much of it to tell
	CodeUnresolved Code = "unresolved" // tested, and the PHY can't tell
	CodeUnknown    Code = "unknown"    // one this program doesn't know
)

// host is the machine, as far as the probe needs it.
type host struct {
	sys      string // where sysfs is
	settings func(name string) (settings, error)
	dial     func() (socket, error)
}

// Run looks at the port for o.Watch, then tests the cable if it may. It takes at
// most o.Duration. A cable test that was begun can't be stopped: if ctx ends
// meanwhile, the PHY ends it and the link comes back by itself.
//
// The error says that nothing could be measured, or not to the end; the result
// then holds what was found until then. It is compatible with ErrNoInterface,
// ErrInterfaceDown, ErrNotPermitted, ErrTestTimeout or ctx.Err().
func Run(ctx context.Context, o Options) (Result, error) {
	return host{sys: "/sys", settings: readSettings, dial: dial}.run(ctx, o)
}

func (h host) run(ctx context.Context, o Options) (Result, error) {
	o = o.normalise()
	res := Result{Interface: o.Interface, Outcome: Unsupported, Test: TestNotAsked}
	err := h.measure(ctx, o, &res)
	if err != nil && ctx.Err() != nil {
		return res, ctx.Err()
	}
	if err != nil {
		return res, fmt.Errorf("cannot look at the cable of %q: %w", o.Interface, err)
	}
	return res, nil
}

func (h host) measure(ctx context.Context, o Options, res *Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	before, err := h.read(o.Interface)
	if err != nil {
		return err
	}
	begin := time.Now()
	after := before
	for left := o.Watch; left > 0; left = o.Watch - time.Since(begin) {
		if err := pause(ctx, min(left, pulse)); err != nil {
			return err
		}
		if after, err = h.read(o.Interface); err != nil {
			return err
		}
	}
	res.WatchedS = time.Since(begin).Seconds()
	fill(res, before, after)
	res.Outcome = judge(before, after)
	if !o.Disturb {
		return nil
	}

	ctx2, cancel := context.WithTimeout(ctx, testWait)
	res.Pairs, err = h.test(ctx2, o.Interface)
	cancel()
	switch {
	case errors.Is(err, errUnsupported):
		res.Test = TestUnsupported
		return nil
	case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		err = ErrTestTimeout
	case err == nil:
		res.Test = TestDone
		if found := gravest(res.Pairs); found != "" {
			res.Outcome = found
		}
	}
	if after.carrier && ctx.Err() == nil {
		err = errors.Join(err, h.back(ctx, o.Interface, res))
	}
	return err
}

// back waits for the link to come back.
func (h host) back(ctx context.Context, name string, res *Result) error {
	begin := time.Now()
	for time.Since(begin) < backWait {
		p, err := h.read(name)
		if err != nil {
			return err
		}
		if p.carrier {
			ms := float64(time.Since(begin)) / float64(time.Millisecond)
			res.LinkBackMs = &ms
			return nil
		}
		if err := pause(ctx, pulse); err != nil {
			return err
		}
	}
	return nil
}

// gravest names the gravest state of the pairs, "" if none is bad.
func gravest(pairs []Pair) (o Outcome) {
	for _, p := range pairs {
		switch p.Code {
		case CodeSameShort, CodeCrossShort:
			return Short
		case CodeOpen:
			o = Open
		case CodeMismatch:
			if o == "" {
				o = Mismatch
			}
		case CodeOK, CodeNoise, CodeUnresolved, CodeUnknown:
		}
	}
	return o
}

// gigabit is full duplex whatever a driver says.
const gigabit = 1000

// judge names what two looks at a port show.
func judge(before, after port) Outcome {
	offered := min(after.localMax, after.peerMax) // 0 if one is unknown
	switch {
	case before.carrier != after.carrier, before.changes != after.changes, before.megabits != after.megabits:
		return Unsteady
	case !after.carrier:
		return NoLink
	case after.duplex == "half":
		return HalfDuplex
	case after.crcKnown && after.crc > before.crc:
		return CRCErrors
	case after.megabits == 0, after.duplex == "" && after.megabits < gigabit:
		return Unsupported
	case after.megabits < offered:
		return Downgraded
	case after.megabits < after.localMax && after.peerMax == 0, after.localMax == 0 && after.megabits < gigabit:
		return Unsupported
	}
	return OK
}

func fill(res *Result, before, after port) {
	res.Carrier, res.SpeedMbps, res.Duplex, res.Autoneg = after.carrier, after.megabits, after.duplex, after.autoneg
	res.LocalMaxMbps, res.PeerMaxMbps = after.localMax, after.peerMax
	if after.crcKnown {
		total := after.crc
		res.CRCErrorsTotal = &total
		if n := after.crc - before.crc; before.crcKnown && after.crc >= before.crc { // else it was reset
			res.CRCErrors = &n
		}
	}
	if after.changesKnown {
		total := after.changes
		res.CarrierChangesTotal = &total
		if n := after.changes - before.changes; before.changesKnown && after.changes >= before.changes {
			res.CarrierChanges = &n
		}
	}
}

// pause waits for d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
