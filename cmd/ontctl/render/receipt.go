package render

import (
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"

	"ontagent/agent/diagnosis"
	"ontagent/agent/record"
)

// File is what was found of an attachment.
type File struct {
	State FileState
	// Of is whose content a swapped file has, if that is known.
	Of string
	// Thumbnail is a data URL of a small picture of it; empty: there is none.
	Thumbnail template.URL
}

// FileState says whether a file is the one that the receipt names.
type FileState string

// The states.
const (
	FileThere   FileState = "there"   // it is the one
	FileMissing FileState = "missing" // nothing is there, or nothing legible
	FileSwapped FileState = "swapped" // another file is there
	FileBad     FileState = "bad"     // what is there is no file, or too large
	FileAdded   FileState = "added"   // the receipt names none of this name
)

// ReceiptView is what is shown of a receipt.
type ReceiptView struct {
	Standing    Standing
	Rows        []Row
	Splitter    *Element
	Signature   string
	OnBehalf    string // the 代 mark; empty: the customer signed
	Behalf      string // who did
	Ratings     []Rated
	Attachments []Attached
	Added       []string // names of files that no attachment has
	Remarks     string
	Digest      string
	// Drawn is the picture of the signature, if it was found.
	Drawn template.URL
}

// Rated is what the customer said of one thing.
type Rated struct{ What, Rating, Class string }

// Attached is an attachment.
type Attached struct {
	Kind, Name, Type, Size, SHA256, State, Class string
	Thumbnail                                    template.URL
}

func (x Labels) receipt(o Options) *ReceiptView {
	v := o.Receipt
	if v == nil {
		return nil
	}
	out := &ReceiptView{Digest: v.Digest, Standing: x.receiptStanding(*v)}
	r := v.Receipt
	if r == nil {
		return out
	}
	add := func(name, value string) {
		if value != "" {
			out.Rows = append(out.Rows, Row{name, value})
		}
	}
	by := Clean(r.Technician)
	if v.Signer != "" {
		by += " (" + x.T("show.technician_key") + " " + Clean(v.Signer) + ")"
	}
	add(x.T("show.run_by"), by)
	if !r.Made.IsZero() {
		add(x.T("show.receipt_time"), x.time(r.Made))
	}
	if s := r.Splitter; s != nil {
		out.Splitter = x.splitter(*s)
	}
	x.signature(out, r, o.Attachments)
	for _, item := range record.RatingItems() {
		if rating, ok := r.Customer.Ratings[item]; ok {
			out.Ratings = append(out.Ratings, Rated{
				x.T(diagnosis.KeyRated + string(item)), Clean(x.T(diagnosis.KeyRating + string(rating))), ratingClass(rating),
			})
		}
	}
	for _, a := range r.Attachments {
		out.Attachments = append(out.Attachments, x.attachment(a, o.Attachments))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Attachments)) {
		if o.Attachments[name].State == FileAdded {
			out.Added = append(out.Added, Clean(name))
		}
	}
	out.Remarks = Clean(r.Remarks)
	if v.Newer || v.Status != record.Valid && v.Status != record.SignerUnknown {
		x.disown(out)
	}
	return out
}

// disown takes the marks off a receipt that is nobody's word.
func (x Labels) disown(r *ReceiptView) {
	claimed := x.T("show.receipt_claimed") + x.colon()
	if r.Splitter != nil {
		r.Splitter.Badge = Badge{Class: "skip", Mark: "!", Text: claimed + r.Splitter.Badge.Text}
	}
	for i := range r.Ratings {
		r.Ratings[i].Class, r.Ratings[i].Rating = "skip", claimed+r.Ratings[i].Rating
	}
	for i, a := range r.Attachments {
		if a.Class == "pass" {
			r.Attachments[i].Class, r.Attachments[i].State = "skip", claimed+a.State
		}
	}
}

