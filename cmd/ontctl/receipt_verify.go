package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
)

// pair is a record with its receipt, as they were verified.
type pair struct {
	RecordFile  string                      `json:"record_file,omitempty"`
	ReceiptFile string                      `json:"receipt_file,omitempty"`
	Record      *record.Verification        `json:"record,omitempty"`
	Receipt     *record.ReceiptVerification `json:"receipt,omitempty"`
	Splitter    *record.Splitter            `json:"splitter,omitempty"`
	Attachments []attachmentCheck           `json:"attachments,omitempty"`
	// Problem stands against the two together: one too many, or one missing.
	Problem string `json:"problem,omitempty"`
	code    int
}

func (a *app) receiptVerify(_ context.Context, args []string) error {
	f := a.flags("receipt verify")
	root := f.String("root", "", "operator's root key: .pub `FILE` or the key itself")
	trustFile := f.String("trust", "", "newer trust list `FILE`, whose revocations count too")
	dir := f.String("dir", "", "check every record and receipt below `DIR`, and that each has one of the other")
	asJSON := f.Bool("json", false, "print one JSON line per record")
	lang := f.String("lang", defaultLang(), "zh-CN or en")
	if err := a.parse(f, args, 0, 3); err != nil {
		return err
	}
	if err := checkLang(f, *lang); err != nil {
		return err
	}
	o, err := a.verifyOptions(f.Name(), *root, *trustFile)
	if err != nil {
		return err
	}
	var pairs []pair
	switch n := f.NArg(); {
	case *dir != "" && n > 0, *dir == "" && n < 2:
		return cli.Exit(cli.Usage, "receipt verify takes RECORD RECEIPT [ATTACHMENTS], or --dir DIR")
	case *dir != "":
		if pairs, err = a.verifyDir(*dir, o); err != nil {
			return cli.Exit(cli.Usage, "receipt verify: --dir: %w", err)
		}
	default:
		rec := a.verifyRecordFile(f.Arg(0), o)
		p := a.verifyPair(f.Arg(0), rec, f.Arg(1), f.Arg(2))
		pairs = []pair{p}
	}
	code := cli.OK
	for _, p := range pairs {
		code = worse(code, p.code)
		if *asJSON {
			if err := a.writeJSON("-", p); err != nil {
				return err
			}
			continue
		}
		if err := a.printPair(p, *lang); err != nil {
			return err
		}
	}
	if *dir != "" && !*asJSON {
		fmt.Fprintf(a.out, office(*lang, "show.receipts")+"\n", len(pairs))
	}
	return ended(code)
}

// verifyOptions reads what records are held against.
func (a *app) verifyOptions(name, root, trustFile string) (record.VerifyOptions, error) {
	o, err := rootOption(root)
	if err != nil {
		return o, fmt.Errorf("%s: --root: %w", name, err)
	}
	if trustFile == "" {
		return o, nil
	}
	if o.Root == nil {
		return o, cli.Exit(cli.Usage, "%s: --trust needs --root", name)
	}
	list, err := a.readTrust(trustFile, root)
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	o.Trust = &list
	return o, nil
}

// verifyRecordFile verifies a record; what cannot be read is no record.
func (a *app) verifyRecordFile(path string, o record.VerifyOptions) record.Verification {
	data, err := a.readFile(path)
	if err != nil {
		return record.Verification{Status: record.Unreadable, Problem: err.Error()}
	}
	return verifyRecord(data, o)
}

