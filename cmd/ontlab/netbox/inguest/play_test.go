package inguest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// playFiles looks at what a host sees of the guest's own files.
func playFiles(ctx context.Context, b *netbox.Box, out io.Writer) error {
	h, err := b.Host("files")
	if err != nil {
		return err
	}
	got, err := h.Run(ctx, "sh", "-c", "ls /run /sys/class/net; ls -d /run/ontlab/results; test -w /etc/resolv.conf && ls -d /dev/ppp")
	if err != nil {
		return err
	}
	want := "/run:\nontlab\n\n/sys/class/net:\nlo\n/run/ontlab/results\n/dev/ppp\n"
	if string(got) != want {
		return fmt.Errorf("a host sees %q, want %q", got, want)
	}
	fmt.Fprintln(out, "files: a host has its own /run and /sys, and the job's results")
	return nil
}

// pair makes two hosts with a cable: 10.0.0.1 and 10.0.0.2 on eth0.
func pair(b *netbox.Box, name string) (a, z *netbox.Host, err error) {
	if a, err = b.Host(name + "-a"); err != nil {
		return nil, nil, err
	}
	if z, err = b.Host(name + "-z"); err != nil {
		return nil, nil, err
	}
	return a, z, errors.Join(
		b.Cable(a, "eth0", z, "eth0", netbox.CableOptions{}),
		a.Address("eth0", "10.0.0.1/24"), z.Address("eth0", "10.0.0.2/24"),
	)
}

func playVLAN(ctx context.Context, b *netbox.Box, out io.Writer) error {
	a, z, err := pair(b, "vlan")
	if err != nil {
		return err
	}
	if err := errors.Join(
		a.VLAN("eth0", 41, "eth0.41"), z.VLAN("eth0", 41, "internet"), z.VLAN("eth0", 46, "voice"),
		a.Address("eth0.41", "10.0.41.1/24"), z.Address("internet", "10.0.41.2/24"), z.Address("voice", "10.0.46.2/24"),
		a.Sysctl("net/ipv4/conf/eth0.41/arp_ignore", "1"),
	); err != nil {
		return err
	}
	e, err := startEcho(ctx, z)
	if err != nil {
		return err
	}
	defer e.Close()
	if _, err := roundTrips(ctx, a, "10.0.41.2:7", 1); err != nil {
		return fmt.Errorf("the same VLAN: %w", err)
	}
	if err := errors.Join(a.VLAN("eth0", 45, "eth0.45"), a.Address("eth0.45", "10.0.46.1/24")); err != nil {
		return err
	}
	if _, err := roundTrips(ctx, a, "10.0.46.2:7", 1); err == nil {
		return errors.New("a VLAN reaches another one")
	}
	fmt.Fprintln(out, "vlan: 41 reaches 41, 45 does not reach 46")
	return nil
}

