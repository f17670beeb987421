package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"ontagent/cmd/ontlab/fleet"
	"ontagent/cmd/ontlab/lab"
	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// fleetLine is what `ontlab fleet` tells once a second: the state of the fleet,
// and what happened in the second.
type fleetLine struct {
	fleet.Sample
	AttemptsPerS  float64 `json:"attempts_per_s"`
	PeakPerS      float64 `json:"peak_attempts_per_s"` // the highest so far
	PublishedPerS float64 `json:"published_per_s"`
	ErrorsPerS    float64 `json:"errors_per_s"`
	// RSSKiB is the resident memory of this process, and KiBPerGateway that
	// divided by the gateways: the program itself included.
	RSSKiB        int64   `json:"rss_kib"`
	KiBPerGateway float64 `json:"kib_per_gateway"`
}

// fleet plays many gateways until it is stopped.
func (a *app) fleet(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab fleet", flag.ContinueOnError)
	f.SetOutput(a.err)
	broker := f.String("broker", "", "URL of the broker: tcp://HOST:PORT, ssl:// …; empty means a mosquitto of our own")
	gateways := f.Int("gateways", 1000, "how many, up to 1000000")
	spread := f.Duration("spread", mqtt.DefaultBackoff().Spread, "over how long they come back after an outage")
	limit := f.Duration("backoff-cap", mqtt.DefaultBackoff().Cap, "longest wait between attempts")
	duration := f.Duration("duration", 0, "how long to play; 0 means until interrupted")
	telemetry := f.Duration("telemetry-interval", time.Minute, "how often each sends a message; 0 means never")
	tenant := f.String("tenant", "fleet", "tenant in the topics")
	ca := f.String("ca", "", "file with the CA certificates of the broker, for ssl://")
	sources := f.String("sources", "", fmt.Sprintf("addresses to connect from, with commas between; each serves %d gateways. A broker on 127.0.0.1 needs none given", fleet.PerSource))
	asJSON := f.Bool("json", false, "print a JSON object per second rather than a line for people")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("%w: fleet takes nothing but flags", errUsage)
	case *spread < 0 || *limit <= 0 || *duration < 0 || *telemetry < 0:
		return fmt.Errorf("%w: a duration is negative", errUsage)
	case !transport.ValidTenant(*tenant):
		return fmt.Errorf("%w: %.80q is no name of a tenant", errUsage, *tenant)
	}
	backoff := mqtt.DefaultBackoff()
	backoff.Spread, backoff.Cap = *spread, *limit
	o := fleet.Options{
		Dial:   mqtt.Options{Broker: *broker, TLS: mqtt.TLSOptions{CAFile: *ca}},
		Tenant: *tenant, Gateways: *gateways, Backoff: backoff, Telemetry: *telemetry,
	}
	if *sources != "" {
		o.Sources = strings.Split(*sources, ",")
	}
	if err := raiseFileLimit(*gateways + 100); err != nil { // the broker's limit, too
		return err
	}
	if *broker == "" {
		url, stop, err := ownBroker(ctx)
		if err != nil {
			return err
		}
		defer stop()
		o.Dial.Broker = url
	}
	many, err := fleet.New(o)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = many.Serve(ctx) // until ctx ends: that it did is no error
	}()
	a.tellFleet(many, ended, *asJSON)
	return nil
}

// ownBroker starts a mosquitto on a free port of this machine.
func ownBroker(ctx context.Context) (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "ontlab-fleet-")
	if err != nil {
		return "", nil, fmt.Errorf("cannot start broker: %w", err)
	}
	cleanup := func() { _ = os.RemoveAll(dir) }
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cleanup()
		return "", nil, fmt.Errorf("cannot start broker: %w", err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	broker, err := lab.NewMosquitto(dir, address)
	if err == nil {
		// It outlives ctx, so that the fleet can say goodbye.
		err = broker.Start(context.WithoutCancel(ctx))
	}
	if err != nil {
		cleanup()
		return "", nil, err
	}
	return "tcp://" + address, func() { _ = broker.Stop(); cleanup() }, nil
}

// tellFleet prints a line a second until the fleet has ended, and a last one.
func (a *app) tellFleet(many *fleet.Fleet, ended <-chan struct{}, asJSON bool) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var last fleetLine
	for open := true; open; {
		select {
		case <-ticker.C:
		case <-ended:
			open = false
		}
		line := fleetLine{Sample: many.Sample(), RSSKiB: residentKiB()}
		per := func(now, before uint64) float64 {
			if now < before { // an attempt that was under way succeeded
				return 0
			}
			return float64(now-before) / (line.AtS - last.AtS)
		}
		line.KiBPerGateway = float64(line.RSSKiB) / float64(line.Gateways)
		line.PeakPerS = last.PeakPerS
		if line.AtS-last.AtS > 0.5 { // the last line may come after a moment
			line.AttemptsPerS = per(line.Attempts, last.Attempts)
			line.PublishedPerS = per(line.Published, last.Published)
			line.ErrorsPerS = per(line.Errors, last.Errors)
			line.PeakPerS = max(line.PeakPerS, line.AttemptsPerS)
		}
		if !open { // a goodbye is no error
			line.Errors = last.Errors
		}
		last = line
		if asJSON {
			_ = json.NewEncoder(a.out).Encode(line)
			continue
		}
		fmt.Fprintf(a.out, "%6.0f s  connected %d of %d  attempts/s %.0f (peak %.0f)  published/s %.0f  errors/s %.0f  %.0f KiB a gateway  %s\n",
			line.AtS, line.Connected, line.Gateways, line.AttemptsPerS, line.PeakPerS, line.PublishedPerS, line.ErrorsPerS, line.KiBPerGateway, line.LastError)
	}
}

// raiseFileLimit lets this process have n files open.
func raiseFileLimit(n int) error {
	want := uint64(n)
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("cannot read limit of open files: %w", err)
	}
	if have.Cur >= want {
		return nil
	}
	raised := syscall.Rlimit{Cur: want, Max: max(want, have.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("cannot have %d files open, %d are allowed (see ulimit -n): %w", n, have.Max, err)
	}
	return nil
}

// residentKiB is VmRSS of this process, 0 if the system doesn't tell.
func residentKiB() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(l, "VmRSS: %d kB", &kib); n == 1 {
			return kib
		}
	}
	return 0
}
