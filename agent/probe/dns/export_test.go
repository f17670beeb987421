package dns

import "net/netip"

// Decode parses a message and returns its addresses.
func Decode(wire []byte, t Type) ([]netip.Addr, error) {
	m, err := parse(wire, t)
	if err != nil {
		return nil, err
	}
	return m.addresses, nil
}

// Bogon is bogon.
func Bogon(a netip.Addr) bool { return bogon(a) }
