package ntp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// size is that of a message without authenticator and extensions (RFC 5905
// §7.3), which may follow.
const size = 48

const (
	version    = 4
	modeClient = 3
	modeServer = 4

	leapUnknown  = 3  // "the clock is not synchronised"
	stratumKiss  = 0  // "unspecified", and a code in the reference id
	stratumWorst = 16 // and above: not synchronised
)

var (
	errForeign   = errors.New("answer to someone else")
	errMalformed = errors.New("malformed answer")
)

// stamp is an NTP timestamp: seconds since 1900 and their fraction. The high
// bit of the seconds tells the era (RFC 4330 §3): without it, they count from
// 2036-02-07. This is right until 2104 whatever the clock of this host says.
type stamp uint64

// toUnix is from 1900 to 1970, in seconds.
const toUnix = 2208988800

func (s stamp) time() time.Time {
	seconds := int64(s >> 32)
	if s>>63 == 0 {
		seconds += 1 << 32
	}
	nanos := int64((uint64(s&0xffffffff)*1e9 + 1<<31) >> 32) // rounded
	return time.Unix(seconds-toUnix, nanos)
}

// answer is what a server said.
type answer struct {
	leap, version, stratum uint8
	refID                  [4]byte
	received, sent         stamp // T2 and T3
}

// request writes a question. Everything but the nonce is zero: a server needs to
// know nothing of our clock, and who guesses no nonce forges no answer.
func request(nonce uint64) []byte {
	b := make([]byte, size)
	b[0] = version<<3 | modeClient
	binary.BigEndian.PutUint64(b[40:], nonce)
	return b
}

// parse reads the answer to the question with that nonce. It is errForeign if it
// is well formed and answers another.
func parse(b []byte, nonce uint64) (answer, error) {
	var a answer
	if len(b) < size || b[0]&7 != modeServer {
		return a, errMalformed
	}
	if binary.BigEndian.Uint64(b[24:]) != nonce {
		return a, errForeign
	}
	a.leap, a.version, a.stratum = b[0]>>6, b[0]>>3&7, b[1]
	a.refID = [4]byte(b[12:16])
	a.received = stamp(binary.BigEndian.Uint64(b[32:]))
	a.sent = stamp(binary.BigEndian.Uint64(b[40:]))
	if a.version == 0 || a.version > version {
		return a, errMalformed
	}
	if a.kiss() == "" && a.synchronised() && (a.received == 0 || a.sent == 0 || a.sent.time().Before(a.received.time())) {
		return a, errMalformed
	}
	return a, nil
}

// kiss is the code of a kiss-o'-death packet (RFC 5905 §7.4), or "".
func (a *answer) kiss() string {
	if a.stratum != stratumKiss || !printable(a.refID[:]) {
		return ""
	}
	return string(a.refID[:])
}

func (a *answer) synchronised() bool {
	return a.leap != leapUnknown && a.stratum != stratumKiss && a.stratum < stratumWorst
}

// reference is the reference id as people write it: letters for stratum 1, else
// four numbers, which are an IPv4 address or a hash of an IPv6 one.
func (a *answer) reference() string {
	n := len(a.refID)
	for n > 0 && a.refID[n-1] == 0 {
		n--
	}
	if a.stratum <= 1 && n > 0 && printable(a.refID[:n]) {
		return string(a.refID[:n])
	}
	return netip.AddrFrom4(a.refID).String()
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

// measure computes offset and round trip (RFC 5905 §8) of an answer to what was
// sent at wall and took elapsed.
func (a *answer) measure(wall time.Time, elapsed time.Duration) (offset, rtt time.Duration) {
	t2, t3 := a.received.time(), a.sent.time()
	rtt = max(0, elapsed-t3.Sub(t2))
	// The mean of T2-T1 and T3-T4, without overflow where a clock is in 1970.
	there, back := t2.Sub(wall), t3.Sub(wall.Add(elapsed))
	return there + (back-there)/2, rtt
}
