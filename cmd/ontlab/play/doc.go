// Package play builds the lab that a scenario describes, out of hosts (netbox),
// an operator's servers (isp), a simulated ONT (ontsim) and the real programs
// ontagent and ontctl; lets the scenario's faults come and go; has a technician
// run the visit; and says what came of it.
//
// The hosts, and what lies between them:
//
//	home ─ lan1 ┐                                             ┌ core: DNS, NTP, HTTP, targets
//	 pc  ─ lan2 ┤ gateway ─ wan0 ─ ont ─ pon0 ─ olt ─┬─ bras ─┘
//	 stb ─ lan3 ┘ ontagent       shaping   one bridge ├─ iptv   multicast source
//	                                       per VLAN   ├─ voice  registrar, DHCP
//	                                                  └─ mgmt   ACS, broker, DHCP
//
// Services share the cable between gateway and olt by their VLANs. Upstream is
// shaped by ont, downstream by olt. Without a management service the broker is
// on core, and reached as the rest of the internet.
package play
