package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"

	"ontagent/agent/diagnosis"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
)

func (a *app) recordShow(_ context.Context, args []string) error {
	f := a.flags("record show")
	lang := f.String("lang", defaultLang(), "zh-CN or en")
	format := f.String("format", "text", "text or html: one page that prints and needs nothing else")
	out := f.String("o", "-", "write to `FILE`")
	asJSON := f.Bool("json", false, "print the signed content as JSON")
	root := f.String("root", "", "operator's root key (.pub `FILE`): say whether the record is genuine")
	receipt := f.String("receipt", "", "show the customer's receipt, a `FILE`, with the record")
	dir := f.String("attachments", "", "look in `DIR` for the receipt's attachments: check them, show small pictures")
	if err := a.parse(f, args, 1, 1); err != nil {
		return err
	}
	if err := checkLang(f, *lang); err != nil {
		return err
	}
	switch {
	case *format != "text" && *format != "html":
		return cli.Exit(cli.Usage, "record show: --format %q is neither text nor html", *format)
	case *asJSON && (*format != "text" || *receipt != ""):
		return cli.Exit(cli.Usage, "record show: --json goes with neither --format nor --receipt")
	case *dir != "" && *receipt == "":
		return cli.Exit(cli.Usage, "record show: --attachments needs --receipt")
	case *out != "-" && sameFile(*out, f.Arg(0)), *out != "-" && *receipt != "" && sameFile(*out, *receipt):
		return cli.Exit(cli.Usage, "record show: -o %s would overwrite what is to be shown", *out)
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("record show: %w", err)
	}
	o, err := rootOption(*root)
	if err != nil {
		return fmt.Errorf("record show: --root: %w", err)
	}
	v := verifyRecord(data, o)
	code := cli.OK
	if v.Status == record.Altered || v.Status == record.Unreadable || (*root != "" && v.Status != record.Valid) {
		code = recordExit(v)
	}
	if *asJSON {
		if v.Record == nil {
			return cli.Exit(cli.Usage, "record show: %s: %s", f.Arg(0), clean(v.Problem))
		}
		return cmp.Or(a.writeJSON(*out, v.Record), ended(code))
	}
	doc, err := render.Open(data, v)
	if err != nil {
		return cli.Exit(max(recordExit(v), cli.Fail), "record show: %s: %s", f.Arg(0), clean(err.Error()))
	}
	l, _ := diagnosis.ParseLang(*lang)
	options := render.Options{Lang: l}
	if *receipt != "" {
		data, err := a.readFile(*receipt)
		if err != nil {
			return fmt.Errorf("record show: --receipt: %w", err)
		}
		rv := verifyReceipt(data, v)
		options.Receipt = &rv
		if rv.Status == record.Altered || rv.Status == record.Unreadable || (*root != "" && rv.Status != record.Valid) {
			code = worse(code, receiptExit(rv))
		}
		if *dir != "" && rv.Receipt != nil {
			var wrong bool
			if options.Attachments, wrong, err = findAttachments(*dir, rv.Receipt.Attachments, f.Arg(0), *receipt); err != nil {
				return cli.Exit(cli.Usage, "record show: --attachments: %w", err)
			}
			if wrong {
				code = worse(code, cli.Fail)
			}
		}
	}
	if err := a.writePage(*out, *format, render.NewPage(doc, options)); err != nil {
		return fmt.Errorf("record show: %w", err)
	}
	return ended(code)
}

func rootOption(root string) (record.VerifyOptions, error) {
	if root == "" {
		return record.VerifyOptions{}, nil
	}
	key, err := readPublic(root)
	return record.VerifyOptions{Root: ed25519.PublicKey(key)}, err
}

// ended is nil for a command that ended well.
func ended(code int) error {
	if code == cli.OK {
		return nil
	}
	return cli.Silent(code)
}

// writePage writes a page whole or, as far as files go, not at all.
func (a *app) writePage(path, format string, page *render.Page) error {
	var b bytes.Buffer
	write := page.Text
	if format == "html" {
		write = page.HTML
	}
	if err := write(&b); err != nil {
		return err
	}
	return a.writeOut(path, b.Bytes())
}

// writeOut writes to a file, or to standard output for "-".
func (a *app) writeOut(path string, data []byte) error {
	var err error
	if path == "-" {
		_, err = a.out.Write(data)
	} else {
		err = os.WriteFile(path, data, 0o644) //nolint:gosec // for others to read; what is secret is masked
	}
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	return nil
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	ai, aErr := os.Stat(a)
	bi, bErr := os.Stat(b)
	return aErr == nil && bErr == nil && os.SameFile(ai, bi)
}
