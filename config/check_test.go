package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	put(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	return certFile, keyFile
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckNamesFileLineAndCause(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir, "device")
	_, otherKey := certificate(t, dir, "other")
	text := filepath.Join(dir, "text")
	put(t, text, []byte("no certificate\n"))
	broken := filepath.Join(dir, "broken")
	put(t, broken, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2, 3}}))
	root := filepath.Join(dir, "root.pub")
	put(t, root, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"))
	big := filepath.Join(dir, "big")
	put(t, big, make([]byte, 1<<20+1))

	for _, test := range []struct{ name, ca, cert, key, root, want string }{
		{"all well", cert, cert, key, root, ""},
		{"missing ca", dir + "/none", cert, key, root, "test.conf:6: option ca_file: cannot read DIR/none: no such file or directory"},
		{"missing certificate", cert, dir + "/none", key, root, "test.conf:7: option cert_file: cannot read DIR/none: no such file or directory"},
		{"a directory", cert, dir, key, root, "test.conf:7: option cert_file: cannot read DIR: is a directory"},
		{"unreadable", cert, "/proc/self/mem", key, root, "test.conf:7: option cert_file: cannot read /proc/self/mem: input/output error"},
		{"missing key", cert, cert, dir + "/none", root, "test.conf:8: option key_file: cannot read DIR/none: no such file or directory"},
		{"no certificate in it", text, cert, key, root, "test.conf:6: option ca_file: DIR/text holds no PEM certificate"},
		{"broken certificate", cert, broken, key, root, "test.conf:7: option cert_file: cannot read the certificate in DIR/broken: "},
		{"too large", big, cert, key, root, "test.conf:6: option ca_file: DIR/big is larger than 1024 KiB"},
		{"another's key", cert, cert, otherKey, root, "test.conf:8: option key_file: cannot use DIR/other.key with the certificate in DIR/device.crt: tls: private key does not match public key"},
		{"missing root key", cert, cert, key, dir + "/none", "test.conf:10: option root_key_file: cannot read DIR/none: no such file or directory"},
		{"no root key in it", cert, cert, key, text, "test.conf:10: option root_key_file: DIR/text is not base64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := parse(t, minimal+fmt.Sprintf(`config mqtt
	option enabled 1
	option broker ssl://broker.example.net
	option ca_file '%s'
	option cert_file '%s'
	option key_file '%s'
config authority
	option root_key_file '%s'
`, test.ca, test.cert, test.key, test.root))
			err := c.Check()
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if strings.HasSuffix(test.want, ": ") { // what follows is the library's
				got = got[:min(len(got), len(test.want))]
			}
			if got != test.want {
				t.Errorf("error %q, want %q", got, test.want)
			}
			if strings.Contains(test.want, "no such file") && !errors.Is(err, fs.ErrNotExist) {
				t.Error("the error isn't fs.ErrNotExist")
			}
		})
	}
}

func TestCheckLooksOnlyAtWhatIsUsed(t *testing.T) {
	c := parse(t, minimal+"config mqtt\n\toption broker ssl://h\n\toption ca_file /no/such/file\n")
	if err := c.Check(); err != nil {
		t.Errorf("the broker isn't enabled, and yet: %v", err)
	}
}

func TestRootPublicKey(t *testing.T) {
	const encoded = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	path := filepath.Join(t.TempDir(), "root.pub")
	put(t, path, []byte(encoded+"\n"))
	for _, options := range []string{"root_key " + encoded, "root_key_file " + path} {
		c := parse(t, minimal+"config authority\n\toption "+options+"\n")
		key, err := c.RootPublicKey()
		if err != nil || len(key) != 32 || key[31] != 31 {
			t.Errorf("%s: key %x, error %v", options, key, err)
		}
	}
	c := parse(t, minimal)
	if key, err := c.RootPublicKey(); key != nil || err != nil {
		t.Errorf("no key given, and yet %x, %v", key, err)
	}
}
