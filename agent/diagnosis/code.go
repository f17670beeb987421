package diagnosis

// Code names a cause. Codes travel in records and are never renamed; the
// catalogue holds their texts.
type Code string

// Side says who has to act.
type Side string

// The sides.
const (
	SideCustomer Side = "customer"
	SideDrop     Side = "drop"     // drop cable, from splitter box to socket
	SideODN      Side = "odn"      // splitters and feeder
	SideOLT      Side = "olt"      //
	SideBRAS     Side = "bras_aaa" //
	SidePlatform Side = "platform" // DNS, ITMS, order data
	SideDevice   Side = "device"   // the gateway or its agent
	SideUnknown  Side = "unknown"  // the evidence does not say
)

// Severity says how much a cause matters to the line.
type Severity string

// The severities, gravest first.
const (
	Critical Severity = "critical" // the line carries nothing
	Major    Severity = "major"    // the norm is not met
	Minor    Severity = "minor"    // the norm is met, but not for long or not everywhere
	Info     Severity = "info"     // nothing is known to be wrong; something could not be told
)

// Light.
const (
	OpticalNoLight         Code = "optical.no_light"
	OpticalRxTooWeak       Code = "optical.rx_too_weak"
	OpticalRxOverload      Code = "optical.rx_overload"
	OpticalRxWeakMargin    Code = "optical.rx_weak_margin"
	OpticalRxNearOverload  Code = "optical.rx_near_overload"
	OpticalReadBroken      Code = "optical.read_broken"
	OpticalUnreadable      Code = "optical.unreadable"
	OpticalSourcesDisagree Code = "optical.sources_disagree"
	OpticalUnsteady        Code = "optical.unsteady"
	OpticalBaselineDrop    Code = "optical.baseline_drop"
	OpticalBitErrors       Code = "optical.bit_errors"
	OpticalTxFault         Code = "optical.tx_fault"
	OpticalLaserAgeing     Code = "optical.laser_ageing"
	OpticalLaserStuckOn    Code = "optical.laser_stuck_on"
	OpticalSplitterWeak    Code = "optical.splitter_weak"
)

// PON registration.
const (
	PONLOS              Code = "pon.los"
	PONNoSync           Code = "pon.no_sync"
	PONNotProvisionedSN Code = "pon.not_provisioned_sn"
	PONAuthRejected     Code = "pon.auth_rejected"
	PONLOIDUnknown      Code = "pon.loid_unknown"
	PONLOIDPassword     Code = "pon.loid_password"
	PONLOIDDuplicate    Code = "pon.loid_duplicate"
	PONRangingFailed    Code = "pon.ranging_failed"
	PONStoppedByOLT     Code = "pon.stopped_by_olt"
	PONPopup            Code = "pon.popup"
	PONFakeO5           Code = "pon.fake_o5"
	PONOMCIUnknown      Code = "pon.omci_unknown"
	PONUnreadable       Code = "pon.unreadable"
	PONDyingGasp        Code = "pon.dying_gasp"
)

// The cable in the house.
const (
	LANPortSlow      Code = "lan.port_slow"
	LANHalfDuplex    Code = "lan.half_duplex"
	LANNoLink        Code = "lan.no_link"
	LANCRCErrors     Code = "lan.crc_errors"
	LANPeerSlow      Code = "lan.peer_slow"
	LANWiresUnproven Code = "lan.wires_unproven"
	LANUnsteady      Code = "lan.unsteady"
	LANUnreadable    Code = "lan.unreadable"
	WiFiSlow         Code = "wifi.slow"
)

// Dialling: PPPoE and DHCP.
const (
	DialNoPADO          Code = "dial.no_pado"
	DialPADSError       Code = "dial.pads_error"
	DialLCPFailed       Code = "dial.lcp_failed"
	DialAuthFailed      Code = "dial.auth_failed"
	DialAuthNoAnswer    Code = "dial.auth_no_answer"
	DialIPCPFailed      Code = "dial.ipcp_failed"
	DialNoDHCPOffer     Code = "dial.no_dhcp_offer"
	DialMACBlocked      Code = "dial.mac_blocked"
	DialWalledGarden    Code = "dial.walled_garden"
	DialDropped         Code = "dial.dropped"
	DialLoop            Code = "dial.loop"
	DialSeveralServers  Code = "dial.several_servers"
	DialGatewaySettings Code = "dial.gateway_settings"
	DialNoCredentials   Code = "dial.no_credentials" //nolint:gosec // says that there are none
)

