package pppoe

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// captured are frames of a real server and a real client.
func captured(tb testing.TB) [][]byte {
	tb.Helper()
	data, err := os.ReadFile("testdata/pppoe-server-3.15.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all [][]byte
	for line := range strings.Lines(string(data)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, b)
	}
	if len(all) < 50 {
		tb.Fatalf("only %d frames", len(all))
	}
	return all
}

// TestCapturedFramesAreUnderstood holds the parsers, and the encoders, to what
// real programs send.
func TestCapturedFramesAreUnderstood(t *testing.T) {
	var texts []string
	kinds := map[string]int{}
	for _, raw := range captured(t) {
		f, ok := parseFrame(raw, 0, false)
		if !ok {
			t.Fatalf("%x", raw)
		}
		if again := f.appendTo(nil, 0); !bytes.HasPrefix(raw, again) {
			t.Errorf("%x is encoded as %x", raw, again)
		}
		if f.discovery {
			kinds["discovery"]++
			tg, ok := parseTags(f.payload, "PAD")
			if !ok {
				t.Errorf("tags of %x", raw)
				continue
			}
			for _, e := range tg.errors {
				texts = append(texts, e.Text)
			}
			if f.code == codePADO && (!strings.HasPrefix(tg.acName, "BRAS-") || len(tg.cookie) == 0 || !tg.hasUniq) {
				t.Errorf("PADO %+v", tg)
			}
			continue
		}
		c, ok := parseControl(f.payload[2:])
		if !ok {
			t.Errorf("packet of %x", raw)
			continue
		}
		switch proto := uint16(f.payload[0])<<8 | uint16(f.payload[1]); {
		case proto == protoPAP && c.code != papRequest:
			texts = append(texts, string(papMessage(c.data)))
		case proto == protoCHAP && (c.code == chapSuccess || c.code == chapFailure):
			texts = append(texts, string(c.data))
		case proto == protoCHAP:
			if _, name, ok := parseChallenge(c.data); !ok || string(name) != "localhost" && string(name) != "u1@isp" {
				t.Errorf("challenge or response: %q, %t", name, ok)
			}
			kinds["challenge"]++
		case c.code >= configureRequest && c.code <= configureReject && proto != protoPAP:
			options, ok := parseOptions(c.data)
			if !ok || !bytes.Equal(encodeOptions(options), c.data) {
				t.Errorf("options of %x", raw)
			}
			kinds["options"]++
		}
	}
	want := "Login ok|RP-PPPoE: Server: No client slots available|RP-PPPoE: Child pppd process terminated|Login incorrect|RP-PPPoE: Child pppd process terminated|" +
		"Access granted|RP-PPPoE: Child pppd process terminated|Access denied|RP-PPPoE: Child pppd process terminated"
	if got := strings.Join(texts, "|"); got != want {
		t.Errorf("texts\n%s, want\n%s", got, want)
	}
	if kinds["discovery"] < 20 || kinds["challenge"] != 4 || kinds["options"] < 40 {
		t.Errorf("%v", kinds)
	}
}

