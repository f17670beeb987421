package multicast_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/probe/multicast"
)

// port is a wire in a synctest bubble.
type port struct {
	multicast.Wire
	mu       sync.Mutex
	packets  chan arrived
	deadline time.Time
	changed  chan struct{}
	told     []string // with the milliseconds since it was made
	made     time.Time
	sent     func(what string) error // nil means fine
}

type arrived struct {
	b   []byte
	own bool
	err error
}

func newPort() *port {
	p := &port{packets: make(chan arrived, 1000), changed: make(chan struct{}, 1), made: time.Now()}
	p.Receive, p.SetDeadline = p.receive, p.bound
	p.Dropped = func() uint32 { return 0 }
	p.Send = func(b []byte) error {
		what := multicast.Told(b[14:])
		if p.sent != nil {
			if err := p.sent(what); err != nil {
				return err
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.told = append(p.told, what)
		return nil
	}
	return p
}

func (p *port) bound(t time.Time) error {
	p.mu.Lock()
	p.deadline = t
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
	return nil
}

func (p *port) receive(b []byte) (int, bool, error) {
	for {
		p.mu.Lock()
		left := time.Until(p.deadline)
		p.mu.Unlock()
		if left <= 0 {
			return 0, false, os.ErrDeadlineExceeded
		}
		select {
		case a := <-p.packets:
			return copy(b, a.b), a.own, a.err
		case <-p.changed:
		case <-time.After(left):
		}
	}
}

// all returns what was told, and in order.
func (p *port) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.told, ", ")
}

var (
	group   = netip.MustParseAddr("239.1.2.3")
	sender  = netip.MustParseAddr("10.9.9.9")
	queryV2 = igmp("192.0.2.1", "224.0.0.1", 0x11, 10, 0, 0, 0, 0, 0, 0)
	queryV3 = igmp("192.0.2.2", "224.0.0.1", 0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0)
)

// stream sends n packets, one each interval.
func (p *port) stream(from, n int, interval time.Duration) {
	for i := range n {
		p.packets <- arrived{b: udpPacket(sender, group, 5000, rtpPayload(from+i))}
		time.Sleep(interval)
	}
}

// play runs the probe against a script.
func play(t *testing.T, o multicast.Options, script func(p *port)) (res multicast.Result, p *port, err error) {
	t.Helper()
	o.Interface = "x"
	if !o.Group.IsValid() {
		o.Group = group
	}
	synctest.Test(t, func(t *testing.T) {
		p = newPort()
		var wg sync.WaitGroup
		if script != nil {
			wg.Go(func() { script(p) })
		}
		res, err = multicast.RunOn(t.Context(), &p.Wire, o)
		if took := time.Since(p.made); took > o.Duration() {
			t.Errorf("took %v, more than %v", took, o.Duration())
		}
		wg.Wait()
	})
	return res, p, err
}

func TestFallsBackToTheQueriersVersion(t *testing.T) {
	res, p, err := play(t, multicast.Options{}, func(p *port) {
		time.Sleep(time.Second) // joined half a second ago
		p.packets <- arrived{b: queryV2}
		p.stream(1, 10, 10*time.Millisecond)
	})
	if err != nil || res.Protocol != "igmpv2" || res.Packets != 10 || len(res.Queriers) != 1 || res.Queriers[0].Protocol != "igmpv2" {
		t.Errorf("%+v, %v", res, err)
	}
	if all := p.all(); !strings.HasPrefix(all, "22/4 239.1.2.3, ") || !strings.HasSuffix(all, "16 239.1.2.3, 17 239.1.2.3, 17 239.1.2.3") {
		t.Errorf("told %s", all)
	}
	// One that is asked for stays.
	res, p, err = play(t, multicast.Options{Version: 3}, func(p *port) { p.packets <- arrived{b: queryV2} })
	if err != nil || res.Protocol != "igmpv3" || res.Outcome != multicast.NoStream || strings.Contains(p.all(), "16 ") {
		t.Errorf("%+v, %v, told %s", res, err, p.all())
	}
}

