package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport/durable"
)

// errMissing means that a flag which must be given was not.
var errMissing = errors.New("it is missing")

const pemKey = "ONTAGENT ED25519 SEED"

func (a *app) keygen(_ context.Context, args []string) error {
	f := a.flags("keygen")
	out := f.String("out", "", "write `NAME`.key and NAME.pub")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	if *out == "" {
		return cli.Exit(cli.Usage, "keygen: --out is missing")
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("cannot make key: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: key.Seed()})
	// Never over an existing key: whatever it signed would be orphaned.
	if err := writeNew(*out+".key", data, 0o600); err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	if err := writeNew(*out+".pub", []byte(order.PublicKey(pub).String()+"\n"), 0o644); err != nil {
		return errors.Join(fmt.Errorf("keygen: %w", err), os.Remove(*out+".key")) // half a pair is none
	}
	fmt.Fprintf(a.out, "%s.key  secret, keep it\n%s.pub  %s\nkey id: %s\n", *out, *out, order.PublicKey(pub), order.KeyID(pub))
	return nil
}

func writeNew(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot write %s: it exists already", path)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// readKey reads a secret key made by keygen.
func readKey(path string) (ed25519.PrivateKey, error) {
	if path == "" {
		return nil, errMissing
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemKey || len(block.Bytes) != ed25519.SeedSize || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("cannot read key: %s is not a secret key made by ontctl keygen", path)
	}
	return ed25519.NewKeyFromSeed(block.Bytes), nil
}

// readPublic reads a public key: a .pub file, or the key itself in base64.
func readPublic(arg string) (order.PublicKey, error) {
	if arg == "" {
		return nil, errMissing
	}
	if data, err := os.ReadFile(arg); err == nil {
		if block, _ := pem.Decode(data); block != nil && block.Type == pemKey {
			return nil, fmt.Errorf("%s is a secret key: name its .pub file", arg)
		}
		key, err := order.ParsePublicKey(string(data))
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", arg, err)
		}
		return key, nil
	}
	key, err := order.ParsePublicKey(arg)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a readable file nor a public key", arg)
	}
	return key, nil
}

// nextCounter returns a number above every earlier one of this key: the time in
// milliseconds, or one more than the last where the clock went back. The last
// one is kept beside the key.
func nextCounter(keyPath string, now time.Time) (uint64, error) {
	path := keyPath + ".counter"
	next := uint64(max(now.UnixMilli(), 1))
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		last, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot read %s: %w", path, err)
		}
		next = max(next, last+1)
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if err := durable.WriteFile(durable.OS{}, "counter", path, []byte(strconv.FormatUint(next, 10)+"\n"), 0o600); err != nil {
		return 0, fmt.Errorf("cannot keep the key's counter: %w", err)
	}
	return next, nil
}
