package steps

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// Resources are what the order says is installed; empty means not stated.
type Resources struct {
	SN           string // GPON serial number
	MAC          string // any usual notation
	PONPort      string // of the OLT
	SplitterPort string
	LANPort      string // interface name
}

// Inventory is what the device can see of itself.
type Inventory struct {
	// SN is the serial number of the ONU and SNStatus whether there is one;
	// without StatusOK it is not compared.
	SN       string
	SNStatus collectors.Status
	SNSource string
	// Interfaces are all network interfaces; InterfacesErr says why they could
	// not be listed.
	Interfaces    []Interface
	InterfacesErr error
}

// Interface is a network interface of the device.
type Interface struct {
	Name string
	MAC  string // empty if it has none
}

// InventoryReader reads the device's own inventory.
type InventoryReader interface {
	// ReadInventory returns what could be read, and beside it an error that
	// says what could not.
	ReadInventory(ctx context.Context) (Inventory, error)
}

// IdentityOptions configure the identity rung.
type IdentityOptions struct {
	Reader   InventoryReader // nil: nothing to read
	Ordered  Resources
	Deadline time.Duration // 15 s if zero
}

// Identity judges whether the device is the one of the order (资源准确).
type Identity struct{ o IdentityOptions }

var _ acceptance.Step = (*Identity)(nil)

// NewIdentity returns the identity rung.
func NewIdentity(o IdentityOptions) *Identity {
	o.Deadline = orDefault(o.Deadline, 15*time.Second)
	return &Identity{o: o}
}

// Rung implements acceptance.Step.
func (*Identity) Rung() acceptance.Rung { return acceptance.Identity }

// Needs implements acceptance.Step.
func (*Identity) Needs() []acceptance.Rung { return nil }

// Deadline implements acceptance.Step.
func (s *Identity) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (*Identity) Estimate() time.Duration { return time.Second }

// item is the comparison of one resource.
type item int

const (
	notStated item = iota
	matches
	differs
	unread
)

// Run compares what the order states with what the device sees. One difference
// fails. Otherwise one stated resource that should be visible and cannot be read
// makes it inconclusive, as does an order that states nothing comparable. The
// OLT's and the splitter's port are not visible to a device: they are kept in
// the result and decide nothing.
func (s *Identity) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	want := s.o.Ordered
	var inv Inventory
	if s.o.Reader != nil {
		var err error
		if inv, err = s.o.Reader.ReadInventory(ctx); err != nil {
			note(err.Error())
		}
	} else {
		inv.InterfacesErr = fmt.Errorf("no source of the inventory")
	}

	sn := s.serial(&out, inv)
	mac := s.mac(&out, inv)
	lan := s.lanPort(&out, inv)
	for _, port := range []struct{ name, ordered string }{{"pon_port", want.PONPort}, {"splitter_port", want.SplitterPort}} {
		if port.ordered != "" {
			m := missing(port.name, collectors.StatusUnsupported, "order", "not visible to the device; ordered: "+port.ordered)
			put(&out, m)
		}
	}
	if ctx.Err() != nil {
		stopped(ctx, &out)
		return out
	}

	var causes []diagnosis.Code
	var what []string
	for _, c := range []struct {
		item item
		code diagnosis.Code
		name string
	}{
		{sn, diagnosis.IdentitySNMismatch, "serial number"},
		{mac, diagnosis.IdentityMACMismatch, "MAC"},
		{lan, diagnosis.IdentityPortMismatch, "LAN port"},
	} {
		if c.item == differs {
			causes, what = append(causes, c.code), append(what, c.name)
		}
	}
	items := []item{sn, mac, lan}
	switch {
	case len(causes) > 0:
		decide(&out, acceptance.Fail, "differs from the order: "+strings.Join(what, ", "), causes...)
	case slices.Contains(items, unread):
		decide(&out, acceptance.Inconclusive, "something that the order states could not be read", diagnosis.IdentityUnreadable)
	case slices.Contains(items, matches):
		decide(&out, acceptance.Pass, "")
	default:
		decide(&out, acceptance.Inconclusive, "the order states nothing that the device can compare", diagnosis.IdentityNothingToCompare)
	}
	return out
}

