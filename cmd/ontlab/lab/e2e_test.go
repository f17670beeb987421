//nolint:thelper // what takes a *testing.T here are parts of one test, not helpers
package lab_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/ontlab/lab"
	"ontagent/transport"
)

// TestGatewayOverARealBroker plays a gateway's days with mosquitto: one site,
// and what happens to it one thing after the other.
func TestGatewayOverARealBroker(t *testing.T) {
	needLab(t)
	t.Parallel()
	s := newSite(t)
	s.start(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *site)
	}{
		{"birth", testBirth},
		{"link events", testLinkEvents},
		{"refusals", testRefusals},
		{"oversized", testOversized},
		{"one run of many deliveries, cancelled", testDuplicatesAndCancel},
		{"killed in the middle of a job", testKilled},
		{"stopped in the middle of a job", testStoppedInJob},
		{"visit", testVisit},
		{"broker gone and back", testBrokerGone},
		{"visit without a broker", testVisitOverLAN},
		{"clean stop", testCleanStop},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(t, s) }) {
			return // what follows builds on it
		}
	}
	if lost := missing(t, s.ear, device); len(lost) > 0 {
		t.Errorf("never arrived: %q", lost)
	}
	if problems := s.ear.Problems(); len(problems) > 0 {
		t.Errorf("messages against the contract: %q", problems)
	}
}

func testBirth(t *testing.T, s *site) {
	s.state(t, 0, "online", false)
	m, _, err := s.ear.Wait(bounded(t), 0, func(m lab.Message) bool { return m.Kind == transport.KindInfo })
	must(t, err)
	var info struct {
		Actions []string `json:"actions"`
		Rungs   []string `json:"rungs"`
	}
	must(t, json.Unmarshal(m.Body, &info))
	const rungs = "identity optical registration lan_cabling dial addressing dns reachability throughput iptv voice management host"
	if strings.Join(info.Rungs, " ") != rungs || len(info.Actions) == 0 {
		t.Errorf("birth %s", m.Body)
	}
	// The first reading of the console is over when the session was left.
	eventually(t, "console was read and left", func() bool {
		typed := s.sim.Received()
		return len(typed) > 0 && typed[len(typed)-1] == "exit"
	})
}

// testLinkEvents measures from before the system call that pulls the cable to
// the arrival of the event at a subscriber.
func testLinkEvents(t *testing.T, s *site) {
	const rounds = 20
	took := make([]time.Duration, 0, 2*rounds)
	for range rounds {
		for _, up := range []bool{false, true} {
			from := s.ear.Heard()
			began := time.Now()
			must(t, lab.SetHomeCable(up))
			at := s.event(t, from, lab.LANInterface, "carrier", up)
			s.event(t, from, lab.LANInterface, "oper_state", up)
			took = append(took, at.Sub(began))
		}
	}
	slices.Sort(took)
	t.Logf("cable to subscriber: median %v, longest %v, %d above 100 ms", took[len(took)/2], took[len(took)-1],
		len(took)-countBelow(took, 100*time.Millisecond))
	if longest := took[len(took)-1]; longest > 500*time.Millisecond {
		t.Errorf("an event took %v", longest)
	}
}

func countBelow(sorted []time.Duration, limit time.Duration) int {
	n, _ := slices.BinarySearch(sorted, limit)
	return n
}

// testOversized: what is larger than any request ends the connection before it
// is read; the gateway is back at once, and nothing has run.
func testOversized(t *testing.T, s *site) {
	before := s.agentStatus(t)
	from := s.ear.Heard()
	s.send(t, "oversized", make([]byte, 256<<10))
	s.state(t, from, "online", false)
	after := s.agentStatus(t)
	if after.MQTT.Connections != before.MQTT.Connections+1 || after.Epoch != before.Epoch {
		t.Errorf("connections %d, then %d; epochs %d, %d", before.MQTT.Connections, after.MQTT.Connections, before.Epoch, after.Epoch)
	}
	log, err := os.ReadFile(s.Path("ontagent.log"))
	must(t, err)
	if !strings.Contains(string(log), "inbound packet too large") {
		t.Error("the log doesn't say why")
	}
	if got := s.statuses("oversized"); len(got) != 0 {
		t.Errorf("it was answered: %+v", got)
	}
}

