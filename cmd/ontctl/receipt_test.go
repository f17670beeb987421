package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/transport/durable"
)

// photo is a JPEG as far as anybody looks.
func photo(name string) string { return "\xff\xd8\xff\xe0\x00\x10JFIF\x00" + name }

// visited is a desk after a visit: a record, a receipt with two photos and a
// signature, and the files of it.
func visited(t *testing.T, more ...string) *desk {
	t.Helper()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass, acceptance.Fail)
	for _, name := range []string{"cable.jpg", "box.jpg", "sig.png"} {
		d.write(name, photo(name))
	}
	d.do(append([]string{
		"receipt", "make", "--record", "@record1", "--key", "@technician.key", "--root", "@root.pub", "--splitter-dbm", "-18.7", "--splitter-port", "7",
		"--photo", "cable_route=@cable.jpg", "--photo", "分纤箱端口及标签=@box.jpg", "--signature", "@sig.png", "--on-behalf", "家属",
		"--rating", "overall=very_satisfied", "--rating", "skill=不满意", "--files", "@files", "-o", "@receipt1",
	}, more...)...)
	return d
}

func (d *desk) verifyReceipt(args ...string) (code int, out string) {
	d.t.Helper()
	code, out, errs := d.ontctl(append([]string{"receipt", "verify", "--lang", "en"}, args...)...)
	return code, out + errs
}

