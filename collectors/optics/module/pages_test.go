package module_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/module"
)

// put16 writes words from an offset of the upper half on.
func put16(page []byte, offset int, words ...uint16) {
	for i, w := range words {
		binary.BigEndian.PutUint16(page[offset-128+2*i:], w)
	}
}

// Limits that all pages made here have: 80/-10/75/-5 C, 3.6/3.0/3.5/3.1 V,
// 20/2/18/3 mA, powers 2/0.1/1/0.2 mW.
var (
	limitsTemperature = []uint16{80 << 8, 0xf600, 75 << 8, 0xfb00}
	limitsVoltage     = []uint16{36000, 30000, 35000, 31000}
	limitsBias        = []uint16{10000, 1000, 9000, 1500}
	limitsPower       = []uint16{20000, 1000, 10000, 2000}
)

// page03 is made from the layout of SFF-8636; the values are invented.
func page03() []byte {
	p := make([]byte, 128)
	put16(p, 128, limitsTemperature...)
	put16(p, 144, limitsVoltage...)
	put16(p, 176, limitsPower...)
	put16(p, 184, limitsBias...)
	put16(p, 192, limitsPower...)
	return p
}

// page01 is made from the layout of CMIS: 1310 nm, temperature and supply, and
// the lane monitors byte as given.
func page01(laneMonitors byte) []byte {
	p := make([]byte, 128)
	put16(p, 138, 1310*20)
	p[159-128], p[160-128] = 0x03, laneMonitors
	p[127] = sum(p[2:127])
	return p
}

func page02() []byte {
	p := make([]byte, 128)
	put16(p, 128, limitsTemperature...)
	put16(p, 136, limitsVoltage...)
	put16(p, 176, limitsPower...)
	put16(p, 184, limitsBias...)
	put16(p, 192, limitsPower...)
	p[127] = sum(p[:127])
	return p
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// wantLimits are those above; bias is scaled.
func wantLimits(scale float64) *optics.Thresholds {
	l := func(ah, al, wh, wl float64) optics.Limits {
		k := func(v float64) optics.Limit { return optics.Limit{Value: v, Known: true} }
		return optics.Limits{AlarmHigh: k(ah), AlarmLow: k(al), WarnHigh: k(wh), WarnLow: k(wl)}
	}
	power := l(10*math.Log10(2), -10, 0, 10*math.Log10(0.2))
	t := &optics.Thresholds{
		RxPower: power, TxPower: power, Temperature: l(80, -10, 75, -5), Voltage: l(3.6, 3, 3.5, 3.1),
		Bias: l(20*scale, 2*scale, 18*scale, 3*scale),
	}
	if scale == 0 {
		t.Bias = optics.Limits{}
	}
	return t
}

var near = cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })

