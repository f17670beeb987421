package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Traffic is what went over an interface within a while.
type Traffic struct {
	Interface            string
	RxPackets, TxPackets uint64
	RxBytes              uint64
	Over                 time.Duration
}

// Used reports whether somebody uses the line: packets went both ways, more than
// a device that only keeps up its own session has.
func (t Traffic) Used() bool {
	const packets, bytes = 10, 2 << 10
	return t.RxPackets >= packets && t.TxPackets >= packets && t.RxBytes >= bytes
}

// String returns "IFNAME: N packets (N bytes) in and N out in N s".
func (t Traffic) String() string {
	return fmt.Sprintf("%s: %d packets (%d bytes) in and %d out in %.0f s", t.Interface, t.RxPackets, t.RxBytes, t.TxPackets, t.Over.Seconds())
}

// WatchTraffic counts what goes over an interface for a while. One that is not
// there carries nothing.
func WatchTraffic(ctx context.Context, root, name string, over time.Duration) (Traffic, error) {
	t := Traffic{Interface: name, Over: over}
	var n [2][3]uint64
	var err error
	for i := range n {
		if i > 0 {
			select {
			case <-ctx.Done():
				return t, ctx.Err()
			case <-time.After(over):
			}
		}
		if n[i], err = counters(root, name); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return t, err
		}
	}
	if n[1][0] < n[0][0] || n[1][1] < n[0][1] || n[1][2] < n[0][2] {
		n[0] = [3]uint64{} // set back in between: it counts from there
	}
	t.RxPackets, t.TxPackets, t.RxBytes = n[1][0]-n[0][0], n[1][1]-n[0][1], n[1][2]-n[0][2]
	return t, nil
}

func counters(root, name string) (n [3]uint64, err error) {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return n, fmt.Errorf("cannot count the traffic of interface %q: it is no name", name)
	}
	for i, file := range [...]string{"rx_packets", "tx_packets", "rx_bytes"} {
		data, err := readSome(root+"/sys/class/net/"+name+"/statistics/"+file, 32)
		if err == nil {
			n[i], err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
		}
		if err != nil {
			return n, err // it names the file
		}
	}
	return n, nil
}
