package scenario

import (
	"ontagent/agent/acceptance"
)

// MaxMbps is the highest rate a contract may have: what an emulated guest
// forwards without loss is not much more.
const MaxMbps = 50

// format is the whole format.
func format() spec {
	return spec{kind: mapping, keys: []key{
		{
			name: "scenario", required: true, example: "pppoe-wrong-password",
			doc:  "Name of the scenario, which is also the file's, less `.yaml`.",
			spec: spec{kind: text, maxLen: 64, like: shape(`^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$`, "letters and digits, with a - between words")},
		},
		{
			name: "title", derived: "the name", example: "Wrong password",
			doc: "One line for the table of results.", spec: spec{kind: text, maxLen: 100},
		},
		{
			name: "description", def: `""`, example: "|\n  What is the matter, and why the agent should find it.",
			doc: "Free text for readers.", spec: spec{kind: text, maxLen: 8192, lines: true},
		},
		{name: "order", doc: "What the work order says.", spec: orderSpec()},
		{
			name: "services", derived: "one internet service over PPPoE, as `{kind: internet}` has it",
			doc:  "What is ordered, at most one of each kind, each in a VLAN of its own. The network is set up to serve it and the gateway is configured for it, unless `network` and `gateway` say otherwise.",
			spec: spec{kind: list, maxItems: 4, items: serviceSpec()},
		},
		{name: "gateway", doc: "What the gateway is, what its console says, and how its internet connection is configured where that is not as ordered.", spec: gatewaySpec()},
		{name: "network", doc: "The operator's side, where it is not as ordered.", spec: networkSpec()},
		{
			name: "timeline", derived: "nothing goes wrong",
			doc:  "Faults that come and go. Entries with the same moment happen in the order of the file.",
			spec: spec{kind: list, maxItems: 100, items: momentSpec()},
		},
		{name: "measure", doc: "Bounds of the measuring.", spec: measureSpec()},
		{name: "expect", required: true, doc: "What the visit must come to. What is not named is not compared.", spec: expectSpec()},
	}}
}

func orderSpec() spec {
	resource := func(name, derived, example, doc string) key {
		return key{name: name, derived: derived, example: example, doc: doc + " The empty string means that the order does not state it.", spec: spec{kind: text, maxLen: 64}}
	}
	var thresholds []key
	for _, name := range thresholdNames() {
		derived := "the norm"
		if name == acceptance.CPUMax || name == acceptance.MemoryMax {
			derived = "2, which binds nothing; with `gateway.load` the norm"
		}
		thresholds = append(thresholds, key{
			name: name, doc: "Overrides the limit of this name.", derived: derived,
			spec: spec{kind: number, min: -1e9, max: 1e9, unit: acceptance.Unit(name)},
		})
	}
	return spec{kind: mapping, keys: []key{
		{name: "type", def: "install", example: "repair", doc: "Kind of visit.", spec: spec{kind: text, oneOf: []string{"install", "move", "repair", "inspect", "other"}}},
		{
			name: "require", derived: "see [rungs that decide](#rungs-that-decide)", example: "[optical, registration, dial]",
			doc:  "The rungs that decide the verdict. throughput is measured only if it is named.",
			spec: spec{kind: list, maxItems: 15, unique: true, items: &spec{kind: text, oneOf: names(acceptance.Ladder())}},
		},
		{name: "extract", doc: "What the operator's AAA says of the account of the internet service, signed, beside the order. What is not said is as the network really has it.", spec: spec{kind: mapping, keys: extractKeys()}},
		{name: "thresholds", derived: "the norms, but no limit of the gateway's own load", example: "{optical.rx_min_dbm: -27}", doc: "Limits that the order overrides, by name; units and ranges are those of [norms](norms.md).", spec: spec{kind: mapping, keys: thresholds}},
		{
			name: "consents", def: "[disturb]", example: "[]", doc: "What the customer agreed to. Without `disturb` nothing is tested that interrupts the line.",
			spec: spec{kind: list, maxItems: 3, unique: true, items: &spec{kind: text, oneOf: []string{"disturb", "customer_settings", "sn_change"}}},
		},
		{name: "max_mib", def: "512", example: "100", doc: "Test traffic that the order allows.", spec: spec{kind: whole, min: 0, max: 4096, unit: "MiB"}},
		{name: "sealed", def: "true", example: "false", doc: "Whether the order carries the accounts and passwords of its services, sealed for the gateway.", spec: spec{kind: yesNo}},
		resource("sn", "`gateway.serial`", "HWTC00000000", "Serial number of the ONT."),
		resource("mac", "`gateway.mac`", `"02:00:00:00:00:01"`, "MAC of the gateway's WAN port."),
		resource("pon_port", `""`, "0/1/3", "Port of the OLT."),
		resource("splitter_port", `""`, "7", "Port of the splitter."),
		resource("lan_port", "`"+LANPort+"`, as it is", "lan2", "Interface of the LAN port that the home is wired to."),
	}}
}

