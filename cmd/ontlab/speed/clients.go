package speed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"ontagent/agent/probe/throughput"
)

const (
	connections = 4
	// seconds is how long the others measure: as long as our window.
	seconds      = 10
	contractNone = 0 // there is nothing to judge
)

type direction = throughput.Direction

func directions() []direction { return []direction{throughput.Down, throughput.Up} }

// sample is what one client measured in one run, and what it cost.
type sample struct {
	Mbps float64 // as the client says, in Mbit/s of payload
	Gbit float64 // payload that it moved from start to end
	CPUS float64 // user and system time, s
	// CPUPerGbit is CPUS over Gbit.
	CPUPerGbit float64
	TookS      float64
	Memory     memory
}

func (u usage) sample(mbps, bytes float64) sample {
	s := sample{Mbps: mbps, Gbit: bytes * 8 / 1e9, CPUS: u.CPU.Seconds(), TookS: u.Took.Seconds(), Memory: u.Memory}
	if s.Gbit > 0 {
		s.CPUPerGbit = s.CPUS / s.Gbit
	}
	return s
}

// ours is one run of ontagent throughput in one direction.
type ours struct {
	sample
	throughput.Result
	ExitCode int
}

// rate is the result in that direction; never nil.
func (o ours) rate(d direction) throughput.Rate {
	rate := o.Down
	if d == throughput.Up {
		rate = o.Up
	}
	if rate == nil {
		return throughput.Rate{Verdict: throughput.Inconclusive, Reason: o.Reason}
	}
	return *rate
}

// tcpMbps is what was measured; 0 if nothing was.
func (o ours) tcpMbps(d direction) float64 {
	if m := o.rate(d).TCPMbps; m != nil {
		return *m
	}
	return 0
}

// runner runs clients on a link.
type runner struct {
	*link
	self []string // with which this program is the client made of net/http
}

// ours measures with a program of ours; command is it and what stands before
// it, such as an emulator. contract is in Mbit/s, 0 is none.
func (r runner) ours(ctx context.Context, started func(pid int) error, command []string, d direction, contract float64, more ...string) (ours, error) {
	args := append(slices.Clone(command[1:]), "throughput", "--json", "--url", downloadURL(), "--direction", string(d))
	args = append(args, more...)
	if contract != contractNone {
		text := strconv.FormatFloat(contract, 'f', -1, 64)
		args = append(args, "--contract", text)
	}
	u, err := runOn(ctx, r.client, started, command[0], args...)
	if err != nil {
		return ours{}, err
	}
	if err := u.failed("ontagent throughput", 0, 1, 3); err != nil {
		return ours{}, err
	}
	o := ours{ExitCode: u.ExitCode}
	if err := json.Unmarshal(u.Stdout, &o.Result); err != nil {
		return ours{}, fmt.Errorf("cannot read what ontagent throughput printed: %w", err)
	}
	o.sample = u.sample(o.tcpMbps(d), float64(o.TestBytes))
	return o, nil
}

// peer is a client that is measured beside ours.
type peer struct {
	name string
	run  func(ctx context.Context, r runner) (sample, error)
}

// Names of the clients in tables and bars.
const (
	oursName    = "ontagent throughput"
	oursOneName = "ontagent throughput --connections 1"
	iperfName   = "iperf3"
	iperfP4Name = "iperf3 -P 4"
	iperfZName  = "iperf3 -Z"
	curlName    = "curl, 4 at once"
	nethttpName = "net/http, 4 at once"
)

func peers(d direction) []peer {
	iperf := func(name string, args ...string) peer {
		return peer{name, func(ctx context.Context, r runner) (sample, error) { return r.iperf(ctx, d, args...) }}
	}
	all := []peer{iperf(iperfName), iperf(iperfP4Name, "-P", strconv.Itoa(connections))}
	if d == throughput.Up {
		all = append(all, iperf(iperfZName, "-Z"))
	}
	return append(all,
		peer{curlName, func(ctx context.Context, r runner) (sample, error) { return r.curl(ctx, d) }},
		peer{nethttpName, func(ctx context.Context, r runner) (sample, error) { return r.nethttp(ctx, d) }},
	)
}

