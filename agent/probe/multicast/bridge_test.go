package multicast_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ontagent/agent/probe/multicast"
)

func quick(group string) multicast.Options {
	return multicast.Options{
		Interface: "cli0", Group: netip.MustParseAddr(group),
		Before: 200 * time.Millisecond, Wait: 1500 * time.Millisecond, Listen: time.Second, LeaveWait: 3 * time.Second, Stall: 2 * time.Second,
	}
}

func TestStreamThroughSnoopingBridge(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(true)
	for _, tt := range []struct {
		name, group, source string
		version             int
		mode                multicast.Mode
		protocol            string
		wantMode            multicast.Mode
		join, leave         string
	}{
		{"kernel IPv4", "239.1.1.1", "", 0, multicast.ModeAuto, "igmpv3", multicast.ModeKernel, "22/4", "22/3"},
		{"kernel IPv4 source", "232.1.1.2", "198.51.100.1", 0, multicast.ModeAuto, "igmpv3", multicast.ModeKernel, "22/5", "22/6"},
		{"kernel IPv6", "ff1e::1:3", "", 0, multicast.ModeAuto, "mldv2", multicast.ModeKernel, "8f/4", "8f/3"},
		{"frame IPv4 v3", "239.1.1.4", "", 3, multicast.ModeAuto, "igmpv3", multicast.ModeFrame, "22/4", "22/3"},
		{"frame IPv4 v2", "239.1.1.5", "", 2, multicast.ModeAuto, "igmpv2", multicast.ModeFrame, "16", "17"},
		{"frame IPv4 auto", "239.1.1.6", "", 0, multicast.ModeFrame, "igmpv3", multicast.ModeFrame, "22/4", "22/3"},
		{"frame IPv4 source", "232.1.1.7", "198.51.100.1", 0, multicast.ModeFrame, "igmpv3", multicast.ModeFrame, "22/5", "22/6"},
		{"frame IPv6 v1", "ff1e::1:8", "", 2, multicast.ModeAuto, "mldv1", multicast.ModeFrame, "83", "84"},
		{"frame IPv6 v2", "ff1e::1:9", "", 3, multicast.ModeAuto, "mldv2", multicast.ModeFrame, "8f/4", "8f/3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stop := n.source(sourceOptions{group: tt.group})
			defer stop()
			told := n.sniff("cli0")
			o := quick(tt.group)
			o.Version, o.Mode = tt.version, tt.mode
			if tt.source != "" {
				o.Source = netip.MustParseAddr(tt.source)
			}
			res, err := n.run(t.Context(), o)
			if err != nil {
				t.Fatalf("%v, %+v", err, res)
			}
			if res.Outcome != multicast.Streaming || res.Mode != tt.wantMode || res.Protocol != tt.protocol || res.Member != "" || res.AlreadyFlowing {
				t.Errorf("got %+v", res)
			}
			if res.JoinMs == nil || *res.JoinMs > 1000 || res.Leave != multicast.LeaveStopped || res.LeaveMs == nil || *res.LeaveMs > 2000 {
				t.Errorf("join %v, leave %s %v", deref(res.JoinMs), res.Leave, deref(res.LeaveMs))
			}
			// 1328 bytes every 5 ms.
			if res.RateMbps < 1.5 || res.RateMbps > 3 || res.LossRatio == nil || *res.LossRatio != 0 || res.RTP == nil || res.TS == nil || res.TS.Errors != 0 {
				t.Errorf("rate %g, rtp %+v, loss %v", res.RateMbps, res.RTP, deref(res.LossRatio))
			}
			n.until("the leave", func() bool { return told.count(tt.leave+" "+tt.group) > 0 })
			if told.count(tt.join+" "+tt.group) == 0 {
				t.Errorf("told %s", told.all())
			}
			if len(res.Queriers) == 0 || res.ForeignPackets != 0 || res.Port != 5000 {
				t.Errorf("queriers %v, foreign %v, port %d", res.Queriers, res.Foreign, res.Port)
			}
		})
	}
}

func deref(f *float64) any {
	if f == nil {
		return nil
	}
	return *f
}