func TestDecodeQSFPConditions(t *testing.T) {
	im := images(t, "sff8636-*")[0]
	tests := []struct {
		name             string
		change           func(b []byte)
		status           collectors.Status // of the lanes as a whole
		alarms, warnings []string
		limits           bool
	}{
		{"as it is", func([]byte) {}, collectors.StatusOK, nil, nil, true},
		{"one dark", func(b []byte) { b[36], b[37] = 0, 1 }, "", nil, nil, true},
		{"all dark", func(b []byte) { clear(b[34:42]) }, collectors.StatusNoLight, nil, nil, true},
		{"not ready", func(b []byte) { b[2] |= 1 }, collectors.StatusUntrusted, nil, nil, true},
		{"no supply", func(b []byte) { b[26], b[27] = 0, 0 }, collectors.StatusUntrusted, nil, nil, true},
		{"base checksum", func(b []byte) { b[150] ^= 1 }, collectors.StatusUntrusted, nil, nil, false},
		{"extended checksum", func(b []byte) { b[200] ^= 1 }, collectors.StatusUntrusted, nil, nil, false},
		{"identifiers differ", func(b []byte) { b[0] = 0x11 }, collectors.StatusUntrusted, nil, nil, false},
		{"copper", func(b []byte) { b[147] = 0xa0; b[191] = sum(b[128:191]) }, collectors.StatusUnsupported, nil, nil, false},
		{
			"flags", func(b []byte) { b[6], b[7], b[9], b[10], b[12], b[13] = 0x80, 0x10, 0x04, 0x40, 0x02, 0x10 }, collectors.StatusOK,
			[]string{"rx_low", "temperature_high"},
			[]string{"bias_high", "tx_low", "voltage_low"},
			true,
		},
		{"limits of another page", func(b []byte) { b[512+16], b[512+17] = 0, 0 }, collectors.StatusOK, nil, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := append(append(bytes.Clone(im.a0), make([]byte, 256)...), page03()...)
			tt.change(b)
			_, r, err := module.DecodeImage(b, "m")
			if err != nil {
				t.Fatal(err)
			}
			if got := r.LanesStatus(); got != tt.status {
				t.Errorf("status %q, want %q; %+v", got, tt.status, r)
			}
			if !slices.Equal(r.Alarms, tt.alarms) || !slices.Equal(r.Warnings, tt.warnings) {
				t.Errorf("alarms %v, warnings %v", r.Alarms, r.Warnings)
			}
			var want *optics.Thresholds
			if tt.limits {
				want = wantLimits(1)
			}
			if d := cmp.Diff(want, r.Thresholds, near); d != "" {
				t.Errorf("thresholds (-want +got):\n%s", d)
			}
			for _, q := range []collectors.Reading{r.RxPower, r.TxPower, r.Bias} {
				if q.OK() || q.Value != 0 {
					t.Errorf("a single value of four lanes: %+v", q)
				}
			}
		})
	}
}

func TestDecodeQSFPMonitors(t *testing.T) {
	im := images(t, "sff8636-*")[0]
	b := bytes.Clone(im.a0)
	b[1], b[220] = 8, 0x08 // SFF-8636 2.8: neither temperature nor supply nor tx
	clear(b[26:28])
	b[223] = sum(b[192:223])
	_, r, err := module.DecodeImage(b, "m")
	if err != nil {
		t.Fatal(err)
	}
	if r.LanesStatus() != collectors.StatusOK || r.Temperature.Status != collectors.StatusUnsupported ||
		r.Voltage.Status != collectors.StatusUnsupported || r.Lanes[0].TxPower.Status != collectors.StatusUnsupported {
		t.Errorf("got %+v", r)
	}
}

