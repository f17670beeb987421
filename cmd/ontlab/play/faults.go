package play

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ontagent/cmd/ontlab/scenario"
)

// faultTakes bounds how long a fault may take to come or to go: an AAA starts
// anew with another book.
const faultTakes = time.Minute

// setting is a fault that is there, as it was set.
type setting struct {
	fault  string
	params scenario.Params
}

// replaces says whether a setting takes the place of an earlier one of its
// fault, instead of standing beside it: where the parameters name one of
// several things, those of others stay.
func (s *setting) replaces(earlier *setting) bool {
	p, q := s.params, earlier.params
	switch s.fault {
	case "dns_dead", "dns_servfail", "dns_slow":
		return p.Resolver == 0 || p.Resolver == q.Resolver
	case "target_silent":
		return p.Target == 0 || p.Target == q.Target
	case "account_reject":
		return p.Account == q.Account
	case "vlan_wrong":
		return p.Service == q.Service
	}
	return true
}

// Fault makes a fault come. One that is there already takes the new parameters.
func (l *Lab) Fault(ctx context.Context, name string, p scenario.Params) error {
	_, err := l.come(ctx, name, p)
	return err
}

func (l *Lab) come(ctx context.Context, name string, p scenario.Params) (*setting, error) {
	l.changing.Lock()
	defer l.changing.Unlock()
	s := &setting{fault: name, params: p}
	settings := slices.DeleteFunc(slices.Clone(l.settings), func(earlier *setting) bool {
		return earlier.fault == name && s.replaces(earlier)
	})
	if name != "session_drop" { // that happens, and is over
		settings = append(settings, s)
	}
	if err := l.become(ctx, name, settings); err != nil {
		return nil, fmt.Errorf("cannot play fault %s: %w", name, err)
	}
	return s, nil
}

// Clear makes a fault go, or all of them.
func (l *Lab) Clear(ctx context.Context, name string) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	var names []string
	for _, s := range l.settings {
		if (name == "all" || name == s.fault) && !slices.Contains(names, s.fault) {
			names = append(names, s.fault)
		}
	}
	var problems []error
	for _, n := range names {
		problems = append(problems, l.take(ctx, n, func(s *setting) bool { return s.fault == n }))
	}
	return errors.Join(problems...)
}

// end takes back one setting, if it is still there.
func (l *Lab) end(ctx context.Context, s *setting) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	return l.take(ctx, s.fault, func(other *setting) bool { return other == s })
}

// take makes settings of a fault go. The caller holds changing.
func (l *Lab) take(ctx context.Context, name string, which func(*setting) bool) error {
	settings := slices.DeleteFunc(slices.Clone(l.settings), which)
	if len(settings) == len(l.settings) {
		return nil
	}
	if err := l.become(ctx, name, settings); err != nil {
		return fmt.Errorf("cannot clear fault %s: %w", name, err)
	}
	return nil
}

// become makes the lab what settings say, of which those of one fault are new
// or gone. If it can't the settings stay as they were. The caller holds
// changing.
func (l *Lab) become(ctx context.Context, fault string, settings []*setting) error {
	// The end of a visit must not leave a fault half-way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), faultTakes)
	defer cancel()
	old := l.settings
	l.keep(settings)
	if err := l.apply(ctx, fault); err != nil {
		l.keep(old)
		return err
	}
	return nil
}

func (l *Lab) keep(settings []*setting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settings = settings
}

// Active are the faults that are there, in the order they came.
func (l *Lab) Active() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := []string{}
	for _, s := range l.settings {
		if !slices.Contains(names, s.fault) {
			names = append(names, s.fault)
		}
	}
	return names
}

// all are the settings of a fault, in the order they came. The caller, as those
// of on and latest, holds changing, or builds the lab.
func (l *Lab) all(fault string) []scenario.Params {
	var params []scenario.Params
	for _, s := range l.settings {
		if s.fault == fault {
			params = append(params, s.params)
		}
	}
	return params
}

// on reports whether a fault is there.
func (l *Lab) on(fault string) bool { return len(l.all(fault)) > 0 }

// latest is the setting of a fault that came last.
func (l *Lab) latest(fault string) (scenario.Params, bool) {
	params := l.all(fault)
	if len(params) == 0 {
		return scenario.Params{}, false
	}
	return params[len(params)-1], true
}

// apply makes what a fault concerns what the settings say. Faults that concern
// the same thing, such as one server, are looked at together.
func (l *Lab) apply(ctx context.Context, fault string) error {
	switch fault {
	case "no_pado", "slow_pado", "second_ac", "mac_blocked", "pads_error", "lcp_silent", "auth_only_pap", "auth_only_chap",
		"ipcp_refused", "echo_loss", "session_drop":
		return l.applyBRAS(ctx, fault)
	case "aaa_down", "aaa_slow", "account_reject", "session_limit":
		return l.applyAAA(ctx)
	case "dhcp_silent", "dhcp_slow", "dhcp_no_address", "dhcp_no_router":
		return l.applyDHCP(ctx)
	case "second_dhcp":
		return l.applySecondDHCP(ctx)
	case "dhcp6_silent", "no_prefix":
		return l.applyDHCP6(ctx, fault)
	case "dns_dead", "dns_servfail", "dns_slow", "dns_wrong_answer", "dns_no_names", "dns_wildcard":
		return l.applyDNS(ctx)
	case "dns_hijack":
		return l.applyHijack(ctx)
	case "mtu_black_hole", "internet_down", "target_silent", "gateway_silent":
		return l.applyPath(ctx, fault)
	case "walled_garden", "http_down":
		return l.applyWeb(ctx)
	case "ntp_dead", "acs_down", "acs_refuses", "multicast_missing", "multicast_lossy", "no_querier", "sip_reject", "sip_silent", "broker_down":
		return l.applyService(ctx, fault)
	case "vlan_wrong", "line", "line_loop", "wan_unplugged", "lan_unplugged":
		return l.applyLine(ctx, fault)
	case "lan_port":
		return l.applyLANPort()
	case "gateway_load":
		return l.applyLoad()
	case "rx_power", "pon_state", "bit_errors", "laser", "rogue_laser", "console_dead", "console_habit":
		return l.applyConsole(ctx, fault)
	case "no_forwarding":
		forward := "1"
		if l.on(fault) {
			forward = "0"
		}
		return l.gateway.Sysctl("net.ipv4.ip_forward", forward)
	case "no_nat":
		if l.on(fault) {
			return rules(ctx, l.gateway, "ip nat", "")
		}
		return l.masquerade(ctx)
	case "small_windows":
		return l.applyWindows()
	case "cross_traffic", "cpu_busy", "gateway_slow":
		return l.applyNoise(ctx, fault)
	}
	return fmt.Errorf("this lab has no fault %q", fault)
}

// errNotHere says that a scenario's lab has nothing that a fault could spoil.
func errNotHere(what string) error { return fmt.Errorf("this scenario's lab has no %s", what) }
