package render_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	nethtml "golang.org/x/net/html"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/ontctl/render"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestPagesAreAsTheyWere(t *testing.T) {
	data := installation().close(t)
	for _, lang := range []diagnosis.Lang{diagnosis.Chinese, diagnosis.English} {
		p := page(t, data, render.Options{Lang: lang, Receipt: receipt(t, data, nil), Attachments: map[string]render.File{
			"signature.png": {State: render.FileThere, Thumbnail: "data:image/jpeg;base64,AAAA"},
			"splitter.jpg":  {State: render.FileSwapped},
		}})
		golden(t, "installation."+string(lang)+".html", html(t, p))
		golden(t, "installation."+string(lang)+".txt", text(t, p))
		checkPage(t, html(t, p), lang)
	}
}

// TestNumbersAreForPeople: exact figures are in the export.
func TestNumbersAreForPeople(t *testing.T) {
	x := render.In(diagnosis.English)
	for _, tc := range []struct {
		name string
		v    float64
		want string
	}{
		{"test_bytes", 712345678, "712345678 bytes"},
		{"aaa_extract_age_s", 15811200, "183 days"},
		{"aaa_extract_age_s", 1581120.5, "1581120 s"},
		{"aaa_extract_age_s", 86400, "86400 s"},
		{"tx_power_dbm", 2.287339, "2.29 dBm"},
		{"rx_power_dbm", -24.996, "-24.996 dBm"}, // not -25, which fails
		{"rx_power_dbm", -25, "-25 dBm"},
		{"margin_db", 0.6999999999999993, "0.7 dB"},
		{"rtt_ms", 3.262718, "3.26 ms"},
		{"loss_ratio", 0.0123456, "1.23456 %"},
	} {
		if got := x.Number(tc.name, tc.v); got != tc.want {
			t.Errorf("%s %g: %q, want %q", tc.name, tc.v, got, tc.want)
		}
	}
	if got := x.Limit(acceptance.Limit{Name: acceptance.RecordRetention, Value: 15811200, Op: ">="}); got != "≥ 183 days" {
		t.Errorf("retention: %q", got)
	}
	if got := x.Limit(acceptance.Limit{Name: acceptance.OpticalRxMinDBm, Value: -24.997, Op: ">"}); got != "> -24.997 dBm" {
		t.Errorf("a limit: %q", got)
	}
}

// TestFirstVisitHasNoBaseline: its own reading is none.
func TestFirstVisitHasNoBaseline(t *testing.T) {
	v := installation()
	v.record.Line = nil
	if page := html(t, page(t, v.close(t), render.Options{Lang: diagnosis.English})); strings.Contains(page, `class="line baseline`) || strings.Contains(page, "baseline -24.3") {
		t.Error("the visit's own reading is drawn as the baseline")
	}
	v = installation()
	v.record.Line = &record.Line{N: 1, Readings: map[string]float64{"rx_power_dbm": -22.5}}
	if page := html(t, page(t, v.close(t), render.Options{Lang: diagnosis.English})); !strings.Contains(page, "baseline -22.5") {
		t.Error("the baseline is not drawn")
	}
}

// TestReceiptThatIsNotValidIsNobodysWord: nothing in it is marked as well.
func TestReceiptThatIsNotValidIsNobodysWord(t *testing.T) {
	data := installation().close(t)
	for _, status := range []record.Status{record.Valid, record.SignerUnknown, record.Altered, record.Unreadable} {
		r := receipt(t, data, nil)
		r.Status = status
		p := page(t, data, render.Options{Lang: diagnosis.English, Receipt: r, Attachments: map[string]render.File{"signature.png": {State: render.FileThere}}})
		bad := status == record.Altered || status == record.Unreadable
		shown := fmt.Sprintf("%+v %+v %+v", *p.Receipt.Splitter, p.Receipt.Ratings, p.Receipt.Attachments)
		if got := strings.Contains(shown, "✓") || strings.Contains(shown, "pass"); got == bad {
			t.Errorf("%s: %s", status, shown)
		}
		if got := strings.Contains(text(t, p), "as the receipt claims: "); got != bad {
			t.Errorf("%s:\n%s", status, text(t, p))
		}
	}
}

