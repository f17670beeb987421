package steps

import (
	"context"
	"errors"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// Channel is the gateway's own connection for one service beside the internet.
type Channel struct {
	Interface string // "": as the routes say
	// HasAddress says whether it has an address that a server can answer to.
	HasAddress bool
}

// ErrNoChannel is found by errors.Is where the gateway has no interface for a
// service.
var ErrNoChannel = errors.New("the gateway has no interface for this service")

// ChannelReader finds the interface of a service.
type ChannelReader func(ctx context.Context) (Channel, error)

// readChannel decides out, and returns false, where there is no channel to try
// anything on. noAddress is the cause if it has no address.
func readChannel(ctx context.Context, read ChannelReader, out *acceptance.Outcome, noAddress diagnosis.Code) (Channel, bool) {
	if read == nil {
		return Channel{}, true
	}
	c, err := read(ctx)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, out)
		return c, false
	case err != nil:
		decide(out, acceptance.Inconclusive, err.Error(), diagnosis.AgentCannotMeasure)
		return c, false
	case !c.HasAddress && c.Interface == "":
		decide(out, acceptance.Inconclusive, ErrNoChannel.Error(), diagnosis.AgentCannotMeasure)
		return c, false
	case !c.HasAddress:
		measured(out, "service_interface", c.Interface, "netlink", "has no address")
		decide(out, acceptance.Fail, c.Interface+" has no address: nobody gave one out on this VLAN", noAddress)
		return c, false
	}
	measured(out, "service_interface", c.Interface, "netlink", "")
	return c, true
}

// slack is what a deadline has beyond what a probe may take by itself: on a
// gateway that is busy all of it takes longer, and what comes late came.
const slack = 5 * time.Second
