package cable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is what is needed of a generic netlink connection.
type socket interface {
	GetFamily(name string) (genetlink.Family, error)
	JoinGroup(group uint32) error
	Send(m genetlink.Message, family uint16, flags netlink.HeaderFlags) (netlink.Message, error)
	Receive() ([]genetlink.Message, []netlink.Message, error)
	SetDeadline(t time.Time) error
	Close() error
}

var _ socket = (*genetlink.Conn)(nil)

func dial() (socket, error) {
	c, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// errUnsupported: the kernel or the PHY has no cable test.
var errUnsupported = errors.New("no cable test")

const (
	pairs       = 4
	requestWait = 2 * time.Second

	headerDevName = 2 // ETHTOOL_A_HEADER_DEV_NAME

	// Later than golang.org/x/sys/unix knows.
	codeMismatch   = 5
	codeNoise      = 6
	codeUnresolved = 7
)

// test does the kernel's cable test, and waits for its end.
func (h host) test(ctx context.Context, name string) ([]Pair, error) {
	s, err := h.dial()
	if err != nil {
		return nil, fmt.Errorf("cannot open generic netlink: %w", err)
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = s.SetDeadline(time.Unix(1, 0)) // ends a receive that waits
	})
	defer func() {
		if !stop() {
			<-over
		}
		_ = s.Close()
	}()
	found, err := runTest(ctx, s, name, func() error {
		_, err := h.read(name)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return found, err
}

// runTest speaks with the kernel; present looks whether the interface is there.
func runTest(ctx context.Context, s socket, name string, present func() error) ([]Pair, error) {
	if err := s.SetDeadline(time.Now().Add(requestWait)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // after the deadline, lest it outlive the one of ctx's end
		return nil, err
	}
	family, err := s.GetFamily(unix.ETHTOOL_GENL_NAME)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errUnsupported
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find ethtool netlink family: %w", err)
	}
	monitor := uint32(0)
	for _, g := range family.Groups {
		if g.Name == unix.ETHTOOL_MCGRP_MONITOR_NAME {
			monitor = g.ID
		}
	}
	if monitor == 0 {
		return nil, errUnsupported
	}
	// First, lest the end of the test be missed.
	if err := s.JoinGroup(monitor); err != nil {
		return nil, fmt.Errorf("cannot listen to ethtool: %w", err)
	}
	ae := netlink.NewAttributeEncoder()
	ae.Nested(unix.ETHTOOL_A_CABLE_TEST_HEADER, func(ae *netlink.AttributeEncoder) error {
		ae.String(headerDevName, name)
		return nil
	})
	data, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("cannot encode request: %w", err)
	}
	if _, err := s.Send(genetlink.Message{
		Header: genetlink.Header{Command: unix.ETHTOOL_MSG_CABLE_TEST_ACT, Version: unix.ETHTOOL_GENL_VERSION}, Data: data,
	}, family.ID, netlink.Request|netlink.Acknowledge); err != nil {
		return nil, translate(err)
	}
	for {
		if err := s.SetDeadline(time.Now().Add(2 * pulse)); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil { // as above
			return nil, err
		}
		messages, headers, err := s.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := present(); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, translate(err)
		}
		for i, m := range messages {
			// Among them the acknowledgement, and what others do with ethtool.
			if i >= len(headers) || uint16(headers[i].Header.Type) != family.ID || m.Header.Command != unix.ETHTOOL_MSG_CABLE_TEST_NTF {
				continue
			}
			n, err := parseNotification(m.Data)
			if err != nil {
				return nil, err
			}
			switch {
			case n.name != name || !n.completed:
			case len(n.pairs) == 0:
				return nil, errors.New("the test ended without a result")
			default:
				return n.pairs, nil
			}
		}
	}
}

// translate names the errors that are promised.
func translate(err error) error {
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		return errUnsupported
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case errors.Is(err, syscall.ENETDOWN):
		return fmt.Errorf("%w: %w", ErrInterfaceDown, err)
	}
	return fmt.Errorf("cannot test: %w", err)
}

