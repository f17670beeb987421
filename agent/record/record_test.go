package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

const device = "HWTC12345678"

// parties sign what ends up in a record.
type parties struct {
	root, operator, technician, gateway ed25519.PrivateKey
}

func newParties(t *testing.T) parties {
	t.Helper()
	key := func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return parties{key(), key(), key(), key()}
}

func pub(k ed25519.PrivateKey) order.PublicKey {
	p, _ := k.Public().(ed25519.PublicKey)
	return order.PublicKey(p)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (p parties) record(job string) Record {
	trust := order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{{ID: "op", Role: order.RoleOperator, Key: pub(p.operator)}}}
	st := order.Statement{V: 1, Device: device, Ed25519: pub(p.gateway), X25519: order.X25519Key{1}, TLSSPKI: strings.Repeat("ab", 32)}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := order.Order{
		V: 1, Order: "WO-1", Rev: 1, Type: order.Repair, Tenant: "lab", Device: device,
		Technicians: []order.Technician{{ID: "T-7", Key: pub(p.technician)}},
		Allow:       []order.CommandType{order.Accept}, NotBefore: now, NotAfter: now.Add(time.Hour), MaxRuns: 9,
	}
	c := order.Command{V: 1, ID: job, Order: "WO-1", Rev: 1, Device: device, Type: order.Accept, Counter: 1}
	return Record{
		Device: device, Tenant: "lab", Job: job, Technician: "T-7",
		Trust: must(trust.Sign(p.root)), Statement: must(st.Sign(p.operator)),
		Order: must(o.Sign(p.operator)), Command: must(c.Sign(p.technician)),
		Verdict:   "fail",
		Ladder:    json.RawMessage(`{"verdict":"fail","results":[{"rung":"optical","verdict":"fail","rx":-27.4},{"rung":"host","verdict":"pass"}],"duration_s":3}`),
		Diagnosis: json.RawMessage(`{"causes":[]}`),
	}
}

func openLog(t *testing.T, dir string, p parties) *Log {
	t.Helper()
	l, err := OpenLog(LogOptions{FS: durable.OS{}, Dir: dir, Key: p.gateway})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (p parties) options() VerifyOptions { return VerifyOptions{Root: ed25519.PublicKey(pub(p.root))} }

func TestRecordIsValidUpToTheRoot(t *testing.T) {
	p := newParties(t)
	_, data, err := openLog(t, t.TempDir(), p).Close(p.record("job-1"))
	if err != nil {
		t.Fatal(err)
	}
	v := Verify(data, p.options())
	if v.Status != Valid || v.Order.Order != "WO-1" || v.Record.N != 1 || v.Problem != "" {
		t.Fatalf("%+v", v)
	}
	if v := Verify(data, VerifyOptions{}); v.Status != SignerUnknown {
		t.Errorf("without a root: %+v", v)
	}
	if v := Verify(data, VerifyOptions{Root: ed25519.PublicKey(pub(p.technician))}); v.Status != SignerUnknown {
		t.Errorf("with another root: %+v", v)
	}
}

// forge changes the content and signs it anew.
func forge(t *testing.T, data []byte, key ed25519.PrivateKey, change func(payload []byte) []byte) []byte {
	t.Helper()
	env, err := order.ParseEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	payload := must(base64.StdEncoding.DecodeString(env.Payload))
	changed := change(bytes.Clone(payload))
	if key == nil {
		env.Payload = base64.StdEncoding.EncodeToString(changed)
		return must(Marshal(env))
	}
	return must(Marshal(must(order.Sign(order.TypeRecord, changed, key))))
}

func TestAlterationsAreNamed(t *testing.T) {
	p := newParties(t)
	_, data, err := openLog(t, t.TempDir(), p).Close(p.record("job-1"))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte {
			if !bytes.Contains(b, []byte(old)) {
				t.Fatalf("no %q to replace", old)
			}
			return bytes.Replace(b, []byte(old), []byte(new), 1)
		}
	}
	stranger := newParties(t)
	for name, tc := range map[string]struct {
		data   []byte
		status Status
		names  string
	}{
		"a reading":             {forge(t, data, nil, replace("-27.4", "-19.2")), Altered, "ladder.results[0] optical: rx"},
		"the verdict":           {forge(t, data, nil, replace(`"technician":"T-7"`, `"technician":"T-8"`)), Altered, "technician"},
		"re-signed by another":  {forge(t, data, stranger.gateway, replace("-27.4", "-19.2")), Altered, "signature"},
		"re-signed, unchanged":  {forge(t, data, stranger.gateway, func(b []byte) []byte { return b }), Altered, "signature"},
		"device's key, changed": {forge(t, data, p.gateway, replace("-27.4", "-19.2")), Altered, "ladder.results[0] optical: rx"},
		"white space":           {bytes.Replace(data, []byte(`{`), []byte(`{ `), 1), Altered, "form"},
		"empty":                 {nil, Unreadable, ""},
		"an order":              {must(json.Marshal(p.record("x").Order)), Unreadable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := Verify(tc.data, p.options())
			if v.Status != tc.status || v.Problem == "" {
				t.Fatalf("%+v", v)
			}
			if tc.names != "" && !slices.Contains(v.Altered, tc.names) {
				t.Errorf("altered %q, want %q among them", v.Altered, tc.names)
			}
		})
	}
}

