package diagnosis

import "strings"

// The families of keys that Text knows beside causes: Text(lang,
// "verdict.pass"). What follows the dot are the values that travel, in lower
// case.
const (
	KeyRung     = "rung."
	KeyVerdict  = "verdict."
	KeyJob      = "job."
	KeyReject   = "reject."
	KeySide     = "side."
	KeySeverity = "severity."
	KeyKind     = "kind."
	KeyStatus   = "status."
	KeyOrder    = "order."
	KeyAction   = "action."
	KeyLabel    = "label."
	KeyRecord   = "record."
	KeyRepaired = "repaired." // what a repair was worth
	KeyFault    = "fault."    // classes of faults
	keyCause    = "cause."
)

// Text returns the text for a key in lang: one of the families above, or a
// cause by its code ("cause.optical.no_light" for its title, with the suffix
// ":means" or ":action" for the rest). Of a key that it does not know it returns
// what follows the first dot, so that what is new can still be read.
func Text(lang Lang, key string) string {
	if w, ok := lookup(key); ok {
		return w.In(lang)
	}
	_, rest, ok := strings.Cut(key, ".")
	if !ok {
		return key
	}
	return rest
}

// Title returns the title of a cause, or the code itself if it is not known.
func Title(lang Lang, code Code) string { return Text(lang, keyCause+string(code)) }

// Means returns what a cause means, or "" if it is not known.
func Means(lang Lang, code Code) string {
	c, _ := Lookup(code)
	return c.Means.In(lang)
}

// Action returns what to do about a cause, or "" if it is not known.
func Action(lang Lang, code Code) string {
	c, _ := Lookup(code)
	return c.Action.In(lang)
}

func lookup(key string) (Words, bool) {
	if rest, ok := strings.CutPrefix(key, keyCause); ok {
		code, part, _ := strings.Cut(rest, ":")
		c, known := Lookup(Code(code))
		if !known {
			return Words{}, false
		}
		switch part {
		case "":
			return c.Title, true
		case "means":
			return c.Means, true
		case "action":
			return c.Action, true
		}
		return Words{}, false
	}
	for i := range words {
		if words[i].key == key {
			return words[i].text, true
		}
	}
	// Job states travel in upper case.
	if rest, ok := strings.CutPrefix(key, KeyJob); ok && rest != strings.ToLower(rest) {
		return lookup(KeyJob + strings.ToLower(rest))
	}
	return Words{}, false
}

