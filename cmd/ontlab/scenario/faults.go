package scenario

// need is what a scenario must have for a fault to mean anything.
type need int

const (
	needNothing  need = iota
	needPPPoE         // somebody dials: the gateway, or a PC behind a bridge
	needDHCP          // somebody asks for an address
	needInternet      // an internet service
	needIPv6          // one with IPv6
	needIPTV
	needVoice
	needManagement
	needLAN  // a LAN port that says what it is told
	needLoad // a load that is told
)

func (n need) String() string {
	switch n {
	case needPPPoE:
		return "an internet service over PPPoE"
	case needDHCP:
		return "a service with access ipoe"
	case needInternet:
		return "an internet service"
	case needIPv6:
		return "an internet service with ipv6: true"
	case needIPTV:
		return "an iptv service"
	case needVoice:
		return "a voice service"
	case needManagement:
		return "a management service"
	case needLAN:
		return "gateway.lan"
	case needLoad:
		return "gateway.load"
	case needNothing:
	}
	return "nothing"
}

// faults are what can go wrong.
func faults() []variant {
	ms := func(def string) key {
		return milliseconds("delay_ms", def, "3000", "How long an answer takes.", 60_000)
	}
	resolver := key{name: "resolver", def: "0", example: "1", doc: "Which one: 1 is the first; 0 is every one.", spec: spec{kind: whole, max: 2}}
	address := func(def, doc string) key {
		return key{name: "address", def: def, example: def, doc: doc, spec: spec{kind: text, maxLen: 15}}
	}
	reply := func(def string) key {
		return key{name: "reply", def: def, example: "绑定校验错", doc: "Reply-Message, UTF-8; the empty string sends none.", spec: spec{kind: text, maxLen: 200}}
	}
	words := func(name, def, doc string) key {
		return key{name: name, def: def, example: def, doc: doc, spec: spec{kind: text, maxLen: 200}}
	}
	rate := func(name, def, doc string) key {
		return key{name: name, def: def, example: "10", doc: doc, spec: spec{kind: number, max: 100, unit: "Mbit/s"}}
	}
	return []variant{
		{value: "no_pado", needs: needPPPoE, doc: "No concentrator answers a PADI."},
		{value: "slow_pado", needs: needPPPoE, doc: "PADI are answered late.", keys: []key{ms("3000")}},
		{value: "second_ac", needs: needPPPoE, doc: "Another concentrator answers as well; it leads nowhere.", keys: []key{words("ac_name", "rogue-ac", "Its AC-Name.")}},
		{value: "mac_blocked", needs: needPPPoE, doc: "The concentrator ignores the gateway's MAC, as after too many failures; other MACs are served."},
		{value: "pads_error", needs: needPPPoE, doc: "A PADR is answered by a PADS with an error tag and no session.", keys: []key{
			words("text", `"resource unavailable"`, "Text of the tag, UTF-8."),
			{name: "tag", def: "ac_system", example: "service_name", doc: "Which tag: 0x0201 `service_name`, 0x0202 `ac_system`, 0x0203 `generic`.", spec: spec{kind: text, oneOf: []string{"service_name", "ac_system", "generic"}}},
		}},
		{value: "lcp_silent", needs: needPPPoE, doc: "A session opens, but nobody answers LCP."},
		{value: "auth_only_pap", needs: needPPPoE, doc: "The concentrator asks for PAP and takes nothing else."},
		{value: "auth_only_chap", needs: needPPPoE, doc: "The concentrator asks for CHAP-MD5 and takes nothing else."},
		{value: "ipcp_refused", needs: needPPPoE, doc: "Authentication succeeds, but IPCP is rejected."},
		{value: "aaa_down", needs: needPPPoE, doc: "The RADIUS server does not answer."},
		{value: "aaa_slow", needs: needPPPoE, doc: "The RADIUS server answers late.", keys: []key{
			{name: "delay_s", def: "3", example: "6", doc: "How late.", spec: spec{kind: number, max: 60, unit: "s"}},
		}},
		{value: "account_reject", needs: needPPPoE, doc: "The RADIUS server rejects an account whatever the password.", keys: []key{
			{name: "account", derived: "the ordered account", example: "u1@isp", doc: "Which account.", spec: spec{kind: text, maxLen: 128}},
			reply("状态错"),
		}},
		{value: "session_limit", needs: needPPPoE, doc: "All sessions that the ordered account may have are in use elsewhere.", keys: []key{
			{name: "reply", derived: "`network.aaa.session_limit`", example: `"too many sessions"`, doc: "Reply-Message.", spec: spec{kind: text, maxLen: 200}},
		}},
		{value: "echo_loss", needs: needPPPoE, doc: "The concentrator neither answers nor sends LCP echoes."},
		{value: "session_drop", needs: needPPPoE, doc: "The concentrator ends the session with a PADT, once."},
		{value: "dhcp_silent", needs: needDHCP, doc: "No DHCPv4 server answers."},
		{value: "dhcp_slow", needs: needDHCP, doc: "DHCPv4 offers come late.", keys: []key{ms("3000")}},
		{value: "dhcp_no_address", needs: needDHCP, doc: "The DHCPv4 pool is exhausted: no offer, and a renewal is refused."},
		{value: "dhcp_no_router", needs: needDHCP, doc: "DHCPv4 names no router."},
		{value: "second_dhcp", needs: needDHCP, doc: "Another DHCPv4 server answers as well and offers an address that leads nowhere.", keys: []key{address("192.168.250.100", "The address it offers, IPv4.")}},
		{value: "dhcp6_silent", needs: needIPv6, doc: "No DHCPv6 server answers."},
		{value: "no_prefix", needs: needIPv6, doc: "DHCPv6 answers, but delegates no prefix (NoPrefixAvail)."},
		{value: "dns_dead", needs: needInternet, doc: "A resolver does not answer.", keys: []key{resolver}},
		{value: "dns_servfail", needs: needInternet, doc: "A resolver answers SERVFAIL.", keys: []key{resolver}},
		{value: "dns_slow", needs: needInternet, doc: "A resolver answers late.", keys: []key{ms("1500"), resolver}},
		{value: "dns_wrong_answer", needs: needInternet, doc: "The operator's resolvers give a wrong address for every name.", keys: []key{address("192.0.2.66", "The address, IPv4.")}},
		{value: "dns_hijack", needs: needInternet, doc: "Queries to any resolver, also one on the internet, are answered on the way with one address.", keys: []key{address("192.0.2.66", "The address, IPv4.")}},
		{value: "dns_no_names", needs: needInternet, doc: "The operator's resolvers say of every name that it does not exist."},
		{value: "dns_wildcard", needs: needInternet, doc: "Names that do not exist get an address instead of NXDOMAIN.", keys: []key{address("192.0.2.67", "The address, IPv4.")}},
		{value: "ntp_dead", doc: "The NTP server does not answer."},
		{value: "mtu_black_hole", needs: needInternet, doc: "Behind the BRAS, IPv4 and IPv6 packets longer than `mtu` vanish without an ICMP message.", keys: []key{
			{name: "mtu", def: "1400", example: "1300", doc: "Longest IP packet that passes.", spec: spec{kind: whole, min: 576, max: 1499, unit: "bytes"}},
		}},
		{value: "walled_garden", needs: needInternet, doc: "Every HTTP request is redirected to a portal; nothing else passes but DNS and ICMP.", keys: []key{
			{name: "location", def: "http://portal.isp.example/pay", example: "http://portal.isp.example/pay", doc: "The portal's URL.", spec: spec{kind: text, maxLen: 200, like: shape(`^https?://[^ ]+$`, "a URL that begins with http:// or https://")}},
		}},
		{value: "http_down", needs: needInternet, doc: "The HTTP servers refuse connections."},
		{value: "internet_down", needs: needInternet, doc: "Behind the BRAS nothing answers but the resolvers."},
		{value: "target_silent", needs: needInternet, doc: "An address that the gateway pings does not answer.", keys: []key{
			{name: "target", def: "1", example: "0", doc: "Which one: 1 is the first; 0 is every one.", spec: spec{kind: whole, max: 4}},
		}},
		{value: "gateway_silent", needs: needInternet, doc: "The BRAS does not answer pings; it forwards."},
		{value: "cross_traffic", needs: needInternet, doc: "The PC at home uses the line.", keys: []key{
			rate("down_mbps", "10", "Rate of its download."), rate("up_mbps", "0", "Rate of its upload."),
		}},
		{value: "small_windows", needs: needInternet, doc: "TCP on the gateway, and on the speed-test server, has buffers of no more than `kib` for a connection.", keys: []key{
			{name: "kib", def: "32", example: "16", doc: "Size of a buffer, there and back.", spec: spec{kind: whole, min: 8, max: 4096, unit: "KiB"}},
		}},
		{value: "acs_down", needs: needManagement, doc: "The ACS does not answer."},
		{value: "acs_refuses", needs: needManagement, doc: "The ACS refuses connections."},
		{value: "multicast_missing", needs: needIPTV, doc: "The source sends nothing."},
		{value: "multicast_lossy", needs: needIPTV, doc: "The stream has holes.", keys: []key{ratio("loss_ratio", "0.05", "Share of its packets that are missing.")}},
		{value: "no_querier", needs: needIPTV, doc: "There is no IGMP/MLD querier."},
		{value: "sip_reject", needs: needVoice, doc: "The registrar rejects REGISTER.", keys: []key{
			{name: "code", def: "403", example: "404", doc: "Status of the answer.", spec: spec{kind: whole, min: 400, max: 699}},
			words("reason", "Forbidden", "Reason phrase of the answer."),
		}},
		{value: "sip_silent", needs: needVoice, doc: "The registrar does not answer."},
		{value: "vlan_wrong", doc: "The operator serves a service in another VLAN from now on.", keys: []key{
			{name: "service", def: Internet, example: IPTV, doc: "Which service.", spec: spec{kind: text, oneOf: []string{Internet, IPTV, Voice, Management}}},
			{name: "vlan", def: "999", example: "100", doc: "The other VLAN; 0 is untagged.", spec: spec{kind: whole, max: 4094}},
		}},
		{value: "line", doc: "The line between OLT and gateway changes.", keys: lineKeys("as in `network.line`")},
		{value: "line_loop", doc: "The line is a loop: every frame that the gateway sends comes back to it, and nothing else does."},
		{value: "wan_unplugged", doc: "The gateway's WAN port loses its link."},
		{value: "lan_unplugged", doc: "The gateway's LAN port loses its link."},
		{value: "lan_port", needs: needLAN, doc: "The LAN port says something else of its link.", keys: lanKeys("as in `gateway.lan`")},
		{value: "rx_power", doc: "The light changes. Only the light: give `pon_state` as well if the state would follow.", keys: []key{rxPower(key{required: true})}},
		{value: "pon_state", doc: "The state of the ONU changes.", keys: []key{
			{name: "state", required: true, example: "O2", doc: "The state.", spec: spec{kind: text, oneOf: onuStates()}},
			{name: "omci", derived: "true in O5, else false", example: "false", doc: "Whether the OLT has provisioned services: without, and in any state but O5, the line carries nothing.", spec: spec{kind: yesNo}},
			alarmList(key{}),
		}},
		{value: "bit_errors", doc: "The optical line makes errors.", keys: []key{
			{name: "bip_per_s", def: "50", example: "1000", doc: "BIP errors.", spec: spec{kind: number, max: 1e6, unit: "1/s"}},
			{name: "fec_uncorrected_per_s", def: "5", example: "100", doc: "Codewords that FEC cannot correct.", spec: spec{kind: number, max: 1e6, unit: "1/s"}},
		}},
		{value: "laser", doc: "The laser of the ONT does something else. Give `pon_state` as well if the state would follow.", keys: laserKeys("as in `gateway`")},
		{value: "rogue_laser", doc: "The laser stays on outside its time slot, and the PON port counts it and has the alarm `TX Too Long`; a console of the family rtl960x tells.", keys: []key{
			{name: "too_long_per_s", def: "5", example: "20", doc: "Time slots that it overran.", spec: spec{kind: number, max: 1e6, unit: "1/s"}},
		}},
		{value: "console_dead", doc: "The ONT's console does not answer."},
		{value: "console_habit", doc: "The ONT's console takes to awkward habits.", keys: []key{habitList(key{name: "habits", required: true, doc: "Which; those of the start end."})}},
		{value: "broker_down", doc: "The MQTT broker does not answer; the technician works over the LAN."},
		{value: "gateway_load", needs: needLoad, doc: "The gateway is as busy as it says.", keys: loadKeys("as in `gateway.load`")},
		{value: "no_forwarding", doc: "The gateway forwards no IPv4: it is online, and nobody behind it."},
		{value: "no_nat", doc: "The gateway sends out what comes from the LAN with the LAN's addresses, to which nobody answers."},
		{value: "gateway_slow", doc: "The gateway is too slow for what it is asked: others take all of its processors, and come first. Set it with `rung: throughput`: all that the gateway does takes long then."},
		{value: "cpu_busy", doc: "Something else on the gateway takes processor time.", keys: []key{
			{name: "busy_ratio", def: "0.9", example: "0.5", doc: "Share of one processor.", spec: spec{kind: number, min: 0.05, max: 1, unit: "ratio"}},
		}},
	}
}

// Faults returns the names of all faults.
func Faults() []string { return momentSpec().values() }
