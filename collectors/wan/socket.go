package wan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// answerTimeout is how long the kernel may take to continue an answer.
const answerTimeout = 5 * time.Second

// maxDumps is how often lists are asked for that change while they are read.
const maxDumps = 3

// skipStats is RTEXT_FILTER_SKIP_STATS: counters are not wanted.
const skipStats = 1 << 3

// socket is the part of *nl.NetlinkSocket that is used here. Close unblocks
// Receive.
type socket interface {
	Send(request *nl.NetlinkRequest) error
	Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)
	SetReceiveTimeout(timeout *unix.Timeval) error
	SetReceiveBufferSize(size int, force bool) error
	GetPid() (uint32, error)
	Close()
}

var _ socket = (*nl.NetlinkSocket)(nil)

// dialKernel opens a socket that gets what is sent to groups.
func dialKernel(groups ...uint) (socket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, fmt.Errorf("cannot open netlink socket: %w", err)
	}
	return s, nil
}

// closeOnDone closes s when ctx ends. The function it returns takes that back,
// and waits where it is too late.
func closeOnDone(ctx context.Context, s socket) (release func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.Close()
		close(closed)
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}

// tables are what the kernel has set.
type tables struct {
	links     map[int]iface
	addresses []address
	routes    []route
	// interrupted: they changed while they were read.
	interrupted bool
}

// tables reads interfaces, addresses and routes.
func (c *Collector) tables(ctx context.Context) (tables, error) {
	if err := ctx.Err(); err != nil {
		return tables{}, fmt.Errorf("cannot read addresses and routes: %w", err)
	}
	s, err := c.dial()
	if err != nil {
		return tables{}, err
	}
	defer s.Close()
	defer closeOnDone(ctx, s)()
	if err := setTimeout(s, answerTimeout); err != nil {
		return tables{}, err
	}
	pid, err := s.GetPid()
	if err != nil {
		return tables{}, fmt.Errorf("cannot get address of netlink socket: %w", err)
	}
	var t tables
	for range maxDumps {
		t, err = c.readTables(s, pid)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			return tables{}, fmt.Errorf("cannot read addresses and routes: %w", err)
		}
		if !t.interrupted {
			break
		}
	}
	return t, nil
}

// readTables reads the three lists one after the other.
func (c *Collector) readTables(s socket, pid uint32) (tables, error) {
	t := tables{links: map[int]iface{}}
	order := binary.NativeEndian
	lists := []struct {
		get, entry uint16
		filter     bool
		use        func(body []byte) error
	}{
		{unix.RTM_GETLINK, unix.RTM_NEWLINK, true, func(b []byte) error {
			index, l, err := decodeLink(order, b)
			if err == nil {
				t.links[index] = l
			}
			return err
		}},
		{unix.RTM_GETADDR, unix.RTM_NEWADDR, false, func(b []byte) error {
			a, err := decodeAddress(order, b)
			if err == nil {
				t.addresses = append(t.addresses, a)
			}
			return err
		}},
		{unix.RTM_GETROUTE, unix.RTM_NEWROUTE, false, func(b []byte) error {
			r, err := decodeRoute(order, b)
			if err == nil && (r.isDefault() || r.delegated()) {
				t.routes = append(t.routes, r)
			}
			return err
		}},
	}
	for _, l := range lists {
		request := nl.NewNetlinkRequest(int(l.get), unix.NLM_F_DUMP)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC)) // every header of these begins with the family
		if l.filter {
			request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, order.AppendUint32(nil, skipStats)))
		}
		interrupted, err := dump(s, pid, request, func(m syscall.NetlinkMessage) {
			if m.Header.Type != l.entry {
				return
			}
			if err := l.use(m.Data); err != nil && !errors.Is(err, errOther) {
				c.log.Debug("cannot use netlink message", "error", err)
			}
		})
		if err != nil {
			return tables{}, err
		}
		t.interrupted = t.interrupted || interrupted
	}
	return t, nil
}

// dump sends a request for a list and hands its entries to use.
func dump(s socket, pid uint32, request *nl.NetlinkRequest, use func(syscall.NetlinkMessage)) (interrupted bool, err error) {
	if err := s.Send(request); err != nil {
		return false, fmt.Errorf("cannot ask the kernel: %w", err)
	}
	for {
		messages, err := receive(s)
		if errors.Is(err, unix.EAGAIN) {
			return false, fmt.Errorf("no answer within %s: %w", answerTimeout, err)
		}
		if err != nil {
			return false, err
		}
		done := false
		for _, m := range messages {
			if m.Header.Seq != request.Seq || m.Header.Pid != pid {
				continue
			}
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if len(m.Data) >= 4 {
					if n := int32(binary.NativeEndian.Uint32(m.Data)); n < 0 {
						return interrupted, syscall.Errno(-n)
					}
				}
				done = true
			default:
				use(m)
			}
		}
		if done {
			return interrupted, nil
		}
	}
}

// setTimeout bounds each Receive of s; zero means not at all.
func setTimeout(s socket, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	if err := s.SetReceiveTimeout(&tv); err != nil {
		return fmt.Errorf("cannot set netlink timeout: %w", err)
	}
	return nil
}

// receive returns the next messages from the kernel. The error is compatible
// with errors.Is(err, unix.ENOBUFS) if announcements were lost, and with
// unix.EAGAIN if none came in time.
func receive(s socket) ([]syscall.NetlinkMessage, error) {
	for {
		messages, from, err := s.Receive()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("cannot receive from the kernel: %w", err)
		case from == nil || from.Pid != nl.PidKernel:
			continue // another process may send to us; it has nothing to say
		}
		return messages, nil
	}
}
