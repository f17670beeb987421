package link_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/link"
)

// kernel is a netlink socket without a kernel: it plays steps, one for each
// Receive, and then blocks until it is closed.
type kernel struct {
	steps  []step
	sent   []*nl.NetlinkRequest
	asked  chan struct{}
	closed chan struct{}
	once   sync.Once
	rcvbuf []int
}

// step is one answer to Receive. Messages whose Pid is ourPid get the sequence
// number of the last request.
type step struct {
	messages []syscall.NetlinkMessage
	from     uint32
	err      error
}

const ourPid = 4711

func newKernel(steps ...step) *kernel {
	return &kernel{steps: steps, asked: make(chan struct{}, 100), closed: make(chan struct{})}
}

func (k *kernel) Send(r *nl.NetlinkRequest) error {
	k.sent = append(k.sent, r)
	return nil
}

func (k *kernel) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	if len(k.steps) == 0 {
		select {
		case k.asked <- struct{}{}:
		default:
		}
		<-k.closed
		return nil, nil, os.ErrClosed
	}
	s := k.steps[0]
	k.steps = k.steps[1:]
	for i := range s.messages {
		if h := &s.messages[i].Header; h.Pid == ourPid {
			h.Seq = k.sent[len(k.sent)-1].Seq
		}
	}
	return s.messages, &unix.SockaddrNetlink{Pid: s.from}, s.err
}

func (k *kernel) SetReceiveTimeout(*unix.Timeval) error { return nil }

func (k *kernel) SetReceiveBufferSize(size int, force bool) error {
	if force {
		return unix.EPERM
	}
	k.rcvbuf = append(k.rcvbuf, size)
	return nil
}

func (k *kernel) GetPid() (uint32, error) { return ourPid, nil }
func (k *kernel) Close()                  { k.once.Do(func() { close(k.closed) }) }

// dialer hands out kernels, one after the other.
func dialer(kernels ...*kernel) func(...uint) (link.Socket, error) {
	return func(...uint) (link.Socket, error) {
		if len(kernels) == 0 {
			return nil, unix.EMFILE
		}
		k := kernels[0]
		kernels = kernels[1:]
		return k, nil
	}
}

func noEthtool() (*link.Ethtool, error) { return nil, unix.EAFNOSUPPORT }

// eth encodes an interface.
func eth(index int32, name string, flags uint32, more ...[]byte) []byte {
	o := binary.NativeEndian
	return link.Body(o, unix.AF_UNSPEC, unix.ARPHRD_ETHER, index, flags,
		append([][]byte{link.Attr(o, unix.IFLA_IFNAME, []byte(name+"\x00"))}, more...)...)
}

func oper(n byte) []byte { return link.Attr(binary.NativeEndian, unix.IFLA_OPERSTATE, []byte{n}) }

func changes(n uint32) []byte {
	return link.Attr(binary.NativeEndian, unix.IFLA_CARRIER_CHANGES, binary.NativeEndian.AppendUint32(nil, n))
}

// listed makes a message of the answer to our request.
func listed(body []byte, flags uint16) syscall.NetlinkMessage {
	m := link.Announced(unix.RTM_NEWLINK, body)
	m.Header.Pid, m.Header.Flags = ourPid, unix.NLM_F_MULTI|flags
	return m
}

func done(errno unix.Errno) syscall.NetlinkMessage {
	m := link.Announced(unix.NLMSG_DONE, binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno))))
	m.Header.Pid = ourPid
	return m
}

func msgs(m ...syscall.NetlinkMessage) step { return step{messages: m} }

func names(links []link.Link) string {
	var s []string
	for _, l := range links {
		s = append(s, l.Name)
	}
	return strings.Join(s, " ")
}