func testDuplicatesAndCancel(t *testing.T, s *site) {
	o := s.newOrder(t, "WO-duplicate")
	c := s.command(o, order.Accept)
	payload := encode(t, s.request(t, o, c))
	from := s.ear.Heard()
	for range 20 {
		s.send(t, c.ID, payload)
	}
	s.status(t, c.ID, from, is(job.Running))
	if n := s.runs(t, o.Order); n != 1 {
		t.Errorf("%d runs were counted", n)
	}
	stop := s.command(o, order.Cancel)
	stop.Args.Target = c.ID
	began := time.Now()
	if st := s.submit(t, o, stop, answered); st.State != job.Succeeded {
		t.Fatalf("cancel: %+v", st)
	}
	end, next := s.status(t, c.ID, from, func(st job.Status) bool { return st.State.Terminal() })
	if end.State != job.Cancelled {
		t.Errorf("cancelled job ended as %+v", end)
	}
	t.Logf("cancelled after %v", time.Since(began).Round(time.Millisecond))

	// The same id once more: the stored answer, and no second run.
	s.send(t, c.ID, payload)
	s.status(t, c.ID, next, is(job.Cancelled))
	if running := s.agentStatus(t).Job; running != nil {
		t.Errorf("still running: %+v", running)
	}
	// What was cut short is on record, too: as what it is.
	if end.Verdict != "inconclusive" || s.runs(t, o.Order) != 1 || len(s.records(t)) != 1 {
		t.Errorf("verdict %s, %d runs counted, records %q", end.Verdict, s.runs(t, o.Order), s.records(t))
	}
	if n := ladders(s.statuses(c.ID)); n != 1 {
		t.Errorf("the ladder was climbed %d times", n)
	}
}

// ladders counts how often a job began to run: a RUNNING without a step is told
// at the beginning only; deliveries that come meanwhile repeat what is there.
func ladders(all []job.Status) int {
	n := 0
	for i, st := range all {
		if st.State == job.Running && st.Step == "" && (i == 0 || all[i-1].State != job.Running) {
			n++
		}
	}
	return n
}