func TestReceiptOfAVisit(t *testing.T) {
	t.Parallel()
	d := visited(t)
	code, out := d.verifyReceipt("--root", "@root.pub", "@record1", "@receipt1", "@files")
	if code != cli.OK {
		t.Fatalf("%d:\n%s", code, out)
	}
	for _, part := range []string{"receipt is valid", "WO-7", "T-1024", "-18.7 dBm, > -20 dBm: pass", "box.jpg: the file that was attached"} {
		if !strings.Contains(out, part) {
			t.Errorf("leaves out %q:\n%s", part, out)
		}
	}
	var r record.Receipt
	if err := peek(d.envelope("receipt1"), record.TypeReceipt, &r); err != nil {
		t.Fatal(err)
	}
	for lang, when := range map[diagnosis.Lang]string{
		diagnosis.English: r.Made.UTC().Format("15:04:05") + " UTC", diagnosis.Chinese: r.Made.Add(8*time.Hour).UTC().Format("15:04:05") + " 北京时间",
	} {
		for _, verb := range []string{"receipt verify --root @root.pub @record1 @receipt1 @files", "record show --receipt @receipt1 @record1"} {
			args := strings.Fields(verb)
			if _, out, _ := d.ontctl(append([]string{args[0], args[1], "--lang", string(lang)}, args[2:]...)...); !strings.Contains(out, when) {
				t.Errorf("%s does not tell %q:\n%s", verb, when, out)
			}
		}
	}
	if s := r.Customer.Signature; s == nil || s.Attachment != "sig.png" || !s.OnBehalf || s.Relation != record.Family {
		t.Errorf("signature %+v", s)
	}
	if r.Customer.Ratings[record.RateSkill] != record.Dissatisfied || r.Attachments[1].Kind != record.SplitterPhoto || r.Attachments[1].MediaType != "image/jpeg" {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(d.path("files/box.jpg")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	var p struct {
		Record, Receipt struct{ Status string }
		Splitter        struct{ Verdict string }
		Attachments     []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(d.do("receipt", "verify", "--json", "--root", "@root.pub", "@record1", "@receipt1", "@files")), &p); err != nil ||
		p.Record.Status != "valid" || p.Receipt.Status != "valid" || p.Splitter.Verdict != "pass" || len(p.Attachments) != 3 {
		t.Errorf("%+v, %v", p, err)
	}
	if code, out := d.verifyReceipt("--root", "@root.pub", "@record1", "@receipt1"); code != cli.Inconclusive || !strings.Contains(out, "not checked") {
		t.Errorf("without the attachments: %d\n%s", code, out)
	}
	if code, out := d.verifyReceipt("@record1", "@receipt1", "@files"); code != cli.Inconclusive {
		t.Errorf("without a root: %d\n%s", code, out)
	}
	if code, out := d.verifyReceipt("--root", "@root.pub", "@record2", "@receipt1", "@files"); code != cli.Fail || !strings.Contains(out, "not of this record") {
		t.Errorf("with another record: %d\n%s", code, out)
	}
	technician, err := readPublic(d.path("technician.pub"))
	if err != nil {
		t.Fatal(err)
	}
	d.do("trust", "--root", "@root.key", "--version", "4", "--tenant", "lab", "--add", "operator:op-1:@operator.pub",
		"--revoke-key", technician.ID(), "--out", "@revoked")
	if code, out := d.verifyReceipt("--root", "@root.pub", "--trust", "@revoked", "@record1", "@receipt1", "@files"); code != cli.Inconclusive || !strings.Contains(out, "revoked") {
		t.Errorf("of a technician who was revoked: %d\n%s", code, out)
	}
}

// A weak reading at the splitter box fails in the receipt, and there alone.
func TestReceiptOfAWeakSplitter(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass)
	d.do("receipt", "make", "--record", "@record1", "--key", "@technician.key", "--splitter-dbm", "-20.00", "-o", "@weak")
	code, out := d.verifyReceipt("--root", "@root.pub", "@record1", "@weak")
	if code != cli.OK || !strings.Contains(out, "-20 dBm, > -20 dBm: fail · optical.splitter_weak") || !strings.Contains(out, "T-1024 · pass") {
		t.Errorf("%d\n%s", code, out)
	}
	// A limit that nobody set makes it look well.
	var r record.Receipt
	if err := peek(d.envelope("weak"), record.TypeReceipt, &r); err != nil {
		t.Fatal(err)
	}
	s := record.JudgeSplitter(*r.Splitter, -25)
	r.Splitter = &s
	env, err := r.Sign(d.key("technician.key"))
	if err != nil {
		t.Fatal(err)
	}
	d.sealed("kind", env)
	if code, out := d.verifyReceipt("--root", "@root.pub", "@record1", "@kind"); code != cli.Fail || !strings.Contains(out, "altered: splitter") {
		t.Errorf("held against another limit: %d\n%s", code, out)
	}
}

func (d *desk) sealed(name string, env order.Envelope) {
	d.t.Helper()
	data, err := record.Marshal(env)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(name, string(data))
}

func TestReceiptAttachments(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(d *desk)
		says   string
	}{
		"missing":   {func(d *desk) { _ = os.Remove(d.path("files/box.jpg")) }, "box.jpg: missing"},
		"altered":   {func(d *desk) { d.write("files/box.jpg", photo("box.jpf")) }, "box.jpg: altered"},
		"shorter":   {func(d *desk) { d.write("files/box.jpg", photo("")) }, "shorter: it had"},
		"empty":     {func(d *desk) { d.write("files/box.jpg", "") }, "box.jpg: altered"},
		"added":     {func(d *desk) { d.write("files/new.jpg", photo("new")) }, "new.jpg: added after closing"},
		"a record":  {func(d *desk) { d.write("files/x.record", d.read("record1")) }, "x.record: added after closing"},
		"swapped":   {func(d *desk) { d.write("files/box.jpg", photo("cable.jpg")) }, "its content is that of cable.jpg"},
		"a link":    {func(d *desk) { d.link("files/box.jpg", d.path("box.jpg")) }, "not a regular file"},
		"a pipe":    {func(d *desk) { d.pipe("files/box.jpg") }, "not a regular file"},
		"a folder":  {func(d *desk) { _ = os.Remove(d.path("files/box.jpg")); _ = os.Mkdir(d.path("files/box.jpg"), 0o700) }, "box.jpg: cannot be read"},
		"too large": {func(d *desk) { _ = os.Truncate(d.path("files/box.jpg"), record.MaxAttachment+1) }, "larger than"},
		"no folder": {func(d *desk) { _ = os.RemoveAll(d.path("files")) }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := visited(t)
			tc.change(d)
			done := make(chan struct{})
			go func() {
				defer close(done)
				if code, out := d.verifyReceipt("--root", "@root.pub", "@record1", "@receipt1", "@files"); code == cli.OK || !strings.Contains(out, tc.says) {
					t.Errorf("exit code %d, want %q:\n%s", code, tc.says, out)
				}
			}()
			<-done
		})
	}
}

