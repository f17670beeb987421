package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
)

func (a *app) recordShow(_ context.Context, args []string) error {
	f := a.flags("record show")
	lang := f.String("lang", defaultLang(), "zh-CN or en")
	asJSON := f.Bool("json", false, "print the signed content as JSON")
	root := f.String("root", "", "operator's root key (.pub `FILE`): say whether the record is genuine")
	if err := a.parse(f, args, 1, 1); err != nil {
		return err
	}
	if err := checkLang(f, *lang); err != nil {
		return err
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("record show: %w", err)
	}
	var o record.VerifyOptions
	if *root != "" {
		key, err := readPublic(*root)
		if err != nil {
			return fmt.Errorf("record show: --root: %w", err)
		}
		o.Root = ed25519.PublicKey(key)
	}
	v := verifyRecord(data, o)
	if v.Record == nil {
		return cli.Exit(cli.Usage, "record show: %s: %s", f.Arg(0), v.Problem)
	}
	if *asJSON {
		return a.writeJSON("-", v.Record)
	}
	if err := showRecord(a.out, v, words(*lang)); err != nil {
		return fmt.Errorf("record show: %s: %w", f.Arg(0), err)
	}
	if v.Status == record.Altered || (*root != "" && v.Status != record.Valid) {
		return cli.Silent(verifyExit(v.Status))
	}
	return nil
}

// showRecord prints a record for people.
func showRecord(out io.Writer, v record.Verification, w phrases) error {
	r := v.Record
	var report acceptance.Report
	if err := json.Unmarshal(r.Ladder, &report); err != nil {
		return fmt.Errorf("ladder: %w", err)
	}
	var d diagnosis.Diagnosis
	if err := json.Unmarshal(r.Diagnosis, &d); err != nil {
		return fmt.Errorf("diagnosis: %w", err)
	}
	var o order.Order
	if err := peek(r.Order, order.TypeOrder, &o); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	fmt.Fprintf(out, "%s #%d  %s\n", w.label("record"), r.N, w.record(v.Status))
	if v.Problem != "" {
		fmt.Fprintf(out, "  %s\n", clean(v.Problem))
	}
	line := func(key, value string) { fmt.Fprintf(out, "%s: %s\n", w.label(key), clean(value)) }
	line("device", r.Device+" ("+r.Tenant+")")
	line("order", fmt.Sprintf("%s rev %d, %s", o.Order, o.Rev, diagnosis.Text(w.lang, diagnosis.KeyOrder+string(o.Type))))
	line("technician", r.Technician)
	line("closed", fmt.Sprintf("%s (%s)", r.Time.UTC, r.Time.Clock))
	line("duration", fmt.Sprintf("%.1f s", report.DurationS))
	line("verdict", w.verdict(r.Verdict))
	fmt.Fprintln(out)
	for _, res := range report.Results {
		showResult(out, res, w)
	}
	for i, c := range d.Causes {
		fmt.Fprintf(out, "\n%s %d: %s [%s] %s, %s %.0f %%\n", w.label("cause"), i+1, diagnosis.Title(w.lang, c.Code), clean(string(c.Code)),
			diagnosis.Text(w.lang, diagnosis.KeyKind+string(c.Kind)), w.label("confidence"), 100*c.Confidence)
		fmt.Fprintf(out, "  %s: %s\n", w.label("side"), diagnosis.Text(w.lang, diagnosis.KeySide+string(c.Side)))
		if action := diagnosis.Action(w.lang, c.Code); action != "" {
			fmt.Fprintf(out, "  %s: %s\n", w.label("action"), action)
		}
		for _, ref := range c.For {
			fmt.Fprintf(out, "  %s: %s %s = %s\n", w.label("for"), w.rung(ref.Rung), clean(ref.What), clean(ref.Value))
		}
		for _, ref := range c.Against {
			fmt.Fprintf(out, "  %s: %s %s = %s\n", w.label("against"), w.rung(ref.Rung), clean(ref.What), clean(ref.Value))
		}
	}
	return nil
}

func showResult(out io.Writer, res acceptance.Result, w phrases) {
	kind := w.label("required")
	if !res.Required {
		kind = w.label("optional")
	}
	fmt.Fprintf(out, "%s: %s (%s)", w.rung(string(res.Rung)), w.verdict(string(res.Verdict)), kind)
	if res.SkippedFor != "" {
		fmt.Fprintf(out, " — %s %s", w.label("skipped_for"), w.rung(string(res.SkippedFor)))
	} else if res.Reason != "" {
		fmt.Fprintf(out, " — %s", clean(res.Reason))
	}
	fmt.Fprintln(out)
	for _, m := range res.Measurements {
		var value string
		switch v := m.Value.(type) {
		case nil:
			value = diagnosis.Text(w.lang, diagnosis.KeyStatus+m.Status)
		case float64:
			value = fmt.Sprintf("%.6g", v)
		case string:
			value = cmp.Or(v, "-")
		default:
			value = fmt.Sprint(v)
		}
		fmt.Fprintf(out, "    %s = %s", clean(m.Name), clean(value))
		if m.Source != "" {
			fmt.Fprintf(out, "  [%s]", clean(m.Source))
		}
		fmt.Fprintln(out)
	}
	for _, l := range res.Limits {
		fmt.Fprintf(out, "    %s %s %s %g (%s)\n", w.label("limit"), clean(l.Name), clean(l.Op), l.Value, clean(l.Origin))
	}
	for _, c := range slices.Concat(res.Causes, res.Warnings) {
		fmt.Fprintf(out, "    %s [%s]\n", diagnosis.Title(w.lang, diagnosis.Code(c)), clean(c))
	}
}