// iperfResult is the part of iperf3's JSON that counts.
type iperfResult struct {
	Error string `json:"error"`
	End   struct {
		// Control is the sender's.
		Control     string `json:"sender_tcp_congestion"`
		SumReceived struct {
			Bytes         float64 `json:"bytes"`
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
}

func (r runner) iperf(ctx context.Context, d direction, more ...string) (sample, error) {
	args := append([]string{"-c", serverAddr, "-t", strconv.Itoa(seconds), "-J"}, more...)
	if d == throughput.Down {
		args = append(args, "-R")
	}
	// One that has served another test may not be done with it yet.
	server, err := r.startIperf(ctx)
	if err != nil {
		return sample{}, err
	}
	u, err := runOn(ctx, r.client, nil, "iperf3", args...)
	err = errors.Join(err, server.Stop())
	if err == nil {
		err = u.failed("iperf3", 0)
	}
	if err != nil {
		return sample{}, fmt.Errorf("%w (its server: %.500s)", err, server.Log())
	}
	var result iperfResult
	if err := json.Unmarshal(u.Stdout, &result); err != nil {
		return sample{}, fmt.Errorf("cannot read what iperf3 printed: %w", err)
	}
	if result.Error != "" {
		return sample{}, fmt.Errorf("iperf3: %s", result.Error)
	}
	return u.sample(result.End.SumReceived.BitsPerSecond/1e6, result.End.SumReceived.Bytes), nil
}

func (r runner) curl(ctx context.Context, d direction) (sample, error) {
	args := []string{
		"--silent", "--parallel", "--parallel-immediate", "--max-time", strconv.Itoa(seconds),
		"--write-out", "%{size_download} %{size_upload} %{time_total}\n",
	}
	for range connections {
		if d == throughput.Down {
			args = append(args, "--output", "/dev/null", downloadURL())
		} else {
			args = append(args, "--output", "/dev/null", "--upload-file", "big", uploadURL())
		}
	}
	u, err := runOn(ctx, r.client, nil, "curl", args...)
	if err != nil {
		return sample{}, err
	}
	if err := u.failed("curl", 0, 28); err != nil { // 28: its time is over
		return sample{}, err
	}
	bytes, took, err := parseCurl(string(u.Stdout))
	if err != nil {
		return sample{}, err
	}
	return u.sample(bytes*8/1e6/took, bytes), nil
}

// parseCurl adds the lines up: bytes down, bytes up, seconds of each.
func parseCurl(text string) (bytes, took float64, err error) {
	lines := 0
	for line := range strings.Lines(text) {
		var down, up, s float64
		if _, err := fmt.Sscan(line, &down, &up, &s); err != nil {
			return 0, 0, fmt.Errorf("cannot read what curl printed: %q: %w", line, err)
		}
		bytes, took = bytes+down+up, max(took, s)
		lines++
	}
	if lines != connections || took == 0 {
		return 0, 0, fmt.Errorf("cannot read what curl printed: %d transfers in %v s", lines, took)
	}
	return bytes, took, nil
}

func (r runner) nethttp(ctx context.Context, d direction) (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, fmt.Errorf("cannot find this program: %w", err)
	}
	url := downloadURL()
	if d == throughput.Up {
		url = uploadURL()
	}
	u, err := runOn(ctx, r.client, nil, self, slices.Concat(r.self, []string{clientWord, string(d), url, strconv.Itoa(connections), strconv.Itoa(seconds)})...)
	if err != nil {
		return sample{}, err
	}
	if err := u.failed("the client made of net/http", 0); err != nil {
		return sample{}, err
	}
	var count httpCount
	if err := json.Unmarshal(u.Stdout, &count); err != nil {
		return sample{}, fmt.Errorf("cannot read what the client made of net/http printed: %w", err)
	}
	if count.Seconds == 0 {
		return sample{}, errors.New("the client made of net/http took no time")
	}
	return u.sample(float64(count.Bytes)*8/1e6/count.Seconds, float64(count.Bytes)), nil
}