// LANPort is the gateway's LAN interface in every lab.
const LANPort = "lan1"

// thresholdNames are the limits that an order may override.
func thresholdNames() []string {
	return []string{
		acceptance.OpticalRxMinDBm, acceptance.OpticalRxMaxDBm, acceptance.SplitterRxMinDBm, acceptance.ThroughputMinRatio,
		acceptance.UtilisationMax, acceptance.CPUMax, acceptance.MemoryMax, acceptance.FaultLineDue, acceptance.FaultNetworkDue,
		acceptance.FaultRespond, acceptance.RecordRetention, acceptance.OpticalMarginWarnDB, acceptance.OpticalSpreadMaxDB,
		acceptance.LANSpeedMinMbps, acceptance.DNSLatencyWarnMs, acceptance.ReachLossMaxRatio, acceptance.ReachRTTMaxMs,
		acceptance.TemperatureMax, "iptv.loss_max_ratio", acceptance.AccountExtractMaxAge,
	}
}

func serviceSpec() *spec {
	access := func(def string, oneOf ...string) key {
		return key{
			name: "access", def: def, example: "ipoe", doc: "How the gateway gets on: `pppoe`, `ipoe` (DHCP), `static`; `bridge`: the gateway only forwards, a PC or box behind it gets on.",
			spec: spec{kind: text, oneOf: oneOf},
		}
	}
	vlan := func(def string) key {
		return key{name: "vlan", def: def, example: "100", doc: "802.1Q VLAN; 0 is untagged.", spec: spec{kind: whole, max: 4094}}
	}
	address := key{
		name: "address", derived: "the first one free of `network.pool` (internet) or of the lab's own", example: "203.0.113.10/24",
		doc: "The gateway's address if `access` is `static`.", spec: spec{kind: text, maxLen: 18},
	}
	rate := func(name, def string) key {
		return key{name: name, def: def, example: "40", doc: "Rate of the contract.", spec: spec{kind: number, min: 0.1, max: MaxMbps, unit: "Mbit/s"}}
	}
	port := func(def, doc string) key {
		return key{name: "port", def: def, doc: doc, spec: spec{kind: whole, min: 1, max: 65535}}
	}
	return &spec{kind: mapping, by: "kind", keys: []key{
		{name: "kind", required: true, example: "internet", doc: "What is ordered.", spec: spec{kind: text}},
	}, variants: []variant{
		{value: Internet, doc: "The internet.", keys: []key{
			access(PPPoE, PPPoE, IPoE, Static, Bridge),
			{name: "behind", derived: "`pppoe` if `access` is `bridge`", example: "ipoe", doc: "How the PC behind a bridging gateway gets on. Only with `access: bridge`.", spec: spec{kind: text, oneOf: []string{PPPoE, IPoE}}},
			vlan("41"),
			rate("down_mbps", "50"),
			rate("up_mbps", "20"),
			{name: "rate_layer", def: "tcp", example: "ip", doc: "The layer that the rates are meant at.", spec: spec{kind: text, oneOf: []string{"tcp", "ip", "ethernet"}}},
			{name: "account", derived: "`u1@isp` for PPPoE, else none", example: "u1@isp", doc: "Account in full. The order carries it masked, and in full sealed for the gateway.", spec: spec{kind: text, maxLen: 128}},
			{name: "password", derived: "`p1` for PPPoE, else none", example: "p1", doc: "Password of the account; sealed in the order. Use made-up ones.", spec: spec{kind: text, maxLen: 128}},
			{name: "ipv6", def: "true", example: "false", doc: "IPv6 with a delegated prefix beside IPv4.", spec: spec{kind: yesNo}},
			address,
		}},
		{value: IPTV, doc: "A multicast stream.", keys: []key{
			access(IPoE, IPoE, Static, Bridge),
			vlan("45"),
			address,
			{name: "group", def: "239.1.1.1", example: "239.1.1.2", doc: "Multicast group of the channel; an IPv6 group is joined with MLD.", spec: spec{kind: text, maxLen: 45}},
			port("5000", "UDP port of the stream."),
			{name: "rate_mbps", def: "4", example: "8", doc: "Rate of the stream.", spec: spec{kind: number, min: 0.1, max: 20, unit: "Mbit/s"}},
			{name: "igmp", def: "3", example: "2", doc: "IGMP version that the network speaks (MLD: 1 for 2, 2 for 3).", spec: spec{kind: whole, min: 2, max: 3}},
		}},
		{value: Voice, doc: "A telephone line by SIP.", keys: []key{
			access(IPoE, IPoE, Static, Bridge),
			vlan("46"),
			address,
			{name: "user", def: "+8675512345678", example: "2001", doc: "User of the SIP account, and its number.", spec: spec{kind: text, maxLen: 64, like: shape(`^[A-Za-z0-9+._-]+$`, "letters, digits and + . _ -")}},
			{name: "password", def: "v1", example: "s3cret", doc: "Password of the SIP account.", spec: spec{kind: text, maxLen: 128}},
			{name: "domain", def: "ims.example.net", example: "ims.example.net", doc: "SIP domain, and the realm of the digest.", spec: spec{kind: text, maxLen: 64, like: shape(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`, "a domain name")}},
			port("5060", "UDP port of the registrar."),
		}},
		{value: Management, doc: "The platform (ACS) that manages the gateway.", keys: []key{
			access(IPoE, IPoE, Static, Bridge),
			vlan("47"),
			address,
			port("7547", "TCP port of the ACS."),
		}},
	}}
}

// consoles are the dialects of the simulated ONT.
func consoles() []string {
	return []string{"broadcom", "broadcom-epon", "cig", "econet", "falcon", "falcon-pmg3000", "huawei", "prx126", "rtl960x", "zte"}
}

// habits are the awkward habits of the simulated console.
func habits() []string {
	return []string{
		"kernel_lines", "daemon_text", "nuls", "lfcr", "no_echo", "read_failed", "old_tool", "command_prompt", "colours",
		"babble", "login_loop", "boot_loader", "booting", "hang", "unknown_prompt", "no_diag", "vanish",
	}
}

func onuStates() []string { return []string{"O1", "O2", "O3", "O4", "O5", "O6", "O7"} }

func onuAlarms() []string {
	return []string{"LOS", "LOF", "LOM", "SF", "SD", "TX Too Long", "TX Mismatch"}
}

func rxPower(k key) key {
	k.name, k.example = "rx_power_dbm", "-27.5"
	k.doc = "Received optical power; `none` is a dark fibre, which carries nothing."
	k.spec = spec{kind: number, min: -40, max: 10, unit: "dBm", orNone: true}
	return k
}

// laserKeys are what the laser does; with derived they are a fault's.
func laserKeys(derived string) []key {
	keys := []key{
		{name: "tx_power_dbm", def: "2.3", example: "none", doc: "Power that the laser gives while it is on; `none`: it never gives light, whatever its bias.", spec: spec{kind: number, min: -40, max: 10, unit: "dBm", orNone: true}},
		{name: "bias_ma", def: "14.35", example: "72", doc: "Bias current of the laser while it is on.", spec: spec{kind: number, max: 130, unit: "mA"}},
	}
	return derive(keys, derived)
}

// lanKeys are what a LAN port says of its link.
func lanKeys(derived string) []key {
	keys := []key{
		{name: "speed_mbps", def: "1000", example: "100", doc: "Negotiated speed: 10, 100, 1000 or 2500.", spec: spec{kind: whole, min: 10, max: 2500, unit: "Mbit/s"}},
		{name: "duplex", def: DuplexFull, example: DuplexHalf, doc: "Duplex mode.", spec: spec{kind: text, oneOf: []string{DuplexFull, DuplexHalf}}},
		{name: "port_max_mbps", def: "1000", example: "100", doc: "Best that the gateway's port can do.", spec: spec{kind: whole, min: 10, max: 2500, unit: "Mbit/s"}},
		{name: "peer_max_mbps", def: "1000", example: "100", doc: "Best that the other end has announced; 0: it announces nothing.", spec: spec{kind: whole, max: 2500, unit: "Mbit/s"}},
	}
	return derive(keys, derived)
}

// loadKeys are how busy a gateway is.
func loadKeys(derived string) []key {
	keys := []key{
		{name: "cpu_busy_ratio", def: "0.1", example: "0.7", doc: "Share of its processor time that is used.", spec: spec{kind: number, max: 1, unit: "ratio"}},
		{name: "memory_used_ratio", def: "0.4", example: "0.8", doc: "Share of its memory that is used and cannot be freed.", spec: spec{kind: number, max: 1, unit: "ratio"}},
		{name: "temperature_celsius", def: "45", example: "98", doc: "Temperature of its processor.", spec: spec{kind: number, min: -40, max: 150, unit: "°C"}},
	}
	return derive(keys, derived)
}

// derive says, if words are given, that defaults come from elsewhere.
func derive(keys []key, words string) []key {
	if words != "" {
		for i := range keys {
			keys[i].def, keys[i].derived = "", words
		}
	}
	return keys
}

func moduleKeys() []key {
	limit := func(name, doc string) key {
		return key{name: name, def: "none", example: "-23", doc: doc, spec: spec{kind: number, min: -40, max: 10, unit: "dBm", orNone: true}}
	}
	return []key{
		{name: "rx_offset_db", def: "0", example: "4", doc: "How much more light it reads than the console.", spec: spec{kind: number, min: -40, max: 40, unit: "dB"}},
		limit("rx_warn_low_dbm", "Its own lower limit of received power, below which it warns; `none`: it has none."),
		limit("rx_warn_high_dbm", "Its own upper limit of received power, above which it warns; `none`: it has none."),
		{name: "bias_warn_ma", def: "70", example: "40", doc: "Its own upper limit of the bias current, above which it warns.", spec: spec{kind: number, max: 130, unit: "mA"}},
		{name: "supply_v", def: "3.3", example: "0", doc: "Its supply voltage as it reads it; 0 is how a broken read looks.", spec: spec{kind: number, max: 6, unit: "V"}},
	}
}

func habitList(k key) key {
	k.example = "[read_failed]"
	k.spec = spec{kind: list, maxItems: 20, unique: true, items: &spec{kind: text, oneOf: habits()}}
	return k
}

func alarmList(k key) key {
	k.name, k.def, k.example = "alarms", "[]", "[SD]"
	k.doc = "Active alarms of the PON port. LOS is active by itself on a dark fibre."
	k.spec = spec{kind: list, maxItems: 7, unique: true, items: &spec{kind: text, oneOf: onuAlarms()}}
	return k
}

func gatewaySpec() spec {
	return spec{kind: mapping, keys: []key{
		{name: "serial", def: "HWTC12345678", example: "ZTEG0A1B2C3D", doc: "GPON serial number, also the gateway's name to the platform: 4 letters, 8 hexadecimal digits.", spec: spec{kind: text, maxLen: 12, like: shape(`^[A-Z]{4}[0-9A-Fa-f]{8}$`, "4 capital letters and 8 hexadecimal digits")}},
		{name: "mac", def: `"02:00:00:64:00:02"`, example: `"02:00:00:00:00:01"`, doc: "MAC of the WAN port. Quote it.", spec: spec{kind: text, maxLen: 17, like: shape(`^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$`, "a unicast MAC, six pairs of hexadecimal digits with : between them")}},
		{name: "forwarding", def: "true", example: "false", doc: "Whether it forwards what comes from the LAN.", spec: spec{kind: yesNo}},
		{name: "nat", def: "true", example: "false", doc: "Whether it translates the LAN's addresses to its own.", spec: spec{kind: yesNo}},
		{name: "console", def: "rtl960x", example: "falcon", doc: "Family whose serial console is played.", spec: spec{kind: text, oneOf: consoles()}},
		habitList(key{name: "console_habits", def: "[]", doc: "Awkward habits of the console from the start; some are those of rtl960x alone."}),
		rxPower(key{def: "-19.2"}),
		{name: "state", def: "O5", example: "O2", doc: "State of the ONU.", spec: spec{kind: text, oneOf: onuStates()}},
		{name: "omci", def: "true", example: "false", doc: "Whether the OLT has provisioned services: without, and in any state but O5, the line carries nothing.", spec: spec{kind: yesNo}},
		alarmList(key{}),
		{name: "temperature_celsius", def: "42.4", example: "71", doc: "Temperature of the optical module.", spec: spec{kind: number, min: -40, max: 125, unit: "°C"}},
		laserKeys("")[0],
		laserKeys("")[1],
		{name: "supply_v", def: "3.17", example: "0", doc: "Supply voltage of the optical module as the console tells it; 0 is how a broken read looks.", spec: spec{kind: number, max: 6, unit: "V"}},
		{name: "module", derived: "there is none", doc: "An optical module that the gateway reads itself (hwmon), beside the ONT's console, and believes before it. `{}` is one that agrees with the console.", spec: spec{kind: mapping, keys: moduleKeys()}},
		{name: "lan", derived: "a virtual cable, which says 10 Gbit/s", doc: "What the LAN port says of its link. `{}` is a healthy gigabit.", spec: spec{kind: mapping, keys: lanKeys("")}},
		{name: "load", derived: "that of the machine that plays it, with limits that bind nothing", doc: "How busy the gateway is. With it the norms' limits of load hold again. `{}` is an idle one.", spec: spec{kind: mapping, keys: loadKeys("")}},
		{name: "clock", def: ClockSystem, example: ClockNone, doc: "`system`: the gateway believes its clock while NTP keeps it; `none`: it has none that it believes, and every command has to prove the time.", spec: spec{kind: text, oneOf: []string{ClockSystem, ClockNone}}},
		{name: "internet", derived: "as ordered", doc: "How the internet connection is configured in the gateway.", spec: spec{kind: mapping, keys: []key{
			{name: "access", derived: "as ordered", example: "ipoe", doc: "How the gateway gets on.", spec: spec{kind: text, oneOf: []string{PPPoE, IPoE, Static, Bridge}}},
			{name: "vlan", derived: "as ordered", example: "42", doc: "802.1Q VLAN; 0 is untagged.", spec: spec{kind: whole, max: 4094}},
			{name: "account", derived: "as ordered", example: "u2@isp", doc: "Account the gateway dials with.", spec: spec{kind: text, maxLen: 128}},
			{name: "password", derived: "as ordered", example: "p2", doc: "Password the gateway dials with.", spec: spec{kind: text, maxLen: 128}},
			{name: "dial", def: DialAuto, example: DialNever, doc: "`auto`: the connection comes up by itself before the visit, if it can; `never`: it is down.", spec: spec{kind: text, oneOf: []string{DialAuto, DialNever}}},
			{name: "auth", def: "any", example: "chap", doc: "What the gateway agrees to authenticate with.", spec: spec{kind: text, oneOf: []string{"any", "pap", "chap"}}},
			{name: "mtu", derived: "1492 for PPPoE, 1500 otherwise", example: "1500", doc: "MTU of the connection. Over PPPoE more than 1492 asks for PPP-Max-Payload (RFC 4638).", spec: spec{kind: whole, min: 1280, max: 1500, unit: "bytes"}},
			{name: "service_name", def: `""`, example: "hsi", doc: "Service-Name asked for in PPPoE discovery; empty asks for any.", spec: spec{kind: text, maxLen: 64}},
			{name: "ipv6", derived: "as ordered", example: "false", doc: "Whether the gateway asks for IPv6.", spec: spec{kind: yesNo}},
		}}},
	}}
}

func ratio(name, def, doc string) key {
	return key{name: name, def: def, example: "0.01", doc: doc, spec: spec{kind: number, min: 0, max: 1, unit: "ratio"}}
}

func milliseconds(name, def, example, doc string, most float64) key {
	return key{name: name, def: def, example: example, doc: doc, spec: spec{kind: number, min: 0, max: most, unit: "ms"}}
}

// lineKeys are the properties of a line; defaults are derived if derived is
// not empty.
func lineKeys(derived string) []key {
	keys := []key{
		{name: "down_mbps", derived: "rate of the contract and of the stream and 8 %", example: "54", doc: "Rate towards the home at the ethernet layer; 0 does not shape.", spec: spec{kind: number, min: 0, max: 100, unit: "Mbit/s"}},
		{name: "up_mbps", derived: "rate of the contract and 8 %", example: "21.6", doc: "Rate from the home at the ethernet layer; 0 does not shape.", spec: spec{kind: number, min: 0, max: 100, unit: "Mbit/s"}},
		milliseconds("delay_ms", "0", "10", "Delay one way, each way.", 5000),
		milliseconds("jitter_ms", "0", "5", "The delay varies by so much to either side; at most `delay_ms`.", 5000),
		ratio("loss_ratio", "0", "Share of packets that get lost, each way."),
		ratio("duplicate_ratio", "0", "Share of packets that come twice, each way."),
		ratio("reorder_ratio", "0", "Share of packets that overtake others, each way; needs a delay."),
		{name: "queue_ms", def: "100", example: "1500", doc: "How long the queue before a rate can get, each way; what comes then is lost.", spec: spec{kind: whole, min: 1, max: 5000, unit: "ms"}},
		{name: "mtu", def: "1508", example: "1400", doc: "Largest ethernet payload behind the VLAN tag; what is longer is dropped without a word. 1508 holds a PPPoE session of 1500.", spec: spec{kind: whole, min: 576, max: 1508, unit: "bytes"}},
	}
	return derive(keys, derived)
}

// accountStates are what the AAA's book may say of an account.
func accountStates() []string {
	return []string{"ok", "suspended", "no_access", "prepaid", "binding", "pool_exhausted", "bandwidth_template"}
}

func networkSpec() spec {
	vlans := make([]key, 0, 4)
	for _, kind := range []string{Internet, IPTV, Voice, Management} {
		vlans = append(vlans, key{name: kind, derived: "as ordered", example: "42", doc: "VLAN in which the operator really serves " + kind + "; 0 is untagged.", spec: spec{kind: whole, max: 4094}})
	}
	rate := func(name string) key {
		return key{name: name, def: "0", example: "20", doc: "Rate attribute of the session; 0: none, the line decides.", spec: spec{kind: number, min: 0, max: 100, unit: "Mbit/s"}}
	}
	return spec{kind: mapping, keys: []key{
		{name: "accounts", derived: "the ordered account, as ordered, if there is one", doc: "The AAA's book. `[]` knows nobody.", spec: spec{kind: list, maxItems: 32, items: &spec{kind: mapping, keys: []key{
			{name: "account", required: true, example: "u1@isp", doc: "Account in full.", spec: spec{kind: text, maxLen: 128, like: shape(`.`, "a text that is not empty")}},
			{name: "password", derived: "as ordered", example: "p1", doc: "Its password.", spec: spec{kind: text, maxLen: 128}},
			{name: "state", def: "ok", example: "suspended", doc: "Whether it may get on. Anything but `ok` is rejected: suspended for debt, without an access attribute, prepaid and used up, bound to another port or VLAN, no address left in its pool, bandwidth template missing.", spec: spec{kind: text, oneOf: accountStates()}},
			{name: "reply", derived: "the usual words for `state`, see [states](#states-of-accounts)", example: "状态错", doc: "Reply-Message of the reject; the empty string sends none.", spec: spec{kind: text, maxLen: 200}},
			{name: "sessions", def: "0", example: "1", doc: "Sessions allowed at once; 0 is any number.", spec: spec{kind: whole, max: 100}},
			{name: "in_use", def: "0", example: "1", doc: "Sessions open elsewhere when the lab comes up.", spec: spec{kind: whole, max: 100}},
			rate("down_mbps"),
			rate("up_mbps"),
			{name: "framed_ip", derived: "one of `network.pool`", example: "203.0.113.99", doc: "Framed-IP-Address of the session, IPv4.", spec: spec{kind: text, maxLen: 15}},
		}}}},
		{name: "aaa", doc: "What the RADIUS server says in a reject besides what accounts say themselves. An empty string sends no Reply-Message.", spec: spec{kind: mapping, keys: []key{
			{name: "wrong_password", def: "密码错", example: `"691: password error"`, doc: "Reply-Message for a wrong password.", spec: spec{kind: text, maxLen: 200}},
			{name: "unknown_account", def: "无此用户", example: `"691: no such user"`, doc: "Reply-Message for an account that is not in the book.", spec: spec{kind: text, maxLen: 200}},
			{name: "session_limit", def: "超出限制的用户数", example: `"too many sessions"`, doc: "Reply-Message when all allowed sessions are in use.", spec: spec{kind: text, maxLen: 200}},
		}}},
		{name: "bras", doc: "The access concentrator.", spec: spec{kind: mapping, keys: []key{
			{name: "auth", def: "[pap, chap]", example: "[chap]", doc: "What it authenticates with, best liked first; chap is CHAP-MD5.", spec: spec{kind: list, maxItems: 2, unique: true, items: &spec{kind: text, oneOf: []string{"pap", "chap"}}}},
			{name: "ac_name", def: "lab-bras", example: "BRAS-7", doc: "AC-Name in its PADO.", spec: spec{kind: text, maxLen: 64}},
			{name: "service_name", def: `""`, example: "hsi", doc: "Service-Name it offers; empty offers any.", spec: spec{kind: text, maxLen: 64}},
			{name: "mtu", def: "1492", example: "1500", doc: "MTU of PPPoE sessions; more than 1492 only with a client that sends PPP-Max-Payload (RFC 4638).", spec: spec{kind: whole, min: 576, max: 1500, unit: "bytes"}},
			milliseconds("padi_answer_delay_ms", "0", "800", "How long it takes to answer a PADI.", 60_000),
			{name: "second_ac", def: "false", example: "true", doc: "Whether a second concentrator answers as well.", spec: spec{kind: yesNo}},
			{name: "echo_interval_s", def: "10", example: "3", doc: "Time between its LCP Echo-Requests; 0 sends none.", spec: spec{kind: whole, max: 600, unit: "s"}},
			{name: "echo_failures", def: "3", example: "2", doc: "Unanswered ones in a row that end a session.", spec: spec{kind: whole, min: 1, max: 20}},
		}}},
		{name: "vlans", derived: "as ordered", doc: "The VLANs of the services as the operator really has them.", spec: spec{kind: mapping, keys: vlans}},
		{name: "line", doc: "The line between OLT and gateway.", spec: spec{kind: mapping, keys: lineKeys("")}},
		{name: "dns", doc: "Name service.", spec: spec{kind: mapping, keys: []key{
			{name: "resolvers", def: "2", example: "1", doc: "Resolvers that PPP and DHCP name.", spec: spec{kind: whole, max: 2}},
			milliseconds("delay_ms", "0", "50", "How long an answer takes.", 10_000),
		}}},
		{name: "dhcp", doc: "DHCP of IPoE services.", spec: spec{kind: mapping, keys: []key{
			{name: "lease_s", def: "3600", example: "120", doc: "Time a lease holds.", spec: spec{kind: whole, min: 120, max: 86400, unit: "s"}},
			milliseconds("offer_delay_ms", "0", "500", "How long an offer takes.", 60_000),
		}}},
		{name: "speed_server", doc: "What throughput is measured by: a web server behind the BRAS.", spec: spec{kind: mapping, keys: []key{
			{name: "uplink_mbps", def: "0", example: "8", doc: "Rate at which it can send, at the ethernet layer; it is on a host of its own then. 0: it is on `core`, which has no such bound.", spec: spec{kind: number, max: 100, unit: "Mbit/s"}},
			{name: "second", def: "false", example: "true", doc: "Whether the gateway knows of another one, that on `core`. Needs an `uplink_mbps`.", spec: spec{kind: yesNo}},
		}}},
		{name: "pool", def: "203.0.113.0/24", example: "100.65.0.0/24", doc: "IPv4 addresses given out to internet users; the first is the BRAS's own.", spec: spec{kind: text, maxLen: 18}},
		{name: "prefix", def: "/56", example: "/60", doc: "Length of the IPv6 prefix delegated to the gateway, /48 to /64.", spec: spec{kind: text, like: shape(`^/(4[89]|5[0-9]|6[0-4])$`, "a / and a length from 48 to 64")}},
		{name: "targets", def: "2", example: "1", doc: "Addresses on the internet that the gateway is told to ping.", spec: spec{kind: whole, min: 1, max: 4}},
	}}
}

func momentSpec() *spec {
	return &spec{kind: mapping, by: "fault", variants: faults(), keys: []key{
		{name: "at_s", def: "0", example: "8", doc: "When: seconds since the start of the visit, or with `rung` since the ladder reached it.", spec: spec{kind: number, max: 600, unit: "s"}},
		{name: "before", def: "false", example: "true", doc: "The fault is there before the gateway is started, instead of `at_s` and `rung`.", spec: spec{kind: yesNo}},
		{name: "rung", derived: "none", example: "dial", doc: "`at_s` counts from when the ladder reaches this rung.", spec: spec{kind: text, oneOf: names(BuiltRungs())}},
		{name: "for_s", derived: "it stays", example: "5", doc: "The fault goes by itself after so long (with `before`: after the start of the visit).", spec: spec{kind: number, min: 0.1, max: 600, unit: "s"}},
		{name: "fault", derived: "none", example: "no_pado", doc: "The fault that comes, one of [faults](#faults); its parameters stand beside it.", spec: spec{kind: text}},
		{name: "clear", derived: "none", example: "no_pado", doc: "The fault that goes, instead of `fault`: one that the timeline has set, or `all`.", spec: spec{kind: text}},
	}}
}

func measureSpec() spec {
	return spec{kind: mapping, keys: []key{
		{name: "throughput_window_s", def: "3", example: "5", doc: "How long throughput is measured in one direction, once the rate is stable.", spec: spec{kind: whole, min: 1, max: 15, unit: "s"}},
		{name: "settle_s", def: "10", example: "20", doc: "The gateway's connection has at most so long to come up before the visit starts. It starts as soon as it is up, and in any case then.", spec: spec{kind: number, max: 120, unit: "s"}},
		{name: "limit_s", def: "120", example: "60", doc: "The visit is cut off after so long, and the scenario counts as not played.", spec: spec{kind: number, min: 5, max: 600, unit: "s"}},
	}}
}

func expectSpec() spec {
	verdicts := names([]acceptance.Verdict{acceptance.Pass, acceptance.Fail, acceptance.Inconclusive})
	rungs := make([]key, 0, 15)
	for _, rung := range acceptance.Ladder() {
		rungs = append(rungs, key{name: string(rung), doc: "Its verdict.", derived: "not compared", spec: spec{kind: text, oneOf: append(verdicts[:3:3], string(acceptance.Skipped))}})
	}
	cause := &spec{kind: text, oneOf: causes(), shared: "cause"}
	return spec{kind: mapping, keys: []key{
		{name: "verdict", required: true, example: "fail", doc: "Verdict of the whole visit.", spec: spec{kind: text, oneOf: verdicts}},
		{name: "rungs", derived: "not compared", example: "{dial: fail, addressing: skipped}", doc: "Verdicts of single rungs: pass, fail, inconclusive or skipped.", spec: spec{kind: mapping, keys: rungs}},
		{name: "first_cause", derived: "not compared", example: "account.wrong_password", doc: "Code of the most probable cause, from [causes](causes.md); `none` if nothing may be the cause of a fault. What only lan_cabling and host say does not count unless they are required.", spec: spec{kind: text, oneOf: append(causes(), string(NoCause))}},
		{name: "causes", derived: "not compared", example: "[dial.no_pado]", doc: "Codes that must be among the causes, at any rank.", spec: spec{kind: list, maxItems: 32, unique: true, items: cause}},
		{name: "not_causes", derived: "not compared", example: "[dns.no_answer]", doc: "Codes that must not be among the causes.", spec: spec{kind: list, maxItems: 32, unique: true, items: cause}},
		{name: "events", derived: "not compared", example: "[optics.rx_power, link.carrier=down]", doc: "Events that must have come, each as `TYPE`, `TYPE.WHAT` or `TYPE.WHAT=AFTER`, see [events](#events).", spec: spec{kind: list, maxItems: 32, unique: true, items: &spec{kind: text, maxLen: 100}}},
		{name: "within_s", derived: "not compared", example: "60", doc: "Longest duration of the visit.", spec: spec{kind: number, min: 0.1, max: 600, unit: "s"}},
	}}
}
