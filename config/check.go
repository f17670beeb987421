package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxFile bounds the files that the configuration names, in bytes.
const maxFile = 1 << 20

// Check looks at the files that the configuration names and that must be
// there: certificates and keys of an enabled broker connection, and the file
// of the root key. The error joins everything that is wrong, an *Error each,
// which names the configuration's file and line, the option and the cause, and
// is compatible with the operating system's.
//
// The trust list and the device statement aren't looked at: a new gateway has
// none yet.
func (c *Config) Check() error {
	var problems []error
	fail := func(section, option string, err error) {
		problems = append(problems, c.OptionError(section, option, err))
	}
	if m := c.MQTT; m.Enabled {
		if m.CAFile != "" {
			if _, err := readCertificates(m.CAFile); err != nil {
				fail("mqtt", "ca_file", err)
			}
		}
		if m.CertFile != "" {
			cert, certErr := readCertificates(m.CertFile)
			if certErr != nil {
				fail("mqtt", "cert_file", certErr)
			}
			key, keyErr := readFile(m.KeyFile)
			if keyErr != nil {
				fail("mqtt", "key_file", keyErr)
			}
			if certErr == nil && keyErr == nil {
				if _, err := tls.X509KeyPair(cert, key); err != nil {
					fail("mqtt", "key_file", fmt.Errorf("cannot use %s with the certificate in %s: %w", m.KeyFile, m.CertFile, err))
				}
			}
		}
	}
	if c.Authority.RootKeyFile != "" {
		if _, err := c.RootPublicKey(); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// RootPublicKey returns the 32 bytes of the root key, from the file if one is
// named, or nil if none is given. The error is that of Check.
func (c *Config) RootPublicKey() ([]byte, error) {
	encoded, option := c.Authority.RootKey, "root_key"
	if path := c.Authority.RootKeyFile; path != "" {
		option = "root_key_file"
		data, err := readFile(path)
		if err != nil {
			return nil, c.OptionError("authority", option, err)
		}
		encoded = strings.TrimSpace(string(data))
		if err := publicKey().check(encoded); err != nil {
			return nil, c.OptionError("authority", option, fmt.Errorf("%s %w", path, err))
		}
	}
	if encoded == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, c.OptionError("authority", option, err)
	}
	return key, nil
}

// readCertificates returns a PEM file that holds at least one certificate, and
// only valid ones.
func readCertificates(path string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	found := false
	for rest := data; ; {
		var b *pem.Block
		b, rest = pem.Decode(rest)
		if b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return nil, fmt.Errorf("cannot read the certificate in %s: %w", path, err)
		}
		found = true
	}
	if !found {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return data, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, bare(err))
	}
	defer func() { _ = file.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, bare(err))
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d KiB", path, maxFile>>10)
	}
	return data, nil
}
