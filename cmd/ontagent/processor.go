package main

import (
	"context"
	"runtime"

	"ontagent/agent/probe/throughput"
)

// runSpeedTest runs a speed test with one processor for Go code. The kernel does
// the work, on all of them; a second one for the program would be woken for each
// piece of it to find nothing left to do.
func runSpeedTest(ctx context.Context, o throughput.Options) (throughput.Result, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	return throughput.Run(ctx, o)
}