// verifyPair verifies a receipt against a record, and its attachments in a
// directory, if one is named.
func (a *app) verifyPair(recordFile string, rec record.Verification, receiptFile, dir string) pair {
	p := pair{RecordFile: recordFile, ReceiptFile: receiptFile, Record: &rec, code: recordExit(rec)}
	var v record.ReceiptVerification
	if data, err := a.readFile(receiptFile); err == nil {
		v = verifyReceipt(data, rec)
	} else {
		v = record.ReceiptVerification{Status: record.Unreadable, Problem: err.Error()}
	}
	p.Receipt = &v
	p.code = worse(p.code, receiptExit(v))
	if v.Receipt == nil {
		return p
	}
	p.Splitter = v.Receipt.Splitter
	list := v.Receipt.Attachments
	if dir == "" {
		for _, at := range list {
			p.Attachments = append(p.Attachments, attachmentCheck{Name: at.Name, State: attachedUnknown})
			p.code = worse(p.code, cli.Inconclusive) // what was not looked at is not proven
		}
		return p
	}
	checks, err := checkAttachments(dir, list, recordFile, receiptFile)
	if err != nil {
		p.Problem, p.code = fmt.Sprintf("attachments: %v", err), worse(p.code, cli.Usage)
	}
	p.Attachments = checks
	if slices.ContainsFunc(checks, func(c attachmentCheck) bool { return c.State != attachedOK }) {
		p.code = worse(p.code, cli.Fail)
	}
	return p
}

// verifyReceipt adds to the signature checks what only the norms can tell: that
// the reading at the splitter box was held against the limit in force.
func verifyReceipt(data []byte, rec record.Verification) record.ReceiptVerification {
	v := record.VerifyReceipt(data, rec)
	if v.Status != record.Valid || v.Receipt.Splitter == nil {
		return v
	}
	if limit := splitterMin(rec, *rec.Order); v.Receipt.Splitter.RxMinDBm != limit {
		v.Status, v.Altered = record.Altered, []string{"splitter"}
		v.Problem = fmt.Sprintf("the reading at the splitter box was held against %g dBm, the limit was %g dBm", v.Receipt.Splitter.RxMinDBm, limit)
	}
	return v
}

func receiptExit(v record.ReceiptVerification) int {
	if v.Newer {
		return cli.Inconclusive
	}
	return verifyExit(v.Status)
}

func (a *app) printPair(p pair, lang string) error {
	if p.Record != nil {
		if err := a.printVerification(p.RecordFile, *p.Record, false, lang); err != nil {
			return err
		}
	}
	if p.Receipt != nil {
		a.printReceipt(p, lang)
	}
	if p.Problem != "" {
		name := p.ReceiptFile
		if name == "" {
			name = p.RecordFile
		}
		fmt.Fprintf(a.out, "%s: %s\n", name, clean(p.Problem))
	}
	return nil
}

func (a *app) printReceipt(p pair, lang string) {
	l, _ := diagnosis.ParseLang(lang)
	text := func(key string) string { return diagnosis.OfficeText(l, key) }
	v := p.Receipt
	fmt.Fprintf(a.out, "%s: %s\n", p.ReceiptFile, receiptStatus(*v, lang))
	if v.Problem != "" {
		fmt.Fprintf(a.out, "  %s\n", clean(v.Problem))
	}
	if len(v.Altered) > 0 {
		fmt.Fprintf(a.out, "  %s: %s\n", words(lang).altered(), clean(strings.Join(v.Altered, ", ")))
	}
	r := v.Receipt
	if r == nil || v.Status != record.Valid && !v.Newer {
		return
	}
	if v.Newer {
		fmt.Fprintf(a.out, "  %s: %s · %s · %s\n", office(lang, "show.legible"),
			clean(r.Order), clean(r.Technician), clean(r.RecordSHA256))
		return
	}
	fmt.Fprintf(a.out, "  %s · %s · %s\n  sha256 %s\n", r.Order, r.Technician, render.In(l).When(r.Made.Format(time.RFC3339)), v.Digest)
	if s := r.Splitter; s != nil {
		code := ""
		if s.Cause != "" {
			code = " · " + s.Cause
		}
		port := ""
		if s.Port != "" {
			port = " (" + clean(s.Port) + ")"
		}
		fmt.Fprintf(a.out, "  %s%s: %g dBm, > %g dBm: %s%s\n", text("show.splitter_reading"), port, s.RxPowerDBm, s.RxMinDBm, words(lang).verdict(s.Verdict), code)
	}
	for _, c := range p.Attachments {
		fmt.Fprintf(a.out, "  %s: %s\n", clean(c.Name), office(lang, diagnosis.KeyFile+string(c.State)))
		if c.Detail != "" {
			fmt.Fprintf(a.out, "    %s\n", clean(c.Detail))
		}
	}
}

