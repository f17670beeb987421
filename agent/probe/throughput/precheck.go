package throughput

import (
	"context"
	"fmt"
	"time"
)

const (
	// quietTime is how long a line is looked at before it is loaded.
	quietTime = 800 * time.Millisecond
	// quietMbps and quietRatio, of the contract, are what others may have of a
	// line that counts as quiet: the larger of them.
	quietMbps  = 1
	quietRatio = 0.02
)

// busyError says that others use the line.
type busyError struct{ down, up float64 }

func (e busyError) Error() string {
	return fmt.Sprintf("others use the line (%.1f Mbit/s down, %.1f up), and nobody agreed to a test meanwhile", e.down, e.up)
}

// quiet waits until a line is quiet, up to a time, and returns a busyError if it
// is not.
func (o *Options) quiet(ctx context.Context, l lines) error {
	if !l.known() {
		return nil
	}
	till := time.Now().Add(o.Patience)
	before, err := l.now(ctx)
	for told := false; err == nil; {
		timer := time.NewTimer(quietTime)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		var now moment
		if now, err = l.now(ctx); err != nil {
			break
		}
		d := now.at.Sub(before.at)
		busy := busyError{down: rateMbps(traffic(&before, &now, true), d), up: rateMbps(traffic(&before, &now, false), d)}
		before = now
		switch {
		case busy.down <= max(quietMbps, quietRatio*o.ContractDownMbps) && busy.up <= max(quietMbps, quietRatio*o.ContractUpMbps):
			return nil
		case o.MayDisturb:
			o.Note(fmt.Sprintf("others use the line (%.1f Mbit/s down, %.1f up); the test was agreed to", busy.down, busy.up))
			return nil
		case !now.at.Before(till):
			return busy
		case !told:
			told = true
			o.Note(fmt.Sprintf("others use the line (%.1f Mbit/s down, %.1f up): waiting up to %v", busy.down, busy.up, o.Patience))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("cannot read the interface: %w", err)
}
