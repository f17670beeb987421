package speed

import (
	"context"
	"errors"

	"ontagent/agent/probe/throughput"
)

// memory holds a run's memory against that of the same program while it waits
// for the answers of a ping.
func (m *lab) memory(ctx context.Context) error {
	if err := m.shape(costRate, 0); err != nil {
		return err
	}
	idle, err := runOn(ctx, m.client, nil, m.o.Agent, "probe", "ping", "--target", serverAddr, "--count", "20", "--json")
	if err != nil {
		return err
	}
	if err := idle.failed("ontagent probe ping", 0); err != nil {
		return err
	}
	found := memoryCost{Idle: idle.Memory}
	for _, d := range directions() {
		o, err := m.agent(ctx, nil, d, contractNone)
		if err != nil {
			return err
		}
		if o.tcpMbps(d) == 0 {
			return errors.New("nothing was measured: " + o.rate(d).Reason)
		}
		if d == throughput.Down {
			found.Down = o.Memory
		} else {
			found.Up = o.Memory
		}
	}
	m.say("memory: idle %+v, down %+v, up %+v KiB", found.Idle, found.Down, found.Up)
	m.found.Memory = &found
	return nil
}
