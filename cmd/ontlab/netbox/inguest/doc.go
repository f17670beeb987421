// Package inguest is the tests of netbox for which the running kernel may lack
// what they need: VLANs, shaping, delay, PPP. They run in the lab's guest.
package inguest
