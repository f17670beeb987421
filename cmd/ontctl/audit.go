package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"ontagent/agent"
	"ontagent/agent/audit"
	"ontagent/cmd/cli"
	"ontagent/transport"
)

// maxTrail bounds the entries of an audit trail that wait to be proven.
const maxTrail = 1024

// auditTrail follows the audit trail of a gateway: entries as they come, proven
// by the heads in its heartbeats.
type auditTrail struct {
	Proven audit.Head        `json:"proven"`
	Head   audit.Head        `json:"head"`             // the newest told
	Lines  map[uint64]string `json:"lines,omitempty"`  // entries above Proven, by number
	Begun  bool              `json:"begun,omitempty"`  // Proven says where the account begins
	Broken string            `json:"broken,omitempty"` // told last
}

// take notes an entry. It returns what is wrong with the trail, if that is news.
func (t *auditTrail) take(line string) string {
	e, err := audit.Parse([]byte(line))
	if err != nil {
		return t.tell(fmt.Sprintf("an entry cannot be read: %v", err))
	}
	if !t.Begun {
		// Who begins in the middle takes the first entry's word for what is
		// before it.
		t.Begun = true
		if e.N > 1 {
			t.Proven = audit.Head{N: e.N - 1, SHA256: e.Prev}
		}
	}
	if e.N <= t.Proven.N {
		return ""
	}
	if have, ok := t.Lines[e.N]; ok && have != line {
		return t.tell(fmt.Sprintf("entry %d came twice, and not the same", e.N))
	}
	if t.Lines == nil {
		t.Lines = map[uint64]string{}
	}
	if len(t.Lines) >= maxTrail {
		return t.tell(fmt.Sprintf("%d entries wait for a head", len(t.Lines)))
	}
	t.Lines[e.N] = line
	return t.prove()
}

// ends notes a head that a heartbeat told.
func (t *auditTrail) ends(head audit.Head) string {
	switch {
	case head.N == 0:
		return ""
	case head.N < t.Proven.N:
		return "" // an older heartbeat; a trail that began anew shows by its entries
	case head.N == t.Proven.N && t.Begun && t.Proven.SHA256 != "" && head.SHA256 != t.Proven.SHA256:
		return t.tell(fmt.Sprintf("entry %d is not what was proven before", head.N))
	case head.N >= t.Head.N:
		t.Head = head
	}
	return t.prove()
}

// prove verifies what lies between the proven and the told head, once all of it
// is there.
func (t *auditTrail) prove() string {
	if t.Head.N <= t.Proven.N {
		return ""
	}
	var lines [][]byte
	for n := t.Proven.N + 1; n <= t.Head.N; n++ {
		line, ok := t.Lines[n]
		if !ok {
			return "" // on its way; a message that never comes is the tracker's to tell
		}
		lines = append(lines, []byte(line))
	}
	problem := ""
	if err := audit.Verify(lines, t.Proven, t.Head); err != nil {
		problem = t.tell(err.Error())
	}
	// Broken or not, what follows is judged from here.
	for n := t.Proven.N + 1; n <= t.Head.N; n++ {
		delete(t.Lines, n)
	}
	t.Proven = t.Head
	return problem
}

func (t *auditTrail) tell(problem string) string {
	if t.Broken == problem {
		return ""
	}
	t.Broken = problem
	return problem
}

// auditHead reads the head of the audit trail in a heartbeat.
func auditHead(body []byte) audit.Head {
	var b struct {
		N      uint64 `json:"audit_n"`
		SHA256 string `json:"audit_sha256"`
	}
	if json.Unmarshal(body, &b) != nil {
		return audit.Head{}
	}
	return audit.Head{N: b.N, SHA256: b.SHA256}
}

// trailFile is what files say of one gateway's trail.
type trailFile struct {
	lines map[uint64][]byte
	twice []uint64 // came with two contents
	head  audit.Head
}

