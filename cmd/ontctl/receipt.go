package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
)

// office returns a text of the catalogue in the language of a tag.
func office(lang, key string) string {
	l, _ := diagnosis.ParseLang(lang)
	return diagnosis.OfficeText(l, key)
}

// implausibleDBm is more light than reaches any splitter box: whoever reads it
// forgot the minus sign. It only bounds what is written; receipts say what they say.
const implausibleDBm = 8.0

func (a *app) receiptMake(_ context.Context, args []string) error {
	f := a.flags("receipt make")
	recordFile := f.String("record", "", "the `RECORD` that the receipt is for")
	keyFile := f.String("key", "", "technician's secret key `FILE`")
	root := f.String("root", "", "operator's root key: .pub `FILE` or the key itself; the record is then verified up to it")
	out := f.String("o", "", "write the receipt to `FILE`, which must not exist")
	files := f.String("files", "", "copy the attachments into `DIR`, so that they stay together")
	var splitter record.Splitter
	dbm := f.Float64("splitter-dbm", 0, "received power at the splitter box, `DBM`, as read by hand")
	f.StringVar(&splitter.Port, "splitter-port", "", "`PORT` it was read at, as labelled")
	f.StringVar(&splitter.Meter, "splitter-meter", "", "model or number of the power `METER`")
	var photos, ratings list
	f.Var(&photos, "photo", "attach a file, `KIND=FILE`: "+joined(record.AttachmentKinds())+"; repeat for more")
	signature := f.String("signature", "", "attach the customer's signature, a `FILE`")
	typed := f.String("typed-signature", "", "`NAME` that the customer typed; only its first letter is kept")
	behalf := f.String("on-behalf", "", "代: somebody else signed, of this `RELATION` to the customer: "+joined(record.Relations()))
	f.Var(&ratings, "rating", "`ITEM=RATING`: "+joined(record.RatingItems())+"; "+joined(record.Ratings())+"; repeat for more")
	remarks := f.String("remarks", "", "`TEXT` to add; no name, no address")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	key, err := readKey(*keyFile)
	if err != nil {
		return fmt.Errorf("receipt make: --key: %w", err)
	}
	v, o, err := a.receiptRecord(*recordFile, *root)
	if err != nil {
		return err
	}
	public, _ := key.Public().(ed25519.PublicKey)
	i := slices.IndexFunc(o.Technicians, func(t order.Technician) bool { return t.Key.ID() == order.KeyID(public) })
	if i < 0 {
		return cli.Exit(cli.Refused, "receipt make: the key is not that of a technician whom order %s names", o.Order)
	}
	if *out == "" {
		*out = strings.TrimSuffix(*recordFile, ".record") + ".receipt"
	}
	r := record.Receipt{
		V: 1, RecordSHA256: v.Digest, Order: o.Order, Job: v.Record.Job, Device: v.Record.Device,
		Technician: o.Technicians[i].ID, Made: time.Now().UTC().Truncate(time.Second), Remarks: *remarks,
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case given["splitter-dbm"]:
		if *dbm >= implausibleDBm {
			return cli.Exit(cli.Usage, "receipt make: %g dBm at a splitter box? was %g meant", *dbm, -*dbm)
		}
		splitter.RxPowerDBm = *dbm
		splitter = record.JudgeSplitter(splitter, splitterMin(v, o))
		r.Splitter = &splitter
	case given["splitter-port"], given["splitter-meter"]:
		return cli.Exit(cli.Usage, "receipt make: --splitter-port and --splitter-meter need --splitter-dbm")
	}
	paths := map[string]string{} // by name
	attach := func(kind record.AttachmentKind, path string) error {
		at, err := a.attachment(kind, path)
		if err == nil {
			r.Attachments, paths[at.Name] = append(r.Attachments, at), path
		}
		return err
	}
	for _, photo := range photos {
		kind, path, ok := strings.Cut(photo, "=")
		if !ok {
			return cli.Exit(cli.Usage, "receipt make: --photo %q is not KIND=FILE", photo)
		}
		if err := attach(oneOf(kind, diagnosis.KeyAttachment, record.AttachmentKinds()), path); err != nil {
			return fmt.Errorf("receipt make: --photo: %w", err)
		}
	}
	if *signature != "" {
		if err := attach(record.SignatureFile, *signature); err != nil {
			return fmt.Errorf("receipt make: --signature: %w", err)
		}
	}
	switch {
	case *signature != "" || *typed != "":
		s := &record.Signature{OnBehalf: *behalf != "", Relation: oneOf(*behalf, diagnosis.KeyRelation, record.Relations())}
		if *signature != "" {
			s.Attachment = filepath.Base(*signature)
		}
		if *typed != "" {
			if s.Typed = record.MaskName(*typed); s.Typed == "" {
				return cli.Exit(cli.Usage, "receipt make: --typed-signature %q does not begin with a letter", *typed)
			}
		}
		r.Customer.Signature = s
	case *behalf != "":
		return cli.Exit(cli.Usage, "receipt make: --on-behalf needs --signature or --typed-signature")
	}
	if len(ratings) > 0 {
		r.Customer.Ratings = map[record.RatingItem]record.Rating{}
	}
	for _, rating := range ratings {
		item, level, _ := strings.Cut(rating, "=")
		rated := oneOf(item, diagnosis.KeyRated, record.RatingItems())
		if _, twice := r.Customer.Ratings[rated]; twice {
			return cli.Exit(cli.Usage, "receipt make: --rating: %s is rated twice", item)
		}
		r.Customer.Ratings[rated] = oneOf(level, diagnosis.KeyRating, record.Ratings())
	}
	env, err := r.Sign(key)
	if err != nil {
		return cli.Exit(cli.Usage, "receipt make: %w", err)
	}
	data, err := record.Marshal(env)
	if err != nil {
		return err
	}
	if len(data) > record.MaxReceipt {
		return cli.Exit(cli.Usage, "receipt make: %d bytes are more than any receipt has", len(data))
	}
	if *files != "" {
		if err := copyAttachments(*files, r.Attachments, paths); err != nil {
			return fmt.Errorf("receipt make: --files: %w", err)
		}
	}
	// Never over another: there is one for each record.
	if err := writeNew(*out, data, 0o644); err != nil {
		return fmt.Errorf("receipt make: %w", err)
	}
	fmt.Fprintf(a.out, "%s: %s\n", *out, order.Digest(env))
	return nil
}