func playImpair(ctx context.Context, b *netbox.Box, out io.Writer) error {
	a, z, err := pair(b, "impair")
	if err != nil {
		return err
	}
	e, err := startEcho(ctx, z)
	if err != nil {
		return err
	}
	defer e.Close()
	var failed []error
	note := func(ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		fmt.Fprintln(out, text)
		if !ok {
			failed = append(failed, errors.New(text))
		}
	}

	before, err := roundTrips(ctx, a, "10.0.0.2:7", 50)
	if err != nil {
		return err
	}
	if err := a.Impair("eth0", netbox.Impairment{Delay: 20 * time.Millisecond}); err != nil {
		return err
	}
	after, err := roundTrips(ctx, a, "10.0.0.2:7", 50)
	if err != nil {
		return err
	}
	added := after - before
	note(added > 19900*time.Microsecond && added < 23*time.Millisecond, "delay: 20 ms add %v to %v", added, before)

	counted := 0
	for _, i := range []netbox.Impairment{
		{RateMbps: 1}, {RateMbps: 5, Delay: 20 * time.Millisecond}, {RateMbps: 20}, {RateMbps: 50}, {RateMbps: 50, Delay: 20 * time.Millisecond},
	} {
		if err := a.Impair("eth0", i); err != nil {
			return err
		}
		var m measured
		for range 4 {
			if m, err = measureRate(ctx, a, z, i.RateMbps); err != nil {
				return err
			}
			if !m.stalled() {
				break
			}
		}
		off := m.rate/i.RateMbps - 1
		text := fmt.Sprintf("rate: %v Mbit/s, delay %v: measured %.3f, %+.2f %%, a processor waited for %v", i.RateMbps, i.Delay, m.rate, 100*off, m.stall)
		if m.stalled() {
			fmt.Fprintln(out, text+": not counted")
			continue
		}
		counted++
		note(math.Abs(off) < 0.01, "%s", text)
	}
	if counted == 0 {
		fmt.Fprintln(out, busy)
	}

	// Bounds are five standard deviations of as many chances.
	const packets = 2000
	bound := func(ratio float64) float64 { return 5 * math.Sqrt(ratio*(1-ratio)/packets) }
	ratioOf := func(n int) float64 { return float64(n) / packets }
	for _, test := range []struct {
		name string
		i    netbox.Impairment
		ok   func(seen) (bool, string)
	}{
		{"loss", netbox.Impairment{LossRatio: 0.1}, func(s seen) (bool, string) {
			got := ratioOf(packets - s.different)
			return math.Abs(got-0.1) < bound(0.1), fmt.Sprintf("of 0.1 is %.3f", got)
		}},
		{"duplicates", netbox.Impairment{DuplicateRatio: 0.05}, func(s seen) (bool, string) {
			got := ratioOf(s.all - s.different)
			return s.different == packets && math.Abs(got-0.05) < bound(0.05), fmt.Sprintf("of 0.05 are %.3f", got)
		}},
		{"reordering", netbox.Impairment{Delay: 10 * time.Millisecond, ReorderRatio: 0.1}, func(s seen) (bool, string) {
			got := ratioOf(s.early)
			return s.different == packets && math.Abs(got-0.1) < 2*bound(0.1), fmt.Sprintf("of 0.1 is %.3f", got)
		}},
		{"jitter", netbox.Impairment{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}, func(s seen) (bool, string) {
			return s.different == packets && s.early == 0, fmt.Sprintf("%d of %d out of order", s.early, packets)
		}},
	} {
		if err := a.Impair("eth0", test.i); err != nil {
			return err
		}
		s, err := sendNumbered(ctx, a, z, packets)
		if err != nil {
			return err
		}
		ok, text := test.ok(s)
		note(ok, "%s: %s", test.name, text)
	}

	if err := a.Impair("eth0", netbox.Impairment{}); err != nil {
		return err
	}
	queues, err := a.Run(ctx, "tc", "qdisc", "show", "dev", "eth0")
	if err != nil {
		return err
	}
	again, err := roundTrips(ctx, a, "10.0.0.2:7", 50)
	if err != nil {
		return err
	}
	note(strings.HasPrefix(string(queues), "qdisc noqueue") && again < before+5*time.Millisecond, "removed: %s, round trip %v", strings.TrimSpace(string(queues)), again)
	return errors.Join(failed...)
}

// startEcho answers UDP on port 7 of a host until it is closed.
func startEcho(ctx context.Context, h *netbox.Host) (io.Closer, error) {
	c, err := h.ListenPacket(ctx, "udp", ":7")
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	return c, nil
}

