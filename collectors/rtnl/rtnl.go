// Package rtnl is the rtnetlink socket that the collectors of links and of
// addresses share: opened for a caller's groups, closed with its context, and
// deaf to whoever is not the kernel. What travels over it is theirs to decode.
package rtnl

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

// AnswerTimeout is how long the kernel may take to continue an answer. It
// answers at once unless it holds its lock for a driver that is slow.
const AnswerTimeout = 5 * time.Second

// MaxDumps is how often a list is asked for that changes while it is read.
const MaxDumps = 3

// SkipStats is RTEXT_FILTER_SKIP_STATS: counters are not wanted.
const SkipStats = 1 << 3

// Socket is the part of *nl.NetlinkSocket that is used. Close unblocks Receive.
type Socket interface {
	Send(request *nl.NetlinkRequest) error
	Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)
	SetReceiveTimeout(timeout *unix.Timeval) error
	SetReceiveBufferSize(size int, force bool) error
	GetPid() (uint32, error)
	Close()
}

var _ Socket = (*nl.NetlinkSocket)(nil)

// The library finds out the byte order at its first use, without a lock; here
// that is before anyone can race for it.
var _ = nl.NativeEndian()

// Dial opens a socket that gets what is sent to groups.
func Dial(groups ...uint) (Socket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, fmt.Errorf("cannot open netlink socket: %w", err)
	}
	return s, nil
}

// DialNetfilter opens a socket to nftables and its like.
func DialNetfilter() (Socket, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("cannot open netlink socket: %w", err)
	}
	return s, nil
}

// CloseOnDone closes s when ctx ends. The function it returns takes that back,
// and waits where it is too late.
func CloseOnDone(ctx context.Context, s Socket) (release func()) {
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

// SetTimeout bounds each Receive of s; zero means not at all.
func SetTimeout(s Socket, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	if err := s.SetReceiveTimeout(&tv); err != nil {
		return fmt.Errorf("cannot set netlink timeout: %w", err)
	}
	return nil
}

// Receive returns the next messages from the kernel. The error is compatible
// with errors.Is(err, unix.ENOBUFS) if announcements were lost, and with
// unix.EAGAIN if none came in time.
func Receive(s Socket) ([]syscall.NetlinkMessage, error) {
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

// Errno returns the error in the body of NLMSG_DONE or NLMSG_ERROR.
func Errno(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if n := int32(binary.NativeEndian.Uint32(body)); n < 0 {
		return syscall.Errno(-n)
	}
	return nil
}

// Dump sends a request for a list on a socket of address pid, and hands each
// message to use until the list is complete: those of the list and, on a socket
// with groups, those that are announced meanwhile, in the order in which the
// kernel made them. interrupted reports that the list changed while it was read.
func Dump(s Socket, pid uint32, request *nl.NetlinkRequest, use func(m syscall.NetlinkMessage, listed bool)) (interrupted bool, err error) {
	if err := SetTimeout(s, AnswerTimeout); err != nil {
		return false, err
	}
	if err := s.Send(request); err != nil {
		return false, fmt.Errorf("cannot ask the kernel: %w", err)
	}
	for {
		messages, err := Receive(s)
		if errors.Is(err, unix.EAGAIN) {
			return interrupted, fmt.Errorf("no answer within %s: %w", AnswerTimeout, err)
		}
		if err != nil {
			return interrupted, err
		}
		done := false
		for _, m := range messages {
			if m.Header.Seq != request.Seq || m.Header.Pid != pid {
				use(m, false)
				continue
			}
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := Errno(m.Data); err != nil {
					return interrupted, fmt.Errorf("cannot list: %w", err)
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
