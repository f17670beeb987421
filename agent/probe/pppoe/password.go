package pppoe

import (
	"fmt"
	"io"
	"log/slog"
)

// Password is a secret that doesn't show in any kind of print.
type Password string

const redacted = "[redacted]"

// String returns a placeholder.
func (Password) String() string { return redacted }

// GoString returns a placeholder.
func (Password) GoString() string { return redacted }

// Format writes a placeholder, whatever the verb.
func (Password) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) } //nolint:errcheck // nobody to tell

// MarshalJSON returns a placeholder.
func (Password) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns a placeholder.
func (Password) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a placeholder.
func (Password) LogValue() slog.Value { return slog.StringValue(redacted) }