// checkPage holds a page to what is promised of all: whole, and in need of
// nothing else.
func checkPage(t *testing.T, page string, lang diagnosis.Lang) {
	t.Helper()
	z := nethtml.NewTokenizer(strings.NewReader(page))
	var open []string
	var style, policy string
	void := []string{"meta", "img", "br", "link", "input", "hr"}
	for {
		kind := z.Next()
		if kind == nethtml.ErrorToken {
			break
		}
		tok := z.Token()
		switch kind {
		case nethtml.StartTagToken, nethtml.SelfClosingTagToken:
			checkTag(t, tok)
			if tok.Data == "meta" && attr(tok, "http-equiv") != "" {
				policy = attr(tok, "content")
			}
			if tok.Data == "html" && attr(tok, "lang") != string(lang) {
				t.Errorf("the page says that it is in %q", attr(tok, "lang"))
			}
			if kind == nethtml.StartTagToken && !slices.Contains(void, tok.Data) {
				open = append(open, tok.Data)
			}
		case nethtml.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != tok.Data {
				t.Fatalf("</%s> closes %v", tok.Data, open)
			}
			open = open[:len(open)-1]
		case nethtml.TextToken:
			if len(open) > 0 && open[len(open)-1] == "style" {
				style += tok.Data
			}
		case nethtml.ErrorToken, nethtml.CommentToken, nethtml.DoctypeToken:
		}
	}
	if len(open) > 0 {
		t.Errorf("not closed: %v", open)
	}
	if strings.Contains(style, "url(") || strings.Contains(style, "@import") || strings.Contains(style, "<") {
		t.Error("the style needs something else")
	}
	sum := sha256.Sum256([]byte(style))
	if want := "default-src 'none'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; policy != want {
		t.Errorf("the policy is %q: the style would not be used (%s)", policy, want)
	}
	if strings.Contains(page, "ZgotmplZ") {
		t.Error("the template refused a value")
	}
	if r := strings.IndexFunc(page, hidden); r >= 0 {
		t.Errorf("what cannot be seen is on the page: %+q", page[max(0, r-20):r+4])
	}
}

// hidden says what no page contains.
func hidden(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Cf, r)
}

