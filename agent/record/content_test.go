package record

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ontagent/agent/order"
)

// signPayload signs content as the gateway.
func (p parties) signPayload(payload []byte) []byte {
	return must(Marshal(must(order.Sign(order.TypeRecord, payload, p.gateway))))
}

func (p parties) extract(change func(*order.Extract)) order.Extract {
	e := order.Extract{V: 1, Order: "WO-1", Device: device, Taken: time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC), State: order.AccountActive, DownMbps: 500}
	if change != nil {
		change(&e)
	}
	return e
}

func TestExtractIsVerified(t *testing.T) {
	p := newParties(t)
	stranger := newParties(t)
	for name, tc := range map[string]struct {
		env    order.Envelope
		status Status
	}{
		"the operator's":     {must(p.extract(nil).Sign(p.operator)), Valid},
		"of another order":   {must(p.extract(func(e *order.Extract) { e.Order = "WO-2" }).Sign(p.operator)), Altered},
		"of another gateway": {must(p.extract(func(e *order.Extract) { e.Device = "HWTC99999999" }).Sign(p.operator)), Altered},
		"the technician's":   {must(p.extract(nil).Sign(p.technician)), Altered},
		"a stranger's":       {must(p.extract(nil).Sign(stranger.operator)), Altered},
		"not an extract":     {p.record("x").Order, Altered},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.record("job-1")
			r.Extract = &tc.env
			_, data, err := openLog(t, t.TempDir(), p).Close(r)
			if err != nil {
				t.Fatal(err)
			}
			v := Verify(data, p.options())
			if v.Status != tc.status || (tc.status == Altered) != slices.Equal(v.Altered, []string{"extract"}) || (v.Order != nil) != (tc.status == Valid) {
				t.Errorf("%+v", v)
			}
		})
	}
	r := p.record("job-1")
	env := must(p.extract(nil).Sign(p.operator))
	r.Extract = &env
	_, data, err := openLog(t, t.TempDir(), p).Close(r)
	if err != nil {
		t.Fatal(err)
	}
	altered := forge(t, data, nil, func(b []byte) []byte {
		return bytes.Replace(b, []byte(env.Payload[:40]), []byte(strings.Repeat("A", 40)), 1)
	})
	if v := Verify(altered, p.options()); v.Status != Altered || !slices.Equal(v.Altered, []string{"extract"}) {
		t.Errorf("altered extract: %+v", v)
	}
}

// TestExtractOfARevokedOperator: the record is as it was signed; its extract is
// worth nothing any more.
func TestExtractOfARevokedOperator(t *testing.T) {
	p := newParties(t)
	second := newParties(t).operator
	r := p.record("job-1")
	r.Trust = must(order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{
		{ID: "op-1", Role: order.RoleOperator, Key: pub(p.operator)}, {ID: "op-2", Role: order.RoleOperator, Key: pub(second)},
	}}.Sign(p.root))
	env := must(p.extract(nil).Sign(second))
	r.Extract = &env
	_, data, err := openLog(t, t.TempDir(), p).Close(r)
	if err != nil {
		t.Fatal(err)
	}
	o := p.options()
	if v := Verify(data, o); v.Status != Valid {
		t.Fatalf("%+v", v)
	}
	o.Trust = &order.TrustList{RevokedKeys: []string{pub(second).ID()}}
	if v := Verify(data, o); v.Status != SignerUnknown || v.Order != nil || v.Command != nil {
		t.Errorf("%+v", v)
	}
}

func TestCommandsThatMakeRecords(t *testing.T) {
	p := newParties(t)
	for typ, want := range map[order.CommandType]Status{
		order.Accept: Valid, order.Inspection: Valid, order.RepairCmd: Valid,
		order.Diagnose: Altered, order.Provision: Altered, order.Close: Altered,
	} {
		for _, allowed := range []bool{true, false} {
			r := p.record("job-1")
			var o order.Order
			if err := json.Unmarshal(must(decode(r.Order)), &o); err != nil {
				t.Fatal(err)
			}
			o.Allow = []order.CommandType{order.Cancel}
			if allowed {
				o.Allow = append(o.Allow, typ)
			}
			c := order.Command{V: 1, ID: "job-1", Order: "WO-1", Rev: 1, Device: device, Type: typ, Counter: 1}
			r.Order, r.Command = must(o.Sign(p.operator)), must(c.Sign(p.technician))
			_, data, err := openLog(t, t.TempDir(), p).Close(r)
			if err != nil {
				t.Fatal(err)
			}
			want := want
			if !allowed {
				want = Altered
			}
			if v := Verify(data, p.options()); v.Status != want || (want == Valid && v.Command.Type != typ) {
				t.Errorf("%s, allowed %t: %s %s", typ, allowed, v.Status, v.Problem)
			}
		}
	}
}

