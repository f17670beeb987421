package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The constructors below are not inlined: on MIPS each of their many copies
// would be ten times as long as a call.

// option is one option of a section, bound to the value that it sets.
type option struct {
	name string
	// kind describes the values, for people.
	kind string
	help string
	// fallback describes the default where that isn't a plain value.
	fallback string
	list     bool
	secret   bool
	// set decodes a value into the configuration; first is true for the first
	// value of the option in the file.
	set func(value string, first bool) error
	// get returns the values as they would stand in a file, none if empty.
	get func() []string
}

//go:noinline
func (o *option) or(fallback string) *option {
	o.fallback = fallback
	return o
}

// kind is a type of values, with its check.
type kind struct {
	name  string
	check func(string) error
}

// text is an option whose value is a string of some kind.
//
//go:noinline
func text(name string, to *string, k kind, help string) *option {
	return &option{
		name: name, kind: k.name, help: help,
		set: func(v string, _ bool) error {
			if err := k.check(v); err != nil {
				return err
			}
			*to = v
			return nil
		},
		get: func() []string { return []string{*to} },
	}
}

// secret is an option whose value is never shown.
//
//go:noinline
func secret(name string, to *Secret, help string) *option {
	return &option{
		name: name, kind: "text", help: help, secret: true,
		set: func(v string, _ bool) error {
			*to = Secret(v)
			return nil
		},
		get: func() []string {
			if *to == "" {
				return nil
			}
			return []string{redacted}
		},
	}
}

// list is an option with several values. What the file gives replaces the
// default; a single empty value leaves nothing.
//
//go:noinline
func list(name string, to *[]string, k kind, help string) *option {
	return &option{
		name: name, kind: k.name, help: help, list: true,
		set: func(v string, first bool) error {
			if first {
				*to = nil
			}
			if v == "" {
				return nil
			}
			if err := k.check(v); err != nil {
				return err
			}
			if slices.Contains(*to, v) {
				return fmt.Errorf("%q is already in the list", v)
			}
			*to = append(*to, v)
			return nil
		},
		get: func() []string {
			if len(*to) == 0 {
				return []string{""}
			}
			return *to
		},
	}
}

// boolean takes the words that UCI takes.
//
//go:noinline
func boolean(name string, to *bool, help string) *option {
	return &option{
		name: name, kind: "1 or 0", help: help,
		set: func(v string, _ bool) error {
			switch v {
			case "1", "true", "yes", "on", "enabled":
				*to = true
			case "0", "false", "no", "off", "disabled":
				*to = false
			default:
				return fmt.Errorf("%q is neither 1 nor 0", v)
			}
			return nil
		},
		get: func() []string {
			if *to {
				return []string{"1"}
			}
			return []string{"0"}
		},
	}
}

// seconds is a duration from least to most.
//
//go:noinline
func seconds(name string, to *time.Duration, least, most int, help string) *option {
	return &option{
		name: name, kind: fmt.Sprintf("seconds, %d to %d", least, most), help: help,
		set: func(v string, _ bool) error {
			n, err := strconv.ParseInt(v, 10, 64)
			switch {
			case errors.Is(err, strconv.ErrSyntax):
				return fmt.Errorf("%q is not a whole number of seconds", v)
			case err != nil || n < int64(least) || n > int64(most):
				return fmt.Errorf("%s is not between %d and %d seconds", v, least, most)
			}
			*to = time.Duration(n) * time.Second
			return nil
		},
		get: func() []string { return []string{strconv.FormatInt(int64(*to/time.Second), 10)} },
	}
}

// number is a whole number of some unit, from least to most.
//
//go:noinline
func number(name string, to *int, unit string, least, most int, help string) *option {
	return &option{
		name: name, kind: fmt.Sprintf("%s, %d to %d", unit, least, most), help: help,
		set: func(v string, _ bool) error {
			n, err := strconv.ParseInt(v, 10, 64)
			switch {
			case errors.Is(err, strconv.ErrSyntax):
				return fmt.Errorf("%q is not a whole number", v)
			case err != nil || n < int64(least) || n > int64(most):
				return fmt.Errorf("%s is not between %d and %d", v, least, most)
			}
			*to = int(n)
			return nil
		},
		get: func() []string { return []string{strconv.Itoa(*to)} },
	}
}

