package throughput

import (
	"math"
	"testing"
)

// The table that operators' plans are held against: payload over what a port is
// busy with, and what that leaves of 1 Gbit/s and 100 Mbit/s.
func TestCeilingOfEachEncapsulation(t *testing.T) {
	for _, tt := range []struct {
		name          string
		e             Encapsulation
		v6            bool
		mss           uint32
		headers       int
		payload, wire float64
		gigabit, fast float64
	}{
		{"untagged", Encapsulation{}, false, 1448, 52, 1448, 1538, 941.5, 94.1},
		{"tagged", Encapsulation{VLANTags: 1}, false, 1448, 52, 1448, 1542, 939.0, 93.9},
		{"two tags", Encapsulation{VLANTags: 2}, false, 1448, 52, 1448, 1546, 936.6, 93.7},
		{"PPPoE", Encapsulation{PPPoE: true}, false, 1440, 52, 1440, 1538, 936.3, 93.6},
		{"PPPoE, tagged", Encapsulation{PPPoE: true, VLANTags: 1}, false, 1440, 52, 1440, 1542, 933.9, 93.4},
		{"PPPoE, two tags", Encapsulation{PPPoE: true, VLANTags: 2}, false, 1440, 52, 1440, 1546, 931.4, 93.1},
		{"PPPoE of 1500, tagged", Encapsulation{PPPoE: true, VLANTags: 1}, false, 1448, 52, 1448, 1550, 934.2, 93.4},
		{"IPv6", Encapsulation{}, true, 1428, 72, 1428, 1538, 928.5, 92.9},
		{"IPv6, tagged", Encapsulation{VLANTags: 1}, true, 1428, 72, 1428, 1542, 926.1, 92.6},
		{"IPv6, PPPoE, tagged", Encapsulation{PPPoE: true, VLANTags: 1}, true, 1420, 72, 1420, 1542, 920.9, 92.1},
		{"DS-Lite", Encapsulation{TunnelBytes: 40}, false, 1408, 52, 1408, 1538, 915.5, 91.6},
		{"DS-Lite, tagged", Encapsulation{TunnelBytes: 40, VLANTags: 1}, false, 1408, 52, 1408, 1542, 913.1, 91.3},
		{"untagged, no timestamps", Encapsulation{}, false, 1460, 40, 1460, 1538, 949.3, 94.9},
		{"clamped", Encapsulation{}, false, 1188, 52, 1188, 1278, 929.6, 93.0},
	} {
		for _, speed := range []struct {
			mbps int
			want float64
		}{{1000, tt.gigabit}, {100, tt.fast}} {
			got := ceilingMbps(speed.mbps, tt.e, tt.v6, tt.mss, tt.headers)
			if exact := float64(speed.mbps) * tt.payload / tt.wire; math.Abs(got-exact) > 1e-9 {
				t.Errorf("%s at %d: %v, want %v", tt.name, speed.mbps, got, exact)
			}
			if math.Abs(got-speed.want) > 0.06 { // the table's figures are rounded
				t.Errorf("%s at %d: %.2f, want %.1f", tt.name, speed.mbps, got, speed.want)
			}
		}
		// What is not known of the connection is as it is on most lines.
		if tt.mss == 1448 && tt.e.PPPoE || tt.headers == 40 || tt.name == "clamped" {
			continue
		}
		for _, unknown := range []struct {
			mss     uint32
			headers int
		}{{0, 0}, {tt.mss, 0}, {0, tt.headers}} {
			if got := ceilingMbps(1000, tt.e, tt.v6, unknown.mss, unknown.headers); math.Abs(got-1000*tt.payload/tt.wire) > 1e-9 {
				t.Errorf("%s, not told (%v): %v", tt.name, unknown, got)
			}
		}
	}
	if got := ceilingMbps(1000, Encapsulation{}, false, math.MaxUint32, 52); math.Abs(got-1000*1448.0/1538) > 1e-9 {
		t.Errorf("with segments that no packet holds: %v", got)
	}
	for _, speed := range []int{0, -1, math.MinInt32} {
		if got := ceilingMbps(speed, Encapsulation{}, false, 1448, 52); got != 0 {
			t.Errorf("at %d: %v", speed, got)
		}
	}
	if got := ceilingMbps(1000, Encapsulation{TunnelBytes: 1500}, false, 0, 0); got != 0 {
		t.Errorf("nothing but headers: %v", got)
	}
}

func TestLayerBytes(t *testing.T) {
	for _, tt := range []struct {
		name          string
		e             Encapsulation
		headers       int
		segment       uint64
		ip, eth, wire float64
	}{
		{"untagged", Encapsulation{}, 52, 1448, 1500, 1514, 1538}, // tbf counts 1514 for 1448
		{"tagged", Encapsulation{VLANTags: 1}, 52, 1448, 1500, 1518, 1542},
		{"PPPoE, two tags", Encapsulation{PPPoE: true, VLANTags: 2}, 52, 1440, 1492, 1522, 1546},
		{"IPv6", Encapsulation{}, 72, 1428, 1500, 1514, 1538},
		{"DS-Lite", Encapsulation{TunnelBytes: 40}, 52, 1408, 1460, 1514, 1538},
	} {
		const n = 1 << 33 // more than 32 bits hold
		ip, eth := layerBytes(n*tt.segment, n, tt.headers, tt.e)
		if ip != n*tt.ip || eth != n*tt.eth {
			t.Errorf("%s: %v, %v", tt.name, ip/n, eth/n)
		}
		// Both ways of counting agree: a port full of such packets.
		ceiling := ceilingMbps(1000, tt.e, false, uint32(tt.segment), tt.headers)
		if got := 1000 * float64(tt.segment) / tt.wire; math.Abs(got-ceiling) > 1e-9 {
			t.Errorf("%s: %v and %v", tt.name, got, ceiling)
		}
	}
	if ip, eth := layerBytes(0, 0, 52, Encapsulation{}); ip != 0 || eth != 0 {
		t.Errorf("nothing is %v, %v", ip, eth)
	}
}
