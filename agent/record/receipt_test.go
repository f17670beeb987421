package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ontagent/agent/order"
)

var update = flag.Bool("update", false, "write the goldens anew") //nolint:gochecknoglobals // a flag of the test

func sha(c string) string { return strings.Repeat(c, 64) }

// visit is a record and a receipt that fits it.
func visit(t *testing.T) (parties, Verification, Receipt) {
	t.Helper()
	p := newParties(t)
	_, data, err := openLog(t, t.TempDir(), p).Close(p.record("job-1"))
	if err != nil {
		t.Fatal(err)
	}
	v := Verify(data, p.options())
	if v.Status != Valid {
		t.Fatalf("%+v", v)
	}
	return p, v, receiptOf(v.Digest)
}

// receiptOf is a receipt of the record with a digest.
func receiptOf(digest string) Receipt {
	s := JudgeSplitter(Splitter{RxPowerDBm: -18.7, Port: "7"}, -20)
	return Receipt{
		V: 1, RecordSHA256: digest, Order: "WO-1", Job: "job-1", Device: device, Technician: "T-7",
		Made: time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), Splitter: &s,
		Attachments: []Attachment{
			{Name: "线路.jpg", Kind: CableRoute, MediaType: "image/jpeg", Bytes: 1, SHA256: sha("a")},
			{Name: "sig.png", Kind: SignatureFile, MediaType: "image/png", Bytes: MaxAttachment, SHA256: sha("b")},
		},
		Customer: Customer{
			Signature: &Signature{Attachment: "sig.png", OnBehalf: true, Relation: Family},
			Ratings:   map[RatingItem]Rating{RateOverall: VerySatisfied, RateSkill: Dissatisfied},
		},
		Remarks: "走线槽",
	}
}

func signed(t *testing.T, r Receipt, key ed25519.PrivateKey) []byte {
	t.Helper()
	env, err := r.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return must(Marshal(env))
}

// signAnew signs any payload as a receipt.
func signAnew(payload []byte, key ed25519.PrivateKey) []byte {
	return must(Marshal(must(order.Sign(TypeReceipt, payload, key))))
}

func receiptPayload(tb testing.TB, data []byte) []byte {
	tb.Helper()
	env, err := order.ParseEnvelope(data)
	if err != nil {
		tb.Fatal(err)
	}
	return must(base64.StdEncoding.DecodeString(env.Payload))
}

func TestReceiptIsOfItsRecord(t *testing.T) {
	p, rec, r := visit(t)
	data := signed(t, r, p.technician)
	v := VerifyReceipt(data, rec)
	if v.Status != Valid || v.Problem != "" || v.Receipt.Customer.Signature.Relation != Family || v.Signer != pub(p.technician).ID() {
		t.Fatalf("%+v", v)
	}
	_, other, _ := visit(t)
	if v := VerifyReceipt(data, other); v.Status != Altered || v.Problem == "" {
		t.Errorf("of another visit: %+v", v)
	}
	unproven := Verify(must(os.ReadFile(filepath.Join(reportDir(t, p, rec), "r"))), VerifyOptions{})
	if v := VerifyReceipt(data, unproven); v.Status != SignerUnknown {
		t.Errorf("of a record nobody vouches for: %+v", v)
	}
	if v := VerifyReceipt(data, Verification{}); v.Status != SignerUnknown {
		t.Errorf("of no record: %+v", v)
	}
}

