package play

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/ontsim"
	"ontagent/cmd/ontlab/scenario"
)

// Options say where a lab is built.
type Options struct {
	Dir    string // its files
	BinDir string // where ontagent and ontctl are
	Name   string // by which it is listed; "": it is not
	Log    *slog.Logger
}

// Lab is what a scenario describes, built and running. Make it in namespaces
// that netbox.Enter made.
type Lab struct {
	sc     scenario.Scenario
	o      Options
	box    *netbox.Box
	office *office

	gateway, home, ont, olt, bras, core, pc, stb *netbox.Host
	speed                                        *netbox.Host            // of a speed-test server that is not on core; nil: there is none
	hosts                                        map[string]*netbox.Host // by kind of service, the operator's
	served                                       map[uint16]bool         // VLANs that olt has an interface for
	vlans                                        map[string]uint16       // in which each kind of service is served now
	rogue                                        *netbox.Host            // one that nobody ordered; nil until a fault needs it
	rogueIn                                      map[string]bool         // kinds of service that it has a cable to

	servers
	sim   *ontsim.Sim
	modes ontsim.Mode  // its habits
	lan   *netbox.Wire // the gateway's LAN port, where the scenario says what it says of its link; else nil
	load  load
	// lanUnplugged says that home and gateway have no cable but a wireless LAN.
	lanUnplugged bool
	diallers     []*dialler
	agent        *netbox.Process
	watch        *netbox.Process
	watchLog     string

	changing sync.Mutex // held while a fault comes or goes
	mu       sync.Mutex
	// settingsBefore are those that were there before the gateway, by their
	// number in the timeline.
	settingsBefore map[int]*setting
	settings       []*setting // of faults, in the order they came; written with both, read with one of changing and mu
	noise          *noise     // what faults keep running
}

// Needs names what a kernel must have for a scenario, as netbox.Missing does.
func Needs(s scenario.Scenario) []string {
	needs := []string{netbox.NeedNamespaces, netbox.NeedVeth, netbox.NeedBridge}
	add := func(need string, is bool) {
		if is && !slices.Contains(needs, need) {
			needs = append(needs, need)
		}
	}
	line := func(l scenario.Line) {
		add(netbox.NeedTBF, l.DownMbps > 0 || l.UpMbps > 0)
		add(netbox.NeedNetem, l.DelayMS > 0 || l.LossRatio > 0 || l.DuplicateRatio > 0 || l.ReorderRatio > 0)
	}
	line(s.Network.Line)
	add(netbox.NeedTBF, s.Network.Speed.UplinkMbps > 0)
	for _, m := range s.Timeline {
		p := m.Params
		line(scenario.Line{DownMbps: p.DownMbps, UpMbps: p.UpMbps, DelayMS: p.DelayMS, LossRatio: p.LossRatio, DuplicateRatio: p.DuplicateRatio, ReorderRatio: p.ReorderRatio})
		add(netbox.NeedVLAN, m.Fault == "vlan_wrong" && p.VLAN != 0)
	}
	for _, service := range s.Services {
		add(netbox.NeedVLAN, service.VLAN != 0)
		dials := service.Access == scenario.PPPoE || service.Behind == scenario.PPPoE
		add(netbox.NeedPPP, dials)
		add(netbox.NeedPPPoE, dials)
	}
	for _, vlan := range s.Network.VLANs {
		add(netbox.NeedVLAN, vlan != 0)
	}
	add(netbox.NeedVLAN, s.Gateway.Internet.VLAN != 0)
	add(netbox.NeedPPP, s.Gateway.Internet.Access == scenario.PPPoE)
	return needs
}

// Build builds the lab up to where the technician arrives: everything runs, the
// gateway had its time to get online.
func Build(ctx context.Context, s scenario.Scenario, o Options) (l *Lab, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l = &Lab{sc: s, o: o, served: map[uint16]bool{}, vlans: map[string]uint16{}, noise: &noise{}}
	defer func() { //nolint:contextcheck // the end must not depend on ctx, which may have ended
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot build the lab: %w", err), l.Close())
			l = nil
		}
	}()
	if l.office, err = newOffice(filepath.Join(o.Dir, "office"), o.BinDir, s.Gateway.Serial); err != nil {
		return l, err
	}
	if l.box, err = netbox.Open(netbox.Options{Dir: o.Dir, Name: o.Name, Log: o.Log}); err != nil {
		return l, err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"network", l.buildNetwork},
		{"servers", l.startServers},
		{"gateway", l.startGateway},
		{"console", l.startConsole},
		{"faults before", l.before},
		{"connections", l.connect},
		{"agent", l.startAgent},
		{"events", l.watchEvents},
		{"order", l.writeOrder},
		{"settling", l.settle},
		{"extract", l.writeExtract},
	} {
		began := time.Now()
		if err = step.do(ctx); err != nil {
			return l, err
		}
		o.Log.Info("built", "part", step.name, "took", time.Since(began).Round(time.Millisecond))
	}
	return l, nil
}

