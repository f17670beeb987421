// Package accesstest tries the access side of package isp with real clients:
// pppd, udhcpc and dhcpcd against the BRAS, its AAA, and the DHCP servers. That
// needs PPP and VLANs in the kernel, so it happens in a guest, which boots once
// for all tests. It is tests only.
package accesstest
