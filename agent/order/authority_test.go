package order

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// world is an operator, its keys, and one gateway.
type world struct {
	t          *testing.T
	root       ed25519.PrivateKey
	operator   ed25519.PrivateKey
	technician ed25519.PrivateKey
	noc        ed25519.PrivateKey
	timeKey    ed25519.PrivateKey
	boxPrivate [32]byte
	boxPublic  X25519Key
	trust      TrustList
	clock      *fakeClock
	mono       time.Time
	store      *memStore
	counter    uint64
}

type fakeClock struct {
	now     time.Time
	trusted bool
	floor   time.Time
	raised  []time.Time
}

func (c *fakeClock) Now() (time.Time, bool) { return c.now, c.trusted }
func (c *fakeClock) Floor() time.Time       { return c.floor }
func (c *fakeClock) Raise(t time.Time) error {
	c.raised = append(c.raised, t)
	c.floor = t
	return nil
}

type memStore struct {
	data []byte
	fail error
}

func (m *memStore) Load() ([]byte, error) { return m.data, nil }

func (m *memStore) Save(data []byte) error {
	if m.fail != nil {
		return m.fail
	}
	m.data = bytes.Clone(data)
	return nil
}

const testDevice = "HWTC12345678"

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) PublicKey {
	pub, _ := key.Public().(ed25519.PublicKey)
	return PublicKey(pub)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, root: newKey(t), operator: newKey(t), technician: newKey(t), noc: newKey(t), timeKey: newKey(t),
		clock: &fakeClock{now: testNow, trusted: true}, store: &memStore{}, mono: time.Unix(0, 0),
	}
	box, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	copy(w.boxPrivate[:], box.Bytes())
	copy(w.boxPublic[:], box.PublicKey().Bytes())
	w.trust = TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []TrustKey{
		{"op-1", RoleOperator, public(w.operator)},
		{"noc-1", RoleNOC, public(w.noc)},
		{"time-1", RoleTime, public(w.timeKey)},
	}}
	return w
}

func (w *world) authority(change ...func(*Options)) *Authority {
	w.t.Helper()
	o := Options{
		Root: ed25519.PublicKey(public(w.root)), Tenant: "lab", Device: testDevice, Store: w.store, Clock: w.clock,
		X25519: w.boxPublic, Private: w.boxPrivate,
		KnownRung:      func(s string) bool { return s == "optical" },
		KnownThreshold: func(s string) bool { return s == "optical.rx_min_dbm" },
		Monotonic:      func() time.Time { return w.mono },
	}
	for _, c := range change {
		c(&o)
	}
	a, err := OpenAuthority(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) order() Order {
	return Order{
		V: 1, Order: "WO-1", Rev: 1, Type: Repair, Tenant: "lab", Device: testDevice,
		Technicians: []Technician{{"T-7", public(w.technician)}},
		Require:     []string{"optical"},
		Thresholds:  map[string]float64{"optical.rx_min_dbm": -24},
		Allow:       []CommandType{Accept, Diagnose, Close},
		NotBefore:   testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour), MaxRuns: 2,
	}
}

