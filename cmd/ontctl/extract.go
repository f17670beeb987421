package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
)

// extractSign signs what an AAA says of an account. It repairs nothing: an
// account in full is refused, not masked.
func (a *app) extractSign(_ context.Context, args []string) error {
	f := a.flags("extract sign")
	keyFile := f.String("key", "", "sign with this operator `KEY` file")
	out := f.String("out", "-", "write the signed extract to `FILE`")
	if err := a.parse(f, args, 1, 1); err != nil {
		return err
	}
	key, err := readKey(*keyFile)
	if err != nil {
		return fmt.Errorf("extract sign: --key: %w", err)
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("extract sign: %w", err)
	}
	e, err := parseExtract(data)
	if err != nil {
		return cli.Exit(cli.Usage, "extract sign: %s: %w", f.Arg(0), err)
	}
	if e.Taken.After(time.Now().Add(time.Hour)) {
		return cli.Exit(cli.Usage, "extract sign: %s: taken %s is in the future: no gateway would use it", f.Arg(0), e.Taken.Format(time.RFC3339))
	}
	env, err := e.Sign(key)
	if err != nil {
		return cli.Exit(cli.Usage, "extract sign: %s: %w", f.Arg(0), err)
	}
	return a.writeJSON(*out, env)
}

// parseExtract reads an unsigned extract, strictly.
func parseExtract(data []byte) (order.Extract, error) {
	var e order.Extract
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, fmt.Errorf("cannot read extract: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return e, errors.New("cannot read extract: more than one document")
	}
	return e, e.Validate()
}

func (a *app) extractShow(_ context.Context, args []string) error {
	f := a.flags("extract show")
	trustFile := f.String("trust", "", "trust list `FILE`: say whether an operator signed")
	root := f.String("root", "", "operator's root key (.pub `FILE`): needed with --trust")
	asJSON := f.Bool("json", false, "print the extract as JSON, without its envelope")
	if err := a.parse(f, args, 1, 1); err != nil {
		return err
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("extract show: %w", err)
	}
	env, envErr := order.ParseEnvelope(data)
	e, signed := order.Extract{}, "unsigned"
	switch {
	case envErr != nil:
		if e, err = parseExtract(data); err != nil {
			return cli.Exit(cli.Usage, "extract show: %s is neither an extract (%w) nor an envelope (%w)", f.Arg(0), err, envErr)
		}
	default:
		if err := peek(env, order.TypeExtract, &e); err != nil {
			return cli.Exit(cli.Usage, "extract show: %s: %w", f.Arg(0), err)
		}
		signed = "signed by key " + env.Signatures[0].KeyID + " (not checked: give --trust and --root)"
	}
	if *trustFile != "" {
		trust, err := a.readTrust(*trustFile, *root)
		if err != nil {
			return fmt.Errorf("extract show: %w", err)
		}
		if envErr != nil {
			return cli.Exit(cli.Refused, "extract show: %s is not signed", f.Arg(0))
		}
		if _, err := order.OpenExtract(env, trust); err != nil {
			return cli.Exit(cli.Refused, "extract show: %w", err)
		}
		signed = "signed by an operator key of the trust list"
	}
	if *asJSON {
		return a.writeJSON("-", e)
	}
	printExtract(a.out, e, signed)
	return nil
}

// printExtract shows an extract; what it says nothing of is left out.
func printExtract(out io.Writer, e order.Extract, signed string) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%-12s %s\n", name, clean(value))
		}
	}
	number := func(v uint32) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprint(v)
	}
	line("order", e.Order+", "+signed)
	line("device", e.Device)
	line("taken", e.Taken.UTC().Format(time.RFC3339))
	line("account", strings.TrimSpace(e.Account+" "+string(e.State)))
	if e.DownMbps != 0 || e.UpMbps != 0 || e.Template != "" {
		line("rates", strings.TrimSpace(fmt.Sprintf("%g/%g Mbit/s %s", e.DownMbps, e.UpMbps, e.Template)))
	}
	line("pools", listed(e.Pools))
	line("dns", listed(e.DNS))
	line("mtu", number(e.MTU))
	line("vlan", number(uint32(e.VLAN)))
	line("sessions", number(e.MaxSessions))
	switch n := e.Session; {
	case n == nil:
		line("session", "not extracted")
	case !n.Online:
		line("session", "none")
	default:
		words := []string{"online"}
		add := func(name, value string, known bool) {
			if known {
				words = append(words, name+" "+value)
			}
		}
		add("since", n.Since.UTC().Format(time.RFC3339), !n.Since.IsZero())
		add("address", n.V4.String(), n.V4.IsValid())
		add("prefix", n.V6.String(), n.V6.IsValid())
		add("delegated", n.PD.String(), n.PD.IsValid())
		add("mac", n.MAC, n.MAC != "")
		add("nas", strings.TrimSpace(n.NAS+" "+n.NASPort), n.NAS+n.NASPort != "")
		add("vlan", number(uint32(n.VLAN)), n.VLAN != 0)
		line("session", strings.Join(words, ", "))
	}
}

func listed[T netip.Addr | netip.Prefix](list []T) string {
	return strings.Trim(fmt.Sprint(list), "[]")
}

// readExtract reads a signed extract for a command under an order. What the
// gateway would refuse is told here, before anything is sent.
func (a *app) readExtract(path string, o order.Order) (*order.Envelope, error) {
	env, err := a.readEnvelope(path)
	if err != nil {
		return nil, err
	}
	var e order.Extract
	if err := peek(env, order.TypeExtract, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if e.Order != o.Order || e.Device != o.Device {
		return nil, fmt.Errorf("%s is for order %s of device %s, not for %s of %s", path, clean(e.Order), clean(e.Device), o.Order, o.Device)
	}
	return &env, nil
}
