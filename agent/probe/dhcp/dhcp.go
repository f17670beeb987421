// Package dhcp asks who would give this line addresses, and never takes any: a
// DHCPv4 DISCOVER, a DHCPv6 SOLICIT and a router solicitation are sent, the
// answers are collected, and the matter ends there. No REQUEST is ever sent, so
// no server commits a lease; the transaction ids are its own, so a DHCP client
// on the same interface takes no answer for its own. It resolves no names, sets
// no address and judges nothing.
//
// It speaks over a packet socket and so needs no address, no port that a client
// of the system may hold, and no VLAN device: it can put the tag into the frame
// itself. For DHCPv6 it then has to be a host of its own: it uses the link-local
// address that follows from the MAC, and says who has it when asked.
//
// Some access routers end a session whose client sends a DISCOVER. Where a line
// is up, use Inform, or a MAC and client id that are not the customer's.
//
// DHCPv4 is read and written with github.com/insomniacslk/dhcp. DHCPv6 is not:
// that library's dhcpv6 would add 320 KiB to the program on 32-bit MIPS, of
// which two messages and nine options are needed; the tests hold the code here
// against it.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// What errors.Is finds in the error of a Run: why nothing could be measured.
var (
	// ErrNoInterface: there is none of that name, or it vanished.
	ErrNoInterface = errors.New("no such interface")
	// ErrDown: the interface is down, or was taken down, or has no carrier.
	ErrDown = errors.New("interface is down")
	// ErrNotPermitted: packet sockets need CAP_NET_RAW.
	ErrNotPermitted = errors.New("not permitted to open a packet socket")
	// ErrOptions: the options contradict one another.
	ErrOptions = errors.New("bad options")
)

// Families are what is asked, together.
type Families uint8

// The families.
const (
	V4      Families = 1 << iota // DHCPv4
	V6                           // DHCPv6
	Routers                      // routers of IPv6
)

// Options say what to ask and where. Only Interface is necessary.
type Options struct {
	Interface string
	// VLAN, from 1 to 4094, is put into the frames, with Priority from 0 to 7,
	// and only frames with it count; the interface is promiscuous for as long
	// as Run lasts, as cards may drop VLANs that have no device. 0: frames have
	// no tag; Interface may then itself be a VLAN device.
	VLAN     uint16
	Priority uint8
	// Families is V4 if zero. Run returns when all of them have been answered
	// (and Collect has passed) or given up.
	Families Families
	// PrefixDelegation asks for an IPv6 prefix as well as for an address.
	PrefixDelegation bool
	// MAC is who asks: six bytes, or none for the interface's own. Another
	// makes the interface promiscuous for as long as Run lasts.
	MAC net.HardwareAddr
	// Wait is how long the first try is waited for; each following one for
	// half as long again. 1 s if zero; with three Tries, requests go out at 0,
	// 1 and 2.5 s, and silence is certain after 4.75 s.
	Wait  time.Duration
	Tries int // 3 if zero, 10 at most
	// Collect is for how long other servers are listened for after the first
	// answer; 300 ms if zero.
	Collect time.Duration
	// Inform asks for the options alone, as a host does that has an address:
	// INFORM and INFORMATION-REQUEST.
	Inform bool
	// Address is the address that an INFORM is sent from; if it is not valid,
	// the interface's first.
	Address netip.Addr
	// ClientID is option 61 of DHCPv4, as it is on the wire; none if empty.
	ClientID []byte
	// DUID is the client identifier of DHCPv6; if empty, DUID-LL of the MAC.
	DUID []byte
	// VendorClass is option 60 of DHCPv4, and of DHCPv6 the class of option 16
	// (enterprise 0); none if empty.
	VendorClass string
	// Answered, if not nil, is called by Run each time another server was
	// heard, with what is known until then.
	Answered func(Result)
}

// maxTries bounds Options.Tries.
const maxTries = 10

func (o Options) normalise() Options {
	if o.Families == 0 {
		o.Families = V4
	}
	if o.Wait <= 0 {
		o.Wait = time.Second
	}
	if o.Tries <= 0 {
		o.Tries = 3
	}
	o.Tries = min(o.Tries, maxTries)
	if o.Collect <= 0 {
		o.Collect = 300 * time.Millisecond
	}
	return o
}

func (o *Options) check() error {
	var bad string
	switch {
	case o.VLAN > 4094:
		bad = "VLAN is above 4094"
	case o.Priority > 7:
		bad = "priority is above 7"
	case o.VLAN == 0 && o.Priority != 0:
		bad = "priority without VLAN"
	case o.Families&^(V4|V6|Routers) != 0:
		bad = "unknown family"
	case len(o.MAC) != 0 && (len(o.MAC) != 6 || o.MAC[0]&1 != 0):
		bad = "MAC is not that of a host"
	case o.Inform && o.PrefixDelegation:
		bad = "a prefix is not asked for by Inform"
	case o.Address.IsValid() && !o.Address.Is4():
		bad = "address is not IPv4"
	case len(o.ClientID) > 255 || len(o.VendorClass) > 255:
		bad = "client id or vendor class is longer than 255 bytes"
	case len(o.DUID) > 130: // RFC 8415 §11.1
		bad = "DUID is longer than 130 bytes"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrOptions, bad)
}

