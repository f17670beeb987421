package steps

import (
	"fmt"
	"strconv"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/probe/throughput"
	"ontagent/collectors"
)

// conditions are what both directions were measured under.
func (s *Throughput) conditions(out *acceptance.Outcome, r *throughput.Result) {
	e := r.Encapsulation
	out.Conditions = map[string]string{
		"layer":         string(s.o.Test.Layer),
		"protocol":      r.Protocol,
		"connections":   strconv.Itoa(r.Connections),
		"interface":     r.Interface,
		"encapsulation": fmt.Sprintf("pppoe %t, %d tags, tunnel %d bytes", e.PPPoE, e.VLANTags, e.TunnelBytes),
		"test_bytes":    strconv.FormatUint(r.TestBytes, 10),
	}
	if r.Server.IsValid() {
		out.Conditions["server"] = r.Server.String() + " " + r.ServerName
	}
}

// measurements adds what one direction showed. What a run has a hundred figures
// of is kept as text.
func (s *Throughput) measurements(out *acceptance.Outcome, w *way, url string) {
	if w.rate == nil {
		return
	}
	source, prefix := "throughput:"+url, "throughput_"+w.name+"_"
	add := func(name string, v any, raw, note string) {
		m := value(prefix+name, v, source, note)
		m.Raw = raw
		put(out, m)
	}
	some := func(name string, v *float64, note string) {
		if v != nil {
			add(name, *v, "", note)
		}
	}
	r := w.rate
	if w.mbps == nil {
		put(out, missing(prefix+"mbps", collectors.StatusError, source, w.reason))
	} else {
		add("mbps", *w.mbps, figures(r.Mbps), fmt.Sprintf("%s, in %.2f s after %.2f s, counted by %s; by the second: TCP", s.o.Test.Layer, r.DurationS, r.WarmUpS, r.CountedBy))
		some("tcp_mbps", r.TCPMbps, "")
		some("ip_mbps", r.IPMbps, "")
		some("ethernet_mbps", r.EthernetMbps, "")
		some("ratio", r.ContractRatio, fmt.Sprintf("of %g Mbit/s", r.ContractMbps))
		add("bytes", r.Bytes, "", "")
		add("spread", r.Spread.CV, "", fmt.Sprintf("%.2f to %.2f, median %.2f Mbit/s", r.Spread.MinMbps, r.Spread.MaxMbps, r.Spread.MedianMbps))
	}
	add("limited_by", string(r.LimitedBy), "", "")
	if len(r.Runs) > 1 {
		var all []float64
		for _, m := range r.Runs {
			if m.TCPMbps != nil {
				all = append(all, *m.TCPMbps)
			}
		}
		add("runs", len(r.Runs), figures(all), "TCP, each")
	}
	if w.mbps != nil && r.CrossMbps == nil {
		put(out, missing(prefix+"cross_mbps", collectors.StatusUnsupported, source, "nothing tells of other traffic"))
	}
	some("cross_mbps", r.CrossMbps, "other traffic of the interface")
	some("ceiling_mbps", r.CeilingMbps, "what the port carries, TCP")
	some("idle_ms", r.Latency.IdleP50Ms, "median round trip before the test")
	some("loaded_ms", r.Latency.LoadedP50Ms, fmt.Sprintf("median round trip in it; %d of %d lost", r.Latency.LostProbes, r.Latency.LoadedProbes))
	some("loaded_p95_ms", r.Latency.LoadedP95Ms, "")
	some("rpm", r.Latency.RPM, "round trips per minute under load, confidence "+r.Latency.RPMConfidence)
	c := &r.Conditions
	some("cpu_peak_ratio", c.PeakCore, "cores "+figures(c.Cores)+", softirq "+figures(c.SoftIRQ))
	some("cpu_process_ratio", c.ProcessBusy, "")
	some("cpu_throttled_ratio", c.Throttled, "")
	if c.SoftnetDropped > 0 {
		add("softnet_dropped", c.SoftnetDropped, "", "")
	}
	if r.ServerBytes != nil {
		add("server_bytes", *r.ServerBytes, "", "as the server counted")
	}
	if len(r.PerConnection) > 0 {
		add("connections", len(r.PerConnection), connections(r.PerConnection), or(r.CongestionControl, "the server's")+" congestion control; Mbit/s, ms, repeated, out of order")
	}
	t := &r.TR143
	if t.TestBytes == 0 {
		return
	}
	add("tr143_bytes_full_loading", t.TestBytesUnderFullLoading, moments(t.ROMTime, t.BOMTime, t.EOMTime, t.TCPOpenRequestTime, t.TCPOpenResponseTime),
		fmt.Sprintf("in %d µs; TestBytes %d; ROM, BOM, EOM, TCPOpenRequest, TCPOpenResponse", t.PeriodOfFullLoading, t.TestBytes))
}

// figures lists rates or ratios.
func figures(vs []float64) string {
	b := make([]byte, 0, 8*len(vs))
	for i, v := range vs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendFloat(b, v, 'f', 2, 64)
	}
	return string(b)
}

func connections(cs []throughput.Connection) string {
	var b []byte
	for _, c := range cs {
		b = fmt.Appendf(b, "%.2f %.1f %d %d; ", c.Mbps, c.RTTMs, c.Retransmits, c.OutOfOrder)
	}
	return string(b[:max(0, len(b)-2)])
}

// moments lists times as TR-143 writes them.
func moments(ts ...time.Time) string {
	var b []byte
	for i, t := range ts {
		if i > 0 {
			b = append(b, ' ')
		}
		if t.IsZero() {
			b = append(b, '-')
			continue
		}
		b = t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	}
	return string(b)
}
