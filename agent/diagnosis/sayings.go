package diagnosis

import "strings"

// The layers of a line, from below. What is wrong with one shows in those
// above it.
const (
	layerPower uint8 = iota
	layerLight
	layerPON
	layerLink
	layerWAN
	layerHouse // the cable in the house: stands by itself
)

// saying is what a value of a property means.
type saying struct {
	group, name string
	value       string // anyValue: any other; rising: a counter's
	code        Code   // "": all is well
	layer       uint8
	worst       uint8 // place of the code in its layer, the gravest first
}

const (
	anyValue = "*"
	// rising stands for any value of a counter of errors, which never falls.
	rising = "+"
)

// fairLight is the worst of light that can't bring a line down by itself: from
// there on it explains nothing.
const fairLight = 5

// sayings are the values of events that mean something. It is never written to.
var sayings = [...]saying{
	{"optics", "rx_power_status", "ok", "", layerLight, 0},
	{"optics", "rx_power_status", "no_light", OpticalNoLight, layerLight, 0},
	{"optics", "rx_power_status", "untrusted", OpticalReadBroken, layerLight, 8},
	{"optics", "rx_power_status", "error", OpticalUnreadable, layerLight, 8},
	{"optics", "rx_power_status", "unsupported", OpticalUnreadable, layerLight, 8},
	{"optics", "rx_level", "normal", "", layerLight, 0},
	{"optics", "rx_level", "low", OpticalRxTooWeak, layerLight, 1},
	{"optics", "rx_level", "high", OpticalRxOverload, layerLight, 1},
	{"optics", "rx_power", anyValue, OpticalBaselineDrop, layerLight, 3},
	{"optics", "rx_baseline", "fallen", OpticalBaselineDrop, layerLight, 3},
	{"optics", "rx_baseline", anyValue, "", layerLight, 3},
	{"optics", "rx_trend", "falling", OpticalBaselineDrop, layerLight, 3},
	{"optics", "rx_trend", anyValue, "", layerLight, 3},
	{"optics", "rx_low", "active", OpticalRxWeakMargin, layerLight, fairLight},
	{"optics", "rx_low", anyValue, "", layerLight, fairLight},
	{"optics", "rx_high", "active", OpticalRxNearOverload, layerLight, fairLight},
	{"optics", "rx_high", anyValue, "", layerLight, fairLight},
	{"optics", "laser", "ageing", OpticalLaserAgeing, layerLight, 7},
	{"optics", "laser", anyValue, "", layerLight, 7},
	{"optics", "cross_check", "disagree", OpticalSourcesDisagree, layerLight, 8},
	{"optics", "cross_check", anyValue, "", layerLight, 8},
	{"pon", "state", "operational", "", layerPON, 0},
	{"pon", "state", "los", PONLOS, layerPON, 0},
	{"pon", "state", "stopped", PONStoppedByOLT, layerPON, 0},
	{"pon", "state", "searching", PONNotProvisionedSN, layerPON, 1},
	{"pon", "state", "serial", PONNotProvisionedSN, layerPON, 1},
	{"pon", "state", "ranging", PONRangingFailed, layerPON, 1},
	{"pon", "state", "popup", PONPopup, layerPON, 1},
	{"pon", "omci_provisioned", "yes", "", layerPON, 3},
	{"pon", "omci_provisioned", "no", PONFakeO5, layerPON, 3},
	{"pon", "loid_status", "2", PONLOIDUnknown, layerPON, 0}, // as in the attribute of CTC
	{"pon", "loid_status", "3", PONLOIDPassword, layerPON, 0},
	{"pon", "loid_status", "4", PONLOIDDuplicate, layerPON, 0},
	{"pon", "loid_status", anyValue, "", layerPON, 0},
	{"pon", "alarm_los", "active", PONLOS, layerPON, 0},
	{"pon", "alarm_los", anyValue, "", layerPON, 0},
	{"pon", "alarm_lof", "active", PONNoSync, layerPON, 2},
	{"pon", "alarm_lof", anyValue, "", layerPON, 2},
	{"pon", "alarm_sf", "active", OpticalBitErrors, layerLight, 4},
	{"pon", "alarm_sf", anyValue, "", layerLight, 4},
	{"pon", "alarm_sd", "active", OpticalBitErrors, layerLight, 4},
	{"pon", "alarm_sd", anyValue, "", layerLight, 4},
	{"pon", "alarm_dying_gasp", "active", PONDyingGasp, layerPower, 0},
	{"pon", "alarm_dying_gasp", anyValue, "", layerPower, 0},
	{"pon", "alarm_tx_too_long", "active", OpticalLaserStuckOn, layerPON, 0},
	{"pon", "alarm_tx_too_long", anyValue, "", layerPON, 0},
	{"pon", "fec_uncorrected", rising, OpticalBitErrors, layerLight, 4},
	{"pon", "bip", rising, OpticalBitErrors, layerLight, 4},
	{"pon", "lods_events", rising, PONPopup, layerPON, 2},
	{"pon", "sd_too_long", rising, OpticalLaserStuckOn, layerPON, 0},
	{"pon", "sd_mismatch", rising, OpticalLaserStuckOn, layerPON, 0},
	{"link", "rx_crc_errors", rising, LANCRCErrors, layerHouse, 0},
	{"link", "carrier", "up", "", layerLink, 0},
	{"link", "carrier", "present", "", layerLink, 0},
	{"link", "carrier", "down", Unknown, layerLink, 0},
	{"link", "carrier", "absent", Unknown, layerLink, 0},
	{"wan", "address", "", AddrNone, layerWAN, 0},
	{"wan", "address", anyValue, "", layerWAN, 0},
	{"wan", "default_route", "", AddrNoDefaultRoute, layerWAN, 1},
	{"wan", "default_route", anyValue, "", layerWAN, 1},
	{"wan", "default_route_v6", "", AddrNoIPv6, layerWAN, 2},
	{"wan", "default_route_v6", anyValue, "", layerWAN, 2},
}

// means finds what a value of a happening's property means; nil: nothing.
func means(h *Happening, property, value string) *saying {
	for i := range sayings {
		s := &sayings[i]
		if s.name == property && (s.value == value || s.value == anyValue || s.value == rising) && s.group == h.Group {
			return s
		}
	}
	return nil
}

// property is what a happening's name is called in the table. The addresses of
// IPv6 are in none: they come and go by design.
func property(h *Happening) string {
	name := h.Name
	switch {
	case h.Group == "wan" && (strings.Contains(h.Before, ":") || strings.Contains(h.After, ":")):
		return name + "_v6"
	case name == "presence" || name == "admin_state":
		return "carrier" // a link that is not there has none, and one that comes has one or tells it later
	case h.Group == "optics" && (strings.HasPrefix(name, "limit_") || strings.Contains(name, "_rx_")) && !strings.Contains(name, "tx"):
		if strings.HasSuffix(name, "_low") {
			return "rx_low"
		}
		return "rx_high"
	}
	return name
}
