package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"ontagent/transport"
	"ontagent/transport/durable"
)

// Report is what Check found in a spool's directory.
type Report struct {
	Dir    string       `json:"dir"`
	Files  []FileReport `json:"files"`
	Cursor CursorReport `json:"cursor"`
	// Damaged counts files that hold damage, or what no spool writes there.
	Damaged int `json:"damaged"`
}

// FileReport is about one file.
type FileReport struct {
	Path     string          `json:"path"` // below Dir
	Class    transport.Class `json:"class,omitempty"`
	Epoch    uint64          `json:"epoch,omitempty"`
	FirstSeq uint64          `json:"first_seq,omitempty"`
	LastSeq  uint64          `json:"last_seq,omitempty"`
	Entries  int             `json:"entries"`
	Bytes    int64           `json:"bytes"`
	Level    int             `json:"level,omitempty"` // 1 to 3: rollups of 1, 5 and 30 minutes
	Problems []Problem       `json:"problems,omitempty"`
}

// Problem says what is wrong in a file, and where.
type Problem struct {
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	What   string `json:"what"`
	// Harmless is set on what a power cut leaves in the ordinary course: the
	// rest of a write that nobody was told is durable.
	Harmless bool `json:"harmless,omitempty"`
}

// CursorReport is about the cursor.
type CursorReport struct {
	Slots      [2]string     `json:"slots"` // "ok", "missing", or what is wrong
	Generation uint64        `json:"generation"`
	AckVersion uint64        `json:"ack_version"`
	ToldEpoch  uint64        `json:"told_epoch"`
	CleanEpoch uint64        `json:"clean_epoch,omitempty"` // the last epoch, if it ended cleanly
	Gone       []CursorPoint `json:"gone,omitempty"`
}

// CursorPoint says up to where a class and epoch is gone.
type CursorPoint struct {
	Class transport.Class `json:"class"`
	Epoch uint64          `json:"epoch"`
	Seq   uint64          `json:"seq"`
}

// Check looks at the spool in dir, which nobody may be writing to, and changes
// nothing. The error says why the directory cannot be read; damage is not an
// error, but in the report.
func Check(fsys durable.FS, dir string) (Report, error) {
	const op = "spool.check"
	r := Report{Dir: dir}
	names, err := fsys.ReadDir(op, dir)
	if err != nil {
		return r, fmt.Errorf("cannot check spool: %w", err)
	}
	for _, name := range names {
		switch name {
		case string(transport.ClassRecord), string(transport.ClassEvent), string(transport.ClassTelemetry), "cursor.0", "cursor.1":
		default:
			r.add(foreign(name))
		}
	}
	for rank, class := range [durableRanks]transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry} {
		names, err := fsys.ReadDir(op, filepath.Join(dir, string(class)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("cannot check spool: %w", err)
		}
		var segments []checked
		for _, name := range names {
			path := filepath.Join(string(class), name)
			id, ok := parseName(name)
			if !ok {
				r.add(foreign(path))
				continue
			}
			f, before := checkSegment(fsys, op, dir, path, id, rank, class)
			segments = append(segments, checked{f, id, before})
		}
		for i := range segments {
			s := &segments[i]
			s.checkBefore(segments)
			if rank <= rankEvent {
				s.checkMissing(segments)
			}
		}
		for _, s := range segments {
			r.add(s.FileReport)
		}
	}
	cur, _, errs := readCursor(fsys, op, dir)
	for i, err := range errs {
		switch {
		case err == nil:
			r.Cursor.Slots[i] = "ok"
		case errors.Is(err, fs.ErrNotExist):
			r.Cursor.Slots[i] = "missing"
		default:
			r.Cursor.Slots[i] = err.Error()
			r.Damaged++
		}
	}
	r.Cursor.Generation, r.Cursor.AckVersion, r.Cursor.ToldEpoch, r.Cursor.CleanEpoch = cur.generation, cur.ack, cur.told, cur.clean
	for _, p := range cur.points {
		class := [durableRanks]transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry}[p.rank]
		r.Cursor.Gone = append(r.Cursor.Gone, CursorPoint{class, p.epoch, p.seq})
	}
	return r, nil
}

// checked is a segment that was looked at.
type checked struct {
	FileReport
	id     segID
	before span // as its header has it
}

// checkBefore looks whether the segment before s ends where s knows it ended.
// What is torn there is no rest of a last write.
func (s checked) checkBefore(all []checked) {
	var at *checked
	for i := range all {
		if b := &all[i]; b.id.epoch == s.id.epoch && b.id.first == s.before.lo && (at == nil || b.LastSeq > at.LastSeq) {
			at = b
		}
	}
	if s.before.hi == 0 || at == nil || at.LastSeq >= s.before.hi {
		return // gone as a whole, it was sent or dropped
	}
	p := Problem{Offset: at.Bytes}
	if n := len(at.Problems); n > 0 && at.Problems[n-1].Harmless {
		p = at.Problems[n-1]
		at.Problems = at.Problems[:n-1]
	}
	p.Harmless = false
	p.What = fmt.Sprintf("ends too early: numbers %d to %d may be lost", max(at.LastSeq+1, s.before.lo), s.before.hi)
	at.Problems = append(at.Problems, p)
}