func TestLinksFromTheKernelsAnswers(t *testing.T) {
	refused := done(unix.EPERM)
	refused.Header.Type = unix.NLMSG_ERROR
	interrupted := []step{msgs(listed(eth(2, "eth0", 0), unix.NLM_F_DUMP_INTR)), msgs(done(0))}
	tests := []struct {
		name       string
		steps      []step
		want       string
		incomplete bool
		requests   int
		err        error
	}{
		{name: "InParts", steps: []step{
			msgs(listed(eth(3, "eth1", 0), 0)), msgs(listed(eth(1, "lo", 0), 0), listed(eth(2, "eth0", 0), 0), done(0)),
		}, want: "eth0 eth1", requests: 1},
		{name: "Empty", steps: []step{msgs(done(0))}, requests: 1},
		{
			name: "InterruptedOnce", steps: append(interrupted[:2:2], msgs(listed(eth(2, "eth0", 0), 0), listed(eth(3, "eth1", 0), 0), done(0))),
			want: "eth0 eth1", requests: 2,
		},
		{
			name: "InterruptedAlways", steps: append(append(interrupted[:2:2], interrupted...), interrupted...),
			want: "eth0", incomplete: true, requests: 3,
		},
		{name: "FromAnotherProcess", steps: []step{
			{messages: []syscall.NetlinkMessage{listed(eth(9, "evil", 0), 0)}, from: 99}, msgs(listed(eth(2, "eth0", 0), 0), done(0)),
		}, want: "eth0", requests: 1},
		{name: "RubbishBetween", steps: []step{
			msgs(listed([]byte{1, 2, 3}, 0), listed(eth(2, "eth0", 0), 0), listed(eth(3, "", 0), 0), done(0)),
		}, want: "eth0", requests: 1},
		{name: "SignalArrived", steps: []step{{err: unix.EINTR}, msgs(listed(eth(2, "eth0", 0), 0), done(0))}, want: "eth0", requests: 1},
		{name: "Refused", steps: []step{msgs(refused)}, err: unix.EPERM, requests: 1},
		{name: "DoneWithError", steps: []step{msgs(done(unix.EINVAL))}, err: unix.EINVAL, requests: 1},
		{name: "NoAnswerInTime", steps: []step{{err: unix.EAGAIN}}, err: unix.EAGAIN, requests: 1},
		{name: "Overflow", steps: []step{{err: unix.ENOBUFS}}, err: unix.ENOBUFS, requests: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernel(tt.steps...)
			c := link.New(link.Options{})
			c.SetKernel(dialer(k), noEthtool)
			got, err := c.Links(t.Context())
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if names(got) != tt.want || len(k.sent) != tt.requests {
				t.Errorf("%q in %d requests, want %q in %d", names(got), len(k.sent), tt.want, tt.requests)
			}
			for _, l := range got {
				if l.Incomplete != tt.incomplete || l.Offload != link.OffloadUnknown {
					t.Errorf("%+v", l)
				}
			}
			select {
			case <-k.closed:
			default:
				t.Error("socket left open")
			}
		})
	}
}

func TestLinksErrors(t *testing.T) {
	c := link.New(link.Options{})
	c.SetKernel(dialer(), noEthtool)
	if _, err := c.Links(t.Context()); !errors.Is(err, unix.EMFILE) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := c.Collect(t.Context()); err == nil || err.Error() != "cannot list interfaces: too many open files" {
		t.Errorf("no socket: %v", err)
	}

	// The kernel never answers, the context ends.
	k := newKernel()
	c.SetKernel(dialer(k), noEthtool)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-k.asked
		cancel()
	}()
	if _, err := c.Links(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	if _, err := c.Links(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("context ended before: %v", err)
	}
}

