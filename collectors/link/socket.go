package link

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

// answerTimeout is how long the kernel may take to continue an answer. It
// answers at once unless it holds its lock for a driver that is slow.
const answerTimeout = 5 * time.Second

// maxDumps is how often a list is asked for that changed while it was read.
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

// list reads all interfaces. interrupted reports that the list changed while it
// was read, maxDumps times in a row.
func (c *Collector) list(ctx context.Context) (links map[int]Link, interrupted bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	s, err := c.dial()
	if err != nil {
		return nil, false, err
	}
	defer s.Close()
	defer closeOnDone(ctx, s)()
	pid, err := s.GetPid()
	if err != nil {
		return nil, false, fmt.Errorf("cannot get address of netlink socket: %w", err)
	}
	for range maxDumps {
		links = map[int]Link{}
		interrupted, err = dump(s, pid, true, func(m syscall.NetlinkMessage, _ bool) {
			if m.Header.Type != unix.RTM_NEWLINK {
				return
			}
			l, err := decode(binary.NativeEndian, Link{}, m.Data)
			if err != nil {
				c.log.Debug("cannot use netlink message", "error", err)
				return
			}
			links[l.Index] = l
		})
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		if err != nil || !interrupted {
			break
		}
	}
	return links, interrupted, err
}

// dump asks for all interfaces and hands each message to use until the list is
// complete: those of the list and, on a socket with groups, those that are
// announced meanwhile, in the order in which the kernel made them.
func dump(s socket, pid uint32, stats bool, use func(m syscall.NetlinkMessage, listed bool)) (interrupted bool, err error) {
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := s.SetReceiveTimeout(&timeout); err != nil {
		return false, fmt.Errorf("cannot set netlink timeout: %w", err)
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if !stats {
		request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats)))
	}
	if err := s.Send(request); err != nil {
		return false, fmt.Errorf("cannot ask for interfaces: %w", err)
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
			listed := m.Header.Seq == request.Seq && m.Header.Pid == pid
			if !listed {
				use(m, false)
				continue
			}
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := errnoOf(m.Data); err != nil {
					return interrupted, fmt.Errorf("cannot list interfaces: %w", err)
				}
				done = true
			default:
				use(m, true)
			}
		}
		if done {
			return interrupted, nil
		}
	}
}

// errnoOf returns the error in the body of NLMSG_DONE or NLMSG_ERROR.
func errnoOf(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if n := int32(binary.NativeEndian.Uint32(body)); n < 0 {
		return syscall.Errno(-n)
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
