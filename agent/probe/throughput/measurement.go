package throughput

import (
	"net/netip"
	"time"
)

// Measurement is one run in one direction: what was counted in its window, and
// the circumstances that bear on it. Rates are in Mbit/s (10⁶ bit/s).
type Measurement struct {
	// TCPMbps is Bytes over DurationS; the others add what packets carry beside.
	// They are nil if there was no window to measure in: Error says why.
	TCPMbps      *float64 `json:"tcp_mbps"`
	IPMbps       *float64 `json:"ip_mbps"`
	EthernetMbps *float64 `json:"ethernet_mbps"`
	// Bytes is the payload in the window: received in order, or acknowledged.
	Bytes     uint64  `json:"bytes"`
	DurationS float64 `json:"duration_s"` // of the window, on the monotonic clock
	WarmUpS   float64 `json:"warm_up_s"`  // from the first byte to the window
	// Stable says that the rate had settled before the window began.
	Stable bool `json:"stable"`
	// Error is why there is no result, or not a whole one.
	Error string `json:"error,omitempty"`

	Server netip.AddrPort `json:"server,omitzero"`
	URL    string         `json:"url"`
	// CountedBy is "tcp_info", or "queue" where the kernel has no byte counts in
	// it: what was read or written, corrected by what the socket still holds.
	CountedBy string `json:"counted_by,omitempty"`
	// CongestionControl is the sender's, if this side is the sender, or the
	// server told it (iperf3).
	CongestionControl string `json:"congestion_control,omitempty"`
	// ServerBytes is what the receiving server counted over the whole transfer,
	// if it says so, SentBytes what was acknowledged in the same time.
	ServerBytes *uint64 `json:"server_bytes,omitempty"`
	SentBytes   *uint64 `json:"sent_bytes,omitempty"`

	// Mbps are the rates of the seconds of the window, at the layer of TCP.
	Mbps          []float64    `json:"mbps_per_second,omitempty"`
	Spread        Spread       `json:"spread"`
	PerConnection []Connection `json:"per_connection,omitempty"`
	TR143         TR143        `json:"tr143"`

	// CrossMbps is what others moved through the interface in this direction
	// meanwhile, at the layer of its counters, less headers; nil if unknown.
	CrossMbps *float64 `json:"cross_traffic_mbps"`
	// CrossPeakMbps is CrossMbps in its highest second.
	CrossPeakMbps *float64 `json:"cross_traffic_peak_mbps,omitempty"`
	// CountersBlind says that the interface's counters do not see everything
	// that passes: CrossMbps is then a lower bound.
	CountersBlind bool `json:"counters_blind,omitempty"`
	// CeilingMbps is what the port could carry at most, as payload of TCP; nil
	// if its speed is not known.
	CeilingMbps *float64   `json:"ceiling_mbps,omitempty"`
	Latency     Latency    `json:"latency"`
	Conditions  Conditions `json:"conditions"`

	link linkChange
	// cut is what ended the run before its window did, LimitNone if nothing or
	// an error. A run that was cut has an Error, and is not judged.
	cut Limit
}

// Spread is how the seconds' rates are distributed.
type Spread struct {
	MinMbps    float64 `json:"min_mbps"`
	MedianMbps float64 `json:"median_mbps"`
	MaxMbps    float64 `json:"max_mbps"`
	// CV is the standard deviation over the mean.
	CV float64 `json:"cv"`
}

// Connection is one of those that the bytes went through.
type Connection struct {
	Bytes uint64  `json:"bytes"` // in the window
	Mbps  float64 `json:"mbps"`
	// RTTMs and MinRTTMs are TCP's at the end of the window.
	RTTMs    float64 `json:"rtt_ms"`
	MinRTTMs float64 `json:"min_rtt_ms,omitempty"`
	// Retransmits counts segments sent again in the window (upload), OutOfOrder
	// those that came out of order (download).
	Retransmits uint64 `json:"retransmits,omitempty"`
	OutOfOrder  uint64 `json:"out_of_order,omitempty"`
	Segments    uint64 `json:"segments"` // with data, in the window
	MSS         uint32 `json:"mss"`
	// HeaderBytes are of IP and TCP, options included, for each segment.
	HeaderBytes int `json:"header_bytes"`
	// WindowBytes is the most that may be under way: this side's receive window
	// (download) or the peer's (upload); 0 if unknown.
	WindowBytes uint64 `json:"window_bytes,omitempty"`
	// BusyRatio, RWndLimitedRatio and SndBufLimitedRatio are the parts of the
	// window in which there was something to send, the peer's window stood in
	// the way, or this side's buffer (upload; nil where the kernel can't say).
	BusyRatio          *float64 `json:"busy_ratio,omitempty"`
	RWndLimitedRatio   *float64 `json:"rwnd_limited_ratio,omitempty"`
	SndBufLimitedRatio *float64 `json:"sndbuf_limited_ratio,omitempty"`
	// Backlog is the part of the samples at which more waited to be read than a
	// reader that keeps up would leave (download).
	BacklogRatio float64 `json:"backlog_ratio,omitempty"`
}

