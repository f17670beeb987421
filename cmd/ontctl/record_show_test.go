package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image"
	"image/color"
	"image/png"
	"os"
	"strings"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
)

// receiptFor signs a receipt for a record on the desk, with one photo.
func (d *desk) receiptFor(name, out string, photo []byte) {
	d.t.Helper()
	v := record.Verify([]byte(d.read(name)), record.VerifyOptions{})
	sum := sha256.Sum256(photo)
	r := record.Receipt{
		V: 1, RecordSHA256: v.Digest, Order: "WO-7", Job: v.Record.Job, Device: device, Technician: "T-1024",
		Made:        time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
		Attachments: []record.Attachment{{Name: "onu.png", Kind: record.ONUPhoto, MediaType: "image/png", Bytes: int64(len(photo)), SHA256: hex.EncodeToString(sum[:])}},
	}
	env, err := r.Sign(d.key("technician.key"))
	if err != nil {
		d.t.Fatal(err)
	}
	data, err := record.Marshal(env)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(out, string(data))
}

// picture is a picture that is larger than what a page shows of it.
func picture(t *testing.T) []byte {
	t.Helper()
	im := image.NewNRGBA(image.Rect(0, 0, 900, 600))
	for y := range 600 {
		for x := range 900 {
			im.Set(x, y, color.NRGBA{uint8(x), uint8(y), 90, 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, im); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRecordShow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass, acceptance.Fail)
	whole := d.read("record1")
	d.write("cut", whole[:len(whole)/2])
	d.write("empty", "")
	d.write("null", "null")
	d.write("huge", strings.Repeat(" ", 2<<20))
	sig := strings.Index(whole, `"sig":"`) + len(`"sig":"`)
	d.write("altered", whole[:sig]+"QQQQ"+whole[sig+4:])
	d.write("damaged", whole[:200]+"QQQQ"+whole[204:])
	for _, dir := range []string{"photos", "swapped", "none"} {
		if err := os.Mkdir(d.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	shot := picture(t)
	d.receiptFor("record1", "receipt1", shot)
	d.write("photos/onu.png", string(shot))
	d.write("swapped/onu.png", string(shot[:len(shot)-1]))
	for name, tc := range map[string]struct {
		args     string
		code     int
		out, err string
	}{
		"text":                {"--root @root.pub @record1", cli.OK, "Verification: valid", ""},
		"no root":             {"@record1", cli.OK, "No root key was given", ""},
		"another root":        {"--root @stranger.pub @record1", cli.Inconclusive, "signer unknown", ""},
		"html":                {"--root @root.pub --format html @record1", cli.OK, "<!DOCTYPE html>", ""},
		"altered":             {"--root @root.pub @altered", cli.Fail, "!!!  THIS RECORD WAS ALTERED", ""},
		"damaged":             {"@damaged", cli.Fail, "", "the content is damaged"},
		"with its receipt":    {"--root @root.pub --receipt @receipt1 @record1", cli.OK, "The receipt is valid", ""},
		"with another's":      {"--root @root.pub --receipt @receipt1 @record2", cli.Fail, "The receipt is not of this record", ""},
		"photo there":         {"--root @root.pub --receipt @receipt1 --attachments @photos --format html @record1", cli.OK, "the file fits its digest", ""},
		"photo swapped":       {"--root @root.pub --receipt @receipt1 --attachments @swapped @record1", cli.Fail, "it may have been swapped", ""},
		"photo missing":       {"--root @root.pub --receipt @receipt1 --attachments @none @record1", cli.OK, "no such file was found", ""},
		"receipt of nothing":  {"--root @root.pub --receipt @record2 @record1", cli.Usage, "The receipt cannot be read", ""},
		"no receipt there":    {"--receipt @nope @record1", cli.Usage, "", "no such file"},
		"photos of nothing":   {"--attachments @photos @record1", cli.Usage, "", "needs --receipt"},
		"photos nowhere":      {"--receipt @receipt1 --attachments @nope @record1", cli.Usage, "", "no such file"},
		"half":                {"@cut", cli.Usage, "", "unexpected EOF"},
		"nothing":             {"@empty", cli.Usage, "", "the file is empty"},
		"null":                {"@null", cli.Usage, "", "record show: "},
		"huge":                {"@huge", cli.Usage, "", "larger than"},
		"a directory":         {"@photos", cli.Usage, "", "is a directory"},
		"a receipt":           {"@receipt1", cli.Usage, "", "not a record's"},
		"an order":            {"@signed", cli.Usage, "", "not a record's"},
		"no such format":      {"--format pdf @record1", cli.Usage, "", `--format "pdf"`},
		"json and html":       {"--json --format html @record1", cli.Usage, "", "--json goes with"},
		"over itself":         {"-o @record1 @record1", cli.Usage, "", "would overwrite"},
		"over itself, hidden": {"-o @photos/../record1 @record1", cli.Usage, "", "would overwrite"},
		"to nowhere":          {"-o @nope/page @record1", cli.Usage, "", "cannot write"},
		"two":                 {"@record1 @record2", cli.Usage, "", "takes one file, got 2"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := d.ontctl(append([]string{"record", "show", "--lang", "en"}, strings.Fields(tc.args)...)...)
			if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errs, tc.err) {
				t.Errorf("ended with %d, not %d: %s%.3000s", code, tc.code, errs, out)
			}
			if strings.Contains(out, "data:image/jpeg;base64,") != (name == "photo there") {
				t.Error("a picture is shown, or is not, where the other was due")
			}
		})
	}
	d.do("record", "show", "--lang", "zh-CN", "--format", "html", "-o", "@page.html", "@record1")
	if page := d.read("page.html"); !strings.Contains(page, `<html lang="zh-CN">`) || !strings.HasSuffix(page, "</html>\n") {
		t.Errorf("the page is not whole: %.200s", page)
	}
	if d.read("record1") != whole {
		t.Fatal("a record was overwritten")
	}
}

// TestShowLooksAtAttachmentsAsVerifyDoes: what was added, and what was swapped
// with what.
func TestShowLooksAtAttachmentsAsVerifyDoes(t *testing.T) {
	t.Parallel()
	d := visited(t)
	show := func(format string) (int, string) {
		code, out, errs := d.ontctl("record", "show", "--lang", "en", "--format", format, "--root", "@root.pub", "--receipt", "@receipt1", "--attachments", "@files", "@record1")
		return code, out + errs
	}
	if code, out := show("text"); code != cli.OK {
		t.Fatalf("%d\n%s", code, out)
	}
	d.write("files/new.jpg", photo("new"))
	for _, format := range []string{"text", "html"} {
		if code, out := show(format); code != cli.Fail || !strings.Contains(out, "new.jpg") || !strings.Contains(out, "added after closing") {
			t.Errorf("added, %s: %d\n%s", format, code, out)
		}
	}
	if err := os.Remove(d.path("files/new.jpg")); err != nil {
		t.Fatal(err)
	}
	d.write("files/box.jpg", photo("cable.jpg"))
	if code, out := show("text"); code != cli.Fail || !strings.Contains(out, "box.jpg (image/jpeg") || !strings.Contains(out, "its content is that of cable.jpg") {
		t.Errorf("swapped: %d\n%s", code, out)
	}
}

func TestAttachmentsStayInTheirDirectory(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if err := os.Mkdir(d.path("photos"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.write("secret", "secret")
	if err := os.Symlink("../secret", d.path("photos/link.png")); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("secret"))
	for _, name := range []string{"../secret", "link.png", "/etc/hostname", ".", "photos"} {
		files, _, err := findAttachments(d.path("photos"), []record.Attachment{{Name: name, Bytes: 6, SHA256: hex.EncodeToString(sum[:])}})
		if err == nil && files[name].State == render.FileThere {
			t.Errorf("%s was read", name)
		}
	}
}

func TestThumbnails(t *testing.T) {
	t.Parallel()
	small := thumbnail(picture(t))
	im, _, err := image.Decode(bytes.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	if got := im.Bounds().Size(); got != image.Pt(320, 213) {
		t.Errorf("it has %v", got)
	}
	if r, g, b, _ := im.At(160, 106).RGBA(); b>>8 < 70 || b>>8 > 110 || r>>8 < 60 || g>>8 < 20 {
		t.Errorf("its middle is %d %d %d", r>>8, g>>8, b>>8)
	}
	bomb := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x06\x00\x00\x00")
	for name, data := range map[string][]byte{"text": []byte("text"), "nothing": nil, "half": picture(t)[:500], "60000 by 60000": bomb} {
		if got := thumbnail(data); got != nil {
			t.Errorf("%s has a thumbnail of %d bytes", name, len(got))
		}
	}
}
