package diagnosis

import "strings"

// Lang is a language of the texts.
type Lang string

// The languages.
const (
	Chinese Lang = "zh-CN"
	English Lang = "en"
)

// ParseLang returns the language of a tag such as "zh", "zh_CN.UTF-8", "en-GB".
// It reports whether that is one of ours; if not, it is English.
func ParseLang(tag string) (Lang, bool) {
	word := strings.ToLower(tag)
	switch {
	case strings.HasPrefix(word, "zh"):
		return Chinese, true
	case strings.HasPrefix(word, "en"):
		return English, true
	}
	return English, false
}

// Words is a text in both languages.
type Words struct{ ZH, EN string }

// In returns the text in lang; what is not Chinese is English.
func (w Words) In(lang Lang) string {
	if lang == Chinese {
		return w.ZH
	}
	return w.EN
}

// Cause is an entry of the catalogue.
type Cause struct {
	Code Code
	Side Side // who has to act
	// OrSide is who else it may be, until the action has told; "" if nobody.
	OrSide   Side
	Severity Severity
	// Certainty is how sure this cause is, from 0 to 1, if the rung that it
	// belongs to failed with it and nothing speaks for or against.
	Certainty float64

	Title  Words // a few words
	Means  Words // what is the matter
	Action Words // what to do next

	// Explains lists what follows from this cause and needs no cause of its
	// own. An entry that ends in a dot stands for all codes that begin with it
	// and say that something is wrong.
	Explains []Code
	// With lists causes that make this one more likely when they are there too.
	With []Code
	// NotIf lists rungs that could not pass if this were the cause.
	NotIf []string
	// Shows names the measurements to look at.
	Shows []string
}

// Lookup returns the entry of a code.
func Lookup(code Code) (Cause, bool) {
	if c := find(code); c.Code == code {
		return *c, true
	}
	return Cause{}, false
}

// find returns the entry of a code, or that of Unknown, which is the last.
func find(code Code) *Cause {
	for i := range catalogue {
		if catalogue[i].Code == code {
			return &catalogue[i]
		}
	}
	return &catalogue[len(catalogue)-1]
}

// Catalogue returns all entries, in the order of the ladder.
func Catalogue() []Cause { return append([]Cause(nil), catalogue[:]...) }

// What a line without light or registration can't have, and the like. No list is
// made of another: that would be code that runs at every start.
var (
	aboveOptical = []Code{
		"pon.", "dial.", "account.", "addr.", "dns.", "reach.", "throughput.", "iptv.", "voice.", "management.", "routed_internet.",
	}
	aboveRegistration = []Code{
		"dial.", "account.", "addr.", "dns.", "reach.", "throughput.", "iptv.", "voice.", "management.", "routed_internet.",
	}
	aboveDial    = []Code{"addr.", "dns.", "reach.", "throughput.", "routed_internet."}
	aboveAccount = []Code{DialAuthFailed, "addr.", "dns.", "reach.", "throughput.", "routed_internet."}
	aboveAddress = []Code{"dns.", "reach.", "throughput.", "routed_internet."}
	badLight     = []Code{
		PONPopup, PONRangingFailed, PONNoSync, PONLOS, OpticalBitErrors, OpticalRxWeakMargin, OpticalBaselineDrop, OpticalUnsteady,
		DialDropped, DialLCPFailed, ReachLoss, ThroughputBelow, ThroughputUnstable, ThroughputUploadOnly, IPTVStreamBroken,
	}
	overload = []Code{
		OpticalRxNearOverload, PONPopup, PONRangingFailed, PONNoSync, PONLOS, OpticalBitErrors, OpticalUnsteady,
		DialDropped, DialLCPFailed, ReachLoss, ThroughputBelow, ThroughputUnstable, ThroughputUploadOnly, IPTVStreamBroken,
	}
	// What light that is nearly good enough may lead to.
	poorLight  = []Code{PONPopup, OpticalBitErrors, DialDropped, DialLCPFailed, ReachLoss, ThroughputUnstable, IPTVStreamBroken}
	refused    = []string{"server_message", "terminate_reason"}
	anyTraffic = []string{"addressing", "dns", "reachability", "throughput"}
	registered = []string{"registration", "addressing", "dns", "reachability", "throughput"}
)

// The cable in the house explains no speed: that is measured from the gateway.

