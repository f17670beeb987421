package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Version is the payload version in Header.V.
const Version = 1

// MaxPayload bounds an encoded message, in bytes. It is the smallest limit of
// the brokers we know.
const MaxPayload = 128 << 10

// Errors that errors.Is finds in what Encode, EncodeFields, Decode and Put
// return.
var (
	ErrTooLarge  = errors.New("message too large")
	ErrMalformed = errors.New("malformed message")
)

// headerKeys are the JSON keys of Header, in the order in which they travel.
var headerKeys = [...]string{"v", "device", "epoch", "class", "seq", "uptime_s", "time_unix_ms", "clock"}

// Field is one key and value of a flat body. Value is a bool, int, int64,
// uint64, float64 or string.
type Field struct {
	Key   string
	Value any
}

// Encode writes one flat JSON object: the keys of h first, then those of body,
// which must be a JSON object (nil counts as empty) in UTF-8 without a key of
// the header and without a key twice. Errors are compatible with
// errors.Is(err, ErrMalformed) or errors.Is(err, ErrTooLarge).
func Encode(h Header, body json.RawMessage) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("cannot encode message: %w", err)
	}
	if err := checkBody(body); err != nil {
		return nil, fmt.Errorf("cannot encode message: %w", err)
	}
	b := make([]byte, 0, 192+len(body))
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(h.V), 10)
	b = append(b, `,"device":`...)
	b = appendString(b, h.Device)
	b = append(b, `,"epoch":`...)
	b = strconv.AppendUint(b, h.Epoch, 10)
	b = append(b, `,"class":`...)
	b = appendString(b, string(h.Class))
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, h.Seq, 10)
	b = append(b, `,"uptime_s":`...)
	b = appendFloat(b, h.UptimeS)
	b = append(b, `,"time_unix_ms":`...)
	b = strconv.AppendInt(b, h.TimeMS, 10)
	b = append(b, `,"clock":`...)
	b = appendString(b, h.Clock)

	if len(body) > 0 {
		var c bytes.Buffer
		if err := json.Compact(&c, body); err != nil { // cannot be: checkBody looked
			return nil, fmt.Errorf("cannot encode message: %w: %v", ErrMalformed, err) //nolint:errorlint // the parser's own error is closed on purpose
		}
		if c.Len() > len(`{}`) {
			b = append(b, ',')
			b = append(b, c.Bytes()[1:c.Len()-1]...)
		}
	}
	b = append(b, '}')
	if len(b) > MaxPayload {
		return nil, fmt.Errorf("cannot encode message: %w: %d bytes of %d", ErrTooLarge, len(b), MaxPayload)
	}
	return b, nil
}

// EncodeFields makes a body of fields, in their order. It refuses NaN and
// infinities, which JSON has no word for, keys that are not snake_case, are
// used twice or belong to the header, and values of other types; strings are
// made valid UTF-8. Errors are compatible with errors.Is(err, ErrMalformed) or
// errors.Is(err, ErrTooLarge).
func EncodeFields(fields []Field) (json.RawMessage, error) {
	seen := make(map[string]struct{}, len(fields))
	b := []byte{'{'}
	for i, f := range fields {
		if !validKey(f.Key) || isHeaderKey(f.Key) {
			return nil, fmt.Errorf("cannot encode field %.40q: %w: unfit key", f.Key, ErrMalformed)
		}
		if _, twice := seen[f.Key]; twice {
			return nil, fmt.Errorf("cannot encode field %q: %w: key used twice", f.Key, ErrMalformed)
		}
		seen[f.Key] = struct{}{}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, f.Key)
		b = append(b, ':')
		switch v := f.Value.(type) {
		case bool:
			b = strconv.AppendBool(b, v)
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case int64:
			b = strconv.AppendInt(b, v, 10)
		case uint64:
			b = strconv.AppendUint(b, v, 10)
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("cannot encode field %q: %w: %v is not a number", f.Key, ErrMalformed, v)
			}
			b = appendFloat(b, v)
		case string:
			b = appendString(b, v)
		default:
			return nil, fmt.Errorf("cannot encode field %q: %w: value of type %T", f.Key, ErrMalformed, v)
		}
		if len(b) > MaxPayload {
			return nil, fmt.Errorf("cannot encode field %q: %w: over %d bytes", f.Key, ErrTooLarge, MaxPayload)
		}
	}
	return append(b, '}'), nil
}

// Decode takes a message apart: its header, and what is left as the body. It
// accepts exactly what Encode can make, whitespace and the order of keys aside,
// and leaves payload alone. Errors are compatible with
// errors.Is(err, ErrMalformed) or errors.Is(err, ErrTooLarge).
func Decode(payload []byte) (Header, json.RawMessage, error) {
	if len(payload) > MaxPayload {
		return Header{}, nil, fmt.Errorf("cannot decode message: %w: %d bytes of %d", ErrTooLarge, len(payload), MaxPayload)
	}
	if err := checkObject(payload); err != nil {
		return Header{}, nil, fmt.Errorf("cannot decode message: %w", err)
	}
	var h Header
	var have int
	body := []byte{'{'}
	seen := make(map[string]struct{}, 16)
	err := members(payload, func(key string, rawKey, value []byte) error {
		if _, twice := seen[key]; twice {
			return fmt.Errorf("%w: key %.40q twice", ErrMalformed, key)
		}
		seen[key] = struct{}{}
		var to any
		switch key {
		case "v":
			to = &h.V
		case "device":
			to = &h.Device
		case "epoch":
			to = &h.Epoch
		case "class":
			to = &h.Class
		case "seq":
			to = &h.Seq
		case "uptime_s":
			to = &h.UptimeS
		case "time_unix_ms":
			to = &h.TimeMS
		case "clock":
			to = &h.Clock
		default:
			if isHeaderKey(key) {
				return fmt.Errorf("%w: key %.40q looks like the header's", ErrMalformed, key)
			}
			if len(body) > 1 {
				body = append(body, ',')
			}
			body = append(body, rawKey...)
			body = append(body, ':')
			body = append(body, value...)
			return nil
		}
		have++
		if bytes.Equal(value, []byte("null")) || json.Unmarshal(value, to) != nil {
			return fmt.Errorf("%w: %q is %.40q", ErrMalformed, key, value)
		}
		return nil
	})
	if err == nil && have != len(headerKeys) {
		err = fmt.Errorf("%w: %d of %d header keys", ErrMalformed, have, len(headerKeys))
	}
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return Header{}, nil, fmt.Errorf("cannot decode message: %w", err)
	}
	body = append(body, '}')
	var c bytes.Buffer
	if err := json.Compact(&c, body); err != nil { // cannot be: cut from valid JSON
		return Header{}, nil, fmt.Errorf("cannot decode message: %w", ErrMalformed)
	}
	return h, c.Bytes(), nil
}

