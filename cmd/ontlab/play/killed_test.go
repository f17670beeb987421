package play

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/record"
	"ontagent/transport"
)

// everyRung is a scenario whose visit climbs every rung that a line without
// VLANs has, each of them long enough to be met.
const everyRung = `scenario: every-rung
services:
  - {kind: internet, access: ipoe, vlan: 0, down_mbps: 10, up_mbps: 5}
order:
  require: [identity, optical, registration, lan_cabling, dial, addressing, dns, reachability, throughput, host]
network:
  dns: {delay_ms: 150}
expect: {verdict: pass}
`

// withoutSpeed is everyRung without the rung that takes longest.
func withoutSpeed() string { return strings.Replace(everyRung, "throughput, ", "", 1) }

// TestKilledAtEveryRung kills the agent while each rung is climbed, as a power
// cut does, and starts it again: the job is INTERRUPTED, its record says at
// which rung, and nothing else is left of the visit. With LONG=1 it is every
// rung, the speed test included; else those that have most to leave behind.
func TestKilledAtEveryRung(t *testing.T) {
	t.Parallel()
	text, long := withoutSpeed(), os.Getenv("LONG") == "1"
	if long {
		text = everyRung
	}
	l := buildLab(t, text)
	if !l.online(t.Context(), 20*time.Second) {
		t.Fatal("the gateway is not online")
	}
	before := ""
	eventually(t, l, "the network has told the gateway everything", func(context.Context, *Lab) error {
		if before = l.remains(t); !strings.Contains(before, "proto ra") {
			return errors.New("no router was advertised: " + before)
		}
		return nil
	})
	rungs := l.sc.Order.Require
	if !long {
		rungs = []acceptance.Rung{acceptance.Optical, acceptance.Dial, acceptance.DNS, acceptance.Reachability}
	}
	for n, rung := range rungs {
		t.Run(string(rung), func(t *testing.T) {
			began := time.Now()
			id := l.killAt(t, rung)
			r := l.recordOf(t, id)
			var report acceptance.Report
			must(t, json.Unmarshal(r.Ladder, &report))
			if !report.Interrupted || report.Verdict != acceptance.Inconclusive {
				t.Errorf("the record says %s, interrupted %t", report.Verdict, report.Interrupted)
			}
			cut := acceptance.Rung("")
			for i, res := range report.Results {
				missing := slices.Contains(res.Causes, string(diagnosis.AgentInterrupted))
				if missing && cut == "" {
					cut = res.Rung
				}
				if missing != (cut != "") {
					t.Errorf("result %d, %s: %s %v, after it was cut short at %q", i, res.Rung, res.Verdict, res.Causes, cut)
				}
			}
			// What is over in a moment is over before a kill comes.
			if cut != rung && rung != acceptance.Addressing && rung != acceptance.Identity {
				t.Errorf("it was cut short at %q", cut)
			}
			t.Logf("cut short at %s; %v", cut, time.Since(began).Round(time.Millisecond))
			eventually(t, l, "nothing is left", func(context.Context, *Lab) error {
				if after := l.remains(t); after != before {
					return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
				return nil
			})
			if got := len(l.recordFiles(t)); got != n+1 {
				t.Errorf("%d records after %d visits", got, n+1)
			}
		})
	}
}

// killAt begins a visit, kills the agent when the ladder reaches a rung, starts
// it again, and returns the id of the job, which must be INTERRUPTED by then.
func (l *Lab) killAt(t *testing.T, rung acceptance.Rung) (id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	visit, end := context.WithCancel(ctx)
	var killed error
	err := l.accept(visit, l.office.Path("killed.record"), func(st job.Status) {
		if id != "" || acceptance.Rung(st.Step) != rung || st.StepVerdict != "" {
			return
		}
		id = st.ID
		killed = l.agent.Kill()
		end()
	})
	end()
	if id == "" || killed != nil {
		t.Fatalf("the ladder never came to %s: %v, %v", rung, err, killed)
	}
	must(t, l.runAgent(ctx))
	eventually(t, l, "the job is over", func(context.Context, *Lab) error {
		switch st := l.lastStatus(id); st.State {
		case job.Interrupted:
			return nil
		default:
			return fmt.Errorf("%s is %s", id, st.State)
		}
	})
	return id
}

// lastStatus is what the gateway has said last of a job, to the broker.
func (l *Lab) lastStatus(id string) (last job.Status) {
	data, err := os.ReadFile(l.watchLog)
	if err != nil {
		return job.Status{}
	}
	for line := range bytes.Lines(data) {
		var m struct {
			Topic   string     `json:"topic"`
			Payload job.Status `json:"payload"`
		}
		if json.Unmarshal(line, &m) != nil {
			continue
		}
		if a, err := transport.ParseTopic(m.Topic); err == nil && a.Kind == transport.KindStatus && m.Payload.ID == id {
			last = m.Payload
		}
	}
	return last
}

func (l *Lab) recordFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(l.agentDir("state/records/*.record"))
	must(t, err)
	return files
}

// recordOf is the record of a job.
func (l *Lab) recordOf(t *testing.T, id string) *record.Record {
	t.Helper()
	for _, file := range l.recordFiles(t) {
		data, err := os.ReadFile(file)
		must(t, err)
		v := record.Verify(data, record.VerifyOptions{})
		if v.Record == nil {
			t.Fatalf("%s is %s: %s", filepath.Base(file), v.Status, v.Problem)
		}
		if v.Record.Job == id {
			return v.Record
		}
	}
	t.Fatalf("job %s has no record", id)
	return nil
}

// remains is all on the gateway that a visit might leave behind: interfaces,
// addresses, routes, processes, and files but for records, logs and what counts.
func (l *Lab) remains(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"-br", "link"}, {"-br", "address"}, {"route"}, {"-6", "route"}, {"rule"}} {
		out, err := l.gateway.Run(t.Context(), "ip", args...)
		must(t, err)
		for line := range strings.Lines(string(out)) {
			line, _, _ = strings.Cut(line, " expires ") // which moves on
			b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
		}
	}
	b.WriteString(strings.Join(l.processes(t), "\n") + "\n")
	for _, dir := range []string{"state", "run"} {
		root := l.agentDir(dir)
		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(root, path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // it went meanwhile
			case err != nil || d.IsDir():
				return err
			case slices.Contains([]string{".record", ".job", ".audit", ".floor"}, filepath.Ext(name)), name == "records/head.json",
				slices.Contains([]string{"optics.json", "inventory.json", "inspections.json", "faults.json"}, name), // of the line, whenever it is time
				strings.HasPrefix(name, "spool"), strings.HasPrefix(name, "audit/"):
				return nil
			}
			b.WriteString(dir + "/" + name + "\n")
			return nil
		}))
	}
	return b.String()
}

// processes are the names of those that run on the gateway, each once.
func (l *Lab) processes(t *testing.T) []string {
	t.Helper()
	own, err := os.Readlink("/proc/" + strconv.Itoa(l.agent.PID()) + "/ns/net")
	must(t, err)
	all, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	var names []string
	for _, dir := range all {
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err != nil || ns != own {
			continue
		}
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil && string(name) != "ip\n" {
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