func attr(tok nethtml.Token, name string) string {
	for _, a := range tok.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func checkTag(t *testing.T, tok nethtml.Token) {
	t.Helper()
	known := strings.Fields("html head meta title style body div header main section h1 h2 h3 p span strong b ul li dl dt dd " +
		"article figure figcaption svg rect line text path polyline circle table thead tbody tr th td code br img")
	if !slices.Contains(known, tok.Data) {
		t.Errorf("<%s> is none of ours", tok.Data)
	}
	for _, a := range tok.Attr {
		switch {
		case strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "href" || a.Key == "xlink:href" || a.Key == "srcdoc":
			t.Errorf("<%s> has %s", tok.Data, a.Key)
		case a.Key == "src" && !strings.HasPrefix(a.Val, "data:image/jpeg;base64,"):
			t.Errorf("<%s> loads %q", tok.Data, a.Val)
		case (a.Key == "x" || a.Key == "y" || a.Key == "points" || a.Key == "width" || a.Key == "d") && strings.Contains(a.Val, "NaN"):
			t.Errorf("<%s> is nowhere: %s=%q", tok.Data, a.Key, a.Val)
		}
	}
}

func TestPageSaysWhatARecordIsWorth(t *testing.T) {
	data := installation().close(t)
	for name, tc := range map[string]struct {
		data      []byte
		class     string
		says, not []string // in the text
		inChinese string   // in its first line
	}{
		"genuine": {data, "valid", []string{"valid: intact", "✗ The line does not meet the norm"}, []string{"!!!", "as the record claims"}, "有效"},
		"a reading altered": {
			resign(t, data, 0, func(p string) string { return strings.Replace(p, `"value":-24.3,`, `"value":-19.3,`, 1) }), "altered",
			[]string{"ALTERED", "Altered: optical power: received optical power", "! as the record claims: fail", "!!! this was altered: received optical power: -19.3 dBm"},
			[]string{"valid: intact", "The line does not meet"},
			"被改动过",
		},
		"of a stranger's key": {
			resign(t, data, 'x', func(p string) string { return strings.Replace(p, `"verdict":"fail"`, `"verdict":"pass"`, 1) }), "altered",
			[]string{"Altered: the signature", "as the record claims: pass"},
			[]string{"The line meets the norm"},
			"被改动过",
		},
		"newer": {
			resign(t, data, 'g', func(p string) string {
				p = strings.Replace(p, `"v":1,`, `"v":2,"weather":{"rain":true},`, 1)
				return strings.Replace(p, `"tenant":"lab"`, `"tenant":{"id":"lab"}`, 1)
			}), "newer",
			[]string{"newer software", "weather", "could not be read: the tenant", "as the record claims: fail", "received optical power: -24.3 dBm"},
			[]string{"valid: intact"},
			"更新版本",
		},
		"another root's": {data, "unproven", []string{"signer unknown"}, []string{"valid: intact"}, "无法追溯"},
	} {
		t.Run(name, func(t *testing.T) {
			o := record.VerifyOptions{Root: root()}
			if name == "another root's" {
				o.Root = ed25519.PublicKey(public(key('x')))
			}
			d, err := render.Open(tc.data, record.Verify(tc.data, o))
			if err != nil {
				t.Fatal(err)
			}
			p := render.NewPage(d, render.Options{Lang: diagnosis.English})
			if p.Standing.Class != tc.class {
				t.Errorf("the record stands as %q", p.Standing.Class)
			}
			shown := text(t, p)
			for _, part := range tc.says {
				if !strings.Contains(shown, part) {
					t.Errorf("%q is not said:\n%s", part, shown)
				}
			}
			for _, part := range tc.not {
				if strings.Contains(shown, part) {
					t.Errorf("%q is said:\n%s", part, shown)
				}
			}
			checkPage(t, html(t, p), diagnosis.English)
			zh := render.NewPage(d, render.Options{Lang: diagnosis.Chinese})
			first, _, _ := strings.Cut(strings.TrimLeft(text(t, zh), "!\n "), "\n")
			if !strings.Contains(first, tc.inChinese) {
				t.Errorf("%q is not said first, but %q", tc.inChinese, first)
			}
			checkPage(t, html(t, zh), diagnosis.Chinese)
		})
	}
}

func TestWhatIsNoRecordIsNotShown(t *testing.T) {
	data := installation().close(t)
	signed, err := installation().order.Sign(key('o'))
	if err != nil {
		t.Fatal(err)
	}
	other, err := record.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "half": data[:len(data)/2], "text": []byte("record"), "an order": other, "null": []byte("null"),
		"payload of text": resign(t, data, 'g', func(string) string { return "text" }),
		"payload of null": resign(t, data, 'g', func(string) string { return "[]" }),
	} {
		if d, err := render.Open(data, record.Verify(data, record.VerifyOptions{Root: root()})); err == nil {
			t.Errorf("%s is shown: %+v", name, d)
		} else if err.Error() == "" {
			t.Errorf("%s: no reason", name)
		}
	}
	// Cut anywhere, it is either not shown or not taken for genuine.
	for n := 0; n < len(data)-1; n += 97 {
		v := record.Verify(data[:n], record.VerifyOptions{Root: root()})
		if d, err := render.Open(data[:n], v); err == nil && d.Verification.Status == record.Valid {
			t.Fatalf("the first %d bytes are taken for genuine", n)
		}
	}
}

