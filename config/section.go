package config

import (
	"fmt"
	"strings"
)

// section is a section that a file may have, its options bound to a Config.
type section struct {
	typ string
	// name tells sections of one type apart; empty where there is only one.
	name    string
	help    string
	options []*option
}

// key is how errors call the section.
func (s section) key() string {
	if s.name == "" {
		return s.typ
	}
	return s.typ + " " + s.name
}

// matches: where there is only one of a type it needs no name, but may have
// that of its type, which is what `uci set ontagent.mqtt.broker=…` goes by.
func (s section) matches(b block) bool {
	if s.typ != b.typ {
		return false
	}
	if s.name == "" {
		return b.name == "" || b.name == s.typ
	}
	return b.name == s.name
}

func unknownSection(known []section, b block) string {
	var names []string
	single := false
	for _, s := range known {
		if s.typ == b.typ {
			single = s.name == ""
			names = append(names, s.name)
		}
	}
	switch {
	case len(names) == 0:
		return fmt.Sprintf("unknown section %q", b.typ)
	case single:
		return fmt.Sprintf("section %s: there is only one; its name is %s, not %q", b.typ, b.typ, b.name)
	case b.name == "":
		return fmt.Sprintf("section %s: needs a name, one of %s", b.typ, strings.Join(names, ", "))
	}
	return fmt.Sprintf("section %s: %q is not one of %s", b.typ, b.name, strings.Join(names, ", "))
}

// named is a collector with its section's name.
type named struct {
	name, what string
	c          *Collector
}

func (n named) key() string { return "collector " + n.name }

func (c *Collectors) all() []named {
	return []named{
		{"link", "Interfaces: state, speed, counters, rates.", &c.Link},
		{"host", "The gateway itself: processor, memory, temperature, flash.", &c.Host},
		{"wan", "Addresses, routes, resolvers.", &c.WAN},
		{"optics", "Light levels, bias, temperature of the optics.", &c.Optics},
		{"pon", "Registration and error counters of the PON.", &c.PON},
	}
}

