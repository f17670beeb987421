package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"ontagent/agent/acceptance/steps"
	"ontagent/agent/order"
	"ontagent/agent/probe/tcp"
	"ontagent/config"
)

// routedOptions are what the routed internet is tried by.
func (s *sources) routedOptions(c config.Config, o order.Order) steps.RoutedOptions {
	return steps.RoutedOptions{
		Access: access(o), Targets: targets(c), Reach: tcp.Run, Servers: s.servers(c),
		Reader: func(ctx context.Context) (steps.Routed, error) { return s.readRouted(ctx, c) },
	}
}

// servers are those of the pages that this gateway is configured to ask for.
func (s *sources) servers(c config.Config) []tcp.Options {
	var out []tcp.Options
	for _, page := range []string{c.WAN.CheckURL, c.Throughput.URL, c.Throughput.SecondURL} {
		u, err := url.Parse(page)
		if err != nil || u.Hostname() == "" {
			continue
		}
		port := uint16(80)
		if u.Scheme == "https" {
			port = 443
		}
		_, port = hostPort(u.Host, port)
		known := false
		for _, t := range out {
			known = known || t.Host == u.Hostname() && t.Port == port
		}
		if !known {
			out = append(out, tcp.Options{Host: u.Hostname(), Port: port, Resolve: s.resolve(c)})
		}
	}
	return out
}

// readRouted reads the LAN: the configured port, or the bridge that it is in; or
// else every interface with addresses that is not the line's.
func (s *sources) readRouted(ctx context.Context, c config.Config) (steps.Routed, error) {
	line, err := wanAdapter{s}.ReadWAN(ctx)
	if err != nil {
		return steps.Routed{}, err
	}
	all, err := net.Interfaces()
	if err != nil {
		return steps.Routed{}, fmt.Errorf("cannot list interfaces: %w", err)
	}
	named := ""
	if c.WAN.LANPort != "" {
		named = c.WAN.LANPort
		if master, err := os.Readlink(filepath.Join("/sys/class/net", named, "master")); err == nil {
			named = filepath.Base(master)
		}
	}
	r := steps.Routed{Named: named != "", Source: "platform"}
	var names []string
	for _, ifi := range all {
		if named != "" && ifi.Name != named || named == "" && !behind(ifi, line.Interface, c.WAN.Device) {
			continue
		}
		names = append(names, ifi.Name)
		addrs, err := ifi.Addrs()
		if err != nil {
			return steps.Routed{}, fmt.Errorf("cannot read addresses of %s: %w", ifi.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				r.Addresses = append(r.Addresses, p)
			}
		}
	}
	if named != "" && len(names) == 0 {
		return steps.Routed{}, fmt.Errorf("cannot find %s", named)
	}
	r.Addresses = firstPrefixes(r.Addresses)
	r.LAN = strings.Join(names, " ")
	r.ForwardV4 = forwarding("/", "ipv4", append(names, line.Interface)...)
	r.ForwardV6 = forwarding("/", "ipv6", "all")
	r.Flows, r.Untracked = -1, untracked("/")
	if file, err := os.Open("/proc/net/nf_conntrack"); err == nil {
		defer file.Close() //nolint:errcheck // it was only read
		if n, err := countFlows(io.LimitReader(file, maxFlows), r.Addresses); err == nil {
			r.Flows = n
		}
	}
	return r, nil
}

// behind reports whether hosts may be behind an interface: it is not the line's,
// nor one of its VLANs.
func behind(ifi net.Interface, wan, port string) bool {
	if ifi.Flags&net.FlagUp == 0 || ifi.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 || ifi.Name == wan {
		return false
	}
	under, _, _ := strings.Cut(wan, ".")
	if port == "" {
		port = under
	}
	name, _, _ := strings.Cut(ifi.Name, ".")
	return port == "" || name != port
}

// forwarding reports whether the kernel forwards what comes in by all of these
// interfaces; nil: it cannot be read. Of IPv6 "all" is the switch.
func forwarding(root, family string, names ...string) *bool {
	on, read := true, false
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(root, "proc/sys/net", family, "conf", name, "forwarding"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil
		default:
			read = true
			on = on && strings.TrimSpace(string(data)) != "0"
		}
	}
	if !read {
		return nil
	}
	return &on
}

// untracked reports whether the kernel says that it tracks no connection.
func untracked(root string) bool {
	n, err := os.ReadFile(filepath.Join(root, "proc/sys/net/netfilter/nf_conntrack_count"))
	return err == nil && strings.TrimSpace(string(n)) == "0"
}

// maxFlows bounds what is read of the kernel's table of connections, in bytes.
const maxFlows = 1 << 20

// countFlows counts the connections in a table of nf_conntrack that hosts of
// these networks, the gateway not among them, have with others, and that were
// answered.
func countFlows(r io.Reader, lan []netip.Prefix) (int, error) {
	n := 0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		source, target, answered := parseFlow(lines.Text())
		if !answered {
			continue
		}
		own := false // the gateway itself
		for _, p := range lan {
			own = own || p.Addr() == source
		}
		if inAny(lan, source) && !inAny(lan, target) && !target.IsMulticast() && !own {
			n++
		}
	}
	return n, lines.Err()
}

func inAny(all []netip.Prefix, a netip.Addr) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseFlow reads who began a connection with whom, and whether there was an
// answer. A line that is none has no addresses.
func parseFlow(line string) (source, target netip.Addr, answered bool) {
	for word := range strings.FieldsSeq(line) {
		if word == "[UNREPLIED]" {
			return source, target, false
		}
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "src" && !source.IsValid():
			source, _ = netip.ParseAddr(value)
		case key == "dst" && !target.IsValid():
			target, _ = netip.ParseAddr(value)
		}
	}
	return source, target, source.IsValid() && target.IsValid()
}
