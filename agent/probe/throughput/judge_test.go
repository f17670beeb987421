package throughput

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// slowLine is a measurement that nothing but the line explains: 80 Mbit/s where
// 100 are contracted and 90 asked for.
func slowLine(dir Direction) Measurement {
	m := Measurement{
		TCPMbps: new(80.0), IPMbps: new(80 * 1500.0 / 1448), EthernetMbps: new(80 * 1514.0 / 1448),
		Bytes: 100e6, DurationS: 10, WarmUpS: 2, Stable: true,
		Server: netip.MustParseAddrPort("192.0.2.1:80"), CountedBy: "tcp_info",
		Mbps:      slices.Repeat([]float64{80}, 10),
		Spread:    Spread{MinMbps: 79, MedianMbps: 80, MaxMbps: 81, CV: 0.01},
		CrossMbps: new(0.1), CrossPeakMbps: new(0.5), CeilingMbps: new(941.5),
		Latency: Latency{IdleP50Ms: new(5.0), IdleP95Ms: new(6.0), LoadedP50Ms: new(30.0), LoadedP95Ms: new(35.0), IdleProbes: 10, LoadedProbes: 40},
		Conditions: Conditions{
			Cores: []float64{0.4, 0.2}, SoftIRQ: []float64{0.3, 0.1}, PeakCore: new(0.5),
			ProcessBusy: new(0.1), ProcessWaited: new(0.01), Throttled: new(0.0), LateRatio: new(0.02), SampleLateMs: 3, SoftnetSqueezed: 12,
		},
	}
	for range 4 {
		c := Connection{Bytes: 25e6, Mbps: 20, RTTMs: 30, MinRTTMs: 5, Segments: 17265, MSS: 1448, HeaderBytes: 52, WindowBytes: 1 << 20}
		if dir == Up {
			c.BusyRatio, c.RWndLimitedRatio, c.SndBufLimitedRatio = new(1.0), new(0.0), new(0.0)
		}
		m.PerConnection = append(m.PerConnection, c)
	}
	if dir == Up {
		m.SentBytes, m.ServerBytes = new(uint64(120e6)), new(uint64(120e6))
	}
	return m
}

// otherServer is a run of slowLine with another server.
func otherServer(dir Direction) *Measurement {
	m := slowLine(dir)
	m.Server = netip.MustParseAddrPort("198.51.100.1:80")
	return &m
}

func slowQuestion(dir Direction) question {
	return question{contractMbps: 100, minRatio: 0.9, layer: LayerTCP, dir: dir, windowS: 10, second: otherServer(dir)}
}

// flat takes away the queue: the way is as long under load as without.
func flat(m *Measurement) {
	m.Latency.LoadedP50Ms = m.Latency.IdleP50Ms
	for i := range m.PerConnection {
		m.PerConnection[i].RTTMs = m.PerConnection[i].MinRTTMs
	}
}

func each(m *Measurement, f func(*Connection)) {
	m.PerConnection = slices.Clone(m.PerConnection)
	for i := range m.PerConnection {
		f(&m.PerConnection[i])
	}
}

// bounds are what excludes a fail, each with a value that does not yet and the
// next one that does.
var bounds = []struct {
	name    string
	limit   Limit
	dir     Direction // only; "": both
	clean   float64
	over    float64
	set     func(*Measurement, float64)
	unclear bool // with a pass it is not told as what bound it
}{
	{"average of a core", LimitDeviceCPU, "", 0.9499, 0.95, func(m *Measurement, x float64) {
		m.Conditions.Cores = []float64{0.2, x}
	}, false},
	{"busiest second of a core", LimitDeviceCPU, "", 0.9499, 0.95, func(m *Measurement, x float64) { m.Conditions.PeakCore = &x }, true},
	{"softnet drops", LimitDeviceCPU, "", 0, 1, func(m *Measurement, x float64) { m.Conditions.SoftnetDropped = uint64(x) }, true},
	{"throttled", LimitDeviceCPU, "", 0.0199, 0.02, func(m *Measurement, x float64) { m.Conditions.Throttled = &x }, true},
	{"quota", LimitDeviceCPU, "", 0.1112, 0.1111, func(m *Measurement, x float64) { m.Conditions.QuotaCores = &x }, false},
	{"own time", LimitDeviceCPU, "", 0.8999, 0.9, func(m *Measurement, x float64) { m.Conditions.ProcessBusy = &x }, true},
	{"waited", LimitDeviceCPU, "", 0.0999, 0.1, func(m *Measurement, x float64) { m.Conditions.ProcessWaited = &x }, true},
	{"late often", LimitDeviceCPU, "", 0.1999, 0.2, func(m *Measurement, x float64) { m.Conditions.LateRatio = &x }, true},
	{"late", LimitDeviceCPU, "", 49.9, 50, func(m *Measurement, x float64) { m.Conditions.SampleLateMs = x }, true},
	{"backlog", LimitDeviceCPU, Down, 0.0999, 0.1, func(m *Measurement, x float64) {
		m.PerConnection = slices.Clone(m.PerConnection)
		m.PerConnection[2].BacklogRatio = x
	}, true},
	{"supply", LimitDeviceCPU, Up, 0.95, 0.9499, func(m *Measurement, x float64) { each(m, func(c *Connection) { c.BusyRatio = &x }) }, true},
	{"port too slow", LimitDeviceCeiling, "", 90, 89.99, func(m *Measurement, x float64) { m.CeilingMbps = &x }, true},
	{"others", LimitCrossTraffic, "", 4.99, 5, func(m *Measurement, x float64) { m.CrossMbps = &x }, false},
	{"others for a second", LimitCrossTraffic, "", 29.9, 30, func(m *Measurement, x float64) { m.CrossPeakMbps = &x }, true},
	{"windows", LimitWindow, "", 4 * 17580, 4 * 17570, func(m *Measurement, x float64) {
		each(m, func(c *Connection) { c.WindowBytes = uint64(x / 4) }) // 90 · 1.25 Mbit/s over 5 ms
	}, true},
	{"no room for this rate", LimitWindow, "", 17579, 13000, func(m *Measurement, x float64) {
		each(m, func(c *Connection) { c.WindowBytes = uint64(x) })
	}, false},
	{"peer's window", LimitServer, Up, 0.0999, 0.1, func(m *Measurement, x float64) {
		flat(m)
		each(m, func(c *Connection) { c.RWndLimitedRatio = &x })
	}, true},
	{"sending buffer", LimitWindow, Up, 0.1999, 0.2, func(m *Measurement, x float64) { each(m, func(c *Connection) { c.SndBufLimitedRatio = &x }) }, true},
	{"idle connections", LimitServer, "", 0.6e6, 0.3e6, func(m *Measurement, x float64) {
		m.PerConnection = slices.Clone(m.PerConnection)
		m.PerConnection[3].Bytes = uint64(x)
	}, true},
	{"heavy loss", LimitLoss, "", 0, 0.0101, func(m *Measurement, x float64) { flat(m); lose(m, x) }, false},
	{"loss that binds", LimitLoss, "", 0.0039, 0.0041, func(m *Measurement, x float64) { flat(m); lose(m, x) }, true},
	{"varying", LimitUnstable, "", 0.1499, 0.15, func(m *Measurement, x float64) { m.Spread.CV = x }, false},
	{"rising", LimitUnstable, "", 89.9, 90, func(m *Measurement, x float64) {
		m.Mbps = append(slices.Repeat([]float64{160 - x}, 5), slices.Repeat([]float64{x}, 5)...)
	}, true},
	{"not settled", LimitUnstable, "", 0.0499, 0.05, func(m *Measurement, x float64) { m.Stable, m.Spread.CV = false, x }, false},
}