func (w *world) command() Command {
	w.counter++
	return Command{
		V: 1, ID: fmt.Sprintf("cmd-%d", w.counter), Order: "WO-1", Rev: 1, Device: testDevice,
		Type: Accept, Counter: w.counter,
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// request signs everything with the right keys.
func (w *world) request(o Order, c Command) Request {
	w.t.Helper()
	trust := must(w.trust.Sign(w.root))
	return w.parse(Request{V: 1, Trust: &trust, Order: new(must(o.Sign(w.operator))), Command: new(must(c.Sign(w.technician)))})
}

// parse sends a request through its encoding.
func (w *world) parse(r Request) Request {
	w.t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	parsed, err := ParseRequest(data)
	if err != nil {
		w.t.Fatal(err)
	}
	return parsed
}

func run(a *Authority, r Request) (Grant, error) {
	v, err := a.Verify(r)
	if err != nil {
		return Grant{}, err
	}
	return a.Admit(v, begin)
}

func begin() error { return nil }

func reasonOf(err error) Reason {
	if r, ok := errors.AsType[*RefusalError](err); ok {
		return r.Reason
	}
	if err != nil {
		return Reason(fmt.Sprintf("%T", err))
	}
	return ""
}

func TestRightRequestIsGranted(t *testing.T) {
	w := newWorld(t)
	o := w.order()
	o.Sealed = must(Secrets{Account: "ad1234@isp", Password: "hunter2"}.Seal(w.boxPublic))
	g, err := run(w.authority(), w.request(o, w.command()))
	if err != nil {
		t.Fatal(err)
	}
	if g.Technician.ID != "T-7" || g.Order.Order != "WO-1" || g.Secrets.Password != "hunter2" || g.ClockProof != "clock" {
		t.Errorf("grant = %+v", g)
	}
}

func TestRefusals(t *testing.T) {
	stranger := newKey(t)
	for name, tc := range map[string]struct {
		want    Reason
		request func(w *world) Request
	}{
		"order for another device": {ReasonWrongDevice, func(w *world) Request {
			o, c := w.order(), w.command()
			o.Device, c.Device = "HWTC99999999", "HWTC99999999"
			return w.request(o, c)
		}},
		"command for another device": {ReasonWrongDevice, func(w *world) Request {
			c := w.command()
			c.Device = "HWTC99999999"
			return w.request(w.order(), c)
		}},
		"another tenant": {ReasonWrongTenant, func(w *world) Request {
			o := w.order()
			o.Tenant = "other"
			return w.request(o, w.command())
		}},
		"order signed by a stranger": {ReasonUnknownKey, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Order = new(must(w.order().Sign(stranger)))
			return w.parse(r)
		}},
		"order signed by a time key": {ReasonUnknownKey, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Order = new(must(w.order().Sign(w.timeKey)))
			return w.parse(r)
		}},
		"command signed by a stranger": {ReasonUnknownKey, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Command = new(must(w.command().Sign(stranger)))
			return w.parse(r)
		}},
		"command signed by the operator": {ReasonUnknownKey, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Command = new(must(w.command().Sign(w.operator)))
			return w.parse(r)
		}},
		"altered order": {ReasonBadSignature, func(w *world) Request {
			r := w.request(w.order(), w.command())
			o := w.order()
			o.MaxRuns = 99
			r.Order.Payload = must(o.Sign(w.operator)).Payload
			return w.parse(r)
		}},
		"altered command": {ReasonBadSignature, func(w *world) Request {
			r := w.request(w.order(), w.command())
			c := w.command()
			c.Type = Close
			r.Command.Payload = must(c.Sign(w.technician)).Payload
			return w.parse(r)
		}},
		"command envelope in place of the order": {ReasonMalformed, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Order = r.Command
			return w.parse(r)
		}},
		"expired": {ReasonExpired, func(w *world) Request {
			w.clock.now = testNow.Add(time.Hour + time.Second)
			return w.request(w.order(), w.command())
		}},
		"not yet valid": {ReasonNotYetValid, func(w *world) Request {
			w.clock.now = testNow.Add(-2 * time.Hour)
			return w.request(w.order(), w.command())
		}},
		"unknown action": {ReasonUnknownAction, func(w *world) Request {
			c := w.command()
			c.Type = "reboot"
			return w.request(w.order(), c)
		}},
		"action the order does not list": {ReasonActionNotAllowed, func(w *world) Request {
			c := w.command()
			c.Type = Provision
			return w.request(w.order(), c)
		}},
		"no order at all": {ReasonActionNotAllowed, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Order = nil
			return w.parse(r)
		}},
		"command for another order": {ReasonMalformed, func(w *world) Request {
			c := w.command()
			c.Order = "WO-2"
			return w.request(w.order(), c)
		}},
		"command for another revision": {ReasonMalformed, func(w *world) Request {
			c := w.command()
			c.Rev = 2
			return w.request(w.order(), c)
		}},
		"unknown rung": {ReasonMalformed, func(w *world) Request {
			o := w.order()
			o.Require = []string{"wifi"}
			return w.request(o, w.command())
		}},
		"unknown threshold": {ReasonMalformed, func(w *world) Request {
			o := w.order()
			o.Thresholds = map[string]float64{"optical.rx_min": -40}
			return w.request(o, w.command())
		}},
		"revoked order": {ReasonOrderRevoked, func(w *world) Request {
			w.trust.RevokedOrders = []string{"WO-1"}
			return w.request(w.order(), w.command())
		}},
		"revoked operator key": {ReasonRevoked, func(w *world) Request {
			w.trust.RevokedKeys = []string{public(w.operator).ID()}
			return w.request(w.order(), w.command())
		}},
		"revoked technician key": {ReasonRevoked, func(w *world) Request {
			w.trust.RevokedKeys = []string{public(w.technician).ID()}
			return w.request(w.order(), w.command())
		}},
		"trust list by another root": {ReasonUntrustedRoot, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Trust = new(must(w.trust.Sign(stranger)))
			return w.parse(r)
		}},
		"trust list of another tenant": {ReasonWrongTenant, func(w *world) Request {
			w.trust.Tenant = "other"
			return w.request(w.order(), w.command())
		}},
		"no trust list known": {ReasonUnknownKey, func(w *world) Request {
			r := w.request(w.order(), w.command())
			r.Trust = nil
			return w.parse(r)
		}},
		"secrets for another device": {ReasonSecrets, func(w *world) Request {
			o := w.order()
			o.Sealed = must(Secrets{LOID: "x"}.Seal(X25519Key(public(stranger))))
			return w.request(o, w.command())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.authority()
			_, err := run(a, tc.request(w))
			if got := reasonOf(err); got != tc.want {
				t.Fatalf("refused as %q (%v), want %q", got, err, tc.want)
			}
			if len(a.state.Counters) != 0 || len(a.state.Orders) != 0 {
				t.Errorf("a refused request used something up: %+v", a.state)
			}
		})
	}
}

