package order

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func config(version uint64, spread uint32) Config {
	return Config{V: 1, Tenant: "lab", Device: testDevice, Version: version, Settings: Settings{SpreadS: new(spread)}}
}

// enrolled is an authority with the world's trust list.
func (w *world) enrolled() *Authority {
	w.t.Helper()
	a := w.authority()
	if err := a.AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// newTrust signs the next version of the trust list after a change.
func (w *world) newTrust(change func(*TrustList)) Envelope {
	w.trust.Version++
	change(&w.trust)
	return must(w.trust.Sign(w.root))
}

// holds checks what is set; spread 0 means nothing.
func holds(t *testing.T, a *Authority, version uint64, spread uint32) {
	t.Helper()
	s, v, ok := a.Config()
	if v != version || ok != (spread != 0) {
		t.Errorf("config is version %d (in force: %v), want %d (%v)", v, ok, version, spread != 0)
	}
	if got := s.Spread(0); got != time.Duration(spread)*time.Second {
		t.Errorf("spread is %v, want %d s", got, spread)
	}
}

func TestConfigIsKeptAndNeverGoesBack(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	holds(t, a, 0, 0)
	v2 := must(config(2, 60).Sign(w.noc))
	s, err := a.AdoptConfig(v2)
	if err != nil || s.Spread(0) != time.Minute || s.BackoffCap(7) != 7 || s.Keepalive(8) != 8 || s.BackfillBytesPerSecond(9) != 9 {
		t.Fatalf("adopted %+v, %v", s, err)
	}
	for range 2 {
		holds(t, a, 2, 60)
		saved := bytes.Clone(w.store.data)
		for name, tc := range map[string]struct {
			env  Envelope
			want Reason
		}{
			"the same":                  {v2, ""},
			"the same by another key":   {must(config(2, 60).Sign(w.operator)), ""},
			"another of the same":       {must(config(2, 61).Sign(w.noc)), ReasonConfigOutdated},
			"older":                     {must(config(1, 5).Sign(w.noc)), ReasonConfigOutdated},
			"older, for all":            {must(Config{V: 1, Tenant: "lab", Version: 1}.Sign(w.operator)), ReasonConfigOutdated},
			"same version, for all":     {must(Config{V: 1, Tenant: "lab", Version: 2, Settings: Settings{SpreadS: new(uint32(60))}}.Sign(w.noc)), ReasonConfigOutdated},
			"newer, another gateway's":  {must(Config{V: 1, Tenant: "lab", Device: "HWTC00000000", Version: 3}.Sign(w.noc)), ReasonWrongDevice},
			"newer, another tenant's":   {must(Config{V: 1, Tenant: "other", Version: 3}.Sign(w.noc)), ReasonWrongTenant},
			"newer, by a technician":    {must(config(3, 5).Sign(w.technician)), ReasonUnknownKey},
			"newer, by the time key":    {must(config(3, 5).Sign(w.timeKey)), ReasonUnknownKey},
			"newer, by the root itself": {must(config(3, 5).Sign(w.root)), ReasonUnknownKey},
		} {
			if _, err := a.AdoptConfig(tc.env); reasonOf(err) != tc.want {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
		}
		holds(t, a, 2, 60)
		if !bytes.Equal(saved, w.store.data) {
			t.Error("what changed nothing was written to flash")
		}
		a = w.authority() // a restart forgets nothing
	}
	if _, err := a.AdoptConfig(must(Config{V: 1, Tenant: "lab", Version: 3, Settings: Settings{SpreadS: new(uint32(9))}}.Sign(w.operator))); err != nil {
		t.Fatal(err)
	}
	holds(t, w.authority(), 3, 9)
}

func TestConfigOfARevokedKeyEndsButItsVersionStays(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	ten := must(config(10, 60).Sign(w.noc))
	if _, err := a.AdoptConfig(ten); err != nil {
		t.Fatal(err)
	}
	if err := a.AdoptMessage(w.newTrust(func(l *TrustList) { l.RevokedKeys = []string{public(w.noc).ID()} })); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		holds(t, a, 10, 0)
		if _, err := a.AdoptConfig(ten); reasonOf(err) != ReasonRevoked {
			t.Errorf("config of a revoked key: %v", err)
		}
		if _, err := a.AdoptConfig(must(config(11, 5).Sign(w.noc))); reasonOf(err) != ReasonRevoked {
			t.Errorf("newer config of a revoked key: %v", err)
		}
		if _, err := a.AdoptConfig(must(config(9, 5).Sign(w.operator))); reasonOf(err) != ReasonConfigOutdated {
			t.Errorf("older config by another key: %v", err)
		}
		if _, err := a.AdoptConfig(must(config(10, 5).Sign(w.operator))); reasonOf(err) != ReasonConfigOutdated {
			t.Errorf("another config of the same version by another key: %v", err)
		}
		a = w.authority()
	}
	// The same words by a key that is trusted hold again.
	if _, err := a.AdoptConfig(must(config(10, 60).Sign(w.operator))); err != nil {
		t.Fatal(err)
	}
	holds(t, w.authority(), 10, 60)
}

func TestConfigBringsTheTrustListThatNamesItsKey(t *testing.T) {
	w := newWorld(t)
	noc2 := newKey(t)
	older := must(w.trust.Sign(w.root))
	newer := w.newTrust(func(l *TrustList) { l.Keys = append(l.Keys, TrustKey{"noc-2", RoleNOC, public(noc2)}) })
	bring := func(version uint64, env Envelope) Config {
		c := config(version, uint32(version))
		c.Trust = &env
		return c
	}

	a := w.authority() // knows nothing but the root
	if _, err := a.AdoptConfig(must(config(1, 1).Sign(noc2))); reasonOf(err) != ReasonUnknownKey {
		t.Errorf("config before any trust list: %v", err)
	}
	if err := a.AdoptMessage(must(bring(1, newer).Sign(noc2))); err != nil {
		t.Fatal(err)
	}
	holds(t, a, 1, 1)
	// A list that is not newer spoils nothing, and changes nothing.
	for i, env := range []Envelope{newer, older} {
		v := uint64(i + 2)
		if err := a.AdoptMessage(must(bring(v, env).Sign(noc2))); err != nil {
			t.Errorf("config with list %d: %v", i, err)
		}
		holds(t, a, v, uint32(v))
	}
	if list, _, _ := a.Trust(); list.Version != 2 {
		t.Errorf("trust list went back to %d", list.Version)
	}
	// One that is not the root's, or another tenant's, does.
	forged := must(w.trust.Sign(w.operator))
	if _, err := a.AdoptConfig(must(bring(9, forged).Sign(noc2))); reasonOf(err) != ReasonUntrustedRoot {
		t.Errorf("config with a forged list: %v", err)
	}
	other := w.trust
	other.Tenant, other.Version = "other", 99
	if _, err := a.AdoptConfig(must(bring(9, must(other.Sign(w.root))).Sign(noc2))); reasonOf(err) != ReasonWrongTenant {
		t.Errorf("config with another tenant's list: %v", err)
	}
	// A list that revokes the config's own key counts first.
	revoking := w.newTrust(func(l *TrustList) { l.RevokedKeys = []string{public(noc2).ID()} })
	if _, err := a.AdoptConfig(must(bring(9, revoking).Sign(noc2))); reasonOf(err) != ReasonRevoked {
		t.Errorf("config whose own list revokes its key: %v", err)
	}
	holds(t, a, 3, 0)
	holds(t, w.authority(), 3, 0)
}

func TestConfigThatCannotBeKeptIsNotInForce(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	if _, err := a.AdoptConfig(must(config(1, 60).Sign(w.noc))); err != nil {
		t.Fatal(err)
	}
	w.store.fail = errors.New("disk full")
	if _, err := a.AdoptConfig(must(config(2, 5).Sign(w.noc))); reasonOf(err) != ReasonInternal {
		t.Errorf("config on a full disk: %v", err)
	}
	holds(t, a, 1, 60)
	w.store.fail = nil
	if _, err := a.AdoptConfig(must(config(2, 5).Sign(w.noc))); err != nil {
		t.Fatal(err)
	}
	holds(t, a, 2, 5)
}

func TestConfigOfAnotherLifeSaysNothing(t *testing.T) {
	w := newWorld(t)
	if _, err := w.enrolled().AdoptConfig(must(config(7, 60).Sign(w.noc))); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"device": func(o *Options) { o.Device = "HWTC00000000" },
		"tenant": func(o *Options) { o.Tenant = "other" },
		"root":   func(o *Options) { o.Root = ed25519.PublicKey(public(newKey(t))) },
	} {
		t.Run(name, func(t *testing.T) { holds(t, w.authority(change), 0, 0) })
	}
	holds(t, w.authority(), 7, 60)
}