// lose makes a part of the packets lost.
func lose(m *Measurement, part float64) {
	each(m, func(c *Connection) {
		c.Segments = 1e6
		c.Retransmits = uint64(part * 1e6)
		c.OutOfOrder = c.Retransmits
	})
}

var directions = [...]Direction{Down, Up}

func TestJudgeFailsWhereNothingElseExplains(t *testing.T) {
	for _, dir := range directions {
		v, limit, why := judge(slowLine(dir), slowQuestion(dir))
		want := "80.0 Mbit/s (TCP payload) is 80 % of the contracted 100.0 Mbit/s, less than 90 %: another server gave 80.0 Mbit/s, and nothing but the line explains it"
		if v != Fail || limit != LimitLine || why != want {
			t.Errorf("%s: %s, %s: %s", dir, v, limit, why)
		}
	}
}

func TestJudgeAtEachBound(t *testing.T) {
	for _, tt := range bounds {
		for _, dir := range directions {
			if tt.dir != "" && tt.dir != dir {
				continue
			}
			clean, over := slowLine(dir), slowLine(dir)
			tt.set(&clean, tt.clean)
			tt.set(&over, tt.over)
			q := slowQuestion(dir)
			if v, limit, why := judge(clean, q); v != Fail || limit != LimitLine {
				t.Errorf("%s, %s, just below: %s, %s: %s", tt.name, dir, v, limit, why)
			}
			v, limit, why := judge(over, q)
			if v != Inconclusive || limit != tt.limit || !strings.HasPrefix(why, "80.0 Mbit/s (TCP payload) is 80 % of the contracted 100.0 Mbit/s, less than 90 %: ") {
				t.Errorf("%s, %s: %s, %s: %s", tt.name, dir, v, limit, why)
			}
			// In the run that is to confirm it, it is as bad.
			q.second = &over
			if v, limit, why := judge(clean, q); v != Inconclusive || limit != tt.limit {
				t.Errorf("%s, %s, second: %s, %s: %s", tt.name, dir, v, limit, why)
			}

			// Whatever it is, a rate that reaches the contract passes.
			q = slowQuestion(dir)
			q.contractMbps = 80 / 0.9
			v, limit, why = judge(over, q)
			if v != Pass || why != "" {
				t.Errorf("%s, %s, enough: %s, %s: %s", tt.name, dir, v, limit, why)
			}
			if want := map[bool]Limit{true: LimitLine, false: tt.limit}[tt.unclear]; limit != want {
				t.Errorf("%s, %s, enough: limited by %s", tt.name, dir, limit)
			}
			q.contractMbps = 0
			if v, l, why := judge(over, q); v != Measured || l != limit || (why == "") != tt.unclear {
				t.Errorf("%s, %s, no contract: %s, %s: %s", tt.name, dir, v, l, why)
			}
		}
	}
}

