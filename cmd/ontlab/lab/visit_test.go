package lab_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/cmd/ontlab/lab"
	"ontagent/cmd/ontlab/ontsim"
	"ontagent/transport"
)

const (
	tenant  = "lab"
	device  = "HWTC12345678"
	another = "HWTC99999999"
)

// site is one gateway with everything around it, and somebody who listens.
type site struct {
	*lab.Lab
	broker *lab.Mosquitto
	ear    *lab.Subscriber
	sim    *ontsim.Sim
	log    *os.File
	life   context.Context // of processes that outlive the part that starts them

	root, operator, technician, timeKey, stranger ed25519.PrivateKey
	// The technician of the tests is not the one ontctl works for: each key
	// counts its commands on its own.
	counter uint64
	ids     int
}

// newSite starts everything but the gateway.
func newSite(t *testing.T) *site {
	t.Helper()
	// Not t.TempDir: the path of the control socket must stay short.
	dir, err := os.MkdirTemp("", "ontlab-") //nolint:usetesting // see above
	must(t, err)
	s := &site{counter: uint64(time.Now().UnixMilli()), life: context.WithoutCancel(t.Context())}
	t.Cleanup(func() {
		if t.Failed() {
			data, _ := os.ReadFile(s.Path("ontagent.log"))
			t.Logf("the gateway's log:\n%s", data[max(0, len(data)-8000):])
		}
		_ = os.RemoveAll(dir)
	})
	s.Lab, err = lab.New(dir, shared.bin, device)
	must(t, err)
	s.log, err = os.Create(s.Path("ontagent.log"))
	must(t, err)
	t.Cleanup(func() { s.log.Close() })
	s.broker, err = lab.NewMosquitto(dir, lab.OperatorAddr+":1883")
	must(t, err)
	must(t, s.broker.Start(s.life))
	t.Cleanup(func() { _ = s.broker.Stop() })
	s.sim, err = ontsim.Start(t.Context(), ontsim.Options{Serial: device})
	must(t, err)
	t.Cleanup(func() { _ = s.sim.Close() })
	stopDNS, err := lab.StartDNS(t.Context())
	must(t, err)
	t.Cleanup(stopDNS)

	must(t, s.WriteConfig(lab.GatewayConfig{
		ConsolePath: s.sim.Path(), RootKey: s.Path("root.pub"), LANListen: lab.LANAddr + ":7443", BackoffCap: 1,
		// The console is read once at the start: what is typed there later, a
		// job has typed.
		Extra: "config collector 'optics'\n\toption interval '86400'\n\nconfig collector 'pon'\n\toption interval '86400'\n",
	}))
	must(t, s.Enrol(t.Context()))
	for _, name := range []string{"second", "stranger"} {
		s.run(t, 0, s.Ctl, "keygen", "--out", s.Path(name))
	}
	s.root, s.operator, s.timeKey = s.key(t, "root"), s.key(t, "operator"), s.key(t, "time")
	s.technician, s.stranger = s.key(t, "second"), s.key(t, "stranger")

	s.ear = lab.Subscribe(s.life, lab.BrokerURL)
	t.Cleanup(s.ear.Close)
	t.Cleanup(func() { _ = s.StopGateway() })
	must(t, s.ear.Connected(bounded(t)))
	return s
}

// start starts the gateway and waits until it is connected.
func (s *site) start(t *testing.T) {
	t.Helper()
	must(t, s.StartGateway(s.life, s.log))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key reads a secret key made by ontctl keygen.
func (s *site) key(t *testing.T, name string) ed25519.PrivateKey {
	t.Helper()
	data, err := os.ReadFile(s.Path(name + ".key"))
	must(t, err)
	block, _ := pem.Decode(data)
	if block == nil || len(block.Bytes) != ed25519.SeedSize {
		t.Fatalf("%s.key holds no key", name)
	}
	return ed25519.NewKeyFromSeed(block.Bytes)
}

func public(t *testing.T, key ed25519.PrivateKey) order.PublicKey {
	t.Helper()
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("not an Ed25519 key")
	}
	return order.PublicKey(pub)
}

// run runs a program of ours and holds it to an exit code.
func (s *site) run(t *testing.T, want int, program string, args ...string) string {
	t.Helper()
	out, err := s.Run(t.Context(), program, args...)
	if got := lab.ExitCode(err); got != want {
		t.Fatalf("%s %s ended with %d, want %d: %v\n%s", filepath.Base(program), strings.Join(args, " "), got, want, err, out)
	}
	return string(out)
}