// checkMissing looks whether the segment before s is there as long as one before
// that is: records and events are let go from the front.
func (s *checked) checkMissing(all []checked) {
	earlier := false
	for _, o := range all {
		switch {
		case o.id.epoch != s.id.epoch:
		case o.id.first == s.before.lo, o.FirstSeq <= s.before.lo && s.before.hi <= o.LastSeq:
			return
		case o.id.first < s.before.lo:
			earlier = true
		}
	}
	if earlier && s.before.hi > 0 {
		s.Problems = append(s.Problems, Problem{
			What: fmt.Sprintf("the segment before it is missing: numbers %d to %d may be lost", s.before.lo, s.before.hi),
		})
	}
}

func foreign(path string) FileReport {
	what := "no file of a spool"
	harmless := strings.HasSuffix(path, durable.TempSuffix)
	if harmless {
		what = "left over from an interrupted write"
	}
	return FileReport{Path: path, Problems: []Problem{{What: what, Harmless: harmless}}}
}

func (r *Report) add(f FileReport) {
	for _, p := range f.Problems {
		if !p.Harmless {
			r.Damaged++
			break
		}
	}
	r.Files = append(r.Files, f)
}

func checkSegment(fsys durable.FS, op, dir, path string, id segID, rank int, class transport.Class) (f FileReport, before span) {
	f = FileReport{Path: path, Class: class, Epoch: id.epoch}
	b, err := readSegment(fsys, op, filepath.Join(dir, path), false)
	f.Bytes = int64(len(b))
	if err != nil {
		f.Problems = append(f.Problems, Problem{Offset: f.Bytes, What: "cannot be read: " + err.Error()})
	}
	found := scan(b, id, rank, func(_ int, r record) {
		if f.FirstSeq == 0 {
			f.FirstSeq = r.seq
		}
	})
	f.LastSeq, f.Entries, f.Level = found.last, found.records, int(found.header.level)
	if found.header.version > version {
		f.Problems = append(f.Problems, Problem{What: "format version " + strconv.Itoa(int(found.header.version)) + ", of a newer program"})
		return f, span{}
	}
	if head := b[:min(len(b), headerSize)]; !found.header.ok && len(b) > 0 {
		// A power cut while the file was made leaves zeros, or less than a header.
		f.Problems = append(f.Problems, Problem{
			Bytes: int64(len(head)), What: "header does not hold", Harmless: found.records == 0 && (len(head) < headerSize || zeros(head)),
		})
	}
	if len(b) == maxFile {
		f.Problems = append(f.Problems, Problem{Offset: maxFile, What: "larger than any segment; what is behind was not looked at"})
	}
	for _, d := range found.damage {
		p := Problem{Offset: int64(d.from), Bytes: int64(d.to - d.from), What: "no record holds"}
		switch {
		case d.to <= headerSize && !found.header.ok:
			continue // told above
		case d.hi == 0 && zeros(b[d.from:d.to]):
			p.What, p.Harmless = "tail of zeros", true
		case d.hi == 0:
			p.What, p.Harmless = "torn tail", true
		case d.lo <= d.hi:
			p.What = fmt.Sprintf("no record holds: numbers %d to %d may be lost", d.lo, d.hi)
		}
		f.Problems = append(f.Problems, p)
	}
	return f, found.header.before
}

func zeros(b []byte) bool { return len(strings.Trim(string(b), "\x00")) == 0 }

// Spool reports whether the directory looks like a spool's at all, be it empty.
func (r Report) Spool() bool {
	for _, f := range r.Files {
		if f.Class != "" {
			return true
		}
	}
	return len(r.Files) == 0 || r.Cursor.Slots != [2]string{"missing", "missing"}
}

// String returns the report for people, a line or more for each file.
func (r Report) String() string {
	var b strings.Builder
	for _, f := range r.Files {
		fmt.Fprintf(&b, "%s: ", f.Path)
		if f.Class != "" {
			fmt.Fprintf(&b, "epoch %d, ", f.Epoch)
			if f.Entries > 0 {
				fmt.Fprintf(&b, "numbers %d to %d, ", f.FirstSeq, f.LastSeq)
			}
			fmt.Fprintf(&b, "%d entries, %d bytes", f.Entries, f.Bytes)
			if f.Level > 0 {
				fmt.Fprintf(&b, ", rolled up to %d s", windows[min(f.Level, len(windows)-1)])
			}
		}
		if len(f.Problems) == 0 {
			b.WriteString(": ok")
		}
		b.WriteByte('\n')
		for _, p := range f.Problems {
			mark := "!"
			if p.Harmless {
				mark = "-"
			}
			fmt.Fprintf(&b, "  %s at %d, %d bytes: %s\n", mark, p.Offset, p.Bytes, p.What)
		}
	}
	c := r.Cursor
	fmt.Fprintf(&b, "cursor: slots %s, %s; generation %d, acknowledgement %d, restarts told up to epoch %d",
		c.Slots[0], c.Slots[1], c.Generation, c.AckVersion, c.ToldEpoch)
	if c.CleanEpoch != 0 {
		fmt.Fprintf(&b, ", epoch %d ended cleanly", c.CleanEpoch)
	}
	b.WriteByte('\n')
	for _, p := range c.Gone {
		fmt.Fprintf(&b, "  %s of epoch %d: gone up to %d\n", p.Class, p.Epoch, p.Seq)
	}
	if r.Damaged == 0 {
		b.WriteString("no damage\n")
	} else {
		fmt.Fprintf(&b, "%d files with damage\n", r.Damaged)
	}
	return b.String()
}