func (d *desk) link(name, to string) {
	d.t.Helper()
	_ = os.Remove(d.path(name))
	if err := os.Symlink(to, d.path(name)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) pipe(name string) {
	d.t.Helper()
	_ = os.Remove(d.path(name))
	if err := unix.Mkfifo(d.path(name), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func TestReceiptMakeRefuses(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass)
	d.write("photo.jpg", photo("a"))
	d.write("empty.jpg", "")
	d.write(".hidden.jpg", photo("h"))
	d.link("linked.jpg", d.path("photo.jpg"))
	d.write("large.jpg", "x")
	if err := os.Truncate(d.path("large.jpg"), record.MaxAttachment+1); err != nil {
		t.Fatal(err)
	}
	d.write("altered", strings.Replace(d.read("record1"), `"sig":"`, `"sig":"A`, 1))
	d.write("taken", "")
	for name, tc := range map[string]struct {
		args string
		code int
		says string
	}{
		"no record":            {"--key @technician.key -o @r", cli.Usage, "--record"},
		"no key":               {"--record @record1 -o @r", cli.Usage, "--key"},
		"a key not named":      {"--record @record1 --key @stranger.key -o @r", cli.Refused, "technician whom order WO-7 names"},
		"an altered record":    {"--record @altered --key @technician.key -o @r", cli.Usage, ""},
		"another root":         {"--record @record1 --key @technician.key --root @stranger.pub -o @r", cli.Inconclusive, ""},
		"a receipt is there":   {"--record @record1 --key @technician.key -o @taken", cli.Usage, "exists already"},
		"port alone":           {"--record @record1 --key @technician.key --splitter-port 7 -o @r", cli.Usage, "--splitter-dbm"},
		"no reading":           {"--record @record1 --key @technician.key --splitter-dbm -187 -o @r", cli.Usage, "no reading"},
		"no minus sign":        {"--record @record1 --key @technician.key --splitter-dbm 18.7 -o @r", cli.Usage, "18.7 dBm at a splitter box? was -18.7 meant"},
		"too much light":       {"--record @record1 --key @technician.key --splitter-dbm 8 -o @r", cli.Usage, "was -8 meant"},
		"unknown kind":         {"--record @record1 --key @technician.key --photo selfie=@photo.jpg -o @r", cli.Usage, "selfie"},
		"no kind":              {"--record @record1 --key @technician.key --photo @photo.jpg -o @r", cli.Usage, "KIND=FILE"},
		"empty photo":          {"--record @record1 --key @technician.key --photo onu=@empty.jpg -o @r", cli.Usage, "empty"},
		"hidden photo":         {"--record @record1 --key @technician.key --photo onu=@.hidden.jpg -o @r", cli.Usage, "no name"},
		"linked photo":         {"--record @record1 --key @technician.key --photo onu=@linked.jpg -o @r", cli.Usage, "not a regular file"},
		"large photo":          {"--record @record1 --key @technician.key --photo onu=@large.jpg -o @r", cli.Usage, "larger than"},
		"photo twice":          {"--record @record1 --key @technician.key --photo onu=@photo.jpg --photo other=@photo.jpg -o @r", cli.Usage, "stands twice"},
		"behalf of nobody":     {"--record @record1 --key @technician.key --on-behalf family -o @r", cli.Usage, "--signature"},
		"behalf of a stranger": {"--record @record1 --key @technician.key --typed-signature 王小明 --on-behalf postman -o @r", cli.Usage, "postman"},
		"rating":               {"--record @record1 --key @technician.key --rating overall=great -o @r", cli.Usage, "great"},
		"rated twice":          {"--record @record1 --key @technician.key --rating overall=satisfied --rating overall=satisfied -o @r", cli.Usage, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := d.ontctl(append([]string{"receipt", "make"}, strings.Fields(tc.args)...)...)
			if code != tc.code && (tc.code != cli.Usage || code != cli.Fail) || !strings.Contains(errs, tc.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", code, tc.code, tc.says, out, errs)
			}
			if _, err := os.Stat(d.path("r")); err == nil {
				t.Error("it wrote a receipt all the same")
			}
		})
	}
	d.do("receipt", "make", "--record", "@record1", "--key", "@technician.key", "--typed-signature", "王小明", "-o", "@typed")
	payload, err := base64.StdEncoding.DecodeString(d.envelope("typed").Payload)
	if err != nil || !bytes.Contains(payload, []byte(`"typed":"王**"`)) || bytes.Contains(payload, []byte("小")) {
		t.Errorf("the customer's name travels: %s", payload)
	}
}

// editedReceipt is a receipt with its content changed and its signature kept.
func (d *desk) editedReceipt(name, old, new string) string {
	d.t.Helper()
	env := d.envelope(name)
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil || !bytes.Contains(payload, []byte(old)) {
		d.t.Fatalf("no %s in %s, %v", old, payload, err)
	}
	env.Payload = base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(old), []byte(new), 1))
	data, err := record.Marshal(env)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}