// TR143 are the figures of BBF TR-143 (DownloadDiagnostics, UploadDiagnostics)
// under the names of TR-181. Times are UTC by the device's clock.
type TR143 struct {
	ROMTime                   time.Time           `json:"ROMTime,omitzero"`
	BOMTime                   time.Time           `json:"BOMTime,omitzero"`
	EOMTime                   time.Time           `json:"EOMTime,omitzero"`
	TCPOpenRequestTime        time.Time           `json:"TCPOpenRequestTime,omitzero"`
	TCPOpenResponseTime       time.Time           `json:"TCPOpenResponseTime,omitzero"`
	TestBytes                 uint64              `json:"TestBytes"`                    // TestBytesReceived or TestBytesSent: BOM to EOM
	TotalBytesReceived        *uint64             `json:"TotalBytesReceived,omitempty"` // of the interface
	TotalBytesSent            *uint64             `json:"TotalBytesSent,omitempty"`     //
	TestBytesUnderFullLoading uint64              `json:"TestBytesUnderFullLoading"`    //
	PeriodOfFullLoading       uint64              `json:"PeriodOfFullLoading"`          // µs
	IncrementalResult         []IncrementalResult `json:"IncrementalResult,omitempty"`
}

// IncrementalResult is one interval of the window.
type IncrementalResult struct {
	TestBytes uint64    `json:"TestBytes"`
	StartTime time.Time `json:"StartTime"`
	EndTime   time.Time `json:"EndTime"`
}

// Latency is the time to the server and back: of the handshakes of TCP
// connections beside the test, before it and under its load.
type Latency struct {
	IdleP50Ms   *float64 `json:"idle_p50_ms"`
	IdleP95Ms   *float64 `json:"idle_p95_ms"`
	LoadedP50Ms *float64 `json:"loaded_p50_ms"`
	LoadedP95Ms *float64 `json:"loaded_p95_ms"`
	// RPM is the round trips per minute under load of handshake and request (the
	// foreign part of IETF responsiveness, without TLS); nil if too few
	// requests were answered.
	RPM *float64 `json:"rpm,omitempty"`
	// RPMConfidence is low, medium or high.
	RPMConfidence string `json:"rpm_confidence,omitempty"`
	IdleProbes    int    `json:"idle_probes"`
	LoadedProbes  int    `json:"loaded_probes"`
	LostProbes    int    `json:"lost_probes"`
}

// Conditions are of this device in the window. A ratio is nil where the system
// cannot say.
type Conditions struct {
	// Cores are the busy ratios of the cores, SoftIRQ the part of it in
	// software interrupts.
	Cores   []float64 `json:"cores_busy,omitempty"`
	SoftIRQ []float64 `json:"cores_softirq,omitempty"`
	// PeakCore is the busiest core in its busiest second.
	PeakCore *float64 `json:"peak_core_busy,omitempty"`
	// SoftnetDropped and SoftnetSqueezed count what /proc/net/softnet_stat
	// counts, over all cores.
	SoftnetDropped  uint64 `json:"softnet_dropped"`
	SoftnetSqueezed uint64 `json:"softnet_squeezed"`
	// ProcessBusy is this process's time on all cores over the window's,
	// ProcessWaited the time that it was ready to run and did not.
	ProcessBusy   *float64 `json:"process_busy,omitempty"`
	ProcessWaited *float64 `json:"process_waited,omitempty"`
	// Throttled is the part of the window in which a cgroup's quota held this
	// process back.
	Throttled *float64 `json:"cgroup_throttled,omitempty"`
	// QuotaCores is how many cores' time a cgroup allows this process; nil if
	// there is no quota, or none can be seen.
	QuotaCores *float64 `json:"cgroup_quota_cores,omitempty"`
	// LateRatio is the part of moments, 43 a second, at which this process could
	// not run within 3 ms.
	LateRatio *float64 `json:"late_ratio,omitempty"`
	// SampleLateMs is the longest that a sample came after its time.
	SampleLateMs float64 `json:"sample_late_ms"`
}

// linkChange is what became of the interface in a run.
type linkChange string
