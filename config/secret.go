package config

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "***"

// Secret is a string that prints as "***" whatever it is printed by: fmt with
// any verb, encoding/json, log/slog. Only Reveal returns it. Two
// places don't ask a type how it prints: an unexported field of a struct, for
// package fmt, and the key of a map, for encoding/json. Keep it out of those.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "***".
func (Secret) String() string { return redacted }

// GoString returns "***".
func (Secret) GoString() string { return redacted }

// Format writes "***" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "***".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns the JSON string "***".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
