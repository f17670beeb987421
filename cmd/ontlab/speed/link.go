package speed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/netbox"
)

const (
	ifname     = "eth0"
	clientAddr = "10.20.0.2"
	serverAddr = "10.20.0.1"
	iperfPort  = "5201"

	// payload of a full packet, and what tbf counts for it.
	payloadBytes = 1500 - 20 - 20 - 12
	frameBytes   = 1500 + 14
)

// truth is the payload that TCP carries through a shaper of that rate.
func truth(rateMbps float64) float64 { return rateMbps * payloadBytes / frameBytes }

// link is two hosts, what is between them, and what serves.
type link struct {
	box            *netbox.Box
	client, server *netbox.Host
	http           *isp.HTTP
	tests          int // of iperf3
}

// newLink builds it below dir; fileBytes is how large the file is that is
// downloaded, keep are directories with programs.
func newLink(ctx context.Context, dir, congestion string, fileBytes int64, keep ...string) (*link, error) {
	box, err := netbox.Open(netbox.Options{Dir: dir, Keep: keep})
	if err != nil {
		return nil, err
	}
	l := &link{box: box}
	if err := l.build(ctx, congestion, fileBytes); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *link) build(ctx context.Context, congestion string, fileBytes int64) (err error) {
	if l.client, err = l.box.Host("client"); err != nil {
		return err
	}
	if l.server, err = l.box.Host("server"); err != nil {
		return err
	}
	if err := errors.Join(
		l.box.Cable(l.client, ifname, l.server, ifname, netbox.CableOptions{}),
		l.client.Address(ifname, clientAddr+"/24"), l.server.Address(ifname, serverAddr+"/24"),
		// Else a connection would begin with what the one before had learned.
		l.client.Sysctl("net.ipv4.tcp_no_metrics_save", "1"),
		l.server.Sysctl("net.ipv4.tcp_no_metrics_save", "1"),
		control(ctx, l.client, clientAddr, congestion), control(ctx, l.server, serverAddr, congestion),
	); err != nil {
		return err
	}
	l.http, err = isp.StartHTTP(ctx, l.server, isp.HTTPOptions{
		Listen: []netip.AddrPort{netip.MustParseAddrPort(serverAddr + ":80")}, SpeedFiles: map[string]int64{"big": fileBytes},
	})
	if err != nil {
		return err
	}
	// What curl sends.
	if err := l.client.WriteFile("big", nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(filepath.Join(l.client.Dir(), "big"), fileBytes); err != nil {
		return fmt.Errorf("cannot make file: %w", err)
	}
	return nil
}

// startIperf starts an iperf3 server, for one test.
func (l *link) startIperf(ctx context.Context) (*netbox.Process, error) {
	l.tests++
	name := fmt.Sprintf("iperf3-%d", l.tests)
	log := filepath.Join(l.server.Dir(), name+".log")
	return l.server.Start(ctx, netbox.Service{
		Name: name, Path: "iperf3", Args: []string{"-s", "-1", "-B", serverAddr, "--forceflush"},
		// A connection would be taken for a test.
		Ready: func(context.Context) error {
			text, err := os.ReadFile(log)
			if err == nil && !bytes.Contains(text, []byte("Server listening")) {
				err = errors.New("it does not listen yet")
			}
			return err
		},
	})
}

// control sets the congestion control of what a host sends. The sysctl for it
// takes in a namespace only what the machine's own allows; a route takes any.
func control(ctx context.Context, h *netbox.Host, addr, congestion string) error {
	_, err := h.Run(ctx, "ip", "route", "replace", netip.PrefixFrom(netip.MustParseAddr(addr), 24).Masked().String(),
		"dev", ifname, "proto", "kernel", "scope", "link", "src", addr, "congctl", congestion)
	return err
}

func (l *link) close() error {
	var failed []error
	if l.http != nil {
		failed = append(failed, l.http.Stop())
	}
	return errors.Join(append(failed, l.box.Close())...)
}

// shape makes the cable a line: the same in both directions, and without loss
// but what a full queue causes. delay is that of the round trip.
func (l *link) shape(rateMbps float64, delay time.Duration) error {
	return l.shapeLossy(rateMbps, delay, 0)
}

// shapeLossy adds a loss by chance to both directions.
func (l *link) shapeLossy(rateMbps float64, delay time.Duration, ratio float64) error {
	line := netbox.Impairment{RateMbps: rateMbps, Delay: delay / 2, LossRatio: ratio}
	return errors.Join(l.server.Impair(ifname, line), l.client.Impair(ifname, line))
}

func downloadURL() string { return "http://" + serverAddr + "/speed/big" }
func uploadURL() string   { return "http://" + serverAddr + "/upload" }