// testKilled kills the gateway in the middle of a rung. The record of the visit
// is closed and sent at the next start, and says how far it came.
func testKilled(t *testing.T, s *site) {
	rungs := []string{"optical", "lan_cabling", "reachability"}
	if os.Getenv("LONG") != "" {
		rungs = []string{"optical", "registration", "lan_cabling", "reachability", "host"} // those that take a while
	}
	for _, rung := range rungs {
		release := s.holdConsole(t)
		o := s.newOrder(t, "WO-killed-"+rung)
		c := s.command(o, order.Accept)
		from := s.ear.Heard()
		s.submit(t, o, c, func(st job.Status) bool { return st.State == job.Running && st.Step == rung })
		before := s.agentStatus(t)
		must(t, s.KillGateway())
		release()
		s.state(t, from, "offline", false) // by the will: nobody else was there to say it

		next := s.ear.Heard()
		s.start(t)
		s.state(t, next, "online", false)
		st, _ := s.status(t, c.ID, next, answered)
		if st.State != job.Interrupted || st.RecordSHA == "" {
			t.Errorf("after the restart: %+v", st)
		}
		s.interrupted(t, o.Order, next, st.RecordSHA, rung)
		if got := s.agentStatus(t).Epoch; got <= before.Epoch {
			t.Errorf("epoch %d after %d", got, before.Epoch)
		}
		next = s.ear.Heard()
		s.send(t, c.ID, encode(t, s.request(t, o, c)))
		if again, _ := s.status(t, c.ID, next, func(job.Status) bool { return true }); again.State != job.Interrupted || again.RecordSHA != st.RecordSHA {
			t.Errorf("the same command after the restart: %+v", again)
		}
		if st := s.agentStatus(t); st.Job != nil || st.Records != before.Records+1 {
			t.Errorf("after the restart: %+v, before it %d records", st, before.Records)
		}
		if n := s.runs(t, o.Order); n != 1 {
			t.Errorf("%d runs were counted", n)
		}
		if left, err := filepath.Glob(s.Path("state/jobs/*.open")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// after reports whether a rung comes after another on the ladder.
func after(rung, other string) bool {
	all := strings.Split(lab.BuiltRungs(), ",")
	return slices.Index(all, rung) > slices.Index(all, other)
}

// interrupted checks the record that was sent of a visit that was killed in a
// rung: genuine, what came before kept, the rest not judged.
func (s *site) interrupted(t *testing.T, orderID string, from int, digest, rung string) {
	t.Helper()
	m, _, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool { return m.Kind == transport.KindRecord && m.Name == orderID })
	must(t, err)
	var msg agent.RecordMessage
	must(t, json.Unmarshal(m.Body, &msg))
	data, err := record.Marshal(msg.Record)
	must(t, err)
	v := record.Verify(data, record.VerifyOptions{Root: ed25519.PublicKey(public(t, s.root))})
	if v.Status != record.Valid || v.Digest != digest {
		t.Fatalf("record %s of %s: %s %s", v.Digest, digest, v.Status, v.Problem)
	}
	var report acceptance.Report
	must(t, json.Unmarshal(v.Record.Ladder, &report))
	if !report.Interrupted || len(report.Results) < 8 {
		t.Errorf("killed in %s: %+v", rung, report)
	}
	for _, res := range report.Results {
		open := len(res.Causes) == 1 && res.Causes[0] == string(diagnosis.AgentInterrupted)
		if res.Required && open != (string(res.Rung) == rung || after(string(res.Rung), rung)) {
			t.Errorf("killed in %s: %s is %s %v", rung, res.Rung, res.Verdict, res.Causes)
		}
	}
}

// holdConsole keeps the console's device open beside the gateway. A real port
// forgets the exclusive mode of a process that is killed. A pseudo-terminal
// keeps it, and keeps out whoever is not root; release takes it off.
func (s *site) holdConsole(t *testing.T) (release func()) {
	t.Helper()
	var f *os.File
	eventually(t, "console is free", func() bool {
		var err error
		f, err = os.OpenFile(s.sim.Path(), os.O_RDWR|unix.O_NOCTTY, 0)
		return err == nil
	})
	return func() {
		must(t, errors.Join(unix.IoctlSetInt(int(f.Fd()), unix.TIOCNXCL, 0), f.Close()))
	}
}

func testStoppedInJob(t *testing.T, s *site) {
	o := s.newOrder(t, "WO-stopped")
	c := s.command(o, order.Accept)
	s.submit(t, o, c, func(st job.Status) bool { return st.State == job.Running && st.Step != "" })
	from := s.ear.Heard()
	began := time.Now()
	must(t, s.StopGateway())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if code := s.Gateway().Result().ExitCode; code != 0 {
		t.Errorf("exit code %d", code)
	}
	st, next := s.status(t, c.ID, from, func(st job.Status) bool { return st.State.Terminal() })
	if st.State != job.Interrupted || st.RecordSHA == "" {
		t.Errorf("the job ended as %+v", st)
	}
	s.state(t, next, "offline", false)
	s.start(t)
}

// testVisit is the way of every day: ontctl accept, a record, and its proof.
func testVisit(t *testing.T, s *site) {
	must(t, s.Order(t.Context(), "WO-visit", "--type", "repair", "--require", lab.BuiltRungs(), "--sn", device, "--mac", lab.WANMAC,
		"--lan-port", lab.LANInterface, "--max-runs", "1", "--threshold", "cpu.max=2,memory.max=2"))
	args := []string{
		"accept", "--order", s.Path("WO-visit.signed"), "--key", s.Path("technician.key"), "--time-key", s.Path("time.key"),
		"--broker", lab.BrokerURL, "--record", s.Path("visit.record"), "--json",
	}
	from, records := s.ear.Heard(), len(s.records(t))
	done := make(chan error, 1)
	var out []byte
	go func() {
		var err error
		out, err = s.Run(t.Context(), s.Ctl, args...)
		done <- err
	}()

	// Meanwhile somebody starts the daemon a second time.
	_, _, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool {
		var st job.Status
		return m.Kind == transport.KindStatus && json.Unmarshal(m.Body, &st) == nil && st.State == job.Running && st.Step != ""
	})
	must(t, err)
	before := s.epochFiles(t)
	_, err = s.Run(t.Context(), s.Agent, "run", "--config", s.Path("ontagent.conf"))
	if lab.ExitCode(err) != 1 || !strings.Contains(err.Error(), "running already") {
		t.Errorf("the second daemon: %v", err)
	}
	if s.epochFiles(t) != before {
		t.Error("the second daemon raised the epoch")
	}
	for _, st := range s.storedJobs(t) {
		if st.Order == "WO-visit" && st.State != job.Running {
			t.Errorf("the second daemon made the running job %s", st.State)
		}
	}

	if err := <-done; err != nil {
		t.Fatalf("ontctl accept: %v\n%s", err, out)
	}
	var last job.Status
	for line := range strings.Lines(string(out)) {
		must(t, json.Unmarshal([]byte(line), &last))
	}
	if last.State != job.Succeeded || last.Verdict != "pass" || last.RecordSHA == "" {
		t.Errorf("the last status is %+v", last)
	}
	s.run(t, 0, s.Ctl, "record", "verify", "--root", s.Path("root.pub"), s.Path("visit.record"))
	s.run(t, 3, s.Ctl, "record", "verify", "--root", s.Path("stranger.pub"), s.Path("visit.record"))
	onFlash, err := os.ReadFile(s.records(t)[records])
	must(t, err)
	filed, err := os.ReadFile(s.Path("visit.record"))
	must(t, err)
	if string(onFlash) != string(filed) {
		t.Error("the record filed is not the one on flash")
	}
	s.run(t, 2, s.Ctl, args...) // there is that file already
	args[slices.Index(args, s.Path("visit.record"))] = s.Path("second.record")
	s.run(t, 4, s.Ctl, args...) // the one run is used up
	if len(s.records(t)) != records+1 || s.runs(t, "WO-visit") != 1 {
		t.Errorf("records %q, %d runs", s.records(t), s.runs(t, "WO-visit"))
	}
}

// epochFiles reads what keeps the epoch.
func (s *site) epochFiles(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(s.Path("state/epoch*"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no file keeps the epoch")
	}
	var all []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		all = append(all, data...)
	}
	return string(all)
}

// storedJobs reads the jobs as they are on flash.
func (s *site) storedJobs(t *testing.T) []job.Status {
	t.Helper()
	entries, err := os.ReadDir(s.Path("state/jobs"))
	must(t, err)
	var all []job.Status
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".job") {
			continue
		}
		data, err := os.ReadFile(s.Path("state/jobs/" + e.Name()))
		must(t, err)
		var stored job.Stored
		must(t, json.Unmarshal(data, &stored))
		all = append(all, stored.Status)
	}
	return all
}