func decode(env order.Envelope) ([]byte, error) {
	return base64.StdEncoding.DecodeString(env.Payload)
}

// TestOldRecordsStayValid: those that have no parts.
func TestOldRecordsStayValid(t *testing.T) {
	p := newParties(t)
	r := p.record("job-1")
	r.V, r.N = 1, 1
	data := p.signPayload(must(r.encode(false)))
	if v := Verify(data, p.options()); v.Status != Valid || v.Record.Parts != nil {
		t.Errorf("%+v", v)
	}
	altered := forge(t, data, nil, func(b []byte) []byte { return bytes.Replace(b, []byte("-27.4"), []byte("-19.2"), 1) })
	if v := Verify(altered, p.options()); !slices.Equal(v.Altered, []string{"ladder.results[0] optical"}) {
		t.Errorf("%+v", v)
	}
}

// TestPartsNameWhatWasAltered alters a ladder as it really is.
func TestPartsNameWhatWasAltered(t *testing.T) {
	p := newParties(t)
	r := p.record("job-1")
	r.Ladder = json.RawMessage(`{"verdict":"fail","results":[{"rung":"identity","verdict":"pass"},` +
		`{"rung":"optical","verdict":"fail","reason":"<weak>","measurements":[{"name":"rx_power_dbm","value":-27.4},{"name":"rx_power_sample_dbm","value":-27.3},` +
		`{"name":"rx_power_sample_dbm","value":-27.5},{"name":"","value":1}]}],"duration_s":3}`)
	_, data, err := openLog(t, t.TempDir(), p).Close(r)
	if err != nil {
		t.Fatal(err)
	}
	if v := Verify(data, p.options()); v.Status != Valid {
		t.Fatalf("%+v", v)
	}
	const optical = "ladder.results[1] optical"
	for name, tc := range map[string]struct {
		old, new string
		want     []string
	}{
		"a reading":          {`-27.4`, `-17.4`, []string{optical + ": rx_power_dbm"}},
		"a sample":           {`-27.3`, `-17.3`, []string{optical + ": rx_power_sample_dbm"}},
		"the second sample":  {`-27.5`, `-17.5`, []string{optical + ": rx_power_sample_dbm#2"}},
		"a verdict":          {`"optical","verdict":"fail"`, `"optical","verdict":"pass"`, []string{optical + ": verdict"}},
		"a sample less":      {`,{"name":"rx_power_sample_dbm","value":-27.5}`, ``, []string{optical + ": rx_power_sample_dbm#2"}},
		"a reading renamed":  {`"rx_power_dbm"`, `"tx_power_dbm"`, []string{optical + ": rx_power_dbm", optical + ": tx_power_dbm"}},
		"a member more":      {`"rung":"identity"`, `"rung":"identity","log":[]`, []string{"ladder.results[0] identity: log"}},
		"what has no name":   {`"value":1}`, `"value":2}`, []string{optical}},
		"the whole's":        {`{"verdict":"fail","results"`, `{"verdict":"pass","results"`, []string{"ladder.verdict"}},
		"a part's digest":    {`":{".rung":"`, `":{".rung":"0`, []string{"parts"}},
		"a result's section": {`"rung":"optical"`, `"rung":"optics"`, []string{optical, "ladder.results[1] optics"}},
	} {
		t.Run(name, func(t *testing.T) {
			altered := forge(t, data, nil, func(b []byte) []byte {
				if !bytes.Contains(b, []byte(tc.old)) {
					t.Fatalf("no %s in %s", tc.old, b)
				}
				return bytes.Replace(b, []byte(tc.old), []byte(tc.new), 1)
			})
			if v := Verify(altered, p.options()); v.Status != Altered || !slices.Equal(v.Altered, tc.want) {
				t.Errorf("altered %q, want %q", v.Altered, tc.want)
			}
		})
	}
}

