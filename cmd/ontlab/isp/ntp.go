package isp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// NTPOptions describe a time server. Listen has to be given.
type NTPOptions struct {
	// Listen are its addresses; it answers at port 123 unless they say
	// otherwise.
	Listen []netip.AddrPort
	// Stratum is how far it is from a clock, 1 to 15. 0 means 2.
	Stratum uint8
	// Offset is by how much it is wrong, to begin with.
	Offset time.Duration
	// Now is its clock. nil means the machine's.
	Now func() time.Time
}

// NTP is a time server (RFC 5905, the server's part of it). It is safe for
// concurrent use.
//
// Its faults replace one another, and Healthy ends them all.
type NTP struct {
	log    *responderLog
	now    func() time.Time
	conns  []net.PacketConn
	served sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	healthy ntpState
	state   ntpState
}

// ntpState is what a server says of itself.
type ntpState struct {
	stratum        uint8
	offset         time.Duration
	unsynchronised bool
	kiss           string
	dead           bool
}

// StartNTP starts a time server, which answers when StartNTP returns. ctx
// bounds the start only.
func StartNTP(ctx context.Context, host *netbox.Host, o NTPOptions) (*NTP, error) {
	fail := func(err error) (*NTP, error) {
		return nil, fmt.Errorf("cannot start NTP server on %s: %w", host.Name(), err)
	}
	if len(o.Listen) == 0 {
		return fail(errors.New("it has no address"))
	}
	if o.Stratum == 0 {
		o.Stratum = 2
	}
	if o.Stratum > 15 {
		return fail(fmt.Errorf("stratum %d is not within 1 and 15", o.Stratum))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	log, err := openResponderLog(host, "ntp")
	if err != nil {
		return fail(err)
	}
	var conns []net.PacketConn
	for _, at := range o.Listen {
		if at.Port() == 0 {
			at = netip.AddrPortFrom(at.Addr(), 123)
		}
		conn, err := host.ListenPacket(ctx, "udp", at.String())
		if err != nil {
			err = errors.Join(err, log.Close())
			for _, c := range conns {
				err = errors.Join(err, c.Close())
			}
			return fail(err)
		}
		conns = append(conns, conn)
	}
	return newNTP(o, conns, log), nil
}

func newNTP(o NTPOptions, conns []net.PacketConn, log *responderLog) *NTP {
	healthy := ntpState{stratum: o.Stratum, offset: o.Offset}
	s := &NTP{log: log, now: o.Now, conns: conns, healthy: healthy, state: healthy}
	for _, conn := range conns {
		s.served.Go(func() { s.serve(conn) })
	}
	return s
}

// serve answers until its socket is closed.
func (s *NTP) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		received := s.now()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of a datagram before: nobody was there any more
		}
		s.mu.Lock()
		state := s.state
		s.mu.Unlock()
		answer := ntpAnswer(buf[:n], state, received, s.now)
		if answer == nil {
			continue
		}
		if _, err := conn.WriteTo(answer, from); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Warn("request is not answered", "source", from.String(), "error", err)
		}
	}
}

// Of RFC 5905, figure 8.
const (
	ntpSize           = 48
	ntpModeClient     = 3
	ntpModeServer     = 4
	ntpUnsynchronised = 3 << 6 // leap indicator
	ntpEpoch          = 2_208_988_800
)

// ntpAnswer returns a server's answer, or nil where there is none.
func ntpAnswer(request []byte, state ntpState, received time.Time, now func() time.Time) []byte {
	if len(request) < ntpSize || state.dead {
		return nil
	}
	version := request[0] >> 3 & 7
	if request[0]&7 != ntpModeClient || version < 1 || version > 4 {
		return nil
	}
	p := make([]byte, ntpSize)
	p[0] = version<<3 | ntpModeServer
	p[1] = state.stratum
	p[2] = request[2]                             // poll
	p[3] = 0xec                                   // 2^-20 s, a microsecond
	binary.BigEndian.PutUint32(p[4:], 0x10000/64) // 16 ms to the reference and back
	binary.BigEndian.PutUint32(p[8:], 0x10000/64)
	copy(p[12:], []byte{192, 0, 2, 123}) // whom it has the time from
	if state.stratum == 1 {
		copy(p[12:], "GPS\x00")
	}
	ntpPut(p[16:], received.Add(state.offset-16*time.Second)) // last set
	switch {
	case state.kiss != "":
		p[0] |= ntpUnsynchronised
		p[1] = 0
		copy(p[12:16], state.kiss)
	case state.unsynchronised:
		p[0] |= ntpUnsynchronised
		p[1] = 0 // that is how 16 is written
		copy(p[12:16], "INIT")
		clear(p[16:24])
	}
	copy(p[24:32], request[40:48])
	ntpPut(p[32:], received.Add(state.offset))
	ntpPut(p[40:], now().Add(state.offset))
	return p
}

// ntpPut writes a time stamp: seconds since 1900, and 2^-32 of them.
func ntpPut(p []byte, t time.Time) {
	binary.BigEndian.PutUint32(p, uint32(t.Unix()+ntpEpoch)) // it wraps in 2036
	binary.BigEndian.PutUint32(p[4:], uint32(uint64(t.Nanosecond())<<32/1_000_000_000))
}

// Healthy ends the fault, whichever it is.
func (s *NTP) Healthy() { s.set(s.healthy) }

// Offset lets its clock be wrong by d; before the truth if d is negative.
func (s *NTP) Offset(d time.Duration) {
	state := s.healthy
	state.offset = d
	s.set(state)
}

// Stratum lets it be this far from a clock, 1 to 15.
func (s *NTP) Stratum(n uint8) error {
	if n < 1 || n > 15 {
		return fmt.Errorf("cannot set stratum %d: it is not within 1 and 15", n)
	}
	state := s.healthy
	state.stratum = n
	s.set(state)
	return nil
}

// KissOfDeath refuses every client with a code of four letters: RATE, DENY,
// RSTR (RFC 5905, §7.4).
func (s *NTP) KissOfDeath(code string) error {
	if len(code) != 4 {
		return fmt.Errorf("cannot refuse with %q: a code has four letters", code)
	}
	state := s.healthy
	state.kiss = code
	s.set(state)
	return nil
}

// Unsynchronised lets it answer that it has no time itself: leap indicator 3,
// stratum 0, reference INIT, as ntpd does after its start.
func (s *NTP) Unsynchronised() {
	state := s.healthy
	state.unsynchronised = true
	s.set(state)
}

// Dead answers nothing; its ports are not refused.
func (s *NTP) Dead() {
	state := s.healthy
	state.dead = true
	s.set(state)
}

func (s *NTP) set(state ntpState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// Stop ends the server for good. Stopping it again does nothing.
func (s *NTP) Stop() error {
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return nil
	}
	var err error
	for _, conn := range s.conns {
		err = errors.Join(err, conn.Close())
	}
	s.served.Wait()
	if err = errors.Join(err, s.log.Close()); err != nil {
		return fmt.Errorf("cannot stop NTP server: %w", err)
	}
	return nil
}