func (a *app) auditVerify(_ context.Context, args []string) error {
	f := a.flags("audit verify")
	headFlag := f.String("head", "", "`N:SHA256` that the trail must end in, from elsewhere; default: the newest heartbeat in the files")
	device := f.String("device", "", "only the gateway `ID`")
	if err := a.parse(f, args, 1, -1); err != nil {
		return err
	}
	var head audit.Head
	if *headFlag != "" {
		n, sha, ok := strings.Cut(*headFlag, ":")
		number, err := strconv.ParseUint(n, 10, 64)
		if raw, hexErr := hex.DecodeString(sha); !ok || err != nil || hexErr != nil || len(raw) != 32 || number == 0 {
			return cli.Exit(cli.Usage, "audit verify: --head %q is not N:SHA256", *headFlag)
		}
		head = audit.Head{N: number, SHA256: sha}
	}
	trails := map[string]*trailFile{}
	for _, path := range f.Args() {
		if err := readTrail(path, trails); err != nil {
			return cli.Exit(cli.Usage, "audit verify: %w", err)
		}
	}
	if *device != "" {
		maps.DeleteFunc(trails, func(d string, _ *trailFile) bool { return d != *device })
	}
	maps.DeleteFunc(trails, func(_ string, t *trailFile) bool { return len(t.lines) == 0 && t.head.N == 0 })
	if len(trails) == 0 {
		return cli.Exit(cli.Usage, "audit verify: no entry of an audit trail in %s", strings.Join(f.Args(), ", "))
	}
	if head.N > 0 && len(trails) > 1 {
		return cli.Exit(cli.Usage, "audit verify: --head is of one gateway, the files are of %d: give --device", len(trails))
	}
	code := cli.OK
	for _, d := range slices.Sorted(maps.Keys(trails)) {
		t := trails[d]
		if head.N > 0 {
			t.head = head
		}
		text, c := t.verify()
		code = worse(code, c)
		fmt.Fprintf(a.out, "%s: %s\n", cmp.Or(d, "gateway"), clean(text))
	}
	if code != cli.OK {
		return cli.Silent(code)
	}
	return nil
}

// verify says in words what holds.
func (t *trailFile) verify() (text string, code int) {
	if len(t.twice) > 0 {
		return fmt.Sprintf("broken: entry %d is there twice, and not the same", t.twice[0]), cli.Fail
	}
	numbers := slices.Sorted(maps.Keys(t.lines))
	if len(numbers) == 0 {
		return fmt.Sprintf("broken: the head names entry %d, and there is none", t.head.N), cli.Fail
	}
	var lines [][]byte
	for _, n := range numbers {
		lines = append(lines, t.lines[n])
	}
	after, from := audit.Head{}, ""
	if first, err := audit.Parse(lines[0]); err == nil && first.N > 1 {
		after = audit.Head{N: first.N - 1, SHA256: first.Prev}
		from = fmt.Sprintf(", from entry %d on", first.N)
	}
	err := audit.Verify(lines, after, t.head)
	var broken *audit.BreakError
	switch {
	case err == nil:
		return fmt.Sprintf("intact: %d entries up to %d%s", len(lines), numbers[len(numbers)-1], from), cli.OK
	case errors.As(err, &broken) && broken.Kind == audit.KindUnproven:
		return fmt.Sprintf("chained, but %v%s", err, from), cli.Inconclusive
	}
	return fmt.Sprintf("broken: %v", err), cli.Fail
}

// readTrail reads lines as a collector stores them, or as they stand on a
// gateway.
func readTrail(path string, trails map[string]*trailFile) error {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	trail := func(device string) *trailFile {
		if trails[device] == nil {
			trails[device] = &trailFile{lines: map[uint64][]byte{}}
		}
		return trails[device]
	}
	lines := bufio.NewReader(in)
	for number := 1; ; number++ {
		line, err := readLine(lines, maxLine)
		if errors.Is(err, io.EOF) && line.length == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("cannot read %s: %w", path, err)
		}
		text := bytes.TrimRight(line.text, "\r\n")
		if len(text) == 0 && line.text != nil {
			continue
		}
		var e entry
		if _, parseErr := audit.Parse(text); parseErr == nil {
			trail("").add(text)
		} else if json.Unmarshal(text, &e) != nil || e.ReceivedAt.IsZero() {
			if err != nil { // a last line that is still being written
				return nil
			}
			return fmt.Errorf("%s: line %d is neither an entry (%w) nor a collector's", path, number, parseErr)
		} else if addr, topicErr := transport.ParseTopic(e.Topic); topicErr == nil {
			h, body, err := transport.Decode(e.message())
			if err != nil {
				continue
			}
			switch {
			case h.Class == transport.ClassRecord, addr.Kind == transport.KindEvent && addr.Name == "audit":
				var m agent.AuditMessage
				if json.Unmarshal(body, &m) == nil && m.Line != "" {
					trail(addr.Device).add([]byte(m.Line))
				}
			case addr.Kind == transport.KindTelemetry && addr.Name == "heartbeat", addr.Kind == transport.KindBackfill && addr.Name == "heartbeat":
				if head := auditHead(body); head.N >= trail(addr.Device).head.N {
					trail(addr.Device).head = head
				}
			}
		}
	}
}

func (t *trailFile) add(line []byte) {
	e, err := audit.Parse(line)
	if err != nil {
		return
	}
	if have, ok := t.lines[e.N]; ok && !bytes.Equal(have, line) {
		t.twice = append(t.twice, e.N)
	}
	t.lines[e.N] = bytes.Clone(line)
}