// The account: what a BRAS or AAA answers, error 691 taken apart.
const (
	AccountNoSuchUser        Code = "account.no_such_user"
	AccountWrongPassword     Code = "account.wrong_password"
	AccountState             Code = "account.state"
	AccountNoAccessAttribute Code = "account.no_access_attribute"
	AccountTooManySessions   Code = "account.too_many_sessions"
	AccountBinding           Code = "account.binding"
	AccountPrepaid           Code = "account.prepaid"
	AccountPoolExhausted     Code = "account.pool_exhausted"
	AccountBandwidthTemplate Code = "account.bandwidth_template"
	AccountNotSynced         Code = "account.not_synced"
	AccountNoExtract         Code = "account.no_extract"
)

// Addresses.
const (
	AddrNone           Code = "addr.none"
	AddrLinkLocal      Code = "addr.link_local"
	AddrPrivate        Code = "addr.private"
	AddrNoDefaultRoute Code = "addr.no_default_route"
	AddrNoIPv6         Code = "addr.no_ipv6"
	AddrUnreadable     Code = "addr.unreadable"
)

// Names.
const (
	DNSNoAnswer          Code = "dns.no_answer"
	DNSServfail          Code = "dns.servfail"
	DNSWrongAnswer       Code = "dns.wrong_answer"
	DNSHijack            Code = "dns.hijack"
	DNSNXDomainRewritten Code = "dns.nxdomain_rewritten"
	DNSNoResolver        Code = "dns.no_resolver"
	DNSResolverDead      Code = "dns.resolver_dead"
	DNSSlow              Code = "dns.slow"
)

// Reachability.
const (
	ReachNoReply       Code = "reach.no_reply"
	ReachGatewaySilent Code = "reach.gateway_silent"
	ReachTargetSilent  Code = "reach.target_silent"
	ReachLoss          Code = "reach.loss"
	ReachLatency       Code = "reach.latency"
	ReachMTUBlackHole  Code = "reach.mtu_black_hole"
)

// Speed.
const (
	ThroughputBelow         Code = "throughput.below"
	ThroughputUploadOnly    Code = "throughput.upload_only"
	ThroughputCongestion    Code = "throughput.congestion"
	ThroughputBufferbloat   Code = "throughput.bufferbloat"
	ThroughputDeviceCPU     Code = "throughput.device_cpu"
	ThroughputDeviceCeiling Code = "throughput.device_ceiling"
	ThroughputServer        Code = "throughput.server"
	ThroughputWindow        Code = "throughput.window"
	ThroughputCrossTraffic  Code = "throughput.cross_traffic"
	ThroughputUnstable      Code = "throughput.unstable"
	ThroughputShort         Code = "throughput.short"
	ThroughputLinkChanged   Code = "throughput.link_changed"
	ThroughputThermal       Code = "throughput.thermal"
)

// Services beside the internet.
const (
	IPTVVLAN              Code = "iptv.vlan"
	IPTVNoStream          Code = "iptv.no_stream"
	IPTVStreamBroken      Code = "iptv.stream_broken"
	VoiceNotRegistered    Code = "voice.not_registered"
	VoiceNoAnswer         Code = "voice.no_answer"
	VoiceVLAN             Code = "voice.vlan"
	ManagementUnreachable Code = "management.unreachable"
	ManagementNotBound    Code = "management.not_bound"
	RoutedInternetDown    Code = "routed_internet.down"
	RoutedForwardingOff   Code = "routed_internet.forwarding_off"
	RoutedNoLANAddress    Code = "routed_internet.no_lan_address"
	RoutedNoNAT           Code = "routed_internet.no_nat"
)

// The gateway.
const (
	HostCPU         Code = "host.cpu"
	HostMemory      Code = "host.memory"
	HostTemperature Code = "host.temperature"
	HostTraffic     Code = "host.traffic"
	HostUnreadable  Code = "host.unreadable"
)

// What the order says is installed.
const (
	IdentitySNMismatch       Code = "identity.sn_mismatch"
	IdentityMACMismatch      Code = "identity.mac_mismatch"
	IdentityPortMismatch     Code = "identity.port_mismatch"
	IdentityUnreadable       Code = "identity.unreadable"
	IdentityNothingToCompare Code = "identity.nothing_to_compare"
)

// The agent itself, and what nobody knows.
const (
	AgentNotSupported  Code = "agent.not_supported"
	AgentInterrupted   Code = "agent.interrupted"
	AgentTimeout       Code = "agent.timeout"
	AgentCannotMeasure Code = "agent.cannot_measure"
	AgentInternal      Code = "agent.internal"
	ClockUntrusted     Code = "clock.untrusted"
	Unknown            Code = "unknown"
)
