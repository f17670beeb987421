package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
)

func (a *app) recordExport(_ context.Context, args []string) error {
	f := a.flags("record export")
	format := f.String("format", "json", "json (an array), jsonl (a line each) or csv")
	root := f.String("root", "", "operator's root key (.pub `FILE`): export genuine records only")
	dir := f.String("dir", "", "export what is in `DIR` and below: *.record, and *.receipt with them")
	rungs := f.Bool("rungs", false, "a row per rung, measurement and limit, instead of one per record")
	bom := f.Bool("bom", false, "csv: begin with a byte order mark, for spreadsheets")
	anything := f.Bool("any", false, "export also what is altered or not vouched for; `status` tells")
	out := f.String("o", "-", "write to `FILE`")
	if err := a.parse(f, args, 0, -1); err != nil {
		return err
	}
	write, ok := rowWriters()[*format]
	switch {
	case !ok:
		return cli.Exit(cli.Usage, "record export: --format %q is neither json, jsonl nor csv", *format)
	case *bom && *format != "csv":
		return cli.Exit(cli.Usage, "record export: --bom goes with --format csv only")
	case *dir == "" && f.NArg() == 0:
		return cli.Exit(cli.Usage, "record export: give files, or --dir")
	}
	o, err := rootOption(*root)
	if err != nil {
		return fmt.Errorf("record export: --root: %w", err)
	}
	paths := f.Args()
	if *dir != "" {
		found, err := recordsBelow(*dir)
		if err != nil {
			return cli.Exit(cli.Usage, "record export: --dir: %w", err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		if *out != "-" && sameFile(*out, path) {
			return cli.Exit(cli.Usage, "record export: -o %s would overwrite what is to be exported", *out)
		}
	}
	e := &exporter{app: a, verify: o, root: *root != "", any: *anything, seen: map[string]string{}}
	e.readReceipts(paths)

	w, finish, err := a.create(*out)
	if err != nil {
		return fmt.Errorf("record export: %w", err)
	}
	buffered := bufio.NewWriter(w)
	if *bom {
		_, _ = buffered.WriteString("\ufeff") // an error comes back from Flush
	}
	columns := recordColumns()
	if *rungs {
		columns = rungColumns()
	}
	rows := write(buffered, columns)
	for _, path := range paths {
		entry, ok := e.read(path)
		if !ok {
			continue
		}
		if *rungs {
			for _, row := range rungRows(entry) {
				rows.row(row)
			}
			continue
		}
		rows.row(recordRow(entry))
	}
	if err := errors.Join(rows.end(), buffered.Flush(), finish()); err != nil {
		return fmt.Errorf("record export: cannot write: %w", err)
	}
	return ended(e.code)
}

// create opens a file for writing, or takes standard output for "-".
func (a *app) create(path string) (io.Writer, func() error, error) {
	if path == "-" {
		return a.out, func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// recordsBelow returns the files of a directory tree that are called records or
// receipts, sorted. It follows no links.
func recordsBelow(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(path); entry.Type().IsRegular() && (ext == ".record" || ext == ".receipt") {
			paths = append(paths, path)
		}
		return nil
	})
	slices.Sort(paths)
	return paths, err
}

// better reports whether a receipt of status a is rather the genuine one than
// one of status b.
func better(a, b record.Status) bool {
	rank := []record.Status{record.SignerUnknown, record.Valid} // all others are worse
	return slices.Index(rank, a) > slices.Index(rank, b)
}

// exporter reads records one after the other, and tells what is wrong with
// them as it goes.
type exporter struct {
	*app
	verify record.VerifyOptions
	root   bool // a root key was given
	any    bool
	code   int

	seen     map[string]string // path by digest
	receipts map[string][]receiptFile
}

// receiptFile is a receipt before its record is known.
type receiptFile struct {
	path string
	data []byte
}

// exported is one record that goes out, with its receipt if there is one.
type exported struct {
	path    string
	doc     *render.Document
	receipt *record.ReceiptVerification
	several bool // receipts
}

func (e *exporter) complain(code int, path, format string, args ...any) {
	fmt.Fprintf(e.err, "ontctl: %s: %s\n", clean(path), clean(fmt.Sprintf(format, args...)))
	e.code = worse(e.code, code)
}

// isReceipt looks at what kind of document data says it is.
func isReceipt(data []byte) bool {
	var head struct {
		PayloadType string `json:"payloadType"`
	}
	return json.Unmarshal(data, &head) == nil && head.PayloadType == record.TypeReceipt
}

// readReceipts finds the receipts among the files, by the record they are for.
// Receipts are small; records are read later, one at a time.
func (e *exporter) readReceipts(paths []string) {
	e.receipts = map[string][]receiptFile{}
	for _, path := range paths {
		data, err := e.readFile(path)
		if err != nil || !isReceipt(data) {
			continue // told when its turn comes
		}
		// Held against no record a receipt is never valid, but tells which is its.
		v := record.VerifyReceipt(data, record.Verification{})
		if v.Receipt == nil {
			e.complain(receiptExit(v), path, "%s", v.Problem)
			continue
		}
		sha := v.Receipt.RecordSHA256
		if slices.ContainsFunc(e.receipts[sha], func(r receiptFile) bool { return bytes.Equal(r.data, data) }) {
			continue
		}
		e.receipts[sha] = append(e.receipts[sha], receiptFile{path, data})
	}
}

// read reads the record at path, and reports whether it is to be exported.
func (e *exporter) read(path string) (exported, bool) {
	data, err := e.readFile(path)
	if err != nil {
		e.complain(cli.Usage, path, "%v", err)
		return exported{}, false
	}
	if isReceipt(data) {
		return exported{}, false
	}
	v := verifyRecord(data, e.verify)
	doc, err := render.Open(data, v)
	switch {
	case err != nil:
		e.complain(max(recordExit(v), cli.Fail), path, "%v", err)
		return exported{}, false
	case v.Status == record.Unreadable:
		e.complain(cli.Usage, path, "%s", v.Problem)
		return exported{}, false
	case v.Status == record.Altered:
		e.complain(cli.Fail, path, "altered (%s): %s", strings.Join(v.Altered, ", "), v.Problem)
		if !e.any {
			return exported{}, false
		}
	case e.root && v.Status != record.Valid:
		e.complain(recordExit(v), path, "not vouched for: %s", v.Problem)
		if !e.any {
			return exported{}, false
		}
	}
	if first, ok := e.seen[doc.Digest]; ok {
		fmt.Fprintf(e.err, "ontctl: %s: the same record as %s, exported once\n", clean(path), clean(first))
		return exported{}, false
	}
	e.seen[doc.Digest] = path
	out := exported{path: path, doc: doc}
	e.receiptOf(&out, v)
	return out, true
}

// receiptOf adds the receipt of a record. Whoever can put a file beside a
// genuine one must not take its place: a valid one is it, whichever comes first.
// Which of several valid ones is meant, nobody can tell.
func (e *exporter) receiptOf(out *exported, rec record.Verification) {
	var chosen string
	for _, r := range e.receipts[out.doc.Digest] {
		rv, other := verifyReceipt(r.data, rec), r.path
		switch {
		case out.receipt == nil:
			out.receipt, chosen = &rv, r.path
			continue
		case better(rv.Status, out.receipt.Status):
			other, chosen, out.receipt, out.several = chosen, r.path, &rv, false
		case !better(out.receipt.Status, rv.Status):
			out.several = true
		}
		e.complain(cli.Fail, other, "a second receipt for %s", out.path)
	}
	if rv := out.receipt; rv != nil && (rv.Status == record.Altered || e.root && rv.Status != record.Valid) {
		e.complain(receiptExit(*rv), chosen, "receipt: %s", rv.Problem)
	}
}

// orderOf returns the order as far as it is legible.
func (x exported) orderOf() order.Order {
	if x.doc.Order == nil {
		return order.Order{}
	}
	return *x.doc.Order
}
