package play

import (
	"context"
	"fmt"
	"slices"

	"ontagent/cmd/ontlab/ontsim"
	"ontagent/cmd/ontlab/scenario"
)

// Fault makes a fault come. One that is there already changes its parameters.
func (l *Lab) Fault(ctx context.Context, name string, p scenario.Params) error {
	if err := l.set(ctx, name, true, p); err != nil {
		return fmt.Errorf("cannot play fault %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.active, name) {
		l.active = append(l.active, name)
	}
	return nil
}

// Clear makes a fault go, or all of them.
func (l *Lab) Clear(ctx context.Context, name string) error {
	l.mu.Lock()
	names := slices.Clone(l.active)
	l.mu.Unlock()
	if name != "all" {
		names = []string{name}
	}
	for _, n := range names {
		if err := l.set(ctx, n, false, scenario.Params{}); err != nil {
			return fmt.Errorf("cannot clear fault %s: %w", n, err)
		}
		l.mu.Lock()
		l.active = slices.DeleteFunc(l.active, func(a string) bool { return a == n })
		l.mu.Unlock()
	}
	return nil
}

func (l *Lab) set(ctx context.Context, name string, on bool, p scenario.Params) error {
	switch name {
	case "no_pado":
		l.brasd.Silence(on)
		return nil
	}
	_ = p
	return fmt.Errorf("this lab has no fault %q", name)
}

// consoleModes are the habits of the console that a scenario names.
func consoleModes(habits []string) ontsim.Mode { return 0 }