// hostile is what somebody puts in who can make the gateway say anything.
const hostile = "</text></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload=\"x\" javascript:alert(1) \u202egnp.exe\u2066\u200b\x1b[31m\r\nverdict: pass\x00\u0085\U000e0041 {{.}} /*"

func hostileVisit() visit {
	v := installation()
	for i := range v.report.Results {
		r := &v.report.Results[i]
		r.Reason, r.Log = hostile, []string{hostile, strings.Repeat("長", 90)}
		r.Causes = append(r.Causes, hostile)
		r.Conditions = map[string]string{hostile: hostile}
		r.Limits = append(r.Limits, acceptance.Limit{Name: hostile, Op: hostile, Origin: hostile})
		if len(r.Measurements) > 1 {
			m := &r.Measurements[len(r.Measurements)-2]
			m.Source, m.Raw, m.Note = hostile+m.Source, hostile, hostile
		}
		r.Measurements = append(r.Measurements, acceptance.Measurement{Name: hostile, Value: hostile, Status: hostile},
			acceptance.Measurement{Name: hostile, Value: map[string]any{hostile: hostile}})
	}
	v.report.Results = append(v.report.Results, acceptance.Result{Rung: hostile, Verdict: hostile, SkippedFor: hostile})
	v.diagnosis.Causes = append(v.diagnosis.Causes, diagnosis.Ranked{
		Code: hostile, Side: hostile, OrSide: "x" + hostile, Severity: hostile, Kind: hostile,
		For: []diagnosis.Ref{{Rung: hostile, What: hostile, Value: hostile}, {Rung: "optical", What: "rx_power_dbm", Value: "Inf"}},
	})
	v.diagnosis.Consequences = append(v.diagnosis.Consequences, diagnosis.Consequence{Code: hostile, Rung: hostile, By: hostile})
	v.record.Agent.Version, v.record.Time.UTC, v.record.Time.Clock = hostile, hostile, hostile
	v.record.Technician, v.record.Tenant, v.record.Verdict = hostile, hostile, hostile
	v.record.Baseline = map[string]float64{hostile: 1}
	v.order.Resources.SplitterPort, v.order.Services[0].Account = "</dd><script>", "<b>*"
	return v
}

func TestHostileRecordIsShownAsText(t *testing.T) {
	data := hostileVisit().close(t)
	for _, lang := range []diagnosis.Lang{diagnosis.Chinese, diagnosis.English} {
		p := page(t, data, render.Options{Lang: lang, Receipt: &record.ReceiptVerification{
			Status: hostile, Problem: hostile, Altered: []string{hostile}, Digest: hostile, Signer: hostile,
			Receipt: &record.Receipt{
				Technician: hostile, Remarks: hostile, Splitter: &record.Splitter{Port: hostile, Meter: hostile},
				Attachments: []record.Attachment{{Name: hostile, Kind: hostile, MediaType: hostile, SHA256: hostile, Bytes: -1}},
				Customer: record.Customer{
					Signature: &record.Signature{Typed: hostile, OnBehalf: true, Relation: hostile},
					Ratings:   map[record.RatingItem]record.Rating{record.RateSkill: hostile},
				},
			},
		}})
		checkPage(t, html(t, p), lang)
		for line := range strings.Lines(text(t, p)) {
			if strings.HasPrefix(strings.TrimSpace(line), "verdict: pass") {
				t.Error("a text forged a line")
			}
			if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), unicode.IsControl) || strings.ContainsFunc(line, func(r rune) bool { return unicode.Is(unicode.Cf, r) }) {
				t.Fatalf("what cannot be seen is printed: %+q", line)
			}
		}
	}
}