// roundTrips returns the shortest of n round trips.
func roundTrips(ctx context.Context, h *netbox.Host, addr string, n int) (time.Duration, error) {
	c, err := h.Dial(ctx, "udp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var took []time.Duration
	for range n {
		if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return 0, err
		}
		began := time.Now()
		if _, err := c.Write([]byte("x")); err != nil {
			return 0, err
		}
		if _, err := c.Read(make([]byte, 10)); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	return slices.Min(took), nil
}

// payload makes frames of 1442 bytes: 42 are headers of Ethernet, IPv4, UDP.
const payload = 1400

// busy is printed where no rate could be measured.
const busy = "rate: the machine is too busy with something else"

// measured is a rate in Mbit/s of frames, and the longest time for which one
// of the guest's processors was not there.
type measured struct {
	rate  float64
	stall time.Duration
}

// stalled says whether what was measured says nothing of the shaper: a
// processor of an emulated machine that waits for a real one shapes too little,
// and then too much.
func (m measured) stalled() bool { return m.stall > 40*time.Millisecond }

// measureRate offers more than the rate for three seconds and measures what
// comes after the first one, by the kernel's time of arrival.
func measureRate(ctx context.Context, a, z *netbox.Host, rate float64) (measured, error) {
	r, err := listen(ctx, z)
	if err != nil {
		return measured{}, err
	}
	defer r.Close()
	w, err := a.Dial(ctx, "udp", "10.0.0.2:9")
	if err != nil {
		return measured{}, err
	}
	defer w.Close()
	stall := watchProcessors(3200 * time.Millisecond)
	ended := make(chan error, 1)
	go func() {
		// A quarter more than is let through, in pieces of 5 ms.
		ended <- func() error {
			packet := make([]byte, payload)
			began, sent := time.Now(), 0.0
			for elapsed := 0.0; elapsed < 3.2; elapsed = time.Since(began).Seconds() {
				for ; sent*(payload+42)*8 < elapsed*rate*1.25e6; sent++ {
					if _, err := w.Write(packet); err != nil {
						return err
					}
				}
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		}()
	}()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return measured{}, err
	}
	var start, first, last time.Time
	frames, buf, oob := 0, make([]byte, 2000), make([]byte, 200)
	for start.IsZero() || last.Sub(start) < 3*time.Second {
		_, n, _, _, err := r.ReadMsgUDP(buf, oob)
		if err != nil {
			return measured{}, err
		}
		if last, err = arrival(oob[:n]); err != nil {
			return measured{}, err
		}
		switch {
		case start.IsZero():
			start = last
		case last.Sub(start) < time.Second:
		case first.IsZero():
			first = last
		default:
			frames++
		}
	}
	err = <-ended
	return measured{float64(frames) * (payload + 42) * 8 / last.Sub(first).Seconds() / 1e6, stall()}, err
}

// arrival reads the time that SO_TIMESTAMPNS adds to a packet.
func arrival(oob []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 || len(messages[0].Data) < 16 {
		return time.Time{}, fmt.Errorf("no time of arrival in % x: %w", oob, err)
	}
	data := messages[0].Data // the guest has 64 bits
	return time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:]))), nil
}

// watchProcessors finds the longest time for which a processor did not run what
// was due, for that long.
func watchProcessors(d time.Duration) (longest func() time.Duration) {
	gaps := make(chan time.Duration, runtime.NumCPU())
	for cpu := range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread() // and never unlocked: it is pinned
			var set unix.CPUSet
			set.Set(cpu)
			var gap time.Duration
			if unix.SchedSetaffinity(0, &set) != nil {
				gap = d
			}
			pause := unix.Timespec{Nsec: 2e6}
			for end := time.Now().Add(d); time.Now().Before(end); {
				began := time.Now()
				_ = unix.Nanosleep(&pause, nil)
				gap = max(gap, time.Since(began))
			}
			gaps <- gap
		}()
	}
	return func() time.Duration {
		var all time.Duration
		for range runtime.NumCPU() {
			all = max(all, <-gaps)
		}
		return all
	}
}

// listen gets packets on port 9, with room for what comes while nobody reads.
func listen(ctx context.Context, h *netbox.Host) (*net.UDPConn, error) {
	r, err := h.ListenPacket(ctx, "udp", ":9")
	if err != nil {
		return nil, err
	}
	u, ok := r.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("a %T", r)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		)
	})
	return u, errors.Join(err, optErr)
}

// seen is what came of numbered packets.
type seen struct{ all, different, early int }

// sendNumbered sends packets, one each millisecond, and counts what comes:
// early are those that come before one with a lower number.
func sendNumbered(ctx context.Context, a, z *netbox.Host, packets int) (seen, error) {
	r, err := listen(ctx, z)
	if err != nil {
		return seen{}, err
	}
	defer r.Close()
	w, err := a.Dial(ctx, "udp", "10.0.0.2:9")
	if err != nil {
		return seen{}, err
	}
	defer w.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			began := time.Now()
			for i := range packets {
				if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
					return err
				}
				time.Sleep(time.Until(began.Add(time.Duration(i) * time.Millisecond)))
			}
			return nil
		}()
	}()
	var s seen
	var order []uint32
	found := map[uint32]bool{}
	buf := make([]byte, 10)
	for {
		// Silence is the end.
		if err := r.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return seen{}, err
		}
		if _, _, err := r.ReadFrom(buf); err != nil {
			break
		}
		n := binary.BigEndian.Uint32(buf)
		s.all++
		if !found[n] {
			found[n] = true
			order = append(order, n)
		}
	}
	s.different = len(order)
	// From the end: who has a lower number behind it came early.
	low := uint32(math.MaxUint32)
	for _, n := range slices.Backward(order) {
		if n > low {
			s.early++
		}
		low = min(low, n)
	}
	return s, <-ended
}