func TestTriesTheOlderVersionWhenNothingComes(t *testing.T) {
	res, p, err := play(t, multicast.Options{}, func(p *port) {
		time.Sleep(2 * time.Second) // 0.5 s before and 1.5 s after the join
		p.stream(1, 10, 10*time.Millisecond)
	})
	if err != nil || res.Protocol != "igmpv2" || res.Packets != 10 || res.JoinMs == nil || *res.JoinMs != 1500 {
		t.Errorf("%+v, %v", res, err)
	}
	want := "22/4 239.1.2.3, 22/4 239.1.2.3, 16 239.1.2.3, 22/3 239.1.2.3, 17 239.1.2.3, 22/3 239.1.2.3, 17 239.1.2.3"
	if p.all() != want {
		t.Errorf("told %s", p.all())
	}
	// Not if the querier is known to speak the newer one, nor for a source.
	for _, o := range []multicast.Options{{}, {Group: netip.MustParseAddr("232.1.2.3"), Source: sender}} {
		_, p, _ = play(t, o, func(p *port) {
			if !o.Source.IsValid() {
				p.packets <- arrived{b: queryV3}
			}
		})
		if strings.Contains(p.all(), "16 ") || strings.Contains(p.all(), "17 ") {
			t.Errorf("told %s", p.all())
		}
	}
}

func TestOldestQuerier(t *testing.T) {
	res, p, err := play(t, multicast.Options{}, func(p *port) {
		p.packets <- arrived{b: igmp("192.0.2.1", "224.0.0.1", 0x11, 0, 0, 0, 0, 0, 0, 0)}
	})
	if err != nil || res.Protocol != "igmpv1" || p.all() != "12 239.1.2.3, 12 239.1.2.3" {
		t.Errorf("%+v, %v, told %s", res, err, p.all())
	}
}