func TestPlotsOfOddReadings(t *testing.T) {
	for name, change := range map[string]func(v *visit){
		"no light": func(v *visit) {
			r := &v.report.Results[1]
			for i := range r.Measurements {
				r.Measurements[i].Value, r.Measurements[i].Status = nil, "no_light"
			}
		},
		"nothing":      func(v *visit) { v.report.Results = nil },
		"far off":      func(v *visit) { v.report.Results[1].Measurements[5].Value = 1e300 },
		"no limits":    func(v *visit) { v.report.Results[1].Limits, v.report.Results[5].Limits = nil, nil },
		"not rates":    func(v *visit) { v.report.Results[5].Measurements[0].Raw = "1 2 NaN 4" },
		"no contract":  func(v *visit) { v.order.Services = nil },
		"many seconds": func(v *visit) { v.report.Results[5].Measurements[0].Raw = strings.Repeat("500.1 ", 250) },
		"many reads": func(v *visit) {
			r := &v.report.Results[1]
			for range 60 {
				r.Measurements = append(r.Measurements, ok("rx_power_sample_dbm", -24.0, "another source", "", ""))
			}
		},
		"zero rates": func(v *visit) { v.report.Results[5].Measurements[0].Raw = "0 0 0" },
		"no samples": func(v *visit) { v.report.Results[1].Measurements = v.report.Results[1].Measurements[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			v := installation()
			change(&v)
			shown := html(t, page(t, v.close(t), render.Options{Lang: diagnosis.English}))
			checkPage(t, shown, diagnosis.English)
			if want := map[string]string{
				"no light": "No light: there is no reading to draw", "not rates": "There is no reading to draw",
				"no samples": "● console:rtl960x",
			}[name]; !strings.Contains(shown, want) {
				t.Errorf("%q is not said", want)
			}
		})
	}
}

func TestPlotIsToScale(t *testing.T) {
	v := installation()
	p := page(t, v.close(t), render.Options{Lang: diagnosis.English})
	plot := p.Optical
	levels := map[string]float64{}
	for _, l := range plot.Lines {
		levels[l.Label] = l.Y
	}
	norm, high, base := levels["lower limit > -25"], levels["upper limit ≤ -8"], levels["baseline -20.1"]
	if norm == 0 || high == 0 || base == 0 {
		t.Fatalf("a line is missing: %v", levels)
	}
	perDB := (norm - high) / 17
	if got, want := base, norm-perDB*4.9; got < want-0.2 || got > want+0.2 {
		t.Errorf("the baseline is at %g, not %g", got, want)
	}
	if got, want := plot.Series[1].Dots[0].Y, norm-perDB*0.5; got < want-0.2 || got > want+0.2 {
		t.Errorf("the first read is at %g, not %g", got, want)
	}
	slices.SortFunc(plot.Lines, func(a, b render.Line) int { return int(a.LabelY*10) - int(b.LabelY*10) })
	for i := 1; i < len(plot.Lines); i++ {
		if gap := plot.Lines[i].LabelY - plot.Lines[i-1].LabelY; gap < 13.9 {
			t.Errorf("%q covers %q: %g apart", plot.Lines[i].Label, plot.Lines[i-1].Label, gap)
		}
	}
	up := p.Rates[1]
	low := 0
	for _, b := range up.Bars {
		if b.Low {
			low++
		}
	}
	if low != 7 { // of the seconds, those below 45 Mbit/s
		t.Errorf("%d seconds are below 90 %% of the contract", low)
	}
}