// What is not known is not excluded.
func TestJudgeWithoutEvidence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		take  func(*Measurement)
		limit Limit // "": it is not needed
	}{
		{"cores", func(m *Measurement) { m.Conditions.Cores, m.Conditions.SoftIRQ, m.Conditions.PeakCore = nil, nil, nil }, LimitDeviceCPU},
		{"peak", func(m *Measurement) { m.Conditions.PeakCore = nil }, LimitDeviceCPU},
		{"quota, and time waited", func(m *Measurement) { m.Conditions.Throttled, m.Conditions.ProcessWaited = nil, nil }, ""},
		{"own time", func(m *Measurement) { m.Conditions.ProcessBusy = nil }, ""},
		{"being late", func(m *Measurement) { m.Conditions.LateRatio = nil }, ""},
		{"others", func(m *Measurement) { m.CrossMbps, m.CrossPeakMbps = nil, nil }, LimitCrossTraffic},
		{"others, blind", func(m *Measurement) { m.CountersBlind = true }, LimitCrossTraffic},
		{"counters that miss the test", func(m *Measurement) { *m.CrossMbps = -6.41 }, LimitCrossTraffic},
		{"counters that nearly have it", func(m *Measurement) { *m.CrossMbps = -6.39 }, ""},
		{"speed of the port", func(m *Measurement) { m.CeilingMbps = nil }, ""},
		{"connections", func(m *Measurement) { m.PerConnection = nil }, LimitServer},
		{"windows, with a queue", func(m *Measurement) { each(m, func(c *Connection) { c.WindowBytes = 0 }) }, ""},
		{"windows", func(m *Measurement) {
			flat(m)
			each(m, func(c *Connection) { c.WindowBytes, c.RWndLimitedRatio = 0, nil })
		}, LimitWindow},
		{"distance", func(m *Measurement) {
			m.Latency = Latency{}
			each(m, func(c *Connection) { c.RTTMs, c.MinRTTMs, c.RWndLimitedRatio = 0, 0, nil })
		}, LimitWindow},
		{"latency", func(m *Measurement) { m.Latency = Latency{} }, ""}, // another server agrees
		{"supply", func(m *Measurement) {
			each(m, func(c *Connection) { c.BusyRatio, c.RWndLimitedRatio, c.SndBufLimitedRatio = nil, nil, nil })
		}, ""},
		{"seconds", func(m *Measurement) { m.Mbps = nil }, ""},
		{"the server's count", func(m *Measurement) { m.ServerBytes = nil }, ""},
	} {
		for _, dir := range directions {
			m := slowLine(dir)
			tt.take(&m)
			v, limit, why := judge(m, slowQuestion(dir))
			want, wantLimit := Inconclusive, tt.limit
			if tt.limit == "" {
				want, wantLimit = Fail, LimitLine
			}
			if v != want || limit != wantLimit {
				t.Errorf("%s, %s: %s, %s: %s", tt.name, dir, v, limit, why)
			}
			q := slowQuestion(dir)
			q.contractMbps = 50
			if v, limit, _ := judge(m, q); v != Pass || limit != LimitLine {
				t.Errorf("%s, %s, enough: %s, %s", tt.name, dir, v, limit)
			}
		}
	}
}

func TestJudgeWithoutAResult(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*Measurement)
		limit Limit
		why   string
	}{
		{"no rate", func(m *Measurement) { m.TCPMbps = nil }, LimitNone, "nothing was measured"},
		{"zero", func(m *Measurement) { *m.TCPMbps = 0 }, LimitNone, "nothing was measured"},
		{"negative", func(m *Measurement) { *m.TCPMbps = -1 }, LimitNone, "nothing was measured"},
		{"no number", func(m *Measurement) { *m.TCPMbps = math.NaN() }, LimitNone, "nothing was measured"},
		{"infinite", func(m *Measurement) { *m.TCPMbps = math.Inf(1) }, LimitNone, "nothing was measured"},
		{"an error", func(m *Measurement) { m.Error = "cannot connect" }, LimitNone, "cannot connect"},
		{"a short file", func(m *Measurement) { m.Error, m.cut = "the body ended", LimitShort }, LimitShort, "the body ended"},
		{"an unsaid end", func(m *Measurement) { m.cut = LimitShort }, LimitShort, "it ended before its time"},
		{"a lost link", func(m *Measurement) { m.Error, m.link, m.cut = "", "wan has no carrier any more", LimitLinkChanged }, LimitLinkChanged, "the interface did not stay as it was: wan has no carrier any more"},
		{"a lost link, told", func(m *Measurement) { m.Error, m.link = "wan is gone", "wan is gone" }, LimitLinkChanged, "wan is gone"},
		{"a short window", func(m *Measurement) { m.DurationS = 9.49 }, LimitShort, "only 9.5 of 10.0 s could be measured"},
		{"a window of no length", func(m *Measurement) { m.DurationS = math.NaN() }, LimitShort, "only NaN of 10.0 s could be measured"},
		{"above the ceiling", func(m *Measurement) { m.CeilingMbps = new(79.2) }, LimitNone, "the bytes were counted wrong: 80.0 Mbit/s is more than the port carries, 79.2 Mbit/s"},
		{"a ceiling that is none", func(m *Measurement) { m.CeilingMbps = new(math.NaN()) }, LimitNone, "the bytes were counted wrong: 80.0 Mbit/s is more than the port carries, NaN Mbit/s"},
		{"acknowledged by another", func(m *Measurement) { m.SentBytes, m.ServerBytes = new(uint64(120e6)), new(uint64(117e6)) }, LimitServer, "the server received 117.0 MB of 120.0 MB that were acknowledged to this side"},
	} {
		// Neither below the contract nor above it, nor without one.
		for _, contract := range []float64{100, 50, 0} {
			m := slowLine(Down)
			tt.set(&m)
			q := slowQuestion(Down)
			q.contractMbps = contract
			if v, limit, why := judge(m, q); v != Inconclusive || limit != tt.limit || why != tt.why {
				t.Errorf("%s, %v: %s, %s: %s", tt.name, contract, v, limit, why)
			}
		}
		// And it confirms nothing.
		m := slowLine(Down)
		tt.set(&m)
		q := slowQuestion(Down)
		q.second = &m
		if v, _, why := judge(slowLine(Down), q); v != Inconclusive || !strings.Contains(why, tt.why) {
			t.Errorf("%s, second: %s: %s", tt.name, v, why)
		}
	}
	// What a server's application has left unread is not missing.
	m := slowLine(Up)
	m.SentBytes, m.ServerBytes = new(uint64(5e6)), new(uint64(4e6))
	if v, limit, why := judge(m, slowQuestion(Up)); v != Fail {
		t.Errorf("%s, %s: %s", v, limit, why)
	}
	// The contract's layer is what has to be known.
	m = slowLine(Down)
	m.EthernetMbps = nil
	q := slowQuestion(Down)
	q.layer = LayerEthernet
	if v, limit, _ := judge(m, q); v != Inconclusive || limit != LimitNone {
		t.Errorf("%s, %s", v, limit)
	}
}

