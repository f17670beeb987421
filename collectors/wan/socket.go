package wan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ontagent/collectors/rtnl"
)

// tables are what the kernel has set.
type tables struct {
	links     map[int]iface
	addresses []address
	routes    []route
	// interrupted: they changed while they were read.
	interrupted bool
}

// tables reads interfaces, addresses and routes.
func (c *Collector) tables(ctx context.Context) (tables, error) {
	if err := ctx.Err(); err != nil {
		return tables{}, fmt.Errorf("cannot read addresses and routes: %w", err)
	}
	s, err := c.dial()
	if err != nil {
		return tables{}, err
	}
	defer s.Close()
	defer rtnl.CloseOnDone(ctx, s)()
	pid, err := s.GetPid()
	if err != nil {
		return tables{}, fmt.Errorf("cannot get address of netlink socket: %w", err)
	}
	var t tables
	for range rtnl.MaxDumps {
		t, err = c.readTables(s, pid)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			return tables{}, fmt.Errorf("cannot read addresses and routes: %w", err)
		}
		if !t.interrupted {
			break
		}
	}
	return t, nil
}

// readTables reads the three lists one after the other.
func (c *Collector) readTables(s rtnl.Socket, pid uint32) (tables, error) {
	t := tables{links: map[int]iface{}}
	order := binary.NativeEndian
	lists := []struct {
		get, entry uint16
		filter     bool
		use        func(body []byte) error
	}{
		{unix.RTM_GETLINK, unix.RTM_NEWLINK, true, func(b []byte) error {
			index, l, err := decodeLink(order, b)
			if err == nil {
				t.links[index] = l
			}
			return err
		}},
		{unix.RTM_GETADDR, unix.RTM_NEWADDR, false, func(b []byte) error {
			a, err := decodeAddress(order, b)
			if err == nil {
				t.addresses = append(t.addresses, a)
			}
			return err
		}},
		{unix.RTM_GETROUTE, unix.RTM_NEWROUTE, false, func(b []byte) error {
			r, err := decodeRoute(order, b)
			if err == nil && (r.isDefault() || r.delegated()) {
				t.routes = append(t.routes, r)
			}
			return err
		}},
	}
	for _, l := range lists {
		request := nl.NewNetlinkRequest(int(l.get), unix.NLM_F_DUMP)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC)) // every header of these begins with the family
		if l.filter {
			request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, order.AppendUint32(nil, rtnl.SkipStats)))
		}
		interrupted, err := rtnl.Dump(s, pid, request, func(m syscall.NetlinkMessage, listed bool) {
			if !listed || m.Header.Type != l.entry {
				return
			}
			if err := l.use(m.Data); err != nil && !errors.Is(err, errOther) {
				c.log.Debug("cannot use netlink message", "error", err)
			}
		})
		if err != nil {
			return tables{}, err
		}
		t.interrupted = t.interrupted || interrupted
	}
	return t, nil
}
