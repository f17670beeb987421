package order

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Clock is what the authority needs to know about time.
type Clock interface {
	// Now returns the time and whether it can be relied on.
	Now() (utc time.Time, trusted bool)
	// Floor returns a time that has certainly passed.
	Floor() time.Time
	// Raise takes a trustworthy time; it is kept across restarts as the floor.
	Raise(utc time.Time) error
}

// Store keeps the authority's state. Save returns only when the state is
// durable; Load returns nil if there is none yet.
type Store interface {
	Load() ([]byte, error)
	Save(state []byte) error
}

// Options configure an Authority.
type Options struct {
	Root    ed25519.PublicKey
	Tenant  string
	Device  string
	Store   Store
	Clock   Clock
	X25519  X25519Key // the device's own, to open sealed secrets
	Private [32]byte
	// NOCDiagnose opens read-only diagnosis to NOC keys without an order.
	NOCDiagnose bool
	// KnownRung and KnownThreshold say which names an order may use.
	KnownRung      func(name string) bool
	KnownThreshold func(name string) bool
	// Monotonic measures how long a challenge stays open.
	Monotonic func() time.Time
}

// challengeLife is how long the answer to a challenge is accepted. It also
// bounds how old a signed time can be when it arrives.
const (
	challengeLife = 2 * time.Minute
	maxChallenges = 16 // in all
	maxPerKey     = 4  // of one key; its oldest goes first
)

// maxCarried bounds trust list, order and extract of a visit together, in bytes
// of their payloads' encoding: all travel in the record, whose size is bounded
// too.
const maxCarried = 48 << 10

// Authority is this gateway's judge of requests. It is safe for concurrent use.
type Authority struct {
	o Options

	mu         sync.Mutex
	state      state
	trust      TrustList
	trusted    bool                 // trust holds an accepted list
	challenges map[string]challenge // by nonce
}

// challenge is a question that waits for its answer: by the same key, about the
// same command.
type challenge struct {
	keyID, command string
	issued         time.Time // monotonic
}

// OpenAuthority reads the persisted state. A state that cannot be read is an
// error: without it replays could not be told.
func OpenAuthority(o Options) (*Authority, error) {
	if len(o.Root) != ed25519.PublicKeySize {
		return nil, errors.New("cannot open authority: no root key")
	}
	data, err := o.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("cannot open authority: %w", err)
	}
	st, err := parseState(data)
	if err != nil {
		return nil, fmt.Errorf("cannot open authority: state: %w", err)
	}
	a := &Authority{o: o, state: st, challenges: map[string]challenge{}}
	if st.Trust != nil {
		list, err := OpenTrustList(*st.Trust, o.Root)
		if err != nil && !errors.Is(err, ErrUnknownKey) {
			return nil, fmt.Errorf("cannot open authority: %w", err)
		}
		// ErrUnknownKey: the root key was changed in the configuration. What
		// the old root vouched for counts no more. Nor does another tenant's.
		if err == nil && list.Tenant == o.Tenant {
			a.trust, a.trusted = list, true
		}
	}
	return a, nil
}

// AdoptTrust takes a newer trust list and makes it durable. A list with the
// version in force is accepted only if it is the same list.
func (a *Authority) AdoptTrust(env Envelope) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adoptTrust(env)
}

func (a *Authority) adoptTrust(env Envelope) error {
	list, err := OpenTrustList(env, a.o.Root)
	if err != nil {
		return refuseErr(err, ReasonUntrustedRoot)
	}
	if list.Tenant != a.o.Tenant {
		return refuse(ReasonWrongTenant, "trust list is for tenant %q", list.Tenant)
	}
	if a.trusted {
		switch {
		case list.Version < a.trust.Version:
			return refuse(ReasonTrustOutdated, "trust list version %d is older than %d", list.Version, a.trust.Version)
		case list.Version == a.trust.Version:
			if Digest(env) != Digest(*a.state.Trust) {
				return refuse(ReasonTrustOutdated, "another trust list of version %d is in force", list.Version)
			}
			return nil
		}
	}
	next := a.state.clone()
	next.Trust = &env
	if err := a.save(next); err != nil {
		return err
	}
	a.trust, a.trusted = list, true
	return nil
}

// Trust returns the list in force and its envelope.
func (a *Authority) Trust() (TrustList, Envelope, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.trusted {
		return TrustList{}, Envelope{}, false
	}
	return a.trust, *a.state.Trust, true
}

