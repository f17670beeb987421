// Package throughput measures how fast a line carries TCP in each direction,
// judges that against a contracted rate, and says what kept it from being
// faster.
//
// It is its own client, of HTTP/1.1 and of iperf3: several connections at once,
// plain TCP, nothing encrypted. What arrives is dropped by the kernel unread
// (MSG_TRUNC) and in large pieces (SO_RCVLOWAT); what is sent comes from memory
// (sendfile). Bytes are counted where TCP counts them (TCP_INFO: received in
// order, or acknowledged), at the edges of a window of fixed length that begins
// when the rate has become stable.
//
// A gateway is slow, and this program is in its own way. So a rate below the
// contract is a verdict only if nothing else explains it: a busy core, a full
// window, other traffic, a slow port, a slow server, loss. Else it is
// inconclusive, and LimitedBy says why. A rate that reaches the contract is a
// pass whatever else was going on: disturbance can only lower it.
//
// The method is that of TR-143 (BBF), with the warm-up on the same connections
// of BEREC BoR(17)112; the figures of TR-143 are beside the result.
package throughput

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// What errors.Is finds in the error of a Run, beside ctx.Err().
var (
	// ErrOptions: the options cannot be meant.
	ErrOptions = errors.New("wrong options")
)

// Direction is which way the bytes go, seen from the customer.
type Direction string

// The directions.
const (
	Down Direction = "down"
	Up   Direction = "up"
	Both Direction = "both" // one after the other, down first
)

// Layer is what a rate counts.
type Layer string

// The layers.
const (
	// LayerTCP counts what an application gets: the payload of TCP.
	LayerTCP Layer = "tcp"
	// LayerIP counts IP packets, header and all.
	LayerIP Layer = "ip"
	// LayerEthernet counts frames with header, tags and PPPoE header, but
	// without frame check sequence, preamble and gap: as interface counters and
	// Linux's shapers do.
	LayerEthernet Layer = "ethernet"
)

// Options say what to measure against what.
type Options struct {
	// URL is what is downloaded: http://host[:port]/path, or
	// iperf3://host[:port]. It must last longer than the test.
	URL string
	// UploadURL is where the upload goes; URL if empty.
	UploadURL string
	// SecondURL is asked, if a rate is below the contract, whether the first
	// server was what was slow. Empty: there is none.
	SecondURL string
	// UploadMethod is POST or PUT (TR-143); POST if empty.
	UploadMethod string
	Direction    Direction // Both if empty
	// Connections is how many there are at once, 1 to 16; 4 if zero.
	Connections int
	// Window is how long is measured, 1 to 60 s; 10 s if zero.
	Window time.Duration
	// WarmUp bounds how long the rate may take to become stable, to 10 s; 3.5 s
	// if zero.
	WarmUp time.Duration
	// ContractDownMbps and ContractUpMbps are the contracted rates, in Mbit/s
	// at Layer; 0: none, nothing is judged.
	ContractDownMbps, ContractUpMbps float64
	Layer                            Layer // LayerTCP if empty
	// MinRatio is the part of the contract that passes, above 0 to 1; 0.9 if
	// zero.
	MinRatio float64
	// MaxBytes bounds what the whole run moves in both directions, headers of
	// packets not counted; 0: no bound.
	MaxBytes uint64
	// Interface is the one to connect through; "": as the routes say.
	Interface string
	// MayDisturb says that the customer has agreed to a test although the line
	// is in use.
	MayDisturb bool
	// Patience is how long to wait for a busy line to become quiet; 5 s if zero.
	Patience time.Duration
	// Encapsulation is what the line adds to packets.
	Encapsulation Encapsulation
	// Resolve yields the addresses of a name; the system's resolver if nil.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Line reads the interface that has a local address. Without it, other
	// traffic, loss of link and a slow port go unseen, and nothing below the
	// contract can be a fail.
	Line func(ctx context.Context, local netip.Addr) (Line, error)
	// ProcRoot and CgroupRoot are where these are mounted; /proc and
	// /sys/fs/cgroup if empty.
	ProcRoot, CgroupRoot string
	// Note, if not nil, is told in a line what is going on. It is not called
	// concurrently.
	Note func(string)
}

