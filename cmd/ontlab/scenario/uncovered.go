package scenario

import (
	"ontagent/agent/diagnosis"
)

// uncovered says of each code that no scenario of ours expects why that is so.
func uncovered() map[diagnosis.Code]string {
	const (
		console   = "no console that the agent reads tells what the OLT made of a LOID or a password; tests of the registration rung have every answer"
		inspector = "what only an inspection or telemetry over days can tell: no visit comes to it"
		elsewhere = "nothing that this gateway can measure tells it: it comes with what others know of the line"
		programs  = "only an error of the agent's own comes to it; tests of the runner make those"
	)
	why := map[diagnosis.Code]string{
		diagnosis.OpticalBaselineDrop:     "needs a baseline of an earlier visit: a scenario is one visit; tests of the optical rung and of the diagnosis have it",
		diagnosis.OpticalSplitterWeak:     "the technician measures at the splitter box and writes it into the receipt, after the visit",
		diagnosis.PONAuthRejected:         console,
		diagnosis.PONLOIDUnknown:          console,
		diagnosis.PONLOIDPassword:         console,
		diagnosis.PONLOIDDuplicate:        console,
		diagnosis.PONDyingGasp:            inspector,
		diagnosis.LANCRCErrors:            "a virtual cable makes no errors; tests of the lan_cabling rung count some",
		diagnosis.WiFiSlow:                elsewhere,
		diagnosis.DialDropped:             inspector,
		diagnosis.AddrLinkLocal:           "udhcpc, which the lab's gateway asks with, takes no address by itself; tests of the addressing rung have it",
		diagnosis.AddrNoIPv6:              "an order cannot demand IPv6: a line with IPv4 passes",
		diagnosis.AddrUnreadable:          "the kernel of a lab always tells; tests of the addressing rung have one that does not",
		diagnosis.ThroughputCongestion:    "needs a measurement at another hour: a scenario is one visit",
		diagnosis.ThroughputDeviceCeiling: "contracts of a lab have at most 50 Mbit/s, and a virtual port claims 10000; tests of the throughput rung have slower ports",
		diagnosis.ThroughputThermal:       elsewhere,
		diagnosis.ManagementNotBound:      elsewhere,
		diagnosis.RoutedInternetDown:      "where nothing answers at all the cause is below it, and explains it; tests of the routed_internet rung have it alone",
		diagnosis.RoutedNoLANAddress:      "the technician of a lab comes in by that address; tests of the routed_internet rung have a LAN without one",
		diagnosis.HostTraffic:             inspector,
		diagnosis.HostUnreadable:          "the kernel of a lab always tells; tests of the host rung have one that does not",
		diagnosis.AgentNotSupported:       "every rung of the ladder is built; tests of the runner have an order that asks for more",
		diagnosis.AgentInterrupted:        "a scenario's visit is not cut short; TestKilledAtEveryRung does that at every rung",
		diagnosis.AgentTimeout:            programs,
		diagnosis.AgentInternal:           programs,
		diagnosis.ClockUntrusted:          "a lab's gateway has the machine's clock; tests of visits have one without",
		diagnosis.Unknown:                 "an answer of last resort: a scenario that expected it would expect ignorance",
	}
	return why
}