func TestDecodeCMISConditions(t *testing.T) {
	im := images(t, "cmis-*")[0]
	lit := bytes.Clone(im.a2[:128])
	for lane := range 8 {
		put16(lit, 154+2*lane, 10000)
		put16(lit, 170+2*lane, 3000)
		put16(lit, 186+2*lane, 8000)
	}
	tests := []struct {
		name   string
		pages  [][]byte
		change func(b []byte)
		status collectors.Status
		lanes  int
		bias   float64 // of the first lane; 0 means none
		limits float64 // scale of bias, below 0 no thresholds
		alarms []string
		known  bool
	}{
		{"lanes only", [][]byte{lit}, func([]byte) {}, collectors.StatusOK, 8, 0, -1, nil, false},
		{"no lanes", nil, func([]byte) {}, collectors.StatusError, 0, 0, -1, nil, false},
		{"page 01h", [][]byte{page01(0x07), lit}, func([]byte) {}, collectors.StatusOK, 8, 6, -1, nil, true},
		{"doubled bias", [][]byte{page01(0x0f), page02(), lit}, func([]byte) {}, collectors.StatusOK, 8, 12, 2, nil, true},
		{"bias not told", [][]byte{page01(0x06), page02(), lit}, func([]byte) {}, collectors.StatusOK, 8, 0, 1, nil, true},
		{"page 02h only", [][]byte{page01(0x1f), page02()}, func([]byte) {}, collectors.StatusError, 0, 0, 0, nil, false},
		{"four lanes", [][]byte{lit}, func(b []byte) { b[210] = 0xf0; clear(b[256+66:][:8]) }, collectors.StatusOK, 4, 0, -1, nil, false},
		{"one lane", [][]byte{page01(0x07), lit}, func(b []byte) { b[210] = 0xfe }, collectors.StatusOK, 0, 0, -1, nil, true},
		{"flat", [][]byte{lit}, func(b []byte) { b[2] = 0x80 }, collectors.StatusUnsupported, 0, 0, -1, nil, false},
		{"no supply", [][]byte{lit}, func(b []byte) { b[16], b[17] = 0, 0 }, collectors.StatusUntrusted, 8, 0, -1, nil, false},
		{"checksum", [][]byte{lit}, func(b []byte) { b[222] = sum(b[128:222]) + 1 }, collectors.StatusUntrusted, 0, 0, -1, nil, false},
		{"checksum holds", [][]byte{lit}, func(b []byte) { b[222] = sum(b[128:222]) }, collectors.StatusOK, 8, 0, -1, nil, false},
		{
			"flags",
			[][]byte{page01(0x07), lit},
			func(b []byte) { b[9] = 0x21; b[384+11+1], b[384+22] = 0x10, 0x80 }, collectors.StatusOK, 8, 6, -1,
			[]string{"rx_low", "temperature_high", "tx_low", "voltage_low"},
			true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(im.a0)
			for _, p := range tt.pages {
				b = append(b, p...)
			}
			tt.change(b)
			_, r, err := module.DecodeImage(b, "m")
			if err != nil {
				t.Fatal(err)
			}
			if got := r.LanesStatus(); got != tt.status || len(r.Lanes) != tt.lanes {
				t.Errorf("status %q of %d lanes, want %q of %d", got, len(r.Lanes), tt.status, tt.lanes)
			}
			if tt.name == "one lane" && (!r.RxPower.OK() || !r.Bias.OK()) {
				t.Errorf("one lane: %+v", r)
			}
			if tt.lanes > 0 {
				if bias := r.Lanes[0].Bias; bias.OK() != (tt.bias > 0) || bias.Value != tt.bias {
					t.Errorf("bias %+v, want %v", bias, tt.bias)
				}
			}
			if r.AlarmsKnown != tt.known || !slices.Equal(r.Alarms, tt.alarms) {
				t.Errorf("alarms %v (%v), want %v", r.Alarms, r.AlarmsKnown, tt.alarms)
			}
			var want *optics.Thresholds
			if tt.limits >= 0 {
				want = wantLimits(tt.limits)
			}
			if d := cmp.Diff(want, r.Thresholds, near); d != "" {
				t.Errorf("thresholds (-want +got):\n%s", d)
			}
		})
	}
}

// right says that what is ok in a reading is what the whole image gives.
func right(t *testing.T, what string, want, got *optics.Reading) {
	t.Helper()
	pairs := [][2]collectors.Reading{
		{want.RxPower, got.RxPower},
		{want.TxPower, got.TxPower},
		{want.Bias, got.Bias},
		{want.Temperature, got.Temperature},
		{want.Voltage, got.Voltage},
	}
	if len(got.Lanes) > 0 && len(got.Lanes) != len(want.Lanes) {
		t.Errorf("%s: %d lanes", what, len(got.Lanes))
		return
	}
	for i, l := range got.Lanes {
		w := want.Lanes[i]
		pairs = append(pairs, [][2]collectors.Reading{{w.RxPower, l.RxPower}, {w.TxPower, l.TxPower}, {w.Bias, l.Bias}}...)
	}
	for _, p := range pairs {
		if p[1].OK() && (!p[0].OK() || math.Abs(p[0].Value-p[1].Value) > tolerance) || p[1].Status == collectors.StatusNoLight && p[0].OK() {
			t.Errorf("%s: %+v, whole %+v", what, p[1], p[0])
		}
	}
}

