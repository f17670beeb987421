package linux

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Restart is an interface as it was before it is taken down: what the kernel
// forgets then, which is its routes and its IPv6 addresses, is kept to be put
// back. It is made by PrepareRestart, encodes as JSON, and may be undone by
// another process than the one that made it.
type Restart struct {
	// Boot is the kernel's own name of this boot: after another one all that is
	// below is of the past.
	Boot      string `json:"boot"`
	Interface string `json:"interface"`
	// Index tells an interface from another that got its name since.
	Index int  `json:"index"`
	WasUp bool `json:"was_up"`
	// Lost are the bodies of the kernel's messages on addresses and routes, in
	// the order in which they must be put back.
	Lost []LostPart `json:"lost,omitempty"`
}

// LostPart is an address or a route.
type LostPart struct {
	Type uint16 `json:"type"` // RTM_NEWADDR, RTM_NEWROUTE
	Body []byte `json:"body"`
}

// What a Restart keeps at most. An interface towards an operator has a handful
// of routes; one that has a full table is not restarted.
const (
	maxLost      = 64
	maxLostBytes = 8 << 10
)

// PrepareRestart reads what restarting an interface would lose. It changes
// nothing. An interface that is a PPP session, a bridge's port or the loopback
// is refused: that is not what carries a line. So is one with others stacked on
// it, as VLANs are: what they would lose is not kept.
func PrepareRestart(root, name string) (*Restart, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("cannot restart %s: %w", name, err)
	}
	kind, _ := readSome(root+"/sys/class/net/"+name+"/type", 16) // unknown: 0
	_, portErr := readSome(root+"/sys/class/net/"+name+"/brport/state", 16)
	switch {
	case ifi.Flags&net.FlagLoopback != 0:
		return nil, fmt.Errorf("cannot restart %s: it is the loopback", name)
	case ifi.Flags&net.FlagPointToPoint != 0 || strings.TrimSpace(string(kind)) == "512": // ARPHRD_PPP
		return nil, fmt.Errorf("cannot restart %s: it is a PPP session, which is redialled", name)
	case portErr == nil:
		return nil, fmt.Errorf("cannot restart %s: it is a port of a bridge, hence of the home", name)
	}
	for _, n := range namesIn(root + "/sys/class/net/" + name) {
		if upper, ok := strings.CutPrefix(n, "upper_"); ok {
			return nil, fmt.Errorf("cannot restart %s: %s is stacked on it, and would lose its routes", name, upper)
		}
	}
	r := &Restart{Boot: bootID(root), Interface: name, Index: ifi.Index, WasUp: ifi.Flags&net.FlagUp != 0}
	if !r.WasUp {
		return r, nil // it has nothing to lose
	}
	if err := r.remember(); err != nil {
		return nil, fmt.Errorf("cannot restart %s: %w", name, err)
	}
	return r, nil
}

