package spool

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

// segmentOf returns the bytes of a segment and its entries.
func segmentOf(n int) (segID, []byte, []transport.Entry) {
	id := segID{epoch: 7, first: 10, part: 1}
	b := appendHeader(nil, id, rankEvent, 0, span{1, 9})
	var entries []transport.Entry
	for i := range n {
		e := transport.Entry{
			Header: transport.Header{
				V: 1, Device: testDevice, Epoch: 7, Class: transport.ClassEvent, Seq: 10 + uint64(i),
				UptimeS: float64(i) + 0.123, TimeMS: 1700000000123, Clock: clocks[i%len(clocks)],
			},
			Message: transport.Message{
				Class: transport.ClassEvent, Kind: kinds[1+i%(len(kinds)-1)], Name: "link"[:i%5],
				Retain: i%2 == 0, Body: json.RawMessage(`{"光衰":` + string(bytes.Repeat([]byte{'1'}, 1+i%9)) + `}`),
			},
		}
		entries = append(entries, e)
		b = appendRecord(b, id.seed(rankEvent), id.first, e)
	}
	return id, b, entries
}

func parsed(b []byte, id segID) (contents, []transport.Entry) {
	var got []transport.Entry
	c := scan(b, id, rankEvent, func(_ int, r record) {
		got = append(got, r.entry(testDevice, id.epoch, transport.ClassEvent))
	})
	return c, got
}

func TestFormatRoundTrip(t *testing.T) {
	id, b, want := segmentOf(40)
	c, got := parsed(b, id)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !c.header.ok || len(c.damage) > 0 || c.header.before != (span{1, 9}) || c.last != 49 {
		t.Errorf("contents %+v", c)
	}
	for _, other := range []segID{{epoch: 7, first: 11, part: 1}, {epoch: 8, first: 10, part: 1}, {epoch: 7, first: 10}} {
		if c, got := parsed(b, other); len(got) > 0 || c.header.ok {
			t.Errorf("segment passes for %v", other)
		}
	}
	if c := scan(b, id, rankRecord, func(int, record) { t.Error("record passes in another class") }); c.header.ok {
		t.Error("header passes in another class")
	}
}

func TestNameRoundTrip(t *testing.T) {
	for _, id := range []segID{{0, 1, 0}, {17, 300, 0}, {1<<64 - 1, 1<<62 - 1, 255}} {
		if got, ok := parseName(id.name()); !ok || got != id {
			t.Errorf("%s: %v, %v", id.name(), got, ok)
		}
	}
	for _, name := range []string{
		"", ".seg", "x", "1-1.seg", "0000000000000001-0000000000000000.seg", "0000000000000001-0000000000000001-00.seg",
		"0000000000000001-000000000000000G.seg", "0000000000000001-0000000000000001.seg~", "0000000000000001-ffffffffffffffff.seg",
		"000000000000000A-0000000000000001.seg", "+000000000000001-0000000000000001.seg",
	} {
		if id, ok := parseName(name); ok {
			t.Errorf("%q is %v", name, id)
		}
	}
}

// TestScanLosesOnlyWhatIsTouched flips every byte and cuts at every offset.
func TestScanLosesOnlyWhatIsTouched(t *testing.T) {
	n := 30
	if testing.Short() {
		n = 10
	}
	id, b, want := segmentOf(n)
	ends := []int{headerSize}
	scan(b, id, rankEvent, func(off int, r record) { ends = append(ends, off+recExtra+len(r.name)+len(r.body)) })
	hit := func(from, to int) (rest []transport.Entry) {
		for i, e := range want {
			if ends[i+1] <= from || to <= ends[i] {
				rest = append(rest, e)
			}
		}
		return rest
	}
	for i := range b {
		changed := slices.Clone(b)
		changed[i] ^= byte(1 + i%255)
		if _, got := parsed(changed, id); !reflect.DeepEqual(got, hit(i, i+1)) {
			t.Fatalf("byte %d flipped: %d of %d entries", i, len(got), len(want))
		}
		if c, got := parsed(b[:i], id); !reflect.DeepEqual(got, hit(i, len(b))) {
			t.Fatalf("cut to %d: %d entries, %+v", i, len(got), c)
		}
		zeroed := append(slices.Clone(b[:i]), make([]byte, len(b)-i)...)
		if _, got := parsed(zeroed, id); !reflect.DeepEqual(got, hit(i, len(b))) && b[i] != 0 {
			t.Fatalf("zeros from %d on: %d entries", i, len(got))
		}
	}
}

func TestScanIsBounded(t *testing.T) {
	// The worst there is: everywhere a record may begin that claims to be long.
	b := bytes.Repeat([]byte{recMagic, 3 << 3, 0, 0, 0x7f, 0}, maxFile/6)
	began := time.Now()
	scan(b, segID{epoch: 1, first: 1}, rankRecord, func(int, record) { t.Error("found a record") })
	if d := time.Since(began); d > time.Second {
		t.Errorf("scanning took %v", d)
	}
}

func FuzzScan(f *testing.F) {
	id, b, _ := segmentOf(3)
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add(b[headerSize:])
	f.Add(append(slices.Clone(b), make([]byte, 50)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		end, last := 0, uint64(0)
		c := scan(b, id, rankEvent, func(off int, r record) {
			if off < end || r.seq <= last || r.seq < id.first {
				t.Fatalf("record %d at %d after %d at %d", r.seq, off, last, end)
			}
			end, last = off+recExtra+len(r.name)+len(r.body), r.seq
			e := r.entry(testDevice, id.epoch, transport.ClassEvent)
			again := appendRecord(nil, id.seed(rankEvent), id.first, e)
			if !bytes.Equal(again[:recHead], b[off:off+recHead]) && b[off+1]>>3 != 0 {
				// Bits that mean nothing do not validate by chance.
				t.Fatalf("% x parses to % x", b[off:end], again)
			}
		})
		if end > len(b) || c.last != last {
			t.Fatalf("%+v", c)
		}
		for _, d := range c.damage {
			if d.from > d.to || d.to > len(b) {
				t.Fatalf("damage %+v of %d bytes", d, len(b))
			}
		}
	})
}

func testCursor() cursor {
	return cursor{
		generation: 3, ack: 9, told: 4, clean: 5,
		points: []cursorEntry{{0, true, point{5, 10}, 12}, {2, false, point{4, 1 << 60}, 1 << 61}},
	}
}

func TestCursorRoundTrip(t *testing.T) {
	want := testCursor()
	b := want.encode()
	got, ok := decodeCursor(b)
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, ok)
	}
	for i := range b {
		changed := slices.Clone(b)
		changed[i] ^= 0x40
		if _, ok := decodeCursor(changed); ok {
			t.Errorf("byte %d flipped, and it holds", i)
		}
		if _, ok := decodeCursor(b[:i]); ok {
			t.Errorf("cut to %d, and it holds", i)
		}
	}
	many := cursor{points: make([]cursorEntry, 2*cursorMost)}
	if b := many.encode(); len(b) > cursorLimit {
		t.Errorf("%d bytes, limit %d", len(b), cursorLimit)
	} else if _, ok := decodeCursor(b); !ok {
		t.Error("too many points do not hold")
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(testCursor().encode())
	f.Add(cursor{}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := decodeCursor(b); ok && !bytes.Equal(c.encode(), b) && len(c.points) <= cursorMost {
			t.Errorf("% x decodes to %+v", b, c)
		}
	})
}
