package host

import (
	"context"
	"time"
)

// SetWait replaces how Read passes time.
func (c *Collector) SetWait(f func(ctx context.Context, d time.Duration) error) { c.wait = f }