// sections is the one table of everything a file may say. The decoder, Print
// and the reference all go by it.
func (c *Config) sections() []section {
	all := []section{
		{typ: "main", help: "Who this gateway is, and where it keeps its state.", options: []*option{
			text("device", &c.Main.Device, deviceName(),
				"The gateway's name: client id, topic level and common name of its certificate. It must be given.").or("none"),
			text("tenant", &c.Main.Tenant, topicLevel(),
				"The operator's part of the topics."),
			text("state_dir", &c.Main.StateDir, absolutePath(),
				"Directory on flash for keys, orders, jobs, records and what waits for the broker."),
			text("run_dir", &c.Main.RunDir, absolutePath(),
				"Directory in RAM for the control socket."),
			text("log_level", &c.Main.LogLevel, words("debug", "info", "warn", "error"),
				"The least important lines that are logged."),
			text("language", &c.Main.Language, words("zh-CN", "en"),
				"Language of texts for people; codes are the same in both."),
		}},
		{typ: "authority", help: "Who may give orders. Without a root key none is accepted.", options: []*option{
			text("root_key", &c.Authority.RootKey, optional(publicKey()),
				"The operator's root key. It signs the trust list; everything else follows from that."),
			text("root_key_file", &c.Authority.RootKeyFile, optional(absolutePath()),
				"A file that holds the root key, instead of root_key."),
			text("trust_list", &c.Authority.TrustList, optional(absolutePath()),
				"The trust list: operator, NOC, collector and time keys, signed by the root key.").or("`trust.json` in state_dir"),
			text("statement", &c.Authority.Statement, optional(absolutePath()),
				"The device statement: this gateway's own keys, signed by the operator.").or("`statement.json` in state_dir"),
			boolean("noc_diagnose", &c.Authority.NOCDiagnose,
				"NOC keys may run the read-only diagnosis without a work order."),
		}},
		{typ: "mqtt", help: "The connection to the broker.", options: []*option{
			boolean("enabled", &c.MQTT.Enabled,
				"Connect at all. Needs a broker."),
			text("broker", &c.MQTT.Broker, optional(brokerURL()),
				"The broker. ssl and wss need ca_file. A WebSocket without a path goes to /mqtt."),
			text("server_name", &c.MQTT.ServerName, optional(hostName()),
				"The name that the broker's certificate must have.").or("the broker's host"),
			text("ca_file", &c.MQTT.CAFile, optional(absolutePath()),
				"The certificates (PEM) that the broker's must come from. Those of the system don't count."),
			text("cert_file", &c.MQTT.CertFile, optional(absolutePath()),
				"This gateway's certificate (PEM). It is read at every connection: renew it by replacing the file."),
			text("key_file", &c.MQTT.KeyFile, optional(absolutePath()),
				"The key (PEM) of that certificate."),
			text("username", &c.MQTT.Username, anyText(),
				"User name, where the broker asks for one."),
			secret("password", &c.MQTT.Password,
				"Password, where the broker asks for one. Needs a username."),
			seconds("keepalive", &c.MQTT.Keepalive, 5, 3600,
				"A dead connection is found within this and 20 s."),
			seconds("spread", &c.MQTT.Spread, 0, 3600,
				"After a connection is lost the first attempt is delayed by a random part of this, so that a fleet comes back spread out."),
			seconds("backoff_cap", &c.MQTT.BackoffCap, 1, 3600,
				"The longest delay between attempts."),
			text("bind_interface", &c.MQTT.BindInterface, optional(networkInterface()),
				"Connect only through this interface (a management VLAN).").or("by routing"),
			text("source_address", &c.MQTT.SourceAddress, optional(address()),
				"Connect from this address of the gateway.").or("as the kernel chooses"),
			text("session", &c.MQTT.Session, words("clean", "persistent"),
				"Whether the broker keeps what comes for this gateway while it is away. ontctl repeats its commands, so clean loses nothing."),
		}},
		{typ: "spool", help: "What waits for the broker, across restarts and power cuts. Online, telemetry writes nothing to it.", options: []*option{
			boolean("enabled", &c.Spool.Enabled,
				"Keep it on flash. 0: in RAM only (read-only images); a restart then loses what waits."),
			text("dir", &c.Spool.Dir, optional(absolutePath()),
				"Directory on flash.").or("`spool` in state_dir"),
			text("confirm", &c.Spool.Confirm, words("signature", "broker"),
				"When records and events are let go. signature: when the collector signed for them. broker: when the broker took them, which a broker without a collector behind it needs, and which a dishonest or failing broker can use to lose them."),
			number("record_kib", &c.Spool.RecordKiB, "KiB", 192, 65536,
				"At most this much flash for records and job states."),
			number("event_kib", &c.Spool.EventKiB, "KiB", 128, 65536,
				"At most this much flash for events."),
			number("telemetry_kib", &c.Spool.TelemetryKiB, "KiB", 128, 262144,
				"At most this much flash for telemetry of a time without a connection. Where it doesn't suffice, older telemetry is rolled up, then dropped."),
			number("backfill_bytes_per_s", &c.Spool.BackfillBytesPerS, "bytes per second", 256, 10485760,
				"How fast telemetry that had to wait is sent."),
		}},
		{typ: "control", help: "How the daemon is reached other than by the broker.", options: []*option{
			text("socket", &c.Control.Socket, optional(absolutePath()),
				"Unix socket of the local verbs.").or("`control.sock` in run_dir"),
			text("lan_listen", &c.Control.LANListen, optional(listenAddress()),
				"TLS listener for the technician on site. It takes only signed orders and commands.").or("off"),
		}},
		{typ: "console", help: "The serial console of the optical chip.", options: []*option{
			boolean("enabled", &c.Console.Enabled,
				"Read optics and PON state from a console. Needs a port."),
			text("port", &c.Console.Port, optional(absolutePath()),
				"The serial device."),
			oneOf("baud", &c.Console.Baud, []int{9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600},
				"Its speed."),
			text("driver", &c.Console.Driver, words("rtl960x", "falcon", "prx126", "cig", "huawei", "zte", "broadcom", "econet"),
				"The family of the chip."),
			text("username", &c.Console.Username, anyText(),
				"User name, where the console asks for one."),
			secret("password", &c.Console.Password,
				"Password, where the console asks for one. Needs a username."),
		}},
		{typ: "module", help: "The optical module, where there is one in a cage.", options: []*option{
			text("interface", &c.Module.Interface, optional(networkInterface()),
				"The interface whose module's EEPROM is read."),
			text("hwmon", &c.Module.Hwmon, anyText(),
				"The name of the module's hwmon chip, as in /sys/class/hwmon/*/name."),
		}},
		{typ: "wan", help: "What the line is judged by.", options: []*option{
			text("interface", &c.WAN.Interface, optional(networkInterface()),
				"The interface towards the operator.").or("that of the default route"),
			text("device", &c.WAN.Device, optional(networkInterface()),
				"The port on the PON side that carries the service VLANs. Test dials and other probes put their tags into frames on it.").or("service VLANs are not probed"),
			number("vlan", &c.WAN.VLAN, "VLAN id (0: untagged)", 0, 4094,
				"The internet service's VLAN, where no order names it."),
			text("lan_port", &c.WAN.LANPort, optional(networkInterface()),
				"The port whose cabling is judged.").or("as the order says"),
			text("optics_class", &c.WAN.OpticsClass, optional(words(
				"A", "B", "C", "B+", "C+", "N1", "N2", "E1", "PX20", "PX20+", "PX30", "PR30", "PRX30",
			)), "The optical class that the line was built for. Its limits warn, beside those of the module; they fail nothing.").or("unknown"),
			list("resolver", &c.WAN.Resolvers, address(),
				"DNS servers to test.").or("those of the system"),
			list("probe_target", &c.WAN.ProbeTargets, addressOrName(),
				"Hosts that must answer for the line to be called reachable."),
			list("dns_name", &c.WAN.DNSNames, hostName(),
				"Names that must resolve."),
			text("check_url", &c.WAN.CheckURL, optional(webURL("http")),
				"A page that answers 204 without a body, by which a portal before the internet shows itself.").or("not tried"),
		}},
		{typ: "iptv", help: "What television is tried by, where it is ordered.", options: []*option{
			text("group", &c.IPTV.Group, optional(groupAddress()),
				"The multicast group of a channel that is always on.").or("not tried"),
			number("port", &c.IPTV.Port, "UDP port", 1, 65535,
				"The port of its stream."),
			text("source", &c.IPTV.Source, optional(address()),
				"The sender, where the network does source-specific multicast.").or("any"),
		}},
		{typ: "voice", help: "What telephony is tried by, where it is ordered.", options: []*option{
			text("registrar", &c.Voice.Registrar, optional(hostAndPort()),
				"The SIP registrar.").or("not tried"),
			text("domain", &c.Voice.Domain, optional(addressOrName()),
				"The SIP domain.").or("the registrar's host"),
		}},
		{typ: "management", help: "What the operator's management is tried by, where it is ordered.", options: []*option{
			text("acs", &c.Management.ACS, optional(webURL("http", "https")),
				"The URL of the TR-069 server.").or("not tried"),
		}},
		{typ: "throughput", help: "What the line's speed is measured by, where an order requires it and allows the traffic. Nothing of it is encrypted: that would measure the processor.", options: []*option{
			text("url", &c.Throughput.URL, optional(webURL("http", "iperf3")),
				"What is downloaded: http://host[:port]/path, of a file that lasts longer than the test, or iperf3://host[:port].").or("not measured"),
			text("upload_url", &c.Throughput.UploadURL, optional(webURL("http", "iperf3")),
				"Where the upload goes; it must take any number of bytes.").or("url"),
			text("upload_method", &c.Throughput.UploadMethod, words("POST", "PUT"),
				"How it is sent over HTTP."),
			text("second_url", &c.Throughput.SecondURL, optional(webURL("http", "iperf3")),
				"Another server, asked where a rate is below the contract: whether the first one was what was slow.").or("none"),
			number("connections", &c.Throughput.Connections, "TCP connections", 1, 16,
				"How many there are at once."),
			seconds("window", &c.Throughput.Window, 1, 15,
				"How long a direction is measured, once its rate is stable. The traffic grows with it."),
		}},
		{typ: "repair", help: "What this gateway may do to itself to bring a line back: by a command, or by itself under a standing order. See [self-healing.md](self-healing.md).", options: []*option{
			boolean("enabled", &c.Repair.Enabled,
				"Take orders to repair. 0: every one is refused, and a standing order rests."),
			text("interface", &c.Repair.Interface, optional(networkInterface()),
				"The interface that may be taken down and up: the port or VLAN device towards the operator that carries the WAN.").or("none is"),
			text("session", &c.Repair.Session, optional(networkInterface()),
				"The interface whose PPPoE session is redialled or whose lease is renewed.").or("`interface` of section wan, else that of the default route"),
			number("per_hour", &c.Repair.PerHour, "repairs", 1, 12,
				"At most so many within an hour, commanded or not."),
			number("per_day", &c.Repair.PerDay, "repairs", 1, 48,
				"At most so many within a day."),
			seconds("wait", &c.Repair.Wait, 5, 90,
				"How long an action may take to bring the line back before it is looked at again."),
			seconds("grace", &c.Repair.Grace, 60, 3600,
				"How long a fault must last before the gateway heals itself under a standing order."),
		}},
		{typ: "inspect", help: "When this gateway inspects its line (巡检) without a command. Nothing of it disturbs the customer. See [inspection.md](inspection.md).", options: []*option{
			boolean("enabled", &c.Inspect.Enabled,
				"Inspect by the schedule. 0: only by command."),
			number("interval_days", &c.Inspect.IntervalDays, "days", 1, 365,
				"From one inspection to the next."),
			number("hour", &c.Inspect.Hour, "hour of the day, in UTC", 0, 23,
				"In the four hours from here the gateways of a fleet are inspected, each at a minute and on a day that follow from its name. 19 is 03:00 in Beijing."),
		}},
	}
	for _, n := range c.Collectors.all() {
		all = append(all, section{typ: "collector", name: n.name, help: n.what, options: []*option{
			boolean("enabled", &n.c.Enabled, "Collect it."),
			seconds("interval", &n.c.Interval, 1, 86400, "From one collection to the next."),
			seconds("timeout", &n.c.Timeout, 1, 600, "A collection that takes longer is given up. At most the interval, which also bounds the default."),
			list("include", &n.c.Include, pattern(), "Only interfaces that match one of these.").or("all"),
			list("exclude", &n.c.Exclude, pattern(), "No interface that matches one of these.").or("none"),
		}})
	}
	limit := func(name, unit string, least, most float64, help string) *option {
		return threshold(&c.Thresholds, name, unit, least, most, help)
	}
	return append(all,
		section{typ: "thresholds", help: "Limits of this gateway. A work order's own have precedence.", options: []*option{
			limit("optical.rx_min_dbm", "dBm", -40, 10, "Received power must be above it."),
			limit("optical.rx_max_dbm", "dBm", -40, 10, "Received power must not be above it."),
			limit("optical.margin_warn_db", "dB", 0, 20, "Warn where the distance to the limit is below it."),
			limit("optical.source_spread_max_db", "dB", 0, 20, "Sources that differ by more disagree."),
			limit("splitter.rx_min_dbm", "dBm", -40, 10, "Power at the splitter box must be above it."),
			limit("lan.speed_min_mbps", "Mbit/s", 10, 100000, "A LAN port must negotiate at least this."),
			limit("dns.latency_warn_ms", "ms", 0, 60000, "Warn where an answer takes longer."),
			limit("reachability.loss_max_ratio", "ratio", 0, 1, "Lost packets must not be more."),
			limit("reachability.rtt_max_ms", "ms", 0, 60000, "Round trips must not take longer."),
			limit("throughput.min_ratio", "ratio", 0, 1, "At least this part of the contracted rate."),
			limit("utilisation.max", "ratio", 0, 1, "Use of the bandwidth must be below it."),
			limit("cpu.max", "ratio", 0, 2, "Use of the processor must be below it; above 1 it binds nothing."),
			limit("memory.max", "ratio", 0, 2, "Use of the memory must be below it; above 1 it binds nothing."),
			limit("temperature.max_celsius", "°C", -40, 150, "Temperatures must be below it."),
			limit("iptv.loss_max_ratio", "ratio", 0, 1, "At most this part of a television stream may be lost."),
			limit("account.extract_max_age", "seconds", 0, 31536000, "What the AAA says of an account counts no longer."),
			limit("fault.respond", "seconds", 0, 31536000, "A fault is answered within it."),
			limit("fault.line_due", "seconds", 0, 31536000, "A line fault is repaired within it."),
			limit("fault.network_due", "seconds", 0, 31536000, "A network fault is repaired within it."),
			limit("record.retention", "seconds", 0, 315360000, "Records are kept at least this long."),
		}},
		section{typ: "clock", help: "How far the system's clock is believed.", options: []*option{
			text("trust_system", &c.Clock.TrustSystem, words("auto", "never"),
				"auto: while NTP disciplines it. never: every command must prove that it is fresh."),
		}},
	)
}