// notification is what ETHTOOL_MSG_CABLE_TEST_NTF tells.
type notification struct {
	name      string // of the interface
	completed bool
	pairs     []Pair // those that were told of, by name
}

// parseNotification reads the attributes of ETHTOOL_MSG_CABLE_TEST_NTF. Pairs
// beyond the fourth and attributes it doesn't know are left out.
func parseNotification(b []byte) (notification, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return notification{}, fmt.Errorf("cannot decode result: %w", err)
	}
	var n notification
	var r results
	for ad.Next() {
		switch ad.Type() {
		case unix.ETHTOOL_A_CABLE_TEST_NTF_HEADER:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == headerDevName {
						n.name = ad.String()
					}
				}
				return nil
			})
		case unix.ETHTOOL_A_CABLE_TEST_NTF_STATUS:
			n.completed = ad.Uint8() == unix.ETHTOOL_A_CABLE_TEST_NTF_STATUS_COMPLETED
		case unix.ETHTOOL_A_CABLE_TEST_NTF_NEST:
			ad.Nested(r.nest)
		}
	}
	if err := ad.Err(); err != nil {
		return notification{}, fmt.Errorf("cannot decode result: %w", err)
	}
	if len(n.name) >= unix.IFNAMSIZ {
		return notification{}, errors.New("cannot decode result: the interface's name is too long")
	}
	for i := range r.code {
		if r.told[i] {
			n.pairs = append(n.pairs, Pair{Name: "ABCD"[i : i+1], Code: code(r.code[i]), FaultM: r.fault[i]})
		}
	}
	return n, nil
}

// results are collected by pair.
type results struct {
	told  [pairs]bool
	code  [pairs]byte
	fault [pairs]*float64
}

func (r *results) nest(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.ETHTOOL_A_CABLE_NEST_RESULT:
			ad.Nested(r.result)
		case unix.ETHTOOL_A_CABLE_NEST_FAULT_LENGTH:
			ad.Nested(r.length)
		}
	}
	return nil
}

func (r *results) result(ad *netlink.AttributeDecoder) error {
	pair, code := byte(pairs), byte(0)
	for ad.Next() {
		switch ad.Type() {
		case unix.ETHTOOL_A_CABLE_RESULT_PAIR:
			pair = ad.Uint8()
		case unix.ETHTOOL_A_CABLE_RESULT_CODE:
			code = ad.Uint8()
		}
	}
	if pair < pairs {
		r.told[pair], r.code[pair] = true, code
	}
	return nil
}

func (r *results) length(ad *netlink.AttributeDecoder) error {
	pair := byte(pairs)
	var metres *float64
	for ad.Next() {
		switch ad.Type() {
		case unix.ETHTOOL_A_CABLE_FAULT_LENGTH_PAIR:
			pair = ad.Uint8()
		case unix.ETHTOOL_A_CABLE_FAULT_LENGTH_CM:
			m := float64(ad.Uint32()) / 100
			metres = &m
		}
	}
	if pair < pairs {
		r.fault[pair] = metres
	}
	return nil
}

func code(c byte) Code {
	switch c {
	case unix.ETHTOOL_A_CABLE_RESULT_CODE_OK:
		return CodeOK
	case unix.ETHTOOL_A_CABLE_RESULT_CODE_OPEN:
		return CodeOpen
	case unix.ETHTOOL_A_CABLE_RESULT_CODE_SAME_SHORT:
		return CodeSameShort
	case unix.ETHTOOL_A_CABLE_RESULT_CODE_CROSS_SHORT:
		return CodeCrossShort
	case codeMismatch:
		return CodeMismatch
	case codeNoise:
		return CodeNoise
	case codeUnresolved:
		return CodeUnresolved
	}
	return CodeUnknown
}
