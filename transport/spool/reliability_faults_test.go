package spool_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable/faultfs"
	"ontagent/transport/spool"
)

// faultSchedule plays a schedule in which every kind of file operation occurs,
// with a fault from call n on, which ends after most of it. It returns how many
// calls there were, and whether the fault hit.
func faultSchedule(n int, fault error, forever bool) (w *world, calls int, hit bool) {
	w = newWorld(faultfs.Like(n&1), 11)
	w.limits = small()
	w.confirm = spool.BySignature
	// A life before, so that there is something to mend.
	if err := w.start(); err != nil {
		w.fail("open: %v", err)
		return w, 0, false
	}
	for range 60 {
		w.step()
	}
	w.end("cut")
	w.disk.ResetCounts()
	if n >= 0 {
		w.disk.Inject(faultfs.Fault{N: n, Forever: forever, Err: fault, Bytes: -1})
	}
	if err := w.start(); err != nil {
		w.fail("open: %v", err)
		return w, 0, false
	}
	for range 150 {
		w.step()
	}
	// What is measured now is told, whatever the flash does.
	w.setOnline(true)
	for range 400 {
		if e, ok := w.next(); ok {
			w.arrive(e)
			w.quietly(func() { w.q.Done(e) })
		}
	}
	w.add(transport.ClassTelemetry)
	newest, told := key{transport.ClassTelemetry, w.epoch, w.nth[transport.ClassTelemetry]}, false
	for range 400 {
		e, ok := w.next()
		if !ok {
			break
		}
		told = told || keyOf(e.Header) == newest
		w.arrive(e)
		w.quietly(func() { w.q.Done(e) })
	}
	if !told {
		w.fail("telemetry does not go on from memory")
	}
	calls = w.disk.Calls()
	hit = w.disk.Heal() > 0
	for range 3 { // longer than anything waits before it tries again
		w.clock.now = w.clock.now.Add(11 * time.Minute)
		w.quietly(w.q.Maintain)
	}
	if h := w.q.Health(); h.Degraded {
		w.fail("with the flash well again: %+v", h)
	}
	for range 20 {
		w.step()
	}
	w.bounded()
	if n%3 != 0 {
		w.end([]string{"cut", "kill"}[n&1])
		if err := w.start(); err != nil {
			w.fail("open: %v", err)
			return w, calls, hit
		}
	}
	w.drain()
	return w, calls, hit
}

// TestReliabilityFileFaults fails each file operation of a long schedule in
// turn, once and for good.
func TestReliabilityFileFaults(t *testing.T) {
	faults := []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE}
	w, calls, _ := faultSchedule(-1, nil, false)
	if len(w.problems) > 0 {
		t.Fatalf("without a fault: %q", w.problems)
	}
	for _, fault := range faults {
		trials, failed := 0, 0
		promised := 0
		for n := 0; n < calls+200 && failed < 4; n += size(97, 1, 1) {
			for _, forever := range []bool{false, true} {
				w, _, hit := faultSchedule(n, fault, forever)
				if !hit {
					continue
				}
				trials++
				promised += w.promised
				if len(w.problems) > 0 {
					failed++
					report(t, w, 11, fmt.Sprintf("%v from call %d, forever %v", fault, n, forever))
				}
			}
		}
		reliability(t, "file-faults", fmt.Sprintf("%v at each file operation, once and for good", fault), trials, failed == 0 && trials > 2,
			"no panic; telemetry went on from memory; well again within 11 minutes; schedules that lost anything %d, acknowledged records and events %d",
			failed, promised)
	}
}

// jumble plays a gateway whose disk has several troubles at a time, and returns
// how many calls failed.
func jumble(seed uint64, tell func(string, ...any)) (w *world, failed int) {
	w = newWorld(faultfs.Like(seed%2), seed)
	w.tell = tell
	w.limits, w.full = small(), true
	for range 4 {
		for range w.rnd.IntN(4) {
			w.disk.Inject(faultfs.Fault{
				Call: []string{
					"", "", faultfs.CallWrite, faultfs.CallDatasync, faultfs.CallSync, faultfs.CallSyncDir, faultfs.CallRemove,
				}[w.rnd.IntN(7)],
				N: w.rnd.IntN(60), Forever: w.rnd.IntN(3) == 0, Bytes: -1,
				Err: []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE, nil}[w.rnd.IntN(5)],
			})
		}
		if w.rnd.IntN(3) == 0 {
			w.disk.SetCapacity(w.disk.Used() + int64(w.rnd.IntN(30))<<10)
		}
		if err := w.start(); err != nil {
			w.fail("open: %v", err)
			return w, failed
		}
		for range 80 {
			w.step()
		}
		failed += w.disk.Heal()
		w.disk.SetCapacity(0)
		if w.rnd.IntN(2) == 0 {
			for range 40 {
				w.step()
			}
		}
		w.end([]string{"cut", "kill", "close"}[w.rnd.IntN(3)])
		if len(w.problems) > 0 {
			return w, failed
		}
	}
	if err := w.start(); err != nil {
		w.fail("open: %v", err)
		return w, failed
	}
	w.drain()
	return w, failed
}

// TestReliabilityFileFaultsInJumble injects several faults of all kinds at
// random, short writes and a full disk among them.
func TestReliabilityFileFaultsInJumble(t *testing.T) {
	trials, failed, promised := 0, 0, 0
	for seed := uint64(0); seed < uint64(size(20, 1000, 30_000)) && failed < 5; seed++ {
		w, n := jumble(seed, nil)
		trials += n
		promised += w.promised
		if len(w.problems) > 0 {
			failed++
			report(t, w, seed, "jumble")
		}
	}
	reliability(t, "file-faults", "several at random, short writes, full disks, then power cuts", trials, failed == 0,
		"no panic; schedules that lost anything %d, acknowledged records and events %d", failed, promised)
}
