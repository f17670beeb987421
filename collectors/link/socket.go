package link

import (
	"context"
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ontagent/collectors/rtnl"
)

// list reads all interfaces. interrupted reports that the list changed while it
// was read, rtnl.MaxDumps times in a row.
func (c *Collector) list(ctx context.Context) (links map[int]Link, interrupted bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	s, err := c.dial()
	if err != nil {
		return nil, false, err
	}
	defer s.Close()
	defer rtnl.CloseOnDone(ctx, s)()
	pid, err := s.GetPid()
	if err != nil {
		return nil, false, fmt.Errorf("cannot get address of netlink socket: %w", err)
	}
	for range rtnl.MaxDumps {
		links = map[int]Link{}
		interrupted, err = rtnl.Dump(s, pid, request(true), func(m syscall.NetlinkMessage, _ bool) {
			if m.Header.Type != unix.RTM_NEWLINK {
				return
			}
			l, err := decode(binary.NativeEndian, Link{}, m.Data)
			if err != nil {
				c.log.Debug("cannot use netlink message", "error", err)
				return
			}
			links[l.Index] = l
		})
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		if err != nil || !interrupted {
			break
		}
	}
	return links, interrupted, err
}

// request asks for all interfaces.
func request(stats bool) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if !stats {
		r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, rtnl.SkipStats)))
	}
	return r
}
