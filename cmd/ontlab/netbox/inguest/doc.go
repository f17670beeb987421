// Package inguest is the tests of netbox, and of what reads such a network, for
// which the running kernel may lack what they need: VLANs, shaping, delay, PPP,
// flowtables. They run in the lab's guest.
package inguest
