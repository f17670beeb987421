package mtu

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TransferOutcome is what the transfer by TCP shows, in a word.
type TransferOutcome string

// The outcomes of a transfer.
const (
	TransferOK        TransferOutcome = "ok"             // more than a full segment arrives
	TransferBlackHole TransferOutcome = "mss_black_hole" // they don't, small ones do
	TransferStalled   TransferOutcome = "stalled"        // neither: the fault is not of size
	TransferShort     TransferOutcome = "too_short"      // what came proves nothing: less than a full segment
	TransferFailed    TransferOutcome = "failed"         // no connection, or no answer: Error
)

// Transfer is what a transfer showed.
type Transfer struct {
	Outcome TransferOutcome `json:"outcome"`
	// Bytes came in segments as large as they are, SmallBytes in small ones,
	// which is tried after a stall; each to 64 KiB, the answer's head included.
	Bytes      int `json:"bytes"`
	SmallBytes int `json:"small_bytes"`
	// SentMSS is the most that we send in a segment, in bytes of payload and
	// options: the peer's announcement, as changed on the way, or what the route
	// here allows, whichever is less. AnnouncedMSS is what we told the peer,
	// ReceivedMSS the payload of the largest segment that came, or 536.
	SentMSS      int `json:"sent_mss,omitempty"`
	AnnouncedMSS int `json:"announced_mss,omitempty"`
	ReceivedMSS  int `json:"received_mss,omitempty"`
	// OutOfOrder counts segments that came past a gap: the small one at the
	// end of a window of lost ones.
	OutOfOrder int    `json:"out_of_order,omitempty"`
	Error      string `json:"error,omitempty"`
}

// The MSS that any path carries (RFC 9293 section 3.7.1).
const (
	smallMSS4 = 536
	smallMSS6 = 1220
)

const (
	maxTransfer    = 64 << 10
	connectTimeout = 3 * time.Second
)

// errStall is how a transfer ends that pauses too long.
var errStall = errors.New("nothing more comes")

// run asks for the page as usual, and again with small segments if that stalls.
func (t *Transfer) run(ctx context.Context, o Options) error {
	if strings.ContainsFunc(o.Host+o.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errors.New("host and path must be of visible ASCII characters")
	}
	n, info, err := fetch(ctx, o, 0)
	t.Bytes = n
	if info != nil {
		t.SentMSS, t.AnnouncedMSS, t.ReceivedMSS = int(info.Snd_mss), int(info.Advmss), int(info.Rcv_mss)
		const timestamps, length = 1, 12 // TCPI_OPT_TIMESTAMPS; the kernel counts what they leave
		if info.Options&timestamps != 0 {
			t.SentMSS, t.AnnouncedMSS = t.SentMSS+length, t.AnnouncedMSS+length
		}
		t.OutOfOrder = int(info.Rcv_ooopack)
	}
	small := smallMSS4
	if !o.Target.Is4() {
		small = smallMSS6
	}
	full := max(small, t.AnnouncedMSS)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errStall) && n < full:
		t.SmallBytes, _, err = fetch(ctx, o, small)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.Outcome = TransferStalled
		if err == nil && t.SmallBytes > t.Bytes {
			t.Outcome = TransferBlackHole
		}
	case err != nil && !errors.Is(err, errStall):
		t.Outcome = TransferFailed
	case n < full:
		t.Outcome = TransferShort
	default:
		t.Outcome = TransferOK
	}
	if err != nil {
		t.Error = err.Error()
	}
	return nil
}

// fetch asks for the page and takes at most maxTransfer bytes of what comes.
// mss is announced to the server, 0: what the interface has. info is of the end.
func fetch(ctx context.Context, o Options, mss int) (n int, info *unix.TCPInfo, err error) {
	d := net.Dialer{Timeout: connectTimeout, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if o.Interface != "" {
				failed = unix.BindToDevice(int(fd), o.Interface)
			}
			if mss > 0 && failed == nil {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss)
			}
		})
		if err != nil {
			return err
		}
		return os.NewSyscallError("setsockopt", failed)
	}}
	target := o.Target
	if target.IsLinkLocalUnicast() && !target.Is4() && target.Zone() == "" {
		target = target.WithZone(o.Interface)
	}
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(target, o.Port).String())
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, "GET "+o.Path+" HTTP/1.1\r\nHost: "+o.Host+"\r\nUser-Agent: ontagent\r\nConnection: close\r\n\r\n"); err != nil {
		return 0, nil, err
	}
	var buf [4096]byte
	for n < maxTransfer && err == nil {
		if err = conn.SetReadDeadline(time.Now().Add(o.Stall)); err != nil {
			break
		}
		if err = ctx.Err(); err != nil { // its end may have come before the deadline was set
			break
		}
		var m int
		m, err = conn.Read(buf[:])
		n += m
	}
	switch {
	case errors.Is(err, io.EOF):
		err = nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errStall
	}
	return n, tcpInfo(conn), err
}

func tcpInfo(conn net.Conn) (info *unix.TCPInfo) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			info = i
		}
	})
	return info
}