// Encapsulation is what stands around IP packets on the line.
type Encapsulation struct {
	PPPoE bool `json:"pppoe"` // 8 bytes: RFC 2516 header and PPP protocol
	// VLANTags is how many 802.1Q tags there are, 4 bytes each; 0 to 2.
	VLANTags int `json:"vlan_tags"`
	// TunnelBytes are those of an outer IP header (DS-Lite: 40).
	TunnelBytes int `json:"tunnel_bytes,omitempty"`
}

// Line is the state of an interface at a moment.
type Line struct {
	Interface string
	// RxBytes and the like are the interface's running totals, 64 bits wide.
	RxBytes, TxBytes, RxPackets, TxPackets uint64
	// HeaderBytes is what the counters count for each packet beside IP: 14 on
	// Ethernet, 0 on PPP.
	HeaderBytes    int
	Carrier        bool
	CarrierChanges uint32
	// SpeedMbps is the negotiated speed of the port that packets go through, in
	// Mbit/s; 0 if unknown or virtual.
	SpeedMbps int
	// Blind says that the counters do not see everything that passes (hardware
	// offload): other traffic may go unseen.
	Blind bool
}

// Verdict is what a rate means for the contract.
type Verdict string

// The verdicts.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
	// Measured: there is a rate, and no contract to hold it against.
	Measured Verdict = "measured"
)

// Limit is what kept a rate from being higher.
type Limit string

// The limits. All but LimitLine and LimitNone make a rate below the contract
// inconclusive.
const (
	LimitNone          Limit = ""               // nothing was measured
	LimitLine          Limit = "line"           // nothing else explains the rate: the line, or the network behind it
	LimitDeviceCPU     Limit = "device_cpu"     // a core, or this process's share of one, was used up
	LimitDeviceCeiling Limit = "device_ceiling" // the port cannot carry more
	LimitServer        Limit = "server"         // a second server was faster, or this one said or showed that it was at its end
	LimitWindow        Limit = "window"         // TCP's window was full: delay × rate is more than buffers hold
	LimitCrossTraffic  Limit = "cross_traffic"  // others used the line
	LimitLoss          Limit = "loss"           // packets were lost without a queue that was full
	LimitUnstable      Limit = "unstable"       // the rate never settled
	LimitShort         Limit = "short"          // it ended before the window did: byte budget, short file
	LimitLinkChanged   Limit = "link_changed"   // the link went away, or another took its place
)

// Result is what a run found.
type Result struct {
	URL           string         `json:"url"`
	UploadURL     string         `json:"upload_url,omitempty"`
	Protocol      string         `json:"protocol"`              // http, iperf3
	Server        netip.AddrPort `json:"server,omitzero"`       // as connected to
	ServerName    string         `json:"server_name,omitempty"` // as it calls itself
	Interface     string         `json:"interface,omitempty"`
	Encapsulation Encapsulation  `json:"encapsulation"`
	Connections   int            `json:"connections"`
	Layer         Layer          `json:"layer"` // of the contract
	MinRatio      float64        `json:"min_ratio"`

	Down *Rate `json:"down,omitempty"`
	Up   *Rate `json:"up,omitempty"`

	Verdict Verdict `json:"verdict"` // the worst of both directions
	Reason  string  `json:"reason,omitempty"`
	// TestBytes is what the whole run moved, warm-up and repetitions included:
	// payload of TCP.
	TestBytes uint64  `json:"test_bytes"`
	DurationS float64 `json:"duration_s"`
}

// Rate is the result for one direction: of the one run, or of the median one of
// three.
type Rate struct {
	Measurement
	// ContractMbps is the contracted rate at the result's layer, ContractRatio
	// the part of it that was reached, unrounded.
	ContractMbps  float64  `json:"contract_mbps,omitempty"`
	ContractRatio *float64 `json:"contract_ratio,omitempty"`
	Verdict       Verdict  `json:"verdict"`
	LimitedBy     Limit    `json:"limited_by"`
	Reason        string   `json:"reason,omitempty"` // why it is not a pass
	// Runs are all that were measured, if there was more than one, in their
	// order.
	Runs []Measurement `json:"runs,omitempty"`
}