func TestConfigRanges(t *testing.T) {
	u := func(v uint32) *uint32 { return &v }
	for name, tc := range map[string]struct {
		s  Settings
		ok bool
	}{
		"nothing":         {Settings{}, true},
		"least":           {Settings{u(0), u(1), u(10), u(256)}, true},
		"most":            {Settings{u(3600), u(21600), u(64800), u(10 << 20)}, true},
		"spread":          {Settings{SpreadS: u(3601)}, false},
		"backoff 0":       {Settings{BackoffCapS: u(0)}, false},
		"backoff":         {Settings{BackoffCapS: u(21601)}, false},
		"keepalive 9":     {Settings{KeepaliveS: u(9)}, false},
		"keepalive":       {Settings{KeepaliveS: u(64801)}, false},
		"backfill little": {Settings{BackfillBytesPerS: u(255)}, false},
		"backfill":        {Settings{BackfillBytesPerS: u(10<<20 + 1)}, false},
	} {
		c := config(1, 0)
		c.Settings = tc.s
		if err := c.Validate(); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Config){
		"v":          func(c *Config) { c.V = 2 },
		"no version": func(c *Config) { c.Version = 0 },
		"tenant":     func(c *Config) { c.Tenant = "a/b" },
		"device":     func(c *Config) { c.Device = "a/b" },
		"trust": func(c *Config) {
			c.Trust = &Envelope{PayloadType: TypeTrustList, Payload: "e30="}
		},
		"trust of another type": func(c *Config) {
			env := must(Sign(TypeOrder, []byte("{}"), newKey(t)))
			c.Trust = &env
		},
	} {
		c := config(1, 0)
		change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: valid", name)
		}
	}
}

