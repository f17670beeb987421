package order

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Type is the kind of visit.
type Type string

// The kinds of visit.
const (
	Install Type = "install" // 装机
	Move    Type = "move"    // 移机
	Repair  Type = "repair"  // 修机
	Inspect Type = "inspect" // 巡检
	Other   Type = "other"   // 其他
)

// Order is a work order: what may be done, on which device, by whom, when.
type Order struct {
	V           int          `json:"v"`
	Order       string       `json:"order"` // 1–64 letters, digits, - and _
	Rev         uint64       `json:"rev"`   // from 1; the highest one seen counts
	Type        Type         `json:"type"`
	Tenant      string       `json:"tenant"`
	Device      string       `json:"device"`
	Technicians []Technician `json:"technicians"`
	Resources   Resources    `json:"resources"`
	Services    []Service    `json:"services,omitempty"`
	// Require lists the rungs that decide; empty means the usual ladder of
	// the order's type.
	Require []string `json:"require,omitempty"`
	// Thresholds override norms by name: "optical.rx_min_dbm".
	Thresholds map[string]float64 `json:"thresholds,omitempty"`
	Allow      []CommandType      `json:"allow"`
	Consents   []string           `json:"consents,omitempty"`
	NotBefore  time.Time          `json:"not_before"`
	NotAfter   time.Time          `json:"not_after"`
	MaxRuns    uint32             `json:"max_runs"`            // accept and provision runs in all
	MaxBytes   uint64             `json:"max_bytes,omitempty"` // of test traffic; 0 means none
	Sealed     Sealed             `json:"sealed,omitempty"`
}

// Technician may sign commands under an order.
type Technician struct {
	ID  string    `json:"id"` // the technician's number
	Key PublicKey `json:"key"`
}

// Resources are what the operator's books say is installed. Empty means "not
// stated".
type Resources struct {
	SN           string `json:"sn,omitempty"`  // GPON serial number: 4 letters, 8 hex digits
	MAC          string `json:"mac,omitempty"` // any usual notation
	PONPort      string `json:"pon_port,omitempty"`
	SplitterPort string `json:"splitter_port,omitempty"`
	LANPort      string `json:"lan_port,omitempty"` // interface name
}

// Service is one ordered service.
type Service struct {
	Kind      string  `json:"kind"`             // internet, iptv, voice, management
	Access    string  `json:"access,omitempty"` // pppoe, ipoe, static, bridge
	VLAN      uint16  `json:"vlan,omitempty"`
	DownMbps  float64 `json:"down_mbps,omitempty"`
	UpMbps    float64 `json:"up_mbps,omitempty"`
	RateLayer string  `json:"rate_layer,omitempty"` // tcp (default), ip, ethernet
	// Account is masked (MaskAccount); the account in full is a secret.
	Account string `json:"account,omitempty"`
}

// Consents of the customer that an order can carry.
const (
	ConsentDisturb          = "disturb"           // interrupt the service for a test
	ConsentCustomerSettings = "customer_settings" // touch Wi-Fi, LAN, port forwards
	ConsentSNChange         = "sn_change"         // change the PON serial number
)

const (
	maxList   = 32
	maxString = 64
)

// Validate checks everything that needs neither key, clock nor device.
func (o Order) Validate() error {
	switch {
	case o.V != 1:
		return fmt.Errorf("order version %d is not known", o.V)
	case !ValidID(o.Order):
		return fmt.Errorf("order %q is not 1 to 64 letters, digits, - and _", o.Order)
	case o.Rev == 0:
		return errors.New("rev is missing")
	case !slices.Contains([]Type{Install, Move, Repair, Inspect, Other}, o.Type):
		return fmt.Errorf("type %q is not known", o.Type)
	case !validTenant(o.Tenant):
		return fmt.Errorf("tenant %q is not a name", o.Tenant)
	case !ValidDevice(o.Device):
		return fmt.Errorf("device %q is not 8 to 23 letters and digits", o.Device)
	case len(o.Technicians) == 0:
		return errors.New("no technician is named")
	case len(o.Technicians) > maxList, len(o.Services) > maxList, len(o.Require) > maxList,
		len(o.Thresholds) > maxList, len(o.Allow) > maxList, len(o.Consents) > maxList:
		return fmt.Errorf("a list has more than %d entries", maxList)
	case len(o.Allow) == 0:
		return errors.New("allow is empty: nothing may be done")
	case o.MaxRuns == 0:
		return errors.New("max_runs is missing: nothing may be run")
	case o.NotBefore.IsZero() || o.NotAfter.IsZero():
		return errors.New("not_before or not_after is missing")
	case !o.NotAfter.After(o.NotBefore):
		return errors.New("not_after is not after not_before")
	}
	for i, t := range o.Technicians {
		if !ValidID(t.ID) || len(t.Key) != ed25519.PublicKeySize {
			return fmt.Errorf("technicians[%d]: id or key is missing", i)
		}
		for _, other := range o.Technicians[:i] {
			if other.ID == t.ID || other.Key.ID() == t.Key.ID() {
				// Whose signature it is would be anybody's guess.
				return fmt.Errorf("technicians[%d]: id or key stands twice", i)
			}
		}
	}
	for i, c := range o.Allow {
		if !c.Known() {
			return fmt.Errorf("allow[%d]: action %q is not known", i, c)
		}
	}
	for i, c := range o.Consents {
		if c != ConsentDisturb && c != ConsentCustomerSettings && c != ConsentSNChange {
			return fmt.Errorf("consents[%d]: %q is not known", i, c)
		}
	}
	for name, v := range o.Thresholds {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("thresholds[%s] is not a number", name)
		}
	}
	if err := o.Resources.validate(); err != nil {
		return err
	}
	for i, s := range o.Services {
		if err := s.validate(); err != nil {
			return fmt.Errorf("services[%d]: %w", i, err)
		}
	}
	return nil
}

