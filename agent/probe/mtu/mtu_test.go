package mtu_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/mtu"
)

// path is a path as a search sees it: packets to open come back, larger ones
// are refused with the MTU told, or vanish if that is negative.
type path struct{ open, told int }

// find searches a path, and returns the rounds it took.
func find(s *mtu.Search, p path, also ...int) (rounds, sizes int) {
	for try := s.Next(also...); len(try) > 0; try = s.Next() {
		rounds++
		sizes += len(try)
		for _, n := range try {
			switch {
			case n <= p.open:
				s.Answered(n)
			case p.told >= 0:
				s.TooBig(n, p.told)
			}
		}
		for _, n := range try {
			if n > p.open {
				s.Silent(n)
			}
		}
	}
	return rounds, sizes
}

func TestSearchFindsTheMTU(t *testing.T) {
	for _, largest := range []int{1280, 1492, 1500, 9000, 65535} {
		for _, open := range []int{68, 296, 576, 1279, 1280, 1281, 1399, 1400, 1428, 1444, 1453, 1472, 1480, 1491, 1492, 1493, 1499, 1500, 4470, 8999, 9000, 65535} {
			for _, told := range []int{-1, 0, open, 1300, 600, 9001} {
				open := min(open, largest)
				s := mtu.NewSearch(48, largest)
				rounds, sizes := find(s, path{open, told}, 1492)
				if s.Good() != open {
					t.Errorf("to %d, open to %d, told %d: found %d", largest, open, told, s.Good())
				}
				want := open < largest && told >= 0
				if s.Explained() != want {
					t.Errorf("to %d, open to %d, told %d: explained %v", largest, open, told, s.Explained())
				}
				if most := 7; rounds > most || sizes > 60 {
					t.Errorf("to %d, open to %d, told %d: %d rounds, %d sizes", largest, open, told, rounds, sizes)
				}
				if told == open && rounds > 2 {
					t.Errorf("to %d, open to %d, told: %d rounds", largest, open, rounds)
				}
			}
		}
	}
}

func TestSearchRandomly(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		largest := 100 + r.IntN(9000)
		open := 48 + r.IntN(largest-47)
		s := mtu.NewSearch(48, largest)
		find(s, path{open, r.IntN(3*largest) - largest}, r.IntN(largest))
		if s.Good() != open {
			t.Errorf("to %d, open to %d: found %d", largest, open, s.Good())
		}
	}
}

// TestSearchOfTwoBottlenecks: one tells, a smaller one behind it does not.
func TestSearchOfTwoBottlenecks(t *testing.T) {
	s := mtu.NewSearch(48, 1500)
	for try := s.Next(); len(try) > 0; try = s.Next() {
		for _, n := range try {
			switch {
			case n <= 1400:
				s.Answered(n)
			case n > 1492:
				s.TooBig(n, 1492)
			}
		}
		for _, n := range try {
			if n > 1400 {
				s.Silent(n)
			}
		}
	}
	if s.Good() != 1400 || s.Explained() {
		t.Errorf("found %d, explained %v", s.Good(), s.Explained())
	}
}

func TestSearchOfSilence(t *testing.T) {
	s := mtu.NewSearch(48, 1500)
	if rounds, _ := find(s, path{0, -1}); rounds != 1 || s.Good() != 0 {
		t.Errorf("%d rounds, found %d", rounds, s.Good())
	}
}

// TestSearchOfAPathThatChanges must end.
func TestSearchOfAPathThatChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s := mtu.NewSearch(48, 9000)
	rounds := 0
	for try := s.Next(); len(try) > 0; try = s.Next() {
		if rounds++; rounds > 20 {
			t.Fatal("does not end")
		}
		for _, n := range try {
			switch r.IntN(3) {
			case 0:
				s.Answered(n)
			case 1:
				s.TooBig(n, r.IntN(10000))
			default:
				s.Silent(n)
			}
		}
	}
}

func TestRequestReadsBack(t *testing.T) {
	tok := [8]byte{0xff, 2, 3, 4, 5, 6, 7, 0xff}
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{16, 48, 1472, 65515} {
			b := mtu.Request(n, v6, 0xfffe, 0xfffd, tok)
			var sum uint32
			for i := 0; i+1 < n; i += 2 {
				sum += uint32(b[i])<<8 | uint32(b[i+1])
			}
			if n%2 == 1 {
				sum += uint32(b[n-1]) << 8
			}
			for sum > 0xffff {
				sum = sum>>16 + sum&0xffff
			}
			if sum != 0xffff || len(b) != n {
				t.Errorf("%d bytes: %d, sum %#x", n, len(b), sum)
			}
			id, seq, rest, ok := mtu.ParseEcho(b, b[0], false)
			if !ok || id != 0xfffe || seq != 0xfffd || !bytes.HasPrefix(rest, tok[:]) {
				t.Errorf("reads back as %#x %#x %v", id, seq, ok)
			}
		}
	}
	b := mtu.Request(16, false, 1, 2, tok)
	for n := range b {
		if _, _, _, ok := mtu.ParseEcho(b[:n], 8, false); ok != (n >= 8) {
			t.Errorf("%d bytes: %v", n, ok)
		}
	}
}