// Cut off anywhere, an image yields what the whole one does, or less.
func TestDecodeImageTruncated(t *testing.T) {
	for _, im := range images(t, "*") {
		b := im.whole()
		_, want, err := module.DecodeImage(b, "m")
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			if _, got, err := module.DecodeImage(b[:n], "m"); err == nil {
				right(t, im.name, &want, &got)
			} else if got.RxPower.Status != collectors.StatusError {
				t.Errorf("%s cut at %d: %+v", im.name, n, got.RxPower)
			}
		}
	}
}

// covered says which bytes of an image a checksum covers.
func covered(b []byte, at int) bool {
	switch b[0] {
	case 0x03:
		return at < 96 || at >= 256 && at < 256+96
	case 0x0d:
		return at == 0 || at >= 128 && at < 224
	}
	return at == 0 || at == 128 // our CMIS image has no checksum
}

// Flipped bytes that a checksum covers are noticed; none makes a panic or a
// number that is none.
func TestDecodeImageFlipped(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, im := range images(t, "*") {
		whole := im.whole()
		_, want, err := module.DecodeImage(whole, "m")
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole {
			for bit := range 8 {
				b := bytes.Clone(whole)
				b[at] ^= 1 << bit
				_, got, err := module.DecodeImage(b, "m")
				if err == nil && covered(whole, at) {
					right(t, im.name, &want, &got)
					if s := got.LanesStatus(); s == collectors.StatusOK || s == collectors.StatusNoLight {
						t.Errorf("%s with byte %d flipped: %q", im.name, at, s)
					}
				}
			}
		}
		for range 500 {
			b := bytes.Clone(whole)
			for range 1 + random.IntN(8) {
				b[random.IntN(len(b))] = byte(random.Uint32())
			}
			_, got, _ := module.DecodeImage(b, "m")
			possible(t, &got)
		}
	}
}

// possible checks what holds of every reading.
func possible(t *testing.T, r *optics.Reading) {
	t.Helper()
	all := []collectors.Reading{r.RxPower, r.TxPower, r.Bias, r.Temperature, r.Voltage}
	for _, l := range r.Lanes {
		all = append(all, l.RxPower, l.TxPower, l.Bias)
	}
	for _, q := range all {
		if math.IsNaN(q.Value) || math.IsInf(q.Value, 0) || !q.OK() && q.Value != 0 || q.Status == "" {
			t.Errorf("impossible reading %+v", q)
		}
	}
	if th := r.Thresholds; th != nil {
		for _, l := range []optics.Limits{th.RxPower, th.TxPower, th.Bias, th.Temperature, th.Voltage} {
			for _, v := range []optics.Limit{l.AlarmHigh, l.AlarmLow, l.WarnHigh, l.WarnLow} {
				if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
					t.Errorf("impossible threshold %+v", v)
				}
			}
		}
	}
}

func TestDecodeImageRefuses(t *testing.T) {
	if _, _, err := module.DecodeImage(nil, "m"); err == nil || errors.Is(err, module.ErrUnknownKind) {
		t.Errorf("nothing: %v", err)
	}
	for _, b := range [][]byte{[]byte("Rx Power: -20.0 dBm\n"), make([]byte, 512), bytes.Repeat([]byte{0xff}, 512)} {
		if _, _, err := module.DecodeImage(b, "m"); !errors.Is(err, module.ErrUnknownKind) {
			t.Errorf("% x: %v", b[:1], err)
		}
	}
}

func FuzzDecodeImage(f *testing.F) {
	for _, im := range images(f, "*") {
		f.Add(im.whole())
	}
	qsfp, cmis := images(f, "sff8636-*")[0], images(f, "cmis-*")[0]
	f.Add(slices.Concat(qsfp.a0, make([]byte, 256), page03()))
	f.Add(slices.Concat(cmis.a0, page01(0x0f), page02(), cmis.a2[:128]))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, r, _ := module.DecodeImage(b, "m")
		possible(t, &r)
		if s := r.LanesStatus(); s == collectors.StatusOK && len(r.Lanes) == 0 && !r.RxPower.OK() {
			t.Errorf("ok without a value: %+v", r)
		}
	})
}