func TestJudgeAtTheContract(t *testing.T) {
	for _, tt := range []struct {
		name           string
		contract, rate float64
		ratio          float64
		want           Verdict
	}{
		{"exactly", 100, 90, 0.9, Pass},
		{"a bit less", 100, math.Nextafter(90, 0), 0.9, Fail},
		{"which 90.0 % would hide", 100, 89.96, 0.9, Fail},
		{"exactly, though 0.9 has no end in binary", 70, 63, 0.9, Pass},
		{"the same", 1100, 990, 0.9, Pass},
		{"all of it", 300, 300, 1, Pass},
		{"nearly all", 300, 299.999, 1, Fail},
		{"a ratio that is not told", 100, 89.99, 0, Fail},
		{"the same, enough", 100, 90, 0, Pass},
		{"a ratio that cannot be meant", 100, 89, math.NaN(), Fail},
		{"no contract", 0, 90, 0.9, Measured},
		{"a contract that is none", math.NaN(), 90, 0.9, Measured},
		{"less than none", -1, 90, 0.9, Measured},
		{"a contract without an end", math.Inf(1), 90, 0.9, Inconclusive}, // which the port cannot carry
	} {
		m, second := slowLine(Down), otherServer(Down)
		*m.TCPMbps, *second.TCPMbps, *m.CeilingMbps, *second.CeilingMbps = tt.rate, tt.rate, 2354, 2354
		m.Mbps, second.Mbps = []float64{tt.rate, tt.rate}, []float64{tt.rate, tt.rate}
		m.CrossMbps, second.CrossMbps = new(0.0), new(0.0)
		q := question{contractMbps: tt.contract, minRatio: tt.ratio, layer: LayerTCP, dir: Down, windowS: 10, second: second}
		v, _, why := judge(m, q)
		if v != tt.want {
			t.Errorf("%s: %s: %s", tt.name, v, why)
		}
		if v == Fail && strings.Contains(why, " is 90 %") {
			t.Errorf("%s: %s", tt.name, why)
		}
	}
}

func TestJudgeAtTheContractsLayer(t *testing.T) {
	for _, tt := range []struct {
		layer Layer
		want  Verdict
	}{{LayerTCP, Fail}, {"", Fail}, {LayerIP, Fail}, {LayerEthernet, Pass}} {
		m := slowLine(Down)
		q := slowQuestion(Down)
		q.layer, q.contractMbps = tt.layer, 83.6/0.9 // 80 of payload are 82.87 of IP, 83.65 of Ethernet
		if v, limit, why := judge(m, q); v != tt.want {
			t.Errorf("%q: %s, %s: %s", tt.layer, v, limit, why)
		}
		// A port's ceiling is one of payload: 90 of Ethernet are 86.1 of it,
		// 90 of IP 86.9.
		m.CeilingMbps = new(86.5)
		q.contractMbps = 100
		v, limit, why := judge(m, q)
		if want := map[bool]Limit{true: LimitLine, false: LimitDeviceCeiling}[tt.layer == LayerEthernet]; limit != want {
			t.Errorf("%q: %s, %s: %s", tt.layer, v, limit, why)
		}
	}
}