// oneOf takes one of some whole numbers.
//
//go:noinline
func oneOf(name string, to *int, allowed []int, help string) *option {
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = strconv.Itoa(a)
	}
	return &option{
		name: name, kind: strings.Join(words, ", "), help: help,
		set: func(v string, _ bool) error {
			i := slices.Index(words, v)
			if i < 0 {
				return fmt.Errorf("%q is not one of %s", v, strings.Join(words, ", "))
			}
			*to = allowed[i]
			return nil
		},
		get: func() []string { return []string{strconv.Itoa(*to)} },
	}
}

// threshold is a limit by the name that the norms give it.
//
//go:noinline
func threshold(to *map[string]float64, name, unit string, least, most float64, help string) *option {
	return &option{
		name: strings.ReplaceAll(name, ".", "_"),
		kind: fmt.Sprintf("%s, %.0f to %.0f", unit, least, most),
		help: help, fallback: "the norm",
		set: func(v string, _ bool) error {
			n, err := strconv.ParseFloat(v, 64)
			// ParseFloat takes more than people write: hexadecimal, "inf", "1_0".
			if err != nil || strings.Trim(v, "+-.0123456789eE") != "" || math.IsInf(n, 0) || math.IsNaN(n) {
				return fmt.Errorf("%q is not a number", v)
			}
			if n < least || n > most {
				return fmt.Errorf("%s is not between %.0f and %.0f %s", v, least, most, unit)
			}
			if *to == nil {
				*to = map[string]float64{}
			}
			(*to)[name] = n
			return nil
		},
		get: func() []string {
			n, ok := (*to)[name]
			if !ok {
				return nil
			}
			return []string{strconv.FormatFloat(n, 'g', -1, 64)}
		},
	}
}

// The kinds of strings.

//go:noinline
func anyText() kind {
	return kind{"text", func(string) error { return nil }}
}

//go:noinline
func words(allowed ...string) kind {
	all := strings.Join(allowed, ", ")
	return kind{all, func(v string) error {
		if !slices.Contains(allowed, v) {
			return fmt.Errorf("%q is not one of %s", v, all)
		}
		return nil
	}}
}

func deviceName() kind {
	return kind{"8 to 23 letters and digits", func(v string) error {
		if len(v) < 8 || len(v) > 23 || !isName(v) || strings.Contains(v, "_") {
			return fmt.Errorf("%q is not 8 to 23 letters and digits", v)
		}
		return nil
	}}
}

func topicLevel() kind {
	return kind{"1 to 32 letters, digits, - and _", func(v string) error {
		if len(v) > 32 || !isName(strings.ReplaceAll(v, "-", "_")) {
			return fmt.Errorf("%q is not 1 to 32 letters, digits, - and _", v)
		}
		return nil
	}}
}

//go:noinline
func absolutePath() kind {
	return kind{"absolute path", func(v string) error {
		if !strings.HasPrefix(v, "/") {
			return fmt.Errorf("%q is not an absolute path", v)
		}
		return nil
	}}
}

// optional takes the empty value as well: "not given".
//
//go:noinline
func optional(k kind) kind {
	return kind{k.name, func(v string) error {
		if v == "" {
			return nil
		}
		return k.check(v)
	}}
}

//go:noinline
func networkInterface() kind {
	return kind{"interface name", func(v string) error {
		if v == "" || len(v) > 15 || v == "." || v == ".." || strings.ContainsAny(v, "/: \t\r\n") {
			return fmt.Errorf("%q is not the name of an interface", v)
		}
		return nil
	}}
}

//go:noinline
func pattern() kind {
	return kind{"shell pattern (*, ?, [a-z])", func(v string) error {
		if _, err := path.Match(v, ""); err != nil {
			return fmt.Errorf("%q is not a shell pattern", v)
		}
		return nil
	}}
}

//go:noinline
func publicKey() kind {
	return kind{"base64 of an Ed25519 public key", func(v string) error {
		key, err := base64.StdEncoding.DecodeString(v)
		switch {
		case err != nil:
			// Not shown: it may be the wrong key.
			return errors.New("is not base64")
		case len(key) != 32:
			return fmt.Errorf("holds %d bytes; an Ed25519 public key has 32", len(key))
		}
		return nil
	}}
}

