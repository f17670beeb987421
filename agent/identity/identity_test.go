package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ontagent/transport/durable"
)

const device = "HWTC12345678"

func made(t *testing.T) (dir string, k Keys) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	k, err := Open(durable.OS{}, dir, device)
	if err != nil {
		t.Fatal(err)
	}
	return dir, k
}

func TestKeysAreMadeOnceForTheOwnerAlone(t *testing.T) {
	dir, k := made(t)
	again, err := Open(durable.OS{}, dir, device)
	if err != nil || again.Bundle() != k.Bundle() || !again.Record.Equal(k.Record) || again.Box != k.Box || !again.TLS.Equal(k.TLS) {
		t.Errorf("read back: %v", err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, keyFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	renamed, err := Open(durable.OS{}, dir, "HWTC99999999")
	if err != nil || renamed.Bundle().Ed25519 != k.Bundle().Ed25519 || renamed.Bundle().Device != "HWTC99999999" {
		t.Errorf("under another device id: %+v, %v", renamed.Bundle(), err)
	}
}

func TestReadMakesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(durable.OS{}, dir, device); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("made %v", entries)
	}
}

// TestDamagedKeysAreNotReplaced: cut off anywhere, and with any line altered,
// the file is an error, and stays.
func TestDamagedKeysAreNotReplaced(t *testing.T) {
	dir, k := made(t)
	path := filepath.Join(dir, keyFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var damaged [][]byte
	for n := 0; n < len(good)-1; n += 7 {
		damaged = append(damaged, good[:n])
	}
	damaged = append(damaged,
		bytes.Repeat([]byte{0}, len(good)),
		bytes.ReplaceAll(good, []byte(pemBox), []byte("SOMETHING")),
		append(bytes.Clone(good), make([]byte, 32<<10)...))
	for _, data := range damaged {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Open(durable.OS{}, dir, device)
		if err == nil && got.Bundle() != k.Bundle() {
			t.Fatalf("%d bytes were taken for other keys", len(data))
		}
		if err == nil {
			t.Errorf("%d of %d bytes were taken for good", len(data), len(good))
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, data) {
			t.Fatal("the damaged file was changed")
		}
	}
}

// cutFS fails every operation from the n-th on.
type cutFS struct {
	durable.FS
	left int
}

func (c *cutFS) spend() error {
	if c.left--; c.left < 0 {
		return errors.New("power cut")
	}
	return nil
}

func (c *cutFS) OpenFile(op, path string, flag int, perm fs.FileMode) (durable.File, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.FS.OpenFile(op, path, flag, perm)
}

func (c *cutFS) Rename(op, from, to string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.FS.Rename(op, from, to)
}

func (c *cutFS) SyncDir(op, path string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.FS.SyncDir(op, path)
}

func TestPowerCutWhileKeysAreMade(t *testing.T) {
	for cut := range 8 {
		dir := filepath.Join(t.TempDir(), "state")
		k, err := Open(&cutFS{durable.OS{}, cut}, dir, device)
		again, errAgain := Open(durable.OS{}, dir, device)
		if errAgain != nil {
			t.Errorf("cut %d: cannot start again: %v", cut, errAgain)
		}
		if err == nil && again.Bundle() != k.Bundle() {
			t.Errorf("cut %d: keys that were told are gone", cut)
		}
	}
}

func TestKeysNeverPrint(t *testing.T) {
	dir, k := made(t)
	data, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprint(k) + fmt.Sprintf("%v %+v %#v %s %q %x %d %v", k, k, k, k, k, k, k, &k)
	for line := range strings.Lines(string(data)) {
		if secret := strings.TrimSpace(line); !strings.HasPrefix(secret, "-----") && strings.Contains(out, secret) {
			t.Error("a key was printed")
		}
	}
	if strings.Contains(out, fmt.Sprintf("%x", k.Box)) || strings.Contains(out, fmt.Sprint(k.Box)) || len(out) > 100 {
		t.Error("a key was printed")
	}
}

func TestCertificateHoldsTheKeyOfTheBundle(t *testing.T) {
	_, k := made(t)
	cert, err := k.Certificate()
	if err != nil || len(cert.Certificate) != 1 {
		t.Fatal(err)
	}
	if (Keys{}).Made() || !k.Made() {
		t.Error("Made is wrong")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN ONTAGENT ED25519 SEED-----\nAAAA\n-----END ONTAGENT ED25519 SEED-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := parse(data); err == nil && !k.Made() {
			t.Fatal("no keys and no error")
		}
	})
}