// check reports what makes h unfit to travel.
func (h Header) check() error {
	switch {
	case h.V != Version:
		return fmt.Errorf("%w: payload version %d, want %d", ErrMalformed, h.V, Version)
	case !ValidDevice(h.Device):
		return fmt.Errorf("%w: device %.40q", ErrMalformed, h.Device)
	case !h.Class.known():
		return fmt.Errorf("%w: class %.40q", ErrMalformed, string(h.Class))
	case h.Seq == 0:
		return fmt.Errorf("%w: sequence number 0", ErrMalformed)
	case !(h.UptimeS >= 0) || math.IsInf(h.UptimeS, 0): // NaN too
		return fmt.Errorf("%w: uptime %v s", ErrMalformed, h.UptimeS)
	case h.Clock != ClockNTP && h.Clock != ClockFloor && h.Clock != ClockNone:
		return fmt.Errorf("%w: clock quality %.40q", ErrMalformed, h.Clock)
	}
	return nil
}

func (c Class) known() bool {
	switch c {
	case ClassRecord, ClassEvent, ClassTelemetry, ClassDebug, ClassSession:
		return true
	}
	return false
}

// checkObject reports whether b is one JSON object in UTF-8.
func checkObject(b []byte) error {
	switch {
	case !utf8.Valid(b):
		return fmt.Errorf("%w: not UTF-8", ErrMalformed)
	case !json.Valid(b):
		return fmt.Errorf("%w: not JSON", ErrMalformed)
	case bytes.TrimLeft(b, " \t\r\n")[0] != '{':
		return fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	return nil
}

// checkBody reports what makes body unfit to follow a header.
func checkBody(body json.RawMessage) error {
	if len(body) == 0 {
		return nil
	}
	if len(body) > MaxPayload {
		return fmt.Errorf("%w: body of %d bytes", ErrTooLarge, len(body))
	}
	if err := checkObject(body); err != nil {
		return err
	}
	seen := make(map[string]struct{}, 16)
	return members(body, func(key string, _, _ []byte) error {
		if isHeaderKey(key) {
			return fmt.Errorf("%w: body key %.40q belongs to the header", ErrMalformed, key)
		}
		if _, twice := seen[key]; twice {
			return fmt.Errorf("%w: body key %.40q twice", ErrMalformed, key)
		}
		seen[key] = struct{}{}
		return nil
	})
}

// members calls fn for every member of the JSON object obj, which must be
// valid JSON. rawKey is the key as it stands, quotes included.
func members(obj []byte, fn func(key string, rawKey, value []byte) error) error {
	const space = " \t\r\n"
	rest := bytes.Trim(obj, space)
	rest = bytes.TrimLeft(rest[1:len(rest)-1], space) // without the braces
	for len(rest) > 0 {
		n := skipString(rest)
		rawKey := rest[:n]
		key := string(rawKey[1 : n-1])
		if strings.IndexByte(key, '\\') >= 0 {
			if err := json.Unmarshal(rawKey, &key); err != nil {
				return fmt.Errorf("%w: key %.40q", ErrMalformed, rawKey)
			}
		}
		rest = bytes.TrimLeft(rest[n:], space)
		rest = bytes.TrimLeft(rest[1:], space) // the colon
		n = skipValue(rest)
		if err := fn(key, rawKey, bytes.TrimRight(rest[:n], space)); err != nil {
			return err
		}
		rest = rest[n:]
		if len(rest) > 0 { // the comma
			rest = bytes.TrimLeft(rest[1:], space)
		}
	}
	return nil
}

// skipString returns the length of the JSON string that b begins with.
func skipString(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue returns the length of the JSON value that b begins with, up to the
// comma that follows it or the end of b.
func skipValue(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += skipString(b[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// isHeaderKey reports whether key is one of the header's, letter case aside:
// some decoders do not tell "Seq" from "seq".
func isHeaderKey(key string) bool {
	for _, k := range headerKeys {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// validKey reports whether key is snake_case: a lower-case letter, then up to
// 63 lower-case letters, digits and underscores.
func validKey(key string) bool {
	if key == "" || len(key) > 64 || key[0] < 'a' || key[0] > 'z' {
		return false
	}
	for i := range len(key) {
		if c := key[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// appendFloat writes v, which is finite, as a JSON number.
func appendFloat(b []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, v, format, -1, 64)
}

// appendString writes s as a JSON string, with U+FFFD for what is not UTF-8.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s { // yields U+FFFD for broken bytes
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