func TestReplayIsRefusedAlsoAfterRestart(t *testing.T) {
	w := newWorld(t)
	r := w.request(w.order(), w.command())
	if _, err := run(w.authority(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := run(w.authority(), r); reasonOf(err) != ReasonReplayed {
		t.Errorf("second time: %v, want replayed", err)
	}
}

func TestRunsAreCountedOverRestartsAndRevisions(t *testing.T) {
	w := newWorld(t)
	for i := range 2 {
		if _, err := run(w.authority(), w.request(w.order(), w.command())); err != nil {
			t.Fatalf("run %d: %v", i+1, err)
		}
	}
	o, c := w.order(), w.command()
	o.Rev, c.Rev = 2, 2
	if _, err := run(w.authority(), w.request(o, c)); reasonOf(err) != ReasonRunsUsedUp {
		t.Errorf("third run: %v, want runs_used_up", err)
	}
	diagnose := w.command()
	diagnose.Type = Diagnose
	if _, err := run(w.authority(), w.request(w.order(), diagnose)); err != nil {
		t.Errorf("diagnose needs no run: %v", err)
	}
}

func TestLowerRevisionAndClosedOrderAreRefused(t *testing.T) {
	w := newWorld(t)
	o, c := w.order(), w.command()
	o.Rev, c.Rev = 3, 3
	if _, err := run(w.authority(), w.request(o, c)); err != nil {
		t.Fatal(err)
	}
	if _, err := run(w.authority(), w.request(w.order(), w.command())); reasonOf(err) != ReasonOrderSuperseded {
		t.Errorf("rev 1 after 3: %v", err)
	}
	if err := w.authority().CloseOrder("WO-1"); err != nil {
		t.Fatal(err)
	}
	c = w.command()
	o.Rev, c.Rev = 4, 4
	a := w.authority()
	if _, err := run(a, w.request(o, c)); reasonOf(err) != ReasonOrderClosed {
		t.Errorf("after close: %v", err)
	}
	if a.OrderOpen() {
		t.Error("a closed order counts as open")
	}
}

func TestTrustListNeverGoesBack(t *testing.T) {
	w := newWorld(t)
	v1 := must(w.trust.Sign(w.root))
	w.trust.Version = 2
	v2 := must(w.trust.Sign(w.root))
	w.trust.Keys = append(w.trust.Keys, TrustKey{"op-2", RoleOperator, public(newKey(t))})
	other2 := must(w.trust.Sign(w.root))
	if err := w.authority().AdoptTrust(v2); err != nil {
		t.Fatal(err)
	}
	a := w.authority()
	if err := a.AdoptTrust(v1); reasonOf(err) != ReasonTrustOutdated {
		t.Errorf("older list: %v", err)
	}
	if err := a.AdoptTrust(other2); reasonOf(err) != ReasonTrustOutdated {
		t.Errorf("another list of the same version: %v", err)
	}
	if err := a.AdoptTrust(v2); err != nil {
		t.Errorf("the same list again: %v", err)
	}
}

func TestUntrustedClockIsChallenged(t *testing.T) {
	w := newWorld(t)
	w.clock.trusted, w.clock.now = false, time.Unix(0, 0)
	a := w.authority()
	c := w.command()
	_, err := run(a, w.request(w.order(), c))
	var challenge *ChallengeError
	if !errors.As(err, &challenge) {
		t.Fatalf("got %v, want a challenge", err)
	}
	answer := func(nonce string, ts TimeStatement, key ed25519.PrivateKey) Request {
		again := c
		again.Nonce = nonce
		r := w.request(w.order(), again)
		r.Time = new(must(ts.Sign(key)))
		return w.parse(r)
	}
	good := TimeStatement{Device: testDevice, Nonce: challenge.Nonce, UTC: testNow}

	if _, err := run(a, answer(challenge.Nonce, good, w.noc)); reasonOf(err) != ReasonUnknownKey {
		t.Errorf("time signed by a NOC key: %v", err)
	}
	other := good
	other.Device = "HWTC99999999"
	if _, err := run(a, answer(challenge.Nonce, other, w.timeKey)); reasonOf(err) != ReasonClockUntrusted {
		t.Errorf("time for another device: %v", err)
	}
	forged := good
	forged.Nonce = "00000000000000000000000000000000"
	if _, err := run(a, answer(forged.Nonce, forged, w.timeKey)); !errors.As(err, &challenge) {
		t.Errorf("nonce that was never issued: %v, want a new challenge", err)
	}
	good.Nonce = challenge.Nonce
	late := good
	late.UTC = testNow.Add(2 * time.Hour)
	if _, err := run(a, answer(good.Nonce, late, w.timeKey)); reasonOf(err) != ReasonExpired {
		t.Errorf("signed time after the order: %v", err)
	}

	w.clock.floor = time.Time{}
	if _, err = run(a, w.request(w.order(), c)); !errors.As(err, &challenge) {
		t.Fatalf("got %v, want a challenge", err)
	}
	good.Nonce = challenge.Nonce
	g, err := run(a, answer(good.Nonce, good, w.timeKey))
	if err != nil || g.ClockProof != "signed_time" {
		t.Fatalf("right answer: %v", err)
	}
	if len(w.clock.raised) == 0 || !w.clock.raised[len(w.clock.raised)-1].Equal(testNow) {
		t.Errorf("clock floor was raised to %v", w.clock.raised)
	}
	c = w.command()
	if _, err := run(a, answer(good.Nonce, good, w.timeKey)); !errors.As(err, &challenge) {
		t.Errorf("a used nonce: %v, want a new challenge", err)
	}
}

func TestChallengeIsForgottenAndBounded(t *testing.T) {
	w := newWorld(t)
	w.clock.trusted = false
	a := w.authority()
	var challenge *ChallengeError
	c := w.command()
	if _, err := run(a, w.request(w.order(), c)); !errors.As(err, &challenge) {
		t.Fatal(err)
	}
	nonce := challenge.Nonce
	w.mono = w.mono.Add(challengeLife + time.Second)
	c.Nonce = nonce
	r := w.request(w.order(), c)
	r.Time = new(must(TimeStatement{Device: testDevice, Nonce: nonce, UTC: testNow}.Sign(w.timeKey)))
	if _, err := run(a, w.parse(r)); !errors.As(err, &challenge) {
		t.Errorf("late answer: %v, want a new challenge", err)
	}
	first := challenge.Nonce
	for range 100 { // anybody who has seen it can send it again
		if _, err := run(a, w.request(w.order(), c)); !errors.As(err, &challenge) || challenge.Nonce != first {
			t.Fatalf("the same command again: %v, want the same challenge", err)
		}
	}
	for range 100 { // one technician with many commands takes nobody's room
		if _, err := run(a, w.request(w.order(), w.command())); !errors.As(err, &challenge) {
			t.Fatalf("another command: %v", err)
		}
	}
	if len(a.challenges) > maxPerKey {
		t.Errorf("one key holds %d challenges", len(a.challenges))
	}
	var last error
	for range maxChallenges {
		w.technician = newKey(t)
		_, last = run(a, w.request(w.order(), w.command()))
	}
	if reasonOf(last) != ReasonBusy || len(a.challenges) > maxChallenges {
		t.Errorf("endless challenges: %v, %d open", last, len(a.challenges))
	}
}

func TestFloorAloneProvesExpiry(t *testing.T) {
	w := newWorld(t)
	w.clock.trusted, w.clock.floor = false, testNow.Add(2*time.Hour)
	if _, err := run(w.authority(), w.request(w.order(), w.command())); reasonOf(err) != ReasonExpired {
		t.Errorf("got %v, want expired", err)
	}
}

func TestNOCDiagnosisOnlyWhereOpened(t *testing.T) {
	w := newWorld(t)
	trust := must(w.trust.Sign(w.root))
	c := w.command()
	c.Order, c.Rev, c.Type = "", 0, Diagnose
	r := w.parse(Request{V: 1, Trust: &trust, Command: new(must(c.Sign(w.noc)))})
	if _, err := run(w.authority(), r); reasonOf(err) != ReasonActionNotAllowed {
		t.Errorf("closed: %v", err)
	}
	open := func(o *Options) { o.NOCDiagnose = true }
	if g, err := run(w.authority(open), r); err != nil || g.Technician.ID != "noc-1" {
		t.Errorf("open: %v", err)
	}
	c = w.command()
	c.Order, c.Rev = "", 0
	r = w.parse(Request{V: 1, Command: new(must(c.Sign(w.noc)))})
	if _, err := run(w.authority(open), r); reasonOf(err) != ReasonActionNotAllowed {
		t.Errorf("accept without an order: %v", err)
	}
}

func TestNothingIsGrantedThatCannotBeKept(t *testing.T) {
	w := newWorld(t)
	a := w.authority()
	r := w.request(w.order(), w.command())
	v, err := a.Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	w.store.fail = errors.New("no space left on device")
	if _, err := a.Admit(v, begin); reasonOf(err) != ReasonInternal {
		t.Fatalf("got %v, want internal", err)
	}
	w.store.fail = nil
	if _, err := a.Admit(v, begin); err != nil {
		t.Errorf("after the disk recovered: %v", err)
	}
}

func TestDamagedStateIsNotTakenForNone(t *testing.T) {
	w := newWorld(t)
	w.store.data = []byte(`{"v":1,"orders":{"WO-1":{"rev":`)
	_, err := OpenAuthority(Options{Root: ed25519.PublicKey(public(w.root)), Store: w.store, Clock: w.clock})
	if err == nil {
		t.Fatal("opened with a damaged state: replays could not be told")
	}
}

func TestRequestBadInput(t *testing.T) {
	w := newWorld(t)
	good := must(json.Marshal(w.request(w.order(), w.command())))
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"empty":             {nil, ErrMalformed},
		"not an object":     {[]byte(`[]`), ErrMalformed},
		"no command":        {[]byte(`{"v":1}`), ErrMalformed},
		"unknown field":     {bytes.Replace(good, []byte(`{"v":1,`), []byte(`{"v":1,"shell":"reboot",`), 1), ErrMalformed},
		"field twice":       {bytes.Replace(good, []byte(`{"v":1,`), []byte(`{"v":1,"v":1,`), 1), ErrMalformed},
		"trailing data":     {append(bytes.Clone(good), "{}"...), ErrMalformed},
		"not UTF-8":         {[]byte("{\"v\":1,\"\xff\xfe\":2}"), ErrMalformed},
		"oversized":         {append(bytes.Clone(good), bytes.Repeat([]byte(" "), MaxRequest)...), ErrTooLarge},
		"deeply nested":     {[]byte(strings.Repeat(`{"a":`, 5000)), ErrMalformed},
		"unsigned command":  {[]byte(`{"v":1,"command":{"payloadType":"t","payload":"e30=","signatures":[]}}`), ErrUnsigned},
		"newline in base64": {[]byte(`{"v":1,"command":{"payloadType":"t","payload":"e3\n0=","signatures":[{"keyid":"","sig":""}]}}`), ErrMalformed},
		"two signatures":    {[]byte(`{"v":1,"command":{"payloadType":"t","payload":"e30=","signatures":[{},{}]}}`), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseRequest(tc.data); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	for n := range good {
		if _, err := ParseRequest(good[:n]); err == nil {
			t.Fatalf("accepted after %d of %d bytes", n, len(good))
		}
	}
}

func TestAnyFlippedBitIsRefused(t *testing.T) {
	w := newWorld(t)
	good := must(json.Marshal(w.request(w.order(), w.command())))
	accepted, step := 0, 3
	switch {
	case os.Getenv("LONG") == "1":
		step = 1
	case testing.Short():
		step = 37 // an emulated processor takes minutes for more
	}
	for i := 0; i < len(good); i += step {
		for bit := range 8 {
			data := bytes.Clone(good)
			data[i] ^= 1 << bit
			req, err := ParseRequest(data)
			if err != nil {
				continue
			}
			w.store = &memStore{}
			if _, err := run(w.authority(), req); err == nil {
				accepted++
				t.Errorf("byte %d bit %d flipped: still granted", i, bit)
			}
		}
	}
	if accepted > 0 {
		t.Errorf("%d alterations were granted", accepted)
	}
}

func TestOrderValidation(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Order){
		"account in full":    func(o *Order) { o.Services = []Service{{Kind: "internet", Account: "ad1234@isp"}} },
		"no technician":      func(o *Order) { o.Technicians = nil },
		"nothing allowed":    func(o *Order) { o.Allow = nil },
		"no runs":            func(o *Order) { o.MaxRuns = 0 },
		"path in id":         func(o *Order) { o.Order = "../../etc/passwd" },
		"topic in id":        func(o *Order) { o.Order = "a/b" },
		"ends before begin":  func(o *Order) { o.NotAfter = o.NotBefore },
		"unknown consent":    func(o *Order) { o.Consents = []string{"everything"} },
		"unknown service":    func(o *Order) { o.Services = []Service{{Kind: "wifi"}} },
		"vlan out of range":  func(o *Order) { o.Services = []Service{{Kind: "internet", VLAN: 4095}} },
		"unknown rate layer": func(o *Order) { o.Services = []Service{{Kind: "internet", RateLayer: "wifi"}} },
	} {
		t.Run(name, func(t *testing.T) {
			o := w.order()
			change(&o)
			if _, err := o.Sign(w.operator); err == nil {
				t.Error("signed")
			}
		})
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	s := Secrets{Account: "ad1234@isp", Password: "hunter2", LOID: "loid-9"}
	for _, out := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %d", s, s, s, s, s, s),
		fmt.Sprintf("%+v", Grant{Verified: Verified{Secrets: s}}),
	} {
		for _, secret := range []string{"hunter2", "ad1234", "loid-9"} {
			if strings.Contains(out, secret) {
				t.Errorf("printed a secret in %q", out)
			}
		}
	}
}

func TestMaskAccount(t *testing.T) {
	for in, want := range map[string]string{
		"ad12345678@163.gd": "ad*****@163.gd", "": "", "a": "*****", "ab@x": "a*****@x", "plain1": "pl*****",
	} {
		if got := MaskAccount(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestStatementRoundTrip(t *testing.T) {
	w := newWorld(t)
	s := Statement{V: 1, Device: testDevice, Ed25519: public(newKey(t)), X25519: w.boxPublic, TLSSPKI: strings.Repeat("ab", 32)}
	env := must(s.Sign(w.operator))
	got, err := OpenStatement(env, w.trust)
	if err != nil || got.TLSSPKI != s.TLSSPKI || got.X25519 != s.X25519 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := OpenStatement(must(s.Sign(w.technician)), w.trust); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("statement by a technician: %v", err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"v":1,"command":{"payloadType":"t","payload":"e30=","signatures":[{"keyid":"a","sig":"b"}]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := ParseRequest(data)
		if err == nil && (req.Command == nil || len(req.Command.Signatures) != 1) {
			t.Fatal("accepted without a signed command")
		}
	})
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"v":1,"orders":{},"counters":{}}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseState(data) })
}

func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"v":1,"order":"WO-1","rev":1,"type":"install","services":[{"kind":"internet"}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if o, err := ParseOrder(data); err == nil {
			_ = o.Validate()
		}
	})
}