func TestReceiptsOfADirectory(t *testing.T) {
	t.Parallel()
	d := visited(t)
	dir := d.path("store/records/" + device)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(name, content string) {
		t.Helper()
		d.write("store/records/"+device+"/"+name, content)
	}
	put("WO-7-record1.record", d.read("record1"))
	put("WO-7-record2.record", d.read("record2"))
	if code, out := d.verifyReceipt("--root", "@root.pub", "--dir", "@store"); code != cli.Inconclusive || strings.Count(out, "a visit without a receipt") != 2 {
		t.Errorf("without receipts: %d\n%s", code, out)
	}
	// Filed beside its record, once.
	if code, _, errs := d.ontctl("receipt", "file", "--root", "@root.pub", "--dir", "@store", "@receipt1"); code != cli.Usage {
		t.Errorf("filed without its attachments: %s", errs)
	}
	d.do("receipt", "file", "--root", "@root.pub", "--dir", "@store", "@receipt1", "@files")
	if out := d.do("receipt", "file", "--root", "@root.pub", "--dir", "@store", "@receipt1", "@files"); !strings.Contains(out, "filed before") {
		t.Errorf("the same again: %s", out)
	}
	d.do("receipt", "make", "--record", "@record1", "--key", "@technician.key", "--remarks", "kinder", "-o", "@second")
	if code, _, errs := d.ontctl("receipt", "file", "--root", "@root.pub", "--dir", "@store", "@second"); code != cli.Refused || !strings.Contains(errs, "has a receipt already") {
		t.Errorf("a second: %d %s", code, errs)
	}
	d.do("receipt", "make", "--record", "@record2", "--key", "@technician.key", "-o", "@receipt2")
	d.do("receipt", "file", "--root", "@root.pub", "--dir", "@store", "@receipt2")
	if code, out := d.verifyReceipt("--root", "@root.pub", "--dir", "@store"); code != cli.OK || !strings.Contains(out, "2 in all") {
		t.Errorf("complete: %d\n%s", code, out)
	}
	// Whoever can write there can put a second one beside it.
	put("WO-7-other.receipt", d.read("second"))
	if code, out := d.verifyReceipt("--root", "@root.pub", "--dir", "@store"); code != cli.Fail || !strings.Contains(out, "a second receipt for") {
		t.Errorf("with a second: %d\n%s", code, out)
	}
	// A forged one that sorts first does not take the place of the genuine one,
	// not even with its digest.
	if err := os.Remove(filepath.Join(dir, "WO-7-other.receipt")); err != nil {
		t.Fatal(err)
	}
	genuine := d.read("receipt1")
	sig := strings.Index(genuine, `"sig":"`) + len(`"sig":"`)
	for name, forged := range map[string]string{
		"another signature": genuine[:sig] + "QQQQ" + genuine[sig+4:],
		"another content":   d.editedReceipt("receipt1", "very_satisfied", "dissatisfied"),
	} {
		put("A.receipt", forged)
		code, out := d.verifyReceipt("--root", "@root.pub", "--dir", "@store", "--json")
		var first pair
		if err := json.Unmarshal([]byte(out[:strings.Index(out, "\n")]), &first); err != nil {
			t.Fatal(err)
		}
		if code != cli.Fail || first.Receipt.Status != record.Valid || !strings.HasSuffix(first.ReceiptFile, "record1.receipt") ||
			strings.Count(out, "a second receipt for") != 1 {
			t.Errorf("%s: %d\n%s", name, code, out)
		}
		code, out, errs := d.ontctl("record", "export", "--root", "@root.pub", "--dir", "@store")
		if code != cli.Fail || !strings.Contains(errs, "A.receipt: a second receipt for") || strings.Count(out, `"receipt_status":"valid"`) != 2 {
			t.Errorf("%s, exported: %d %s\n%s", name, code, errs, out)
		}
	}
	if err := os.Remove(filepath.Join(dir, "A.receipt")); err != nil {
		t.Fatal(err)
	}
	put("WO-7-other.receipt", d.read("receipt2"))
	if code, out := d.verifyReceipt("--root", "@root.pub", "--dir", "@store"); code != cli.OK {
		t.Errorf("with a copy: %d\n%s", code, out)
	}
	if err := os.Remove(filepath.Join(dir, "WO-7-record2.record")); err != nil {
		t.Fatal(err)
	}
	if code, out := d.verifyReceipt("--root", "@root.pub", "--dir", "@store"); code != cli.Fail || !strings.Contains(out, "a receipt without a record") {
		t.Errorf("without its record: %d\n%s", code, out)
	}
}

