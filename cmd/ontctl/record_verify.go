package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
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
	o, err := a.verifyOptions(f.Name(), *root, *trustFile)
	if err != nil {
		return err
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
		code = worse(code, recordExit(v))
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

// recordExit is verifyExit, but of a record that only a newer program can judge.
func recordExit(v record.Verification) int {
	if v.Newer {
		return cli.Inconclusive
	}
	return verifyExit(v.Status)
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
	status := w.record(v.Status)
	if v.Newer {
		l, _ := diagnosis.ParseLang(lang)
		status = diagnosis.OfficeText(l, "show.future")
	}
	fmt.Fprintf(a.out, "%s: %s\n", path, status)
	if v.Problem != "" {
		fmt.Fprintf(a.out, "  %s\n", clean(v.Problem))
	}
	if len(v.Altered) > 0 {
		fmt.Fprintf(a.out, "  %s: %s\n", w.altered(), clean(strings.Join(v.Altered, ", ")))
	}
	switch {
	case v.Status == record.Valid:
		fmt.Fprintf(a.out, "  %s #%d · %s · %s · %s\n  sha256 %s\n", v.Record.Device, v.Record.N, v.Order.Order,
			v.Record.Technician, w.verdict(v.Record.Verdict), v.Digest)
	case v.Newer:
		fmt.Fprintf(a.out, "  %s: %s #%d · %s · %s · %s\n", office(lang, "show.legible"), clean(v.Record.Device), v.Record.N,
			clean(v.Record.Job), clean(v.Record.Technician), clean(v.Record.Verdict))
	}
	return nil
}