func (x Labels) receiptStanding(v record.ReceiptVerification) Standing {
	s := Standing{Problem: Clean(v.Problem)}
	for _, name := range v.Altered {
		s.Altered = append(s.Altered, x.section(name))
	}
	var key string
	switch {
	case v.Newer:
		s.Class, key = "newer", "show.receipt_future"
	case v.Status == record.Valid:
		s.Class, key = "valid", "show.receipt_valid"
	case v.Status == record.SignerUnknown:
		s.Class, key = "unproven", "show.receipt_unproven"
	case v.Status == record.Altered:
		s.Class, key = "altered", "show.receipt_bad"
		if len(v.Altered) == 1 && v.Altered[0] == "record_sha256" {
			key = "show.receipt_other"
		}
	default:
		s.Class, key = "altered", "show.receipt_unreadable"
	}
	s.Text = x.T(key)
	return s
}

// splitter is judged like a measured value.
func (x Labels) splitter(s record.Splitter) *Element {
	e := &Element{Name: x.T("show.splitter_reading"), Badge: Badge{Class: "fail", Mark: "✗", Text: x.T("show.splitter_weak")}}
	if s.RxPowerDBm > s.RxMinDBm {
		e.Badge = Badge{Class: "pass", Mark: "✓", Text: x.T("show.splitter_ok")}
	}
	e.Lines = []string{x.short("rx_power_dbm", s.RxPowerDBm, s.RxMinDBm), "> " + x.exact("rx_min_dbm", s.RxMinDBm)}
	if s.Port != "" {
		e.Lines = append(e.Lines, x.T("show.splitter_port")+" "+Clean(s.Port))
	}
	if s.Meter != "" {
		e.Lines = append(e.Lines, x.T("show.meter")+" "+Clean(s.Meter))
	}
	return e
}

func (x Labels) signature(out *ReceiptView, r *record.Receipt, files map[string]File) {
	s := r.Customer.Signature
	if s == nil {
		out.Signature = x.T("show.unsigned")
		return
	}
	out.Signature = Clean(s.Typed)
	if s.Attachment != "" {
		out.Signature = Clean(s.Attachment)
		if f := files[s.Attachment]; f.State == FileThere {
			out.Drawn = f.Thumbnail
		}
	}
	if s.OnBehalf {
		out.OnBehalf, out.Behalf = x.T("show.on_behalf"), x.T("show.on_behalf_by")
		if s.Relation != "" {
			out.Behalf += x.colon() + Clean(x.T(diagnosis.KeyRelation+string(s.Relation)))
		}
	}
}

func ratingClass(r record.Rating) string {
	switch r {
	case record.VerySatisfied:
		return "pass"
	case record.Satisfied:
		return "open"
	case record.Dissatisfied:
		return "fail"
	}
	return "skip"
}

func (x Labels) attachment(a record.Attachment, files map[string]File) Attached {
	out := Attached{
		Kind: Clean(x.T(diagnosis.KeyAttachment + string(a.Kind))), Name: Clean(a.Name), Type: Clean(a.MediaType), Size: size(a.Bytes),
		SHA256: Clean(a.SHA256), State: x.T("show.attachment_unchecked"), Class: "skip",
	}
	if files == nil {
		return out
	}
	switch f := files[a.Name]; f.State {
	case FileThere:
		out.State, out.Class, out.Thumbnail = x.T("show.attachment_there"), "pass", f.Thumbnail
	case FileSwapped:
		out.State, out.Class = x.T("show.attachment_swapped"), "fail"
		if f.Of != "" {
			out.State = x.T("show.attachment_of", Clean(f.Of))
		}
	case FileBad:
		out.State, out.Class = x.T("show.attachment_bad"), "fail"
	case FileMissing:
		out.State, out.Class = x.T("show.attachment_missing"), "open"
	default:
		out.State, out.Class = x.T("show.attachment_missing"), "open"
	}
	return out
}

// size shows bytes as people read them.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