// TestNewerRecordsAreShownAsFarAsTheyGo: what a later program writes is not
// called damaged, nor believed.
func TestNewerRecordsAreShownAsFarAsTheyGo(t *testing.T) {
	t.Parallel()
	d := visited(t)
	for name, typ := range map[string]string{"record1": order.TypeRecord, "receipt1": record.TypeReceipt} {
		payload, err := base64.StdEncoding.DecodeString(d.envelope(name).Payload)
		if err != nil {
			t.Fatal(err)
		}
		env, err := order.Sign(typ, bytes.Replace(payload, []byte(`{"v":1,`), []byte(`{"v":2,"more":{},`), 1), d.key("gateway.key"))
		if err != nil {
			t.Fatal(err)
		}
		d.sealed(name+"v2", env)
	}
	code, out, _ := d.ontctl("record", "verify", "--lang", "en", "--root", "@root.pub", "@record1v2")
	if code != cli.Inconclusive || !strings.Contains(out, "record version 2 is not known to this program") || !strings.Contains(out, "record1 · T-1024 · pass") ||
		!strings.Contains(out, "made by newer software") || strings.Contains(out, "unreadable") {
		t.Errorf("record: %d\n%s", code, out)
	}
	code, out = d.verifyReceipt("--root", "@root.pub", "@record1", "@receipt1v2")
	if code != cli.Inconclusive || !strings.Contains(out, "receipt version 2 is not known to this program") || !strings.Contains(out, "WO-7 · T-1024") {
		t.Errorf("receipt: %d\n%s", code, out)
	}
}

