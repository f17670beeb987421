package main

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// probeFlag is a flag of a probe. It implements flag.Value.
type probeFlag struct {
	name, takes string
	to          any // what it sets
	given       bool
}

// bind declares the flags that spec lists, and what they set, in its order. The
// kind of a value follows from both: 1..9 is a range of whole numbers, a|b a
// choice, SECONDS a time.
func (p *probing) bind(spec, outcomes string, to ...any) {
	p.spec, p.outcomes = spec, outcomes
	for _, set := range to {
		_, spec, _ = strings.Cut(spec, "  --")
		name, rest, _ := strings.Cut(spec, " ")
		// Of a switch, nothing.
		takes := rest[:strings.IndexAny(rest, " \n")]
		p.flags = append(p.flags, &probeFlag{name: name, takes: takes, to: set})
	}
}

// String implements flag.Value.
func (*probeFlag) String() string { return "" }

// IsBoolFlag says to package flag that no value follows.
func (v *probeFlag) IsBoolFlag() bool { return v.takes == "" }

// Set implements flag.Value.
func (v *probeFlag) Set(s string) error {
	n, bad := 0, false
	if least, most, ok := strings.Cut(v.takes, ".."); ok {
		// These are whole numbers themselves.
		from, _ := strconv.Atoi(least)
		to, _ := strconv.Atoi(most)
		var err error
		n, err = strconv.Atoi(s)
		bad = err != nil || n < from || n > to
	}
	switch to := v.to.(type) {
	case *string:
		bad = strings.Contains(v.takes, "|") && !strings.Contains("|"+v.takes+"|", "|"+s+"|")
		*to = s
	case *bool:
		*to, bad = s == "true", s != "true" && s != "false"
	case *int:
		*to = n
	case *uint16:
		*to = uint16(n)
	case *uint8:
		*to = uint8(n)
	case *time.Duration:
		const longest = 300
		seconds, err := strconv.ParseFloat(s, 64)
		// What is not a number is not within bounds either.
		bad = err != nil || !(seconds >= 0.001 && seconds <= longest)
		*to = time.Duration(seconds * float64(time.Second))
	case *netip.Addr:
		*to, bad = addressOf(s)
	case *[]string:
		if !v.given {
			*to = nil
		}
		v.given = true
		for one := range strings.SplitSeq(s, ",") {
			_, wrong := addressOf(one)
			if _, err := netip.ParseAddrPort(one); err == nil {
				wrong = false
			}
			bad = bad || one == "" || wrong && strings.HasPrefix(v.takes, "ADDRESS")
			*to = append(*to, one)
		}
	}
	if bad {
		return errors.New("must be " + v.takes)
	}
	return nil
}

func addressOf(s string) (a netip.Addr, bad bool) {
	a, err := netip.ParseAddr(s)
	return a, err != nil
}

// need says that a flag is missing.
func (p *probing) need(name string, given bool) error {
	if given {
		return nil
	}
	return p.usageError("--" + name + " is needed; `ontagent probe " + p.name + " --help` says where it has a default")
}

// wrong says that the value of a flag is none.
func (p *probing) wrong(name, why string) error {
	return p.usageError("invalid value for flag -" + name + ": must be " + why)
}

// lookup finds addresses of names by the given resolvers, or else the system's.
func (p *probing) lookup() lookup {
	return p.sources("").resolve(p.conf)
}

// address is that of a host which is one, or has one.
func (p *probing) address(ctx context.Context, name, host string) (netip.Addr, error) {
	if err := p.need(name, host != ""); err != nil {
		return netip.Addr{}, err
	}
	if a, bad := addressOf(host); !bad {
		return a, nil
	}
	all, err := p.lookup()(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	return all[0], nil
}
