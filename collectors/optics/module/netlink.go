package module

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is what is needed of a generic netlink connection.
type Conn interface {
	GetFamily(name string) (genetlink.Family, error)
	Execute(m genetlink.Message, family uint16, flags netlink.HeaderFlags) ([]genetlink.Message, error)
	SetDeadline(t time.Time) error
	Close() error
}

var _ Conn = (*genetlink.Conn)(nil)

// errNoNetlink: the kernel cannot read modules by netlink (before 5.13).
var errNoNetlink = errors.New("no module EEPROM by netlink")

// Attributes of MODULE_EEPROM_GET.
const (
	attrHeader  = 1
	attrOffset  = 2
	attrLength  = 3
	attrPage    = 4
	attrAddress = 6
	attrData    = 7

	attrHeaderDevName = 2
)

// netlinkTimeout bounds one request: a page takes tens of milliseconds on a
// slow bus.
const netlinkTimeout = 2 * time.Second

func dialEthtool() (Conn, error) {
	c, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// netlinkTransport reads through MODULE_EEPROM_GET.
type netlinkTransport struct {
	ctx    context.Context //nolint:containedctx // lives for one ReadOptics only
	conn   Conn
	family genetlink.Family
	iface  string
}

func (r *Reader) openNetlink(ctx context.Context) (transport, error) {
	conn, err := r.opts.Dial()
	if err != nil {
		return nil, fmt.Errorf("cannot open generic netlink: %w", err)
	}
	family, err := conn.GetFamily(unix.ETHTOOL_GENL_NAME)
	if err != nil {
		_ = conn.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNoNetlink
		}
		return nil, fmt.Errorf("cannot find ethtool netlink family: %w", err)
	}
	return &netlinkTransport{ctx: ctx, conn: conn, family: family, iface: r.opts.Interface}, nil
}

func (t *netlinkTransport) close() { _ = t.conn.Close() }

// read asks again for the rest where an answer is short.
func (t *netlinkTransport) read(at place) ([]byte, error) {
	var out []byte
	for len(out) < at.length {
		rest := at
		rest.offset += len(out)
		rest.length -= len(out)
		b, err := t.request(rest)
		if err != nil {
			return nil, fmt.Errorf("cannot read %d bytes at %#02x:%02xh:%d: %w", at.length, at.address, at.page, at.offset, err)
		}
		if len(b) == 0 || len(b) > rest.length {
			return nil, fmt.Errorf("cannot read %d bytes at %#02x:%02xh:%d: %w: %d bytes", at.length, at.address, at.page, at.offset, errShort, len(out)+len(b))
		}
		out = append(out, b...)
	}
	return out, nil
}

func (t *netlinkTransport) request(at place) ([]byte, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	ae := netlink.NewAttributeEncoder()
	ae.Nested(attrHeader, func(ae *netlink.AttributeEncoder) error {
		ae.String(attrHeaderDevName, t.iface)
		return nil
	})
	ae.Uint32(attrOffset, uint32(at.offset))
	ae.Uint32(attrLength, uint32(at.length))
	ae.Uint8(attrPage, at.page)
	ae.Uint8(attrAddress, at.address)
	data, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("cannot encode request: %w", err)
	}
	deadline := time.Now().Add(netlinkTimeout)
	if d, ok := t.ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := t.conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("cannot set deadline: %w", err)
	}
	messages, err := t.conn.Execute(genetlink.Message{
		Header: genetlink.Header{Command: unix.ETHTOOL_MSG_MODULE_EEPROM_GET, Version: unix.ETHTOOL_GENL_VERSION},
		Data:   data,
	}, t.family.ID, netlink.Request)
	if err != nil {
		return nil, err
	}
	if len(messages) == 0 {
		return nil, errShort
	}
	ad, err := netlink.NewAttributeDecoder(messages[0].Data)
	if err != nil {
		return nil, fmt.Errorf("cannot decode answer: %w", err)
	}
	var out []byte
	for ad.Next() {
		if ad.Type() == attrData {
			out = ad.Bytes()
		}
	}
	if err := ad.Err(); err != nil {
		return nil, fmt.Errorf("cannot decode answer: %w", err)
	}
	return out, nil
}