// Verified is a request whose signatures and meaning hold for this device.
// Nothing has been used up yet.
type Verified struct {
	Order      Order
	Command    Command
	Technician Technician // or the NOC key's name, where there is no order
	Secrets    Secrets
	Extract    *Extract // the AAA's word on the order's account; nil: none came
	Request    Request

	keyID        string
	trustVersion uint64 // of the list it was verified by
}

// KeyID names the key that signed the command.
func (v Verified) KeyID() string { return v.keyID }

// Verify checks everything about a request that needs no freshness, and adopts
// the trust list it may carry. Errors are *RefusalError.
func (a *Authority) Verify(req Request) (Verified, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if req.Trust != nil {
		if err := a.adoptTrust(*req.Trust); err != nil {
			return Verified{}, err
		}
	}
	return a.verify(req)
}

func (a *Authority) verify(req Request) (Verified, error) {
	if !a.trusted {
		return Verified{}, refuse(ReasonUnknownKey, "this device has no trust list yet, and the request brings none")
	}
	if req.Command == nil {
		return Verified{}, refuse(ReasonMalformed, "request carries no command")
	}
	if req.Order == nil {
		return a.verifyNOC(req)
	}
	return a.verifyOrdered(req)
}

func (a *Authority) verifyOrdered(req Request) (Verified, error) {
	order, err := OpenOrder(*req.Order, a.trust)
	if err != nil {
		return Verified{}, a.refuseSigned(*req.Order, err)
	}
	switch {
	case order.Tenant != a.o.Tenant:
		return Verified{}, refuse(ReasonWrongTenant, "order %s is for tenant %q", order.Order, order.Tenant)
	case order.Device != a.o.Device:
		return Verified{}, refuse(ReasonWrongDevice, "order %s is for device %s", order.Order, order.Device)
	case a.trust.OrderRevoked(order.Order):
		return Verified{}, refuse(ReasonOrderRevoked, "order %s is revoked", order.Order)
	case len(a.state.Trust.Payload)+len(req.Order.Payload) > maxCarried:
		return Verified{}, refuse(ReasonTooLarge, "order and trust list are too large together for any record to carry them")
	}
	for _, name := range order.Require {
		if a.o.KnownRung != nil && !a.o.KnownRung(name) {
			return Verified{}, refuse(ReasonMalformed, "order requires an unknown rung %q", name)
		}
	}
	for name := range order.Thresholds {
		if a.o.KnownThreshold != nil && !a.o.KnownThreshold(name) {
			return Verified{}, refuse(ReasonMalformed, "order sets an unknown threshold %q", name)
		}
	}

	cmd, keyID, err := OpenCommand(*req.Command, order.technicianKeys()...)
	if err != nil {
		return Verified{}, refuseErr(err, ReasonUnknownKey)
	}
	technician, _ := order.Technician(keyID)
	switch {
	case a.trust.KeyRevoked(keyID):
		return Verified{}, refuse(ReasonRevoked, "the key of technician %s is revoked", technician.ID)
	case cmd.Device != a.o.Device:
		return Verified{}, refuse(ReasonWrongDevice, "command is for device %s", cmd.Device)
	case cmd.Order != order.Order:
		return Verified{}, refuse(ReasonMalformed, "command is for order %q, not %q", cmd.Order, order.Order)
	case cmd.Rev != order.Rev:
		return Verified{}, refuse(ReasonMalformed, "command is for rev %d of order %s, not %d", cmd.Rev, order.Order, order.Rev)
	case !cmd.Type.Known():
		return Verified{}, refuse(ReasonUnknownAction, "command type %q is not known", cmd.Type)
	case cmd.Type != Cancel && !slices.Contains(order.Allow, cmd.Type):
		// Whoever may start a job may stop it: cancel needs no allowance.
		return Verified{}, refuse(ReasonActionNotAllowed, "order %s does not allow %s", order.Order, cmd.Type)
	}

	v := Verified{Order: order, Command: cmd, Technician: technician, Request: req, keyID: keyID, trustVersion: a.trust.Version}
	if len(order.Sealed) > 0 {
		v.Secrets, err = order.Sealed.Unseal(a.o.X25519, a.o.Private)
		if err != nil {
			return Verified{}, refuse(ReasonSecrets, "%v", err)
		}
	}
	if req.Extract != nil {
		if v.Extract, err = a.verifyExtract(*req.Extract, *req.Order, order); err != nil {
			return Verified{}, err
		}
	}
	return v, nil
}