// catalogue is never written to. Its order is that of the ladder, then by how
// telling a cause is.
var catalogue = [...]Cause{
	// Light.
	{
		Code: OpticalNoLight, Side: SideDrop, OrSide: SideODN, Severity: Critical, Certainty: 0.95,
		Title:    Words{"无光", "No light"},
		Means:    Words{"光猫收不到光：尾纤没插好、断纤，或分光器端口没光。", "The ONT receives no light: fibre not seated, fibre cut, or a dead splitter port."},
		Action:   Words{"先插紧尾纤、看有无折断；再到分纤箱测光：分纤箱好于 -20 dBm 查皮线光缆，分纤箱也没光报局方查分光器和主干。", "Reseat the fibre and look for breaks. Then measure at the splitter box: better than -20 dBm there, check the drop cable; no light there either, report to the operator (splitter, feeder)."},
		Explains: aboveOptical, With: []Code{PONLOS}, NotIf: registered, Shows: []string{"rx_power_dbm", "pon_alarms"},
	},
	{
		Code: OpticalRxTooWeak, Side: SideDrop, OrSide: SideODN, Severity: Major, Certainty: 0.95,
		Title:    Words{"光衰过大", "Light too weak"},
		Means:    Words{"收光达不到标准：弯折过大、接头脏，或熔接/冷接不良。", "Received power is below the norm: a tight bend, a dirty connector or a bad splice."},
		Action:   Words{"清洁两端接头，理顺弯折；到分纤箱测光：好于 -20 dBm 重做皮线光缆成端，否则报局方查分光器和主干。", "Clean both connectors and straighten bends. Measure at the splitter box: better than -20 dBm there, redo the drop cable's ends; otherwise report the ODN to the operator."},
		Explains: badLight, With: []Code{PONPopup, OpticalBitErrors, OpticalBaselineDrop}, Shows: []string{"rx_power_dbm", "margin_db"},
	},
	{
		Code: OpticalRxOverload, Side: SideODN, Severity: Major, Certainty: 0.95,
		Title:    Words{"收光过强", "Light too strong"},
		Means:    Words{"收光超过上限（默认 -8 dBm），接收机过载，会误码甚至损坏。", "Received power is above the upper limit: the receiver is overloaded, makes errors and may be damaged."},
		Action:   Words{"加光衰减器（一般 5～10 dB）后重测；顺便核对分光器端口是否接错。", "Fit an optical attenuator (usually 5 to 10 dB) and measure again; check that the splitter port is the right one."},
		Explains: overload, Shows: []string{"rx_power_dbm"},
	},
	{
		Code: OpticalBaselineDrop, Side: SideDrop, OrSide: SideODN, Severity: Minor, Certainty: 0.8,
		Title:    Words{"收光比以前变差", "Light fell from its baseline"},
		Means:    Words{"收光比本线路平时明显变差：新增弯折或接头问题。", "Received power has fallen well below what this line usually has: a new bend or a connector."},
		Action:   Words{"查最近动过的走线和接头，清洁后与基线对比。", "Look for recent changes to the cable and connectors; clean, and compare with the baseline."},
		Explains: []Code{OpticalRxWeakMargin, PONPopup, OpticalBitErrors, DialDropped, DialLCPFailed, ReachLoss, ThroughputUnstable, IPTVStreamBroken}, Shows: []string{"rx_power_dbm", "rx_baseline_dbm"},
	},
	{
		Code: OpticalSplitterWeak, Side: SideODN, Severity: Major, Certainty: 0.95,
		Title:    Words{"分纤箱光衰过大", "Light too weak at the splitter box"},
		Means:    Words{"分纤箱上行口达不到 -20 dBm，问题在分光器或主干。", "The splitter box itself has less than -20 dBm: the fault is in the splitter or the feeder."},
		Action:   Words{"换分光器端口复测；仍不合格报局方处理，不要在用户侧反复重做。", "Try another splitter port. If that is no better, report to the operator; don't keep redoing the customer's end."},
		Explains: []Code{OpticalRxTooWeak, OpticalNoLight, OpticalRxWeakMargin, OpticalBaselineDrop}, Shows: []string{"splitter_rx_power_dbm"},
	},
	{
		Code: OpticalBitErrors, Side: SideDrop, OrSide: SideOLT, Severity: Major, Certainty: 0.7,
		Title:    Words{"光路误码", "Bit errors on the fibre"},
		Means:    Words{"FEC/BIP 误码在增长：弯折、接头脏、APC/UPC 接错，光功率正常时也要查 OLT。", "FEC or BIP errors are rising: a bend, a dirty connector, APC mated with UPC; with good power it may be the OLT."},
		Action:   Words{"清洁接头，核对 APC/UPC，理顺弯折后看误码是否停止；光功率正常仍误码报局方。", "Clean connectors, check APC against UPC, straighten bends and see whether errors stop. Good power and still errors: report to the operator."},
		Explains: []Code{ReachLoss, ThroughputBelow, ThroughputUploadOnly, ThroughputUnstable, DialDropped, DialLCPFailed, IPTVStreamBroken}, Shows: []string{"fec_uncorrected", "bip", "pon_alarms"},
	},
	{
		Code: OpticalTxFault, Side: SideDevice, Severity: Critical, Certainty: 0.6,
		Title:    Words{"光模块发光故障", "Transmitter fault"},
		Means:    Words{"光猫收光正常但不发光，OLT 收不到它。", "The ONT receives but does not transmit; the OLT cannot hear it."},
		Action:   Words{"断电重启一次，仍不发光就换光猫/光模块。", "Power-cycle once; if it still does not transmit, replace the ONT or its module."},
		Explains: aboveOptical, NotIf: registered, Shows: []string{"tx_power_dbm", "bias_ma"},
	},
	{
		Code: OpticalLaserAgeing, Side: SideDevice, Severity: Minor, Certainty: 0.6,
		Title:  Words{"激光器老化", "Laser ageing"},
		Means:  Words{"偏置电流偏高而发光没有变强，激光器快到寿命。", "Bias current is high while output is steady or falling: the laser is near its end."},
		Action: Words{"安排更换光猫/光模块。", "Plan to replace the ONT or its module."},
		Shows:  []string{"bias_ma", "tx_power_dbm"},
	},
	{
		Code: OpticalLaserStuckOn, Side: SideDevice, Severity: Critical, Certainty: 0.7,
		Title:  Words{"长发光", "Laser stays on"},
		Means:  Words{"光猫不在自己的时隙里也发光，会影响同一 PON 口的其他用户。", "The ONT transmits outside its time slot and disturbs every subscriber on the PON port."},
		Action: Words{"立即拔掉尾纤并报局方，更换光猫。", "Unplug the fibre at once, tell the operator, and replace the ONT."},
	},
	{
		Code: OpticalRxWeakMargin, Side: SideDrop, OrSide: SideODN, Severity: Minor, Certainty: 0.7,
		Title:    Words{"收光余量不足", "Little optical margin"},
		Means:    Words{"收光合格，但离门限或模块自身告警值太近，天气和弯折变化就可能不达标。", "Received power is within the norm but close to the limit or to the module's own; weather or a bend may push it out."},
		Action:   Words{"清洁接头、理顺弯折，争取多留 2 dB 以上余量。", "Clean connectors and straighten bends; aim for a margin of 2 dB or more."},
		Explains: poorLight, Shows: []string{"rx_power_dbm", "margin_db"},
	},
	{
		Code: OpticalRxNearOverload, Side: SideODN, Severity: Minor, Certainty: 0.7,
		Title:  Words{"收光偏强", "Light near overload"},
		Means:  Words{"收光合格，但已超过模块自身的高告警值。", "Received power is within the norm but above the module's own high threshold."},
		Action: Words{"建议加小衰减器，或换到分光比更大的端口。", "Fit a small attenuator, or move to a port with a larger split."},
		Shows:  []string{"rx_power_dbm"},
	},
	{
		Code: OpticalUnsteady, Side: SideDrop, Severity: Minor, Certainty: 0.6,
		Title:    Words{"收光不稳", "Light is unsteady"},
		Means:    Words{"几次读数时有时无或相差 3 dB 以上：接头松动或正在触碰光纤。", "Readings come and go or differ by more than 3 dB: a loose connector, or someone touching the fibre."},
		Action:   Words{"固定好尾纤、插紧接头，静置几分钟再测。", "Secure the fibre, reseat the connector, leave it alone for some minutes and measure again."},
		Explains: poorLight, Shows: []string{"rx_power_sample_dbm"},
	},
	{
		Code: OpticalSourcesDisagree, Side: SideDevice, Severity: Info, Certainty: 0.8,
		Title:  Words{"光功率读数互相矛盾", "Optical sources disagree"},
		Means:  Words{"控制台、光模块等来源的收光相差超过 3 dB，不知道该信哪个。", "Console and module differ by more than 3 dB; it cannot be told which is right."},
		Action: Words{"用光功率计测一次作准，并把型号和固件报给平台。", "Measure with a power meter and go by that; report model and firmware."},
		Shows:  []string{"rx_power_dbm", "rx_power_other_dbm"},
	},
	{
		Code: OpticalReadBroken, Side: SideDevice, Severity: Info, Certainty: 0.8,
		Title:  Words{"光功率读数不可信", "Optical reading cannot be trusted"},
		Means:  Words{"光模块有应答但数值不合理（比如电压为 0），这不是无光。", "The module answers, but implausibly (a supply of 0 V, a bad checksum). This is not darkness."},
		Action: Words{"用光功率计复核；能读控制台的改用控制台读数。", "Check with a power meter; read the console instead where there is one."},
		Shows:  []string{"rx_power_sample_dbm", "supply_voltage_v"},
	},
	{
		Code: OpticalUnreadable, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"读不到光功率", "Light cannot be read"},
		Means:  Words{"网关读不到光模块，也读不到光猫控制台。", "The gateway can read neither the optical module nor the ONT's console."},
		Action: Words{"查串口线和配置；本次用光功率计测量并记录。", "Check the serial cable and the configuration; this time measure with a power meter and note it."},
		Shows:  []string{"rx_power_dbm"},
	},

	// PON registration.
	{
		Code: PONLOS, Side: SideDrop, OrSide: SideODN, Severity: Critical, Certainty: 0.8,
		Title:    Words{"PON 信号丢失（LOS）", "Loss of signal"},
		Means:    Words{"光猫停在 O1，收不到 OLT 的信号。", "The ONT stays in O1: it does not get the OLT's signal."},
		Action:   Words{"按无光处理：插紧尾纤，到分纤箱测光；光功率正常则核对是否接到 PON 口。", "Treat as no light: reseat the fibre, measure at the splitter box. If power is fine, check that this fibre leads to a PON port at all."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"onu_state", "pon_alarms"},
	},
	{
		Code: PONNoSync, Side: SideOLT, OrSide: SideODN, Severity: Critical, Certainty: 0.6,
		Title:    Words{"有光但不同步", "Light, but no synchronisation"},
		Means:    Words{"收到光却锁不住：波长或制式不对（GPON 接到 XGS-PON）、光太弱，或对端不是 PON。", "There is light but no lock: wrong wavelength or standard (GPON on an XGS-PON port), too little light, or not a PON at all."},
		Action:   Words{"核对光猫制式和 PON 口类型，核对端口标签，再测光功率。", "Compare the ONT's standard with the PON port's, check the port label, measure the power again."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"onu_state", "pon_alarms"},
	},
	{
		Code: PONNotProvisionedSN, Side: SideOLT, OrSide: SidePlatform, Severity: Critical, Certainty: 0.75,
		Title:    Words{"OLT 没有此光猫数据", "ONT not provisioned at the OLT"},
		Means:    Words{"光正常，光猫停在 O2/O3：SN、LOID 或鉴权码没有录入，或录错了 PON 口。", "Light is fine, the ONT loops in O2/O3: SN, LOID or auth code is not entered, or entered for another PON port."},
		Action:   Words{"把 SN、PON 口和鉴权码与工单核对（鉴权码是十六进制还是字符也要对），报数据组重新录入。", "Compare SN, PON port and auth code with the order (is the code entered as hex or as text?); have the data team enter them again."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"onu_state", "sn"},
	},
	{
		Code: PONRangingFailed, Side: SideOLT, OrSide: SideDrop, Severity: Critical, Certainty: 0.6,
		Title:    Words{"测距失败（O4）", "Ranging fails (O4)"},
		Means:    Words{"光猫反复卡在 O4：鉴权码被拒，或上行光不好、距离超限。", "The ONT loops in O4: the auth code is refused, or its upstream light is bad, or it is too far away."},
		Action:   Words{"核对鉴权码（注意十六进制和字符两种写法）；码正确就查光衰和接头，仍不行报局方。", "Check the auth code (hex or text?). If it is right, check light and connectors; then report to the operator."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"onu_state"},
	},
	{
		Code: PONAuthRejected, Side: SideOLT, OrSide: SidePlatform, Severity: Critical, Certainty: 0.85,
		Title:    Words{"鉴权被拒", "Authentication rejected"},
		Means:    Words{"OLT 拒绝了鉴权码（PLOAM 密码/LOID）。", "The OLT rejects the auth code (PLOAM password or LOID)."},
		Action:   Words{"与工单核对鉴权码，重新录入一次；不要反复尝试。", "Compare the auth code with the order and enter it once more; do not keep trying."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"loid_status", "onu_state"},
	},
	{
		Code: PONLOIDUnknown, Side: SideOLT, OrSide: SidePlatform, Severity: Critical, Certainty: 0.9,
		Title:    Words{"LOID 不存在", "LOID does not exist"},
		Means:    Words{"局端没有这个 LOID：录错或数据没有下发。", "The OLT does not know this LOID: mistyped, or the data has not arrived."},
		Action:   Words{"与工单核对 LOID；无误就请数据组查激活数据。", "Compare the LOID with the order; if it is right, have the data team check the activation."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"loid_status"},
	},
	{
		Code: PONLOIDPassword, Side: SideOLT, OrSide: SidePlatform, Severity: Critical, Certainty: 0.9,
		Title:    Words{"LOID 密码错", "LOID password wrong"},
		Means:    Words{"LOID 存在，但密码不对。", "The LOID exists, but its password is wrong."},
		Action:   Words{"与工单核对 LOID 密码重新录入；仍错请数据组重置。", "Compare the LOID password with the order and enter it again; if still wrong, have it reset."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"loid_status"},
	},
	{
		Code: PONLOIDDuplicate, Side: SidePlatform, OrSide: SideOLT, Severity: Critical, Certainty: 0.9,
		Title:    Words{"LOID 重复", "LOID in use elsewhere"},
		Means:    Words{"这个 LOID 已绑定在另一台光猫上（换机或移机未解绑）。", "This LOID is bound to another ONT: replaced or moved without unbinding."},
		Action:   Words{"请数据组解绑旧光猫后重新注册。", "Have the data team unbind the old ONT, then register again."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"loid_status"},
	},
	{
		Code: PONStoppedByOLT, Side: SideOLT, Severity: Critical, Certainty: 0.9,
		Title:    Words{"被 OLT 禁用（O7）", "Disabled by the OLT (O7)"},
		Means:    Words{"OLT 下发了停用：可能被判为流氓光猫或已封停，断电也不恢复。", "The OLT has silenced this ONT, as rogue or blocked; switching it off and on does not help."},
		Action:   Words{"不要反复重启，联系网管查 OLT 告警后再处理。", "Do not keep restarting; call the NOC to look at the OLT's alarms."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"onu_state"},
	},
	{
		Code: PONPopup, Side: SideDrop, OrSide: SideODN, Severity: Major, Certainty: 0.6,
		Title:    Words{"PON 时断时续", "Registration comes and goes"},
		Means:    Words{"光猫注册上又掉（O6 或重新注册）：光路瞬断或光太弱。", "The ONT registers and falls out again (O6, or from the start): the light breaks off or is too weak."},
		Action:   Words{"查接头松动、弯折和光衰；光正常则请局方看 OLT 侧告警。", "Look for a loose connector, bends, weak light; if light is fine, have the OLT's alarms checked."},
		Explains: []Code{DialDropped, DialLCPFailed, AddrNone, AddrNoDefaultRoute, DNSNoAnswer, ReachLoss, ReachNoReply, ThroughputUnstable, IPTVStreamBroken}, With: []Code{OpticalRxWeakMargin, OpticalUnsteady, OpticalBitErrors}, Shows: []string{"onu_state"},
	},
	{
		Code: PONFakeO5, Side: SideOLT, Severity: Critical, Certainty: 0.8,
		Title:    Words{"假 O5：已注册但无业务", "Fake O5: registered, no service"},
		Means:    Words{"光猫到了 O5，但 OLT 没有通过 OMCI 下发业务：型号、版本或鉴权不匹配。", "The ONT is in O5 but the OLT has provisioned nothing by OMCI: model, version or credentials do not match."},
		Action:   Words{"核对光猫型号、硬件版本和鉴权码，报局方查 OLT 上的业务模板和绑定。", "Check model, hardware version and auth code; have the operator check service profile and binding at the OLT."},
		Explains: aboveRegistration, NotIf: anyTraffic, Shows: []string{"onu_state", "omci_provisioned", "gem_ports", "t_conts"},
	},
	{
		Code: PONDyingGasp, Side: SideCustomer, Severity: Major, Certainty: 0.8,
		Title:    Words{"光猫掉电", "Power failure at the ONT"},
		Means:    Words{"掉线前光猫报了掉电（dying gasp）：电源或插座问题。", "The ONT announced a power failure before it went: adapter or socket."},
		Action:   Words{"查电源适配器、插座和开关，必要时换适配器。", "Check adapter, socket and switch; replace the adapter if in doubt."},
		Explains: []Code{PONPopup, PONLOS, DialDropped},
	},
	{
		Code: PONOMCIUnknown, Side: SideDevice, Severity: Info, Certainty: 0.7,
		Title:  Words{"看不到业务是否下发", "Provisioning cannot be seen"},
		Means:  Words{"光猫在 O5，但读不到可靠的 OMCI/LOID 状态，不能证明已开通。", "The ONT is in O5, but OMCI and LOID cannot be read reliably: this does not prove service."},
		Action: Words{"用拨号和测速证明业务；或请局方在 OLT 上确认。", "Prove the service by dialling and a speed test, or have it confirmed at the OLT."},
		Shows:  []string{"onu_state", "omci_provisioned"},
	},
	{
		Code: PONUnreadable, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"读不到注册状态", "Registration cannot be read"},
		Means:  Words{"光猫控制台没有应答，或应答里没有 PON 状态。", "The ONT's console does not answer, or does not tell the PON state."},
		Action: Words{"查串口线、登录口令和驱动配置；本次请局方在 OLT 上确认注册。", "Check serial cable, login and driver; this time have registration confirmed at the OLT."},
		Shows:  []string{"onu_state"},
	},

	// What the order says is installed.
	{
		Code: IdentitySNMismatch, Side: SidePlatform, OrSide: SideCustomer, Severity: Major, Certainty: 0.9,
		Title:    Words{"SN 与工单不符", "Serial number differs from the order"},
		Means:    Words{"装的光猫不是工单上的那一台，或资源录错。", "The ONT is not the one in the order, or the order's data is wrong."},
		Action:   Words{"核对机身标签；装错就换回，录错就报数据组改资源。", "Look at the label; wrong box: swap it, wrong data: have the data team correct it."},
		Explains: []Code{PONNotProvisionedSN}, Shows: []string{"sn"},
	},
	{
		Code: IdentityMACMismatch, Side: SidePlatform, OrSide: SideCustomer, Severity: Major, Certainty: 0.85,
		Title:    Words{"MAC 与工单不符", "MAC differs from the order"},
		Means:    Words{"本机所有接口的 MAC 都不是工单上的。", "None of the device's MAC addresses is the one in the order."},
		Action:   Words{"核对机身标签，报数据组改资源或换回设备。", "Look at the label; have the data corrected or the device swapped."},
		Explains: []Code{AccountBinding}, Shows: []string{"mac"},
	},
	{
		Code: IdentityPortMismatch, Side: SidePlatform, OrSide: SideCustomer, Severity: Major, Certainty: 0.85,
		Title:  Words{"LAN 口与工单不符", "LAN port differs from the order"},
		Means:  Words{"工单上的 LAN 口在本机上不存在。", "The LAN port in the order does not exist on this device."},
		Action: Words{"核对工单里的端口名；型号不对就换设备或改工单。", "Check the port name in the order; wrong model: change the device or the order."},
		Shows:  []string{"lan_port"},
	},
	{
		Code: IdentityUnreadable, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"读不到资源信息", "Resources cannot be read"},
		Means:  Words{"工单写了 SN/MAC/端口，但本机读不出来或工单写法有误，无法核对。", "The order states SN, MAC or port, but the device cannot read it, or the order's spelling makes no sense."},
		Action: Words{"人工核对机身标签并拍照留存。", "Compare with the label by eye and keep a photo."},
		Shows:  []string{"sn", "mac"},
	},
	{
		Code: IdentityNothingToCompare, Side: SidePlatform, Severity: Info, Certainty: 0.9,
		Title:  Words{"工单没有可核对的资源", "Nothing to compare in the order"},
		Means:  Words{"工单没有写 SN、MAC 或 LAN 口。", "The order states no SN, MAC or LAN port."},
		Action: Words{"请派单方补全资源信息后再验收。", "Have the order completed, then accept again."},
	},

	// The cable in the house.
	{
		Code: LANPortSlow, Side: SideCustomer, Severity: Major, Certainty: 0.8,
		Title:  Words{"网口只有百兆", "LAN port runs at 100 Mbit/s"},
		Means:  Words{"千兆口只协商到百兆：4 芯水晶头、坏线对，或对端只有百兆网卡。", "A gigabit port has negotiated 100 Mbit/s: a 4-wire plug, a bad pair, or a 100 Mbit/s card at the other end."},
		Action: Words{"用测线仪测 8 芯，按 568B 重做水晶头；线没问题再看电脑网卡是不是百兆。", "Test all eight wires and re-terminate to 568B; if the cable is good, check whether the computer's card is only 100 Mbit/s."},
		Shows:  []string{"lan_speed_mbps", "lan_port_max_mbps", "lan_peer_max_mbps"},
	},
	{
		Code: LANHalfDuplex, Side: SideCustomer, Severity: Major, Certainty: 0.8,
		Title:    Words{"网口半双工", "LAN port in half duplex"},
		Means:    Words{"网口协商成半双工：线路差，或对端强制了速率。", "The port has negotiated half duplex: a bad cable, or a fixed speed at the other end."},
		Action:   Words{"对端网卡改为自动协商；仍是半双工就重做水晶头或换线。", "Set the other end to automatic; if that does not help, re-terminate or replace the cable."},
		Explains: []Code{LANCRCErrors}, Shows: []string{"lan_duplex", "lan_speed_mbps"},
	},
	{
		Code: LANCRCErrors, Side: SideCustomer, Severity: Major, Certainty: 0.75,
		Title:  Words{"网线误码", "Errors on the LAN cable"},
		Means:  Words{"观察期间 CRC 错误在增长：线对接触不良或干扰。", "CRC errors grew while the port was watched: a bad contact or interference."},
		Action: Words{"重做水晶头，避开电源线；不行就换网线。", "Re-terminate, keep away from power cables, or replace the cable."},
		Shows:  []string{"lan_crc_errors"},
	},
	{
		Code: LANNoLink, Side: SideCustomer, Severity: Major, Certainty: 0.7,
		Title:  Words{"网口没有连接", "No link on the LAN port"},
		Means:  Words{"网口没有链路：没插设备、设备没开机，或网线不通（4 芯线可能完全不通）。", "The port has no link: nothing plugged in or switched on, or a broken cable (two pairs may not link at all)."},
		Action: Words{"插上电脑并开机再测；仍不通用测线仪查 8 芯。", "Plug in a computer that is on and test again; still none: test all eight wires."},
		Shows:  []string{"lan_carrier"},
	},
	{
		Code: LANUnsteady, Side: SideCustomer, Severity: Minor, Certainty: 0.6,
		Title:  Words{"网口链路不稳", "LAN link is unsteady"},
		Means:  Words{"观察期间链路断过或速率变过，无法判定布线。", "The link dropped or changed speed while it was watched, so the cabling cannot be judged."},
		Action: Words{"插紧水晶头，确认电脑没有休眠，再测一次。", "Reseat the plug, make sure that the computer does not sleep, test again."},
		Shows:  []string{"lan_carrier", "lan_speed_mbps"},
	},
	{
		Code: LANPeerSlow, Side: SideCustomer, Severity: Info, Certainty: 0.85,
		Title:  Words{"对端设备只有百兆", "The attached device is the limit"},
		Means:  Words{"对端宣告自己最高百兆，证明不了 8 芯线好坏。", "The other end announces no more than 100 Mbit/s, so eight wires can't be proven."},
		Action: Words{"换一台千兆网卡的电脑再测。", "Test again with a computer that has a gigabit card."},
		Shows:  []string{"lan_peer_max_mbps"},
	},
	{
		Code: LANWiresUnproven, Side: SideCustomer, Severity: Minor, Certainty: 0.5,
		Title:  Words{"百兆口，另 4 芯未验证", "100 Mbit/s port: four wires unproven"},
		Means:  Words{"网口本身只有百兆，只用到 4 芯，其余 4 芯没有验证。", "The port itself does only 100 Mbit/s and uses four wires; the others are not proven."},
		Action: Words{"用测线仪补测 8 芯并记录。", "Test all eight wires with a cable tester and note it."},
		Shows:  []string{"lan_port_max_mbps"},
	},
	{
		Code: LANUnreadable, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"读不到网口状态", "LAN port cannot be read"},
		Means:  Words{"网口不存在，或驱动不报速率、双工。", "The port does not exist, or its driver does not tell speed and duplex."},
		Action: Words{"核对配置里的网口名；用测线仪测 8 芯并记录。", "Check the port name in the configuration; test the wires with a cable tester and note it."},
		Shows:  []string{"lan_speed_mbps"},
	},
	{
		Code: WiFiSlow, Side: SideCustomer, Severity: Minor, Certainty: 0.6,
		Title:  Words{"Wi-Fi 慢，有线正常", "Wi-Fi slow, wired fine"},
		Means:  Words{"有线达标，慢在无线；无线测速不计入验收。", "Wired meets the norm, Wi-Fi does not; Wi-Fi never counts for acceptance."},
		Action: Words{"调整摆放和信道，或建议加 AP。", "Move the gateway, change the channel, or offer another access point."},
	},

	// Dialling.
	{
		Code: DialNoPADO, Side: SideOLT, OrSide: SideBRAS, Severity: Critical, Certainty: 0.75,
		Title:    Words{"拨号无响应（无 PADO）", "No answer to dialling (no PADO)"},
		Means:    Words{"PADI 发出后没有 BRAS 应答：VLAN 不对、OMCI 业务没下发，或 BRAS 侧没有数据。错误 678/651 多属此类。", "No BRAS answers: wrong VLAN, no service by OMCI, or no data at the BRAS. Errors 678 and 651 are mostly this."},
		Action:   Words{"核对拨号 VLAN 与工单；一致则报局方查 OLT 业务和 BRAS。", "Compare the VLAN with the order; if it is right, have OLT service and BRAS checked."},
		Explains: aboveDial, NotIf: anyTraffic, Shows: []string{"dial_outcome", "gateway_online"},
	},
	{
		Code: DialPADSError, Side: SideBRAS, Severity: Critical, Certainty: 0.8,
		Title:    Words{"BRAS 拒绝会话", "BRAS refuses the session"},
		Means:    Words{"BRAS 在 PADS/PADO 里返回错误（服务名或 BRAS 故障）。", "The BRAS answers PADI or PADR with an error: service name, or a fault of its own."},
		Action:   Words{"把错误原文报给局方 BRAS 维护。", "Report the text of the error to the BRAS team."},
		Explains: aboveDial, NotIf: anyTraffic, Shows: []string{"pppoe_errors"},
	},
	{
		Code: DialLCPFailed, Side: SideBRAS, OrSide: SideDrop, Severity: Critical, Certainty: 0.6,
		Title:    Words{"LCP 协商失败", "LCP fails"},
		Means:    Words{"链路协商不成：参数不符、MTU 不符，或线路丢包。", "Link negotiation fails: options or MTU don't match, or the line loses frames."},
		Action:   Words{"先看光衰和误码；正常则报 BRAS 维护。", "Look at light and errors first; if they are fine, report to the BRAS team."},
		Explains: aboveDial, NotIf: anyTraffic, Shows: []string{"dial_outcome", "lcp_echo_loss_ratio"},
	},
	{
		Code: DialAuthFailed, Side: SideBRAS, Severity: Critical, Certainty: 0.8,
		Title:    Words{"认证失败（错误 691）", "Authentication fails (error 691)"},
		Means:    Words{"账号认证没有通过，BRAS 没有给出更具体的原因。", "The account is not accepted and the BRAS does not say why."},
		Action:   Words{"核对账号密码；不要反复拨号，连续失败会被锁，报局方查 3A。", "Check account and password; do not keep dialling – repeated failures lock the line. Have AAA checked."},
		Explains: aboveDial, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: DialAuthNoAnswer, Side: SideBRAS, Severity: Critical, Certainty: 0.8,
		Title:    Words{"认证没有应答（3A 不通）", "No answer to the authentication (AAA down)"},
		Means:    Words{"BRAS 收了账号密码，但没有给出结果，多为 3A 服务器不通；不是账号密码的问题。", "The BRAS took account and password and came to no result: mostly AAA is out of reach. Account and password are not to blame."},
		Action:   Words{"不要改密码，也不要反复拨号；报局方查 BRAS 到 3A 的通路。", "Don't change the password and don't keep dialling; have the way from BRAS to AAA checked."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: DialLoop, Side: SideODN, OrSide: SideOLT, Severity: Critical, Certainty: 0.85,
		Title:    Words{"线路成环", "Loop on the line"},
		Means:    Words{"自己发出的帧又回来了：网线两口对插、ONU 或接入侧成环。", "Our own frames come back: two ports plugged together, or a loop in the access network."},
		Action:   Words{"先拔掉用户侧多余网线再测；仍成环报局方查接入侧。", "Unplug spare cables at the customer's and test again; if it stays, report the access network."},
		Explains: []Code{DialNoPADO, DialLCPFailed, DialAuthNoAnswer, DialNoDHCPOffer, "addr.", "dns.", "reach.", "throughput.", "routed_internet."}, NotIf: anyTraffic, Shows: []string{"looped"},
	},
	{
		Code: DialSeveralServers, Side: SideOLT, OrSide: SideCustomer, Severity: Minor, Certainty: 0.6,
		Title:  Words{"有多台服务器应答", "More than one server answers"},
		Means:  Words{"同一 VLAN 上有多台 BRAS 或 DHCP 服务器应答，拨到哪台不定，也可能是用户侧路由器接反。", "Several access concentrators or DHCP servers answer on one VLAN: which one is used is chance. A router plugged in the wrong way round does this too."},
		Action: Words{"核对应答方名称和 MAC；有一台不是局方的就查接线，否则报局方。", "Compare names and MACs with the operator's; if one is not theirs look for a router plugged in backwards, else report."},
		Shows:  []string{"access_concentrators", "dhcp_servers"},
	},
	{
		Code: DialGatewaySettings, Side: SideDevice, Severity: Critical, Certainty: 0.85,
		Title:    Words{"网关自己没拨上，线路是通的", "The line works, the gateway's own settings don't"},
		Means:    Words{"用工单的账号和 VLAN 试拨成功，但网关自己没有上线：网关里的 VLAN、账号、密码或拨号方式配错了。", "A test dial with the order's account and VLAN succeeds, but the gateway itself is not online: its own VLAN, account, password or kind of access is set wrong."},
		Action:   Words{"按工单核对网关的上网配置并重新下发，再测一次。", "Compare the gateway's internet settings with the order, set them anew, test again."},
		Explains: aboveDial, NotIf: []string{"addressing"},
	},
	{
		Code: DialNoCredentials, Side: SidePlatform, Severity: Info, Certainty: 0.9,
		Title:  Words{"工单没带账号密码，没有试拨", "No credentials in the order, no test dial"},
		Means:  Words{"BRAS 有应答，但网关没上线，而工单里没有密封的账号密码，无法判断认证。", "The BRAS answers and the gateway is not online, but the order carries no sealed account, so the authentication could not be tried."},
		Action: Words{"请派单方补上密封的账号密码，再测一次。", "Have the order issued with the sealed account and password, then test again."},
	},
	{
		Code: DialMACBlocked, Side: SideBRAS, Severity: Critical, Certainty: 0.7,
		Title:    Words{"被 BRAS 临时锁定", "Locked out by the BRAS"},
		Means:    Words{"连续认证失败，BRAS 暂时屏蔽本机 MAC（常见 60 分钟）。", "After repeated failures the BRAS blocks this MAC for a while, often 60 minutes."},
		Action:   Words{"停止拨号，等待解锁或请局方解锁，再用正确账号拨一次。", "Stop dialling, wait or have it unlocked, then dial once with the right account."},
		Explains: []Code{DialNoPADO, DialAuthFailed, "addr.", "dns.", "reach.", "throughput.", "routed_internet."}, NotIf: anyTraffic,
	},
	{
		Code: DialIPCPFailed, Side: SideBRAS, Severity: Critical, Certainty: 0.75,
		Title:    Words{"认证通过但没分到地址", "Authenticated, but no address given"},
		Means:    Words{"IPCP/IPv6CP 协商失败，BRAS 没有分配地址。", "IPCP or IPv6CP fails: the BRAS gives no address."},
		Action:   Words{"报局方查地址池和用户模板。", "Have the address pool and the user's profile checked."},
		Explains: aboveDial, NotIf: []string{"addressing"},
	},
	{
		Code: DialNoDHCPOffer, Side: SideBRAS, OrSide: SideOLT, Severity: Critical, Certainty: 0.7,
		Title:    Words{"DHCP 无应答", "No DHCP offer"},
		Means:    Words{"发了 DISCOVER 没有 OFFER：VLAN、OMCI 业务或 DHCP 服务器问题。", "DISCOVER gets no OFFER: VLAN, OMCI service or the DHCP server."},
		Action:   Words{"核对 VLAN 与工单；一致则报局方查业务和 DHCP。", "Compare the VLAN with the order; if it is right, have service and DHCP checked."},
		Explains: aboveDial, NotIf: []string{"addressing"}, Shows: []string{"dhcp_outcome", "answers_on_other_vlans"},
	},
	{
		Code: DialWalledGarden, Side: SideBRAS, Severity: Critical, Certainty: 0.8,
		Title:    Words{"上网被重定向（疑欠费停机）", "Redirected to a portal (unpaid?)"},
		Means:    Words{"拨号成功，但网页都跳到运营商页面，多为欠费停机或未激活。", "Dialled, but every page leads to the operator's portal: mostly unpaid or not activated."},
		Action:   Words{"请用户或营业厅核对缴费和激活状态。", "Have payment and activation checked at the account desk."},
		Explains: []Code{DNSHijack, DNSWrongAnswer, DNSNXDomainRewritten, "throughput.", "routed_internet.", ReachTargetSilent}, With: []Code{DNSHijack}, Shows: []string{"page_outcome", "page_redirect"},
	},
	{
		Code: DialDropped, Side: SideDrop, OrSide: SideBRAS, Severity: Major, Certainty: 0.5,
		Title:  Words{"经常掉线", "Session drops"},
		Means:  Words{"PPP 会话反复断开（对端无回应或挂断）。", "The PPP session keeps breaking: peer silent, or hung up."},
		Action: Words{"对照掉线时刻看光衰和 PON 状态；光路正常报 BRAS 维护。", "Compare the times with light and PON state; if the line is fine, report to the BRAS team."},
	},

	// The account.
	{
		Code: AccountNoSuchUser, Side: SideBRAS, Severity: Critical, Certainty: 0.9,
		Title:    Words{"691：无此用户", "691: no such user"},
		Means:    Words{"3A 里没有这个账号：没开户或账号录错。", "AAA does not know the account: not opened, or mistyped."},
		Action:   Words{"核对账号写法（含后缀）；无误就请局方查开户和 3A 同步。", "Check the spelling, suffix included; then have provisioning in AAA checked."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountWrongPassword, Side: SideBRAS, OrSide: SideCustomer, Severity: Critical, Certainty: 0.9,
		Title:    Words{"691：密码错", "691: wrong password"},
		Means:    Words{"账号存在，密码不对。", "The account exists, the password is wrong."},
		Action:   Words{"与工单核对密码重设一次；不要反复试。", "Set the password from the order once; do not keep trying."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountState, Side: SideBRAS, Severity: Critical, Certainty: 0.85,
		Title:    Words{"691：账号状态异常", "691: account state"},
		Means:    Words{"账号被停用、欠费停机或还没激活。", "The account is suspended, unpaid or not active yet."},
		Action:   Words{"请营业/账务核对状态，恢复后再拨一次。", "Have the account desk check it; dial once it is restored."},
		Explains: []Code{DialAuthFailed, DialWalledGarden, "addr.", "dns.", "reach.", "throughput.", "routed_internet."}, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountNoAccessAttribute, Side: SideBRAS, Severity: Critical, Certainty: 0.85,
		Title:    Words{"691：无认证接入校验属性", "691: no access-check attribute"},
		Means:    Words{"3A 里缺少接入校验属性，数据没做全。", "The account lacks its access-check attribute in AAA: incomplete data."},
		Action:   Words{"报局方补 3A 数据。", "Have the AAA data completed."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountTooManySessions, Side: SideBRAS, OrSide: SideCustomer, Severity: Critical, Certainty: 0.85,
		Title:    Words{"691：超出限制的用户数", "691: too many sessions"},
		Means:    Words{"账号已在别处在线，或上次会话没有释放。", "The account is in use elsewhere, or its last session was not released."},
		Action:   Words{"确认没有别的设备在拨号，等几分钟或请局方踢下线再拨。", "Make sure that nothing else dials; wait some minutes or have the session cleared, then dial once."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountBinding, Side: SideBRAS, OrSide: SidePlatform, Severity: Critical, Certainty: 0.85,
		Title:    Words{"691：绑定校验错", "691: binding mismatch"},
		Means:    Words{"账号绑定的 VLAN/端口与本线路不符。", "The account is bound to another VLAN or port."},
		Action:   Words{"核对 PON 口、VLAN 与工单，请局方改绑定。", "Compare PON port and VLAN with the order; have the binding changed."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountPrepaid, Side: SideBRAS, Severity: Critical, Certainty: 0.85,
		Title:    Words{"691：预付费校验失败（OCS）", "691: prepaid check fails (OCS)"},
		Means:    Words{"计费系统拒绝：余额不足或 OCS 异常。", "Charging refuses: no credit, or a fault of OCS."},
		Action:   Words{"请账务核对余额和 OCS 状态。", "Have credit and OCS checked."},
		Explains: aboveAccount, NotIf: anyTraffic, Shows: refused,
	},
	{
		Code: AccountPoolExhausted, Side: SideBRAS, Severity: Critical, Certainty: 0.85,
		Title:    Words{"地址池耗尽", "Address pool exhausted"},
		Means:    Words{"认证通过，但 BRAS 没有地址可分。", "Accepted, but the BRAS has no address left."},
		Action:   Words{"报 BRAS 维护扩地址池，稍后再拨。", "Report to the BRAS team; dial later."},
		Explains: []Code{DialIPCPFailed, DialAuthFailed, "addr.", "dns.", "reach.", "throughput.", "routed_internet."}, NotIf: []string{"addressing"}, Shows: refused,
	},
	{
		Code: AccountBandwidthTemplate, Side: SideBRAS, Severity: Major, Certainty: 0.75,
		Title:    Words{"限速模板不对", "Wrong bandwidth template"},
		Means:    Words{"速率稳定在另一档套餐上：BRAS 限速模板与签约速率不符。", "The rate is flat at another plan's value: the BRAS template does not match the contract."},
		Action:   Words{"请局方核对限速模板与签约速率。", "Have the template compared with the contracted rate."},
		Explains: []Code{ThroughputBelow, ThroughputUploadOnly}, Shows: []string{"throughput_down_mbps", "throughput_down_spread"},
	},
	{
		Code: AccountNotSynced, Side: SideBRAS, OrSide: SidePlatform, Severity: Major, Certainty: 0.9,
		Title:  Words{"3A 信息不同步", "AAA data out of step with the order"},
		Means:  Words{"3A 里的速率、业务或状态与工单不一致。", "Rate, service or state in AAA differ from the order."},
		Action: Words{"请局方按工单重新同步 3A。", "Have AAA synchronised with the order."},
	},
	{
		Code: AccountNoExtract, Side: SidePlatform, Severity: Info, Certainty: 0.9,
		Title:  Words{"没有 3A 数据", "No AAA extract"},
		Means:  Words{"没有收到运营商签名的 3A 摘录，或者摘录过期、不全，速率和会话无法核对。", "There is no AAA extract signed by the operator, or it is stale or lacks what matters, so rate and session cannot be checked."},
		Action: Words{"请派单系统随工单附上新的 3A 摘录。", "Have a fresh extract sent along with the order."},
	},

	// Addresses.
	{
		Code: AddrNone, Side: SideBRAS, OrSide: SideOLT, Severity: Critical, Certainty: 0.6,
		Title:    Words{"没有获取到地址", "No address"},
		Means:    Words{"WAN 口没有可用的 IP 地址：没拨上号或没有 DHCP。", "The WAN has no usable address: not dialled, or no DHCP."},
		Action:   Words{"看拨号结果和 VLAN；账号、VLAN 都对就报局方查 BRAS。", "Look at the dial result and the VLAN; if both are right, have the BRAS checked."},
		Explains: aboveAddress, NotIf: []string{"dns", "reachability"}, Shows: []string{"wan_addresses"},
	},
	{
		Code: AddrLinkLocal, Side: SideBRAS, OrSide: SideOLT, Severity: Critical, Certainty: 0.7,
		Title:    Words{"只有 169.254 地址", "Only a 169.254 address"},
		Means:    Words{"DHCP 没有应答，接口自己配了 169.254 地址，上不了网。", "DHCP did not answer and the interface gave itself a 169.254 address, which leads nowhere."},
		Action:   Words{"核对 VLAN 和接入方式（PPPoE/IPoE）；无误报局方查 DHCP。", "Check VLAN and access type (PPPoE or IPoE); if right, have DHCP checked."},
		Explains: []Code{AddrNone, "dns.", "reach.", "throughput.", "routed_internet."}, NotIf: []string{"reachability"}, Shows: []string{"wan_addresses"},
	},
	{
		Code: AddrNoDefaultRoute, Side: SideDevice, OrSide: SideBRAS, Severity: Critical, Certainty: 0.75,
		Title:    Words{"没有默认路由", "No default route"},
		Means:    Words{"有地址，但没有经 WAN 出去的默认路由。", "There is an address, but no default route through the WAN."},
		Action:   Words{"核对 WAN 配置（网关、默认路由开关），重新拨号一次。", "Check the WAN's configuration (gateway, default route), then dial again once."},
		Explains: aboveAddress, NotIf: []string{"reachability"}, Shows: []string{"default_route_v4", "default_route_v6", "gateways"},
	},
	{
		Code: AddrNoIPv6, Side: SideBRAS, Severity: Major, Certainty: 0.75,
		Title:  Words{"没有 IPv6 地址", "No IPv6 address"},
		Means:  Words{"业务需要 IPv6，但 WAN 没有可用的 IPv6 地址。", "The service needs IPv6, and the WAN has no usable IPv6 address."},
		Action: Words{"确认 WAN 开启了 IPv6；已开启则报局方查 IPv6 下发。", "Make sure that IPv6 is enabled on the WAN; then have the BRAS's IPv6 checked."},
		Shows:  []string{"wan_addresses"},
	},
	{
		Code: AddrPrivate, Side: SideBRAS, Severity: Minor, Certainty: 0.6,
		Title:  Words{"私网地址", "Private address"},
		Means:  Words{"WAN 分到私网或 100.64 地址（运营商 NAT），能上网，但不能从外面访问。", "The WAN has a private or 100.64 address (carrier NAT): the internet works, access from outside does not."},
		Action: Words{"一般不用处理；用户要公网地址时报局方。", "Usually nothing; if the customer needs a public address, ask the operator."},
		Shows:  []string{"wan_addresses", "ipv4_scope"},
	},
	{
		Code: AddrUnreadable, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"读不到 WAN 地址", "Addresses cannot be read"},
		Means:  Words{"系统没有给出 WAN 口的地址和路由。", "The system does not tell the WAN's addresses and routes."},
		Action: Words{"核对配置里的 WAN 口名；在页面上人工确认地址。", "Check the WAN's name in the configuration; look at the address by hand."},
		Shows:  []string{"wan_addresses"},
	},

	// Names.
	{
		Code: DNSNoResolver, Side: SideBRAS, OrSide: SideDevice, Severity: Critical, Certainty: 0.85,
		Title:  Words{"没有 DNS 服务器", "No DNS server"},
		Means:  Words{"拨号后没有下发 DNS，本机也没有配置。", "No DNS server came with the address, and none is set."},
		Action: Words{"把 WAN 的 DNS 改为自动获取并重拨；仍没有报局方。", "Set DNS to automatic and dial again; still none: report to the operator."},
		Shows:  []string{"resolvers"},
	},
	{
		Code: DNSNoAnswer, Side: SidePlatform, OrSide: SideBRAS, Severity: Major, Certainty: 0.75,
		Title:  Words{"DNS 无应答", "DNS does not answer"},
		Means:  Words{"所有 DNS 服务器都没有应答。", "None of the DNS servers answers."},
		Action: Words{"看连通性：能 ping 通外网就换一个 DNS 验证并报局方；都不通先查线路。", "Look at reachability: if the internet answers pings, try another resolver and report; if not, look at the line first."},
		With:   []Code{ReachTargetSilent}, Shows: []string{"dns_latency_ms", "resolvers"},
	},
	{
		Code: DNSServfail, Side: SidePlatform, Severity: Major, Certainty: 0.8,
		Title:  Words{"DNS 返回失败", "DNS answers with an error"},
		Means:  Words{"DNS 服务器有应答，但返回 SERVFAIL 或 REFUSED。", "The DNS servers answer, but with SERVFAIL or REFUSED."},
		Action: Words{"换另一个 DNS 验证，报局方查 DNS 平台。", "Try another resolver; have the DNS platform checked."},
		Shows:  []string{"dns_latency_ms"},
	},
	{
		Code: DNSWrongAnswer, Side: SidePlatform, Severity: Major, Certainty: 0.7,
		Title:  Words{"常用域名解析不出", "Well-known names do not resolve"},
		Means:  Words{"DNS 服务器有应答，但对常用域名没有给出地址。", "The DNS servers answer, but give no address for well-known names."},
		Action: Words{"换另一个 DNS 对比，报局方查 DNS 平台。", "Compare with another resolver; have the DNS platform checked."},
		Shows:  []string{"dns_latency_ms"},
	},
	{
		Code: DNSHijack, Side: SideBRAS, OrSide: SidePlatform, Severity: Major, Certainty: 0.8,
		Title:    Words{"DNS 劫持", "DNS is hijacked"},
		Means:    Words{"不管查什么域名都回同一个地址，多为欠费或未激活的重定向。", "Every name gets the same address, mostly a redirect for unpaid or inactive accounts."},
		Action:   Words{"核对账号缴费和激活状态；正常则报局方查 DNS。", "Check payment and activation; if fine, have DNS checked."},
		Explains: []Code{DNSWrongAnswer, DNSNXDomainRewritten, ReachTargetSilent, ReachNoReply}, With: []Code{ReachTargetSilent, ReachNoReply}, Shows: []string{"dns_latency_ms", "dns_invents_answers"},
	},
	{
		Code: DNSResolverDead, Side: SidePlatform, Severity: Minor, Certainty: 0.8,
		Title:  Words{"有一个 DNS 不可用", "One resolver does not work"},
		Means:  Words{"至少一个 DNS 正常，但另一个不应答或返回错误，打开网页会偶尔变慢。", "At least one resolver works, another does not: pages open slowly at times."},
		Action: Words{"记录不可用的 DNS 地址，报局方。", "Note the address and report it."},
		Shows:  []string{"dns_resolver_works"},
	},
	{
		Code: DNSNXDomainRewritten, Side: SidePlatform, Severity: Minor, Certainty: 0.7,
		Title:  Words{"DNS 改写不存在的域名", "DNS invents answers"},
		Means:  Words{"不存在的域名也返回地址（导航页劫持），正常域名不受影响。", "Names that do not exist get an address (a search page); real names are fine."},
		Action: Words{"不影响验收；用户投诉时报局方。", "No obstacle to acceptance; report it if the customer complains."},
		Shows:  []string{"dns_invents_answers"},
	},
	{
		Code: DNSSlow, Side: SidePlatform, Severity: Minor, Certainty: 0.6,
		Title:  Words{"DNS 应答慢", "DNS is slow"},
		Means:  Words{"DNS 能解析，但应答超过 500 毫秒。", "DNS answers, but slowly."},
		Action: Words{"复测一次；持续慢报局方。", "Test again; report it if it stays slow."},
		Shows:  []string{"dns_latency_ms"},
	},

	// Reachability.
	{
		Code: ReachNoReply, Side: SideBRAS, OrSide: SideOLT, Severity: Critical, Certainty: 0.75,
		Title:    Words{"外网全不通", "Nothing answers"},
		Means:    Words{"有地址、有路由，但网关和所有目标都不通。", "There is an address and a route, but neither the gateway nor any target answers."},
		Action:   Words{"重拨一次再测；仍不通报局方查 BRAS 和 OLT 业务流。", "Dial again once and test; still nothing: have BRAS and OLT checked."},
		Explains: []Code{DNSNoAnswer, "throughput.", "routed_internet."}, With: []Code{DNSNoAnswer}, NotIf: []string{"dns"}, Shows: []string{"gateway_loss_ratio", "target_loss_ratio"},
	},
	{
		Code: ReachTargetSilent, Side: SideBRAS, OrSide: SidePlatform, Severity: Major, Certainty: 0.7,
		Title:    Words{"网关通，外网不通", "Nothing beyond the gateway answers"},
		Means:    Words{"目标地址没有应答；网关能通时问题在 BRAS 以上，也可能是欠费限制。", "The targets do not answer; if the gateway does, the fault is beyond it, or the account is restricted."},
		Action:   Words{"核对账号状态；正常则报局方查 BRAS 上行和路由。", "Check the account's state; if fine, have the BRAS's uplink and routing checked."},
		Explains: []Code{DNSNoAnswer, "throughput.", "routed_internet."}, Shows: []string{"target_loss_ratio"},
	},
	{
		Code: ReachLoss, Side: SideBRAS, OrSide: SideDrop, Severity: Major, Certainty: 0.6,
		Title:    Words{"丢包", "Packet loss"},
		Means:    Words{"到最好的目标也有丢包，或测速时丢包。", "Even the best target loses packets, or packets are lost during the speed test."},
		Action:   Words{"先看光衰、误码和网线；都正常则换时段复测，报局方查拥塞。", "Look at light, errors and cable first; all fine: test at another hour and report congestion."},
		Explains: []Code{ThroughputBelow, ThroughputUnstable}, With: []Code{OpticalRxTooWeak, OpticalRxWeakMargin, OpticalBitErrors, PONPopup}, Shows: []string{"target_loss_ratio", "gateway_loss_ratio"},
	},
	{
		Code: ReachLatency, Side: SideBRAS, Severity: Major, Certainty: 0.5,
		Title:  Words{"时延过大", "High latency"},
		Means:  Words{"到最好的目标时延仍超过门限。", "Even the best target takes longer than the limit."},
		Action: Words{"停掉下载再测；仍大就换时段复测，报局方。", "Stop downloads and test again; still high: test at another hour and report."},
		Shows:  []string{"target_rtt_p50_ms", "gateway_rtt_p50_ms"},
	},
	{
		Code: ReachGatewaySilent, Side: SideBRAS, Severity: Info, Certainty: 0.6,
		Title:  Words{"网关不回 ping", "The gateway does not answer pings"},
		Means:  Words{"网关不应答 ICMP，很多 BRAS 就是这样设置的，单凭这点不能说线路有问题。", "The gateway does not answer ICMP. Many are set that way; it proves nothing by itself."},
		Action: Words{"配置一个会应答的测试目标，再测一次。", "Configure a target that answers and test again."},
		Shows:  []string{"gateway_loss_ratio"},
	},
	{
		Code: ReachMTUBlackHole, Side: SideCustomer, OrSide: SideBRAS, Severity: Major, Certainty: 0.75,
		Title:    Words{"大包不通（MTU）", "Large packets vanish (MTU)"},
		Means:    Words{"小网页能开、大页面卡住：MTU/MSS 不对。", "Small pages open, large ones stall: MTU or MSS is wrong."},
		Action:   Words{"WAN 的 MTU 设为 1492 并开启 MSS 钳制，再测。", "Set the WAN's MTU to 1492, clamp MSS, and test again."},
		Explains: []Code{ThroughputBelow, ThroughputUnstable}, Shows: []string{"path_mtu_bytes"},
	},

	// Speed.
	{
		Code: ThroughputBelow, Side: SideBRAS, OrSide: SideOLT, Severity: Major, Certainty: 0.5,
		Title:  Words{"速率不达标", "Speed below contract"},
		Means:  Words{"有线测速两次都达不到签约速率的要求（默认 90 %），而且网关、服务器和其他流量都解释不了。", "Two wired tests are below the required part of the contracted rate (90 % by default), and neither gateway nor server nor other traffic explains it."},
		Action: Words{"看光衰、网线和限速模板；都正常报局方。", "Look at light, cable and bandwidth template; all fine: report to the operator."},
		Shows:  []string{"throughput_down_mbps", "throughput_down_ratio", "throughput_up_mbps", "throughput_up_ratio"},
	},
	{
		Code: ThroughputUploadOnly, Side: SideDrop, OrSide: SideOLT, Severity: Major, Certainty: 0.6,
		Title:  Words{"只有上行慢", "Only upload is slow"},
		Means:  Words{"下行达标、上行很低：上行光或 OLT 带宽分配问题。", "Download is fine, upload is not: upstream light, or the OLT's bandwidth allocation."},
		Action: Words{"重插尾纤并清洁接头复测；仍慢报局方查 OLT 上行模板。", "Reseat and clean the fibre, test again; still slow: have the OLT's upstream profile checked."},
		With:   []Code{OpticalRxWeakMargin, OpticalBitErrors}, Shows: []string{"throughput_up_mbps", "throughput_up_ratio", "throughput_down_ratio"},
	},
	{
		Code: ThroughputCongestion, Side: SideOLT, OrSide: SidePlatform, Severity: Major, Certainty: 0.6,
		Title:    Words{"忙时拥塞", "Congestion at busy hours"},
		Means:    Words{"光路正常，晚高峰速率低，闲时正常。", "The line is fine, slow in the evening and fast off-peak."},
		Action:   Words{"闲时复测留证，报局方查 PON 口和上联带宽。", "Test off-peak as evidence; have PON port and uplink load checked."},
		Explains: []Code{ThroughputBelow, ReachLatency},
	},
	{
		Code: ThroughputBufferbloat, Side: SideBRAS, OrSide: SideDevice, Severity: Minor, Certainty: 0.6,
		Title:  Words{"满载时延大", "High latency under load"},
		Means:  Words{"空闲时延正常，一跑满带宽就变大：缓冲过深或限速方式问题。", "Latency is fine when idle and high under load: deep buffers or the shaper."},
		Action: Words{"记录空闲和满载时延，报局方；用户可开启智能限速。", "Note both latencies and report; queue management on the gateway may help."},
		Shows:  []string{"throughput_down_idle_ms", "throughput_down_loaded_ms", "throughput_up_loaded_ms"},
	},
	{
		Code: ThroughputDeviceCPU, Side: SideDevice, Severity: Info, Certainty: 0.85,
		Title:  Words{"网关 CPU 跑满，测速无效", "Gateway CPU is the limit"},
		Means:  Words{"测速时某个核已满，测到的是网关的极限，不是线路的。", "A core was saturated during the test: it measured the gateway, not the line."},
		Action: Words{"用电脑有线直连 LAN 口测速。", "Test with a computer wired to a LAN port."},
		Shows:  []string{"throughput_down_cpu_peak_ratio", "throughput_up_cpu_peak_ratio"},
	},
	{
		Code: ThroughputDeviceCeiling, Side: SideDevice, Severity: Info, Certainty: 0.85,
		Title:  Words{"设备上限低于签约速率", "The device cannot reach the contracted rate"},
		Means:  Words{"端口或芯片的上限就低于要证明的速率。", "Port or chip cannot do the rate that is to be proven."},
		Action: Words{"换更高规格的设备测试。", "Test with a faster device."},
		Shows:  []string{"throughput_down_ceiling_mbps"},
	},
	{
		Code: ThroughputServer, Side: SidePlatform, Severity: Info, Certainty: 0.7,
		Title:  Words{"测速服务器受限", "Speed-test server is the limit"},
		Means:  Words{"服务器忙或带宽不够。", "The server is busy or too slow."},
		Action: Words{"换一台测速服务器复测。", "Test again with another server."},
		Shows:  []string{"throughput_down_mbps", "throughput_up_mbps"},
	},
	{
		Code: ThroughputWindow, Side: SideDevice, Severity: Info, Certainty: 0.7,
		Title:  Words{"TCP 窗口受限", "TCP window is the limit"},
		Means:  Words{"窗口小于带宽时延积，跑不满。", "The window is smaller than bandwidth times delay."},
		Action: Words{"换近一点的服务器，或增加连接数复测。", "Use a nearer server or more connections."},
	},
	{
		Code: ThroughputCrossTraffic, Side: SideCustomer, Severity: Info, Certainty: 0.8,
		Title:  Words{"测速时有其他流量", "Other traffic during the test"},
		Means:  Words{"测速时用户还在用网，结果偏低。", "The customer was using the line, so the result is low."},
		Action: Words{"请用户暂停上网后复测。", "Ask the customer to pause and test again."},
		Shows:  []string{"throughput_down_cross_mbps", "throughput_up_cross_mbps"},
	},
	{
		Code: ThroughputUnstable, Side: SideUnknown, Severity: Info, Certainty: 0.6,
		Title:  Words{"测速不稳定", "Speed test is unstable"},
		Means:  Words{"测速过程波动大，不能作准。", "The rate varied too much to count."},
		Action: Words{"过几分钟复测；看光衰和丢包。", "Test again in some minutes; look at light and loss."},
		Shows:  []string{"throughput_down_spread", "throughput_up_spread"},
	},
	{
		Code: ThroughputShort, Side: SideDevice, Severity: Info, Certainty: 0.8,
		Title:  Words{"测速时间太短", "Speed test too short"},
		Means:  Words{"有效测速时间不够，或流量被工单上限截断。", "The test was too short, or cut by the order's byte limit."},
		Action: Words{"提高工单流量上限后复测。", "Raise the order's byte limit and test again."},
	},
	{
		Code: ThroughputLinkChanged, Side: SideDevice, Severity: Info, Certainty: 0.8,
		Title:  Words{"测速中链路有变化", "Link changed during the test"},
		Means:  Words{"测速中接口断过或重拨过。", "An interface dropped or redialled during the test."},
		Action: Words{"查掉线原因后复测。", "Find out why, then test again."},
	},
	{
		Code: ThroughputThermal, Side: SideDevice, Severity: Info, Certainty: 0.7,
		Title:  Words{"过热降频", "Thermal throttling"},
		Means:  Words{"设备过热降频，测速偏低。", "The device throttled because of heat."},
		Action: Words{"改善散热后复测。", "Improve cooling and test again."},
	},

	// Services beside the internet.
	{
		Code: IPTVVLAN, Side: SidePlatform, OrSide: SideOLT, Severity: Major, Certainty: 0.7,
		Title:    Words{"IPTV VLAN 不对", "IPTV VLAN"},
		Means:    Words{"上网正常、电视不通：VLAN 标签方式不对或没有下发。", "The internet works, TV does not: VLAN tagging is wrong or not provisioned."},
		Action:   Words{"核对 IPTV VLAN 和机顶盒口的 tag/untag，报局方查下发。", "Check the IPTV VLAN and tagging of the set-top box port; have provisioning checked."},
		Explains: []Code{IPTVNoStream}, Shows: []string{"iptv_outcome", "multicast_queriers"},
	},
	{
		Code: IPTVNoStream, Side: SidePlatform, OrSide: SideOLT, Severity: Major, Certainty: 0.6,
		Title:  Words{"收不到组播流", "No IPTV stream"},
		Means:  Words{"加入组播组后没有收到节目流。", "Joined, but no stream arrives."},
		Action: Words{"查 IGMP 和组播权限，报平台。", "Check IGMP and multicast rights; report to the platform."},
		Shows:  []string{"iptv_outcome"},
	},
	{
		Code: IPTVStreamBroken, Side: SideOLT, OrSide: SidePlatform, Severity: Major, Certainty: 0.7,
		Title:  Words{"电视流有丢包或中断", "TV stream with gaps"},
		Means:  Words{"频道能收到，但丢包或断流，画面会花屏、卡顿。", "The channel arrives, but with losses or interruptions: the picture freezes or breaks up."},
		Action: Words{"先看光衰和误码；正常就报局方查组播通道的丢包。", "Look at light and errors first; if they are fine, have losses on the multicast path checked."},
		Shows:  []string{"iptv_loss_ratio", "iptv_rate_mbps"},
	},
	{
		Code: VoiceNoAnswer, Side: SidePlatform, OrSide: SideOLT, Severity: Major, Certainty: 0.65,
		Title:    Words{"语音平台无应答", "Voice registrar does not answer"},
		Means:    Words{"语音通道上注册服务器没有应答：通道不通，或服务器故障。", "The registrar does not answer on the voice channel: the channel is broken, or the server is."},
		Action:   Words{"核对语音 VLAN、网关的语音地址和注册服务器地址；无误报平台。", "Check the voice VLAN, the gateway's voice address and the registrar's; if they are right, report to the platform."},
		Explains: []Code{VoiceNotRegistered}, Shows: []string{"sip_outcome"},
	},
	{
		Code: VoiceNotRegistered, Side: SidePlatform, Severity: Major, Certainty: 0.7,
		Title:  Words{"语音未注册", "Voice not registered"},
		Means:  Words{"SIP/H.248 账号没有注册成功。", "The SIP or H.248 account is not registered."},
		Action: Words{"核对语音账号和 VLAN，报平台查注册。", "Check voice account and VLAN; have registration checked."},
		Shows:  []string{"sip_answer"},
	},
	{
		Code: VoiceVLAN, Side: SidePlatform, OrSide: SideOLT, Severity: Major, Certainty: 0.7,
		Title:    Words{"语音 VLAN 不对", "Voice VLAN"},
		Means:    Words{"语音通道没有地址或不通。", "The voice channel has no address or no way out."},
		Action:   Words{"核对语音 VLAN 与工单，报局方查下发。", "Compare the voice VLAN with the order; have provisioning checked."},
		Explains: []Code{VoiceNotRegistered}, Shows: []string{"service_interface"},
	},
	{
		Code: ManagementUnreachable, Side: SidePlatform, OrSide: SideOLT, Severity: Major, Certainty: 0.7,
		Title:    Words{"连不上 ITMS/RMS", "Management platform unreachable"},
		Means:    Words{"管理通道不通，平台收不到设备上报。", "The management channel does not work; the platform hears nothing."},
		Action:   Words{"核对管理 VLAN 和 ACS 地址，报平台。", "Check management VLAN and ACS address; report to the platform."},
		Explains: []Code{ManagementNotBound}, Shows: []string{"acs_outcome", "service_interface"},
	},
	{
		Code: ManagementNotBound, Side: SidePlatform, Severity: Major, Certainty: 0.8,
		Title:  Words{"平台未绑定", "Not bound on the platform"},
		Means:  Words{"设备已上报，但平台没有与用户绑定。", "The device reports, but the platform has not bound it to the customer."},
		Action: Words{"请平台核对 LOID/SN 并绑定。", "Have LOID or SN checked and bound."},
	},
	{
		Code: RoutedInternetDown, Side: SideBRAS, OrSide: SidePlatform, Severity: Critical, Certainty: 0.6,
		Title:  Words{"专线/路由上网不通", "Routed internet down"},
		Means:  Words{"商务线路的路由模式不能上网。", "The business line's routed internet does not work."},
		Action: Words{"核对工单里的地址、网关和路由，报局方。", "Compare address, gateway and routes with the order; report to the operator."},
		Shows:  []string{"lan_addresses", "lan_probe", "wan_probe"},
	},
	{
		Code: RoutedForwardingOff, Side: SideDevice, Severity: Critical, Certainty: 0.9,
		Title:    Words{"网关没有打开转发", "Forwarding is off"},
		Means:    Words{"网关自己能上网，但内核的转发开关是关的，下挂设备上不了网。", "The gateway itself gets on, but its kernel forwards nothing: no device behind it does."},
		Action:   Words{"核对网关是不是路由模式，打开转发后重测。", "Check that the gateway is set to route, switch forwarding on, test again."},
		Explains: []Code{RoutedInternetDown}, Shows: []string{"forwarding_v4", "forwarding_v6"},
	},
	{
		Code: RoutedNoLANAddress, Side: SideDevice, OrSide: SidePlatform, Severity: Critical, Certainty: 0.9,
		Title:    Words{"LAN 侧没有地址", "No address on the LAN"},
		Means:    Words{"网关的 LAN 口没有地址或地址段，下挂设备没有网关可用。", "The gateway's LAN has no address or prefix: devices behind it have no gateway."},
		Action:   Words{"按工单配置 LAN 地址段，再测一次。", "Set the LAN's addresses as ordered, test again."},
		Explains: []Code{RoutedInternetDown}, Shows: []string{"lan_addresses"},
	},
	{
		Code: RoutedNoNAT, Side: SideDevice, Severity: Critical, Certainty: 0.85,
		Title:    Words{"没有做地址转换", "Addresses are not translated"},
		Means:    Words{"从 WAN 地址发包有回应，从 LAN 私网地址发包没有回应：网关没有做 NAT。", "Servers answer the WAN's address, but not a private one of the LAN: the gateway does no NAT."},
		Action:   Words{"核对网关 WAN 区域的地址伪装（masquerade）设置，再测一次。", "Check masquerading on the gateway's WAN zone, test again."},
		Explains: []Code{RoutedInternetDown}, Shows: []string{"lan_probe", "wan_probe", "lan_addresses"},
	},

	// The gateway.
	{
		Code: HostCPU, Side: SideDevice, Severity: Minor, Certainty: 0.8,
		Title:    Words{"CPU 占用过高", "CPU too busy"},
		Means:    Words{"网关 CPU 占用达不到小于 50 % 的要求。", "The gateway's CPU is not below its limit."},
		Action:   Words{"看是否有大流量或异常进程，重启后观察；仍高就升级或更换。", "Look for heavy traffic or a stray process; restart and watch; still high: upgrade or replace."},
		Explains: []Code{ThroughputDeviceCPU}, Shows: []string{"cpu_busy_ratio"},
	},
	{
		Code: HostMemory, Side: SideDevice, Severity: Minor, Certainty: 0.8,
		Title:  Words{"内存占用过高", "Memory nearly full"},
		Means:  Words{"网关内存占用达不到小于 60 % 的要求。", "The gateway's memory use is not below its limit."},
		Action: Words{"重启后观察；仍高就停掉不用的插件或升级固件。", "Restart and watch; still high: remove unused packages or upgrade."},
		Shows:  []string{"memory_used_ratio"},
	},
	{
		Code: HostTemperature, Side: SideDevice, OrSide: SideCustomer, Severity: Minor, Certainty: 0.8,
		Title:    Words{"设备过热", "Overheating"},
		Means:    Words{"网关温度超过上限，会降频或死机。", "The gateway is too hot: it will throttle or hang."},
		Action:   Words{"移到通风处，清灰，不要放在弱电箱里叠放。", "Move it to where air can flow, clean it, don't stack it in a closed box."},
		Explains: []Code{ThroughputThermal}, Shows: []string{"temperature_celsius"},
	},
	{
		Code: HostTraffic, Side: SidePlatform, OrSide: SideCustomer, Severity: Minor, Certainty: 0.7,
		Title:  Words{"带宽利用率过高", "Line nearly full"},
		Means:  Words{"带宽利用率达不到小于 70 % 的要求。", "Use of the line is not below 70 %."},
		Action: Words{"核对用户用量，建议提速或扩容。", "Look at the customer's use; offer a higher rate."},
	},
	{
		Code: HostUnreadable, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"读不到网关负载", "Load cannot be read"},
		Means:  Words{"读不到 CPU、内存或温度。", "CPU, memory or temperature cannot be read."},
		Action: Words{"查代理的权限和版本。", "Check the agent's rights and version."},
		Shows:  []string{"cpu_busy_ratio", "memory_used_ratio"},
	},

	// The agent itself.
	{
		Code: AgentNotSupported, Side: SideDevice, Severity: Info, Certainty: 0.95,
		Title:  Words{"本版本不支持此项", "Not supported by this agent"},
		Means:  Words{"工单要求的这一项，本机软件还不会测。", "The order asks for something that this agent cannot measure yet."},
		Action: Words{"按老办法人工测试并记录，或升级代理后重验。", "Test by hand and note it, or upgrade the agent and accept again."},
	},
	{
		Code: AgentInterrupted, Side: SideDevice, Severity: Info, Certainty: 0.95,
		Title:  Words{"验收被中断", "Interrupted"},
		Means:  Words{"验收没有做完：被取消、超时或断电。", "The ladder was cut short: cancelled, out of time, or power lost."},
		Action: Words{"重新发起一次验收。", "Start the acceptance again."},
	},
	{
		Code: AgentTimeout, Side: SideDevice, Severity: Info, Certainty: 0.8,
		Title:  Words{"测试超时", "Out of time"},
		Means:  Words{"这一步在限定时间内没有做完。", "This step was not done within its deadline."},
		Action: Words{"重测一次；还超时就把日志报给平台。", "Try again; if it happens again, report the log."},
	},
	{
		Code: AgentCannotMeasure, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"无法测量", "Could not measure"},
		Means:  Words{"缺权限、缺配置或系统不支持，这一步没有测成。", "Rights, configuration or the system are missing; this step could not be run."},
		Action: Words{"看这一步的日志，改配置后重测。", "See the step's log, correct the configuration, test again."},
	},
	{
		Code: AgentInternal, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"代理内部错误", "Internal error of the agent"},
		Means:  Words{"代理程序在这一步出错，与线路无关。", "The agent failed in this step; that says nothing about the line."},
		Action: Words{"重测一次，并把日志报给平台。", "Try again and report the log."},
	},
	{
		Code: ClockUntrusted, Side: SideDevice, Severity: Info, Certainty: 0.9,
		Title:  Words{"时钟不可信", "Clock cannot be trusted"},
		Means:  Words{"网关没有校时，记录里的时间不能作准（先后顺序仍可信）。", "The gateway's clock is not set; times in the record are not reliable (their order is)."},
		Action: Words{"上网后等待校时；需要准确时间的请重验。", "Wait until the clock is set; accept again if times matter."},
	},
	{
		Code: Unknown, Side: SideUnknown, Severity: Info, Certainty: 0,
		Title:  Words{"原因不明", "Unknown"},
		Means:  Words{"现有证据不足以判断原因。", "The evidence does not say why."},
		Action: Words{"补测没有测成的项目，或升级处理并附上记录。", "Measure what is missing, or escalate with the record."},
	},
}
