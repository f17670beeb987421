package order

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config is a gateway's remote configuration, signed by an operator or NOC key:
// how it connects, and how fast it sends what had to wait.
type Config struct {
	V      int    `json:"v"`
	Tenant string `json:"tenant"`
	Device string `json:"device"` // empty for all gateways of the tenant
	// Version rises with every Config that a gateway is to obey, whether it is
	// its own or everyone's, from 1.
	Version  uint64   `json:"version"`
	Settings Settings `json:"settings"`
	// Trust is a trust list to be taken first, if it is newer than the one in
	// force: it may bring the key that signed this.
	Trust *Envelope `json:"trust,omitempty"`
}

// Settings are what can be set remotely. What is absent is as the gateway's own
// configuration says: a newer Config replaces the whole older one.
type Settings struct {
	SpreadS           *uint32 `json:"spread_s,omitempty"`             // 0 to 3600: first delay of reconnecting
	BackoffCapS       *uint32 `json:"backoff_cap_s,omitempty"`        // 1 to 21600: longest delay of reconnecting
	KeepaliveS        *uint32 `json:"keepalive_s,omitempty"`          // 10 to 64800
	BackfillBytesPerS *uint32 `json:"backfill_bytes_per_s,omitempty"` // 256 to 10 Mi: pace of what had to wait
}

// maxConfig bounds a Config's payload in its encoding, in bytes: what an
// inbound message can carry.
const maxConfig = MaxRequest

// Validate checks the ranges.
func (s Settings) Validate() error {
	for _, f := range [...]struct {
		name     string
		value    *uint32
		min, max uint32
	}{
		{"spread_s", s.SpreadS, 0, 3600},
		{"backoff_cap_s", s.BackoffCapS, 1, 21600},
		{"keepalive_s", s.KeepaliveS, 10, 64800},
		{"backfill_bytes_per_s", s.BackfillBytesPerS, 256, 10 << 20},
	} {
		if f.value != nil && (*f.value < f.min || *f.value > f.max) {
			return fmt.Errorf("settings: %s %d is not %d to %d", f.name, *f.value, f.min, f.max)
		}
	}
	return nil
}

// Spread is the range of the first delay of reconnecting, or own if it is not
// set.
func (s Settings) Spread(own time.Duration) time.Duration { return seconds(s.SpreadS, own) }

// BackoffCap is the longest delay of reconnecting, or own if it is not set.
func (s Settings) BackoffCap(own time.Duration) time.Duration { return seconds(s.BackoffCapS, own) }

// Keepalive is MQTT's keepalive, or own if it is not set.
func (s Settings) Keepalive(own time.Duration) time.Duration { return seconds(s.KeepaliveS, own) }

// BackfillBytesPerSecond is the pace of what had to wait, or own if it is not
// set.
func (s Settings) BackfillBytesPerSecond(own int) int {
	if s.BackfillBytesPerS == nil {
		return own
	}
	return int(*s.BackfillBytesPerS)
}

func seconds(v *uint32, own time.Duration) time.Duration {
	if v == nil {
		return own
	}
	return time.Duration(*v) * time.Second
}

// Validate checks everything that needs no key.
func (c Config) Validate() error {
	switch {
	case c.V != 1:
		return fmt.Errorf("configuration version %d is not known", c.V)
	case !validTenant(c.Tenant):
		return fmt.Errorf("tenant %.40q is not a name", c.Tenant)
	case c.Device != "" && !ValidDevice(c.Device):
		return fmt.Errorf("device %.40q is not 8 to 23 letters and digits", c.Device)
	case c.Version == 0:
		return errors.New("version is missing")
	}
	if c.Trust != nil {
		if err := c.Trust.check(); err != nil {
			return fmt.Errorf("trust: %w", err)
		}
		if c.Trust.PayloadType != TypeTrustList {
			return fmt.Errorf("trust is of type %.80q", c.Trust.PayloadType)
		}
	}
	return c.Settings.Validate()
}

// Sign seals a configuration with an operator or NOC key.
func (c Config) Sign(key ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeConfig, c, c.Validate(), key)
}

// OpenConfig verifies env against the operator and NOC keys of a trust list.
// Errors are compatible with errors.Is for the errors of envelopes and
// ErrTooLarge.
func OpenConfig(env Envelope, trust TrustList) (c Config, keyID string, err error) {
	if len(env.Payload) > maxConfig {
		return Config{}, "", fmt.Errorf("cannot accept configuration: %w", ErrTooLarge)
	}
	keyID, err = openDocument(env, TypeConfig, &c, trust.configKeys()...)
	if err != nil {
		return Config{}, "", fmt.Errorf("cannot accept configuration: %w", err)
	}
	if err := c.Validate(); err != nil {
		return Config{}, "", fmt.Errorf("cannot accept configuration: %w: %w", ErrMalformed, err)
	}
	return c, keyID, nil
}