// reportDir writes a record anew to a file.
func reportDir(t *testing.T, p parties, rec Verification) string {
	t.Helper()
	dir := t.TempDir()
	payload := must(rec.Record.encode(true))
	if err := os.WriteFile(filepath.Join(dir, "r"), must(Marshal(must(order.Sign(order.TypeRecord, payload, p.gateway)))), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReceiptSigners(t *testing.T) {
	p, rec, r := visit(t)
	stranger := newParties(t)
	if v := VerifyReceipt(signed(t, r, stranger.technician), rec); v.Status != Altered || !slices.Contains(v.Altered, "signature") {
		t.Errorf("a stranger: %+v", v)
	}
	if v := VerifyReceipt(signed(t, r, p.gateway), rec); v.Status != Altered {
		t.Errorf("the gateway: %+v", v)
	}
	r.Technician = "T-8"
	if v := VerifyReceipt(signed(t, r, p.technician), rec); v.Status != Altered || !slices.Contains(v.Altered, "technician") {
		t.Errorf("in another's name: %+v", v)
	}
	r.Technician = "T-7"
	rec.trust.RevokedKeys = []string{pub(p.technician).ID()}
	if v := VerifyReceipt(signed(t, r, p.technician), rec); v.Status != SignerUnknown || !strings.Contains(v.Problem, "revoked") {
		t.Errorf("revoked: %+v", v)
	}
}

func TestReceiptAlterationsAreNamed(t *testing.T) {
	p, rec, r := visit(t)
	data := signed(t, r, p.technician)
	payload := receiptPayload(t, data)
	replace := func(old, new string) []byte {
		if !bytes.Contains(payload, []byte(old)) {
			t.Fatalf("no %q to replace", old)
		}
		return bytes.Replace(payload, []byte(old), []byte(new), 1)
	}
	for name, tc := range map[string]struct {
		payload []byte
		altered string
	}{
		"reading":      {replace("-18.7", "-17.7"), "splitter"},
		"verdict":      {replace(`"verdict":"pass"`, `"verdict":"fail"`), "splitter"},
		"rating":       {replace("dissatisfied", "satisfied"), "customer"},
		"代 taken off":  {replace(`,"on_behalf":true,"relation":"family"`, ""), "customer"},
		"photo":        {replace(sha("a"), sha("c")), "attachments"},
		"photo added":  {replace(`"attachments":[`, `"attachments":[{"name":"x.jpg","kind":"onu","media_type":"image/jpeg","bytes":1,"sha256":"`+sha("d")+`"},`), "attachments"},
		"record":       {replace(rec.Digest, sha("0")), "record_sha256"},
		"when":         {replace("2026-03-01T12:30", "2026-03-01T12:31"), "made"},
		"remarks":      {replace("走线槽", "走天花"), "remarks"},
		"unknown part": {replace(`{"v":1`, `{"address":"1 Road","v":1`), "address"},
	} {
		t.Run(name, func(t *testing.T) {
			env, err := order.ParseEnvelope(data)
			if err != nil {
				t.Fatal(err)
			}
			env.Payload = base64.StdEncoding.EncodeToString(tc.payload)
			for who, data := range map[string][]byte{"as signed": must(Marshal(env)), "signed anew": signAnew(tc.payload, p.technician)} {
				if v := VerifyReceipt(data, rec); v.Status != Altered || !slices.Contains(v.Altered, tc.altered) || v.Problem == "" {
					t.Errorf("%s: %+v", who, v)
				}
			}
		})
	}
}

// TestReceiptsThatSayTooMuch are well signed, with digests that fit, by a program
// that is not ours.
func TestReceiptsThatSayTooMuch(t *testing.T) {
	p, rec, r := visit(t)
	payload := receiptPayload(t, signed(t, r, p.technician))
	for name, change := range map[string][2]string{
		"a name":    {`{"v":1`, `{"subscriber":"王小明","v":1`},
		"a path":    {`"name":"线路.jpg"`, `"name":"../x.jpg"`},
		"no digest": {sha("a"), ""},
	} {
		var m map[string]any
		if err := json.Unmarshal(bytes.Replace(payload, []byte(change[0]), []byte(change[1]), 1), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, "digests")
		m["digests"] = must(sectionDigests(must(json.Marshal(m))))
		if v := VerifyReceipt(signAnew(must(json.Marshal(m)), p.technician), rec); v.Status != Altered || !slices.Equal(v.Altered, []string{"content"}) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestNewerDocumentsAreToldApart(t *testing.T) {
	p, rec, r := visit(t)
	newer := func(payload []byte) []byte {
		return bytes.Replace(payload, []byte(`{"v":1,`), []byte(`{"v":2,"new":[1],`), 1)
	}
	v := VerifyReceipt(signAnew(newer(receiptPayload(t, signed(t, r, p.technician))), p.technician), rec)
	if v.Status != Unreadable || !v.Newer || v.Problem != "receipt version 2 is not known to this program" || v.Receipt.Order != "WO-1" {
		t.Errorf("%+v", v)
	}
	odd := bytes.Replace(newer(receiptPayload(t, signed(t, r, p.technician))), []byte(`"WO-1"`), []byte(`["WO-1"]`), 1)
	if v := VerifyReceipt(signAnew(odd, p.technician), rec); !v.Newer || v.Receipt == nil {
		t.Errorf("of other types: %+v", v)
	}
	payload := newer(must(rec.Record.encode(true)))
	got := Verify(must(Marshal(must(order.Sign(order.TypeRecord, payload, p.gateway)))), p.options())
	if got.Status != Unreadable || !got.Newer || got.Problem != "record version 2 is not known to this program" || got.Record.Verdict != "fail" {
		t.Errorf("%+v", got)
	}
	payload = bytes.Replace(payload, []byte(`"verdict":"fail"`), []byte(`"verdict":{"now":"an object"}`), 1)
	got = Verify(must(Marshal(must(order.Sign(order.TypeRecord, payload, p.gateway)))), p.options())
	if !got.Newer || got.Record.Device != device {
		t.Errorf("of other types: %+v", got)
	}
}

func TestEveryBitOfAReceiptCounts(t *testing.T) {
	p, rec, r := visit(t)
	data := signed(t, r, p.technician)
	step := 7
	if testing.Short() {
		step = 211 // an emulated processor takes seconds for more
	}
	for i := 0; i < len(data); i += step {
		for bit := range 8 {
			flipped := bytes.Clone(data)
			flipped[i] ^= 1 << bit
			if v := VerifyReceipt(flipped, rec); v.Status == Valid || v.Status == SignerUnknown {
				t.Fatalf("byte %d bit %d flipped: %s", i, bit, v.Status)
			}
		}
		if i < len(data)-2 {
			if v := VerifyReceipt(data[:i], rec); v.Status != Unreadable {
				t.Fatalf("cut off after %d of %d bytes: %s", i, len(data), v.Status)
			}
		}
	}
	if v := VerifyReceipt(append(data, data...), rec); v.Status == Valid {
		t.Error("two in one file")
	}
	if v := VerifyReceipt(bytes.Repeat([]byte("a"), MaxReceipt+1), rec); v.Status != Unreadable {
		t.Errorf("%+v", v)
	}
}

func TestReceiptValidate(t *testing.T) {
	for name, change := range map[string]func(*Receipt){
		"splitter far off":        func(r *Receipt) { r.Splitter.RxPowerDBm = -187 },
		"splitter no number":      func(r *Receipt) { r.Splitter.RxPowerDBm = math.NaN() },
		"splitter judged kindly":  func(r *Receipt) { r.Splitter.RxPowerDBm = -20 },
		"splitter wrong cause":    func(r *Receipt) { r.Splitter.Cause = "optical.rx_too_weak" },
		"port with a line end":    func(r *Receipt) { r.Splitter.Port = "7\n8" },
		"path":                    func(r *Receipt) { r.Attachments[0].Name = "../a.jpg" },
		"absolute path":           func(r *Receipt) { r.Attachments[0].Name = "/a.jpg" },
		"path of Windows":         func(r *Receipt) { r.Attachments[0].Name = `..\a.jpg` },
		"hidden file":             func(r *Receipt) { r.Attachments[0].Name = ".." },
		"no name":                 func(r *Receipt) { r.Attachments[0].Name = "" },
		"name that turns around":  func(r *Receipt) { r.Attachments[0].Name = "a\u202egpj.exe" },
		"same name, other case":   func(r *Receipt) { r.Attachments[0].Name = "SIG.png" },
		"unknown kind":            func(r *Receipt) { r.Attachments[0].Kind = "selfie" },
		"media type":              func(r *Receipt) { r.Attachments[0].MediaType = "text/html; charset" },
		"empty attachment":        func(r *Receipt) { r.Attachments[0].Bytes = 0 },
		"attachment too large":    func(r *Receipt) { r.Attachments[0].Bytes = MaxAttachment + 1 },
		"digest":                  func(r *Receipt) { r.Attachments[0].SHA256 = sha("A") },
		"signature not attached":  func(r *Receipt) { r.Customer.Signature.Attachment = "other.png" },
		"signature twice":         func(r *Receipt) { r.Customer.Signature.Typed = "王**" },
		"name in full":            func(r *Receipt) { r.Customer.Signature = &Signature{Typed: "王小明"} },
		"on behalf of whom":       func(r *Receipt) { r.Customer.Signature.Relation = "" },
		"relation of the subject": func(r *Receipt) { r.Customer.Signature.OnBehalf = false },
		"rating":                  func(r *Receipt) { r.Customer.Ratings[RateSkill] = "great" },
		"rated item":              func(r *Receipt) { r.Customer.Ratings["looks"] = Satisfied },
		"remarks without end":     func(r *Receipt) { r.Remarks = strings.Repeat("x", maxRemarks+1) },
		"no time":                 func(r *Receipt) { r.Made = time.Time{} },
		"no record":               func(r *Receipt) { r.RecordSHA256 = "" },
		"device":                  func(r *Receipt) { r.Device = "x" },
		"too many attachments": func(r *Receipt) {
			for range MaxAttachments {
				r.Attachments = append(r.Attachments, r.Attachments[0])
			}
		},
		"attachments too large in all": func(r *Receipt) {
			for _, name := range []string{"1", "2", "3", "4"} {
				r.Attachments = append(r.Attachments, Attachment{Name: name, Kind: OtherFile, MediaType: "a/b", Bytes: MaxAttachment, SHA256: sha("c")})
			}
		},
	} {
		r := receiptOf(sha("5"))
		change(&r)
		if err := r.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var version *VersionError
	if err := (Receipt{V: 2}).Validate(); !errors.As(err, &version) {
		t.Errorf("version 2: %v", err)
	}
}

func TestSplitterBoundary(t *testing.T) {
	for _, tc := range []struct {
		dbm, limit float64
		verdict    string
	}{
		{-20.00, -20, "fail"},
		{-19.99, -20, "pass"},
		{math.Nextafter(-20, 0), -20, "pass"},
		{-20.01, -20, "fail"},
		{-21, -22, "pass"},
		{math.NaN(), -20, "fail"},
	} {
		s := JudgeSplitter(Splitter{RxPowerDBm: tc.dbm, Cause: "x"}, tc.limit)
		if s.Verdict != tc.verdict || (s.Cause == "optical.splitter_weak") != (tc.verdict == "fail") || s.RxMinDBm != tc.limit {
			t.Errorf("%g against %g: %+v", tc.dbm, tc.limit, s)
		}
	}
}

func TestMaskName(t *testing.T) {
	for name, want := range map[string]string{"王小明": "王**", " Li Na": "L**", "王**": "王**", "": "", "7": "", "\xff": "", "**": ""} {
		if got := MaskName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// TestReceiptGolden holds the format: the same receipt is the same bytes.
func TestReceiptGolden(t *testing.T) {
	got := signed(t, receiptOf(sha("5")), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	path := filepath.Join("testdata", "receipt-v1.receipt")
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want := must(os.ReadFile(path)); !bytes.Equal(got, want) {
		t.Errorf("a receipt is written differently:\n%s\nwas\n%s", receiptPayload(t, got), receiptPayload(t, want))
	}
}

func FuzzVerifyReceipt(f *testing.F) {
	f.Add(must(os.ReadFile(filepath.Join("testdata", "receipt-v1.receipt"))))
	f.Add([]byte(`{"payloadType":"` + TypeReceipt + `","payload":"e30=","signatures":[{"keyid":"","sig":""}]}`))
	rec := Verification{Status: Valid, Record: &Record{}, Digest: sha("5"), Order: &order.Order{Technicians: []order.Technician{
		{ID: "T-7", Key: pub(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))},
	}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := VerifyReceipt(data, rec)
		if v.Status == Valid {
			t.Fatalf("%s is valid of another record", data) // that one has another job
		}
		if v.Problem == "" || len(v.Problem) > 1000 {
			t.Fatalf("%s: %q", v.Status, v.Problem)
		}
	})
}

func FuzzReceiptPayload(f *testing.F) {
	seed := receiptPayload(f, must(os.ReadFile(filepath.Join("testdata", "receipt-v1.receipt"))))
	f.Add(seed)
	f.Add(bytes.Replace(seed, []byte(`{"v":1`), []byte(`{"v":2`), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeReceipt(data)
		if err != nil {
			return
		}
		again, err := decodeReceipt(must(json.Marshal(r)))
		if err != nil || again.RecordSHA256 != r.RecordSHA256 {
			t.Fatalf("%s: %v", data, err)
		}
		for _, a := range r.Attachments {
			if a.Name != filepath.Base(a.Name) || a.Bytes > MaxAttachment {
				t.Fatalf("%+v", a)
			}
		}
	})
}
