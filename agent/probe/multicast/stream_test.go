package multicast_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/agent/probe/multicast"
)

func TestSequenceNumbers(t *testing.T) {
	for _, tt := range []struct {
		name string
		seqs []uint16
		want multicast.RTP
	}{
		{"whole", []uint16{5, 6, 7, 8}, multicast.RTP{Packets: 4}},
		{"wraps", []uint16{65534, 65535, 0, 1}, multicast.RTP{Packets: 4}},
		{"one lost", []uint16{1, 2, 4, 5}, multicast.RTP{Packets: 4, Lost: 1}},
		{"lost at the wrap", []uint16{65534, 2}, multicast.RTP{Packets: 2, Lost: 3}},
		{"many lost", []uint16{1, 1001}, multicast.RTP{Packets: 2, Lost: 999}},
		{"duplicate", []uint16{1, 2, 2, 3}, multicast.RTP{Packets: 3, Duplicates: 1}},
		{"reordered", []uint16{1, 3, 2, 4}, multicast.RTP{Packets: 4, Reordered: 1}},
		{"reordered at the wrap", []uint16{65535, 1, 0, 2}, multicast.RTP{Packets: 4, Reordered: 1}},
		{"late and twice", []uint16{1, 4, 2, 2, 3}, multicast.RTP{Packets: 4, Reordered: 2, Duplicates: 1}},
		{"before the first", []uint16{10, 9, 11}, multicast.RTP{Packets: 2, Duplicates: 1}},
		{"restart", []uint16{1, 2, 30000, 30001, 30002}, multicast.RTP{Packets: 5, Restarts: 1}},
		{"restart back", []uint16{1000, 1001, 5, 6, 8}, multicast.RTP{Packets: 5, Lost: 1, Restarts: 1}},
		{"one stray", []uint16{1, 2, 30000, 3, 4}, multicast.RTP{Packets: 4}},
		{"stray before the wrap", []uint16{1, 65535 - 100, 2, 3}, multicast.RTP{Packets: 3}},
		{"restart across the wrap", []uint16{10000, 65535, 0, 1}, multicast.RTP{Packets: 4, Restarts: 1}},
	} {
		var r multicast.RTP
		for _, seq := range tt.seqs {
			r.Take(seq, 7)
		}
		if diff := cmp.Diff(tt.want, r, cmpopts.IgnoreUnexported(multicast.RTP{})); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
	var r multicast.RTP
	for i, ssrc := range []uint32{1, 1, 2, 2} {
		r.Take(uint16(i*5000), ssrc)
	}
	if r.Restarts != 1 || r.Lost != 0 {
		t.Errorf("another SSRC: %+v", r)
	}
}

func TestRTPHeader(t *testing.T) {
	whole := []byte{0xb2, 33, 1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 1, 1, 1, 1, 2, 2, 2, 2, 0xbe, 0xde, 0, 1, 9, 9, 9, 9, 'p', 'a', 0, 2}
	seq, ssrc, payload, ok := multicast.ParseRTP(whole)
	if !ok || seq != 0x102 || ssrc != 7 || string(payload) != "pa" {
		t.Errorf("got %d %d %q %v", seq, ssrc, payload, ok)
	}
	for n := range 28 {
		if _, _, _, ok := multicast.ParseRTP(whole[:n]); ok && n < 20 {
			t.Errorf("cut to %d it is one", n)
		}
	}
	for _, b := range [][]byte{
		append([]byte{0x40}, whole[1:]...),                         // version 1
		append(bytes.Clone(whole[:len(whole)-1]), 0),               // padding of no length
		append(bytes.Clone(whole[:len(whole)-1]), 200),             // padding longer than all
		{0x90, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0xff, 0xff}, // extension longer than all
		{0x8f, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0}, // sources longer than all
		{0xa0, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 13},                  // padding into the header
	} {
		if _, _, _, ok := multicast.ParseRTP(b); ok {
			t.Errorf("% x is one", b)
		}
	}
}

func TestContinuityCounters(t *testing.T) {
	type p struct {
		pid            uint16
		counter, flags byte
	}
	const payload, adaptation, both = 0x10, 0x20, 0x30
	for _, tt := range []struct {
		name    string
		packets []p
		want    multicast.TS
	}{
		{"whole, with a wrap", []p{{1, 14, payload}, {1, 15, payload}, {1, 0, both}}, multicast.TS{Packets: 3, PIDs: 1}},
		{"two PIDs", []p{{1, 1, payload}, {2, 9, payload}, {1, 2, payload}, {2, 10, payload}}, multicast.TS{Packets: 4, PIDs: 2}},
		{"one missing", []p{{1, 1, payload}, {1, 3, payload}}, multicast.TS{Packets: 2, PIDs: 1, Errors: 1, Lost: 1}},
		{"missing at the wrap", []p{{1, 15, payload}, {1, 2, payload}}, multicast.TS{Packets: 2, PIDs: 1, Errors: 1, Lost: 2}},
		{"twice is allowed", []p{{1, 1, payload}, {1, 1, payload}, {1, 2, payload}}, multicast.TS{Packets: 3, PIDs: 1}},
		{"three times isn't", []p{{1, 1, payload}, {1, 1, payload}, {1, 1, payload}}, multicast.TS{Packets: 3, PIDs: 1, Errors: 1, Lost: 15}},
		{"adaptation alone stands still", []p{{1, 1, payload}, {1, 1, adaptation}, {1, 1, adaptation}, {1, 2, payload}}, multicast.TS{Packets: 4, PIDs: 1}},
		{"adaptation first", []p{{1, 1, adaptation}, {1, 7, payload}, {1, 8, payload}}, multicast.TS{Packets: 3, PIDs: 1}},
		{"stuffing", []p{{0x1fff, 1, payload}, {0x1fff, 1, payload}, {0x1fff, 5, payload}}, multicast.TS{Packets: 3}},
	} {
		var ts multicast.TS
		for _, p := range tt.packets {
			if !ts.Take(tsPacket(p.pid, p.counter, p.flags)) {
				t.Fatalf("%s: no TS", tt.name)
			}
		}
		if diff := cmp.Diff(tt.want, ts, cmpopts.IgnoreUnexported(multicast.TS{})); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
	var ts multicast.TS
	announced := tsPacket(1, 9, both)
	announced[4], announced[5] = 1, 0x80
	damaged := tsPacket(1, 3, payload)
	damaged[1] |= 0x80
	for _, b := range [][]byte{tsPacket(1, 1, payload), damaged, announced, tsPacket(1, 10, payload)} {
		ts.Take(b)
	}
	if ts.Errors != 0 || ts.Damaged != 1 {
		t.Errorf("got %d errors, %d damaged", ts.Errors, ts.Damaged)
	}
	for _, b := range [][]byte{nil, make([]byte, 188), tsPacket(1, 1, payload)[:187], append(tsPacket(1, 1, payload), make([]byte, 188)...)} {
		if ts.Take(b) {
			t.Errorf("%d bytes are TS", len(b))
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add(rtpPayload(1), uint16(3))
	f.Add(tsPacket(1, 2, 0x30), uint16(0))
	f.Add([]byte{0xb2, 33, 1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 1, 1, 1, 1, 2, 2, 2, 2, 0xbe, 0xde, 0, 1, 9, 9, 9, 9, 'p', 'a', 0, 2}, uint16(9))
	f.Fuzz(func(t *testing.T, b []byte, step uint16) {
		var r multicast.RTP
		var ts multicast.TS
		seq, ssrc, payload, ok := multicast.ParseRTP(b)
		if ok && len(payload) > len(b)-12 {
			t.Errorf("%d bytes of %d", len(payload), len(b))
		}
		for range 20 {
			r.Take(seq, ssrc)
			ts.Take(payload)
			ts.Take(b)
			seq += step
		}
		if r.Packets+r.Duplicates > 20 || r.Lost > 20*3000 || ts.PIDs > int(ts.Packets) || ts.Lost > 15*ts.Errors {
			t.Errorf("rtp %+v, ts %d %d %d", r, ts.Packets, ts.Errors, ts.Lost)
		}
	})
}
