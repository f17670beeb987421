// Package powercut cuts the power of a gateway's spool on real file systems: a
// loop-mounted ext4 image whose state on the device is copied at random
// moments, and UBIFS on simulated NAND inside the guest of cmd/ontlab/vm, with
// the kernel's own emulation of power cuts. Afterwards the kernel recovers the
// file system, and what was acknowledged must be there.
//
// There is nothing but tests here. What is played, and what is held, is in
// gateway_test.go; peers get the same cuts in peers_test.go.
package powercut
