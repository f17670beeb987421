package play

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ontagent/agent/order"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// Names in the lab.
const (
	siteName  = "www.lab.test"
	checkName = "check.lab.test"
	sipName   = "sip.lab.test"
	speedName = "speed.lab.test"
	// portalName is where walled_garden leads if nothing else is said.
	portalName = "portal.isp.example"
	orderName  = "WO-lab"
	lanListen  = gatewayLAN + ":7443"
)

// brokerAddr is where the MQTT broker listens, and the host it is on.
func (l *Lab) brokerAddr() (netip.AddrPort, *netbox.Host) {
	if host := l.hosts[scenario.Management]; host != nil {
		return netip.MustParseAddrPort(mgmtAddr + ":1883"), host
	}
	return netip.AddrPortFrom(core(coreBroker)[0], 1883), l.core
}

// wanInterface is the gateway's interface to the internet, as configured.
func (l *Lab) wanInterface() string {
	c := l.sc.Gateway.Internet
	switch {
	case c.Access == scenario.PPPoE:
		return pppName
	case c.VLAN != 0:
		return fmt.Sprintf("%s.%d", wanPort, c.VLAN)
	}
	return wanPort
}

// agentConfig is /etc/config/ontagent of the gateway.
func (l *Lab) agentConfig() string {
	var b strings.Builder
	section := func(name string) { fmt.Fprintf(&b, "\nconfig %s\n", name) }
	option := func(name string, value any) { fmt.Fprintf(&b, "\toption %s '%v'\n", name, value) }
	list := func(name, value string) { fmt.Fprintf(&b, "\tlist %s '%s'\n", name, value) }

	broker, _ := l.brokerAddr()
	section("main")
	option("device", l.sc.Gateway.Serial)
	option("tenant", "lab")
	option("state_dir", l.agentDir("state"))
	option("run_dir", l.agentDir("run"))
	option("language", "en")
	if l.sc.Gateway.Clock == scenario.ClockNone {
		section("clock")
		option("trust_system", "never")
	}
	section("authority")
	option("root_key_file", l.office.Path("root.pub"))
	section("mqtt")
	option("enabled", 1)
	option("broker", "tcp://"+broker.String())
	option("spread", 0)
	option("backoff_cap", 2)
	section("control")
	option("lan_listen", lanListen)
	section("console")
	option("enabled", 1)
	option("port", l.consolePort())
	if l.consoleLogin() {
		option("username", consoleUser)
		option("password", consolePassword)
	}
	driver, _, _ := strings.Cut(l.sc.Gateway.Console, "-") // a model speaks its family's language
	option("driver", driver)
	if l.sc.Gateway.Module.Given {
		section("module")
		option("hwmon", moduleChip)
	}
	section("wan")
	option("interface", l.wanInterface())
	option("device", wanPort)
	if inet, ok := l.sc.Service(scenario.Internet); ok {
		option("vlan", inet.VLAN)
	}
	option("lan_port", homePort)
	for i := range l.sc.Network.Targets {
		list("probe_target", core(coreTargets + i)[0].String())
	}
	list("dns_name", siteName)
	option("check_url", "http://"+checkName+"/generate_204")
	if s, ok := l.sc.Service(scenario.IPTV); ok {
		section("iptv")
		option("group", s.Group)
		option("port", s.Port)
	}
	if s, ok := l.sc.Service(scenario.Voice); ok {
		section("voice")
		option("registrar", voiceAddr+":"+strconv.Itoa(int(s.Port)))
		option("domain", s.Domain)
	}
	if s, ok := l.sc.Service(scenario.Management); ok {
		section("management")
		option("acs", fmt.Sprintf("http://%s:%d/", mgmtAddr, s.Port))
	}
	section("throughput")
	option("url", "http://"+speedName+"/speed/1g")
	option("upload_url", "http://"+speedName+"/upload")
	if l.sc.Network.Speed.Second {
		option("second_url", "http://"+siteName+"/speed/1g")
	}
	option("window", l.sc.Measure.ThroughputWindowS)
	if !l.sc.Gateway.Load.Given { // the load of this machine says nothing about a gateway
		section("thresholds")
		option("cpu_max", 2)
		option("memory_max", 2)
	}
	for _, collector := range []string{"optics", "pon", "link", "wan"} {
		section("collector '" + collector + "'")
		interval := 2
		if collector == "optics" || collector == "pon" {
			interval = 5 // a console takes its time until it is known what it is
		}
		option("interval", interval)
	}
	return b.String()
}