// A gigabit of a plan over PPPoE and a tag: 900 are asked for, 933.9 is the most.
func TestJudgeAtTheCeiling(t *testing.T) {
	e := Encapsulation{PPPoE: true, VLANTags: 1}
	top := ceilingMbps(1000, e, false, 1440, 52)
	for _, tt := range []struct {
		rate    float64
		layer   Layer
		verdict Verdict
		limit   Limit
	}{
		{900, LayerTCP, Pass, LimitLine},
		{933, LayerTCP, Pass, LimitDeviceCeiling},
		{943, LayerTCP, Pass, LimitDeviceCeiling}, // within the error of measurement
		{944, LayerTCP, Inconclusive, LimitNone},
		{890, LayerTCP, Fail, LimitLine},
	} {
		m, second := slowLine(Down), otherServer(Down)
		for _, m := range []*Measurement{&m, second} {
			m.TCPMbps, m.CeilingMbps = new(tt.rate), &top
			each(m, func(c *Connection) { c.WindowBytes = 4 << 20 })
		}
		if v, limit, why := judge(m, question{contractMbps: 1000, layer: tt.layer, dir: Down, second: second}); v != tt.verdict || limit != tt.limit {
			t.Errorf("%v: %s, %s: %s", tt.rate, v, limit, why)
		}
	}
	// On a port of 100 Mbit/s nothing of it can be told, and that is why.
	m := slowLine(Down)
	*m.TCPMbps = 93.2
	m.CeilingMbps = new(ceilingMbps(100, e, false, 1440, 52))
	v, limit, why := judge(m, question{contractMbps: 1000, dir: Down, second: otherServer(Down)})
	if v != Inconclusive || limit != LimitDeviceCeiling || !strings.HasSuffix(why, "the port carries no more than 93.4 Mbit/s of payload, and 900.0 Mbit/s are needed") {
		t.Errorf("%s, %s: %s", v, limit, why)
	}
}

func TestJudgeCrossTrafficThatMakesUpWhatIsMissing(t *testing.T) {
	for _, tt := range []struct {
		cross float64
		want  Verdict
	}{{2.99, Fail}, {3, Inconclusive}} {
		m, second := slowLine(Down), otherServer(Down)
		*m.TCPMbps, *second.TCPMbps, *m.CrossMbps = 87, 87, tt.cross
		if v, limit, why := judge(m, question{contractMbps: 100, dir: Down, second: second}); v != tt.want || v == Inconclusive && limit != LimitCrossTraffic {
			t.Errorf("%v: %s, %s: %s", tt.cross, v, limit, why)
		}
	}
}

// A line that is full drops packets, fills windows and makes the way longer. A
// way that has only loss, or only a window, is not a full line.
func TestJudgeAQueue(t *testing.T) {
	for _, tt := range []struct {
		name  string
		dir   Direction
		set   func(*Measurement)
		limit Limit // "": fail
	}{
		{"loss before a full queue", Down, func(m *Measurement) { lose(m, 0.03) }, ""},
		{"loss before a full queue", Up, func(m *Measurement) { lose(m, 0.03) }, ""},
		{"loss, and a rate that varies", Down, func(m *Measurement) { lose(m, 0.03); m.Spread.CV = 0.05 }, LimitLoss},
		{"loss, and a way hardly longer", Down, func(m *Measurement) { lose(m, 0.03); m.Latency.LoadedP50Ms = new(7.99) }, LimitLoss},
		{"loss, and a way longer by enough", Down, func(m *Measurement) { lose(m, 0.03); m.Latency.LoadedP50Ms = new(8.0) }, ""},
		{"the same far away", Down, func(m *Measurement) {
			lose(m, 0.03)
			m.Latency.IdleP50Ms, m.Latency.LoadedP50Ms = new(100.0), new(119.0)
		}, LimitLoss},
		{"that a sender sees", Up, func(m *Measurement) { lose(m, 0.03); m.Latency = Latency{} }, ""},
		{"that a receiver cannot see", Down, func(m *Measurement) { lose(m, 0.03); m.Latency = Latency{} }, LimitLoss},
		{"a little loss", Down, func(m *Measurement) { flat(m); lose(m, 0.00002) }, ""},
		{"loss without packets", Down, func(m *Measurement) {
			flat(m)
			each(m, func(c *Connection) { c.Segments, c.OutOfOrder = 0, 7 })
		}, LimitLoss},
		{"a full window before a queue", Up, func(m *Measurement) { each(m, func(c *Connection) { c.RWndLimitedRatio = new(0.9) }) }, ""},
		{"a full window, and its size unknown", Up, func(m *Measurement) {
			flat(m)
			each(m, func(c *Connection) { c.RWndLimitedRatio, c.WindowBytes = new(0.9), 0 })
		}, LimitWindow},
	} {
		m := slowLine(tt.dir)
		tt.set(&m)
		want, wantLimit := Inconclusive, tt.limit
		if tt.limit == "" {
			want, wantLimit = Fail, LimitLine
		}
		if v, limit, why := judge(m, slowQuestion(tt.dir)); v != want || limit != wantLimit {
			t.Errorf("%s, %s: %s, %s: %s", tt.name, tt.dir, v, limit, why)
		}
	}
}