func (r Resources) validate() error {
	for _, v := range []string{r.SN, r.MAC, r.PONPort, r.SplitterPort, r.LANPort} {
		if len(v) > maxString {
			return fmt.Errorf("resources: a value is longer than %d bytes", maxString)
		}
	}
	return nil
}

func (s Service) validate() error {
	switch {
	case !slices.Contains([]string{"internet", "iptv", "voice", "management"}, s.Kind):
		return fmt.Errorf("kind %q is not known", s.Kind)
	case !slices.Contains([]string{"", "pppoe", "ipoe", "static", "bridge"}, s.Access):
		return fmt.Errorf("access %q is not known", s.Access)
	case !slices.Contains([]string{"", "tcp", "ip", "ethernet"}, s.RateLayer):
		return fmt.Errorf("rate_layer %q is not known", s.RateLayer)
	case s.VLAN > 4094:
		return fmt.Errorf("vlan %d is out of range", s.VLAN)
	case !(s.DownMbps >= 0 && s.DownMbps <= 100_000 && s.UpMbps >= 0 && s.UpMbps <= 100_000):
		return errors.New("down_mbps or up_mbps is out of range")
	case len(s.Account) > 128:
		return errors.New("account is longer than 128 bytes")
	}
	return validMasked(s.Account)
}

// validMasked refuses an account in full: orders and extracts travel inside the
// record.
func validMasked(account string) error {
	if account != "" && !strings.Contains(account, "*") {
		return errors.New("account is not masked: the account in full belongs into the sealed secrets")
	}
	return nil
}

// Technician returns the technician with the key of this id.
func (o Order) Technician(keyID string) (Technician, bool) {
	for _, t := range o.Technicians {
		if t.Key.ID() == keyID {
			return t, true
		}
	}
	return Technician{}, false
}

func (o Order) technicianKeys() []ed25519.PublicKey {
	keys := make([]ed25519.PublicKey, 0, len(o.Technicians))
	for _, t := range o.Technicians {
		keys = append(keys, ed25519.PublicKey(t.Key))
	}
	return keys
}

// Sign seals an order with an operator key.
func (o Order) Sign(operator ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeOrder, o, o.Validate(), operator)
}

// OpenOrder verifies env against the operator keys of a trust list.
func OpenOrder(env Envelope, trust TrustList) (Order, error) {
	var o Order
	if _, err := openDocument(env, TypeOrder, &o, trust.KeysFor(RoleOperator)...); err != nil {
		return Order{}, fmt.Errorf("cannot accept order: %w", err)
	}
	if err := o.Validate(); err != nil {
		return Order{}, fmt.Errorf("cannot accept order: %w: %w", ErrMalformed, err)
	}
	return o, nil
}

// ParseOrder decodes an unsigned order strictly, for tools that make orders.
// It does not validate.
func ParseOrder(data []byte) (Order, error) {
	var o Order
	if err := decodeStrict(data, &o); err != nil {
		return Order{}, fmt.Errorf("cannot read order: %w", err)
	}
	return o, nil
}

// ValidID reports whether s can name an order, a command or a technician: 1 to
// 64 letters, digits, - and _, so that it fits a topic level and a file name.
func ValidID(s string) bool {
	return len(s) > 0 && len(s) <= 64 && onlyNameBytes(s, true)
}

// ValidDevice reports whether s can be a device id: 8 to 23 letters and digits,
// which is also what MQTT 3.1.1 guarantees as a client identifier.
func ValidDevice(s string) bool {
	return len(s) >= 8 && len(s) <= 23 && onlyNameBytes(s, false)
}

func validTenant(s string) bool { return len(s) > 0 && len(s) <= 32 && onlyNameBytes(s, true) }

func onlyNameBytes(s string, dashes bool) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case dashes && (c == '-' || c == '_'):
		default:
			return false
		}
	}
	return true
}