// Each parser takes each captured frame cut off anywhere, and with any length
// in it too long.
func TestTruncation(t *testing.T) {
	for _, raw := range captured(t) {
		for n := range raw {
			if f, ok := parseFrame(raw[:n], 0, false); ok && len(raw[:n]) < 20+len(f.payload) {
				t.Errorf("%d of %x is taken", n, raw)
			}
		}
		f, _ := parseFrame(raw, 0, false)
		for n := range f.payload {
			part := f.payload[:n]
			if f.discovery {
				parseTags(part, "PADO")
				continue
			}
			if c, ok := parseControl(part[min(2, n):]); ok && len(c.data) > n {
				t.Errorf("%x", part)
			}
			if n > 6 {
				parseOptions(part[6:])
				parseChallenge(part[6:])
				papMessage(part[6:])
			}
		}
	}
	for _, b := range [][]byte{{1}, {1, 1, 0, 0, 1}, {1, 1, 0, 1}, {1, 1, 0xff, 0xff, 1}, {1, 0x20, 0, 1, 5}, {1, 0x20, 0, 3, 5, 5, 5}} {
		if tg, ok := parseTags(b, "PADO"); ok {
			t.Errorf("tags %x are taken: %+v", b, tg)
		}
	}
	for _, b := range [][]byte{{1}, {1, 0}, {1, 1}, {1, 3}, {1, 4, 5}, {1, 2, 1}} {
		if o, ok := parseOptions(b); ok {
			t.Errorf("options %x are taken: %+v", b, o)
		}
	}
	for _, b := range [][]byte{nil, {0}, {0, 1}, {2, 1}, {255}} {
		if v, _, ok := parseChallenge(b); ok {
			t.Errorf("challenge %x is taken: %x", b, v)
		}
	}
	for in, want := range map[string]string{
		"": "", "\x00": "", "\x02ok": "ok", "\x02ok\n": "ok", "\x09no": "no", "Login incorrect": "Login incorrect", "\x03no": "no",
	} {
		if got := string(papMessage([]byte(in))); got != want {
			t.Errorf("message %q of %q, want %q", got, in, want)
		}
	}
}

