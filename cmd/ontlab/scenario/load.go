package scenario

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"gopkg.in/yaml.v3"
)

// MaxBytes bounds a file.
const MaxBytes = 256 << 10

// Load reads a scenario file and fills in what it leaves out.
func Load(file string) (Scenario, error) {
	f, err := os.Open(file)
	if err != nil {
		return Scenario{}, fmt.Errorf("cannot read scenario: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Scenario{}, fmt.Errorf("cannot read scenario: %w", err)
	}
	return Parse(file, data)
}

// Parse is Load for a file's content; file is its name.
func Parse(file string, data []byte) (Scenario, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	s := Scenario{File: file}
	if err := dec.Decode(&s); err != nil {
		return Scenario{}, fmt.Errorf("cannot read scenario %s: %w", file, err)
	}
	return s, nil
}
