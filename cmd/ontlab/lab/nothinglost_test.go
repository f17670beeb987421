package lab_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/command"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/cmd/ontlab/lab"
	"ontagent/transport"
)

// collecting is `ontctl collect` beside a site.
type collecting struct {
	*site
	process *command.Process
	dir     string
	said    *os.File
}

func (c *collecting) start(t *testing.T) {
	t.Helper()
	var err error
	c.process, err = c.Start(c.life, c.said, c.Ctl, "collect", "--broker", lab.BrokerURL, "--tenant", tenant,
		"--dir", c.dir, "--key", c.Path("collector.key"), "--ack-interval", "200ms", "--json")
	must(t, err)
}

func (c *collecting) kill(t *testing.T) {
	t.Helper()
	must(t, c.process.Signal(syscall.SIGKILL))
	<-c.process.Done()
}

// drained waits until the gateway holds no record and no event any more: the
// collector has signed for all.
func (c *collecting) drained(t *testing.T) {
	t.Helper()
	eventually(t, "everything is signed for", func() bool {
		for _, class := range c.agentStatus(t).Queue {
			if class.Class != transport.ClassDebug && class.Depth > 0 {
				return false
			}
		}
		return true
	})
}

// journal are the messages of a kind that the collector has stored.
func (c *collecting) journal(t *testing.T, kind string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.dir, "messages-*.jsonl"))
	must(t, err)
	var all []string
	for _, name := range files {
		data, err := os.ReadFile(name)
		must(t, err)
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "/"+kind) {
				all = append(all, lines.Text())
			}
		}
	}
	return all
}

// TestNothingIsLost kills broker, gateway and collector by turns, while things
// happen, and asks the collector at the end what it has.
func TestNothingIsLost(t *testing.T) {
	needLab(t)
	s := newSite(t)
	said, err := os.Create(s.Path("collect.log"))
	must(t, err)
	defer said.Close()
	c := &collecting{site: s, dir: s.Path("collected"), said: said}
	c.start(t)
	s.start(t)
	c.drained(t)

	// Events of a time without a broker, and a power cut on top.
	must(t, s.broker.Kill())
	eventually(t, "loss noticed", func() bool { return !s.agentStatus(t).MQTT.Connected })
	before := queued(t, s, transport.ClassEvent)
	for i := range 6 {
		must(t, lab.SetHomeCable(i%2 == 1))
		time.Sleep(1100 * time.Millisecond) // the kernel tells of a carrier once a second
	}
	events := 0
	eventually(t, "events are queued", func() bool {
		events = queued(t, s, transport.ClassEvent) - before
		return events >= 6
	})
	must(t, s.KillGateway())
	must(t, s.broker.Start(s.life))
	c.restart(t) // it ends with its broker
	s.start(t)
	c.drained(t)
	if n := len(c.journal(t, "event/")); n < events {
		t.Errorf("%d events were stored, %d had been queued", n, events)
	}

	// A visit while nobody collects, and a power cut after it.
	c.kill(t)
	s.tellTime(t)
	o := s.newOrder(t, "WO-kept")
	if st := s.submit(t, o, s.command(o, order.Accept), answered); st.State != job.Succeeded {
		t.Fatalf("the visit: %+v", st)
	}
	must(t, s.KillGateway())
	s.start(t)
	c.start(t)
	c.drained(t)
	records, err := filepath.Glob(filepath.Join(c.dir, "records", device, "WO-kept-*.record"))
	if err != nil || len(records) != 1 {
		t.Fatalf("records %q, %v", records, err)
	}
	s.run(t, 0, s.Ctl, "record", "verify", "--root", s.Path("root.pub"), records[0])

	// A power cut in the middle of a visit.
	s.tellTime(t)
	o = s.newOrder(t, "WO-cut")
	release := s.holdConsole(t)
	cut := s.command(o, order.Accept)
	s.submit(t, o, cut, is(job.Running))
	must(t, s.KillGateway())
	release()
	s.start(t)
	c.drained(t)
	eventually(t, "the trail's head is known", func() bool { return len(c.journal(t, "heartbeat")) > 3 })
	if all := c.journal(t, "status/"+cut.ID); !strings.Contains(strings.Join(all, ""), `"INTERRUPTED"`) {
		t.Errorf("how the visit ended is not among %q", all)
	}
	files, err := filepath.Glob(filepath.Join(c.dir, "messages-*.jsonl"))
	must(t, err)
	s.run(t, 0, s.Ctl, append([]string{"audit", "verify"}, files...)...)

	must(t, s.StopGateway())
	must(t, c.process.Signal(syscall.SIGTERM))
	<-c.process.Done()
	c.account(t)
}

// restart starts a collector that has ended by itself, or ends it.
func (c *collecting) restart(t *testing.T) {
	t.Helper()
	c.kill(t)
	c.start(t)
}

// account reads the collector's own account at its end.
func (c *collecting) account(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(c.said.Name())
	must(t, err)
	var last struct {
		Event   string
		Account struct{ Received, Missing, Dropped, GaveUp uint64 }
	}
	found := false
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, `"event":"account"`) {
			must(t, json.Unmarshal([]byte(line), &last))
			found = true
		}
	}
	if !found || last.Account.Received == 0 || last.Account.Missing > 0 || last.Account.GaveUp > 0 {
		t.Errorf("account %+v; it said:\n%s", last, data)
	}
}

// queued is how many messages of a class a gateway holds.
func queued(t *testing.T, s *site, class transport.Class) int {
	t.Helper()
	for _, c := range s.agentStatus(t).Queue {
		if c.Class == class {
			return c.Depth
		}
	}
	return 0
}