func TestJudgeBySecondRun(t *testing.T) {
	again := slowLine(Down)
	with := func(m Measurement, rate float64, set ...func(*Measurement)) *Measurement {
		m.TCPMbps = &rate
		for _, f := range set {
			f(&m)
		}
		return &m
	}
	other := *otherServer(Down)
	for _, tt := range []struct {
		name   string
		second *Measurement
		want   Verdict
		limit  Limit
		why    string
	}{
		{"none", nil, Inconclusive, LimitLine, "nothing but the line explains it, and no second run has confirmed it"},
		{"another server", with(other, 81), Fail, LimitLine, "another server gave 81.0 Mbit/s, and nothing but the line explains it"},
		{"another that is faster", with(other, 88.1), Inconclusive, LimitServer, "another server gave 88.1 Mbit/s"},
		{"another that is as fast", with(other, 87.9), Fail, LimitLine, "another server gave 87.9 Mbit/s, and nothing but the line explains it"},
		{"another that reaches it", with(other, 95), Inconclusive, LimitServer, "another server gave 95.0 Mbit/s"},
		{"another that is slower", with(other, 72), Inconclusive, LimitServer, "another server gave only 72.0 Mbit/s"},
		{"another that is hardly slower", with(other, 73), Fail, LimitLine, "another server gave 73.0 Mbit/s, and nothing but the line explains it"},
		{"the same", with(again, 79), Fail, LimitLine, "a second run gave 79.0 Mbit/s, and nothing but the line explains it"},
		{"the same, faster", with(again, 95), Inconclusive, LimitUnstable, "a second run gave 95.0 Mbit/s"},
		{"the same, slower", with(again, 60), Inconclusive, LimitUnstable, "a second run gave only 60.0 Mbit/s"},
		{"the same, and no queue", with(again, 79, flat), Inconclusive, LimitServer, "the way to the server took no longer under load, so the line was not full"},
		{"the same, and who knows", with(again, 79, func(m *Measurement) { m.Latency = Latency{} }), Inconclusive, LimitServer, "how long the way to the server took under load is not known, and no other server was asked"},
		{"another, and no queue there", with(other, 79, flat), Fail, LimitLine, "another server gave 79.0 Mbit/s, and nothing but the line explains it"},
		{"one that failed", with(other, 80, func(m *Measurement) { m.Error, m.TCPMbps = "cannot connect", nil }), Inconclusive, LimitLine, "a second run could not confirm it: cannot connect"},
		{"one that ended early", with(other, 80, func(m *Measurement) { m.Error, m.cut = "the body ended", LimitShort }), Inconclusive, LimitLine, "a second run could not confirm it: the body ended"},
		{"one in which the link changed", with(other, 80, func(m *Measurement) { m.link = "wan is gone" }), Inconclusive, LimitLinkChanged, "a second run could not confirm it: the interface did not stay as it was: wan is gone"},
		{"one that was disturbed", with(other, 80, func(m *Measurement) { m.CrossMbps = new(12.0) }), Inconclusive, LimitCrossTraffic, "a second run gave 80.0 Mbit/s, but others moved 12.0 Mbit/s meanwhile"},
	} {
		q := slowQuestion(Down)
		q.second = tt.second
		v, limit, why := judge(slowLine(Down), q)
		why = strings.TrimPrefix(why, "80.0 Mbit/s (TCP payload) is 80 % of the contracted 100.0 Mbit/s, less than 90 %: ")
		if diff := cmp.Diff([]any{tt.want, tt.limit, tt.why}, []any{v, limit, why}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Two servers that agree say nothing of a line that neither filled.
func TestJudgeALineThatIsNotFull(t *testing.T) {
	for _, dir := range directions {
		m, q := slowLine(dir), slowQuestion(dir)
		flat(&m)
		if v, limit, why := judge(m, q); v != Fail {
			t.Errorf("%s, to one of two: %s, %s: %s", dir, v, limit, why)
		}
		flat(q.second)
		if v, limit, why := judge(m, q); v != Inconclusive || limit != LimitServer || !strings.HasSuffix(why, "so the line was not full") {
			t.Errorf("%s: %s, %s: %s", dir, v, limit, why)
		}
		m.Latency = Latency{}
		if v, limit, why := judge(m, q); v != Fail {
			t.Errorf("%s, unknown: %s, %s: %s", dir, v, limit, why)
		}
	}
}

// Evidence that contradicts itself excludes nothing.
func TestJudgeContradictions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*Measurement)
		limit Limit
	}{
		{"no core is busy and the process waits", func(m *Measurement) {
			m.Conditions.Cores, m.Conditions.PeakCore, m.Conditions.ProcessWaited = []float64{0, 0}, new(0.0), new(3.5)
		}, LimitDeviceCPU},
		{"a quota that was never reached, and samples that came late", func(m *Measurement) {
			m.Conditions.QuotaCores, m.Conditions.SampleLateMs = new(2.0), 400
		}, LimitDeviceCPU},
		{"the machine idles and bytes wait", func(m *Measurement) {
			m.Conditions.Cores = []float64{0.01, 0.01}
			each(m, func(c *Connection) { c.BacklogRatio = 1 })
		}, LimitDeviceCPU},
		{"no others, and blind", func(m *Measurement) { m.CrossMbps, m.CountersBlind = new(0.0), true }, LimitCrossTraffic},
		{"settled, and varying", func(m *Measurement) { m.Spread.CV = 1 }, LimitUnstable},
		{"everything at once: the port is first", func(m *Measurement) {
			m.CeilingMbps, m.Stable, m.CrossMbps, m.Conditions.PeakCore = new(81.0), false, nil, new(1.0)
		}, LimitDeviceCeiling},
		{"what is known is told before what is not", func(m *Measurement) { m.Conditions.PeakCore, m.CrossMbps = nil, new(20.0) }, LimitCrossTraffic},
	} {
		m := slowLine(Down)
		tt.set(&m)
		if v, limit, why := judge(m, slowQuestion(Down)); v != Inconclusive || limit != tt.limit {
			t.Errorf("%s: %s, %s: %s", tt.name, v, limit, why)
		}
	}
	nan := math.NaN()
	for i, set := range []func(*Measurement){
		func(m *Measurement) { m.Conditions.Cores = []float64{nan} },
		func(m *Measurement) { m.Conditions.PeakCore = &nan },
		func(m *Measurement) { m.Conditions.Throttled = &nan },
		func(m *Measurement) { m.Conditions.ProcessWaited = &nan },
		func(m *Measurement) { m.Conditions.ProcessBusy = &nan },
		func(m *Measurement) { m.Conditions.QuotaCores = &nan },
		func(m *Measurement) { m.Conditions.SampleLateMs = nan },
		func(m *Measurement) { m.Conditions.LateRatio = &nan },
		func(m *Measurement) { m.CrossMbps = &nan },
		func(m *Measurement) { m.CrossPeakMbps = &nan },
		func(m *Measurement) { m.Spread.CV = nan },
		func(m *Measurement) { m.Mbps = []float64{nan, nan} },
		func(m *Measurement) { each(m, func(c *Connection) { c.BacklogRatio = nan }) },
	} {
		m := slowLine(Down)
		set(&m)
		if v, limit, why := judge(m, slowQuestion(Down)); v != Inconclusive {
			t.Errorf("no number, %d: %s, %s: %s", i, v, limit, why)
		}
	}
}

