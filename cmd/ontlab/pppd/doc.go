// Package pppd holds the gateway's own PPPoE client (agent/probe/pppoe) against
// pppd: both dial the same pppoe-server, one after the other, and must conclude
// the same. It runs in the guest of cmd/ontlab/vm, for the kernel's PPP and
// VLANs.
//
// There is nothing but tests here.
package pppd
