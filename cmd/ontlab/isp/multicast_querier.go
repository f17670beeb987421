package isp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// QuerierOptions are how fast a snooping bridge learns. The zero value is fit
// for a lab.
//
// A report, which a receiver sends of its own accord when it joins, is obeyed
// at once, whatever these are. But a bridge whose querier has just been
// switched on floods every group to every port for Response, so that those who
// joined before can tell; and after a leave it asks for LastMember, twice,
// before it stops forwarding. Linux's own defaults are 125 s, 31 s, 10 s and
// 1 s: too long for a lab.
type QuerierOptions struct {
	// Interval is between two general queries. 0 means 5 s.
	Interval time.Duration
	// Startup is between the first few of them. 0 means 500 ms.
	Startup time.Duration
	// Response is how long a receiver may take to answer one. 0 means 500 ms.
	Response time.Duration
	// LastMember is how long it may take after somebody has left. 0 means
	// 250 ms.
	LastMember time.Duration
}

// SetQuerier gives a bridge of the host a querier with these times, with
// snooping on. The bridge must be up and, for MLD, have a link-local address.
// Who joins behind it receives within milliseconds; who does not join receives
// nothing once Response has passed.
func SetQuerier(host *netbox.Host, bridge string, o QuerierOptions) error {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&o.Interval, 5*time.Second)
	set(&o.Startup, 500*time.Millisecond)
	set(&o.Response, 500*time.Millisecond)
	set(&o.LastMember, 250*time.Millisecond)
	for _, s := range []struct{ name, value string }{
		{"multicast_snooping", "1"},
		// The querier is switched on last: the kernel looks at the times then.
		{"multicast_querier", "0"},
		{"multicast_query_interval", centiseconds(o.Interval)},
		{"multicast_startup_query_interval", centiseconds(o.Startup)},
		{"multicast_query_response_interval", centiseconds(o.Response)},
		{"multicast_last_member_interval", centiseconds(o.LastMember)},
		{"multicast_querier", "1"},
	} {
		path := filepath.Join("/sys/class/net", bridge, "bridge", s.name)
		err := host.Do(func() error { return os.WriteFile(path, []byte(s.value), 0) })
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no such bridge: %w", err)
		}
		if err != nil {
			return fmt.Errorf("cannot set querier of %s on %s: %w", bridge, host.Name(), err)
		}
	}
	return nil
}

// centiseconds is how the kernel takes times here: in USER_HZ, 100 a second.
func centiseconds(d time.Duration) string {
	return strconv.FormatInt(max(int64(d/(10*time.Millisecond)), 1), 10)
}