// testBrokerGone stops the broker in three ways, lets things happen meanwhile,
// and expects to be told of all of them, or of their loss.
func testBrokerGone(t *testing.T, s *site) {
	for _, c := range []struct {
		name  string
		stop  func() error
		flaps int
	}{
		{"stopped", s.broker.Stop, 5},
		{"killed", s.broker.Kill, 5},
		{"stopped for more than the queue holds", s.broker.Stop, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, c.stop())
			eventually(t, "loss noticed", func() bool { return !s.agentStatus(t).MQTT.Connected })
			for range c.flaps {
				must(t, lab.SetHomeCable(false))
				must(t, lab.SetHomeCable(true))
			}
			from := s.bringBroker(t)
			s.state(t, from, "online", false)
			_, _, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool { return m.Kind == transport.KindInfo })
			must(t, err)
			s.settled(t)

			late := lab.Subscribe(t.Context(), lab.BrokerURL)
			defer late.Close()
			for _, kind := range []transport.Kind{transport.KindState, transport.KindInfo} {
				if _, _, err := late.Wait(bounded(t), 0, func(m lab.Message) bool { return m.Kind == kind && m.Retained }); err != nil {
					t.Errorf("no %s is retained: %v", kind, err)
				}
			}
		})
	}
}

// bringBroker starts the broker, and has the subscriber there before the
// gateway. It returns where the subscriber's new messages begin.
func (s *site) bringBroker(t *testing.T) int {
	t.Helper()
	must(t, s.Gateway().Signal(syscall.SIGSTOP))
	from := s.ear.Heard()
	err := s.broker.Start(s.life)
	if err == nil {
		err = s.ear.Connected(bounded(t))
	}
	must(t, errors.Join(err, s.Gateway().Signal(syscall.SIGCONT)))
	return from
}

