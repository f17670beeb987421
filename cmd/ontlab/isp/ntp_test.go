package isp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// ntpReply is what a client makes of an answer.
type ntpReply struct {
	leap, version, mode, stratum byte
	reference                    string
	offset                       time.Duration
	within                       time.Duration // of that
}

func readNTP(t *testing.T, request, p []byte, sent, received time.Time) ntpReply {
	t.Helper()
	if len(p) != 48 || string(p[24:32]) != string(request[40:48]) {
		t.Fatalf("answer % x does not belong to request % x", p, request)
	}
	at := func(p []byte) time.Time {
		seconds, fraction := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
		return time.Unix(int64(seconds)-2208988800, int64(uint64(fraction)*1e9>>32))
	}
	return ntpReply{
		leap: p[0] >> 6, version: p[0] >> 3 & 7, mode: p[0] & 7, stratum: p[1], reference: string(p[12:16]),
		offset: (at(p[32:]).Sub(sent) + at(p[40:]).Sub(received)) / 2,
		within: received.Sub(sent)/2 + time.Millisecond,
	}
}

func askNTP(t *testing.T, from *netbox.Host, at string, wait time.Duration) (ntpReply, error) {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", at)
	must(t, err)
	defer conn.Close()
	request := make([]byte, 48)
	request[0] = 4<<3 | 3
	copy(request[40:], "whatever")
	must(t, conn.SetDeadline(time.Now().Add(wait)))
	sent := time.Now()
	if _, err := conn.Write(request); err != nil {
		return ntpReply{}, err
	}
	p := make([]byte, 100)
	n, err := conn.Read(p)
	if err != nil {
		return ntpReply{}, err
	}
	return readNTP(t, request, p[:n], sent, time.Now()), nil
}

func TestNTPAnswersClientsOnly(t *testing.T) {
	now := func() time.Time { return time.Unix(1e9, 0) }
	request := make([]byte, 48)
	for first := range 256 {
		request[0] = byte(first)
		version, mode := byte(first)>>3&7, byte(first)&7
		answer := ntpAnswer(request, ntpState{stratum: 2}, now(), now)
		if want := mode == 3 && version >= 1 && version <= 4; (answer != nil) != want {
			t.Errorf("version %d, mode %d is answered: %v", version, mode, answer != nil)
		} else if want && answer[0] != version<<3|4 {
			t.Errorf("version %d, mode 3 is answered by %#x", version, answer[0])
		}
	}
	request[0] = 4<<3 | 3
	for n := range len(request) {
		if ntpAnswer(request[:n], ntpState{stratum: 2}, now(), now) != nil {
			t.Errorf("%d bytes are answered", n)
		}
	}
	if len(ntpAnswer(append(request, make([]byte, 20)...), ntpState{stratum: 2}, now(), now)) != 48 {
		t.Error("a request with more behind it is not answered as one without")
	}
}

func TestNTP(t *testing.T) {
	core, home := coreAndHome(t)
	began := time.Now()
	s, err := StartNTP(bounded(t), core, NTPOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("10.64.0.1:0"), netip.MustParseAddrPort("[fd00:64::1]:123")}})
	must(t, err)
	t.Logf("started in %v", time.Since(began))
	defer func() { must(t, s.Stop(), s.Stop()) }()
	expect := func(what string, want ntpReply) {
		t.Helper()
		for _, at := range []string{"10.64.0.1:123", "[fd00:64::1]:123"} {
			got, err := askNTP(t, home, at, patience)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if wrong := (got.offset - want.offset).Abs(); wrong > got.within {
				t.Errorf("%s: wrong by %v, want %v", what, got.offset, want.offset)
			}
			got.offset, got.within = want.offset, 0
			if want.reference == "" {
				got.reference = ""
			}
			if got != want {
				t.Errorf("%s at %s: %+v, want %+v", what, at, got, want)
			}
		}
	}
	healthy := ntpReply{version: 4, mode: 4, stratum: 2}
	expect("healthy", healthy)
	s.Offset(-time.Hour)
	expect("an hour late", ntpReply{version: 4, mode: 4, stratum: 2, offset: -time.Hour})
	must(t, s.Stratum(15))
	expect("far from a clock", ntpReply{version: 4, mode: 4, stratum: 15})
	must(t, s.KissOfDeath("RATE"))
	expect("kiss of death", ntpReply{leap: 3, version: 4, mode: 4, reference: "RATE"})
	s.Unsynchronised()
	expect("unsynchronised", ntpReply{leap: 3, version: 4, mode: 4, reference: "INIT"})
	s.Dead()
	if _, err := askNTP(t, home, "10.64.0.1:123", 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("dead: %v", err)
	}
	s.Healthy()
	expect("healthy again", healthy)
	if s.Stratum(16) == nil || s.Stratum(0) == nil || s.KissOfDeath("NO") == nil {
		t.Error("faults that are none are played")
	}
}