func seedPayloads(f *testing.F, discovery bool, skip int) {
	f.Helper()
	for _, raw := range captured(f) {
		p, ok := parseFrame(raw, 0, false)
		if ok && p.discovery == discovery && len(p.payload) >= skip {
			f.Add(p.payload[skip:])
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, raw := range captured(f) {
		f.Add(raw, uint16(41), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, tag uint16, tagged bool) {
		p, ok := parseFrame(raw, tag, tagged)
		if !ok {
			return
		}
		if len(p.payload) > len(raw) || p.vlan > 4095 {
			t.Fatalf("%+v", p)
		}
		q, ok := parseFrame(p.appendTo(nil, 3), 0, false)
		if !ok || q.vlan != p.vlan || q.src != p.src || q.dst != p.dst || q.code != p.code || q.session != p.session || !bytes.Equal(q.payload, p.payload) {
			t.Fatalf("%+v, then %+v", p, q)
		}
	})
}

func FuzzTags(f *testing.F) {
	seedPayloads(f, true, 0)
	f.Fuzz(func(t *testing.T, raw []byte) {
		tg, ok := parseTags(raw, "PADO")
		if !ok {
			return
		}
		if len(tg.services) > maxServices || len(tg.errors) > maxErrors || len(tg.acName) > maxText {
			t.Fatalf("%+v", tg)
		}
		for _, e := range tg.errors {
			if len(e.Text) > maxText {
				t.Fatalf("%+v", e)
			}
		}
		if _, err := json.Marshal(Offer{ACName: tg.acName, ServiceNames: tg.services, Errors: tg.errors}); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzControl(f *testing.F) {
	seedPayloads(f, false, 2)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, ok := parseControl(raw)
		if !ok {
			return
		}
		if b := c.appendTo(nil); !bytes.Equal(b, raw[:len(b)]) {
			t.Fatalf("%x, then %x", raw, b)
		}
	})
}

func FuzzOptions(f *testing.F) {
	seedPayloads(f, false, 6)
	f.Fuzz(func(t *testing.T, raw []byte) {
		options, ok := parseOptions(raw)
		if ok && !bytes.Equal(encodeOptions(options), raw) {
			t.Fatalf("%x", raw)
		}
		for i := range options {
			address(&options[i])
			linkLocal(&options[i])
		}
	})
}

func FuzzAuth(f *testing.F) {
	seedPayloads(f, false, 6)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m := papMessage(raw); len(m) > len(raw) {
			t.Fatal(m)
		}
		if value, name, ok := parseChallenge(raw); ok && 1+len(value)+len(name) != len(raw) {
			t.Fatalf("%x, %x", value, name)
		}
		if s, h := text(raw); len(s) > maxText || len(h) > 2*maxText {
			t.Fatal(s)
		}
	})
}

// FuzzSession hands whatever it is to a session in each stage: no panic, and
// a bounded number of answers.
func FuzzSession(f *testing.F) {
	for _, raw := range captured(f) {
		f.Add(raw, byte(0))
		f.Add(raw, byte(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, at byte) {
		b := newBRAS(t)
		b.hook = func(*frame) bool { return true }
		o, err := Options{Interface: "x", IPv6: true, Password: "p1"}.normalise()
		if err != nil {
			t.Fatal(err)
		}
		d := &dialer{o: o, link: b, began: time.Now(), own: clientMAC()}
		s := newSession(d, &Offer{from: b.addr, tags: new(tags)}, &frame{session: 1}, 0, nil)
		steps := []func() error{s.startLCP, s.startAuth, s.startNetwork, func() error { s.begin(); return nil }}
		for i, step := range steps {
			if i > int(at%4) {
				break
			}
			s.auth.proto, s.auth.done = protoCHAP, i > 1
			if i >= 1 {
				s.lcp.acked, s.lcp.agreed = true, true
				s.enter([]Stage{StageLCP, StageAuth, StageIPCP, StageUp}[i], time.Minute)
			}
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		p, ok := parseFrame(raw, 0, false)
		if !ok {
			return
		}
		p.dst, p.src, p.session = clientMAC(), b.addr, 1
		for range 200 {
			if err := s.handle(p); err != nil {
				t.Fatal(err)
			}
			if s.outcome != "" {
				break
			}
			if err := s.advance(); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(b.seen); n > 130 {
			t.Fatalf("%d answers to 200 packets", n)
		}
	})
}

func TestPasswordNeverShows(t *testing.T) {
	const secret = "hunter2!"
	o := Options{Interface: "wan0", Username: "u", Password: secret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("dial", "options", o, "password", o.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("dial", "options", o, "password", o.Password)
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{log.String(), string(b), fmt.Sprint(o), o.Password.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		all = append(all, fmt.Sprintf(verb, o), fmt.Sprintf(verb, o.Password), fmt.Sprintf(verb, &o))
	}
	for _, s := range all {
		if strings.Contains(s, secret) || strings.Contains(strings.ToLower(s), hex.EncodeToString([]byte(secret))) {
			t.Error("the password shows")
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{},
		{Interface: "x", VLAN: 4095},
		{Interface: "x", Priority: 8},
		{Interface: "x", Username: strings.Repeat("x", 256)},
		{Interface: "x", MRU: 100},
		{Interface: "x", MRU: 1500},
		{Interface: "x", Attempts: 3},
		{Interface: "x", Echoes: 101},
		{Interface: "x", MaxDuration: -1},
		{Interface: "x", ServiceName: strings.Repeat("x", 256)},
	} {
		if _, err := Dial(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
		if o.Duration() != 0 {
			t.Errorf("%+v takes %v", o, o.Duration())
		}
	}
	if d := (Options{Interface: "x", DiscoveryOnly: true}).Duration(); d > 6*time.Second {
		t.Errorf("discovery takes %v", d)
	}
	if d := (Options{Interface: "x"}).Duration(); d < time.Minute || d > 65*time.Second {
		t.Errorf("a dial takes %v", d)
	}
}

// The JSON is what others read.
func TestResultJSON(t *testing.T) {
	b, err := json.Marshal(Result{Interface: "wan0", Outcome: NoPADO, Stage: StageDiscovery})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"interface":"wan0","outcome":"no_pado","stage":"discovery","lcp":{},"auth":{"attempts":0,"sends":0},` +
		`"echo":{"sent":0,"received":0,"loss_ratio":0,"min_ms":0,"avg_ms":0,"max_ms":0},` +
		`"discovery_ms":0,"session_setup_ms":0,"lcp_ms":0,"auth_ms":0,"ipcp_ms":0,"ipv6cp_ms":0,"up_ms":0,"terminate_ms":0,"total_ms":0}`
	if string(b) != want {
		t.Errorf("%s, want\n%s", b, want)
	}
}
