package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable/faultfs"
)

// stored is what a collector signs for an entry that reached it.
func stored(t *testing.T, e transport.Entry) transport.Stored {
	t.Helper()
	payload, err := transport.Encode(e.Header, e.Message.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(payload)
	return transport.Stored{Class: e.Header.Class, Epoch: e.Header.Epoch, Seq: e.Header.Seq, SHA256: hex.EncodeToString(sum[:])}
}

func TestConfirmLetsGoOnlyWhatTheCollectorHas(t *testing.T) {
	for _, memory := range []bool{false, true} {
		t.Run(fmt.Sprintf("memory only %v", memory), func(t *testing.T) {
			s := newSpooler(t)
			if memory {
				s.o.FS = nil
			}
			q := s.open()
			q.Online(true)
			var sent []transport.Entry
			for i := range 3 {
				err := q.Put(t.Context(), message(transport.ClassRecord, fmt.Sprintf(`{"n":%d}`, i)))
				if err != nil && !errors.Is(err, transport.ErrNotDurable) {
					t.Fatal(err)
				}
				e := next(t, q)
				q.Done(e)
				sent = append(sent, e)
			}
			forged := stored(t, sent[1])
			forged.SHA256 = strings.Repeat("ab", 32)
			if err := q.Confirm(5, []transport.Stored{stored(t, sent[0]), forged, stored(t, sent[2])}); err != nil {
				t.Fatal(err)
			}
			if d := q.Stats()[rankRecord].Depth; d != 1 {
				t.Fatalf("%d are left, want the forged one", d)
			}
			if err := q.Confirm(4, []transport.Stored{stored(t, sent[1])}); !errors.Is(err, ErrStale) {
				t.Errorf("an older acknowledgement: %v", err)
			}
			unsent := stored(t, sent[1])
			unsent.Seq = 9
			if err := q.Confirm(6, []transport.Stored{unsent}); err != nil {
				t.Errorf("of what was never sent: %v", err)
			}
			if d := q.Stats()[rankRecord].Depth; d != 1 {
				t.Fatalf("%d are left after refusals", d)
			}
			if err := q.Confirm(6, []transport.Stored{unsent, stored(t, sent[1])}); err != nil {
				t.Fatal(err)
			}
			if d := q.Stats()[rankRecord].Depth; d != 0 {
				t.Errorf("%d are left", d)
			}
		})
	}
}

// TestDigestIsTheSameEverywhere: what goes out from memory, and what is read
// from flash later, has one digest.
func TestDigestIsTheSameEverywhere(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	q.Online(true)
	disk.Inject(faultfs.Fault{Forever: true, Err: syscall.EIO, Bytes: -1})
	var sent []transport.Stored
	for i := range 500 {
		s.clock.pass(time.Duration(i*i)*time.Millisecond + time.Duration(i)*time.Microsecond)
		err := q.Put(t.Context(), message(transport.ClassEvent, fmt.Sprintf(`{ "n" : %d, "s":"<&>" }`, i)))
		if !errors.Is(err, transport.ErrNotDurable) {
			t.Fatal(err)
		}
		e := next(t, q)
		sent = append(sent, stored(t, e))
		q.Done(e)
		if i%100 == 99 {
			disk.Heal()
			s.clock.pass(retryInterval)
			q.Maintain()
			if err := q.Confirm(1, sent); err != nil {
				t.Fatal(err)
			}
			if n := q.Stats()[rankEvent].Unconfirmed; n > 0 {
				t.Fatalf("%d are not known again", n)
			}
			drain(q) // what the spool itself had to tell
			if err := q.Acknowledge(1, []transport.Point{{Class: transport.ClassEvent, Epoch: 1, Seq: q.classes[rankEvent].last}}); err != nil {
				t.Fatal(err)
			}
			sent = nil
			disk.Inject(faultfs.Fault{Forever: true, Err: syscall.EIO, Bytes: -1})
		}
	}
}

// TestConfirmInAnyOrderLeavesNoHole: what is confirmed out of order, over more
// segments than one, is not taken for damage after a restart.
func TestConfirmInAnyOrderLeavesNoHole(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	q.Online(true)
	var sent []transport.Entry
	for i := range 40 {
		put(t, q, transport.ClassRecord, fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", 9000)))
		e := next(t, q)
		q.Done(e)
		sent = append(sent, e)
	}
	if n := q.Stats()[rankRecord].Files; n < 4 {
		t.Fatalf("only %d segments", n)
	}
	var signed []transport.Stored
	for i, e := range sent {
		if i != 2 {
			signed = append(signed, stored(t, e))
		}
	}
	if err := q.Confirm(1, signed); err != nil {
		t.Fatal(err)
	}
	if d := q.Stats()[rankRecord].Depth; d != 1 {
		t.Fatalf("%d are left", d)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}

	q = s.open()
	for _, got := range drain(q) {
		if strings.Contains(got, transport.GapCorrupt) {
			t.Errorf("damage is claimed: %s", got)
		}
	}
	if err := q.Confirm(2, append(signed, stored(t, sent[2]))); err != nil {
		t.Fatal(err)
	}
	if st := q.Stats()[rankRecord]; st.Depth != 0 || st.Files != 0 {
		t.Errorf("left: %+v", st)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = s.open()
	for _, got := range drain(q) {
		if strings.Contains(got, transport.GapCorrupt) {
			t.Errorf("damage is claimed at the end: %s", got)
		}
	}
}

// TestEventsThatComeTooFastGoAtOnce: what keeps them off the flash for a moment
// does not keep them off the line, and they are durable all the same.
func TestEventsThatComeTooFastGoAtOnce(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	q.Online(true)
	late := 0
	var sent []transport.Entry
	for i := range 2 * eventBurst {
		err := q.Put(t.Context(), message(transport.ClassEvent, fmt.Sprintf(`{"n":%d}`, i)))
		if errors.Is(err, transport.ErrNotDurable) {
			late++
		} else if err != nil {
			t.Fatal(err)
		}
		e := next(t, q) // no time has passed
		if e.Header.Seq != uint64(i+1) {
			t.Fatalf("event %d came as %d", i+1, e.Header.Seq)
		}
		q.Done(e)
		sent = append(sent, e)
	}
	if late == 0 {
		t.Fatal("none came too fast")
	}
	q.Maintain()
	s.clock.pass(1e9)
	q.Maintain()

	q = s.open() // the power was cut: nobody has signed for them
	got := map[uint64]bool{}
	for {
		e, ok := tryNext(q)
		if !ok {
			break
		}
		got[e.Header.Seq] = got[e.Header.Seq] || e.Header.Epoch == 1
		q.Done(e)
	}
	for _, e := range sent {
		if !got[e.Header.Seq] {
			t.Errorf("event %d is gone", e.Header.Seq)
		}
	}
}