func TestReceiptsAreShownForWhatTheyAre(t *testing.T) {
	data := installation().close(t)
	for name, tc := range map[string]struct {
		change func(r *record.Receipt)
		says   []string
		class  string
	}{
		"of this record": {nil, []string{"The receipt is valid", "-18.6 dBm", "meets the norm", "【代 (on behalf)】", "family", "very satisfied"}, "valid"},
		"of another":     {func(r *record.Receipt) { r.RecordSHA256 = strings.Repeat("ee", 32) }, []string{"not of this record"}, "altered"},
		"weak splitter": {func(r *record.Receipt) {
			s := record.JudgeSplitter(record.Splitter{RxPowerDBm: -20}, -20)
			r.Splitter = &s
		}, []string{"-20 dBm", "below the norm"}, "valid"},
		"unsigned": {func(r *record.Receipt) { r.Customer.Signature = nil }, []string{"not signed"}, "valid"},
	} {
		t.Run(name, func(t *testing.T) {
			rv := receipt(t, data, tc.change)
			p := page(t, data, render.Options{Lang: diagnosis.English, Receipt: rv})
			if p.Receipt.Standing.Class != tc.class {
				t.Errorf("it stands as %s", p.Receipt.Standing.Class)
			}
			shown := text(t, p)
			for _, part := range tc.says {
				if !strings.Contains(shown, part) {
					t.Errorf("%q is not said:\n%s", part, shown)
				}
			}
			checkPage(t, html(t, p), diagnosis.English)
		})
	}
}

func TestAccountsAreMasked(t *testing.T) {
	v := installation()
	data := v.close(t)
	// An order that no operator of ours would sign.
	data = resign(t, data, 'g', func(p string) string {
		o := v.order
		o.Services[0].Account = "ad12345678@163.gd"
		env, err := order.Sign(order.TypeOrder, mustJSON(t, o), key('o'))
		if err != nil {
			t.Fatal(err)
		}
		head, rest, _ := strings.Cut(p, `"order":{"payloadType":"`+order.TypeOrder+`","payload":"`)
		_, rest, _ = strings.Cut(rest, `"`)
		return head + `"order":{"payloadType":"` + order.TypeOrder + `","payload":"` + env.Payload + `"` + rest
	})
	p := page(t, data, render.Options{Lang: diagnosis.English})
	for _, shown := range []string{text(t, p), html(t, p)} {
		if strings.Contains(shown, "ad12345678") || !strings.Contains(shown, "ad*****@163.gd") {
			t.Error("an account is shown in full")
		}
	}
}

func TestFiguresDoNotRoundAcrossALimit(t *testing.T) {
	v := installation()
	m := v.report.Results[1].Measurements
	m[0].Value = -25.0004
	v.report.Results[5].Measurements[4].Value = 0.89996
	p := page(t, v.close(t), render.Options{Lang: diagnosis.English})
	if got := p.Elements[2].Lines[0]; got != "-25.0004 dBm" {
		t.Errorf("the light is shown as %s", got)
	}
	if got := p.Elements[3].Lines[1]; got != "↑ 41.9 / 50 Mbit/s (89.996%)" {
		t.Errorf("the rate is shown as %s", got)
	}
}

func TestCleanBoundsTexts(t *testing.T) {
	long := render.Clean(strings.Repeat("長", 5000))
	if n := len([]rune(long)); n > 2020 || !strings.HasSuffix(long, "… (+9000)") {
		t.Errorf("%d runes, ends in %q", n, long[len(long)-20:])
	}
	if got := render.Clean("a\nb\x1b[2J\u202e"); got != "a b·[2J·" {
		t.Errorf("%q", got)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`{"v":2,"ladder":{"results":[{"rung":"optical","measurements":[{"name":"rx_power_sample_dbm","value":1e308}]}]}}`))
	f.Add([]byte(`{"baseline":{"rx_power_dbm":-1e308},"line":{"readings":{"rx_power_dbm":1e308}}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		env, err := order.Sign(order.TypeRecord, payload, key('g'))
		if err != nil {
			t.Skip()
		}
		data, err := record.Marshal(env)
		if err != nil {
			t.Skip()
		}
		d, err := render.Open(data, record.Verify(data, record.VerifyOptions{Root: root()}))
		if err != nil {
			return
		}
		p := render.NewPage(d, render.Options{Lang: diagnosis.English})
		checkPage(t, html(t, p), diagnosis.English)
		if strings.ContainsFunc(text(t, p), hidden) {
			t.Error("what cannot be seen is printed")
		}
	})
}
