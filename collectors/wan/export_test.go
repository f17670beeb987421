package wan

import (
	"encoding/binary"
	"net/netip"

	"ontagent/collectors/rtnl"
)

// What tests outside the package reach inside for.

// Socket is the seam to the kernel.
type Socket = rtnl.Socket

var (
	DialKernel      = rtnl.Dial
	ErrOther        = errOther
	DecodeAddress   = decodeAddress
	DecodeLink      = decodeLink
	ParseResolvConf = parseResolvConf
)

// SetKernel leads c to other sockets.
func (c *Collector) SetKernel(dial func(groups ...uint) (Socket, error)) { c.dial = dial }

// SetSynced has f called when Watch begins to see.
func (c *Collector) SetSynced(f func()) { c.synced = f }

// RouteFacts is what decodeRoute found, for comparing.
type RouteFacts struct {
	Route
	Family             string
	Index              int
	Dst                netip.Prefix
	Preference         int
	Default, Delegated bool
}

// DecodeRoute decodes a route.
func DecodeRoute(order binary.ByteOrder, b []byte) (RouteFacts, error) {
	r, err := decodeRoute(order, b)
	return RouteFacts{
		Route: r.Route, Family: r.family, Index: r.index, Dst: r.dst, Preference: r.preference,
		Default: err == nil && r.isDefault(), Delegated: err == nil && r.delegated(),
	}, err
}