// newOrder is a repair order for this gateway that allows what is built.
func (s *site) newOrder(t *testing.T, id string) order.Order {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	return order.Order{
		V: 1, Order: id, Rev: 1, Type: "repair", Tenant: tenant, Device: device,
		Technicians: []order.Technician{{ID: "T-2048", Key: public(t, s.technician)}},
		Resources:   order.Resources{SN: device, LANPort: lab.LANInterface},
		Require:     strings.Split(lab.BuiltRungs(), ","),
		Allow:       []order.CommandType{order.Accept, order.Diagnose, order.Close},
		NotBefore:   now.Add(-time.Minute), NotAfter: now.Add(time.Hour), MaxRuns: 5,
	}
}

// command is the next command of the technician, under an order.
func (s *site) command(o order.Order, typ order.CommandType) order.Command {
	s.counter++
	s.ids++
	return order.Command{
		V: 1, ID: fmt.Sprintf("e2e-%s-%d", o.Order, s.ids), Order: o.Order, Rev: o.Rev, Device: device,
		Type: typ, Counter: s.counter,
	}
}

// request signs an order and a command by those who should.
func (s *site) request(t *testing.T, o order.Order, c order.Command) order.Request {
	t.Helper()
	signedOrder, err := o.Sign(s.operator)
	must(t, err)
	signedCommand, err := c.Sign(s.technician)
	must(t, err)
	return order.Request{V: 1, Order: &signedOrder, Command: &signedCommand}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return data
}

// send sends a request down to the gateway, addressed by a command id.
func (s *site) send(t *testing.T, id string, payload []byte) {
	t.Helper()
	must(t, s.ear.Publish(bounded(t), transport.Address{Tenant: tenant, Device: device, Kind: transport.KindCommand, Name: id}, payload))
}

// status waits for a status of a job that ok accepts. It returns it and the
// number of the message behind it.
func (s *site) status(t *testing.T, id string, from int, ok func(job.Status) bool) (job.Status, int) {
	t.Helper()
	var st job.Status
	_, next, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool {
		if m.Kind != transport.KindStatus || m.Name != id || m.Device != device {
			return false
		}
		st = job.Status{}
		if err := json.Unmarshal(m.Body, &st); err != nil {
			t.Errorf("status %s: %v", m.Body, err)
			return false
		}
		return ok(st)
	})
	if err != nil {
		t.Fatalf("job %s: %v; there was: %+v", id, err, s.statuses(id))
	}
	return st, next
}

// statuses are all that were told of a job.
func (s *site) statuses(id string) []job.Status {
	var all []job.Status
	for _, m := range s.ear.Messages(0) {
		var st job.Status
		if m.Kind == transport.KindStatus && m.Name == id && json.Unmarshal(m.Body, &st) == nil {
			all = append(all, st)
		}
	}
	return all
}

func answered(st job.Status) bool { return st.State == job.Challenge || st.State.Terminal() }

func is(state job.State) func(job.Status) bool {
	return func(st job.Status) bool { return st.State == state }
}

// submit sends a command, proves the time if the gateway asks for it, and
// returns the first status that ok accepts.
func (s *site) submit(t *testing.T, o order.Order, c order.Command, ok func(job.Status) bool) job.Status {
	t.Helper()
	from := s.ear.Heard()
	s.send(t, c.ID, encode(t, s.request(t, o, c)))
	st, from := s.status(t, c.ID, from, func(st job.Status) bool { return st.State == job.Challenge || ok(st) })
	if st.State != job.Challenge {
		return st
	}
	signed, err := order.TimeStatement{Device: device, Nonce: st.Nonce, UTC: time.Now().UTC()}.Sign(s.timeKey)
	must(t, err)
	c.Nonce = st.Nonce
	req := s.request(t, o, c)
	req.Time = &signed
	s.send(t, c.ID, encode(t, req))
	st, _ = s.status(t, c.ID, from, ok)
	return st
}