// dice makes measurements of which anything may be true.
type dice struct{ *rand.Rand }

func (d dice) number(scale float64) float64 {
	switch d.IntN(12) {
	case 0:
		return math.NaN()
	case 1:
		return math.Inf(1 - 2*d.IntN(2))
	case 2:
		return 0
	case 3:
		return -d.Float64() * scale
	case 4:
		return math.MaxFloat64
	}
	return d.Float64() * scale
}

func (d dice) maybe(scale float64) *float64 {
	if d.IntN(8) == 0 {
		return nil
	}
	return new(d.number(scale))
}

func (d dice) measurement(dir Direction) Measurement {
	m := slowLine(dir)
	if d.IntN(3) > 0 { // a rate that is one
		*m.TCPMbps = d.Float64() * 120
		*m.IPMbps, *m.EthernetMbps = *m.TCPMbps*1500/1448, *m.TCPMbps*1514/1448
	} else {
		m.TCPMbps, m.IPMbps, m.EthernetMbps = d.maybe(100), d.maybe(100), d.maybe(100)
	}
	for _, f := range []func(){
		func() { m.DurationS = d.number(12) },
		func() { m.Stable = d.IntN(2) == 0 },
		func() { m.Error = "an error" },
		func() { m.link = "gone" },
		func() { m.Server = netip.AddrPort{} },
		func() { m.ServerBytes, m.SentBytes = new(d.Uint64()), new(d.Uint64()) },
		func() { m.Mbps = []float64{d.number(100), d.number(100), d.number(100)} },
		func() { m.Spread.CV = d.number(0.3) },
		func() { m.CrossMbps = d.maybe(10) },
		func() { m.CrossPeakMbps = d.maybe(40) },
		func() { m.CountersBlind = true },
		func() { m.CeilingMbps = d.maybe(200) },
		func() { m.Latency.IdleP50Ms, m.Latency.LoadedP50Ms = d.maybe(20), d.maybe(60) },
		func() { m.Conditions.Cores = []float64{d.number(1), d.number(1)} },
		func() { m.Conditions.PeakCore = d.maybe(1.1) },
		func() { m.Conditions.SoftnetDropped = d.Uint64N(3) },
		func() { m.Conditions.ProcessBusy = d.maybe(1.2) },
		func() { m.Conditions.ProcessWaited = d.maybe(0.2) },
		func() { m.Conditions.Throttled, m.Conditions.QuotaCores = d.maybe(0.05), d.maybe(1) },
		func() { m.Conditions.SampleLateMs = d.number(100) },
		func() { m.Conditions.LateRatio = d.maybe(0.5) },
		func() {
			for i := range m.PerConnection {
				m.PerConnection[i] = Connection{
					Bytes: d.Uint64N(50e6), RTTMs: d.number(50), MinRTTMs: d.number(10), Retransmits: d.Uint64N(100),
					OutOfOrder: d.Uint64N(100), Segments: d.Uint64N(1e6), MSS: d.Uint32N(9000), WindowBytes: d.Uint64N(1e6),
					BusyRatio: d.maybe(1), RWndLimitedRatio: d.maybe(1), SndBufLimitedRatio: d.maybe(1), BacklogRatio: d.number(0.2),
				}
			}
		},
		func() { m.PerConnection = m.PerConnection[:d.IntN(len(m.PerConnection)+1)] },
	} {
		if d.IntN(20) == 0 {
			f()
		}
	}
	return m
}

// holds are the promises of judge, for any measurement.
func holds(t *testing.T, m Measurement, q question) Verdict {
	t.Helper()
	v, limit, why := judge(m, q)
	if v2, limit2, why2 := judge(m, q); v != v2 || limit != limit2 || why != why2 {
		t.Fatalf("%s, %s and then %s, %s", v, limit, v2, limit2)
	}
	rate := math.NaN()
	if r := m.mbps(q.layer); r != nil {
		rate = *r
	}
	switch v {
	case Pass:
		if !(rate >= q.contractMbps*q.minRatio*(1-1e-15)) || q.contractMbps <= 0 || m.Error != "" || m.link != "" || m.DurationS < q.windowS*0.95 {
			t.Fatalf("pass with %v of %v: %+v", rate, q.contractMbps, m)
		}
		if m.CeilingMbps != nil && *m.TCPMbps > *m.CeilingMbps*1.01 {
			t.Fatalf("pass with %v above %v", *m.TCPMbps, *m.CeilingMbps)
		}
	case Measured:
		if q.contractMbps > 0 || !(rate > 0) {
			t.Fatalf("measured %v with a contract of %v", rate, q.contractMbps)
		}
	case Fail:
		if !(rate < q.contractMbps*q.minRatio) || limit != LimitLine || q.second == nil || m.Conditions.PeakCore == nil || m.CrossMbps == nil || m.CountersBlind {
			t.Fatalf("fail with %v of %v, limited by %s: %+v", rate, q.contractMbps, limit, m)
		}
	case Inconclusive:
		if why == "" {
			t.Fatal("inconclusive without a reason")
		}
	default:
		t.Fatalf("verdict %q", v)
	}
	if v == Pass != (why == "") && v != Measured {
		t.Fatalf("%s: %q", v, why)
	}
	return v
}