func (l *Lab) settle(ctx context.Context) error {
	if _, ordered := l.sc.Service(scenario.Internet); !ordered || l.sc.Gateway.Internet.Dial == scenario.DialNever {
		return nil // nothing will come up
	}
	l.o.Log.Info("gateway", "online", l.online(ctx, seconds(l.sc.Measure.SettleS)))
	return ctx.Err()
}

// Close ends everything. What it returns is what did not end well.
func (l *Lab) Close() error {
	l.noise.stop()
	for _, d := range l.diallers {
		d.cancel()
	}
	var problems []error
	if l.agent != nil {
		problems = append(problems, l.agent.Stop())
	}
	for _, d := range l.diallers {
		d.stop()
	}
	problems = append(problems, l.stop())
	if l.sim != nil {
		problems = append(problems, l.sim.Close())
	}
	if l.lan != nil {
		problems = append(problems, l.lan.Close())
	}
	if l.box != nil {
		problems = append(problems, l.box.Close())
	}
	return errors.Join(problems...)
}

// Play builds the lab, runs the visit, and takes the lab down.
func Play(ctx context.Context, s scenario.Scenario, o Options) scenario.Observed {
	l, err := Build(ctx, s, o)
	if err != nil {
		return scenario.Observed{Err: err}
	}
	observed := l.visit(ctx)
	observed.Events = l.events(ctx)
	if err := l.Close(); err != nil && o.Log != nil { //nolint:contextcheck // as above
		// The verdict stands; the lab's namespaces go with its process.
		o.Log.Warn("the lab did not come down well", "error", err)
	}
	return observed
}

// servers are the operator's.
type servers struct {
	radius    *isp.RADIUS
	brasd     *isp.BRAS
	dhcp      map[string]*isp.DHCP // by kind of service
	dhcp6     *isp.DHCP6           // of IPoE and static addresses
	adverts   *isp.Advertiser      // of static addresses
	dns       *isp.DNS
	ntp       *isp.NTP
	web       *isp.HTTP
	speedWeb  *isp.HTTP // the speed-test server, where it has a host of its own; else nil
	portal    *isp.HTTP // runs while there is a walled garden
	hijack    *isp.DNSHijack
	rogueAC   *isp.RogueAC // these two while there are faults of them
	rogueDHCP *isp.DHCP
	multicast *isp.Multicast
	sip       *isp.SIP
	acs       *isp.ACS
	broker    *isp.Broker

	// What they do wrong now.
	bookNow string
	dnsNow  [2]isp.DNSFault
	dhcpNow map[*isp.DHCP]dhcpState
	webDown bool
}

type stopper interface{ Stop() error }

func (s *servers) stop() error {
	var problems []error
	end := func(started bool, server stopper) {
		if started {
			problems = append(problems, server.Stop())
		}
	}
	end(s.rogueAC != nil, s.rogueAC)
	end(s.rogueDHCP != nil, s.rogueDHCP)
	if s.hijack != nil {
		problems = append(problems, s.hijack.Stop(context.Background()))
	}
	end(s.brasd != nil, s.brasd)
	for _, d := range s.dhcp {
		end(d != nil, d)
	}
	end(s.dhcp6 != nil, s.dhcp6)
	end(s.adverts != nil, s.adverts)
	end(s.radius != nil, s.radius)
	end(s.multicast != nil, s.multicast)
	end(s.sip != nil, s.sip)
	end(s.acs != nil, s.acs)
	end(s.web != nil, s.web)
	end(s.speedWeb != nil, s.speedWeb)
	end(s.portal != nil, s.portal)
	end(s.ntp != nil, s.ntp)
	end(s.dns != nil, s.dns)
	end(s.broker != nil, s.broker)
	return errors.Join(problems...)
}
