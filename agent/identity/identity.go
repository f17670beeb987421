// Package identity makes and keeps a gateway's own keys: Ed25519 for records,
// X25519 for sealed secrets, and a TLS key for the LAN listener.
//
// They are made on the gateway at first start and never leave it. The operator
// learns the public halves as a Bundle and vouches for them in a device
// statement.
package identity

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"time"

	"ontagent/transport/durable"
)

// Keys are a gateway's private keys.
type Keys struct {
	Device string
	Record ed25519.PrivateKey
	Box    [32]byte // X25519 private key
	TLS    *ecdsa.PrivateKey

	boxPublic [32]byte
	spki      string
}

// Bundle is what the operator needs for a device statement. All of it is
// public.
type Bundle struct {
	Device  string `json:"device"`
	Ed25519 string `json:"ed25519"`  // base64
	X25519  string `json:"x25519"`   // base64
	TLSSPKI string `json:"tls_spki"` // SHA-256 of SubjectPublicKeyInfo, hex
}

const keyFile = "device.keys"

const (
	pemRecord = "ONTAGENT ED25519 SEED"
	pemBox    = "ONTAGENT X25519 PRIVATE KEY"
	pemTLS    = "EC PRIVATE KEY"
)

// Open reads the keys in dir, or makes them if there are none. A key file that
// cannot be read is an error: new keys would make every earlier statement,
// record chain and sealed order worthless, so that is for a person to decide.
// One caller at a time may open a directory.
func Open(fsys durable.FS, dir, device string) (Keys, error) {
	k, err := Read(fsys, dir, device)
	if errors.Is(err, fs.ErrNotExist) {
		return create(fsys, dir, filepath.Join(dir, keyFile), device)
	}
	return k, err
}

// Read reads the keys in dir. If there are none the error is compatible with
// errors.Is(err, fs.ErrNotExist).
func Read(fsys durable.FS, dir, device string) (Keys, error) {
	path := filepath.Join(dir, keyFile)
	data, err := durable.ReadFile(fsys, "identity.read", path, 16<<10)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot read device keys: %w", err)
	}
	k, err := parse(data)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot read device keys in %s: %w", path, err)
	}
	k.Device = device
	return k, nil
}

func create(fsys durable.FS, dir, path, device string) (Keys, error) {
	_, record, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot make device keys: %w", err)
	}
	box, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot make device keys: %w", err)
	}
	tlsKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot make device keys: %w", err)
	}
	tlsDER, err := x509.MarshalECPrivateKey(tlsKey)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot make device keys: %w", err)
	}
	var data []byte
	for _, b := range []pem.Block{
		{Type: pemRecord, Bytes: record.Seed()},
		{Type: pemBox, Bytes: box.Bytes()},
		{Type: pemTLS, Bytes: tlsDER},
	} {
		data = append(data, pem.EncodeToMemory(&b)...)
	}
	if err := durable.MkdirAll(fsys, "identity.dir", dir, 0o700); err != nil {
		return Keys{}, fmt.Errorf("cannot keep device keys: %w", err)
	}
	if err := durable.WriteFile(fsys, "identity.write", path, data, 0o600); err != nil {
		return Keys{}, fmt.Errorf("cannot keep device keys: %w", err)
	}
	k, err := parse(data)
	k.Device = device
	return k, err
}

func parse(data []byte) (Keys, error) {
	var k Keys
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch block.Type {
		case pemRecord:
			if len(block.Bytes) != ed25519.SeedSize {
				return Keys{}, errors.New("record key has the wrong length")
			}
			k.Record = ed25519.NewKeyFromSeed(block.Bytes)
		case pemBox:
			private, err := ecdh.X25519().NewPrivateKey(block.Bytes)
			if err != nil {
				return Keys{}, errors.New("box key is damaged")
			}
			copy(k.Box[:], private.Bytes())
			copy(k.boxPublic[:], private.PublicKey().Bytes())
		case pemTLS:
			key, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return Keys{}, errors.New("TLS key is damaged")
			}
			spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
			if err != nil {
				return Keys{}, fmt.Errorf("TLS key: %w", err)
			}
			sum := sha256.Sum256(spki)
			k.TLS, k.spki = key, hex.EncodeToString(sum[:])
		default:
			return Keys{}, fmt.Errorf("unknown block %q", block.Type)
		}
	}
	if k.Record == nil || k.TLS == nil || k.boxPublic == [32]byte{} {
		return Keys{}, errors.New("a key is missing")
	}
	return k, nil
}

// Made reports whether there are keys at all: the zero Keys has none.
func (k Keys) Made() bool { return k.Record != nil }

// String keeps keys out of logs.
func (Keys) String() string { return "***" }

// GoString keeps keys out of logs.
func (Keys) GoString() string { return "***" }

// Format implements fmt.Formatter, so that no verb prints a key.
func (Keys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("***")) }

// BoxPublic returns the key that secrets for this gateway are sealed to.
func (k Keys) BoxPublic() [32]byte { return k.boxPublic }

// Bundle returns the public halves.
func (k Keys) Bundle() Bundle {
	pub, _ := k.Record.Public().(ed25519.PublicKey)
	return Bundle{
		Device:  k.Device,
		Ed25519: base64.StdEncoding.EncodeToString(pub),
		X25519:  base64.StdEncoding.EncodeToString(k.boxPublic[:]),
		TLSSPKI: k.spki,
	}
}

// Certificate returns a self-signed certificate for the LAN listener. Its
// dates mean nothing – the gateway's clock may stand in 1970 – and clients look
// at the key alone.
func (k Keys) Certificate() (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: k.Device},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.TLS.PublicKey, k.TLS)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.TLS}, nil
}
