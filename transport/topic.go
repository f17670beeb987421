package transport

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of what may stand in a topic, in bytes.
const (
	MaxTenant = 32
	MaxName   = 64
	minDevice = 8
	maxDevice = 23 // what every MQTT 3.1.1 broker takes as client id
)

// topicRoot is the first two levels: the product and the version of the
// contract.
const topicRoot = "ont/1/"

// ErrTopic is what errors.Is finds in every error about a topic.
var ErrTopic = errors.New("not a topic of this contract")

// Address is a topic taken apart.
type Address struct {
	Tenant string
	Device string
	Kind   Kind
	Name   string // empty where the kind has none
}

// Topic builds ont/1/<tenant>/<device>/<kind>[/<name>]. The error is
// compatible with errors.Is(err, ErrTopic).
func Topic(tenant, device string, kind Kind, name string) (string, error) {
	named, known := kind.named()
	switch {
	case !ValidTenant(tenant):
		return "", fmt.Errorf("%w: tenant %.40q is not 1–%d of A–Z a–z 0–9 _ -", ErrTopic, tenant, MaxTenant)
	case !ValidDevice(device):
		return "", fmt.Errorf("%w: device %.40q is not %d–%d letters and digits", ErrTopic, device, minDevice, maxDevice)
	case !known:
		return "", fmt.Errorf("%w: unknown kind %.40q", ErrTopic, string(kind))
	case named && !ValidName(name):
		return "", fmt.Errorf("%w: name %.80q is not 1–%d of A–Z a–z 0–9 _ -", ErrTopic, name, MaxName)
	case !named && name != "":
		return "", fmt.Errorf("%w: kind %q has no name", ErrTopic, string(kind))
	}
	return join(tenant, device, kind, name), nil
}

// ParseTopic takes a topic apart. It accepts exactly what Topic builds; the
// error is compatible with errors.Is(err, ErrTopic).
func ParseTopic(topic string) (Address, error) {
	rest, ok := strings.CutPrefix(topic, topicRoot)
	if !ok || len(rest) > MaxTenant+maxDevice+MaxName+16 {
		return Address{}, fmt.Errorf("%w: %.80q", ErrTopic, topic)
	}
	var a Address
	a.Tenant, rest, _ = strings.Cut(rest, "/")
	a.Device, rest, _ = strings.Cut(rest, "/")
	kind, name, slash := strings.Cut(rest, "/")
	a.Kind, a.Name = Kind(kind), name
	if slash && name == "" {
		return Address{}, fmt.Errorf("%w: %.80q ends in a slash", ErrTopic, topic)
	}
	if _, err := Topic(a.Tenant, a.Device, a.Kind, a.Name); err != nil {
		return Address{}, err
	}
	return a, nil
}

// Filter builds a subscription filter. Each part is either valid in a topic or
// "+", any; the name of a kind that has none is ignored.
func Filter(tenant, device string, kind Kind, name string) (string, error) {
	named, known := kind.named()
	if !named {
		name = ""
	}
	switch {
	case tenant != "+" && !ValidTenant(tenant),
		device != "+" && !ValidDevice(device),
		!known,
		named && name != "+" && !ValidName(name):
		return "", fmt.Errorf("%w: filter of tenant %.40q, device %.40q, kind %.40q, name %.80q",
			ErrTopic, tenant, device, string(kind), name)
	}
	return join(tenant, device, kind, name), nil
}

func join(tenant, device string, kind Kind, name string) string {
	topic := topicRoot + tenant + "/" + device + "/" + string(kind)
	if name != "" {
		topic += "/" + name
	}
	return topic
}

// ValidTenant reports whether s may stand as tenant: 1–32 letters, digits,
// '_' and '-'. Brokers give a meaning to the rest ('/', '+', '#', '$', and '.'
// where topics become subjects).
func ValidTenant(s string) bool { return safe(s, MaxTenant) }

// ValidName reports whether s may stand as name – a group, an event type, an
// order, a command id: 1–64 letters, digits, '_' and '-'.
func ValidName(s string) bool { return safe(s, MaxName) }

// ValidDevice reports whether s may name a device: 8–23 letters and digits.
func ValidDevice(s string) bool {
	if len(s) < minDevice || len(s) > maxDevice {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) {
			return false
		}
	}
	return true
}

func safe(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// named reports whether messages of kind k carry a name, and whether k is a
// kind at all.
func (k Kind) named() (named, known bool) {
	switch k {
	case KindTelemetry, KindEvent, KindBackfill, KindRecord, KindStatus, KindCommand:
		return true, true
	case KindState, KindInfo, KindPending, KindConfig, KindAck:
		return false, true
	}
	return false, false
}

// down reports whether k is received by a device rather than sent by it.
func (k Kind) down() bool {
	return k == KindCommand || k == KindConfig || k == KindAck
}
