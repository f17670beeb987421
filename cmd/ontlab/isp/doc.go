// Package isp is an operator's side of a lab: the servers that an access
// network and its core have, each started on a [netbox.Host].
//
// They are Debian's programs wherever Debian has one that does it: pppoe-server
// and pppd as the broadband remote access server (BRAS), FreeRADIUS as its AAA,
// dnsmasq for DHCPv4 and router advertisements, Kea for prefix delegation.
// What none of them can do on demand, such as a PADO that comes late, an error
// tag, an AAA that loses every second answer, is done by small responders and
// relays in between, which pass on verbatim all that they are not asked to
// spoil. So a fault is exact and reversible, and between two faults a client
// talks to the real program.
//
// Each server is started by StartX(ctx, host, XOptions), which returns when
// the server answers. ctx bounds the start; the server lives until its Stop, or
// until its host's box is closed. Methods turn faults on and off while it runs;
// they are safe for concurrent use. Configuration and logs are files below the
// host's own directory, or in its private /etc/ppp; nothing of the machine is
// touched. The package knows neither scenarios nor what is judged by them.
package isp