func (t TrustList) configKeys() []ed25519.PublicKey {
	return slices.Concat(t.KeysFor(RoleOperator), t.KeysFor(RoleNOC))
}

// AdoptMessage takes what a cfg message carries: a Config, or a trust list on
// its own. Config tells what holds afterwards, which either can change. Errors
// are *RefusalError.
func (a *Authority) AdoptMessage(env Envelope) error {
	if env.PayloadType != TypeConfig {
		return a.AdoptTrust(env)
	}
	_, err := a.AdoptConfig(env)
	return err
}

// AdoptConfig takes a newer configuration for this gateway and makes it durable
// before it returns what holds now. The one in force comes to the same result
// again; an older one, or another of the same version, is refused. A newer trust
// list that it brings is taken first, and stays even if the rest is refused: the
// root vouches for it. Errors are *RefusalError.
func (a *Authority) AdoptConfig(env Envelope) (Settings, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.adoptBrought(env); err != nil {
		return Settings{}, err
	}
	if !a.trusted {
		return Settings{}, refuse(ReasonUnknownKey, "this device has no trust list yet, and the configuration brings none")
	}
	c, keyID, err := OpenConfig(env, a.trust)
	switch {
	case err != nil:
		return Settings{}, a.refuseSigned(env, err)
	case c.Tenant != a.o.Tenant:
		return Settings{}, refuse(ReasonWrongTenant, "configuration is for tenant %q", c.Tenant)
	case c.Device != "" && c.Device != a.o.Device:
		return Settings{}, refuse(ReasonWrongDevice, "configuration is for device %s", c.Device)
	}
	digest := Digest(env)
	if in, ok := a.keptConfig(); ok {
		switch {
		case c.Version < in.Version:
			return Settings{}, refuse(ReasonConfigOutdated, "configuration version %d is older than %d", c.Version, in.Version)
		case c.Version == in.Version && digest != in.Digest:
			return Settings{}, refuse(ReasonConfigOutdated, "another configuration of version %d came before", c.Version)
		case c.Version == in.Version && a.signsConfigs(in.KeyID):
			return in.Settings, nil
		}
		// The same again by another key, after the first was revoked.
	}
	next := a.state.clone()
	next.Config = &usedConfig{
		Root: KeyID(a.o.Root), Tenant: c.Tenant, Device: c.Device, Version: c.Version, Digest: digest, KeyID: keyID, Settings: c.Settings,
	}
	if err := a.save(next); err != nil {
		return Settings{}, err
	}
	return c.Settings, nil
}

// adoptBrought takes the trust list inside a configuration that nobody has
// verified yet: the list's own signature is what counts.
func (a *Authority) adoptBrought(env Envelope) error {
	if len(env.Payload) > maxConfig {
		return refuse(ReasonTooLarge, "a configuration of %d bytes", len(env.Payload))
	}
	if err := env.check(); err != nil {
		return refuseErr(err, ReasonUnknownKey)
	}
	if env.PayloadType != TypeConfig {
		return refuse(ReasonMalformed, "payload type %.80q instead of %q", env.PayloadType, TypeConfig)
	}
	payload, err := decodeBase64(env.Payload)
	if err != nil {
		return refuse(ReasonMalformed, "payload: %v", err)
	}
	var c Config
	if err := decodeStrict(payload, &c); err != nil {
		return refuse(ReasonMalformed, "%v", err)
	}
	if c.Trust == nil {
		return nil
	}
	if err := c.Trust.check(); err != nil {
		return refuse(ReasonMalformed, "trust: %v", err)
	}
	err = a.adoptTrust(*c.Trust)
	if refusal := (*RefusalError)(nil); errors.As(err, &refusal) && refusal.Reason == ReasonTrustOutdated {
		return nil
	}
	return err
}

// Config returns what is set remotely, and the version of the newest
// configuration this gateway has taken, 0 if none. ok is false, and nothing is
// set, if there is none or the key that signed it is not trusted any more.
func (a *Authority) Config() (s Settings, version uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in, kept := a.keptConfig()
	if !kept {
		return Settings{}, 0, false
	}
	if !a.signsConfigs(in.KeyID) {
		return Settings{}, in.Version, false
	}
	return in.Settings, in.Version, true
}

// keptConfig returns the newest configuration taken, if it was for the gateway
// that this one is now.
func (a *Authority) keptConfig() (usedConfig, bool) {
	c := a.state.Config
	if c == nil || c.Root != KeyID(a.o.Root) || c.Tenant != a.o.Tenant || c.Device != "" && c.Device != a.o.Device {
		return usedConfig{}, false
	}
	return *c, true
}

// signsConfigs reports whether the list in force lets a key sign configurations.
func (a *Authority) signsConfigs(keyID string) bool {
	return a.trusted && slices.ContainsFunc(a.trust.configKeys(), func(k ed25519.PublicKey) bool { return KeyID(k) == keyID })
}