// verifyExtract opens an AAA extract for an order, which carried holds.
func (a *Authority) verifyExtract(env, carried Envelope, order Order) (*Extract, error) {
	e, err := OpenExtract(env, a.trust)
	switch {
	case err != nil:
		return nil, a.refuseSigned(env, err)
	case e.Order != order.Order || e.Device != order.Device:
		return nil, refuse(ReasonMalformed, "the AAA extract is for order %s of device %s", e.Order, e.Device)
	case len(a.state.Trust.Payload)+len(carried.Payload)+len(env.Payload) > maxCarried:
		return nil, refuse(ReasonTooLarge, "order, trust list and extract are too large together for any record to carry them")
	}
	return &e, nil
}

// refuseSigned says why env is not what a key of the trust list signed.
func (a *Authority) refuseSigned(env Envelope, err error) error {
	if errors.Is(err, ErrUnknownKey) && a.trust.KeyRevoked(env.Signatures[0].KeyID) {
		return refuse(ReasonRevoked, "the key that signed it is revoked: %v", err)
	}
	return refuseErr(err, ReasonUnknownKey)
}

// verifyNOC judges a command without an order: read-only diagnosis by a NOC
// key, where the configuration opens it.
func (a *Authority) verifyNOC(req Request) (Verified, error) {
	if !a.o.NOCDiagnose {
		return Verified{}, refuse(ReasonActionNotAllowed, "no work without a work order")
	}
	cmd, keyID, err := OpenCommand(*req.Command, a.trust.KeysFor(RoleNOC)...)
	if err != nil {
		return Verified{}, refuseErr(err, ReasonUnknownKey)
	}
	switch {
	case cmd.Device != a.o.Device:
		return Verified{}, refuse(ReasonWrongDevice, "command is for device %s", cmd.Device)
	case !cmd.Type.Known():
		return Verified{}, refuse(ReasonUnknownAction, "command type %q is not known", cmd.Type)
	case cmd.Order != "" || cmd.Type != Diagnose:
		return Verified{}, refuse(ReasonActionNotAllowed, "without an order only diagnose is allowed")
	}
	v := Verified{Command: cmd, Request: req, keyID: keyID, trustVersion: a.trust.Version}
	for _, k := range a.trust.Keys {
		if k.Key.ID() == keyID {
			v.Technician = Technician{ID: k.ID, Key: k.Key}
		}
	}
	return v, nil
}

// Grant is leave to carry a command out, once.
type Grant struct {
	Verified
	Trust Envelope
	// ClockProof says what the validity check relied on: "clock" or "signed_time".
	ClockProof string
}

// Admit checks freshness – validity, revision, runs, replay – and makes what it
// uses up durable before it returns. Before that, and only if it would admit, it
// calls begin, which may still refuse: so that what is only refused leaves no
// trace. Errors are begin's, *RefusalError or *ChallengeError.
func (a *Authority) Admit(v Verified, begin func() error) (Grant, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.keyID == "" {
		return Grant{}, refuse(ReasonInternal, "request was not verified")
	}
	if !a.trusted || v.trustVersion != a.trust.Version {
		// Another trust list came in between: what it revokes is revoked.
		again, err := a.verify(v.Request)
		if err != nil {
			return Grant{}, err
		}
		v = again
	}
	next := a.state.clone()
	next.prune(a.passed())
	if err := next.use(v); err != nil {
		return Grant{}, err
	}
	now, proof, err := a.provenTime(v)
	if err != nil {
		return Grant{}, err
	}
	if err := v.validAt(now); err != nil {
		return Grant{}, err
	}
	if err := begin(); err != nil {
		return Grant{}, err
	}
	if err := a.save(next); err != nil {
		return Grant{}, err
	}
	return Grant{Verified: v, Trust: *a.state.Trust, ClockProof: proof}, nil
}