// TestOtherFormsHideNoAlteration: whoever edits a record with a common tool gets
// all of it in that tool's form; only what was edited is named.
func TestOtherFormsHideNoAlteration(t *testing.T) {
	p := newParties(t)
	r := p.record("job-1")
	r.Ladder = json.RawMessage(`{"verdict":"fail","results":[{"rung":"identity","verdict":"pass","reason":"a > b & c"},` +
		`{"rung":"optical","verdict":"fail","reason":"<weak>","measurements":[{"name":"rx_power_dbm","value":-27.4,"source":"a>b"},{"name":"temperature","value":41,"source":"c>d"}]}]}`)
	_, data, err := openLog(t, t.TempDir(), p).Close(r)
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(indent string, old, new string) []byte {
		return forge(t, data, nil, func(b []byte) []byte {
			var wide bytes.Buffer
			if err := json.Indent(&wide, b, "", indent); err != nil {
				t.Fatal(err)
			}
			out := wide.String()
			for escape, char := range map[string]string{`\u003e`: ">", `\u003c`: "<", `\u0026`: "&"} {
				out = strings.ReplaceAll(out, escape, char)
			}
			if out == string(b) || !strings.Contains(out, ">") || !strings.Contains(out, old) {
				t.Fatalf("not rewritten: %s", out)
			}
			return []byte(strings.Replace(out, old, new, 1))
		})
	}
	for name, tc := range map[string]struct {
		data []byte
		want []string
	}{
		"a reading": {rewrite(" ", "-27.4", "-17.4"), []string{"ladder.results[1] optical: rx_power_dbm"}},
		"a field":   {rewrite("", `"T-7"`, `"T-8"`), []string{"technician"}},
		"a reason":  {rewrite("\t", `"<weak>"`, `"<strong>"`), []string{"ladder.results[1] optical: reason"}},
		"the form":  {rewrite(" ", "-27.4", "-27.4"), nil},
	} {
		if v := Verify(tc.data, p.options()); v.Status != Altered || !slices.Equal(v.Altered, tc.want) {
			t.Errorf("%s: %s, altered %q, want %q", name, v.Status, v.Altered, tc.want)
		}
	}
}

// TestPartsGoBeforeEvidence: a record that fits without them is closed whole.
func TestPartsGoBeforeEvidence(t *testing.T) {
	p := newParties(t)
	r := p.record("job-1")
	for n := 300; ; n += 60 {
		var b strings.Builder
		b.WriteString(`{"verdict":"fail","results":[{"rung":"optical","verdict":"fail","measurements":[`)
		for i := range n {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(`{"name":"a","value":-27.4,"raw":"` + strings.Repeat("r", 60) + `"}`)
		}
		b.WriteString(`]}],"duration_s":3}`)
		r.Ladder = json.RawMessage(b.String())
		_, data, err := openLog(t, t.TempDir(), p).Close(r)
		if err != nil {
			t.Fatalf("%d measurements: no record without parts: %v", n, err)
		}
		v := Verify(data, p.options())
		if v.Status != Valid {
			t.Fatalf("%+v", v)
		}
		if v.Record.Parts == nil {
			return
		}
	}
}

// TestDamagedHeadForgetsNoLine: what the line was like is in the last record.
func TestDamagedHeadForgetsNoLine(t *testing.T) {
	p, dir := newParties(t), t.TempDir()
	l := openLog(t, dir, p)
	r := p.record("a")
	r.Renews, r.Baseline = true, map[string]float64{"rx_power_dbm": -19.2}
	env, _, err := l.Close(r)
	if err != nil {
		t.Fatal(err)
	}
	r = p.record("b")
	r.Line = l.Line()
	if _, _, err := l.Close(r); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, headFile)); err != nil {
		t.Fatal(err)
	}
	line := openLog(t, dir, p).Line()
	if line == nil || line.SHA256 != order.Digest(env) || line.N != 1 || line.Readings["rx_power_dbm"] != -19.2 {
		t.Errorf("%+v", line)
	}
}