// remember collects the addresses, then the routes, those of the link itself
// first: by way of them the others are reached.
func (r *Restart) remember() error {
	var direct, via []LostPart
	size := 0
	for _, list := range []int{unix.RTM_GETADDR, unix.RTM_GETROUTE} {
		data, err := syscall.NetlinkRIB(list, unix.AF_UNSPEC)
		if err != nil {
			return fmt.Errorf("cannot list what it has: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(data)
		if err != nil {
			return fmt.Errorf("cannot list what it has: %w", err)
		}
		for _, m := range messages {
			p := LostPart{Type: m.Header.Type, Body: m.Data}
			gateway, ours := r.loses(p)
			if !ours {
				continue
			}
			if size += len(p.Body); size > maxLostBytes || len(direct)+len(via) >= maxLost {
				return errors.New("it has more addresses and routes than could be put back")
			}
			if p.Type == unix.RTM_NEWROUTE {
				// How it was just now: with that the kernel takes no IPv4 route back.
				flags := binary.NativeEndian.Uint32(p.Body[8:])
				binary.NativeEndian.PutUint32(p.Body[8:], flags&^(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN))
			}
			if gateway {
				via = append(via, p)
			} else {
				direct = append(direct, p)
			}
		}
	}
	r.Lost = append(direct, via...)
	return nil
}

// notKept are the flags of addresses with a lifetime that come by themselves –
// all that are of a router advertisement have MANAGETEMPADDR or TEMPORARY – or
// were not in use.
const notKept = unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_TEMPORARY | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// loses reports whether a message is of an address or route of the interface
// that goes when it goes down and that nobody else brings back; and whether it
// is a route by a gateway. Those that the kernel makes by itself, and those of
// router advertisements, come by themselves.
func (r *Restart) loses(p LostPart) (gateway, ours bool) {
	switch {
	case p.Type == unix.RTM_NEWADDR && len(p.Body) >= unix.SizeofIfAddrmsg:
		b := p.Body
		flags := uint32(b[2])
		if v := attribute(b[unix.SizeofIfAddrmsg:], unix.IFA_FLAGS); len(v) == 4 {
			flags = binary.NativeEndian.Uint32(v)
		}
		index := int(binary.NativeEndian.Uint32(b[4:]))
		return false, b[0] == unix.AF_INET6 && b[3] == unix.RT_SCOPE_UNIVERSE && index == r.Index &&
			(flags&unix.IFA_F_PERMANENT != 0 || flags&notKept == 0)
	case p.Type == unix.RTM_NEWROUTE && len(p.Body) >= unix.SizeofRtMsg:
		b := p.Body
		protocol, cloned := b[5], binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0
		attrs := b[unix.SizeofRtMsg:]
		out := attribute(attrs, unix.RTA_OIF)
		if cloned || protocol == unix.RTPROT_KERNEL || protocol == unix.RTPROT_REDIRECT || protocol == unix.RTPROT_RA ||
			b[7] != unix.RTN_UNICAST || len(out) != 4 || int(binary.NativeEndian.Uint32(out)) != r.Index {
			return false, false
		}
		return attribute(attrs, unix.RTA_GATEWAY) != nil || attribute(attrs, unix.RTA_VIA) != nil, true
	}
	return false, false
}

// attribute returns the value of an attribute, or nil if there is none.
func attribute(b []byte, typ uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == typ {
			return b[unix.SizeofRtAttr:length]
		}
		b = b[min(len(b), (length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return nil
}

// Run takes the interface down, waits, and puts it up again with all it had:
// also if ctx ends meanwhile, and if the caller panics. What must survive the
// process – r itself – is the caller's to keep before, and to forget after.
func (r *Restart) Run(ctx context.Context, down time.Duration) (err error) {
	if r.WasUp {
		// Before it is taken down: from there on it must come up.
		defer func() { err = errors.Join(err, r.Up(context.WithoutCancel(ctx))) }()
		if err := setUp(r.Interface, r.Index, false); err != nil {
			return err
		}
		timer := time.NewTimer(down)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	}
	return r.Up(ctx)
}

// upTries is how often an interface is put up that does not come: a driver may
// be busy still with taking it down.
const upTries = 5

// Up puts the interface up, with what it lost. What it has again already is
// left alone.
func (r *Restart) Up(ctx context.Context) error {
	var err error
	for range upTries {
		if err = setUp(r.Interface, r.Index, true); err == nil {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
	if err != nil {
		return err
	}
	return r.restore()
}

// Restore makes the interface what it was before: up with what it had, or down.
// It is what undoes a restart, and what a new process does for one that was
// killed in the middle of it. An interface that is gone, or is another one by
// now, is left alone.
func (r *Restart) Restore(ctx context.Context) error {
	if !r.WasUp {
		return setUp(r.Interface, r.Index, false)
	}
	return r.Up(ctx)
}

// ErrGone is found by errors.Is in the error of what was meant for an interface
// that is not there any more.
var ErrGone = errors.New("it is gone")

func bootID(root string) string {
	id, _ := readSome(root+"/proc/sys/kernel/random/boot_id", 64) // every Linux has one
	return strings.TrimSpace(string(id))
}

// ParseRestart decodes a Restart, and refuses one that could not have been
// encoded. Of one of an earlier boot the error is ErrGone.
func ParseRestart(root string, data []byte) (*Restart, error) {
	var r Restart
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("cannot read a restart: %w", err)
	}
	size := 0
	for _, p := range r.Lost {
		if size += len(p.Body); p.Type != unix.RTM_NEWADDR && p.Type != unix.RTM_NEWROUTE {
			return nil, fmt.Errorf("cannot read a restart: it puts back a message of type %d", p.Type)
		}
	}
	if r.Interface == "" || len(r.Interface) >= unix.IFNAMSIZ || r.Index <= 0 || len(r.Lost) > maxLost || size > maxLostBytes {
		return nil, errors.New("cannot read a restart: it names no interface, or has more than one can")
	}
	if r.Boot != bootID(root) {
		return nil, fmt.Errorf("cannot undo the restart of %s, which was before the machine's: %w", r.Interface, ErrGone)
	}
	return &r, nil
}

// setUp takes an interface up or down, if it is still the one of that index.
func setUp(name string, index int, up bool) error {
	what := "down"
	if up {
		what = "up"
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("cannot take %s %s: %w: %w", name, what, ErrGone, err)
	}
	if ifi.Index != index {
		return fmt.Errorf("cannot take %s %s: another interface has this name: %w", name, what, ErrGone)
	}
	if (ifi.Flags&net.FlagUp != 0) == up {
		return nil
	}
	change := [unix.SizeofIfInfomsg]byte{0: unix.AF_UNSPEC}
	binary.NativeEndian.PutUint32(change[4:], uint32(index))
	if up {
		binary.NativeEndian.PutUint32(change[8:], unix.IFF_UP)
	}
	binary.NativeEndian.PutUint32(change[12:], unix.IFF_UP)
	if err := exchange([]LostPart{{Type: unix.RTM_NEWLINK, Body: change[:]}}, 0); err != nil {
		return fmt.Errorf("cannot take %s %s: %w", name, what, err)
	}
	return nil
}

// restore puts back what is not there any more.
func (r *Restart) restore() error {
	if len(r.Lost) == 0 {
		return nil
	}
	if err := exchange(r.Lost, unix.NLM_F_CREATE|unix.NLM_F_EXCL); err != nil {
		return fmt.Errorf("cannot put back all that %s had: %w", r.Interface, err)
	}
	return nil
}

// answerTime bounds the kernel's answer to one message.
const answerTime = 5 * time.Second

// exchange sends messages one by one and waits for the kernel's word on each.
// What is there already is no error.
func exchange(parts []LostPart, flags uint16) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	tv := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	var problems []error
	for i, p := range parts {
		err := ask(fd, uint32(i+1), p, flags)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func ask(fd int, seq uint32, p LostPart, flags uint16) error {
	const header = unix.SizeofNlMsghdr
	message := make([]byte, header+len(p.Body))
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], p.Type)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	binary.NativeEndian.PutUint32(message[8:], seq)
	copy(message[header:], p.Body)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 16<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("no answer from the kernel: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // another process may send to us; it has nothing to say
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type != unix.NLMSG_ERROR || m.Header.Seq != seq || len(m.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return unix.Errno(-code)
			}
			return nil
		}
	}
}
