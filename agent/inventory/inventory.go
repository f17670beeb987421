// Package inventory notices when what is installed is another: the serial
// number, a MAC address, a port, the optical module. It compares with what is
// kept on flash, so that each change is told once, whatever was restarted in
// between.
//
// What could not be read has not changed. It reads nothing by itself.
package inventory

import (
	"errors"
	"log/slog"
	"sync"

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
	// Load decodes what was saved last into v and has check look at it. It
	// returns false if nothing was saved, or nothing that can be used: that it
	// puts aside, and tells of.
	Load(v any, check func() error) bool
	// Save replaces it, for good.
	Save(v any) error
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

	mu      sync.Mutex // guards what follows
	s       state
	unsaved bool
}

// state is what is kept.
type state struct {
	Version int      `json:"v"`
	Items   []*known `json:"items"`
	Untold  []change `json:"untold,omitempty"`
	Line    Line     `json:"line"`
}

// known is an item as it is kept.
type known struct {
	_     [0]func() // never compared: that would cost code on MIPS
	What  string    `json:"what"`
	Value string    `json:"value"`

	candidate string // read once, differing
}

// Line is what is known of the line that the gateway is on.
type Line struct {
	// Record is the number of the record that it began with; 0: none.
	Record uint64 `json:"record"`
	// DownMbps and UpMbps are the rates that it was ordered with; 0: not known.
	DownMbps float64 `json:"down_mbps"`
	UpMbps   float64 `json:"up_mbps"`
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

// Open returns a Keeper that goes on with what is kept, and tells what a power
// cut kept from being told.
func Open(o Options) *Keeper {
	k := &Keeper{o: o}
	if !o.Store.Load(&k.s, k.s.check) {
		k.s = state{Version: stateVersion}
	}
	if len(k.s.Untold) > 0 {
		k.tell()
	}
	return k
}

var errState = errors.New("this is no inventory that was saved")

// check refuses whatever could not have been saved.
func (s *state) check() error {
	if s.Version != stateVersion || len(s.Items) > maxItems || len(s.Untold) > maxItems {
		return errState
	}
	for _, it := range s.Items {
		if it == nil || it.What == "" || it.Value == "" {
			return errState
		}
	}
	return nil
}

// Observe compares what was read with what is known. A value that differs must
// be read twice in a row: a bus error is no new module.
func (k *Keeper) Observe(items []Item) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := k.unsaved
	for _, it := range items {
		if it.Value == "" || len(it.Value) > maxValue {
			continue
		}
		var old *known
		for _, o := range k.s.Items {
			if o.What == it.What {
				old = o
			}
		}
		switch {
		case old == nil && len(k.s.Items) >= maxItems:
		case old == nil:
			k.s.Items = append(k.s.Items, &known{What: it.What, Value: it.Value}) // the first of its kind is no change
			changed = true
		case old.Value == it.Value:
			old.candidate = ""
		case old.candidate != it.Value:
			old.candidate = it.Value
		default:
			if len(k.s.Untold) < maxItems {
				k.s.Untold = append(k.s.Untold, change{it.What, old.Value, it.Value})
			}
			old.Value, old.candidate = it.Value, ""
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
	err := k.o.Store.Save(&k.s)
	if err != nil && !k.unsaved {
		k.o.Log.Warn("cannot keep inventory", "error", err)
	}
	k.unsaved = err != nil
}

// Line returns what is known of the present line.
func (k *Keeper) Line() Line {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.s.Line
}

// NewLine says that another line began.
func (k *Keeper) NewLine(l Line) {
	k.mu.Lock()
	k.s.Line = l
	k.save()
	k.mu.Unlock()
}
