package order

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

// withCollector adds a collector's key to the world.
func withCollector(t *testing.T) (w *world, sign func(Ack) Envelope) {
	t.Helper()
	w = newWorld(t)
	key := newKey(t)
	w.trust.Keys = append(w.trust.Keys, TrustKey{"col-1", RoleCollector, public(key)})
	return w, func(a Ack) Envelope { return must(a.Sign(key)) }
}

func goodAck() Ack {
	return Ack{V: 1, Tenant: "lab", Device: testDevice, Version: 1, Points: []transport.Point{
		{Class: transport.ClassRecord, Epoch: 3, Seq: 17},
		{Class: transport.ClassRecord, Epoch: 4, Seq: 1},
		{Class: transport.ClassEvent, Epoch: 4, Seq: 1 << 63},
	}}
}

func TestAckOfACollectorIsTaken(t *testing.T) {
	w, sign := withCollector(t)
	a := w.enrolled()
	for _, a := range []*Authority{a, w.authority()} {
		got, err := a.OpenAck(sign(goodAck()))
		if diff := cmp.Diff(goodAck(), got); err != nil || diff != "" {
			t.Errorf("opened (%v) (-want +got):\n%s", err, diff)
		}
	}
	most := Ack{V: 1, Tenant: strings.Repeat("t", 32), Device: strings.Repeat("D", 23), Version: 1<<64 - 1}
	for i := range uint64(MaxPoints) {
		most.Points = append(most.Points, transport.Point{Class: transport.ClassRecord, Epoch: 1<<64 - 1 - i, Seq: 1<<64 - 1})
	}
	env := sign(most)
	if len(env.Payload) > maxAck/2 {
		t.Errorf("the largest takes %d bytes of %d", len(env.Payload), maxAck)
	}
	if _, err := a.OpenAck(env); reasonOf(err) != ReasonWrongTenant {
		t.Errorf("the largest, of another tenant: %v", err)
	}
	most.Points = append(most.Points, transport.Point{Class: transport.ClassEvent, Epoch: 1, Seq: 1})
	if err := most.Validate(); err == nil {
		t.Errorf("%d points are valid", len(most.Points))
	}
}

func TestAckRefusals(t *testing.T) {
	w, sign := withCollector(t)
	a := w.enrolled()
	change := func(f func(*Ack)) Envelope {
		ack := goodAck()
		f(&ack)
		return sign(ack)
	}
	good := sign(goodAck())
	raw := func(payload string) Envelope {
		key := newKey(t)
		env := must(Sign(TypeAck, []byte(payload), key))
		w.trust.Keys = append(w.trust.Keys, TrustKey{"col", RoleCollector, public(key)})
		return env
	}
	cases := map[string]struct {
		env  Envelope
		want Reason
	}{
		"nothing":             {Envelope{}, ReasonUnsigned},
		"unsigned":            {Envelope{PayloadType: TypeAck, Payload: good.Payload}, ReasonUnsigned},
		"another type":        {Envelope{TypeConfig, good.Payload, good.Signatures}, ReasonMalformed},
		"by the operator":     {must(goodAck().Sign(w.operator)), ReasonUnknownKey},
		"by the NOC":          {must(goodAck().Sign(w.noc)), ReasonUnknownKey},
		"by the time key":     {must(goodAck().Sign(w.timeKey)), ReasonUnknownKey},
		"by a technician":     {must(goodAck().Sign(w.technician)), ReasonUnknownKey},
		"by the root":         {must(goodAck().Sign(w.root)), ReasonUnknownKey},
		"of another device":   {change(func(a *Ack) { a.Device = "HWTC00000000" }), ReasonWrongDevice},
		"of another tenant":   {change(func(a *Ack) { a.Tenant = "other" }), ReasonWrongTenant},
		"too long":            {raw(strings.Repeat(" ", maxAck)), ReasonTooLarge},
		"telemetry":           {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"telemetry","epoch":1,"seq":1}]}`), ReasonMalformed},
		"no seq":              {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","epoch":1}]}`), ReasonMalformed},
		"no epoch":            {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","seq":1}]}`), ReasonMalformed},
		"no version":          {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","points":[{"class":"record","epoch":1,"seq":1}]}`), ReasonMalformed},
		"no points":           {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[]}`), ReasonMalformed},
		"another v":           {raw(`{"v":2,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","epoch":1,"seq":1}]}`), ReasonMalformed},
		"class twice":         {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","epoch":1,"seq":1},{"class":"record","epoch":1,"seq":2}]}`), ReasonMalformed},
		"unknown field":       {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"all":true,"points":[{"class":"record","epoch":1,"seq":1}]}`), ReasonMalformed},
		"negative":            {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","epoch":-1,"seq":1}]}`), ReasonMalformed},
		"another's signature": {Envelope{TypeAck, good.Payload, change(func(a *Ack) { a.Version = 2 }).Signatures}, ReasonBadSignature},
	}
	if err := a.AdoptTrust(w.newTrust(func(*TrustList) {})); err != nil { // the keys of raw
		t.Fatal(err)
	}
	for name, tc := range cases {
		if _, err := a.OpenAck(tc.env); reasonOf(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	if _, err := a.OpenAck(good); err != nil {
		t.Error(err)
	}
	flip(t, good, func(env Envelope) error {
		_, err := a.OpenAck(env)
		return err
	})

	err := a.AdoptTrust(w.newTrust(func(l *TrustList) { l.RevokedKeys = []string{good.Signatures[0].KeyID} }))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*Authority{a, w.authority()} {
		if _, err := a.OpenAck(good); reasonOf(err) != ReasonRevoked {
			t.Errorf("by a revoked key: %v", err)
		}
	}
	if _, err := newWorld(t).authority().OpenAck(good); reasonOf(err) != ReasonUnknownKey {
		t.Errorf("without a trust list: %v", err)
	}
}

// TestAckAndConfigTravelAs is the contract with those who make them.
func TestAckAndConfigTravelAs(t *testing.T) {
	c := Config{V: 1, Tenant: "lab", Version: 4, Settings: Settings{new(uint32(0)), new(uint32(120)), new(uint32(60)), new(uint32(4096))}}
	for want, doc := range map[string]any{
		`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","epoch":3,"seq":17},` +
			`{"class":"record","epoch":4,"seq":1},{"class":"event","epoch":4,"seq":9223372036854775808}]}`: goodAck(),
		`{"v":1,"tenant":"lab","device":"","version":4,"settings":{"spread_s":0,"backoff_cap_s":120,"keepalive_s":60,"backfill_bytes_per_s":4096}}`: c,
	} {
		if got := must(json.Marshal(doc)); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