func TestBorrowedDocumentsAreNoticed(t *testing.T) {
	p := newParties(t)
	other := p
	other.technician = newParties(t).technician
	for name, change := range map[string]func(*Record){
		"command of a technician the order does not name": func(r *Record) { r.Command = other.record("job-1").Command },
		"another job":        func(r *Record) { r.Job = "job-2" },
		"another technician": func(r *Record) { r.Technician = "T-8" },
		"another device":     func(r *Record) { r.Device = "HWTC99999999" },
		"another tenant":     func(r *Record) { r.Tenant = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			r := p.record("job-1")
			change(&r)
			_, data, err := openLog(t, t.TempDir(), p).Close(r)
			if err != nil {
				t.Fatal(err)
			}
			if v := Verify(data, p.options()); v.Status != Altered {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestRevokedSinceThen(t *testing.T) {
	p := newParties(t)
	_, data, err := openLog(t, t.TempDir(), p).Close(p.record("job-1"))
	if err != nil {
		t.Fatal(err)
	}
	o := p.options()
	for name, trust := range map[string]order.TrustList{
		"device":     {RevokedKeys: []string{pub(p.gateway).ID()}},
		"technician": {RevokedKeys: []string{pub(p.technician).ID()}},
		"order":      {RevokedOrders: []string{"WO-1"}},
	} {
		o.Trust = &trust
		if v := Verify(data, o); v.Status != SignerUnknown || v.Problem == "" {
			t.Errorf("revoked %s: %+v", name, v)
		}
	}
}

func TestEveryFlippedBitAndEveryCutIsNoticed(t *testing.T) {
	p := newParties(t)
	_, data, err := openLog(t, t.TempDir(), p).Close(p.record("job-1"))
	if err != nil {
		t.Fatal(err)
	}
	step := 29
	switch {
	case os.Getenv("LONG") == "1":
		step = 1
	case testing.Short():
		step = 197 // an emulated processor takes minutes for more
	}
	for i := 0; i < len(data); i += step {
		for bit := range 8 {
			flipped := bytes.Clone(data)
			flipped[i] ^= 1 << bit
			if v := Verify(flipped, p.options()); v.Status == Valid || v.Status == SignerUnknown {
				t.Fatalf("byte %d bit %d flipped: %s", i, bit, v.Status)
			}
		}
		if i >= len(data)-2 {
			break // without its line end a record is still whole
		}
		if v := Verify(data[:i], p.options()); v.Status != Unreadable {
			t.Fatalf("cut off after %d of %d bytes: %s", i, len(data), v.Status)
		}
	}
}

func TestChainHoldsOverRestarts(t *testing.T) {
	p, dir := newParties(t), t.TempDir()
	var files [][]byte
	for _, job := range []string{"a", "b", "c"} {
		_, data, err := openLog(t, dir, p).Close(p.record(job))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
	}
	verify := func(files ...[]byte) error {
		var vs []Verification
		for _, f := range files {
			vs = append(vs, Verify(f, p.options()))
		}
		return VerifyChain(vs)
	}
	if err := verify(files...); err != nil {
		t.Error(err)
	}
	for name, chain := range map[string][][]byte{
		"one missing":  {files[0], files[2]},
		"out of order": {files[1], files[0]},
	} {
		if err := verify(chain...); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	_, replaced, err := openLog(t, t.TempDir(), p).Close(p.record("z"))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(replaced, files[1]); err == nil {
		t.Error("replaced first record: not noticed")
	}
}

func TestLogSurvivesDamageAndPrunes(t *testing.T) {
	p, dir := newParties(t), t.TempDir()
	l, err := OpenLog(LogOptions{FS: durable.OS{}, Dir: dir, Key: p.gateway, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range []string{"a", "b", "c", "d"} {
		if _, _, err := l.Close(p.record(job)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := l.names()
	if err != nil || len(names) != 2 {
		t.Fatalf("kept %v, %v", names, err)
	}
	n, digest := l.Head()
	last := filepath.Join(dir, names[1])
	if err := os.WriteFile(last, []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, d := openLog(t, dir, p).Head(); got != n || d != digest {
		t.Errorf("head after damage %d %s, want %d %s", got, d, n, digest)
	}
	if err := os.Remove(filepath.Join(dir, headFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(LogOptions{FS: durable.OS{}, Dir: dir, Key: p.gateway}); err == nil {
		t.Error("went on with a chain whose end is lost")
	}
}

func TestRecordTooLargeIsRefused(t *testing.T) {
	p, dir := newParties(t), t.TempDir()
	r := p.record("a")
	r.Diagnosis = json.RawMessage(`{"text":"` + strings.Repeat("x", MaxSize) + `"}`)
	l := openLog(t, dir, p)
	if _, _, err := l.Close(r); !errors.Is(err, order.ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if _, data, err := l.Close(p.record("a")); err != nil || Verify(data, p.options()).Record.N != 1 {
		t.Errorf("the refused record used up a number: %v", err)
	}
}

func TestRecordThatCannotBeKeptIsNotClosed(t *testing.T) {
	p := newParties(t)
	l := openLog(t, t.TempDir(), p)
	l.fs = readOnly{durable.OS{}}
	if _, _, err := l.Close(p.record("a")); err == nil {
		t.Fatal("closed on a read-only disk")
	}
	if n, _ := l.Head(); n != 0 {
		t.Errorf("head moved to %d", n)
	}
}

type readOnly struct{ durable.FS }

func (readOnly) Rename(string, string, string) error { return os.ErrPermission }

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.ontagent.record+json","payload":"e30=","signatures":[{"keyid":"","sig":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if v := Verify(data, VerifyOptions{Root: make([]byte, ed25519.PublicKeySize)}); v.Status == Valid {
			t.Fatal("made a valid record out of nothing")
		}
	})
}