func extended(family uint16, rest ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, 90)
	b = append(b, 2, 3, 4, 0)
	b = binary.NativeEndian.AppendUint32(b, 1400)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(binary.NativeEndian.AppendUint16(b, family), rest...)
}

func TestParseExtended(t *testing.T) {
	v4 := extended(2, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	v6 := extended(10, append(append([]byte{0, 0, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8::1").AsSlice()...), 0, 0, 0, 0)...)
	for _, tt := range []struct {
		in   []byte
		want netip.Addr
		ok   bool
	}{
		{v4, netip.MustParseAddr("192.0.2.1"), true},
		{v6, netip.MustParseAddr("2001:db8::1"), true},
		{v6[:30], netip.Addr{}, true},
		{v4[:20], netip.Addr{}, true},
		{v4[:16], netip.Addr{}, true},
		{v4[:15], netip.Addr{}, false},
		{nil, netip.Addr{}, false},
	} {
		kind, code, info, from, ok := mtu.ParseExtended(tt.in)
		if ok != tt.ok || from != tt.want || ok && (kind != 3 || code != 4 || info != 1400) {
			t.Errorf("%x: %d %d %d %v %v", tt.in, kind, code, info, from, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(mtu.Request(48, false, 1, 2, [8]byte{3}), byte(8), false)
	f.Add(append(append([]byte{0x45}, make([]byte, 19)...), mtu.Request(48, false, 1, 2, [8]byte{3})...), byte(8), true)
	f.Add([]byte{0x4f, 0}, byte(0), true)
	f.Add(extended(2, 0, 0, 192, 0, 2, 1), byte(0), false)
	f.Add(extended(10, make([]byte, 26)...), byte(0), false)
	f.Fuzz(func(t *testing.T, data []byte, kind byte, header bool) {
		if _, _, rest, ok := mtu.ParseEcho(data, kind, header); ok && len(rest)+8 > len(data) {
			t.Errorf("%d bytes of %d", len(rest), len(data))
		}
		if _, _, _, _, ok := mtu.ParseExtended(data); ok != (len(data) >= 16) {
			t.Errorf("%d bytes: %v", len(data), ok)
		}
	})
}

func TestRunRefusesWhatItCannotMeasure(t *testing.T) {
	for _, o := range []mtu.Options{
		{}, {Target: netip.MustParseAddr("0.0.0.0")}, {Target: netip.MustParseAddr("ff02::1")},
	} {
		if res, err := mtu.Run(t.Context(), o); err == nil {
			t.Errorf("%v: %+v", o.Target, res)
		}
	}
	if _, err := mtu.Run(t.Context(), mtu.Options{Target: netip.MustParseAddr("192.0.2.1"), Interface: "no-such"}); !errors.Is(err, mtu.ErrNoInterface) {
		t.Errorf("no interface: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := mtu.Run(ctx, mtu.Options{Target: netip.MustParseAddr("127.0.0.1")}); !errors.Is(err, context.Canceled) {
		t.Errorf("begun after the end: %v", err)
	}
	if d := (mtu.Options{}).Duration(); d != 15*time.Second {
		t.Errorf("%v", d)
	}
}

func TestResultAsJSON(t *testing.T) {
	got, err := json.Marshal(mtu.Result{
		Outcome: mtu.Reduced, Target: netip.MustParseAddr("192.0.2.1"), Mode: "raw", InterfaceMTU: 1500, ExpectedMTU: 1492, PathMTU: 1400,
		ToldMTU: 1400, ToldBy: netip.MustParseAddr("192.0.2.9"), RTTMs: 1.5, DurationS: 1,
		Probes: []mtu.Probe{{Size: 1500, Sent: 1, Refused: true, ToldMTU: 1400}, {Size: 1400, Sent: 1, Answered: true}},
		TCP:    &mtu.Transfer{Outcome: mtu.TransferOK, Bytes: 65536, SentMSS: 1360, AnnouncedMSS: 1460, ReceivedMSS: 1360},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"outcome":"reduced","target":"192.0.2.1","mode":"raw","interface_mtu":1500,"expected_mtu":1492,"path_mtu":1400,"told_mtu":1400,` +
		`"told_by":"192.0.2.9","rtt_ms":1.5,"probes":[{"size":1500,"sent":1,"answered":false,"refused":true,"told_mtu":1400},` +
		`{"size":1400,"sent":1,"answered":true}],"tcp":{"outcome":"ok","bytes":65536,"small_bytes":0,"sent_mss":1360,"announced_mss":1460,` +
		`"received_mss":1360},"duration_s":1}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
