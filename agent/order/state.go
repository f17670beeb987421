package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// maxUsed bounds the orders and keys remembered; an entry is forgotten only
// after its order has certainly expired.
const maxUsed = 512

// state is what must survive a restart so that nothing runs twice.
type state struct {
	V        int                  `json:"v"`
	Trust    *Envelope            `json:"trust,omitempty"`
	Orders   map[string]usedOrder `json:"orders"`
	Counters map[string]usedKey   `json:"counters"` // by key id
	// Forgotten is the latest end of an order that was pruned. What ended no
	// later and is not remembered may have been used: it is refused, however
	// the clock is set afterwards.
	Forgotten time.Time `json:"forgotten,omitzero"`
	// Config is the newest remote configuration. It stays when its key is
	// revoked, so that what is older stays refused.
	Config *usedConfig `json:"config,omitempty"`
}

// usedConfig is what is kept of a Config: not its envelope, which may carry a
// whole trust list and would be written again with every command.
type usedConfig struct {
	// Root, Tenant and Device are whom it was signed for: for another gateway
	// than this one is now, it says nothing.
	Root     string   `json:"root"` // KeyID
	Tenant   string   `json:"tenant"`
	Device   string   `json:"device"`
	Version  uint64   `json:"version"`
	Digest   string   `json:"sha256"`
	KeyID    string   `json:"key_id"`
	Settings Settings `json:"settings"`
}

type usedOrder struct {
	Rev      uint64    `json:"rev"` // highest seen
	Runs     uint32    `json:"runs"`
	Closed   bool      `json:"closed,omitempty"`
	NotAfter time.Time `json:"not_after"`
}

type usedKey struct {
	Counter  uint64    `json:"counter"` // highest seen
	NotAfter time.Time `json:"not_after"`
	// Kept marks a key that signs without orders, hence without an end.
	Kept bool `json:"kept,omitempty"`
}

func parseState(data []byte) (state, error) {
	st := state{V: 1}
	if len(data) > 0 {
		if err := decodeKnown(data, &st); err != nil { // order ids are keys, in any case
			return state{}, err
		}
		if st.V != 1 {
			return state{}, fmt.Errorf("version %d is not known", st.V)
		}
	}
	if c := st.Config; c != nil {
		if c.Version == 0 || c.Digest == "" || c.KeyID == "" {
			return state{}, errors.New("the configuration in force has no version, digest or key")
		}
		if err := c.Settings.Validate(); err != nil {
			return state{}, err
		}
	}
	if st.Orders == nil {
		st.Orders = map[string]usedOrder{}
	}
	if st.Counters == nil {
		st.Counters = map[string]usedKey{}
	}
	return st, nil
}

func (s state) encode() ([]byte, error) { return json.Marshal(s) }

func (s state) clone() state {
	s.Orders = maps.Clone(s.Orders)
	s.Counters = maps.Clone(s.Counters)
	return s
}

// use counts a command in, or refuses it.
func (s state) use(v Verified) error {
	key, known := s.Counters[v.keyID]
	switch {
	case v.Command.Counter <= key.Counter:
		return refuse(ReasonReplayed, "counter %d is not above %d", v.Command.Counter, key.Counter)
	case !known && len(s.Counters) >= maxUsed:
		return refuse(ReasonInternal, "%d keys are remembered already", maxUsed)
	case !known && s.mayBeForgotten(v):
		return s.refuseForgotten(v)
	}
	key.Counter = v.Command.Counter
	if v.Request.Order == nil {
		key.Kept = true
		s.Counters[v.keyID] = key
		return nil
	}
	if v.Order.NotAfter.After(key.NotAfter) {
		key.NotAfter = v.Order.NotAfter
	}
	s.Counters[v.keyID] = key
	return s.useOrder(v)
}

func (s state) useOrder(v Verified) error {
	used, known := s.Orders[v.Order.Order]
	switch {
	case !known && len(s.Orders) >= maxUsed:
		return refuse(ReasonInternal, "%d orders are remembered already", maxUsed)
	case !known && s.mayBeForgotten(v):
		return s.refuseForgotten(v)
	case used.Closed && v.Command.Type != Cancel:
		// What was begun before the order was closed may still be stopped.
		return refuse(ReasonOrderClosed, "order %s is closed", v.Order.Order)
	case v.Order.Rev < used.Rev:
		return refuse(ReasonOrderSuperseded, "rev %d of order %s is superseded by %d", v.Order.Rev, v.Order.Order, used.Rev)
	}
	if usesRun(v.Command.Type) {
		if used.Runs >= v.Order.MaxRuns {
			return refuse(ReasonRunsUsedUp, "all %d runs of order %s are used up", v.Order.MaxRuns, v.Order.Order)
		}
		used.Runs++
	}
	used.Rev = v.Order.Rev
	if v.Order.NotAfter.After(used.NotAfter) {
		used.NotAfter = v.Order.NotAfter
	}
	s.Orders[v.Order.Order] = used
	return nil
}

// mayBeForgotten reports whether v is of a time of which not all is remembered.
func (s state) mayBeForgotten(v Verified) bool {
	return v.Request.Order != nil && !v.Order.NotAfter.After(s.Forgotten)
}

func (s state) refuseForgotten(v Verified) error {
	return refuse(ReasonExpired, "order %s is valid until %s, of which no uses are remembered any more",
		v.Order.Order, v.Order.NotAfter.UTC().Format(time.RFC3339))
}

func usesRun(t CommandType) bool {
	return t == Accept || t == Provision || t == RepairCmd || t == Inspection
}

// prune forgets what can be refused as expired without being remembered, and
// keeps how much that is. Keys that sign without orders are never forgotten.
func (s *state) prune(now time.Time) {
	const margin = 24 * time.Hour
	forget := func(notAfter time.Time) bool {
		if !notAfter.Add(margin).Before(now) {
			return false
		}
		if notAfter.After(s.Forgotten) {
			s.Forgotten = notAfter
		}
		return true
	}
	if len(s.Orders) >= maxUsed/2 {
		maps.DeleteFunc(s.Orders, func(_ string, o usedOrder) bool { return forget(o.NotAfter) })
	}
	if len(s.Counters) >= maxUsed/2 {
		maps.DeleteFunc(s.Counters, func(_ string, k usedKey) bool { return !k.Kept && forget(k.NotAfter) })
	}
}