func TestPhotosThatTellThePlace(t *testing.T) {
	t.Parallel()
	tiff := func(order binary.ByteOrder, magic string, tags ...uint16) string {
		b := []byte(magic)
		b = append(b, 0, 0, 0, 0, 0, 0)
		order.PutUint32(b[4:], 8)
		order.PutUint16(b[8:], uint16(len(tags)))
		for _, tag := range tags {
			entry := make([]byte, 12)
			order.PutUint16(entry, tag)
			b = append(b, entry...)
		}
		return string(b)
	}
	for name, tc := range map[string]struct {
		data string
		want bool
	}{
		"none":            {photo("x"), false},
		"Exif, no place":  {photo("Exif\x00\x00" + tiff(binary.LittleEndian, "II*\x00", 0x0112)), false},
		"little endian":   {photo("Exif\x00\x00" + tiff(binary.LittleEndian, "II*\x00", 0x0112, 0x8825)), true},
		"big endian":      {photo("Exif\x00\x00" + tiff(binary.BigEndian, "MM\x00*", 0x8825)), true},
		"after a decoy":   {photo("Exif\x00\x00nothing Exif\x00\x00" + tiff(binary.BigEndian, "MM\x00*", 0x8825)), true},
		"PNG":             {"\x89PNG\r\n\x1a\n....eXIf" + tiff(binary.BigEndian, "MM\x00*", 0x8825), true},
		"cut off":         {photo("Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff"), false},
		"points far away": {photo("Exif\x00\x00II*\x00\xff\xff\xff\xff"), false},
		"points at end":   {photo("Exif\x00\x00II*\x00\x07\x00\x00\x00"), false},
	} {
		if got := tellsPlace([]byte(tc.data)); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass)
	d.write("home.jpg", photo("Exif\x00\x00"+tiff(binary.BigEndian, "MM\x00*", 0x8825)))
	code, _, errs := d.ontctl("receipt", "make", "--record", "@record1", "--key", "@technician.key", "--photo", "onu=@home.jpg", "-o", "@r")
	if code != cli.OK || !strings.Contains(errs, "home.jpg tells where it was taken") {
		t.Errorf("%d: %s", code, errs)
	}
}

// TestSplitterLimitInForce: as the record states it, else the order's, else the
// norm's.
func TestSplitterLimitInForce(t *testing.T) {
	t.Parallel()
	limits := func(s string) record.Verification {
		return record.Verification{Record: &record.Record{Limits: json.RawMessage(s)}}
	}
	own := order.Order{Thresholds: map[string]float64{acceptance.SplitterRxMinDBm: -21}}
	for name, tc := range map[string]struct {
		v    record.Verification
		o    order.Order
		want float64
	}{
		"the norm":       {limits(""), order.Order{}, -20},
		"the order":      {limits(""), own, -21},
		"the record":     {limits(`[{"name":"cpu.max","value":1},{"name":"splitter.rx_min_dbm","value":-22,"op":">","origin":"config"}]`), own, -22},
		"nonsense":       {limits(`{"a":1}`), order.Order{}, -20},
		"an odd order's": {limits(""), order.Order{Thresholds: map[string]float64{"what": 1}}, -20},
	} {
		if got := splitterMin(tc.v, tc.o); got != tc.want {
			t.Errorf("%s: %g, want %g", name, got, tc.want)
		}
	}
}

// TestReceiptFiledOnce: of two that come at the same time, one is filed.
func TestReceiptFiledOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.receipt")
	if err := fileOnce(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := fileOnce(path, []byte("two")); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Errorf("a second: %v", err)
	}
	data, err := durable.ReadFile(durable.OS{}, "test", path, 10)
	if err != nil || string(data) != "one" {
		t.Errorf("%s, %v", data, err)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