// settled waits until the gateway has nothing left to send, and the subscriber
// knows that the cable is plugged in.
func (s *site) settled(t *testing.T) {
	t.Helper()
	eventually(t, "everything sent", func() bool {
		for _, class := range s.agentStatus(t).Queue {
			if class.Depth > class.Unconfirmed { // nobody signs here
				return false
			}
		}
		return len(missing(t, s.ear, device)) == 0 && s.lastCarrier(t) == "up"
	})
}

// lastCarrier is what the latest event says of the LAN port's carrier.
func (s *site) lastCarrier(t *testing.T) string {
	t.Helper()
	last, lastSeq := "", [2]uint64{}
	for _, m := range s.ear.Messages(0) {
		var e struct{ Subject, What, After string }
		if m.Kind != transport.KindEvent || m.Name != "link" {
			continue
		}
		must(t, json.Unmarshal(m.Body, &e))
		at := [2]uint64{m.Header.Epoch, m.Header.Seq}
		if e.Subject == lab.LANInterface && e.What == "carrier" && slices.Compare(at[:], lastSeq[:]) > 0 {
			last, lastSeq = e.After, at
		}
	}
	return last
}

func testCleanStop(t *testing.T, s *site) {
	from := s.ear.Heard()
	config := s.Path("ontagent.conf")
	if len(processes(config)) == 0 {
		t.Fatal("cannot see the gateway's process")
	}
	began := time.Now()
	must(t, s.StopGateway())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if code := s.Gateway().Result().ExitCode; code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.state(t, from, "offline", false)
	if left := processes(config); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	late := lab.Subscribe(t.Context(), lab.BrokerURL)
	defer late.Close()
	m, _, err := late.Wait(bounded(t), 0, func(m lab.Message) bool { return m.Kind == transport.KindState })
	must(t, err)
	if !m.Retained || !strings.Contains(string(m.Body), `"offline"`) {
		t.Errorf("the retained state is %s", m.Body)
	}
	s.run(t, 5, s.Agent, "status", "--config", config)
}

// testRefusals: each is refused with its reason, and nothing runs.
func testRefusals(t *testing.T, s *site) {
	s.tellTime(t)
	typed := s.sim.Received()
	cases := s.refusals(t)
	var ids []string
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			from := s.ear.Heard()
			s.send(t, c.id, c.payload)
			st, _ := s.status(t, c.id, from, answered)
			if st.State != job.Rejected || st.Reason != c.want {
				t.Errorf("got %+v, want %s", st, c.want)
			}
			if len(st.Detail) == 0 || len(st.Detail) > 1024 {
				t.Errorf("the detail has %d bytes", len(st.Detail))
			}
		})
		ids = append(ids, c.id)
	}
	for _, m := range s.ear.Messages(0) {
		if m.Kind == transport.KindStatus && slices.Contains(ids, m.Name) &&
			(strings.Contains(string(m.Body), string(job.Running)) || strings.Contains(string(m.Body), string(job.Accepted))) {
			t.Errorf("something ran: %s", m.Body)
		}
	}
	if now := s.sim.Received(); !slices.Equal(now, typed) {
		t.Errorf("typed at the console meanwhile: %q", now[len(typed):])
	}
	if files := s.records(t); len(files) > 0 {
		t.Errorf("records were made: %q", files)
	}
	for _, id := range []string{"WO-refused", "WO-closed"} {
		if n := s.runs(t, id); n != 0 {
			t.Errorf("%d runs of %s were used up", n, id)
		}
	}
	if st := s.agentStatus(t); st.Job != nil || st.Records != 0 {
		t.Errorf("the gateway is at %+v", st)
	}
}

// refusal is a message that must be refused.
type refusal struct {
	name    string
	id      string // what it is addressed by
	payload []byte
	want    order.Reason
}