// TestConfigBadInput: what a hostile broker can put on the topic. What is
// signed here is signed with the right key, so that only its form can save us.
func TestConfigBadInput(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	good := must(config(1, 60).Sign(w.noc))
	raw := func(payload string) Envelope { return must(Sign(TypeConfig, []byte(payload), w.noc)) }
	for name, tc := range map[string]struct {
		env  Envelope
		want Reason
	}{
		"nothing":               {Envelope{}, ReasonUnsigned},
		"no signature":          {Envelope{PayloadType: TypeConfig, Payload: good.Payload}, ReasonUnsigned},
		"two signatures":        {Envelope{TypeConfig, good.Payload, append(good.Signatures, good.Signatures...)}, ReasonMalformed},
		"another type":          {Envelope{TypeAck, good.Payload, good.Signatures}, ReasonMalformed},
		"signed as an order":    {must(Sign(TypeOrder, must(json.Marshal(config(1, 60))), w.noc)), ReasonMalformed},
		"too long":              {raw(`{"v":1,"tenant":"lab","version":1,"x":"` + strings.Repeat("a", maxConfig) + `"}`), ReasonTooLarge},
		"unknown field":         {raw(`{"v":1,"tenant":"lab","device":"","version":1,"settings":{"shell":"sh"}}`), ReasonMalformed},
		"field twice":           {raw(`{"v":1,"tenant":"lab","device":"","version":1,"version":2,"settings":{}}`), ReasonMalformed},
		"wrong case":            {raw(`{"v":1,"tenant":"lab","device":"","Version":1,"settings":{}}`), ReasonMalformed},
		"out of range":          {raw(`{"v":1,"tenant":"lab","device":"","version":1,"settings":{"spread_s":86400}}`), ReasonMalformed},
		"negative":              {raw(`{"v":1,"tenant":"lab","device":"","version":1,"settings":{"spread_s":-1}}`), ReasonMalformed},
		"fraction":              {raw(`{"v":1,"tenant":"lab","device":"","version":1,"settings":{"spread_s":1.5}}`), ReasonMalformed},
		"version out of range":  {raw(`{"v":1,"tenant":"lab","device":"","version":18446744073709551616,"settings":{}}`), ReasonMalformed},
		"trailing":              {raw(`{"v":1,"tenant":"lab","device":"","version":1,"settings":{}} {}`), ReasonMalformed},
		"no JSON":               {raw("\x00\xff"), ReasonMalformed},
		"unsigned trust inside": {raw(`{"v":1,"tenant":"lab","device":"","version":1,"settings":{},"trust":{"payloadType":"t","payload":"e30=","signatures":[]}}`), ReasonMalformed},
	} {
		if _, err := a.AdoptConfig(tc.env); reasonOf(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	holds(t, a, 0, 0)
	if err := a.AdoptMessage(must(Sign(TypeAck, []byte("{}"), w.root))); reasonOf(err) != ReasonMalformed {
		t.Errorf("an acknowledgement as cfg message: %v", err)
	}
}

// flip calls try with every bit of an encoded envelope flipped in turn.
func flip(t *testing.T, env Envelope, try func(Envelope) error) {
	t.Helper()
	data := must(json.Marshal(env))
	step := 1
	if testing.Short() {
		step = 61 // bits; all eight of a byte come up in turn
	}
	for i := 0; i < len(data)*8; i += step {
		bad := bytes.Clone(data)
		bad[i/8] ^= 1 << (i % 8)
		altered, err := ParseEnvelope(bad)
		if err != nil || reflect.DeepEqual(altered, env) {
			continue
		}
		if err := try(altered); err == nil {
			t.Fatalf("bit %d of byte %d flipped, and taken: %s", i%8, i/8, bad)
		} else if reasonOf(err) == ReasonInternal {
			t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
		}
	}
}

func TestConfigWithAnyFlippedBitIsRefused(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	flip(t, must(config(3, 60).Sign(w.noc)), func(env Envelope) error { return a.AdoptMessage(env) })
	holds(t, a, 0, 0)
}

func FuzzAdoptConfig(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	pub := PublicKey(key[32:])
	list := TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []TrustKey{{"noc", RoleNOC, pub}, {"col", RoleCollector, pub}}}
	trust := must(list.Sign(key))
	c := config(1, 60)
	c.Trust = &trust
	f.Add(must(json.Marshal(c)))
	f.Add([]byte(`{"v":1,"tenant":"lab","device":"","version":2,"settings":{"keepalive_s":10}}`))
	f.Add([]byte(`{"v":1,"tenant":"lab","device":"HWTC12345678","version":1,"points":[{"class":"event","epoch":1,"seq":1}]}`))
	f.Add(must(json.Marshal(goodAck())))
	f.Fuzz(func(t *testing.T, payload []byte) {
		// Any bytes, rightly signed: form and bounds are what is left.
		store := &memStore{}
		open := func() *Authority {
			return must(OpenAuthority(Options{Root: ed25519.PublicKey(pub), Tenant: "lab", Device: testDevice, Store: store, Clock: &fakeClock{}}))
		}
		a := open()
		if err := a.AdoptTrust(trust); err != nil {
			t.Fatal(err)
		}
		if _, err := a.AdoptConfig(must(Sign(TypeConfig, payload, key))); err == nil {
			s, version, ok := a.Config()
			again, sameVersion, sameOK := open().Config()
			if !ok || !sameOK || version == 0 || version != sameVersion || s.Validate() != nil || !reflect.DeepEqual(s, again) {
				t.Fatalf("took %q as %+v, and after a restart %+v", payload, s, again)
			}
		}
		if ack, err := a.OpenAck(must(Sign(TypeAck, payload, key))); err == nil && ack.Validate() != nil {
			t.Fatalf("took %q", payload)
		}
		env := Envelope{PayloadType: TypeConfig, Payload: base64.StdEncoding.EncodeToString(payload)}
		if _, err := a.AdoptConfig(env); err == nil {
			t.Fatal("took what is unsigned")
		}
	})
}
