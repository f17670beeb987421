package transport

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testHeader() Header {
	return Header{
		V: 1, Device: testDevice, Epoch: 17, Class: ClassTelemetry, Seq: 90211,
		UptimeS: 86400.123, TimeMS: 1700000000123, Clock: ClockNTP,
	}
}

const testHeaderJSON = `"v":1,"device":"HWTC12345678","epoch":17,"class":"telemetry","seq":90211,` +
	`"uptime_s":86400.123,"time_unix_ms":1700000000123,"clock":"ntp"`

func TestEncode(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"nothing", "", `{` + testHeaderJSON + `}`},
		{"empty", " { } ", `{` + testHeaderJSON + `}`},
		{"flat", `{"rx_dbm":-19.2}`, `{` + testHeaderJSON + `,"rx_dbm":-19.2}`},
		{"spread out", "{\n \"a\" : [1, {\"seq\": 2}],\r\n\t\"b\" : \"x, y} \\\" \"\n}\n", `{` + testHeaderJSON + `,"a":[1,{"seq":2}],"b":"x, y} \" "}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Encode(testHeader(), json.RawMessage(tt.body))
			if err != nil || string(got) != tt.want {
				t.Fatalf("Encode = %s, %v, want %s", got, err, tt.want)
			}
			h, body, err := Decode(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testHeader(), h); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			again, err := Encode(h, body)
			if err != nil || string(again) != tt.want {
				t.Errorf("once more: %s, %v", again, err)
			}
			var viaStruct Header
			if err := json.Unmarshal(got, &viaStruct); err != nil || viaStruct != testHeader() {
				t.Errorf("encoding/json reads %+v, %v", viaStruct, err)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	body := func(s string) func(*Header, *json.RawMessage) {
		return func(_ *Header, b *json.RawMessage) { *b = json.RawMessage(s) }
	}
	tests := []struct {
		name string
		edit func(*Header, *json.RawMessage)
		want error
	}{
		{"array", body(`[1]`), ErrMalformed},
		{"string", body(`"a"`), ErrMalformed},
		{"null", body(`null`), ErrMalformed},
		{"cut", body(`{"a":1`), ErrMalformed},
		{"two", body(`{}{}`), ErrMalformed},
		{"space", body(` `), ErrMalformed},
		{"not UTF-8", body("{\"a\":\"\xc3\"}"), ErrMalformed},
		{"header key", body(`{"a":1,"device":"x"}`), ErrMalformed},
		{"header key by escape", body(`{"d\u0065vice":"x"}`), ErrMalformed},
		{"header key by case", body(`{"DEVICE":"x"}`), ErrMalformed},
		{"header key by folding", body(`{"cloc\u212a":"x"}`), ErrMalformed}, // KELVIN SIGN
		{"key twice", body(`{"a":1,"a":2}`), ErrMalformed},
		{"key twice by escape", body(`{"a":1,"\u0061":2}`), ErrMalformed},
		{"too large", func(_ *Header, b *json.RawMessage) { *b = bigBody(MaxPayload - 100) }, ErrTooLarge},
		{"far too large", func(_ *Header, b *json.RawMessage) { *b = bigBody(1 << 20) }, ErrTooLarge},
		{"version", func(h *Header, _ *json.RawMessage) { h.V = 2 }, ErrMalformed},
		{"device", func(h *Header, _ *json.RawMessage) { h.Device = "x" }, ErrMalformed},
		{"class", func(h *Header, _ *json.RawMessage) { h.Class = "x" }, ErrMalformed},
		{"seq", func(h *Header, _ *json.RawMessage) { h.Seq = 0 }, ErrMalformed},
		{"uptime NaN", func(h *Header, _ *json.RawMessage) { h.UptimeS = math.NaN() }, ErrMalformed},
		{"uptime Inf", func(h *Header, _ *json.RawMessage) { h.UptimeS = math.Inf(1) }, ErrMalformed},
		{"uptime negative", func(h *Header, _ *json.RawMessage) { h.UptimeS = -1 }, ErrMalformed},
		{"clock", func(h *Header, _ *json.RawMessage) { h.Clock = "good" }, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, b := testHeader(), json.RawMessage(`{}`)
			tt.edit(&h, &b)
			if got, err := Encode(h, b); !errors.Is(err, tt.want) {
				t.Errorf("Encode = %.80s, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestEncodeFields(t *testing.T) {
	got, err := EncodeFields([]Field{
		{"b", true},
		{"i", -1},
		{"i64", int64(math.MinInt64)},
		{"u64", uint64(math.MaxUint64)},
		{"f", -19.2},
		{"zero", 0.0},
		{"small", 1e-9},
		{"large", 1e21},
		{"whole", 1e6},
		{"s", "a\"b\\c\n\t\r\x00\x7f<&>é中\xff"},
	})
	want := `{"b":true,"i":-1,"i64":-9223372036854775808,"u64":18446744073709551615,` +
		`"f":-19.2,"zero":0,"small":1e-09,"large":1e+21,"whole":1000000,` +
		`"s":"a\"b\\c\n\t\r\u0000\u007f<&>é中` + "\ufffd" + `"}`
	if err != nil || string(got) != want {
		t.Errorf("EncodeFields = %s, %v\nwant %s", got, err, want)
	}
	if _, err := Encode(testHeader(), got); err != nil {
		t.Error(err)
	}
	if got, err := EncodeFields(nil); err != nil || string(got) != `{}` {
		t.Errorf("of nothing: %s, %v", got, err)
	}
}

func TestEncodeFieldsRefuses(t *testing.T) {
	tests := []struct {
		name   string
		fields []Field
		want   error
	}{
		{"NaN", []Field{{"a", math.NaN()}}, ErrMalformed},
		{"Inf", []Field{{"a", math.Inf(-1)}}, ErrMalformed},
		{"nil", []Field{{"a", nil}}, ErrMalformed},
		{"duration", []Field{{"a", time.Second}}, ErrMalformed},
		{"slice", []Field{{"a", []int{1}}}, ErrMalformed},
		{"no key", []Field{{"", 1}}, ErrMalformed},
		{"camel", []Field{{"rxPower", 1}}, ErrMalformed},
		{"digit first", []Field{{"1a", 1}}, ErrMalformed},
		{"quote", []Field{{`a"b`, 1}}, ErrMalformed},
		{"long key", []Field{{strings.Repeat("a", 65), 1}}, ErrMalformed},
		{"header's", []Field{{"seq", 1}}, ErrMalformed},
		{"twice", []Field{{"a", 1}, {"a", 2}}, ErrMalformed},
		{"too large", []Field{{"a", strings.Repeat("a", MaxPayload)}}, ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := EncodeFields(tt.fields); !errors.Is(err, tt.want) {
				t.Errorf("EncodeFields = %.80s, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(testHeader(), json.RawMessage(`{"a":"é","b":[1,2]}`))
	if err != nil {
		t.Fatal(err)
	}
	for n := range good { // truncated anywhere
		if _, _, err := Decode(good[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	replace := func(old, with string) string {
		s := strings.Replace(string(good), old, with, 1)
		if s == string(good) {
			t.Fatalf("no %s to replace", old)
		}
		return s
	}
	for name, payload := range map[string]string{
		"not UTF-8":       replace("é", "\xe9"),
		"array":           "[" + string(good) + "]",
		"no version":      replace(`"v":1,`, ``),
		"no clock":        replace(`"clock":"ntp",`, ``),
		"seq twice":       replace(`"a":`, `"seq":90211,"a":`),
		"key twice":       replace(`"a":`, `"b":`),
		"Seq":             replace(`"a":`, `"Seq":`),
		"version 2":       replace(`"v":1`, `"v":2`),
		"version 1.0":     replace(`"v":1`, `"v":1.0`),
		"version null":    replace(`"v":1`, `"v":null`),
		"version string":  replace(`"v":1`, `"v":"1"`),
		"device null":     replace(`"device":"HWTC12345678"`, `"device":null`),
		"device short":    replace(`HWTC12345678`, `HWTC`),
		"epoch negative":  replace(`"epoch":17`, `"epoch":-17`),
		"epoch fraction":  replace(`"epoch":17`, `"epoch":17.5`),
		"epoch too large": replace(`"epoch":17`, `"epoch":18446744073709551616`),
		"seq 0":           replace(`"seq":90211`, `"seq":0`),
		"class":           replace(`telemetry`, `gold`),
		"clock":           replace(`ntp`, `NTP`),
		"uptime":          replace(`86400.123`, `-1`),
		"uptime overflow": replace(`86400.123`, `1e999`),
	} {
		if h, _, err := Decode([]byte(payload)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if _, _, err := Decode(make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, _, err := Decode([]byte(strings.Repeat("[", MaxPayload))); !errors.Is(err, ErrMalformed) {
		t.Errorf("deep: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range []string{`{}`, `{"a":"é","b":[1,{"x":null}]}`, `{"state":"online"}`} {
		b, err := Encode(testHeader(), json.RawMessage(body))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		h, body, err := Decode(payload)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v", err)
			}
			return
		}
		again, err := Encode(h, body)
		if err != nil {
			t.Fatalf("decoded %q, cannot encode it: %v", payload, err)
		}
		h2, body2, err := Decode(again)
		if err != nil || h2 != h || string(body2) != string(body) {
			t.Errorf("%q became %q, %v", payload, again, err)
		}
	})
}

func FuzzEncodeBody(f *testing.F) {
	f.Add([]byte(`{"a":1}`))
	f.Add([]byte(`{"\u0061" : "\ud800", "b":[{},"}"]}`))
	f.Add([]byte(`{"V":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := Encode(testHeader(), body)
		if err != nil {
			return
		}
		h, _, err := Decode(b)
		if err != nil || h != testHeader() {
			t.Fatalf("%q encoded as %q, decoded as %+v, %v", body, b, h, err)
		}
		var viaStruct Header
		if err := json.Unmarshal(b, &viaStruct); err != nil || viaStruct != testHeader() {
			t.Fatalf("%q: another decoder reads %+v, %v", b, viaStruct, err)
		}
	})
}

func TestStamper(t *testing.T) {
	s, err := NewStamper(testDevice, 7, fakeClock{1, "sundial", 1234567890 * time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	want := Header{V: 1, Device: testDevice, Epoch: 7, Class: ClassEvent, Seq: 1, UptimeS: 1.235, TimeMS: 1, Clock: ClockNone}
	if diff := cmp.Diff(want, s.Stamp(ClassEvent)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a, b := s.Stamp(ClassEvent).Seq, s.Stamp(ClassRecord).Seq; a != 2 || b != 1 {
		t.Errorf("next numbers %d, %d, want 2, 1", a, b)
	}
	if _, err := NewStamper("x", 1, fakeClock{}); !errors.Is(err, ErrTopic) {
		t.Errorf("bad device: %v", err)
	}
}