//go:noinline
func brokerURL() kind {
	return kind{"tcp://host[:1883], ssl://host[:8883], ws://host[:80][/path] or wss://host[:443][/path]", func(v string) error {
		// Looked at first, and not shown: there may be a password in it.
		if strings.Contains(v, "@") {
			return errors.New("holds a user; write option username and option password")
		}
		u, err := url.Parse(v)
		if err != nil {
			return fmt.Errorf("%q is not a URL", v)
		}
		web := u.Scheme == "ws" || u.Scheme == "wss"
		switch {
		case u.Scheme != "tcp" && u.Scheme != "ssl" && !web:
			return fmt.Errorf("%q begins with none of tcp://, ssl://, ws://, wss://", v)
		case u.Hostname() == "":
			return fmt.Errorf("%q names no host", v)
		case u.Path != "" && !web || u.RawQuery != "" || u.Fragment != "":
			return fmt.Errorf("%q has something behind the host and port", v)
		}
		if p := u.Port(); p != "" && !isPort(p) {
			return fmt.Errorf("%q has no valid port", v)
		}
		return nil
	}}
}

// webURL is a URL of one of the schemes, without a user: passwords don't belong
// into it.
//
//go:noinline
func webURL(schemes ...string) kind {
	return kind{strings.Join(schemes, " or ") + " URL", func(v string) error {
		if strings.Contains(v, "@") {
			return errors.New("holds a user")
		}
		u, err := url.Parse(v)
		switch {
		case err != nil || u.Hostname() == "":
			return fmt.Errorf("%q is not a URL with a host", v)
		case !slices.Contains(schemes, u.Scheme):
			return fmt.Errorf("%q does not begin with %s://", v, strings.Join(schemes, ":// or "))
		case u.Fragment != "":
			return fmt.Errorf("%q has a fragment", v)
		}
		if p := u.Port(); p != "" && !isPort(p) {
			return fmt.Errorf("%q has no valid port", v)
		}
		return nil
	}}
}

func groupAddress() kind {
	return kind{"multicast address", func(v string) error {
		if a, err := netip.ParseAddr(v); err != nil || !a.IsMulticast() {
			return fmt.Errorf("%q is not a multicast address", v)
		}
		return nil
	}}
}

func hostAndPort() kind {
	return kind{"host[:port]", func(v string) error {
		host := v
		if h, port, err := net.SplitHostPort(v); err == nil {
			if host = h; !isPort(port) {
				return fmt.Errorf("%q has no valid port", v)
			}
		}
		if addressOrName().check(host) != nil {
			return fmt.Errorf("%q is not host or host:port", v)
		}
		return nil
	}}
}

func isPort(p string) bool {
	n, err := strconv.ParseUint(p, 10, 16)
	return err == nil && n > 0
}

func listenAddress() kind {
	return kind{"address:port", func(v string) error {
		host, port, err := net.SplitHostPort(v)
		if err != nil || !isPort(port) {
			return fmt.Errorf("%q is not address:port", v)
		}
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q doesn't name the address to listen on", v)
		}
		return nil
	}}
}

//go:noinline
func address() kind {
	return kind{"address", func(v string) error {
		if _, err := netip.ParseAddr(v); err != nil {
			return fmt.Errorf("%q is not an IP address", v)
		}
		return nil
	}}
}

//go:noinline
func addressOrName() kind {
	return kind{"address or host name", func(v string) error {
		if _, err := netip.ParseAddr(v); err == nil || isHostName(v) {
			return nil
		}
		return fmt.Errorf("%q is neither an IP address nor a host name", v)
	}}
}

//go:noinline
func hostName() kind {
	return kind{"host name", func(v string) error {
		if !isHostName(v) {
			return fmt.Errorf("%q is not a host name", v)
		}
		return nil
	}}
}

// isHostName follows RFC 1123, section 2.1; underscores are let through as
// resolvers do. A name of digits and dots only is a mistyped address.
func isHostName(v string) bool {
	v = strings.TrimSuffix(v, ".")
	if v == "" || len(v) > 253 || strings.Trim(v, ".0123456789") == "" {
		return false
	}
	for label := range strings.SplitSeq(v, ".") {
		if len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			!isName(strings.ReplaceAll(label, "-", "_")) {
			return false
		}
	}
	return true
}