func TestLossIsCounted(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(true)
	n.source(sourceOptions{group: "239.1.2.1", drop: 10})
	res, err := n.run(t.Context(), quick("239.1.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	if res.Outcome != multicast.Streaming || res.LossRatio == nil || *res.LossRatio < 0.09 || *res.LossRatio > 0.11 {
		t.Errorf("loss %v, %+v, rtp %+v", deref(res.LossRatio), res, res.RTP)
	}
	if res.TS == nil || res.TS.Errors == 0 || res.TS.Lost != 7*res.RTP.Lost {
		t.Errorf("ts: %d packets, %d errors, %d lost", res.TS.Packets, res.TS.Errors, res.TS.Lost)
	}
}

func TestNoStream(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(true)
	for _, mode := range []multicast.Mode{multicast.ModeKernel, multicast.ModeFrame} {
		o := quick("239.1.3.1")
		o.Mode = mode
		res, err := n.run(t.Context(), o)
		if err != nil || res.Outcome != multicast.NoStream || res.Leave != multicast.LeaveNothing || res.JoinMs != nil || res.LossRatio != nil {
			t.Errorf("%s: %+v, %v", mode, res, err)
		}
	}
}

func TestNoQuerierFloods(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(false)
	res, err := n.run(t.Context(), quick("239.1.4.1"))
	if err != nil || res.Outcome != multicast.NoQuerier || len(res.Queriers) != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	told := n.sniff("cli0")
	n.source(sourceOptions{group: "239.1.4.2"})
	n.source(sourceOptions{group: "239.1.4.3", plain: true})
	res, err = n.run(t.Context(), quick("239.1.4.3"))
	if err != nil || res.Outcome != multicast.Streaming || !res.AlreadyFlowing || res.Mode != multicast.ModeListen || res.LossRatio != nil || res.RTP != nil {
		t.Errorf("%+v, %v", res, err)
	}
	if len(res.Foreign) != 1 || res.Foreign[0].Group != netip.MustParseAddr("239.1.4.2") || res.Foreign[0].Packets != res.ForeignPackets || res.ForeignPackets < 20 {
		t.Errorf("foreign %v", res.Foreign)
	}
	if all := told.all(); all != "" {
		t.Errorf("told %s although the stream flowed", all)
	}
}

func TestStreamInTheServiceVLAN(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(true)
	for _, tt := range []struct{ group, join, leave string }{
		{"239.1.5.1", "22/4", "22/3"},
		{"ff1e::5:1", "8f/4", "8f/3"},
	} {
		stop := n.source(sourceOptions{group: tt.group, vlan: 45})
		told := n.sniff("cli0")
		o := quick(tt.group)
		o.VLAN = 45
		res, err := n.run(t.Context(), o)
		if err != nil || res.Outcome != multicast.Streaming || res.Mode != multicast.ModeFrame || res.Leave != multicast.LeaveStopped || res.VLAN != 45 {
			t.Errorf("%+v, %v", res, err)
		}
		if told.count(tt.join+" "+tt.group) == 0 || told.count(tt.leave+" "+tt.group) != 2 {
			t.Errorf("told %s", told.all())
		}
		// In another VLAN there is nothing to hear.
		o.VLAN = 46
		if res, err = n.run(t.Context(), o); err != nil || res.Packets != 0 || len(res.Queriers) != 0 || res.Outcome != multicast.NoQuerier {
			t.Errorf("%+v, %v", res, err)
		}
		// Nor without a tag.
		o.VLAN, o.Mode = 0, multicast.ModeFrame
		if res, err = n.run(t.Context(), o); err != nil || res.Packets != 0 {
			t.Errorf("%+v, %v", res, err)
		}
		stop()
	}
}

// holds is a member in the kernel, as a proxy or set-top box would be.
func (n *network) holds(group string) {
	n.t.Helper()
	addr := netip.MustParseAddr(group)
	var conn net.PacketConn
	var err error
	n.do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName("cli0"); err == nil {
			network := "udp6"
			if addr.Is4() {
				network = "udp4"
			}
			conn, err = net.ListenMulticastUDP(network, ifi, &net.UDPAddr{IP: addr.AsSlice(), Port: 5999})
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
}

func TestMemberOfThisHostKeepsItsStream(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(true)
	for _, group := range []string{"239.1.6.1", "ff1e::6:1"} {
		n.holds(group)
		told := n.sniff("cli0")
		for _, mode := range []multicast.Mode{multicast.ModeKernel, multicast.ModeFrame} {
			o := quick(group)
			o.Mode = mode
			// It has the group, but nothing comes yet: the join is the host's.
			res, err := n.run(t.Context(), o)
			if err != nil || res.Member != multicast.MemberHost || res.Leave != multicast.LeaveNotSent || res.Outcome != multicast.NoStream {
				t.Errorf("%+v, %v", res, err)
			}
		}
		stop := n.source(sourceOptions{group: group})
		time.Sleep(50 * time.Millisecond)
		res, err := n.run(t.Context(), quick(group))
		if err != nil || res.Member != multicast.MemberHost || res.Mode != multicast.ModeListen || res.Outcome != multicast.Streaming || !res.AlreadyFlowing {
			t.Errorf("%+v, %v", res, err)
		}
		for _, leave := range []string{"22/3 ", "17 ", "22/6 ", "8f/3 ", "84 "} {
			if told.count(leave+group) > 0 {
				t.Errorf("told %s", told.all())
			}
		}
		stop()
	}
}

func TestMemberBehindThePortKeepsItsStream(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(true)
	// A set-top box, bridged through the port that is probed: its reports are
	// seen, its stream isn't.
	group := netip.MustParseAddr("239.1.7.1")
	f := multicast.Join(2, [6]byte{2, 0, 0, 0, 0, 0x77}, netip.MustParseAddr("192.0.2.77"), group, 0)
	c := n.listen("cli0")
	defer c.Close()
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			_, _ = c.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			select {
			case <-quit:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	for _, tt := range []struct{ mode, want multicast.Mode }{
		{multicast.ModeKernel, multicast.ModeListen},
		{multicast.ModeFrame, multicast.ModeFrame},
	} {
		o := quick(group.String())
		o.Mode = tt.mode
		told := n.sniff("cli0")
		res, err := n.run(t.Context(), o)
		if err != nil || res.Member != multicast.MemberOther || res.Leave != multicast.LeaveNotSent || res.Mode != tt.want {
			t.Errorf("%+v, %v", res, err)
		}
		if told.count("22/3 239.1.7.1")+told.count("17 239.1.7.1") > 0 {
			t.Errorf("told %s", told.all())
		}
	}
	close(quit)
	wg.Wait()
}

func TestCancelLeaves(t *testing.T) {
	n := newNetwork(t)
	n.bridged(true)
	best := time.Hour // a busy machine may hold up any one of them
	for _, tt := range []struct {
		mode  multicast.Mode
		group string
		leave string
	}{
		{multicast.ModeFrame, "239.1.8.1", "22/3"},
		{multicast.ModeKernel, "239.1.8.2", "22/3"},
		{multicast.ModeFrame, "ff1e::8:3", "8f/3"},
	} {
		n.source(sourceOptions{group: tt.group})
		told := n.sniff("cli0")
		before, open := runtime.NumGoroutine(), descriptors(t)
		ctx, cancel := context.WithCancel(t.Context())
		o := quick(tt.group)
		o.Mode, o.Listen = tt.mode, time.Minute
		var cancelled time.Time
		timer := time.AfterFunc(700*time.Millisecond, func() {
			cancelled = time.Now()
			cancel()
		})
		res, err := n.run(ctx, o)
		best = min(best, time.Since(cancelled))
		timer.Stop()
		if !errors.Is(err, context.Canceled) || res.Leave != multicast.LeaveUnknown || res.Packets == 0 {
			t.Errorf("%+v, %v", res, err)
		}
		n.until("the leave", func() bool { return told.count(tt.leave+" "+tt.group) > 0 })
		n.until("goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
		if now := descriptors(t); now > open {
			t.Errorf("%d descriptors, %d before", now, open)
		}
	}
	if best > 100*time.Millisecond {
		t.Errorf("took %v to end", best)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestInterfaceGoneEndsTheRun(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	for _, how := range []string{"link set cli0 down", "link del cli0"} {
		for _, mode := range []multicast.Mode{multicast.ModeFrame, multicast.ModeKernel} {
			n.ip("link add cli0 type veth peer name cli1")
			n.ip("link set cli1 up")
			n.ip("link set cli0 up")
			n.ip("addr add 192.0.2.2/24 dev cli0")
			var gone time.Time
			var wg sync.WaitGroup
			ns := n.handle()
			wg.Go(func() {
				time.Sleep(400 * time.Millisecond)
				gone = time.Now()
				ns.ip(t, how)
			})
			o := quick("239.1.9.1")
			o.Mode, o.Wait = mode, 20*time.Second
			_, err := n.run(t.Context(), o)
			ended := time.Now()
			wg.Wait()
			if !errors.Is(err, multicast.ErrInterfaceDown) || ended.Sub(gone) > time.Second {
				t.Errorf("%s, %s: %v after %v", mode, how, err, ended.Sub(gone))
			}
			_, _ = n.try("ip", "link del cli0")
		}
	}
	if _, err := n.run(t.Context(), quick("239.1.9.2")); !errors.Is(err, multicast.ErrNoInterface) {
		t.Errorf("got %v", err)
	}
	n.ip("link add cli0 type veth peer name cli1")
	if _, err := n.run(t.Context(), quick("239.1.9.2")); !errors.Is(err, multicast.ErrInterfaceDown) {
		t.Errorf("got %v", err)
	}
}

func TestRunWithoutTheRight(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.bridged(false)
	ns := n.handle()
	var err error
	done := make(chan struct{})
	n.do(func() {
		// On another thread, which is thrown away with its rights.
		go func() {
			defer close(done)
			runtime.LockOSThread()
			if err = unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
				return
			}
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err = unix.Capset(&header, &data[0]); err != nil {
				return
			}
			_, err = multicast.Run(t.Context(), quick("239.1.9.3"))
		}()
		<-done
	})
	if !errors.Is(err, multicast.ErrNotPermitted) {
		t.Errorf("got %v", err)
	}
}
