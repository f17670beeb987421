package play

import (
	"context"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/scenario"
)

// applyService makes one of the operator's servers what the settings say. Of
// two faults of one server the graver counts.
func (l *Lab) applyService(ctx context.Context, fault string) error {
	switch fault {
	case "ntp_dead":
		if l.on(fault) {
			l.ntp.Dead()
		} else {
			l.ntp.Healthy()
		}
		return nil
	case "acs_down", "acs_refuses":
		switch {
		case l.acs == nil:
			return errNotHere("ACS")
		case l.on("acs_down"):
			return l.acs.Drop(ctx)
		case l.on("acs_refuses"):
			return l.acs.Down()
		}
		return l.acs.Healthy(ctx)
	case "multicast_missing", "multicast_lossy":
		lossy, on := l.latest("multicast_lossy")
		switch {
		case l.multicast == nil:
			return errNotHere("multicast source")
		case l.on("multicast_missing"):
			l.multicast.Missing()
		case on:
			return l.multicast.Lossy(lossy.LossRatio)
		default:
			l.multicast.Healthy()
		}
		return nil
	case "no_querier":
		if l.multicast == nil {
			return errNotHere("querier")
		}
		return l.ask(l.vlans[scenario.IPTV])
	case "sip_reject", "sip_silent":
		reject, on := l.latest("sip_reject")
		switch {
		case l.sip == nil:
			return errNotHere("SIP registrar")
		case l.on("sip_silent"):
			l.sip.Silent()
		case on:
			return l.sip.Reject(reject.Code, reject.Reason)
		default:
			l.sip.Healthy()
		}
		return nil
	}
	// broker_down is left.
	if l.on(fault) {
		return l.broker.Silent()
	}
	return l.broker.Healthy(ctx)
}

// ask makes olt's bridge of a VLAN ask who wants multicast, or lets nobody ask.
func (l *Lab) ask(vlan uint16) error {
	bridge := bridgeOf(vlan)
	if l.on("no_querier") {
		return isp.StopQuerier(l.olt, bridge)
	}
	s, _ := l.sc.Service(scenario.IPTV)
	if err := isp.SetMulticastVersion(l.olt, bridge, s.IGMP); err != nil {
		return err
	}
	return isp.SetQuerier(l.olt, bridge, quickQuerier())
}
