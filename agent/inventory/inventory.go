// Package inventory notices when what is installed is another: the serial
// number, a MAC address, a port, the optical module. It compares with what is
// kept on flash, so that each change is told once, whatever was restarted in
// between.
//
// What could not be read has not changed. It reads nothing by itself.
package inventory

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"ontagent/collectors"
)

// What there is of an inventory. The values travel and are never renamed.
const (
	SN      = "sn"       // GPON serial number
	WANMAC  = "wan_mac"  // MAC address towards the network
	WANPort = "wan_port" // port that carries the service VLANs
	LANPort = "lan_port" // port that is judged
	Module  = "module"   // vendor, part number and serial number of the optical module
)

// Item is one thing as it was read.
type Item struct {
	What string
	// Value is empty if it could not be read, or is not there.
	Value string
}

// Store keeps the inventory.
type Store interface {
	// Load returns what was saved last, nil if nothing was.
	Load() ([]byte, error)
	// Save replaces it, for good.
	Save(data []byte) error
	// SetAside puts away, and tells of, what Load returned and nobody can read.
	SetAside(why error)
}

// Options configure a Keeper. All are needed.
type Options struct {
	Store Store
	// Publish takes events of type "inventory". It returns when they can't be
	// lost.
	Publish func(collectors.Event)
	Log     *slog.Logger
}

// Keeper knows the inventory. It is safe for concurrent use.
type Keeper struct {
	o Options

	mu        sync.Mutex // guards what follows
	s         state
	candidate map[string]string // read once, differing from what is known
	unsaved   bool
}

// state is what is kept.
type state struct {
	Version int               `json:"v"`
	Items   map[string]string `json:"items"`
	Untold  []change          `json:"untold,omitempty"`
	// Line is the inventory when the present line began, Record the record that
	// it began with.
	Line   map[string]string `json:"line,omitempty"`
	Record uint64            `json:"line_record,omitempty"`
}

type change struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

const (
	stateVersion = 1
	maxItems     = 32
	maxValue     = 128 // bytes
)

// MaxState bounds what a Store is given, in bytes.
const MaxState = 16 << 10

// Interval is a good time between two readings: nothing of an inventory changes
// often, and what does tells so by an event of its own.
const Interval = 10 * time.Minute

// Open returns a Keeper that goes on with what is kept, and tells what a power
// cut kept from being told.
func Open(o Options) *Keeper {
	k := &Keeper{o: o, candidate: map[string]string{}}
	k.s = k.load()
	if len(k.s.Untold) > 0 {
		k.tell()
	}
	return k
}

func (k *Keeper) load() state {
	fresh := state{Version: stateVersion, Items: map[string]string{}}
	data, err := k.o.Store.Load()
	if err != nil {
		k.o.Log.Error("cannot read inventory", "error", err)
		return fresh
	}
	if len(data) == 0 {
		return fresh
	}
	s, err := parse(data)
	if err != nil {
		k.o.Store.SetAside(err)
		return fresh
	}
	return s
}

// parse refuses whatever could not have been saved.
func parse(data []byte) (state, error) {
	var s state
	if len(data) > MaxState {
		return state{}, fmt.Errorf("cannot read inventory: %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, fmt.Errorf("cannot read inventory: %w", err)
	}
	if s.Version != stateVersion || s.Items == nil || len(s.Items) > maxItems || len(s.Line) > maxItems || len(s.Untold) > maxItems {
		return state{}, fmt.Errorf("cannot read inventory: version %d, %d items", s.Version, len(s.Items))
	}
	return s, nil
}

// Observe compares what was read with what is known. A value that differs must
// be read twice in a row: a bus error is no new module.
func (k *Keeper) Observe(items []Item) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := k.unsaved
	for _, it := range items {
		known, is := k.s.Items[it.What]
		switch {
		case it.Value == "", len(it.Value) > maxValue:
		case !is && len(k.s.Items) >= maxItems:
		case !is:
			k.s.Items[it.What] = it.Value // the first of its kind is no change
			changed = true
		case known == it.Value:
			delete(k.candidate, it.What)
		case k.candidate[it.What] != it.Value:
			k.candidate[it.What] = it.Value
		default:
			delete(k.candidate, it.What)
			k.s.Items[it.What] = it.Value
			if len(k.s.Untold) < maxItems {
				k.s.Untold = append(k.s.Untold, change{it.What, known, it.Value})
			}
			changed = true
		}
	}
	if !changed {
		return
	}
	// On flash first: a power cut in between tells it again, and never loses it.
	k.save()
	if len(k.s.Untold) > 0 {
		k.tell()
	}
}

// tell tells the changes that have not been told.
func (k *Keeper) tell() {
	for _, c := range k.s.Untold {
		k.o.Publish(collectors.Event{Type: "inventory", What: c.What, Before: c.Before, After: c.After})
		k.o.Log.Info("inventory changed", "what", c.What, "before", c.Before, "after", c.After)
	}
	k.s.Untold = nil
	k.save()
}

// save keeps the state. Where flash does not take it the changes are told all
// the same; it is tried again with the next reading.
func (k *Keeper) save() {
	data, err := json.Marshal(k.s)
	if err == nil {
		err = k.o.Store.Save(data)
	}
	if err != nil && !k.unsaved {
		k.o.Log.Warn("cannot keep inventory", "error", err)
	}
	k.unsaved = err != nil
}

// Items returns what is known, sorted by name.
func (k *Keeper) Items() []Item {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Item
	for _, what := range slices.Sorted(maps.Keys(k.s.Items)) {
		out = append(out, Item{what, k.s.Items[what]})
	}
	return out
}

// Line returns the number of the record that the present line began with, 0 if
// none is known, and whether the gateway's serial number is another since.
func (k *Keeper) Line() (record uint64, replaced bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	then, now := k.s.Line[SN], k.s.Items[SN]
	return k.s.Record, then != "" && now != "" && then != now
}

// NewLine says that with the numbered record another line began.
func (k *Keeper) NewLine(record uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.s.Record, k.s.Line = record, maps.Clone(k.s.Items)
	k.save()
}