// wait is how long the given try, from 0, is waited for.
func (o *Options) wait(try int) time.Duration {
	w := o.Wait
	for range try {
		w += w / 2
	}
	return w
}

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o = o.normalise()
	all := o.Collect
	for try := range o.Tries {
		all += o.wait(try)
	}
	return all
}

// Outcome is how asking ended.
type Outcome string

// The outcomes.
const (
	// Offered: a server offers what was asked for. Of Routers: there is a router.
	Offered Outcome = "offered"
	// Informed: a server answered what was asked with Inform.
	Informed Outcome = "informed"
	// Silent: nobody answered.
	Silent Outcome = "silent"
	// Nak: DHCPv4 servers said no, and none offered anything.
	Nak Outcome = "nak"
	// NoAddresses: DHCPv6 servers answered, and have neither address nor
	// prefix; Advertise.Statuses holds their words.
	NoAddresses Outcome = "no_addresses"
	// NoPrefix: DHCPv6 servers have an address, but not the prefix asked for.
	NoPrefix Outcome = "no_prefix"
	// Malformed: all answers were damaged.
	Malformed Outcome = "malformed"
	// Partial: of the families asked some are Offered or Informed, some not.
	Partial Outcome = "partial"
)

// Result is what a run found.
type Result struct {
	// Outcome is that of the families, if they agree; Partial, if some were
	// answered well; else that of the first in the order V4, V6, Routers.
	Outcome Outcome `json:"outcome"`
	// Those of the families, empty for one not asked.
	V4Outcome Outcome `json:"v4_outcome,omitempty"`
	V6Outcome Outcome `json:"v6_outcome,omitempty"`
	RAOutcome Outcome `json:"ra_outcome,omitempty"`

	Interface string `json:"interface"`
	VLAN      uint16 `json:"vlan,omitempty"`
	// MAC is who asked.
	MAC string `json:"mac"`

	// What was answered, each server once, in the order it came; at most 16.
	V4      []Offer     `json:"v4,omitempty"`
	V6      []Advertise `json:"v6,omitempty"`
	Routers []RA        `json:"routers,omitempty"`

	// Sent counts the requests, of all families.
	Sent int `json:"sent"`
	// Foreign counts answers to someone else's requests, Damaged frames and
	// messages that could not be read. Neither is in the lists.
	Foreign int `json:"foreign"`
	Damaged int `json:"damaged"`
	// OtherVLANs are where answers to our requests came from that had another
	// tag, 0 for none; the first four.
	OtherVLANs []uint16 `json:"other_vlans,omitempty"`
	// Looped: our own frames came back.
	Looped    bool    `json:"looped"`
	DurationS float64 `json:"duration_s"`
}

// maxAnswers bounds each list of a Result.
const maxAnswers = 16

// Run asks and collects. That nobody answers is a result, not an error. The
// error is compatible with ErrNoInterface, ErrDown, ErrNotPermitted, ErrOptions,
// or ctx.Err() if ctx ended early; the result then holds what was found until
// then.
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.normalise()
	res := Result{Interface: o.Interface, VLAN: o.VLAN}
	err := run(ctx, &o, &res)
	if err != nil {
		err = fmt.Errorf("cannot ask for addresses on %q: %w", o.Interface, err)
	}
	return res, err
}

func run(ctx context.Context, o *Options, res *Result) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ifi, err := running(o.Interface)
	if err != nil {
		return err
	}
	if len(o.MAC) == 0 {
		o.MAC = ifi.HardwareAddr
	}
	if len(o.MAC) != 6 || ifi.Flags&net.FlagLoopback != 0 {
		return fmt.Errorf("%w: not an Ethernet interface", ErrOptions)
	}
	if o.Inform && o.Families&V4 != 0 && !o.Address.IsValid() {
		if o.Address, err = firstIPv4(ifi); err != nil {
			return err
		}
	}
	w, err := openWire(ifi, o)
	if err != nil {
		return err
	}
	defer w.close()
	if err := newExchange(o, res, w).run(ctx); err != nil || res.Outcome != Silent {
		return err
	}
	// The kernel takes frames that nothing carries, and says so nowhere else.
	_, err = running(o.Interface)
	return err
}

// running returns an interface that is up and has a carrier.
func running(name string) (*net.Interface, error) {
	ifi, err := net.InterfaceByName(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoInterface, err)
	case ifi.Flags&net.FlagUp == 0:
		return nil, ErrDown
	case ifi.Flags&net.FlagRunning == 0:
		return nil, fmt.Errorf("%w: no carrier", ErrDown)
	}
	return ifi, nil
}

func firstIPv4(ifi *net.Interface) (netip.Addr, error) {
	all, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", ErrNoInterface, err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if a := address4(n.IP.To4()); a.IsValid() {
				return a, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: Inform needs an IPv4 address", ErrOptions)
}
