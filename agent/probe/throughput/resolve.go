package throughput

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// resolveTimeout bounds the wait for a name's addresses.
const resolveTimeout = 5 * time.Second

// lookUp asks the system's resolver.
func lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// addresses are where a place may be reached, in the resolver's order.
func (o *Options) addresses(ctx context.Context, p *place) ([]netip.AddrPort, error) {
	if a := p.literal(); a.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(a, p.port)}, nil
	}
	asking, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	all, err := o.Resolve(asking, p.host)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case len(all) > 0:
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("cannot resolve %s: no answer within %v", p.host, resolveTimeout)
	case err != nil:
		if d, ok := errors.AsType[*net.DNSError](err); ok && d.IsNotFound {
			return nil, fmt.Errorf("cannot resolve %s: there is no such name", p.host)
		}
		return nil, fmt.Errorf("cannot resolve %s: %w", p.host, err)
	default:
		return nil, fmt.Errorf("cannot resolve %s: it has no address", p.host)
	}
	to := make([]netip.AddrPort, 0, maxAddresses)
	for _, a := range all[:min(len(all), maxAddresses)] {
		to = append(to, netip.AddrPortFrom(a.Unmap(), p.port))
	}
	return to, nil
}
