package multicast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// never is no time. Times are counted from the begin of the run.
const never = time.Duration(0)

// member is a membership in the making.
type member interface {
	join(now time.Duration) error
	// leave tells it to the network unless silent.
	leave(silent bool) error
	// heard is told of each query while joined.
	heard(now time.Duration, c *control)
	// flowing is told when the stream has come.
	flowing()
	// due is when tick wants to be called.
	due() time.Duration
	tick(now time.Duration) error
	// protocol is what is spoken; "" if the member doesn't know.
	protocol() string
}

// kernelMember leaves everything to the kernel, which counts members: if the
// host had the group before, it neither reports nor leaves on our account.
type kernelMember struct {
	index int // of the interface
	o     *Options
	fd    int // -1 for none
}

// Options of linux/in.h, of the same value for IPv6.
const (
	mcastJoinGroup       = 42 // struct group_req
	mcastJoinSourceGroup = 46 // struct group_source_req
)

func (k *kernelMember) join(time.Duration) error {
	family, level := unix.AF_INET6, unix.IPPROTO_IPV6
	if k.o.Group.Is4() {
		family, level = unix.AF_INET, unix.IPPROTO_IP
	}
	// No traffic comes by this socket; it holds the membership.
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open socket: %w", err)
	}
	// The number of the interface, then addresses, each aligned as a long is.
	const address = 128 // struct sockaddr_storage
	long := int(unsafe.Sizeof(uintptr(0)))
	b := make([]byte, long, long+2*address)
	binary.NativeEndian.PutUint32(b, uint32(k.index))
	option := mcastJoinGroup
	b = b[:long+address]
	putAddress(b[long:], family, k.o.Group)
	if k.o.Source.IsValid() {
		option = mcastJoinSourceGroup
		b = b[:long+2*address]
		putAddress(b[long+address:], family, k.o.Source)
	}
	if err := unix.SetsockoptString(fd, level, option, string(b)); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("cannot join: %w", translate(err))
	}
	k.fd = fd
	return nil
}

// putAddress writes a struct sockaddr_in or sockaddr_in6.
func putAddress(b []byte, family int, addr netip.Addr) {
	binary.NativeEndian.PutUint16(b, uint16(family))
	at := 4
	if family == unix.AF_INET6 {
		at = 8
	}
	copy(b[at:], addr.AsSlice())
}

func (k *kernelMember) leave(bool) error {
	if k.fd < 0 {
		return nil
	}
	err := unix.Close(k.fd)
	k.fd = -1
	return err
}

func (*kernelMember) heard(time.Duration, *control) {}
func (*kernelMember) flowing()                      {}
func (*kernelMember) due() time.Duration            { return never }
func (*kernelMember) tick(time.Duration) error      { return nil }
func (*kernelMember) protocol() string              { return "" }

// frameMember says everything itself.
type frameMember struct {
	o     *Options
	send  func(frame []byte) error
	mac   [6]byte
	local []byte // the sender of reports

	version int
	fixed   bool // no other version than this
	both    bool // the older version is spoken as well
	known   bool // a querier has shown its version

	joined bool
	// When to say what.
	again  time.Duration // the join, against loss
	answer time.Duration // the state, to a query
	older  time.Duration // the join, in the older version: nothing came so far
}

func newFrameMember(w wire, mac net.HardwareAddr, local netip.Addr, o *Options) *frameMember {
	f := &frameMember{o: o, send: w.send, mac: [6]byte(mac), version: o.Version}
	f.fixed = f.version != 0 || o.Source.IsValid()
	if f.version == 0 {
		f.version = v3
	}
	if o.Local.IsValid() || o.VLAN != 0 { // the address of another VLAN would be wrong
		local = o.Local
	}
	f.local = local.AsSlice()
	if f.local == nil {
		f.local = make([]byte, 4)
		if !o.Group.Is4() { // RFC 4291, appendix A
			f.local = []byte("\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xfe\x00\x00\x00")
			copy(f.local[8:], mac[:3])
			copy(f.local[13:], mac[3:])
			f.local[8] ^= 2
		}
	}
	return f
}

// say sends what, in the version spoken and, after falling back, in both.
func (f *frameMember) say(what says) error {
	err := f.sayIn(f.version, what)
	if f.both && f.version == v3 {
		err = errors.Join(err, f.sayIn(v2, what))
	}
	return err
}

func (f *frameMember) sayIn(version int, what says) error {
	b := message(what, version, f.mac, f.local, f.o)
	if b == nil {
		return nil
	}
	err := f.send(b)
	if errors.Is(err, syscall.ENOBUFS) { // the queue was full for a moment
		err = f.send(b)
	}
	return err
}

func (f *frameMember) join(now time.Duration) error {
	if err := f.say(saysJoin); err != nil {
		return fmt.Errorf("cannot send report: %w", err)
	}
	f.joined = true
	// Within the second that RFC 3376, section 8.11, gives.
	f.again = now + 100*time.Millisecond + random(900*time.Millisecond)
	if !f.fixed {
		f.older = now + f.o.Wait/2
	}
	return nil
}

// random returns a time from 0 to below n.
func random(n time.Duration) time.Duration {
	return time.Duration(rand.Int64N(int64(n))) //nolint:gosec // spreads answers; nobody gains by guessing it
}

// leave sends it twice: one may get lost, and nobody would tell.
func (f *frameMember) leave(silent bool) error {
	joined := f.joined
	f.joined = false
	if !joined || silent {
		return nil
	}
	if err := errors.Join(f.say(saysLeave), f.say(saysLeave)); err != nil {
		return fmt.Errorf("cannot send leave: %w", err)
	}
	return nil
}

func (f *frameMember) heard(now time.Duration, c *control) {
	f.known = true
	if c.version < f.version && !f.fixed {
		f.version, f.both = c.version, false
		f.again = now // it may not have understood
	}
	if !f.joined || c.group.IsValid() && c.group != f.o.Group {
		return
	}
	if c.maxDelay > 0 {
		now += random(c.maxDelay)
	}
	if f.answer == never || now < f.answer {
		f.answer = now
	}
}

func (f *frameMember) due() time.Duration {
	first := never
	if !f.joined {
		return first
	}
	for _, t := range [...]time.Duration{f.again, f.answer, f.older} {
		if t != never && (first == never || t < first) {
			first = t
		}
	}
	return first
}

func (f *frameMember) tick(now time.Duration) (err error) {
	if past(&f.again, now) {
		err = f.say(saysJoin)
	}
	if past(&f.answer, now) {
		err = errors.Join(err, f.say(saysState))
	}
	if past(&f.older, now) && !f.known {
		f.both = true
		err = errors.Join(err, f.sayIn(v2, saysJoin))
	}
	return err
}

// past reports whether a time has come, and forgets it.
func past(t *time.Duration, now time.Duration) bool {
	if *t == never || *t > now {
		return false
	}
	*t = never
	return true
}

func (f *frameMember) flowing() { f.older = never }

func (f *frameMember) protocol() string {
	if f.both {
		return protocol(f.o.Group.Is4(), v2)
	}
	return protocol(f.o.Group.Is4(), f.version)
}