func TestAnswersQueries(t *testing.T) {
	for _, tt := range []struct {
		query []byte
		want  int
	}{
		{queryV3, 1},
		{igmp("192.0.2.2", "239.1.2.3", 0x11, 10, 0, 0, 239, 1, 2, 3, 2, 125, 0, 0), 1},
		{igmp("192.0.2.2", "239.1.2.4", 0x11, 10, 0, 0, 239, 1, 2, 4, 2, 125, 0, 0), 0},
	} {
		_, _, err := play(t, multicast.Options{Listen: 5 * time.Second}, func(p *port) {
			time.Sleep(600 * time.Millisecond)
			p.stream(1, 10, 10*time.Millisecond)
			p.packets <- arrived{b: tt.query}
			time.Sleep(1100 * time.Millisecond)
			if got := strings.Count(p.all(), "22/2 239.1.2.3"); got != tt.want {
				t.Errorf("answered %d times: %s", got, p.all())
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestStallIsIntermittent(t *testing.T) {
	res, _, err := play(t, multicast.Options{}, func(p *port) {
		time.Sleep(600 * time.Millisecond)
		p.stream(1, 50, 10*time.Millisecond)
		time.Sleep(1200 * time.Millisecond)
		p.stream(51, 400, 10*time.Millisecond)
	})
	if err != nil || res.Outcome != multicast.Intermittent || res.Stalls != 1 || res.LongestGapMs < 1200 || res.LongestGapMs > 1220 || *res.LossRatio != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	// It ends before the listening does.
	res, _, err = play(t, multicast.Options{}, func(p *port) {
		time.Sleep(600 * time.Millisecond)
		p.stream(1, 50, 10*time.Millisecond)
	})
	if err != nil || res.Outcome != multicast.Intermittent || res.Leave != multicast.LeaveNothing {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestStreamThatGoesOnAfterTheLeave(t *testing.T) {
	res, p, err := play(t, multicast.Options{}, func(p *port) {
		time.Sleep(600 * time.Millisecond)
		p.stream(1, 900, 10*time.Millisecond)
	})
	if err != nil || res.Outcome != multicast.Streaming || res.Leave != multicast.LeaveFlowing || res.LeaveMs != nil {
		t.Errorf("%+v, %v", res, err)
	}
	// What came after the leave isn't measured.
	if res.ListenedS != 3 || res.Packets < 295 || res.Packets > 305 || res.RateMbps < 1.05 || res.RateMbps > 1.08 {
		t.Errorf("%d packets in %g s, %g Mbit/s", res.Packets, res.ListenedS, res.RateMbps)
	}
	if !strings.HasSuffix(p.all(), "22/3 239.1.2.3, 22/3 239.1.2.3") {
		t.Errorf("told %s", p.all())
	}
}

func TestOnlyTheStreamAskedForCounts(t *testing.T) {
	other := netip.MustParseAddr("10.9.9.8")
	res, _, err := play(t, multicast.Options{Port: 5000, Source: sender, Group: netip.MustParseAddr("232.1.2.3")}, func(p *port) {
		time.Sleep(600 * time.Millisecond)
		to := netip.MustParseAddr("232.1.2.3")
		for i := range 10 {
			p.packets <- arrived{b: udpPacket(other, to, 5000, rtpPayload(i))}
			p.packets <- arrived{b: udpPacket(sender, to, 5002, rtpPayload(i))}
			p.packets <- arrived{b: udpPacket(sender, to, 5000, rtpPayload(i))}
			p.packets <- arrived{b: udpPacket(sender, to, 5000, nil)[:24]}
		}
	})
	if err != nil || res.Packets != 10 || res.OtherPackets != 20 || res.Malformed != 10 || res.Source != sender || *res.LossRatio != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestTwoQueriersAndManyForeignGroups(t *testing.T) {
	res, p, err := play(t, multicast.Options{}, func(p *port) {
		p.packets <- arrived{b: queryV3}
		p.packets <- arrived{b: igmp("192.0.2.3", "224.0.0.1", 0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0)}
		p.packets <- arrived{b: queryV3}
		for i := range 40 {
			p.packets <- arrived{b: udpPacket(sender, netip.AddrFrom4([4]byte{239, 7, 7, byte(i)}), 5000, nil)}
		}
		for _, everywhere := range []string{"224.0.0.251", "239.255.255.250"} {
			p.packets <- arrived{b: udpPacket(sender, netip.MustParseAddr(everywhere), 5000, nil)}
		}
		// Loops of our own frames aren't another member.
		own := multicast.Join(3, [6]byte{}, netip.IPv4Unspecified(), group, 0)
		p.packets <- arrived{b: own[14:], own: true}
		// Another's other group isn't foreign.
		others := multicast.Join(3, [6]byte{}, sender, netip.MustParseAddr("239.8.8.8"), 0)
		p.packets <- arrived{b: others[14:]}
		p.packets <- arrived{b: udpPacket(sender, netip.MustParseAddr("239.8.8.8"), 5000, nil)}
		// Queriers without end.
		for i := range 100 {
			p.packets <- arrived{b: igmp("192.0.3."+string(rune('0'+i%10)), "224.0.0.1", 0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0)}
		}
	})
	if err != nil || len(res.Queriers) != 4 || res.Queriers[0].Queries != 2 || res.Outcome != multicast.NoStream || res.Member != "" {
		t.Errorf("%+v, %v", res, err)
	}
	if len(res.Foreign) != 16 || res.ForeignPackets != 40 {
		t.Errorf("foreign %v, %d packets", res.Foreign, res.ForeignPackets)
	}
	if !strings.HasSuffix(p.all(), "22/3 239.1.2.3") {
		t.Errorf("told %s", p.all())
	}
}

func TestOwnLossIsNotTheLines(t *testing.T) {
	var res multicast.Result
	var err error
	synctest.Test(t, func(t *testing.T) {
		p := newPort()
		p.Dropped = func() uint32 { return 3 }
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			time.Sleep(600 * time.Millisecond)
			p.stream(1, 400, 10*time.Millisecond)
		})
		res, err = multicast.RunOn(t.Context(), &p.Wire, multicast.Options{Interface: "x", Group: group})
	})
	if err != nil || res.Dropped != 3 || res.LossRatio != nil || res.RTP == nil {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestFloodOfGarbageEnds(t *testing.T) {
	whole := udpPacket(sender, group, 5000, rtpPayload(1))
	res, _, err := play(t, multicast.Options{Wait: 500 * time.Millisecond}, func(p *port) {
		for i := range 8000 {
			b := slices.Clone(whole[:i%len(whole)])
			if len(b) > 8 {
				b[i%8] ^= byte(i)
			}
			p.packets <- arrived{b: b}
			time.Sleep(200 * time.Microsecond)
		}
	})
	if err != nil || res.Malformed == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestFaultsOfThePort(t *testing.T) {
	gone := errors.Join(multicast.ErrInterfaceDown, syscall.ENETDOWN)
	// It goes away at any moment.
	for at := 100 * time.Millisecond; at < 8*time.Second; at += 700 * time.Millisecond {
		var then time.Time
		res, p, err := play(t, multicast.Options{}, func(p *port) {
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				time.Sleep(600 * time.Millisecond)
				for i := range 300 {
					select {
					case p.packets <- arrived{b: udpPacket(sender, group, 5000, rtpPayload(i))}:
					default:
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
			time.Sleep(at)
			then = time.Now()
			p.packets <- arrived{err: gone}
		})
		if at > 4*time.Second && err == nil {
			continue // it was over
		}
		if !errors.Is(err, multicast.ErrInterfaceDown) || then.IsZero() {
			t.Errorf("at %v: %+v, %v", at, res, err)
		}
		joins, leaves := strings.Count(p.all(), "22/4"), strings.Count(p.all(), "22/3")
		if joins > 0 && leaves == 0 {
			t.Errorf("at %v: told %s", at, p.all())
		}
	}
	// It refuses to send.
	for _, what := range []string{"22/4 239.1.2.3", "22/3 239.1.2.3"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPort()
			p.sent = func(w string) error {
				if w == what {
					return gone
				}
				return nil
			}
			if _, err := multicast.RunOn(t.Context(), &p.Wire, multicast.Options{Interface: "x", Group: group}); !errors.Is(err, multicast.ErrInterfaceDown) {
				t.Errorf("%s refused: %v", what, err)
			}
		})
	}
	// Its queue is full for a moment.
	synctest.Test(t, func(t *testing.T) {
		p, n := newPort(), 0
		p.sent = func(string) error {
			if n++; n%2 == 1 {
				return syscall.ENOBUFS
			}
			return nil
		}
		if _, err := multicast.RunOn(t.Context(), &p.Wire, multicast.Options{Interface: "x", Group: group}); err != nil || !strings.Contains(p.all(), "22/3 239.1.2.3, 17") {
			t.Errorf("%v, told %s", err, p.all())
		}
	})
}

func TestContextEndsTheRun(t *testing.T) {
	for at := time.Duration(0); at < 9*time.Second; at += 450 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			p := newPort()
			ctx, cancel := context.WithTimeout(t.Context(), at)
			defer cancel()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				time.Sleep(600 * time.Millisecond)
				p.stream(1, 330, 10*time.Millisecond)
			})
			begin := time.Now()
			_, err := multicast.RunOn(ctx, &p.Wire, multicast.Options{Interface: "x", Group: group})
			if took := time.Since(begin); err != nil && took != at {
				t.Errorf("took %v, not %v", took, at)
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) || err == nil && at < 3*time.Second {
				t.Errorf("at %v: %v", at, err)
			}
			if all := p.all(); strings.Contains(all, "22/4") != strings.Contains(all, "22/3") {
				t.Errorf("at %v: told %s", at, all)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := multicast.Options{Interface: "x", Group: group}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	if want := 10*time.Second + 600*time.Millisecond; good.Duration() != want {
		t.Errorf("takes %v, want %v", good.Duration(), want)
	}
	for name, bad := range map[string]func(o *multicast.Options){
		"no interface":       func(o *multicast.Options) { o.Interface = "" },
		"no group":           func(o *multicast.Options) { o.Group = netip.Addr{} },
		"host":               func(o *multicast.Options) { o.Group = sender },
		"link's own group":   func(o *multicast.Options) { o.Group = netip.MustParseAddr("224.0.0.1") },
		"link's own group 6": func(o *multicast.Options) { o.Group = netip.MustParseAddr("ff02::fb") },
		"VLAN":               func(o *multicast.Options) { o.VLAN = 4095 },
		"version":            func(o *multicast.Options) { o.Version = 1 },
		"source with v2":     func(o *multicast.Options) { o.Version, o.Source = 2, sender },
		"source of IPv6":     func(o *multicast.Options) { o.Source = netip.MustParseAddr("fd00::1") },
		"local of IPv6":      func(o *multicast.Options) { o.Local = netip.MustParseAddr("fe80::1") },
		"mode":               func(o *multicast.Options) { o.Mode = multicast.ModeListen },
		"kernel and VLAN":    func(o *multicast.Options) { o.Mode, o.VLAN = multicast.ModeKernel, 45 },
	} {
		o := good
		bad(&o)
		if o.Check() == nil {
			t.Errorf("%s is accepted", name)
		}
		if _, err := multicast.Run(t.Context(), o); err == nil {
			t.Errorf("%s is run", name)
		}
	}
	if _, err := multicast.Run(t.Context(), multicast.Options{Interface: "no-such-port", Group: group}); !errors.Is(err, multicast.ErrNoInterface) {
		t.Errorf("got %v", err)
	}
}
