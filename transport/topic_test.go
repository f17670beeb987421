package transport

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTopic(t *testing.T) {
	long := strings.Repeat("x", 65)
	tests := []struct {
		tenant, device string
		kind           Kind
		name           string
		want           string // empty: refused
	}{
		{"isp", "HWTC12345678", KindState, "", "ont/1/isp/HWTC12345678/state"},
		{"isp", "HWTC12345678", KindTelemetry, "link", "ont/1/isp/HWTC12345678/telemetry/link"},
		{"i-s_p", "00AABBCCDDEE", KindCommand, "c-1_A", "ont/1/i-s_p/00AABBCCDDEE/cmd/c-1_A"},
		{"", "HWTC12345678", KindState, "", ""},
		{long, "HWTC12345678", KindState, "", ""},
		{"is/p", "HWTC12345678", KindState, "", ""},
		{"is.p", "HWTC12345678", KindState, "", ""},
		{"+", "HWTC12345678", KindState, "", ""},
		{"isp", "HWTC123", KindState, "", ""},
		{"isp", "HWTC12345678901234567890", KindState, "", ""},
		{"isp", "HWTC-2345678", KindState, "", ""},
		{"isp", "HWTC1234567é", KindState, "", ""},
		{"isp", "HWTC12345678", KindState, "x", ""},
		{"isp", "HWTC12345678", KindTelemetry, "", ""},
		{"isp", "HWTC12345678", KindRecord, "a b", ""},
		{"isp", "HWTC12345678", KindRecord, "$a", ""},
		{"isp", "HWTC12345678", KindRecord, "a#", ""},
		{"isp", "HWTC12345678", KindRecord, long, ""},
		{"isp", "HWTC12345678", "other", "", ""},
		{"isp", "HWTC12345678", "", "", ""},
	}
	for _, tt := range tests {
		got, err := Topic(tt.tenant, tt.device, tt.kind, tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrTopic) {
			t.Errorf("Topic(%.40q, %q, %q, %.40q) = %q, %v, want %q", tt.tenant, tt.device, tt.kind, tt.name, got, err, tt.want)
		}
		if tt.want == "" {
			continue
		}
		a, err := ParseTopic(got)
		if diff := cmp.Diff(Address{tt.tenant, tt.device, tt.kind, tt.name}, a); diff != "" || err != nil {
			t.Errorf("ParseTopic(%q): %v (-want +got):\n%s", got, err, diff)
		}
	}
}

func TestParseTopicRefuses(t *testing.T) {
	for _, topic := range []string{
		"", "/", "ont", "ont/1", "ont/1/", "ont/1/isp", "ont/1/isp/HWTC12345678", "ont/1/isp/HWTC12345678/",
		"ont/1/isp/HWTC12345678/state/", "ont/1/isp/HWTC12345678/state/x", "ont/1/isp/HWTC12345678/cmd",
		"ont/1/isp/HWTC12345678/cmd/", "ont/1/isp/HWTC12345678/cmd/a/b", "ont/1/isp/HWTC12345678/cmd/+",
		"ont/2/isp/HWTC12345678/state", "/ont/1/isp/HWTC12345678/state", "ont/1//HWTC12345678/state",
		"ONT/1/isp/HWTC12345678/state", "ont/1/isp/HWTC12345678/State", "ont/1/isp/HWTC12345678/state\x00",
		"ont/1/isp/HWTC12345678/cmd/" + strings.Repeat("a", 1<<16),
	} {
		if a, err := ParseTopic(topic); !errors.Is(err, ErrTopic) {
			t.Errorf("ParseTopic(%.60q) = %+v, %v", topic, a, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

func TestFilter(t *testing.T) {
	tests := []struct {
		tenant, device string
		kind           Kind
		name, want     string
	}{
		{"isp", "HWTC12345678", KindCommand, "+", "ont/1/isp/HWTC12345678/cmd/+"},
		{"isp", "+", KindStatus, "c1", "ont/1/isp/+/status/c1"},
		{"+", "+", KindState, "+", "ont/1/+/+/state"},
		{"#", "+", KindState, "", ""},
		{"isp", "x", KindState, "", ""},
		{"isp", "+", KindStatus, "", ""},
		{"isp", "+", "+", "", ""},
	}
	for _, tt := range tests {
		got, err := Filter(tt.tenant, tt.device, tt.kind, tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Filter(%q, %q, %q, %q) = %q, %v, want %q", tt.tenant, tt.device, tt.kind, tt.name, got, err, tt.want)
		}
	}
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{
		"ont/1/isp/HWTC12345678/state", "ont/1/isp/HWTC12345678/cmd/c-1", "ont/1/isp/HWTC12345678/telemetry/link",
		"ont/1/a/b/c/d/e", "$SYS/broker", "ont/1/+/#", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		a, err := ParseTopic(topic)
		if err != nil {
			if a != (Address{}) {
				t.Errorf("%+v beside %v", a, err)
			}
			return
		}
		again, err := Topic(a.Tenant, a.Device, a.Kind, a.Name)
		if err != nil || again != topic {
			t.Errorf("%q became %q, %v", topic, again, err)
		}
		if strings.ContainsAny(topic, "+#$. \x00") || strings.Count(topic, "/") > 6 || len(topic) > 160 {
			t.Errorf("accepted %q", topic)
		}
	})
}