// Whatever else is true of a measurement: with something that disturbs it, it is
// no fail, and what is inconclusive does not become one.
func TestJudgeNeverFailsWhatIsDisturbed(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(1, 2))}
	n := 20000
	if testing.Short() {
		n = 1000
	}
	found := map[Verdict]int{}
	for range n {
		dir := directions[d.IntN(2)]
		q := slowQuestion(dir)
		q.layer = [...]Layer{LayerTCP, LayerIP, LayerEthernet}[d.IntN(3)]
		q.contractMbps = [...]float64{100, 100, 100, 200, 80, 0}[d.IntN(6)]
		if d.IntN(4) == 0 {
			second := d.measurement(dir)
			q.second = &second
		}
		m := d.measurement(dir)
		found[holds(t, m, q)]++
		b := bounds[d.IntN(len(bounds))]
		if b.dir != "" && b.dir != dir || len(m.PerConnection) < 4 || m.mbps(q.layer) == nil {
			continue
		}
		if b.name == "quota" || b.name == "rising" || q.contractMbps != 100 || b.name == "port too slow" && q.layer != LayerTCP {
			continue // their values belong to those of slowLine
		}
		b.set(&m, b.over)
		if b.limit == LimitLoss || b.limit == LimitWindow || b.name == "idle connections" {
			continue // what they bind depends on the rest
		}
		if v := holds(t, m, q); v == Fail {
			t.Fatalf("%s: fail with %+v", b.name, m)
		}
		q.second = &m
		if v := holds(t, *otherServer(dir), q); v == Fail {
			t.Fatalf("%s, confirmed: fail by %+v", b.name, m)
		}
	}
	for _, v := range []Verdict{Pass, Fail, Inconclusive, Measured} {
		if found[v] < n/50 {
			t.Errorf("of %d only %d were %s: %v", n, found[v], v, found)
		}
	}
}

func FuzzJudge(f *testing.F) {
	f.Add(uint64(1), uint64(2), 100.0, 0.9)
	f.Add(uint64(3), uint64(4), 0.0, 0.9)
	f.Fuzz(func(t *testing.T, a, b uint64, contract, ratio float64) {
		if !(ratio > 0 && ratio <= 1) || math.IsNaN(contract) {
			return
		}
		d := dice{rand.New(rand.NewPCG(a, b))}
		dir := directions[d.IntN(2)]
		second := d.measurement(dir)
		holds(t, d.measurement(dir), question{contractMbps: contract, minRatio: ratio, dir: dir, windowS: 10, second: &second})
	})
}

func TestBorderline(t *testing.T) {
	for _, tt := range []struct {
		rate float64
		want bool
	}{{87.29, false}, {87.31, true}, {90, true}, {90.89, true}, {90.91, false}, {0, false}, {math.NaN(), false}, {math.Inf(1), false}} {
		if got := borderline(tt.rate, 90); got != tt.want {
			t.Errorf("%v: %v", tt.rate, got)
		}
	}
}

func TestMedianRun(t *testing.T) {
	const bad = -1
	for _, tt := range []struct {
		rates           []float64
		median, confirm int
	}{
		{nil, -1, -1},
		{[]float64{bad}, -1, -1},
		{[]float64{80}, 0, -1},
		{[]float64{90, 80}, 1, 0},
		{[]float64{80, 90, 85}, 2, 0},
		{[]float64{85, 80, 90}, 0, 1},
		{[]float64{85, 85, 85}, 1, 0},
		{[]float64{85, bad, 90}, 0, 2},
		{[]float64{bad, bad, 90}, 2, -1},
		{[]float64{0, math.NaN(), 90}, 2, -1},
	} {
		var runs []Measurement
		for _, rate := range tt.rates {
			m := slowLine(Down)
			m.TCPMbps = new(rate)
			if rate == bad {
				m.Error = "cannot connect"
			}
			runs = append(runs, m)
		}
		q := slowQuestion(Down)
		got := medianRun(runs, q)
		if got != tt.median {
			t.Errorf("%v: %d, want %d", tt.rates, got, tt.median)
		}
		confirm := lowestRun(runs, got, q)
		if confirm == nil && tt.confirm >= 0 || confirm != nil && (tt.confirm < 0 || confirm != &runs[tt.confirm]) {
			t.Errorf("%v: confirmed by %v, want %d", tt.rates, confirm, tt.confirm)
		}
	}
}

func TestWorst(t *testing.T) {
	order := []Verdict{Fail, Inconclusive, Pass, Measured}
	for i, a := range order {
		for j, b := range order {
			if got := worst(a, b); got != order[min(i, j)] {
				t.Errorf("%s and %s: %s", a, b, got)
			}
		}
	}
}
