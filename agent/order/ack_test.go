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
	return Ack{
		V: 1, Tenant: "lab", Device: testDevice, Version: 1,
		Points: []transport.Point{{Class: transport.ClassEvent, Epoch: 3, Seq: 17}, {Class: transport.ClassEvent, Epoch: 4, Seq: 1 << 63}},
		Stored: []transport.Stored{stored(3, 17), stored(4, 1)},
	}
}

func stored(epoch, seq uint64) transport.Stored {
	return transport.Stored{Class: transport.ClassRecord, Epoch: epoch, Seq: seq, SHA256: strings.Repeat("0123456789abcdef", 4)}
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
		most.Points = append(most.Points, transport.Point{Class: transport.ClassEvent, Epoch: 1<<64 - 1 - i, Seq: 1<<64 - 1})
	}
	for i := range uint64(MaxStored) {
		most.Stored = append(most.Stored, stored(1<<64-1, 1<<64-1-i))
	}
	env := sign(most)
	if len(env.Payload) > maxAck*9/10 {
		t.Errorf("the largest takes %d bytes of %d", len(env.Payload), maxAck)
	}
	if _, err := a.OpenAck(env); reasonOf(err) != ReasonWrongTenant {
		t.Errorf("the largest, of another tenant: %v", err)
	}
	more := most
	more.Points = append(more.Points, transport.Point{Class: transport.ClassEvent, Epoch: 1, Seq: 1})
	if err := more.Validate(); err == nil {
		t.Errorf("%d points are valid", len(more.Points))
	}
	more = most
	more.Stored = append(more.Stored, stored(1, 1))
	if err := more.Validate(); err == nil {
		t.Errorf("%d stored are valid", len(more.Stored))
	}
	for name, ack := range map[string]Ack{
		"events alone":  {V: 1, Tenant: "lab", Device: testDevice, Version: 1, Points: goodAck().Points},
		"records alone": {V: 1, Tenant: "lab", Device: testDevice, Version: 1, Stored: goodAck().Stored},
	} {
		got, err := a.OpenAck(sign(ack))
		if diff := cmp.Diff(ack, got); err != nil || diff != "" {
			t.Errorf("%s: opened (%v) (-want +got):\n%s", name, err, diff)
		}
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
	type refusal struct {
		env  Envelope
		want Reason
	}
	cases := map[string]refusal{
		"nothing":              {Envelope{}, ReasonUnsigned},
		"unsigned":             {Envelope{PayloadType: TypeAck, Payload: good.Payload}, ReasonUnsigned},
		"another type":         {Envelope{TypeConfig, good.Payload, good.Signatures}, ReasonMalformed},
		"by the operator":      {must(goodAck().Sign(w.operator)), ReasonUnknownKey},
		"by the NOC":           {must(goodAck().Sign(w.noc)), ReasonUnknownKey},
		"by the time key":      {must(goodAck().Sign(w.timeKey)), ReasonUnknownKey},
		"by a technician":      {must(goodAck().Sign(w.technician)), ReasonUnknownKey},
		"by the root":          {must(goodAck().Sign(w.root)), ReasonUnknownKey},
		"of another device":    {change(func(a *Ack) { a.Device = "HWTC00000000" }), ReasonWrongDevice},
		"of another tenant":    {change(func(a *Ack) { a.Tenant = "other" }), ReasonWrongTenant},
		"too long":             {raw(strings.Repeat(" ", maxAck)), ReasonTooLarge},
		"telemetry":            {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"telemetry","epoch":1,"seq":1}]}`), ReasonMalformed},
		"records by a point":   {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"record","epoch":1,"seq":1}]}`), ReasonMalformed},
		"no seq":               {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":1}]}`), ReasonMalformed},
		"no epoch":             {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","seq":1}]}`), ReasonMalformed},
		"no version":           {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","points":[{"class":"event","epoch":1,"seq":1}]}`), ReasonMalformed},
		"nothing in it":        {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[]}`), ReasonMalformed},
		"nothing in it at all": {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[],"stored":[]}`), ReasonMalformed},
		"another v":            {raw(`{"v":2,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":1,"seq":1}]}`), ReasonMalformed},
		"epoch twice":          {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":1,"seq":1},{"class":"event","epoch":1,"seq":2}]}`), ReasonMalformed},
		"unknown field":        {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"all":true,"points":[{"class":"event","epoch":1,"seq":1}]}`), ReasonMalformed},
		"negative":             {raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":-1,"seq":1}]}`), ReasonMalformed},
		"another's signature":  {Envelope{TypeAck, good.Payload, change(func(a *Ack) { a.Version = 2 }).Signatures}, ReasonBadSignature},
	}
	digest := strings.Repeat("0123456789abcdef", 4)
	for name, stored := range map[string]string{
		"an event":         `{"class":"event","epoch":1,"seq":1,"sha256":"` + digest + `"}`,
		"no seq":           `{"class":"record","epoch":1,"sha256":"` + digest + `"}`,
		"no epoch":         `{"class":"record","seq":1,"sha256":"` + digest + `"}`,
		"no digest":        `{"class":"record","epoch":1,"seq":1}`,
		"short digest":     `{"class":"record","epoch":1,"seq":1,"sha256":"` + digest[2:] + `"}`,
		"long digest":      `{"class":"record","epoch":1,"seq":1,"sha256":"` + digest + `00"}`,
		"no hex":           `{"class":"record","epoch":1,"seq":1,"sha256":"` + digest[1:] + `g"}`,
		"capital hex":      `{"class":"record","epoch":1,"seq":1,"sha256":"` + strings.ToUpper(digest) + `"}`,
		"twice":            `{"class":"record","epoch":1,"seq":1,"sha256":"` + digest + `"},{"class":"record","epoch":1,"seq":1,"sha256":"` + digest + `"}`,
		"twice, otherwise": `{"class":"record","epoch":1,"seq":1,"sha256":"` + digest + `"},{"class":"record","epoch":1,"seq":1,"sha256":"` + strings.Repeat("0", 64) + `"}`,
		"unknown field":    `{"class":"record","epoch":1,"seq":1,"sha256":"` + digest + `","md5":""}`,
	} {
		cases["stored: "+name] = refusal{
			raw(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":1,"seq":1}],"stored":[` + stored + `]}`),
			ReasonMalformed,
		}
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
		`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":3,"seq":17},` +
			`{"class":"event","epoch":4,"seq":9223372036854775808}],"stored":[` +
			`{"class":"record","epoch":3,"seq":17,"sha256":"` + stored(1, 1).SHA256 + `"},` +
			`{"class":"record","epoch":4,"seq":1,"sha256":"` + stored(1, 1).SHA256 + `"}]}`: goodAck(),
		`{"v":1,"tenant":"lab","device":"","version":4,"settings":{"spread_s":0,"backoff_cap_s":120,"keepalive_s":60,"backfill_bytes_per_s":4096}}`: c,
	} {
		if got := must(json.Marshal(doc)); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
