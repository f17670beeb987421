package diagnosis_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
)

// happenings reads lines such as "12 pon state operational > los" or "12
// link:lan1 carrier up > down"; "-" is the empty value, "_" a space.
func happenings(t *testing.T, lines ...string) []diagnosis.Happening {
	t.Helper()
	var out []diagnosis.Happening
	for _, line := range lines {
		var at float64
		var group, name, before, after string
		if _, err := fmt.Sscanf(line, "%f %s %s %s > %s", &at, &group, &name, &before, &after); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		value := func(s string) string { return strings.ReplaceAll(strings.TrimPrefix(s, "-!"), "_", " ") }
		if before == "-" {
			before = ""
		}
		if after == "-" {
			after = ""
		}
		g, subject, _ := strings.Cut(group, ":")
		h := diagnosis.Happening{At: time.Duration(at * float64(time.Second)), Group: g, Subject: subject, Name: name, Before: before, After: after}
		if strings.HasSuffix(after, "dBm") || g == "wan" {
			h.Before, h.After = value(before), value(after)
		}
		out = append(out, h)
	}
	return out
}

func TestFromHappenings(t *testing.T) {
	for _, tt := range []struct {
		name         string
		lines        []string
		causes       []string // code, kind, side
		consequences []string
	}{
		{name: "nothing"},
		{
			name:  "what telemetry tells but means nothing",
			lines: []string{"1 link:lan1 mtu 1500 > 1400", "2 optics module none > FINISAR", "3 agent restart a > b", "4 pon state unknown > operational"},
		},
		{
			name: "light fell, registration lost, session lost: in the order telemetry sees them",
			lines: []string{
				"100 link:pppoe-wan presence present > absent", "100.1 wan:pppoe-wan address 100.64.3.2/32 > -", "100.2 wan:pppoe-wan default_route dev_pppoe-wan_metric_0 > -",
				"130 pon state operational > los", "150 optics rx_power_status ok > no_light", "190 pon alarm_los clear > active",
			},
			causes:       []string{"optical.no_light fault drop"},
			consequences: []string{"pon.los by optical.no_light", "dial.dropped by optical.no_light", "addr.no_default_route by optical.no_light"},
		},
		{
			name: "light fell step by step",
			lines: []string{
				"10 optics rx_power -18.00_dBm > -23.00_dBm", "10 optics rx_baseline near > fallen", "120 optics rx_level normal > low",
				"130 optics rx_power -23.00_dBm > -28.00_dBm", "200 pon state operational > popup", "205 pon state popup > los",
			},
			causes:       []string{"optical.rx_too_weak fault drop"},
			consequences: []string{"optical.baseline_drop by optical.rx_too_weak", "pon.los by optical.rx_too_weak"},
		},
		{
			name:         "light fell, still within the norm, and registration is lost",
			lines:        []string{"10 optics rx_power -18.00_dBm > -24.00_dBm", "60 pon state operational > searching"},
			causes:       []string{"optical.baseline_drop fault drop"},
			consequences: []string{"pon.not_provisioned_sn by optical.baseline_drop"},
		},
		{
			name:         "registration lost, light unchanged: the OLT's side",
			lines:        []string{"60 pon state operational > searching", "61 wan:wan address 192.0.2.7/24 > -"},
			causes:       []string{"pon.not_provisioned_sn fault olt"},
			consequences: []string{"addr.none by pon.not_provisioned_sn"},
		},
		{
			name:   "address lost, registration intact: the BRAS's side",
			lines:  []string{"61 wan:wan address 192.0.2.7/24 > -", "61 wan:wan default_route via_192.0.2.1_dev_wan_metric_0 > -"},
			causes: []string{"addr.none fault bras_aaa"}, consequences: []string{"addr.no_default_route by addr.none"},
		},
		{
			name:   "session lost, registration intact: the BRAS's side",
			lines:  []string{"61 link:pppoe-wan presence present > absent", "61 wan:pppoe-wan address 192.0.2.7/32 > -"},
			causes: []string{"dial.dropped fault bras_aaa"},
		},
		{
			name: "the session was dialled anew",
			lines: []string{
				"61 link:pppoe-wan presence present > absent", "61 wan:pppoe-wan address 192.0.2.7/32 > -", "71 link:pppoe-wan presence absent > present", "71 wan:pppoe-wan address - > 192.0.2.8/32",
			},
			causes: []string{"dial.dropped warning bras_aaa"},
		},
		{
			name: "power: dying gasp, then silence",
			lines: []string{
				"100 pon alarm_dying_gasp clear > active", "100.4 pon state operational > los", "100.5 link:lan1 carrier up > down",
			},
			causes:       []string{"pon.dying_gasp fault customer"},
			consequences: []string{"pon.los by pon.dying_gasp"},
		},
		{
			name:   "all came back: a past fault",
			lines:  []string{"100 optics rx_power_status ok > no_light", "130 pon state operational > los", "160 optics rx_power_status no_light > ok", "190 pon state los > operational"},
			causes: []string{"optical.no_light warning drop"}, consequences: []string{"pon.popup by optical.no_light"},
		},
		{
			name: "light came back long ago, the session never did",
			lines: []string{
				"100 optics rx_power_status ok > no_light", "101 wan:wan address 192.0.2.7/24 > -", "160 optics rx_power_status no_light > ok", "900 link:lan1 carrier down > up",
			},
			causes: []string{"addr.none fault bras_aaa", "optical.no_light warning drop"},
		},
		{
			name:   "a computer that is switched off is no fault",
			lines:  []string{"100 link:lan1 carrier up > down", "100 link:lan1 oper_state up > down"},
			causes: nil,
		},
		{
			name: "a LAN link that flaps, and an independent light",
			lines: []string{
				"1 link:lan1 carrier up > down", "2 link:lan1 carrier down > up", "11 link:lan1 carrier up > down", "12 link:lan1 carrier down > up",
				"21 link:lan1 carrier up > down", "22 link:lan1 carrier down > up", "30 optics rx_level normal > high",
			},
			causes: []string{"optical.rx_overload fault odn", "lan.unsteady warning customer"},
		},
		{
			name: "light that comes and goes",
			lines: []string{
				"1 optics rx_power -18.00_dBm > -24.00_dBm", "100 optics rx_power -24.00_dBm > -18.10_dBm", "200 optics rx_power -18.00_dBm > -24.00_dBm",
				"300 optics rx_power -24.00_dBm > -18.10_dBm", "400 optics rx_power -18.00_dBm > -24.00_dBm", "500 optics rx_power -24.00_dBm > -18.10_dBm",
			},
			causes: []string{"optical.unsteady warning drop"},
		},
		{
			name:  "a rise alone is none",
			lines: []string{"1 optics rx_power -24.00_dBm > -18.00_dBm", "2 optics rx_baseline near > risen"},
		},
		{
			name:   "it was dark when the list begins",
			lines:  []string{"60 optics rx_power_status no_light > ok"},
			causes: []string{"optical.no_light warning drop"},
		},
		{
			name:   "registered at last: nothing is provisioned before",
			lines:  []string{"60 pon state searching > operational", "120 pon omci_provisioned no > yes"},
			causes: []string{"pon.popup warning olt"}, consequences: []string{"pon.fake_o5 by pon.popup"},
		},
		{
			name:   "registered and never provisioned",
			lines:  []string{"60 pon omci_provisioned unknown > no"},
			causes: []string{"pon.fake_o5 fault olt"},
		},
		{
			name:   "registration comes and goes with steady light: the OLT's side first",
			lines:  []string{"60 pon state operational > serial", "70 pon state serial > operational"},
			causes: []string{"pon.popup warning olt"},
		},
		{
			name:   "a lease that changes is no fault",
			lines:  []string{"60 wan:wan address 192.0.2.7/24 > -", "60.01 wan:wan address - > 192.0.2.8/24"},
			causes: nil,
		},
		{
			name:   "the port to the network goes, nobody knows why",
			lines:  []string{"60 link:eth1 carrier up > down", "60.01 wan:eth1.100 address 192.0.2.7/24 > -"},
			causes: []string{"unknown fault unknown"}, consequences: []string{"addr.none by unknown"},
		},
		{
			name:   "errors that were counted, and a session that was lost with them",
			lines:  []string{"60 pon bip 12 > 99999", "90 pon state operational > popup", "91 link:lan1 rx_crc_errors 0 > 7", "91 link:wan rx_crc_errors 0 > 7"},
			causes: []string{"optical.bit_errors fault drop", "lan.crc_errors warning customer"}, consequences: []string{"pon.popup by optical.bit_errors"},
		},
		{
			name:   "a reading that is broken",
			lines:  []string{"60 optics rx_power_status ok > untrusted"},
			causes: []string{"optical.read_broken unclear device"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := happenings(t, tt.lines...)
			d := diagnosis.FromHappenings(h)
			var causes, consequences []string
			for _, c := range d.Causes {
				causes = append(causes, fmt.Sprintf("%s %s %s", c.Code, c.Kind, c.Side))
				if c.Confidence < 0 || c.Confidence > 1 || len(c.For) == 0 {
					t.Errorf("%+v", c)
				}
			}
			for _, c := range d.Consequences {
				consequences = append(consequences, fmt.Sprintf("%s by %s", c.Code, c.By))
			}
			if diff := cmp.Diff(tt.causes, causes); diff != "" {
				t.Errorf("causes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.consequences, consequences); diff != "" {
				t.Errorf("consequences (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFromHappeningsSaysHowLong(t *testing.T) {
	d := diagnosis.FromHappenings(happenings(t, "100 optics rx_power_status ok > no_light", "160 optics rx_power_status no_light > ok",
		"300 optics rx_power_status ok > no_light", "330.5 optics rx_power_status no_light > ok"))
	first, _ := d.First()
	for _, want := range []diagnosis.Ref{
		{Rung: "optics", What: "rx_power_status", Value: "ok → no_light"},
		{Rung: "optics", What: "times", Value: "2"},
		{Rung: "optics", What: "lasted_s", Value: "90.5"},
	} {
		if !slices.Contains(first.For, want) {
			t.Errorf("%v is not in %v", want, first.For)
		}
	}
}

// TestFromHappeningsInAnyOrder gives a thousand happenings in any order.
func TestFromHappeningsInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	groups := [][3]string{
		{"optics", "rx_power_status", "ok no_light untrusted"},
		{"optics", "rx_level", "normal low high"},
		{"optics", "rx_baseline", "near fallen"},
		{"pon", "state", "operational los serial ranging popup stopped"},
		{"pon", "alarm_los", "clear active"},
		{"pon", "omci_provisioned", "yes no"},
		{"link", "carrier", "up down"},
		{"wan", "address", "192.0.2.1/24 "},
		{"wan", "default_route", "dev_wan "},
		{"x", "y", "z"},
	}
	for range rounds(20) {
		var h []diagnosis.Happening
		for i := range 1000 {
			g := groups[r.IntN(len(groups))]
			values := strings.Split(g[2], " ")
			h = append(h, diagnosis.Happening{
				At: time.Duration(i) * time.Second, Group: g[0], Name: g[1], Subject: []string{"", "wan", "lan1", "pppoe-wan"}[r.IntN(4)],
				Before: values[r.IntN(len(values))], After: values[r.IntN(len(values))],
			})
		}
		want := diagnosis.FromHappenings(h)
		r.Shuffle(len(h), func(i, j int) { h[i], h[j] = h[j], h[i] })
		if diff := cmp.Diff(want, diagnosis.FromHappenings(h), cmp.AllowUnexported(diagnosis.Ranked{})); diff != "" {
			t.Fatal(diff)
		}
	}
}

func FuzzFromHappenings(f *testing.F) {
	f.Add("optics\x00rx_power_status\x00\x00ok\x00no_light\x00pon\x00state\x00\x00operational\x00los", int64(1e9))
	f.Add("wan\x00address\x00wan\x00192.0.2.1/24\x00", int64(-1))
	f.Fuzz(func(t *testing.T, text string, step int64) {
		words := strings.Split(text, "\x00")
		var h []diagnosis.Happening
		for i := 0; i+4 < len(words); i += 5 {
			h = append(h, diagnosis.Happening{
				At: time.Duration(int64(i) * step), Group: words[i], Name: words[i+1], Subject: words[i+2], Before: words[i+3], After: words[i+4],
			})
		}
		d := diagnosis.FromHappenings(h)
		sane(t, d)
		if diff := cmp.Diff(d, diagnosis.FromHappenings(h), cmp.AllowUnexported(diagnosis.Ranked{})); diff != "" {
			t.Error(diff)
		}
	})
}

// sane holds for any diagnosis.
func sane(t *testing.T, d diagnosis.Diagnosis) {
	t.Helper()
	seen := map[diagnosis.Code]bool{}
	for _, c := range d.Causes {
		if math.IsNaN(c.Confidence) || c.Confidence < 0 || c.Confidence > 1 {
			t.Errorf("confidence of %s is %v", c.Code, c.Confidence)
		}
		if _, ok := diagnosis.Lookup(c.Code); !ok || seen[c.Code] {
			t.Errorf("%s is there twice, or in no catalogue", c.Code)
		}
		seen[c.Code] = true
	}
	for _, c := range d.Consequences {
		if !seen[c.By] {
			t.Errorf("%s of %s is put down to %q, which is no cause", c.Code, c.Rung, c.By)
		}
	}
}

func BenchmarkFromHappenings(b *testing.B) {
	var h []diagnosis.Happening
	for i := range 1000 {
		h = append(h, diagnosis.Happening{
			At: time.Duration(i) * time.Second, Group: "link", Name: "carrier", Subject: fmt.Sprintf("lan%d", i%60),
			Before: []string{"up", "down"}[i/60%2], After: []string{"down", "up"}[i/60%2],
		})
	}
	for b.Loop() {
		diagnosis.FromHappenings(h)
	}
}
