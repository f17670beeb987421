package throughput

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// lineTimeout bounds a look at the interface.
const lineTimeout = time.Second

// lines looks at the interface of a local address.
type lines struct {
	look  func(ctx context.Context, local netip.Addr) (Line, error)
	local netip.Addr
}

// moment is an interface at a time.
type moment struct {
	Line
	at time.Time
}

// known reports whether there is anything to see.
func (l *lines) known() bool { return l.look != nil && l.local.IsValid() }

func (l *lines) now(ctx context.Context) (moment, error) {
	ctx, cancel := context.WithTimeout(ctx, lineTimeout)
	defer cancel()
	begin := time.Now()
	line, err := l.look(ctx, l.local)
	end := time.Now()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errTooBusy, err)
	}
	return moment{line, begin.Add(end.Sub(begin) / 2)}, err
}

// became says what became of an interface, or nothing if it is as it was.
func became(before, now *Line) linkChange {
	switch {
	case now.Interface != before.Interface:
		return linkChange(fmt.Sprintf("%s took the place of %s", now.Interface, before.Interface))
	case !now.Carrier:
		return linkChange(now.Interface + " has no carrier any more")
	case now.CarrierChanges != before.CarrierChanges:
		return linkChange(now.Interface + " lost its carrier for a moment")
	case now.SpeedMbps != before.SpeedMbps && now.SpeedMbps > 0 && before.SpeedMbps > 0:
		return linkChange(fmt.Sprintf("%s changed its speed from %d to %d Mbit/s", now.Interface, before.SpeedMbps, now.SpeedMbps))
	}
	return ""
}

// traffic is what passed an interface between two moments in IP packets, in
// bytes.
func traffic(from, to *moment, down bool) uint64 {
	bytes, packets := to.TxBytes-from.TxBytes, to.TxPackets-from.TxPackets
	if down {
		bytes, packets = to.RxBytes-from.RxBytes, to.RxPackets-from.RxPackets
	}
	return bytes - min(packets*uint64(max(to.HeaderBytes, 0)), bytes)
}

// rateMbps is bytes over time.
func rateMbps(bytes uint64, in time.Duration) float64 {
	if in <= 0 {
		return 0
	}
	return float64(bytes) * 8 / 1e6 / in.Seconds()
}
