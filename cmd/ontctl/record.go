package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
)

func (a *app) orderShow(_ context.Context, args []string) error {
	f := a.flags("order show")
	trustFile := f.String("trust", "", "trust list `FILE`: say whether an operator signed")
	root := f.String("root", "", "operator's root key (.pub `FILE`): needed with --trust")
	asJSON := f.Bool("json", false, "print the order as JSON, without its envelope")
	if err := a.parse(f, args, 1, 1); err != nil {
		return err
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("order show: %w", err)
	}
	env, envErr := order.ParseEnvelope(data)
	if n := orderVersion(env, data, envErr); n > 1 {
		return cli.Exit(cli.Inconclusive, "order show: %s: %w", f.Arg(0), &record.VersionError{What: "order", V: n})
	}
	o, signed := order.Order{}, "unsigned"
	switch {
	case envErr != nil:
		if o, err = order.ParseOrder(data); err != nil {
			return cli.Exit(cli.Usage, "order show: %s is neither an order (%w) nor an envelope (%w)", f.Arg(0), err, envErr)
		}
	default:
		if err := peek(env, order.TypeOrder, &o); err != nil {
			return cli.Exit(cli.Usage, "order show: %s: %w", f.Arg(0), err)
		}
		signed = "signed by key " + env.Signatures[0].KeyID + " (not checked: give --trust and --root)"
	}
	if *trustFile != "" {
		trust, err := a.readTrust(*trustFile, *root)
		if err != nil {
			return fmt.Errorf("order show: %w", err)
		}
		if envErr != nil {
			return cli.Exit(cli.Refused, "order show: %s is not signed", f.Arg(0))
		}
		if _, err := order.OpenOrder(env, trust); err != nil {
			return cli.Exit(cli.Refused, "order show: %w", err)
		}
		signed = "signed by an operator key of the trust list"
	}
	if *asJSON {
		return a.writeJSON("-", o)
	}
	printOrder(a.out, o, signed)
	return nil
}

// orderVersion returns the version of an order, signed or not; 0 if that is not
// legible.
func orderVersion(env order.Envelope, data []byte, envErr error) int {
	var head struct {
		V int `json:"v"`
	}
	if envErr == nil {
		if err := peek(env, order.TypeOrder, &head); err != nil {
			return 0
		}
		return head.V
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return 0
	}
	return head.V
}

func printOrder(out io.Writer, o order.Order, signed string) {
	line := func(name string, value any) {
		if s := fmt.Sprint(value); s != "" && s != "[]" && s != "map[]" {
			fmt.Fprintf(out, "%-12s %s\n", name, clean(s))
		}
	}
	line("order", fmt.Sprintf("%s rev %d (%s), %s", o.Order, o.Rev, o.Type, signed))
	line("device", o.Device+", tenant "+o.Tenant)
	for _, t := range o.Technicians {
		line("technician", t.ID+" (key "+t.Key.ID()+")")
	}
	for _, r := range [][2]string{
		{"sn", o.Resources.SN},
		{"mac", o.Resources.MAC},
		{"pon port", o.Resources.PONPort},
		{"splitter", o.Resources.SplitterPort},
		{"lan port", o.Resources.LANPort},
	} {
		line(r[0], r[1])
	}
	for _, s := range o.Services {
		parts := []string{strings.TrimSpace(s.Kind + " " + s.Access)}
		if s.VLAN != 0 {
			parts = append(parts, fmt.Sprintf("vlan %d", s.VLAN))
		}
		if s.DownMbps != 0 || s.UpMbps != 0 {
			parts = append(parts, fmt.Sprintf("%g/%g Mbit/s", s.DownMbps, s.UpMbps))
		}
		if s.Account != "" {
			parts = append(parts, "account "+s.Account)
		}
		line("service", strings.Join(parts, ", "))
	}
	line("require", strings.Join(o.Require, ", "))
	for _, name := range slices.Sorted(maps.Keys(o.Thresholds)) {
		line("threshold", name+" "+strconv.FormatFloat(o.Thresholds[name], 'g', -1, 64))
	}
	var allow []string
	for _, c := range o.Allow {
		allow = append(allow, string(c))
	}
	line("allow", strings.Join(allow, ", "))
	line("consents", strings.Join(o.Consents, ", "))
	line("valid", fmt.Sprintf("%s to %s", o.NotBefore.Format("2006-01-02 15:04:05 MST"), o.NotAfter.Format("2006-01-02 15:04:05 MST")))
	line("runs", o.MaxRuns)
	if len(o.Sealed) > 0 {
		line("secrets", "sealed to the gateway")
	}
}
