package pon_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/pon"
)

// fakeReader returns what its function does.
type fakeReader struct {
	name string
	read func(fresh bool) (pon.Status, error)
}

func (f fakeReader) Name() string { return f.name }

func (f fakeReader) ReadPON(context.Context) (pon.Status, error) { return f.read(false) }

func (f fakeReader) ReadPONFresh(context.Context) (pon.Status, error) { return f.read(true) }

func always(st pon.Status, err error) fakeReader {
	return fakeReader{name: "console:x", read: func(bool) (pon.Status, error) { return st, err }}
}

var errStuck = errors.New("console is stuck")

func TestNormalise(t *testing.T) {
	for raw, want := range map[string]pon.State{
		"O1": pon.StateLOS, "O1.1": pon.StateLOS, "O1.2": pon.StateSearching, "O2": pon.StateSearching,
		"O3": pon.StateSerial, "O2-3": pon.StateSerial, "O2.3": pon.StateSerial, "O4": pon.StateRanging,
		"O5": pon.StateOperational, "O5.1": pon.StateOperational, "O5.2": pon.StateOperational, "o5": pon.StateOperational,
		"O6": pon.StatePopup, "O7": pon.StateStopped, "1": pon.StateSearching, "3": pon.StateOperational,
		"waiting": pon.StateSearching, "Discovery": pon.StateSearching, "REGISTERED": pon.StateOperational, "not registered": pon.StateSearching,
		"wait_for_discovery": pon.StateSearching, "O1.2 ": pon.StateSearching, "O7.2": pon.StateStopped, "O5.3": pon.StateUnknown, "51": pon.StateUnknown,
		"O0": pon.StateUnknown, "O8": pon.StateUnknown, "O9": pon.StateUnknown, "O55": pon.StateUnknown, "2": pon.StateUnknown,
		"Unknown": pon.StateUnknown, "": pon.StateUnknown,
	} {
		if got := pon.Normalise(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestCollectorFields(t *testing.T) {
	st := pon.Status{
		Raw: "O5", Serial: "ONTS00000001", OMCIProvisioned: pon.Yes, OMCIEvidence: "3 GEM ports", GEMPorts: 3, TConts: 2, FlowsKnown: true,
		Alarms: []string{"lof"}, AlarmsKnown: []string{"lof", "los"}, Counters: map[string]uint64{"fec_corrected": 5, "bip": 1 << 40},
	}
	samples, err := pon.New(pon.Options{Readers: []pon.Reader{always(st, nil)}}).Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []collectors.Sample{{Fields: []collectors.Field{
		{Key: "state", Value: "operational"},
		{Key: "state_raw", Value: "O5"},
		{Key: "serial", Value: "ONTS00000001"},
		{Key: "omci_provisioned", Value: "yes"},
		{Key: "omci_evidence", Value: "3 GEM ports"},
		{Key: "in_service", Value: "yes"},
		{Key: "gem_ports", Value: int64(3)},
		{Key: "tconts", Value: int64(2)},
		{Key: "alarms", Value: "lof"},
		{Key: "alarms_known", Value: "lof,los"},
		{Key: "bip", Value: uint64(1 << 40)},
		{Key: "fec_corrected", Value: uint64(5)},
		{Key: "source", Value: "console:x"},
	}}}
	if d := cmp.Diff(want, samples); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// What was not told is not in the sample: no zero, no empty list.
func TestCollectorUnknown(t *testing.T) {
	samples, err := pon.New(pon.Options{Readers: []pon.Reader{always(pon.Status{}, errStuck)}}).Collect(t.Context())
	if !errors.Is(err, errStuck) {
		t.Errorf("error %v", err)
	}
	want := []collectors.Sample{{Fields: []collectors.Field{
		{Key: "state", Value: "unknown"}, {Key: "omci_provisioned", Value: "unknown"}, {Key: "in_service", Value: "unknown"}, {Key: "source", Value: "console:x"},
	}}}
	if d := cmp.Diff(want, samples); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCollectorSources(t *testing.T) {
	absent := always(pon.Status{}, fmt.Errorf("no console: %w", collectors.ErrNoData))
	for name, tt := range map[string]struct {
		readers []pon.Reader
		raw     string
		err     error
	}{
		"none":            {nil, "", collectors.ErrNoData},
		"absent":          {[]pon.Reader{absent}, "", collectors.ErrNoData},
		"second knows":    {[]pon.Reader{always(pon.Status{}, nil), always(pon.Status{Raw: "O5"}, nil)}, "O5", nil},
		"first knows":     {[]pon.Reader{always(pon.Status{Raw: "O4"}, nil), always(pon.Status{Raw: "O5"}, nil)}, "O4", nil},
		"first fails":     {[]pon.Reader{always(pon.Status{}, errStuck), always(pon.Status{Raw: "O5"}, nil)}, "O5", errStuck},
		"absent and good": {[]pon.Reader{absent, always(pon.Status{Raw: "O5"}, nil)}, "O5", nil},
	} {
		st, err := pon.New(pon.Options{Readers: tt.readers}).Read(t.Context())
		if st.Raw != tt.raw || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		if st.State != pon.Normalise(tt.raw) || st.OMCIProvisioned != pon.Unknown || st.At.IsZero() {
			t.Errorf("%s: incomplete %+v", name, st)
		}
	}
}

func TestReadIsFresh(t *testing.T) {
	c := pon.New(pon.Options{Readers: []pon.Reader{fakeReader{name: "a", read: func(fresh bool) (pon.Status, error) {
		if fresh {
			return pon.Status{Raw: "O5"}, nil
		}
		return pon.Status{Raw: "O1"}, nil
	}}}})
	if st, err := c.Read(t.Context()); err != nil || st.Raw != "O5" {
		t.Errorf("got %+v, %v", st, err)
	}
}

// run feeds statuses, 10 s apart, and returns the samples and the events as
// "what: before -> after".
func run(t *testing.T, statuses ...pon.Status) ([]map[string]any, []string) {
	t.Helper()
	var now pon.Status
	clock := time.Unix(1000, 0)
	c := pon.New(pon.Options{
		Readers: []pon.Reader{fakeReader{name: "a", read: func(bool) (pon.Status, error) { return now, nil }}},
		Now:     func() time.Time { return clock },
	})
	var samples []map[string]any
	for _, now = range statuses {
		got, err := c.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f := map[string]any{}
		for _, field := range got[0].Fields {
			f[field.Key] = field.Value
		}
		samples = append(samples, f)
		clock = clock.Add(10 * time.Second)
	}
	var events []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, func(ev collectors.Event) {
			events = append(events, ev.What+": "+ev.Before+" -> "+ev.After)
		})
	}()
	for c.Waiting() > 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
	return samples, events
}

func TestCollectorEvents(t *testing.T) {
	states := func(raw ...string) (out []pon.Status) {
		for _, r := range raw {
			out = append(out, pon.Status{Raw: r})
		}
		return out
	}
	alarm := func(names ...string) pon.Status {
		return pon.Status{Alarms: names, AlarmsKnown: []string{"lof", "los"}}
	}
	loid := func(s string) pon.Status { return pon.Status{LOIDStatus: s} }
	count := func(name string, n uint64) pon.Status { return pon.Status{Counters: map[string]uint64{name: n}} }
	omci := func(a pon.Answer) pon.Status { return pon.Status{OMCIProvisioned: a} }
	tests := []struct {
		name     string
		statuses []pon.Status
		want     []string
	}{
		{"steady", states("O5", "O5", "O5"), nil},
		{"popup at once", states("O5", "O6", "O5"), []string{"state: operational -> popup", "state: popup -> operational"}},
		{"stopped at once", states("O5", "O7"), []string{"state: operational -> stopped"}},
		{"stopped from the start", states("O7", "O7"), []string{"state: unknown -> stopped"}},
		{"not read for a while", states("O5", "", "", "O5"), nil},
		{"lost while not read", states("O5", "", "O1"), []string{"state: operational -> los"}},
		{"coming up", states("O1", "O3", "O5"), []string{"state: los -> serial", "state: serial -> operational"}},
		{"alarm flashes", []pon.Status{alarm(), alarm("lof"), alarm(), alarm(), alarm("lof"), alarm()}, nil},
		{
			"alarm stays",
			[]pon.Status{alarm(), alarm("los"), alarm("los"), alarm(), alarm()},
			[]string{"alarm_los: clear -> active", "alarm_los: active -> clear"},
		},
		{"alarm not known", []pon.Status{alarm("los"), alarm("los"), {}, {}, {}}, []string{"alarm_los: clear -> active"}},
		{"another stick", []pon.Status{{Serial: "ONTS00000001"}, {}, {Serial: "ONTS00000002"}}, []string{"serial: ONTS00000001 -> ONTS00000002"}},
		{"provisioning lost", []pon.Status{omci(pon.Yes), omci(pon.Yes), omci(pon.No), omci(pon.Unknown), omci(pon.No)}, []string{"omci_provisioned: yes -> no"}},
		{"associated, then pending", states("O5.1", "O5.2"), []string{"state_raw: O5.1 -> O5.2"}},
		{"intermittent", states("O5.1", "O6", "O5.1"), []string{"state: operational -> popup", "state: popup -> operational"}},
		{"EPON", states("1", "3", "1"), []string{"state: searching -> operational", "state: operational -> searching"}},
		{
			"operational in name only",
			[]pon.Status{{Raw: "O5", OMCIProvisioned: pon.No}, {Raw: "O5", OMCIProvisioned: pon.No}, {Raw: "O5", OMCIProvisioned: pon.No}},
			[]string{"omci_provisioned: unknown -> no"},
		},
		{"not provisioned yet", []pon.Status{{Raw: "O2", OMCIProvisioned: pon.No}, {Raw: "O2", OMCIProvisioned: pon.No}}, nil},
		{"authentication refused", []pon.Status{loid("init"), loid("init"), loid("rejected"), loid("rejected")}, []string{"loid_status: init -> rejected"}},
		{"authentication flickers", []pon.Status{loid("ok"), loid("ok"), loid("init"), loid("ok")}, nil},
		{"popup between two polls", []pon.Status{count(pon.LODSEvents, 1), count(pon.LODSEvents, 1), count(pon.LODSEvents, 3)}, []string{"lods_events: 1 -> 3"}},
		{"laser stays on", []pon.Status{count(pon.SDTooLong, 0), count(pon.SDTooLong, 1)}, []string{"sd_too_long: 0 -> 1"}},
		{"counters start anew", []pon.Status{count(pon.SDMismatch, 5), count(pon.SDMismatch, 0)}, nil},
		{"provisioning flickers", []pon.Status{omci(pon.Yes), omci(pon.Yes), omci(pon.No), omci(pon.Yes)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, events := run(t, tt.statuses...)
			if d := cmp.Diff(tt.want, events); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestCollectorRates(t *testing.T) {
	at := time.Unix(5000, 0)
	bip := func(n uint64, after time.Duration) pon.Status {
		return pon.Status{Counters: map[string]uint64{pon.BIP: n}, At: at.Add(after)}
	}
	const s = time.Second
	tests := []struct {
		name     string
		statuses []pon.Status
		want     []any // bip_per_s of each
	}{
		{"steady", []pon.Status{bip(100, 0), bip(100, 10*s), bip(150, 20*s)}, []any{nil, 0.0, 5.0}},
		{"reset", []pon.Status{bip(100, 0), bip(200, 10*s), bip(3, 20*s), bip(13, 30*s)}, []any{nil, 10.0, nil, 1.0}},
		{"wrap at 32 bits", []pon.Status{bip(1<<32-10, 0), bip(90, 10*s)}, []any{nil, 10.0}},
		{"above 32 bits", []pon.Status{bip(1<<40, 0), bip(1<<40+50, 10*s)}, []any{nil, 5.0}},
		{"reset from above 32 bits", []pon.Status{bip(1<<40, 0), bip(50, 10*s)}, []any{nil, nil}},
		{"same reading twice", []pon.Status{bip(100, 0), bip(150, 10*s), bip(150, 10*s), bip(160, 20*s)}, []any{nil, 5.0, 5.0, 1.0}},
		{"missed", []pon.Status{bip(100, 0), {}, bip(140, 20*s)}, []any{nil, nil, 2.0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			samples, _ := run(t, tt.statuses...)
			var got []any
			for _, f := range samples {
				got = append(got, f["bip_per_s"])
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestInService(t *testing.T) {
	for st, want := range map[[2]string]pon.Answer{
		{pon.StateOperational, pon.Yes}:     pon.Yes,
		{pon.StateOperational, pon.No}:      pon.No,
		{pon.StateOperational, pon.Unknown}: pon.Unknown,
		{pon.StateRanging, pon.Yes}:         pon.No,
		{pon.StateLOS, pon.Unknown}:         pon.No,
		{pon.StateStopped, pon.Yes}:         pon.No,
		{pon.StateUnknown, pon.Yes}:         pon.Unknown,
	} {
		if got := (&pon.Status{State: st[0], OMCIProvisioned: st[1]}).InService(); got != want {
			t.Errorf("%v: %s, want %s", st, got, want)
		}
	}
}