// examine looks for what no single option can tell: what is missing, and what
// contradicts. Every single option is valid by then.
func (c *Config) examine() (warnings []Warning, problems []error) {
	// refuse names the line of the option or, if it isn't given, of its section.
	refuse := func(section, option, format string, args ...any) {
		line := c.lines[section+"."+option]
		if line == 0 {
			line = c.lines[section]
		}
		problems = append(problems, &Error{File: c.Path, Line: line, Text: fmt.Sprintf(format, args...)})
	}
	warn := func(section, option, format string, args ...any) {
		warnings = append(warnings, Warning{File: c.Path, Line: c.lines[section+"."+option], Text: fmt.Sprintf(format, args...)})
	}

	if c.Main.Device == "" {
		refuse("main", "device", "option device is missing in section main: 8 to 23 letters and digits")
	}
	if c.Authority.RootKey != "" && c.Authority.RootKeyFile != "" {
		refuse("authority", "root_key_file", "option root_key_file: root_key is given as well; only one of them can be")
	}
	if c.Authority.RootKey == "" && c.Authority.RootKeyFile == "" {
		warn("authority", "root_key", "no root key is given: every order will be refused")
	}

	m := &c.MQTT
	encrypted := strings.HasPrefix(m.Broker, "ssl:") || strings.HasPrefix(m.Broker, "wss:")
	scheme, _, _ := strings.Cut(m.Broker, ":")
	switch {
	case m.Enabled && m.Broker == "":
		refuse("mqtt", "broker", "option broker is missing in section mqtt, which is enabled")
	case encrypted && m.CAFile == "":
		refuse("mqtt", "broker", "option broker: %s needs option ca_file", scheme)
	case m.Broker != "" && !encrypted:
		for _, o := range []struct{ name, value string }{
			{"ca_file", m.CAFile}, {"cert_file", m.CertFile}, {"key_file", m.KeyFile}, {"server_name", m.ServerName},
		} {
			if o.value != "" {
				refuse("mqtt", o.name, "option %s: the broker is %s://, which encrypts nothing; write %s://", o.name, scheme, secureScheme(scheme))
			}
		}
		if m.Enabled {
			warn("mqtt", "broker", "option broker: %s:// encrypts nothing and proves nobody's identity", scheme)
		}
	}
	if m.CertFile != "" && m.KeyFile == "" {
		refuse("mqtt", "cert_file", "option cert_file: needs option key_file")
	}
	if m.KeyFile != "" && m.CertFile == "" {
		refuse("mqtt", "key_file", "option key_file: needs option cert_file")
	}
	if m.Password != "" && m.Username == "" {
		refuse("mqtt", "password", "option password: needs option username")
	}
	if c.Console.Password != "" && c.Console.Username == "" {
		refuse("console", "password", "option password: needs option username")
	}
	if c.Console.Enabled && c.Console.Port == "" {
		refuse("console", "port", "option port is missing in section console, which is enabled")
	}
	if t := c.Throughput; t.URL == "" {
		for _, o := range []struct{ name, value string }{{"upload_url", t.UploadURL}, {"second_url", t.SecondURL}} {
			if o.value != "" {
				refuse("throughput", o.name, "option %s: needs option url", o.name)
			}
		}
	}
	for _, n := range c.Collectors.all() {
		if n.c.Timeout > n.c.Interval {
			refuse(n.key(), "timeout", "option timeout: %v seconds is longer than the interval of %v seconds",
				n.c.Timeout.Seconds(), n.c.Interval.Seconds())
		}
	}
	if r := c.Repair; r.PerDay < r.PerHour {
		refuse("repair", "per_day", "option per_day: %d is below per_hour, %d", r.PerDay, r.PerHour)
	}
	switch name := c.Repair.Interface; {
	case name == "":
	case name == "lo" || strings.HasPrefix(name, "br-") || strings.HasPrefix(name, "ppp"):
		refuse("repair", "interface", "option interface: %s is no port towards the operator", name)
	case name == c.WAN.LANPort:
		refuse("repair", "interface", "option interface: %s is lan_port of section wan, the customer's", name)
	case name == m.BindInterface && name != c.WAN.Interface && name != c.WAN.Device:
		refuse("repair", "interface", "option interface: %s is bind_interface of section mqtt, by which this gateway is reached", name)
	}
	if low, ok := c.Thresholds["optical.rx_min_dbm"]; ok {
		if high, ok := c.Thresholds["optical.rx_max_dbm"]; ok && low >= high {
			refuse("thresholds", "optical_rx_max_dbm", "option optical_rx_max_dbm: %v dBm is not above optical_rx_min_dbm, %v dBm", high, low)
		}
	}
	return warnings, problems
}

// secureScheme is what encrypts as scheme does not.
func secureScheme(scheme string) string {
	if scheme == "ws" {
		return "wss"
	}
	return "ssl"
}