// words is never written to.
var words = [...]struct {
	key  string
	text Words
}{
	{"rung.identity", Words{"资源准确", "identity"}},
	{"rung.optical", Words{"光衰", "optical power"}},
	{"rung.registration", Words{"光猫注册", "PON registration"}},
	{"rung.lan_cabling", Words{"网线布线", "LAN cabling"}},
	{"rung.dial", Words{"拨号", "dialling"}},
	{"rung.addressing", Words{"地址获取", "addressing"}},
	{"rung.dns", Words{"域名解析", "DNS"}},
	{"rung.reachability", Words{"连通性", "reachability"}},
	{"rung.account", Words{"3A 同步", "account (AAA)"}},
	{"rung.throughput", Words{"速率达标", "throughput"}},
	{"rung.iptv", Words{"IPTV", "IPTV"}},
	{"rung.voice", Words{"语音", "voice"}},
	{"rung.management", Words{"平台纳管", "management platform"}},
	{"rung.routed_internet", Words{"路由上网", "routed internet"}},
	{"rung.host", Words{"网关负载", "gateway load"}},

	{"verdict.pass", Words{"通过", "pass"}},
	{"verdict.fail", Words{"不通过", "fail"}},
	{"verdict.inconclusive", Words{"无法判定", "inconclusive"}},
	{"verdict.skipped", Words{"跳过", "skipped"}},
	{"verdict.measured", Words{"已测（无签约速率可比）", "measured; there is no contract to compare with"}},

	{"job.received", Words{"已收到", "received"}},
	{"job.accepted", Words{"已受理", "accepted"}},
	{"job.rejected", Words{"已拒绝", "rejected"}},
	{"job.challenge", Words{"等待授时确认", "waiting for a signed time"}},
	{"job.running", Words{"执行中", "running"}},
	{"job.succeeded", Words{"已完成", "done"}},
	{"job.failed", Words{"未能执行", "could not be run"}},
	{"job.timed_out", Words{"超时", "timed out"}},
	{"job.cancelled", Words{"已取消", "cancelled"}},
	{"job.interrupted", Words{"被中断", "interrupted"}},

	{"reject.unsigned", Words{"没有签名", "it is not signed"}},
	{"reject.bad_signature", Words{"签名不对，内容可能被改过", "the signature is wrong; the content may have been altered"}},
	{"reject.unknown_key", Words{"签名人不在工单或信任列表里", "the signer is neither in the order nor on the trust list"}},
	{"reject.revoked", Words{"签名密钥已吊销", "the signing key has been revoked"}},
	{"reject.untrusted_root", Words{"信任列表不是本运营商签发的", "the trust list is not signed by this operator"}},
	{"reject.not_enrolled", Words{"网关还没有配置运营商根密钥", "the gateway has no operator's root key yet"}},
	{"reject.trust_outdated", Words{"信任列表版本过旧", "the trust list is older than the one in use"}},
	{"reject.config_outdated", Words{"远程设置版本过旧", "the remote settings are older than those the gateway has seen"}},
	{"reject.malformed", Words{"格式错误", "it is malformed"}},
	{"reject.too_large", Words{"内容过大", "it is too large"}},
	{"reject.wrong_device", Words{"不是给这台设备的", "it is for another device"}},
	{"reject.wrong_tenant", Words{"不是本单位的工单", "it is for another tenant"}},
	{"reject.expired", Words{"已过有效期", "it has expired"}},
	{"reject.not_yet_valid", Words{"还没到生效时间", "it is not valid yet"}},
	{"reject.replayed", Words{"命令重复或计数器过旧", "the command was used before, or its counter is too low"}},
	{"reject.runs_used_up", Words{"工单允许的次数已用完", "all runs of the order are used up"}},
	{"reject.action_not_allowed", Words{"工单没有授权这个操作", "the order does not allow this action"}},
	{"reject.unknown_action", Words{"未知操作", "the action is unknown"}},
	{"reject.not_supported", Words{"本机不支持", "this agent does not support it"}},
	{"reject.order_closed", Words{"工单已关闭", "the order is closed"}},
	{"reject.order_superseded", Words{"工单已有新版本", "a newer revision of the order is in force"}},
	{"reject.order_revoked", Words{"工单已撤销", "the order has been revoked"}},
	{"reject.secrets_unreadable", Words{"工单里的密文解不开", "the order's sealed secrets cannot be opened"}},
	{"reject.clock_untrusted", Words{"网关时钟不可信，需要授时", "the gateway's clock cannot be trusted"}},
	{"reject.busy", Words{"正在执行别的任务", "another job is running"}},
	{"reject.internal", Words{"网关内部错误", "internal error of the gateway"}},

	{"side.customer", Words{"用户侧", "customer"}},
	{"side.drop", Words{"皮线光缆（分纤箱到户）", "drop cable"}},
	{"side.odn", Words{"ODN（分光器/主干）", "ODN (splitter, feeder)"}},
	{"side.olt", Words{"局方 OLT", "OLT"}},
	{"side.bras_aaa", Words{"局方 BRAS/3A", "BRAS/AAA"}},
	{"side.platform", Words{"平台/派单数据", "platform or order data"}},
	{"side.device", Words{"网关设备", "the gateway"}},
	{"side.unknown", Words{"未定", "not known"}},

	{"severity.critical", Words{"业务中断", "critical"}},
	{"severity.major", Words{"不达标", "major"}},
	{"severity.minor", Words{"隐患", "minor"}},
	{"severity.info", Words{"提示", "info"}},

	{"kind.fault", Words{"故障", "fault"}},
	{"kind.unclear", Words{"未能判定", "unclear"}},
	{"kind.warning", Words{"提醒", "warning"}},

	{"status.ok", Words{"正常", "ok"}},
	{"status.no_light", Words{"无光", "no light"}},
	{"status.unsupported", Words{"不支持", "unsupported"}},
	{"status.untrusted", Words{"不可信", "untrusted"}},
	{"status.error", Words{"读取失败", "could not be read"}},

	{"order.install", Words{"装机", "install"}},
	{"order.move", Words{"移机", "move"}},
	{"order.repair", Words{"修机", "repair"}},
	{"order.inspect", Words{"巡检", "inspection"}},
	{"order.other", Words{"其他", "other"}},

	{"action.accept", Words{"验收", "acceptance"}},
	{"action.diagnose", Words{"诊断", "diagnosis"}},
	{"action.provision", Words{"开通配置", "provisioning"}},
	{"action.repair", Words{"修复", "repair"}},
	{"action.inspect", Words{"巡检", "inspection"}},
	{"action.close", Words{"关闭工单", "closing the order"}},
	{"action.cancel", Words{"取消", "cancelling"}},

	{"label.order", Words{"工单", "order"}},
	{"label.device", Words{"设备", "device"}},
	{"label.technician", Words{"装维人员", "technician"}},
	{"label.verdict", Words{"结论", "verdict"}},
	{"label.cause", Words{"原因", "cause"}},
	{"label.confidence", Words{"把握", "confidence"}},
	{"label.side", Words{"责任侧", "side"}},
	{"label.action", Words{"下一步", "next action"}},
	{"label.for", Words{"依据", "evidence for"}},
	{"label.against", Words{"反证", "evidence against"}},
	{"label.consequences", Words{"连带现象", "consequences"}},
	{"label.limit", Words{"门限", "limit"}},
	{"label.origin", Words{"门限来源", "origin of the limit"}},
	{"label.measured", Words{"实测", "measured"}},
	{"label.conditions", Words{"测试条件", "conditions"}},
	{"label.required", Words{"必测", "required"}},
	{"label.optional", Words{"参考", "for information"}},
	{"label.skipped_for", Words{"因前项未通过", "because of"}},
	{"label.record", Words{"验收记录", "acceptance record"}},
	{"label.receipt", Words{"客户回执", "receipt"}},
	{"label.duration", Words{"用时", "duration"}},
	{"label.reason", Words{"理由", "reason"}},
	{"label.altered", Words{"被改动的部分", "altered"}},
	{"label.closed", Words{"出具时间", "closed"}},
	{"label.down", Words{"下行", "down"}},
	{"label.up", Words{"上行", "up"}},
	{"label.latency", Words{"时延", "latency"}},
	{"label.idle", Words{"空闲", "idle"}},
	{"label.loaded", Words{"满载", "loaded"}},
	{"label.cross_traffic", Words{"其他流量", "cross-traffic"}},
	{"label.port", Words{"端口上限", "port carries"}},
	{"label.limited_by", Words{"受限于", "limited by"}},
	{"label.the_line", Words{"线路", "the line"}},
	{"label.runs", Words{"各次结果", "runs"}},
	{"label.error", Words{"错误", "error"}},
	{"label.seconds_left", Words{"约剩 %.0f 秒", "about %.0f s left"}},
	{"label.recent", Words{"最近的变化", "what changed lately"}},
	{"label.recent_none", Words{"最近没有变化", "nothing changed lately"}},
	{"label.fault", Words{"障碍", "fault"}},
	{"label.baseline", Words{"基线", "baseline"}},
	{"label.undated", Words{"时间未知", "undated"}},
	{"label.next_inspection", Words{"下次巡检", "next inspection"}},
	{"fault.line", Words{"线路故障", "line fault"}},
	{"fault.network", Words{"网络故障", "network fault"}},
	{"label.filed", Words{"验收记录已存入", "record filed as"}},

	{"action.redial", Words{"重新拨号", "redial"}},
	{"action.renew", Words{"重新获取地址", "renewing the lease"}},
	{"action.restart_interface", Words{"重启接口", "restarting the interface"}},
	{"action.reread_module", Words{"重读光模块", "reading the optical module again"}},
	{"repaired.helped", Words{"有效，故障已消除或减轻", "it helped"}},
	{"repaired.useless", Words{"无效，故障依旧", "it was useless: the fault is still there"}},
	{"repaired.worse", Words{"线路反而更差", "the line is worse than before"}},
	{"repaired.unclear", Words{"无法判定效果", "whether it helped cannot be told"}},
	{"repaired.not_needed", Words{"线路正常，无需修复", "nothing to repair: the line is fine"}},
	{"repaired.no_action", Words{"网关自身无法消除该故障，未做任何操作", "nothing that the gateway could do would end this; nothing was done"}},
	{"repaired.not_done", Words{"本机无法执行该操作，未做任何改动", "the gateway cannot do it; nothing was changed"}},
	{"repaired.no_consent", Words{"线路上有用户业务，工单没有用户同意中断的授权，未做任何操作", "not done: the line carries traffic, and the order has no consent to interrupt it"}},
	{"repaired.limited", Words{"近期修复次数已达上限，未做任何操作", "not done: so many were done lately"}},
	{"repaired.busy", Words{"正在进行另一次修复", "not done: another repair is running"}},
	{"label.repair", Words{"修复", "repair"}},
	{"label.undone", Words{"已还原", "put back"}},

	{"record.valid", Words{"有效：内容未改动，签名可追溯到运营商根密钥", "valid: intact, and vouched for up to the operator's root key"}},
	{"record.signer_unknown", Words{"内容未改动，但签名人无法追溯到根密钥", "intact, signer unknown: the chain does not reach the root key"}},
	{"record.altered", Words{"无效：内容被改动过", "altered: this is not what the gateway signed"}},
	{"record.unreadable", Words{"无法读取：不是完整的验收记录", "unreadable: not a record, or only a part of one"}},
}
