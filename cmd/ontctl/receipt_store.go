package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/transport/durable"
)

// receiptFile files a receipt beside its record in a collector's directory.
func (a *app) receiptFile(_ context.Context, args []string) error {
	f := a.flags("receipt file")
	dir := f.String("dir", "", "the collector's `DIR`, with the record in it")
	root := f.String("root", "", "operator's root key: .pub `FILE` or the key itself")
	trustFile := f.String("trust", "", "newer trust list `FILE`, whose revocations count too")
	if err := a.parse(f, args, 1, 2); err != nil {
		return err
	}
	if *dir == "" || *root == "" {
		return cli.Exit(cli.Usage, "receipt file: --dir or --root is missing")
	}
	o, err := a.verifyOptions(f.Name(), *root, *trustFile)
	if err != nil {
		return err
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("receipt file: %w", err)
	}
	var named record.Receipt
	env, err := a.readEnvelope(f.Arg(0))
	if err == nil {
		err = peek(env, record.TypeReceipt, &named)
	}
	if err != nil {
		return cli.Exit(cli.Usage, "receipt file: %w", err)
	}
	path, rec, err := a.recordOf(*dir, named, o)
	if err != nil {
		return err
	}
	v := verifyReceipt(data, rec)
	if v.Status != record.Valid {
		return cli.Exit(receiptExit(v), "receipt file: %s: %s", f.Arg(0), clean(v.Problem))
	}
	stem := strings.TrimSuffix(path, recordSuffix)
	if have, err := a.readFile(stem + receiptSuffix); err == nil {
		if bytes.Equal(have, data) {
			fmt.Fprintf(a.out, "%s: filed before\n", stem+receiptSuffix)
			return nil
		}
		return cli.Exit(cli.Refused, "receipt file: %s has a receipt already: %s", path, stem+receiptSuffix)
	}
	if err := keepAttachments(stem+attachmentsSuffix, v.Receipt.Attachments, f.Arg(1)); err != nil {
		code := cli.Fail
		if f.NArg() < 2 {
			code = cli.Usage
		}
		return cli.Exit(code, "receipt file: %w", err)
	}
	// The receipt is last: where it stands, all that it names does. A second one
	// that comes at the same time does not get here.
	if err := fileOnce(stem+receiptSuffix, data); err != nil {
		return cli.Exit(cli.Refused, "receipt file: %w", err)
	}
	fmt.Fprintf(a.out, "%s: filed\n", stem+receiptSuffix)
	return nil
}

// recordOf finds the record that a receipt names, verified.
func (a *app) recordOf(dir string, named record.Receipt, o record.VerifyOptions) (string, record.Verification, error) {
	files, err := findDocuments(dir)
	if err != nil {
		return "", record.Verification{}, cli.Exit(cli.Usage, "receipt file: --dir: %w", err)
	}
	for _, path := range files.records {
		v := a.verifyRecordFile(path, o)
		if v.Digest != named.RecordSHA256 || v.Digest == "" {
			continue
		}
		if v.Status != record.Valid {
			return "", v, cli.Exit(recordExit(v), "receipt file: %s: %s", path, clean(v.Problem))
		}
		return path, v, nil
	}
	return "", record.Verification{}, cli.Exit(cli.Fail, "receipt file: no record below %s has the digest %s that the receipt names", dir, clean(named.RecordSHA256))
}

// keepAttachments copies the attachments of a receipt from one directory to
// another. Anything that is not exactly what the receipt names is refused.
func keepAttachments(to string, list []record.Attachment, from string) error {
	if len(list) == 0 {
		return nil
	}
	if from == "" {
		return errors.New("the receipt has attachments: name their directory")
	}
	paths := map[string]string{}
	for _, at := range list {
		c := checkAttachment(from, at, nil)
		if c.State != attachedOK {
			return fmt.Errorf("attachment %s is %s %s", c.Name, c.State, c.Detail)
		}
		paths[at.Name] = filepath.Join(from, at.Name)
	}
	return copyAttachments(to, list, paths)
}

// fileOnce makes a file durable under a name that nothing has yet.
func fileOnce(path string, data []byte) error {
	temp := fmt.Sprintf("%s.%d.part", path, os.Getpid())
	if err := durable.WriteFile(durable.OS{}, "receipt", temp, data, 0o600); err != nil {
		return err
	}
	err := os.Link(temp, path)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s was filed meanwhile", path)
	}
	return errors.Join(err, durable.Remove(durable.OS{}, "receipt", temp))
}

// maxDocuments bounds what is looked at of a directory.
const maxDocuments = 1 << 20

// findDocuments lists the records and receipts below a directory, in order. It
// follows no links.
func findDocuments(dir string) (documents, error) {
	var d documents
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasSuffix(path, attachmentsSuffix):
			return fs.SkipDir
		case !e.Type().IsRegular():
		case strings.HasSuffix(path, recordSuffix):
			d.records = append(d.records, path)
		case strings.HasSuffix(path, receiptSuffix):
			d.receipts = append(d.receipts, path)
		}
		if len(d.records)+len(d.receipts) > maxDocuments {
			return fmt.Errorf("more than %d records and receipts: check a part of them", maxDocuments)
		}
		return nil
	})
	return d, err
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}