func TestInclude(t *testing.T) {
	tests := []struct {
		include, exclude []string
		want             string
	}{
		{want: "eth0 eth1 br-lan pppoe-wan [x"},
		{exclude: []string{}, want: "lo eth0 eth1 br-lan pppoe-wan [x"},
		{include: []string{"eth*"}, want: "eth0 eth1"},
		{include: []string{"eth?", "pppoe-*"}, exclude: []string{"eth0"}, want: "eth1 pppoe-wan"},
		{exclude: []string{"[x"}, want: "lo eth0 eth1 br-lan pppoe-wan"},
	}
	for i, tt := range tests {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			var all []syscall.NetlinkMessage
			for j, n := range []string{"lo", "eth0", "eth1", "br-lan", "pppoe-wan", "[x"} {
				all = append(all, listed(eth(int32(j)+1, n, 0), 0))
			}
			c := link.New(link.Options{Include: tt.include, Exclude: tt.exclude})
			c.SetKernel(dialer(newKernel(msgs(append(all, done(0))...))), noEthtool)
			got, err := c.Links(t.Context())
			if err != nil || names(got) != tt.want {
				t.Errorf("%q, %v, want %q", names(got), err, tt.want)
			}
		})
	}
}

// watchAll runs Watch over kernels until the last has nothing more to say, and
// returns the events as lines and Watch's error.
func watchAll(t *testing.T, c *link.Collector, kernels ...*kernel) ([]string, error) {
	t.Helper()
	c.SetKernel(dialer(kernels...), nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-kernels[len(kernels)-1].asked:
			cancel()
		case <-ctx.Done():
		}
	}()
	var lines []string
	err := c.Watch(ctx, func(e collectors.Event) { lines = append(lines, line(e)) })
	return lines, err
}

// line writes an event in one line.
func line(e collectors.Event) string {
	s := e.Subject + " " + e.What + " " + e.Before + " -> " + e.After
	for _, f := range e.Fields {
		switch f.Key {
		case "after_resync":
			s += " resync"
		case "missed_changes":
			s += fmt.Sprint(" missed ", f.Value)
		}
	}
	return s
}

func TestWatchTellsEveryChange(t *testing.T) {
	new := func(b []byte) syscall.NetlinkMessage { return link.Announced(unix.RTM_NEWLINK, b) }
	del := func(b []byte) syscall.NetlinkMessage { return link.Announced(unix.RTM_DELLINK, b) }
	o := binary.NativeEndian
	mac := link.Attr(o, unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 0xab})
	port := link.Body(o, unix.AF_BRIDGE, unix.ARPHRD_ETHER, 2, 0, link.Attr(o, unix.IFLA_IFNAME, []byte("eth0\x00")))
	k := newKernel(
		msgs(
			new(eth(5, "early", 0)), // while the list is read: part of the start
			listed(eth(1, "lo", 0, oper(2)), 0), listed(eth(2, "eth0", link.FlagsUp, oper(6)), 0),
			listed(eth(5, "early", 0), 0), done(0)),
		// Down and up in one reception: two events of each kind.
		msgs(new(eth(2, "eth0", unix.IFF_UP, oper(2))), new(eth(2, "eth0", link.FlagsUp, oper(6)))),
		msgs(new(eth(2, "eth0", link.FlagsUp, oper(6)))), // nothing new
		msgs(new(eth(1, "lo", link.FlagsUp, oper(0)))),   // not wanted
		msgs(del(port)), // left a bridge, is still there
		msgs(new([]byte{0}), new(eth(2, "", 0))),
		msgs(new(eth(2, "eth0", 0, oper(5), mac, link.Attr(o, unix.IFLA_MTU, o.AppendUint32(nil, 1492))))),
		msgs(new(eth(2, "wan", 0))), msgs(new(eth(2, "lo", 0))), // into what is not wanted: still told
		msgs(new(eth(7, "ppp0", link.FlagsUp))),
		msgs(del(eth(7, "ppp0", 0)), del(eth(7, "ppp0", 0)), del(eth(8, "never-seen", 0))),
	)
	c := link.New(link.Options{ReceiveBuffer: 12345})
	got, err := watchAll(t, c, k)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	want := []string{
		"eth0 carrier up -> down", "eth0 oper_state up -> down",
		"eth0 carrier down -> up", "eth0 oper_state down -> up",
		"eth0 mac  -> 02:00:00:00:00:ab", "eth0 mtu 0 -> 1492", "eth0 admin_state up -> down", "eth0 carrier up -> down",
		"eth0 oper_state up -> dormant",
		"wan name eth0 -> wan", "lo name wan -> lo",
		"ppp0 presence absent -> present", "ppp0 presence present -> absent",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{12345}, k.rcvbuf); d != "" {
		t.Errorf("receive buffer where force is not permitted: %s", d)
	}
}