// tellTime makes the gateway sure of its clock, by a command that does nothing.
func (s *site) tellTime(t *testing.T) {
	t.Helper()
	o := s.newOrder(t, "WO-clock")
	c := s.command(o, order.Cancel)
	c.Args.Target = "nothing"
	if st := s.submit(t, o, c, answered); st.State != job.Failed {
		t.Fatalf("cancelling nothing: %+v", st)
	}
}

// event waits for the event that an interface came up, or that it did not stay
// so, and returns when it arrived. What is not up has more than one name.
func (s *site) event(t *testing.T, from int, subject, what string, up bool) time.Time {
	t.Helper()
	m, _, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool {
		var e struct{ Subject, What, Before, After string }
		return m.Kind == transport.KindEvent && m.Name == "link" && json.Unmarshal(m.Body, &e) == nil &&
			e.Subject == subject && e.What == what && (e.Before == "up") == !up && (e.After == "up") == up
	})
	if err != nil {
		t.Fatalf("event %s %s, up %v: %v", subject, what, up, err)
	}
	return m.At
}

// state waits for a state message.
func (s *site) state(t *testing.T, from int, state string, retained bool) {
	t.Helper()
	_, _, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool {
		return m.Kind == transport.KindState && m.Device == device && m.Retained == retained &&
			bytes.Contains(m.Body, []byte(`"state":"`+state+`"`))
	})
	if err != nil {
		t.Fatalf("state %s: %v", state, err)
	}
}

// agentStatus is what is read of `ontagent status --json`.
type agentStatus struct {
	Epoch   uint64 `json:"epoch"`
	Records uint64 `json:"records"`
	MQTT    struct {
		Connected   bool   `json:"connected"`
		Connections uint64 `json:"connections"`
	} `json:"mqtt"`
	Job        *job.Status            `json:"job"`
	Queue      []transport.ClassStats `json:"queue"`
	Collectors []collectorStatus      `json:"collectors"`
}

type collectorStatus struct {
	Name      string `json:"name"`
	LastError string `json:"last_error"`
	Runs      uint64 `json:"runs"`
}

func (s *site) agentStatus(t *testing.T) agentStatus {
	t.Helper()
	var st agentStatus
	must(t, json.Unmarshal([]byte(s.run(t, 0, s.Agent, "status", "--json", "--config", s.Path("ontagent.conf"))), &st))
	return st
}

// runs is how many runs of an order the gateway has counted.
func (s *site) runs(t *testing.T, id string) int {
	t.Helper()
	data, err := os.ReadFile(s.Path("state/authority.json"))
	must(t, err)
	var st struct {
		Orders map[string]struct{ Runs int }
	}
	must(t, json.Unmarshal(data, &st))
	return st.Orders[id].Runs
}

// records are the files of the records on the gateway.
func (s *site) records(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(s.Path("state/records/*.record"))
	must(t, err)
	return files
}

// missing lists what has not arrived: within each epoch and class every
// sequence number must have, or a gap event must say that it was dropped.
func missing(t *testing.T, ear *lab.Subscriber, device string) []string {
	t.Helper()
	type stream struct {
		epoch uint64
		class transport.Class
	}
	have := map[stream]map[uint64]bool{}
	last := map[stream]uint64{}
	note := func(k stream, seq uint64) {
		if have[k] == nil {
			have[k] = map[uint64]bool{}
		}
		have[k][seq] = true
		last[k] = max(last[k], seq)
	}
	for _, m := range ear.Messages(0) {
		if m.Device != device || m.Header.Class == transport.ClassSession {
			continue
		}
		note(stream{m.Header.Epoch, m.Header.Class}, m.Header.Seq)
		if m.Kind == transport.KindEvent && m.Name == transport.EventGap {
			var gap transport.Gap
			must(t, json.Unmarshal(m.Body, &gap))
			for seq := gap.FromSeq; seq <= gap.ToSeq; seq++ {
				note(stream{m.Header.Epoch, gap.Class}, seq)
			}
		}
	}
	var lost []string
	for k, seqs := range have {
		first := uint64(0)
		for seq := uint64(1); seq <= last[k]+1; seq++ {
			absent := seq <= last[k] && !seqs[seq]
			switch {
			case absent && first == 0:
				first = seq
			case !absent && first > 0:
				lost = append(lost, fmt.Sprintf("epoch %d, class %s: %d to %d of %d", k.epoch, k.class, first, seq-1, last[k]))
				first = 0
			}
		}
	}
	return lost
}
