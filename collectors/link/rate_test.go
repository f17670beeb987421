package link_test

import (
	"math"
	"testing"
	"time"

	"ontagent/collectors/link"
)

func TestRate(t *testing.T) {
	const wrap = 1 << 32
	c := func(bits int, rxBytes, rxPackets uint64) link.Counters {
		return link.Counters{RxBytes: rxBytes, RxPackets: rxPackets, TxBytes: 10, TxPackets: 1, Bits: bits}
	}
	tests := []struct {
		name  string
		a, b  link.Counters
		d     time.Duration
		valid bool
		reset bool
		bps   uint64
		pps   float64
	}{
		{name: "Steady", a: c(64, 1000, 10), b: c(64, 2000, 12), d: 2 * time.Second, valid: true, bps: 4000, pps: 1},
		{name: "Idle", a: c(64, 5, 5), b: c(64, 5, 5), d: time.Second, valid: true},
		{name: "SubSecond", a: c(64, 0, 0), b: c(64, 125, 1), d: 250 * time.Millisecond, valid: true, bps: 4000, pps: 4},
		{name: "TenthsOfPackets", a: c(64, 0, 0), b: c(64, 0, 1), d: 30 * time.Second, valid: true, pps: 0},
		{name: "TenGigabit", a: c(64, 1<<40, 1<<30), b: c(64, 1<<40+12_500_000_000, 1<<30+8_333_333), d: 10 * time.Second, valid: true, bps: 10_000_000_000, pps: 833333.3},
		{name: "No time passed", a: c(64, 1, 1), b: c(64, 2, 2), d: 0},
		{name: "Clock went back", a: c(64, 1, 1), b: c(64, 2, 2), d: -time.Second},
		{name: "No counters", a: link.Counters{}, b: c(64, 2, 2), d: time.Second},
		{name: "Reset", a: c(64, 1e9, 1e6), b: c(64, 100, 1), d: time.Second, reset: true},
		{name: "Reset to zero", a: c(64, 1e9, 1e6), b: c(64, 0, 0), d: time.Second, reset: true},
		{name: "Reset of a large one", a: c(64, 9e9, 1e7), b: c(64, 100, 1e7+1), d: time.Second, reset: true},
		{name: "Only packets reset", a: c(64, 100, 100), b: c(64, 200, 2), d: time.Second, reset: true},
		// A driver that counts in 32 bits behind a 64-bit answer.
		{name: "Bytes wrap", a: c(64, wrap-1000, 100), b: c(64, 500, 102), d: time.Second, valid: true, bps: 12000, pps: 2},
		{name: "Bytes wrap to zero", a: c(64, wrap-1, 100), b: c(64, 0, 101), d: time.Second, valid: true, bps: 8, pps: 1},
		{name: "More than the packets can hold", a: c(64, wrap/2, 100), b: c(64, 500, 102), d: time.Second, reset: true},
		{name: "Bytes fall, no packets", a: c(64, wrap-1000, 100), b: c(64, 500, 100), d: time.Second, reset: true},
		// An old kernel's 32-bit answer.
		{name: "Both wrap in 32 bits", a: c(32, wrap-1000, wrap-1), b: c(32, 500, 1), d: time.Second, valid: true, bps: 12000, pps: 2},
		{name: "Reset in 32 bits", a: c(32, 1e9, 1e6), b: c(32, 100, 1), d: time.Second, reset: true},
		{name: "Width changed", a: c(32, 1, 1), b: c(64, 2, 2), d: time.Second, reset: true},
		{name: "Near the end of 64 bits", a: c(64, math.MaxUint64-1, 1), b: c(64, 5, 2), d: time.Second, reset: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rx, tx, rxp, txp, valid, reset := link.Rate(tt.a, tt.b, tt.d)
			if valid != tt.valid || reset != tt.reset || rx != tt.bps || rxp != tt.pps || tx != 0 || txp != 0 {
				t.Errorf("rx %d bit/s, %v packets/s, tx %d, %v, valid %v, reset %v; want rx %d, %v, valid %v, reset %v",
					rx, rxp, tx, txp, valid, reset, tt.bps, tt.pps, tt.valid, tt.reset)
			}
		})
	}
}
