package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

// resign makes a record of a payload as it stands, digests made to fit: what a
// gateway in wrong hands can do.
func resign(t *testing.T, p parties, payload string) []byte {
	t.Helper()
	digests, err := sectionDigests([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(payload, `"digests":`)
	payload = payload[:i] + `"digests":` + string(must(json.Marshal(digests))) + "}"
	return must(Marshal(must(order.Sign(order.TypeRecord, []byte(payload), p.gateway))))
}

func payloadOf(t *testing.T, data []byte) string {
	t.Helper()
	env, err := order.ParseEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	return string(must(base64.StdEncoding.DecodeString(env.Payload)))
}

// TestAmbiguousContentIsNotValid: two readers must not see two things in one
// record, even if its gateway signed it.
func TestAmbiguousContentIsNotValid(t *testing.T) {
	p := newParties(t)
	_, data, err := openLog(t, t.TempDir(), p).Close(p.record("job-1"))
	if err != nil {
		t.Fatal(err)
	}
	payload := payloadOf(t, data)
	if v := Verify(resign(t, p, payload), p.options()); v.Status != Valid {
		t.Fatalf("unchanged: %+v", v)
	}
	for name, change := range map[string][2]string{
		"a member twice":              {`"verdict":"fail","ladder"`, `"verdict":"pass","verdict":"fail","ladder"`},
		"a member in another case":    {`"verdict":"fail","ladder"`, `"verdict":"fail","VERDICT":"pass","ladder"`},
		"a member twice by an escape": {`"verdict":"fail","ladder"`, `"verdict":"fail","verdic\u0074":"pass","ladder"`},
		"a result's verdict twice":    {`"rung":"optical","verdict":"fail"`, `"rung":"optical","verdict":"pass","verdict":"fail"`},
		"case within a result":        {`"rung":"optical","verdict":"fail"`, `"rung":"optical","verdict":"fail","Verdict":"pass"`},
		"a case of its own":           {`"verdict":"fail","ladder"`, `"Verdict":"fail","ladder"`},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(payload, change[0], change[1], 1)
			if changed == payload {
				t.Fatal("nothing changed")
			}
			if v := Verify(resign(t, p, changed), p.options()); v.Status != Altered || v.Problem == "" {
				t.Errorf("%+v", v)
			}
		})
	}
	newer := strings.Replace(payload, `"verdict":"fail","ladder"`, `"verdict":"fail","weather":"rain","ladder"`, 1)
	if v := Verify(resign(t, p, newer), p.options()); v.Status != Valid {
		t.Errorf("a member that a later version may add: %+v", v)
	}
	later := strings.Replace(payload, `{"v":1,`, `{"v":2,`, 1)
	if v := Verify(resign(t, p, later), p.options()); v.Status != Unreadable || !strings.Contains(v.Problem, "version 2") {
		t.Errorf("a later version: %+v", v)
	}
}

