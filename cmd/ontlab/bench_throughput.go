package main

import (
	"context"
	"errors"
	"fmt"

	"ontagent/cmd/ontlab/speed"
)

// benchThroughputVerb measures the gateway's speed test, and is by what it runs
// itself in the lab.
const benchThroughputVerb = "bench-throughput"

func (a *app) benchThroughput(ctx context.Context, args []string) int {
	b := &speed.Bench{Self: []string{benchThroughputVerb}, Out: a.out, Err: a.err}
	code, err := b.Main(ctx, args)
	if errors.Is(err, speed.ErrUsage) {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return a.exit(err)
	}
	return code
}
