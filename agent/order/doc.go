// Package order decides what this gateway may be asked to do, and by whom.
//
// Authority runs from the operator's offline root key, which configuration
// pins, to a versioned trust list that the root signs, to the keys that list
// names: operators sign work orders and device statements, technicians named
// by an order sign commands, time keys sign the time for gateways whose clock
// cannot be trusted. All of them travel as DSSE envelopes over exact bytes with
// one Ed25519 signature; there is no choice of algorithm.
//
// Authority.Verify checks signatures and meaning without changing anything;
// Authority.Admit checks freshness and uses up a counter and a run, on disk,
// before it returns. The package runs nothing: agent/job does, with the Grant.
package order