// receiptRecord opens the record that a receipt is to be made for. Without a
// root key nobody vouches for its order; that is for whoever verifies both.
func (a *app) receiptRecord(path, root string) (record.Verification, order.Order, error) {
	fail := func(code int, format string, args ...any) (record.Verification, order.Order, error) {
		return record.Verification{}, order.Order{}, cli.Exit(code, "receipt make: "+format, args...)
	}
	data, err := a.readFile(path)
	if err != nil {
		return fail(cli.Usage, "--record: %w", err)
	}
	o, err := rootOption(root)
	if err != nil {
		return fail(cli.Usage, "--root: %w", err)
	}
	v := verifyRecord(data, o)
	if v.Status != record.Valid && (root != "" || v.Status != record.SignerUnknown) {
		return fail(recordExit(v), "%s: %s", path, clean(v.Problem))
	}
	if v.Order != nil {
		return v, *v.Order, nil
	}
	var ord order.Order
	if err := peek(v.Record.Order, order.TypeOrder, &ord); err != nil {
		return fail(cli.Usage, "%s: order: %w", path, err)
	}
	return v, ord, nil
}

// splitterMin is the limit of the light at the splitter box that was in force
// when the record was closed. Old records do not state it; then it is the
// order's, or the norm's.
func splitterMin(v record.Verification, o order.Order) float64 {
	var limits []acceptance.Limit
	if json.Unmarshal(v.Record.Limits, &limits) == nil {
		for _, l := range limits {
			if l.Name == acceptance.SplitterRxMinDBm {
				return l.Value
			}
		}
	}
	t, err := acceptance.Norms().With(acceptance.OriginOrder, o.Thresholds)
	if err != nil {
		t = acceptance.Norms()
	}
	return t.Limit(acceptance.SplitterRxMinDBm).Value
}

// oneOf reads a value as it travels, or as it is called in Chinese.
func oneOf[T ~string](s, family string, all []T) T {
	for _, v := range all {
		if s != "" && s == diagnosis.OfficeText(diagnosis.Chinese, family+string(v)) {
			return v
		}
	}
	return T(s)
}

func joined[T ~string](all []T) string {
	var names []string
	for _, v := range all {
		names = append(names, string(v))
	}
	return strings.Join(names, ", ")
}

// copyAttachments copies files, which must fit what was attached, to a
// directory, which is made if needed.
func copyAttachments(dir string, list []record.Attachment, from map[string]string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for _, at := range list {
		data, err := readAttached(from[at.Name])
		if err != nil {
			return err
		}
		if fileDigest(data) != at.SHA256 {
			return fmt.Errorf("%s has changed meanwhile", from[at.Name])
		}
		to := filepath.Join(dir, at.Name)
		if have, err := readAttached(to); err == nil && fileDigest(have) == at.SHA256 {
			continue // it is there already
		}
		if err := writeNew(to, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

var errNotRegular = errors.New("not a regular file")