func (s *Identity) serial(out *acceptance.Outcome, inv Inventory) item {
	want := s.o.Ordered.SN
	status := inv.SNStatus
	if status == "" {
		status = collectors.StatusUnsupported
	}
	got, readable := serialNumber(inv.SN)
	if status == collectors.StatusOK && !readable {
		status = collectors.StatusUntrusted
	}
	m := missing("sn", status, inv.SNSource, ordered(want))
	m.Raw = inv.SN
	if status == collectors.StatusOK {
		m.Value = got
	}
	if want != "" || status == collectors.StatusOK {
		put(out, m)
	}
	ordered, valid := serialNumber(want)
	switch {
	case want == "":
		return notStated
	case status != collectors.StatusOK, !valid: // a typing error in the order proves nothing about the device
		return unread
	case ordered == got:
		return matches
	}
	return differs
}

func (s *Identity) mac(out *acceptance.Outcome, inv Inventory) item {
	want := s.o.Ordered.MAC
	if want == "" {
		return notStated
	}
	ordered6, valid := macAddress(want)
	var seen []string
	for _, ifc := range inv.Interfaces {
		mac, ok := macAddress(ifc.MAC)
		switch {
		case !ok:
		case valid && mac == ordered6:
			measured(out, "mac", ifc.MAC, "interface:"+ifc.Name, ordered(want))
			return matches
		default:
			seen = append(seen, ifc.MAC)
		}
	}
	if len(seen) == 0 || !valid || inv.InterfacesErr != nil {
		why := "no interface with a MAC"
		switch {
		case !valid:
			why = "the MAC in the order is not one"
		case inv.InterfacesErr != nil:
			why = inv.InterfacesErr.Error()
		}
		put(out, missing("mac", collectors.StatusError, "interfaces", ordered(want)+"; "+why))
		return unread
	}
	slices.Sort(seen)
	measured(out, "mac", strings.Join(slices.Compact(seen), " "), "interfaces", ordered(want))
	return differs
}

func (s *Identity) lanPort(out *acceptance.Outcome, inv Inventory) item {
	want := s.o.Ordered.LANPort
	if want == "" {
		return notStated
	}
	var seen []string
	for _, ifc := range inv.Interfaces {
		if ifc.Name == want {
			measured(out, "lan_port", ifc.Name, "interfaces", ordered(want))
			return matches
		}
		seen = append(seen, ifc.Name)
	}
	if len(seen) == 0 || inv.InterfacesErr != nil {
		put(out, missing("lan_port", collectors.StatusError, "interfaces", ordered(want)))
		return unread
	}
	measured(out, "lan_port", strings.Join(seen, " "), "interfaces", ordered(want))
	return differs
}

func ordered(want string) string {
	if want == "" {
		return "the order does not state it"
	}
	return "ordered: " + want
}

// serialNumber normalises a GPON serial number: four letters and eight
// hexadecimal digits, in upper case. The letters may be written in hexadecimal
// as well, as many labels do.
func serialNumber(s string) (string, bool) {
	s = strings.ToUpper(strip(s))
	if len(s) == 16 {
		vendor, err := hex.DecodeString(s[:8])
		if err != nil {
			return "", false
		}
		s = strings.ToUpper(string(vendor)) + s[8:]
	}
	if len(s) != 12 {
		return "", false
	}
	for i := range 4 {
		if (s[i] < 'A' || s[i] > 'Z') && (s[i] < '0' || s[i] > '9') {
			return "", false
		}
	}
	if _, err := hex.DecodeString(s[4:]); err != nil {
		return "", false
	}
	return s, true
}

// macAddress normalises a MAC address to twelve lower-case hexadecimal digits.
// All zeros and all ones are not addresses of anything.
func macAddress(s string) (string, bool) {
	s = strings.ToLower(strip(s))
	if _, err := hex.DecodeString(s); err != nil || len(s) != 12 || s == "000000000000" || s == "ffffffffffff" {
		return "", false
	}
	return s, true
}

// strip removes the separators people write into numbers.
func strip(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(":-. \t", r) {
			return -1
		}
		return r
	}, s)
}
