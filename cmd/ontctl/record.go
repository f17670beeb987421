package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
)

func (a *app) recordVerify(_ context.Context, args []string) error {
	f := a.flags("record verify")
	root := f.String("root", "", "operator's root key: .pub `FILE` or the key itself")
	trustFile := f.String("trust", "", "newer trust list `FILE`, whose revocations count too")
	asJSON := f.Bool("json", false, "print one JSON line per record")
	lang := f.String("lang", defaultLang(), "zh-CN or en")
	if err := a.parse(f, args, 1, -1); err != nil {
		return err
	}
	if err := checkLang(f, *lang); err != nil {
		return err
	}
	var o record.VerifyOptions
	if *root != "" {
		key, err := readPublic(*root)
		if err != nil {
			return fmt.Errorf("record verify: --root: %w", err)
		}
		o.Root = ed25519.PublicKey(key)
	}
	if *trustFile != "" {
		if o.Root == nil {
			return cli.Exit(cli.Usage, "record verify: --trust needs --root")
		}
		list, err := a.readTrust(*trustFile, *root)
		if err != nil {
			return fmt.Errorf("record verify: %w", err)
		}
		o.Trust = &list
	}
	code := cli.OK
	var verified []record.Verification
	for _, path := range f.Args() {
		var v record.Verification
		if data, err := a.readFile(path); err == nil {
			v = verifyRecord(data, o)
		} else { // the others are checked all the same
			v = record.Verification{Status: record.Unreadable, Problem: err.Error()}
		}
		verified = append(verified, v)
		code = worse(code, verifyExit(v.Status))
		if err := a.printVerification(path, v, *asJSON, *lang); err != nil {
			return err
		}
	}
	legible := !slices.ContainsFunc(verified, func(v record.Verification) bool { return v.Record == nil })
	switch {
	case len(verified) == 1:
	case !legible:
		fmt.Fprintln(a.err, "ontctl: the chain was not checked: not every record is legible")
	default:
		if err := record.VerifyChain(verified); err != nil {
			return cli.Exit(worse(code, cli.Fail), "the records are not one chain, oldest first: %w", err)
		}
		if !*asJSON {
			fmt.Fprintln(a.out, words(*lang).chain(len(verified)))
		}
	}
	if code != cli.OK {
		return cli.Silent(code)
	}
	return nil
}

// verifyRecord adds to the signature checks what only the ladder's own rules
// can tell: that the verdict is the one its results add up to.
func verifyRecord(data []byte, o record.VerifyOptions) record.Verification {
	v := record.Verify(data, o)
	if v.Status != record.Valid {
		return v
	}
	var report acceptance.Report
	if err := json.Unmarshal(v.Record.Ladder, &report); err != nil {
		v.Status, v.Problem, v.Altered = record.Altered, fmt.Sprintf("ladder: %v", err), []string{"ladder"}
		return v
	}
	if sum := acceptance.Overall(report.Results); string(sum) != v.Record.Verdict || sum != report.Verdict {
		v.Status, v.Altered = record.Altered, []string{"verdict"}
		v.Problem = fmt.Sprintf("the record says %s, its results add up to %s", v.Record.Verdict, sum)
	}
	return v
}

func verifyExit(s record.Status) int {
	switch s {
	case record.Valid:
		return cli.OK
	case record.SignerUnknown:
		return cli.Inconclusive
	case record.Altered:
		return cli.Fail
	case record.Unreadable:
		return cli.Usage
	}
	return cli.Usage
}

// worse orders exit codes by what matters more about several records.
func worse(a, b int) int {
	rank := []int{cli.OK, cli.Inconclusive, cli.Usage, cli.Fail}
	if slices.Index(rank, b) > slices.Index(rank, a) {
		return b
	}
	return a
}

func (a *app) printVerification(path string, v record.Verification, asJSON bool, lang string) error {
	if asJSON {
		out := struct {
			File string `json:"file"`
			record.Verification
			N       uint64 `json:"n,omitempty"`
			Device  string `json:"device,omitempty"`
			Verdict string `json:"verdict,omitempty"`
		}{File: path, Verification: v}
		if v.Record != nil {
			out.N, out.Device, out.Verdict = v.Record.N, v.Record.Device, v.Record.Verdict
		}
		line, err := json.Marshal(out)
		if err != nil {
			return fmt.Errorf("cannot encode: %w", err)
		}
		_, err = a.out.Write(append(line, '\n'))
		return err
	}
	w := words(lang)
	fmt.Fprintf(a.out, "%s: %s\n", path, w.record(v.Status))
	if v.Problem != "" {
		fmt.Fprintf(a.out, "  %s\n", clean(v.Problem))
	}
	if len(v.Altered) > 0 {
		fmt.Fprintf(a.out, "  %s: %s\n", w.altered(), clean(strings.Join(v.Altered, ", ")))
	}
	if v.Status == record.Valid {
		fmt.Fprintf(a.out, "  %s #%d · %s · %s · %s\n  sha256 %s\n", v.Record.Device, v.Record.N, v.Order.Order,
			v.Record.Technician, w.verdict(v.Record.Verdict), v.Digest)
	}
	return nil
}

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
	line("thresholds", o.Thresholds)
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