// TestAuthorityOfTheVisitIsChecked: documents that are genuine, but are no leave
// to make this record.
func TestAuthorityOfTheVisitIsChecked(t *testing.T) {
	p := newParties(t)
	timeKey := newParties(t).root
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	change := func(r *Record, o func(*order.Order), c func(*order.Command)) {
		ord := order.Order{
			V: 1, Order: "WO-1", Rev: 1, Type: order.Repair, Tenant: "lab", Device: device,
			Technicians: []order.Technician{{ID: "T-7", Key: pub(p.technician)}},
			Allow:       []order.CommandType{order.Accept, order.Diagnose, order.Close}, NotBefore: now, NotAfter: now.Add(time.Hour), MaxRuns: 9,
		}
		cmd := order.Command{V: 1, ID: "job-1", Order: "WO-1", Rev: 1, Device: device, Type: order.Accept, Counter: 1}
		o(&ord)
		c(&cmd)
		r.Order, r.Command = must(ord.Sign(p.operator)), must(cmd.Sign(p.technician))
	}
	sameOrder, sameCommand := func(*order.Order) {}, func(*order.Command) {}
	signedTime := func(r *Record, key ed25519.PrivateKey, dev, nonce string) {
		change(r, sameOrder, func(c *order.Command) { c.Nonce = "n1" })
		list := order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{
			{ID: "op", Role: order.RoleOperator, Key: pub(p.operator)}, {ID: "t", Role: order.RoleTime, Key: pub(timeKey)},
		}}
		r.Trust = must(list.Sign(p.root))
		r.SignedTime = new(must(order.TimeStatement{Device: dev, Nonce: nonce, UTC: now}.Sign(key)))
	}
	for name, tc := range map[string]struct {
		status Status
		change func(*Record)
	}{
		"a diagnosis": {Altered, func(r *Record) { change(r, sameOrder, func(c *order.Command) { c.Type = order.Diagnose }) }},
		"a close":     {Altered, func(r *Record) { change(r, sameOrder, func(c *order.Command) { c.Type = order.Close }) }},
		"not allowed": {Altered, func(r *Record) {
			change(r, func(o *order.Order) { o.Allow = []order.CommandType{order.Diagnose} }, sameCommand)
		}},
		"a signed time":                      {Valid, func(r *Record) { signedTime(r, timeKey, device, "n1") }},
		"a signed time by another":           {Altered, func(r *Record) { signedTime(r, p.technician, device, "n1") }},
		"a signed time for another device":   {Altered, func(r *Record) { signedTime(r, timeKey, "HWTC99999999", "n1") }},
		"a signed time for another question": {Altered, func(r *Record) { signedTime(r, timeKey, device, "n2") }},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.record("job-1")
			tc.change(&r)
			_, data, err := openLog(t, t.TempDir(), p).Close(r)
			if err != nil {
				t.Fatal(err)
			}
			if v := Verify(data, p.options()); v.Status != tc.status {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestRevokedOperatorIsNotCalledAnAlteration: the record is what the gateway
// signed; only nobody vouches for its order any more.
func TestRevokedOperatorIsNotCalledAnAlteration(t *testing.T) {
	p := newParties(t)
	second := newParties(t).operator
	r := p.record("job-1")
	r.Trust = must(order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{
		{ID: "op-1", Role: order.RoleOperator, Key: pub(p.operator)}, {ID: "op-2", Role: order.RoleOperator, Key: pub(second)},
	}}.Sign(p.root))
	st := order.Statement{V: 1, Device: device, Ed25519: pub(p.gateway), X25519: order.X25519Key{1}, TLSSPKI: strings.Repeat("ab", 32)}
	r.Statement = must(st.Sign(second))
	_, data, err := openLog(t, t.TempDir(), p).Close(r)
	if err != nil {
		t.Fatal(err)
	}
	o := p.options()
	if v := Verify(data, o); v.Status != Valid {
		t.Fatalf("%+v", v)
	}
	o.Trust = &order.TrustList{RevokedKeys: []string{pub(p.operator).ID()}}
	if v := Verify(data, o); v.Status != SignerUnknown {
		t.Errorf("%+v", v)
	}
}

func TestHostileFilesAreBounded(t *testing.T) {
	p := newParties(t)
	deep := `{"v":1,"x":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}`
	for name, data := range map[string][]byte{
		"huge":             bytes.Repeat([]byte("a"), 8<<20),
		"huge and JSON":    []byte(`{"payloadType":"` + strings.Repeat("a", 8<<20) + `"}`),
		"nested outside":   []byte(strings.Repeat(`{"payload":`, 8000)),
		"nested inside":    must(Marshal(must(order.Sign(order.TypeRecord, []byte(deep), p.gateway)))),
		"ladder of digits": must(Marshal(must(order.Sign(order.TypeRecord, []byte(`{"v":1,"ladder":{"results":[`+strings.Repeat("1,", 30000)+`1]}}`), p.gateway)))),
	} {
		start := time.Now()
		if v := Verify(data, p.options()); v.Status == Valid || v.Status == SignerUnknown || len(v.Problem) > 1000 {
			t.Errorf("%s: %s %.200s", name, v.Status, v.Problem)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// noSync fails the sync of the directory after a record was put there, as a disk
// does that begins to die.
type noSync struct{ durable.FS }

func (f noSync) SyncDir(op, path string) error {
	if op == "record.write" {
		return errors.New("input/output error")
	}
	return f.FS.SyncDir(op, path)
}

// TestFailedCloseDoesNotFork: a record that was not closed, but may be on the
// disk, must not get a twin of the same number, now or after a restart.
func TestFailedCloseDoesNotFork(t *testing.T) {
	for _, jobs := range [][2]string{{"aaa", "zzz"}, {"zzz", "aaa"}} {
		p, dir := newParties(t), t.TempDir()
		l := openLog(t, dir, p)
		_, first, err := l.Close(p.record("first"))
		if err != nil {
			t.Fatal(err)
		}
		l.fs = noSync{durable.OS{}}
		if _, _, err := l.Close(p.record(jobs[0])); err == nil {
			t.Fatal("closed")
		}
		l.fs = durable.OS{}
		_, second, err := l.Close(p.record(jobs[1]))
		if err != nil {
			t.Fatal(err)
		}
		_, third, err := openLog(t, dir, p).Close(p.record("third"))
		if err != nil {
			t.Fatal(err)
		}
		var vs []Verification
		for _, data := range [][]byte{first, second, third} {
			vs = append(vs, Verify(data, p.options()))
		}
		if err := VerifyChain(vs); err != nil {
			t.Errorf("failed job %s: %v", jobs[0], err)
		}
	}
}

// TestLostEndOfTheChainIsNotWrittenAgain: the last record is damaged, and the
// head tells of the one before.
func TestLostEndOfTheChainIsNotWrittenAgain(t *testing.T) {
	p, dir := newParties(t), t.TempDir()
	l := openLog(t, dir, p)
	if _, _, err := l.Close(p.record("a")); err != nil {
		t.Fatal(err)
	}
	old := must(os.ReadFile(filepath.Join(dir, headFile)))
	if _, _, err := l.Close(p.record("b")); err != nil {
		t.Fatal(err)
	}
	names := must(l.names())
	last := filepath.Join(dir, names[len(names)-1])
	for name, content := range map[string][]byte{"rotten": []byte("rotten"), "too large": make([]byte, MaxSize+1)} {
		if err := os.WriteFile(last, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, _ := openLog(t, dir, p).Head(); n != 2 {
			t.Errorf("%s, with its head: goes on at %d", name, n)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, headFile), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(LogOptions{FS: durable.OS{}, Dir: dir, Key: p.gateway}); err == nil {
		t.Error("goes on from the record before: number 2 would be given twice")
	}
}

func FuzzCheckNames(f *testing.F) {
	for _, seed := range []string{`{"a":[{"b":"c"},"d",{}],"e":{"f":null}}`, `[[],{}]`, `"a"`, `{"a":1,"A":2}`, `{"a":{"k":1,"K":1}}`, `{"s":1,"\u017f":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		var once map[string]json.RawMessage
		if json.Unmarshal(data, &once) != nil || checkNames(data) != nil {
			return
		}
		// Unambiguous: written anew it is the same members.
		if again := must(json.Marshal(once)); checkNames(again) != nil || bytes.Count(data, []byte(`:`)) < len(once) {
			t.Fatalf("%s", data)
		}
	})
}