func receiptStatus(v record.ReceiptVerification, lang string) string {
	l, _ := diagnosis.ParseLang(lang)
	key := "show.receipt_unreadable"
	switch {
	case v.Newer:
		key = "show.receipt_future"
	case v.Status == record.Valid:
		key = "show.receipt_valid"
	case v.Status == record.SignerUnknown:
		key = "show.receipt_unproven"
	case v.Status == record.Altered && slices.Contains(v.Altered, "record_sha256"):
		key = "show.receipt_other"
	case v.Status == record.Altered:
		key = "show.receipt_bad"
	}
	return diagnosis.OfficeText(l, key)
}

// verifyDir verifies the records and receipts below a directory, as a collector
// files them: each record has one receipt at most, each receipt one record.
// Attachments are looked for in the directory that `receipt file` puts them in.
func (a *app) verifyDir(dir string, o record.VerifyOptions) ([]pair, error) {
	files, err := findDocuments(dir)
	if err != nil {
		return nil, err
	}
	var pairs []pair
	byDigest := map[string]int{} // of records
	for _, path := range files.records {
		rec := a.verifyRecordFile(path, o)
		if i, twice := byDigest[rec.Digest]; twice && rec.Digest != "" && rec.Status == pairs[i].Record.Status {
			continue // a copy
		}
		if i, twice := byDigest[rec.Digest]; !twice || pairs[i].Record.Status != record.Valid {
			byDigest[rec.Digest] = len(pairs)
		}
		pairs = append(pairs, pair{RecordFile: path, Record: &rec, code: recordExit(rec)})
	}
	type version struct {
		digest string
		status record.Status // a forged one may have the digest of the genuine one
	}
	seen := map[version]bool{} // of receipts
	for _, path := range files.receipts {
		var named struct {
			RecordSHA256 string `json:"record_sha256"`
		}
		env, err := a.readEnvelope(path)
		if err == nil {
			err = peek(env, record.TypeReceipt, &named)
		}
		i, found := byDigest[named.RecordSHA256]
		if err != nil || !found {
			p := a.verifyPair("", record.Verification{}, path, "")
			p.Record, p.Attachments = nil, nil
			p.Problem, p.code = "a receipt without a record", worse(p.code, cli.Fail)
			pairs = append(pairs, p)
			continue
		}
		first := pairs[i]
		p := a.verifyPair(first.RecordFile, *first.Record, path, attachmentsOf(path))
		this := version{p.Receipt.Digest, p.Receipt.Status}
		switch {
		case first.Receipt == nil:
			pairs[i] = p
		case seen[this]: // a copy
		default:
			// Whoever can put a file beside a genuine one must not take its place.
			if better(p.Receipt.Status, first.Receipt.Status) {
				pairs[i], first, p = p, p, first
			}
			p.Record = nil
			p.Problem, p.code = "a second receipt for "+first.RecordFile+": the first is "+first.ReceiptFile, worse(p.code, cli.Fail)
			pairs = append(pairs, p)
		}
		seen[this] = true
	}
	for i, p := range pairs {
		if p.Receipt == nil && p.Record.Status == record.Valid && p.Record.Command.Type == order.Accept {
			pairs[i].Problem, pairs[i].code = "a visit without a receipt", worse(p.code, cli.Inconclusive)
		}
	}
	return pairs, nil
}

// attachmentsOf is the directory in which the attachments of a receipt are kept.
func attachmentsOf(receiptFile string) string {
	dir := strings.TrimSuffix(receiptFile, receiptSuffix) + attachmentsSuffix
	if !isDir(dir) {
		return ""
	}
	return dir
}

const (
	recordSuffix      = ".record"
	receiptSuffix     = ".receipt"
	attachmentsSuffix = ".files"
)

// documents are the files of a collection.
type documents struct{ records, receipts []string }