// refusals makes them; some need a history, which it makes as well.
func (s *site) refusals(t *testing.T) []refusal {
	t.Helper()
	var cases []refusal
	raw := func(name string, payload []byte, want order.Reason) {
		cases = append(cases, refusal{name, fmt.Sprintf("raw-%d", len(cases)), payload, want})
	}
	o := s.newOrder(t, "WO-refused")
	with := func(change func(*order.Order)) order.Order {
		other := o
		other.Technicians = slices.Clone(o.Technicians)
		change(&other)
		return other
	}
	// add makes a case of an order and a command; forge, if not nil, has the
	// last word.
	add := func(name string, o order.Order, c order.Command, forge func(*order.Request), want order.Reason) {
		req := s.request(t, o, c)
		if forge != nil {
			forge(&req)
		}
		cases = append(cases, refusal{name, c.ID, encode(t, req), want})
	}
	accept := func(o order.Order) order.Command { return s.command(o, order.Accept) }
	now := time.Now().UTC().Truncate(time.Second)

	// What has happened before. It comes first, as counters rise.
	used := s.command(o, order.Cancel)
	used.Args.Target = "nothing"
	if st := s.submit(t, o, used, answered); st.State != job.Failed {
		t.Fatalf("cancelling nothing: %+v", st)
	}
	from := s.ear.Heard()
	s.send(t, used.ID, encode(t, s.request(t, o, used)))
	if st, _ := s.status(t, used.ID, from, answered); st.State != job.Failed {
		t.Errorf("the same command again gets another answer: %+v", st)
	}
	closed := with(func(o *order.Order) { o.Order = "WO-closed" })
	if st := s.submit(t, closed, s.command(closed, order.Close), answered); st.State != job.Succeeded {
		t.Fatalf("close: %+v", st)
	}
	newer := with(func(o *order.Order) { o.Order, o.Rev = "WO-revised", 2 })
	c := s.command(newer, order.Cancel)
	c.Args.Target = "nothing"
	s.submit(t, newer, c, answered)

	c = accept(o)
	c.Counter = used.Counter
	add("a replayed counter", o, c, nil, order.ReasonReplayed)
	c = accept(o)
	c.Counter = 1
	add("an older counter", o, c, nil, order.ReasonReplayed)
	add("a closed order", closed, accept(closed), nil, order.ReasonOrderClosed)
	older := with(func(o *order.Order) { o.Order, o.Rev = "WO-revised", 1 })
	add("a superseded order", older, accept(older), nil, order.ReasonOrderSuperseded)

	other := with(func(o *order.Order) { o.Device = another })
	add("an order for another device", other, accept(other), nil, order.ReasonWrongDevice)
	c = accept(o)
	c.Device = another
	add("a command for another device", o, c, nil, order.ReasonWrongDevice)
	other = with(func(o *order.Order) { o.Tenant = "elsewhere" })
	add("an order of another tenant", other, accept(other), nil, order.ReasonWrongTenant)

	add("an unsigned command", o, accept(o), func(r *order.Request) { r.Command.Signatures = nil }, order.ReasonUnsigned)
	add("an unsigned order", o, accept(o), func(r *order.Request) { r.Order.Signatures = nil }, order.ReasonUnsigned)
	add("no order at all", o, accept(o), func(r *order.Request) { r.Order = nil }, order.ReasonActionNotAllowed)
	add("an order signed by a stranger", o, accept(o), func(r *order.Request) {
		env, err := o.Sign(s.stranger)
		must(t, err)
		r.Order = &env
	}, order.ReasonUnknownKey)
	c = accept(o)
	add("a command signed by a stranger", o, c, func(r *order.Request) {
		env, err := c.Sign(s.stranger)
		must(t, err)
		r.Command = &env
	}, order.ReasonUnknownKey)
	add("a command signed by the operator", o, c, func(r *order.Request) {
		env, err := c.Sign(s.operator)
		must(t, err)
		r.Command = &env
	}, order.ReasonUnknownKey)
	add("an altered order", o, accept(o), func(r *order.Request) {
		more := with(func(o *order.Order) { o.MaxRuns = 500 })
		env, err := more.Sign(s.operator)
		must(t, err)
		r.Order.Payload = env.Payload // under the signature of the other
	}, order.ReasonBadSignature)
	c = accept(o)
	add("an altered command", o, c, func(r *order.Request) {
		c.Type = order.Close
		env, err := c.Sign(s.technician)
		must(t, err)
		r.Command.Payload = env.Payload
	}, order.ReasonBadSignature)
	add("an order in the place of a command", o, accept(o), func(r *order.Request) { r.Command = r.Order }, order.ReasonMalformed)

	other = with(func(o *order.Order) { o.NotBefore, o.NotAfter = now.Add(-time.Hour), now.Add(-time.Minute) })
	add("an expired order", other, accept(other), nil, order.ReasonExpired)
	other = with(func(o *order.Order) { o.NotBefore = now.Add(30 * time.Minute) })
	add("an order not valid yet", other, accept(other), nil, order.ReasonNotYetValid)

	add("an unknown action", o, s.command(o, "shell"), nil, order.ReasonUnknownAction)
	add("an action that the order does not allow", o, s.command(o, order.Provision), nil, order.ReasonActionNotAllowed)
	other = with(func(o *order.Order) { o.Allow = append(slices.Clone(o.Allow), order.Provision) })
	add("an action that this agent cannot do", other, s.command(other, order.Provision), nil, order.ReasonNotSupported)
	other = with(func(o *order.Order) { o.Require = []string{"magic"} })
	add("a rung that nobody knows", other, accept(other), nil, order.ReasonMalformed)
	c = accept(o)
	c.Rev = 7
	add("another revision", o, c, nil, order.ReasonMalformed)
	c = accept(o)
	add("another id in the topic", o, c, nil, order.ReasonMalformed)
	cases[len(cases)-1].id = "somebody-elses"
	other = with(func(o *order.Order) { o.Sealed = order.Sealed("not sealed to this gateway") })
	add("secrets of another gateway", other, accept(other), nil, order.ReasonSecrets)

	// A newer trust list takes a technician and an order away. It comes with
	// the request.
	file, err := os.ReadFile(s.Path("state/trust.json"))
	must(t, err)
	env, err := order.ParseEnvelope(file)
	must(t, err)
	trust, err := order.OpenTrustList(env, []byte(public(t, s.root)))
	must(t, err)
	oldTrust := env
	trust.Version = 2
	trust.RevokedKeys = []string{public(t, s.stranger).ID()}
	trust.RevokedOrders = []string{"WO-revoked"}
	newTrust, err := trust.Sign(s.root)
	must(t, err)
	forged, err := trust.Sign(s.stranger)
	must(t, err)
	add("a trust list of another root", o, accept(o), func(r *order.Request) { r.Trust = &forged }, order.ReasonUntrustedRoot)
	revoked := with(func(o *order.Order) { o.Technicians[0].Key = public(t, s.stranger) })
	c = accept(revoked)
	add("a revoked technician", revoked, c, func(r *order.Request) {
		env, err := c.Sign(s.stranger)
		must(t, err)
		r.Command, r.Trust = &env, &newTrust
	}, order.ReasonRevoked)
	withdrawn := with(func(o *order.Order) { o.Order = "WO-revoked" })
	add("a revoked order", withdrawn, accept(withdrawn), nil, order.ReasonOrderRevoked)
	add("an older trust list", o, accept(o), func(r *order.Request) { r.Trust = &oldTrust }, order.ReasonTrustOutdated)

	raw("no command at all", []byte(`{"v":1}`), order.ReasonMalformed)
	raw("nothing", nil, order.ReasonMalformed)
	raw("random bytes", []byte("\x8f\x00\x17\xf3\x9a\x02\x7f\xff\xfe\x81"), order.ReasonMalformed)
	raw("not UTF-8", []byte("{\"v\":1,\"command\":\"\xff\xfe\xc0\xaf\"}"), order.ReasonMalformed)
	raw("not an object", []byte(`[1,2,3]`), order.ReasonMalformed)
	raw("an unknown field", []byte(`{"v":1,"command":{},"exec":"reboot"}`), order.ReasonMalformed)
	raw("a field twice", []byte(`{"v":1,"v":1,"command":{}}`), order.ReasonMalformed)
	raw("nested without end", []byte(strings.Repeat(`{"a":`, 5000)), order.ReasonMalformed)
	raw("a field name without end", []byte(`{"`+strings.Repeat(`\u0001`, 10000)+`":1}`), order.ReasonMalformed)
	return cases
}