func (l *Lab) agentDir(name string) string { return filepath.Join(l.gateway.Dir(), "agent", name) }

func (l *Lab) configPath() string { return filepath.Join(l.gateway.Dir(), "agent", "ontagent.conf") }

// startAgent enrols the gateway and starts ontagent on it.
func (l *Lab) startAgent(ctx context.Context) error {
	if err := l.gateway.WriteFile(l.configPath(), []byte(l.agentConfig()), 0o600); err != nil {
		return err
	}
	if err := l.office.Enrol(ctx, l.configPath(), l.agentDir("state")); err != nil {
		return fmt.Errorf("cannot enrol the gateway: %w", err)
	}
	return l.runAgent(ctx)
}

// runAgent starts ontagent on a gateway that was enrolled, and waits until it
// answers.
func (l *Lab) runAgent(ctx context.Context) error {
	agent, err := l.gateway.Start(ctx, netbox.Service{
		Name: "ontagent", Path: l.office.Agent, Args: []string{"run", "--config", l.configPath()},
		Ready: func(ctx context.Context) error {
			_, err := l.gateway.Run(ctx, l.office.Agent, "status", "--json", "--config", l.configPath())
			return err
		},
	})
	if err != nil {
		return err
	}
	l.agent = agent
	return nil
}

// writeOrder has the operator sign the order that the scenario describes.
func (l *Lab) writeOrder(ctx context.Context) error {
	o := l.sc.Order
	args := []string{"--type", o.Type, "--max-runs", "50"}
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	add("--sn", o.SN)
	add("--mac", o.MAC)
	add("--pon-port", o.PONPort)
	add("--splitter-port", o.SplitterPort)
	add("--lan-port", o.LANPort)
	var require []string
	for _, rung := range o.Require {
		require = append(require, string(rung))
	}
	add("--require", strings.Join(require, ","))
	add("--max-bytes", strconv.FormatUint(uint64(o.MaxMiB)<<20, 10))
	for _, consent := range o.Consents {
		add("--consent", consent)
	}
	for name, limit := range o.Thresholds {
		add("--threshold", fmt.Sprintf("%s=%v", name, limit))
	}
	secrets := map[string]string{}
	secret := func(name, value string) {
		if value != "" && o.Sealed {
			secrets[name] = value
		}
	}
	for _, s := range l.sc.Services {
		service := fmt.Sprintf("%s:%s:%d", s.Kind, s.Access, s.VLAN)
		if s.VLAN == 0 {
			service = fmt.Sprintf("%s:%s:", s.Kind, s.Access)
		}
		switch s.Kind {
		case scenario.Internet:
			service += fmt.Sprintf(":%v/%v", s.DownMbps, s.UpMbps)
			secret("account", s.Account)
			secret("password", s.Password)
		case scenario.Voice:
			secret("voice_user", s.User)
			secret("voice_password", s.Password)
		}
		add("--service", service)
	}
	var sealed []byte
	if len(secrets) > 0 {
		var err error
		if sealed, err = json.Marshal(secrets); err != nil {
			return fmt.Errorf("cannot encode secrets: %w", err)
		}
	}
	return l.office.Order(ctx, orderName, sealed, l.agentDir("state/statement.json"), l.contract, args...)
}

// contract says at which layer the contracted rates are meant.
func (l *Lab) contract(wo *order.Order) {
	inet, _ := l.sc.Service(scenario.Internet)
	for i := range wo.Services {
		if wo.Services[i].Kind == scenario.Internet && inet.RateLayer != "tcp" {
			wo.Services[i].RateLayer = inet.RateLayer
		}
	}
}

// lastLines are the end of what ontagent said, for whoever has to find out why
// it did not do as it should.
func (l *Lab) lastLines() string {
	data, err := os.ReadFile(filepath.Join(l.gateway.Dir(), "ontagent.log"))
	if err != nil || len(data) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "\nthe gateway's log ends with:\n  " + strings.Join(lines[max(0, len(lines)-8):], "\n  ")
}