func TestWatchComparesAfterLosses(t *testing.T) {
	new := func(b []byte) syscall.NetlinkMessage { return link.Announced(unix.RTM_NEWLINK, b) }
	up := func(index int32, name string, n uint32) []byte {
		return eth(index, name, link.FlagsUp, oper(6), changes(n))
	}
	first := newKernel(
		msgs(listed(up(2, "eth0", 1), 0), listed(up(3, "eth1", 1), 0), listed(up(4, "eth2", 1), 0), listed(up(5, "eth3", 1), 0), done(0)),
		step{err: unix.ENOBUFS},
		// What was queued before is told in order; the overflow may show again.
		msgs(new(eth(2, "eth0", unix.IFF_UP, oper(2), changes(2)))), step{err: unix.ENOBUFS},
		msgs(new(up(2, "eth0", 3))), step{err: unix.EAGAIN},
	)
	second := newKernel(
		// The list changes while it is read; eth2 is gone; eth1 went down, up and
		// down; eth3 flapped twice and is as it was; eth9 is new.
		msgs(listed(up(2, "eth0", 3), unix.NLM_F_DUMP_INTR), done(0)),
		msgs(listed(up(2, "eth0", 3), 0), listed(eth(3, "eth1", unix.IFF_UP, oper(2), changes(4)), 0)),
		msgs(new(up(3, "eth1", 5))), // meanwhile, not missed
		msgs(listed(up(5, "eth3", 5), 0), listed(eth(9, "eth9", 0), 0), done(0)),
		msgs(new(eth(2, "eth0", unix.IFF_UP, oper(2), changes(4)))),
		step{err: unix.EBADF},
	)
	c := link.New(link.Options{})
	got, err := watchAll(t, c, first, second)
	if !errors.Is(err, unix.EBADF) || err.Error() != "cannot watch interfaces: cannot receive from the kernel: bad file descriptor" {
		t.Errorf("error %v", err)
	}
	want := []string{
		"eth0 carrier up -> down", "eth0 oper_state up -> down",
		"eth0 carrier down -> up", "eth0 oper_state down -> up",
		"eth1 carrier up -> down missed 2 resync", "eth1 oper_state up -> down resync",
		"eth1 carrier down -> up", "eth1 oper_state down -> up",
		"eth3 carrier up -> up missed 4 resync",
		"eth9 presence absent -> present resync",
		"eth2 presence present -> absent resync",
		"eth0 carrier up -> down", "eth0 oper_state up -> down",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	// Watch again: what happened in between was missed.
	third := newKernel(msgs(listed(up(2, "eth0", 5), 0), listed(up(3, "eth1", 5), 0), listed(up(5, "eth3", 5), 0), listed(eth(9, "eth9", 0), 0), done(0)))
	got, err = watchAll(t, c, third)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	want = []string{"eth0 carrier down -> up resync", "eth0 oper_state down -> up resync"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("second Watch (-want +got):\n%s", d)
	}
}

func TestWatchNeverTellsOfAGoneInterfaceByAnInterruptedList(t *testing.T) {
	c := link.New(link.Options{})
	if _, err := watchAll(t, c, newKernel(msgs(listed(eth(2, "eth0", 0), 0), listed(eth(3, "eth1", 0), 0), done(0)))); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	half := func() step { return msgs(listed(eth(2, "eth0", 0), unix.NLM_F_DUMP_INTR), done(0)) }
	got, err := watchAll(t, c, newKernel(half(), half(), half()))
	if !errors.Is(err, context.Canceled) || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWatchTwiceIsRefused(t *testing.T) {
	k := newKernel(msgs(done(0)))
	c := link.New(link.Options{})
	c.SetKernel(dialer(k), nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Watch(ctx, func(collectors.Event) {}) }()
	<-k.asked
	if err := c.Watch(ctx, func(collectors.Event) {}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("second Watch: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-k.closed:
	case <-time.After(time.Second):
		t.Error("socket left open")
	}
}

func TestCollectRatesSurviveRenaming(t *testing.T) {
	o := binary.NativeEndian
	named := func(name string, first uint64) *kernel {
		var b []byte
		for i := range uint64(23) {
			b = o.AppendUint64(b, first+i)
		}
		return newKernel(msgs(listed(eth(2, name, link.FlagsUp, link.Attr(o, unix.IFLA_STATS64, b)), 0), done(0)))
	}
	now := time.Unix(1000, 0)
	c := link.New(link.Options{Now: func() time.Time { return now }})
	c.SetKernel(dialer(named("eth0", 1000), named("wan", 2000)), noEthtool)
	if _, err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	s, err := c.Collect(t.Context())
	if err != nil || len(s) != 1 || s[0].Subject != "wan" {
		t.Fatalf("%+v, %v", s, err)
	}
	if !slices.Contains(s[0].Fields, collectors.F("rx_bps", uint64(8000))) {
		t.Errorf("%+v", s[0].Fields)
	}
}

func TestCollectRatesAndResets(t *testing.T) {
	o := binary.NativeEndian
	counted := func(index int32, first uint64) syscall.NetlinkMessage {
		var b []byte
		for i := range uint64(23) {
			b = o.AppendUint64(b, first+i)
		}
		return listed(eth(index, "eth0", link.FlagsUp, oper(6), link.Attr(o, unix.IFLA_STATS64, b)), 0)
	}
	now := time.Unix(1000, 0)
	c := link.New(link.Options{Now: func() time.Time { return now }})
	c.SetKernel(dialer(
		newKernel(msgs(counted(2, 1000), done(0))),
		newKernel(msgs(counted(2, 2000), done(0))),
		newKernel(msgs(counted(2, 10), done(0))),
		newKernel(msgs(counted(2, 20), done(0))),
		newKernel(msgs(counted(3, 1000), done(0))), // made anew
		newKernel(msgs(counted(2, 5000), done(0))), // and again, with the old index
	), noEthtool)
	get := func() map[string]any {
		t.Helper()
		s, err := c.Collect(t.Context())
		if err != nil || len(s) != 1 || s[0].Subject != "eth0" {
			t.Fatalf("%+v, %v", s, err)
		}
		all := map[string]any{}
		for _, f := range s[0].Fields {
			if _, twice := all[f.Key]; twice {
				t.Errorf("field %s twice", f.Key)
			}
			all[f.Key] = f.Value
		}
		now = now.Add(8 * time.Second)
		return all
	}
	want := []map[string]any{
		{"rx_bytes": uint64(1002), "rx_bps": nil, "counter_reset": nil, "speed_mbps": nil, "duplex": nil, "offload": "unknown"},
		{"rx_bytes": uint64(2002), "rx_bps": uint64(1000), "tx_bps": uint64(1000), "rx_pps": 125.0, "counter_reset": nil},
		{"rx_bytes": uint64(12), "rx_bps": nil, "counter_reset": true},
		{"rx_bytes": uint64(22), "rx_bps": uint64(10), "counter_reset": nil},
		{"rx_bytes": uint64(1002), "rx_bps": nil, "counter_reset": nil},
		{"rx_bytes": uint64(5002), "rx_bps": nil, "counter_reset": nil},
	}
	for i, w := range want {
		got := get()
		for k, v := range w {
			if got[k] != v {
				t.Errorf("sample %d: %s = %v, want %v", i, k, got[k], v)
			}
		}
	}
}
