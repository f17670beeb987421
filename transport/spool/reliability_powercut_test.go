package spool_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable/faultfs"
	"ontagent/transport/spool"
)

// small are bounds that a short schedule reaches.
func small() map[transport.Class]spool.Limits {
	return map[transport.Class]spool.Limits{
		transport.ClassRecord:    {FlashBytes: 16 << 10, Files: 8, RAMBytes: 8 << 10, RAMEntries: 12},
		transport.ClassEvent:     {FlashBytes: 12 << 10, Files: 8, RAMBytes: 8 << 10, RAMEntries: 12},
		transport.ClassTelemetry: {FlashBytes: 16 << 10, Files: 6, RAMBytes: 8 << 10, RAMEntries: 10},
		transport.ClassDebug:     {RAMBytes: 4 << 10, RAMEntries: 6},
	}
}

// powerCuts plays one gateway through several power cuts at random file
// operations, and returns how many there were.
func powerCuts(like faultfs.Like, seed uint64, tell func(string, ...any)) (w *world, cuts int) {
	w = newWorld(like, seed)
	w.tell = tell
	w.confirm = []spool.Confirmation{spool.BySignature, spool.ByBroker}[seed/2%2]
	if w.rnd.IntN(3) > 0 {
		w.limits = small()
	}
	if w.rnd.IntN(4) == 0 {
		w.full = true
		w.disk.SetCapacity(int64(24+w.rnd.IntN(48)) << 10)
	}
	for range 4 + w.rnd.IntN(5) {
		cutting := w.rnd.IntN(8) > 0
		if cutting {
			// Sometimes in what the opening has to mend.
			w.disk.CutIn(w.rnd.IntN([]int{15, 60, 200}[w.rnd.IntN(3)]))
		}
		if err := w.start(); err != nil {
			w.fail("open: %v", err)
			return w, cuts
		}
		w.setOnline(w.rnd.IntN(3) == 0)
		for range 20 + w.rnd.IntN(150) {
			w.step()
			if w.disk.IsCut() {
				break
			}
		}
		w.disk.CutIn(-1)
		switch {
		case w.disk.IsCut() || cutting:
			cuts++
			w.end("cut")
		case w.rnd.IntN(2) == 0:
			w.bounded()
			w.end("kill")
		default:
			w.bounded()
			w.end("close")
		}
		if len(w.problems) > 0 {
			return w, cuts
		}
	}
	if err := w.start(); err != nil {
		w.fail("open: %v", err)
		return w, cuts
	}
	w.drain()
	return w, cuts
}

// TestReliabilityPowerCut cuts the power at random file operations of random
// schedules: what was acknowledged is delivered, or lies in a gap that tells of
// a deliberate drop.
func TestReliabilityPowerCut(t *testing.T) {
	for _, like := range []faultfs.Like{faultfs.Ext4, faultfs.UBIFS} {
		cuts, promised, gaps, rollups, silent, both := 0, 0, 0, 0, 0, 0
		drops, failed := uint64(0), 0
		began := time.Now()
		for seed := uint64(0); cuts < size(60, 5500, 500_000) && failed < 5; seed++ {
			if os.Getenv("LONG") != "" && time.Since(began) > 5*time.Minute {
				break
			}
			w, n := powerCuts(like, seed, nil)
			cuts += n
			promised += w.promised
			gaps += len(w.col.gaps)
			rollups += w.rollups
			silent += w.silent
			both += len(w.both)
			for _, n := range w.drops {
				drops += n
			}
			if len(w.problems) > 0 {
				failed++
				report(t, w, seed, fmt.Sprint(like))
			}
		}
		reliability(t, "power-cut", fmt.Sprintf("simulated %v, random schedules, cuts at file operations", like), cuts, failed == 0,
			"schedules that lost anything acknowledged or left a drop untold %d, of %d records and events; %d drops in %d gap events, %d of durable ones told by a restart's; %d rollups, %d numbers came as a sample and in one",
			failed, promised, drops, gaps, silent, rollups, both)
	}
}