// validAt refuses what is outside its order's validity.
func (v Verified) validAt(now time.Time) error {
	switch {
	case v.Request.Order == nil:
		return nil
	case now.Before(v.Order.NotBefore):
		return refuse(ReasonNotYetValid, "order %s is valid from %s", v.Order.Order, v.Order.NotBefore.UTC().Format(time.RFC3339))
	case now.After(v.Order.NotAfter):
		return refuse(ReasonExpired, "order %s was valid until %s", v.Order.Order, v.Order.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// passed returns the latest time that is known to have passed.
func (a *Authority) passed() time.Time {
	if now, trusted := a.o.Clock.Now(); trusted {
		return now
	}
	return a.o.Clock.Floor()
}

// provenTime returns a time that can be relied on: the gateway's own, or the
// one a time key signed for an open challenge.
func (a *Authority) provenTime(v Verified) (now time.Time, proof string, err error) {
	now, trusted := a.o.Clock.Now()
	if trusted {
		return now, "clock", nil
	}
	if v.Request.Order != nil && a.o.Clock.Floor().After(v.Order.NotAfter) {
		return time.Time{}, "", refuse(ReasonExpired, "order %s was valid until %s, and that has certainly passed",
			v.Order.Order, v.Order.NotAfter.UTC().Format(time.RFC3339))
	}
	if v.Request.Time == nil || v.Command.Nonce == "" {
		return time.Time{}, "", a.challenge(v)
	}
	ts, err := OpenTime(*v.Request.Time, a.trust)
	if err != nil {
		return time.Time{}, "", refuseErr(err, ReasonUnknownKey)
	}
	if ts.Device != a.o.Device || ts.Nonce != v.Command.Nonce {
		return time.Time{}, "", refuse(ReasonClockUntrusted, "the signed time is for another device or challenge")
	}
	asked, open := a.challenges[ts.Nonce]
	if !open || asked.keyID != v.keyID || asked.command != v.Command.ID || a.o.Monotonic().Sub(asked.issued) > challengeLife {
		return time.Time{}, "", a.challenge(v)
	}
	if ts.UTC.Before(a.o.Clock.Floor()) {
		return time.Time{}, "", refuse(ReasonClockUntrusted, "the signed time lies before a time that has certainly passed")
	}
	delete(a.challenges, ts.Nonce)
	if v.Request.Order == nil {
		return ts.UTC, "signed_time", nil // fresh, and no more is asked of it
	}
	// The floor never comes down: a time key in wrong hands must not put it
	// where no order reaches. So it goes no higher than an operator signed for.
	if err := v.validAt(ts.UTC); err != nil {
		return time.Time{}, "", err
	}
	if err := a.o.Clock.Raise(ts.UTC); err != nil {
		return time.Time{}, "", refuse(ReasonInternal, "cannot keep the signed time: %v", err)
	}
	return ts.UTC, "signed_time", nil
}

// challenge asks for the time. A command that is sent again is asked the same
// again, so that repeating one – anybody can who has seen it – neither takes the
// room of others nor makes the right answer a wrong one.
func (a *Authority) challenge(v Verified) error {
	now := a.o.Monotonic()
	mine, oldest := 0, ""
	for nonce, c := range a.challenges {
		switch {
		case now.Sub(c.issued) > challengeLife:
			delete(a.challenges, nonce)
		case c.keyID != v.keyID:
		case c.command == v.Command.ID && now.Sub(c.issued) < challengeLife/2:
			return &ChallengeError{Nonce: nonce}
		default:
			if mine++; oldest == "" || c.issued.Before(a.challenges[oldest].issued) {
				oldest = nonce
			}
		}
	}
	if mine >= maxPerKey {
		delete(a.challenges, oldest)
	}
	if len(a.challenges) >= maxChallenges {
		return refuse(ReasonBusy, "%d challenges are open", len(a.challenges))
	}
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return refuse(ReasonInternal, "cannot make a nonce: %v", err)
	}
	nonce := hex.EncodeToString(raw[:])
	a.challenges[nonce] = challenge{keyID: v.keyID, command: v.Command.ID, issued: now}
	return &ChallengeError{Nonce: nonce}
}

// CloseOrder makes every further command under an order refused.
func (a *Authority) CloseOrder(order string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.state.clone()
	o := next.Orders[order]
	o.Closed = true
	next.Orders[order] = o
	return a.save(next)
}

// OrderOpen reports whether an order that was used here is neither closed nor,
// as far as the clock can tell, expired.
func (a *Authority) OrderOpen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.passed()
	for _, o := range a.state.Orders {
		if !o.Closed && now.Before(o.NotAfter) {
			return true
		}
	}
	return false
}

func (a *Authority) save(next state) error {
	data, err := next.encode()
	if err == nil {
		err = a.o.Store.Save(data)
	}
	if err != nil {
		return refuse(ReasonInternal, "cannot keep authority state: %v", err)
	}
	a.state = next
	return nil
}
