package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
)

// TypeReceipt is the payload type of a receipt.
const TypeReceipt = "application/vnd.ontagent.receipt+json"

// Bounds of a receipt and of what is attached to it.
const (
	MaxReceipt         = 32 << 10 // a signed receipt, bytes
	MaxAttachments     = 16       // files
	MaxAttachment      = 16 << 20 // one file, bytes
	MaxAttachmentsSize = 64 << 20 // all files, bytes
	maxRemarks         = 1000     // bytes
	maxName            = 100      // of an attachment, bytes
	maxPort            = 64       // bytes
)

// Receipt (客户回执) is what the technician adds to a record when the visit is
// over: what was measured by hand, photos by their digests, what the customer
// said. There is exactly one for each record. It never alters the record's
// verdict.
type Receipt struct {
	V            int       `json:"v"`
	RecordSHA256 string    `json:"record_sha256"` // Verification.Digest of the record
	Order        string    `json:"order"`
	Job          string    `json:"job"`
	Device       string    `json:"device"`
	Technician   string    `json:"technician"`
	Made         time.Time `json:"made"` // UTC, by the clock of the technician's computer

	Splitter    *Splitter    `json:"splitter,omitempty"` // nil: not measured
	Attachments []Attachment `json:"attachments,omitempty"`
	Customer    Customer     `json:"customer"`
	Remarks     string       `json:"remarks,omitempty"`

	// Digests are the SHA-256, in hex, of each member as it was signed, so that
	// an altered receipt tells where. Sign fills them in.
	Digests map[string]string `json:"digests"`
}

// Splitter is the reading at the splitter box (分纤箱), taken by hand.
type Splitter struct {
	RxPowerDBm float64 `json:"rx_power_dbm"`
	Port       string  `json:"port,omitempty"`  // as labelled
	Meter      string  `json:"meter,omitempty"` // model or number of the power meter

	// RxMinDBm is what the reading has to be above: splitter.rx_min_dbm as it
	// stood in the record.
	RxMinDBm float64 `json:"rx_min_dbm"`
	Verdict  string  `json:"verdict"`         // pass or fail
	Cause    string  `json:"cause,omitempty"` // of fail: a catalogue code
}

// JudgeSplitter fills in what s has to say about its reading: the limit itself
// fails. The comparison is unrounded.
func JudgeSplitter(s Splitter, rxMinDBm float64) Splitter {
	s.RxMinDBm, s.Verdict, s.Cause = rxMinDBm, verdictPass, ""
	if !(s.RxPowerDBm > rxMinDBm) {
		s.Verdict, s.Cause = verdictFail, string(diagnosis.OpticalSplitterWeak)
	}
	return s
}

const (
	verdictPass = "pass"
	verdictFail = "fail"
)

// Attachment names a file that belongs to a receipt.
type Attachment struct {
	Name      string         `json:"name"` // no path
	Kind      AttachmentKind `json:"kind"`
	MediaType string         `json:"media_type"`
	Bytes     int64          `json:"bytes"`
	SHA256    string         `json:"sha256"` // of the exact bytes, hex
}

// AttachmentKind says what an attachment shows.
type AttachmentKind string

// The kinds of attachment.
const (
	CableRoute    AttachmentKind = "cable_route"    // 布线
	SplitterPhoto AttachmentKind = "splitter_port"  // 分纤箱端口及标签
	ONUPhoto      AttachmentKind = "onu"            // 光猫
	SetTopBox     AttachmentKind = "set_top_box"    // 机顶盒
	SignedReceipt AttachmentKind = "signed_receipt" // 签字回执单
	SignatureFile AttachmentKind = "signature"      // the customer's signature, drawn
	OtherFile     AttachmentKind = "other"          //
)

// AttachmentKinds returns the kinds in the order in which people expect them.
func AttachmentKinds() []AttachmentKind {
	return []AttachmentKind{CableRoute, SplitterPhoto, ONUPhoto, SetTopBox, SignedReceipt, SignatureFile, OtherFile}
}

// Customer is what the customer has to do with a receipt. No name, no address
// and no telephone number is among it.
type Customer struct {
	Signature *Signature            `json:"signature,omitempty"` // nil: not signed
	Ratings   map[RatingItem]Rating `json:"ratings,omitempty"`
}

// Signature is the customer's, or somebody else's for the customer.
type Signature struct {
	Attachment string `json:"attachment,omitempty"` // name of the file with it
	Typed      string `json:"typed,omitempty"`      // or what was typed, by MaskName

	OnBehalf bool `json:"on_behalf,omitempty"` // 代: not the customer's own
	// Relation of whoever signed to the customer, if OnBehalf.
	Relation Relation `json:"relation,omitempty"`
}

// Relation is how somebody who signs on behalf is related to the customer.
type Relation string

// The relations.
const (
	Family    Relation = "family"    // 家属
	Tenant    Relation = "tenant"    // 租户
	Landlord  Relation = "landlord"  // 房东
	Neighbour Relation = "neighbour" // 邻居
	Colleague Relation = "colleague" // 同事
	Property  Relation = "property"  // 物业
	OtherKin  Relation = "other"     //
)

// Relations returns the relations there are.
func Relations() []Relation {
	return []Relation{Family, Tenant, Landlord, Neighbour, Colleague, Property, OtherKin}
}

// RatingItem is what a customer is asked to rate.
type RatingItem string

// The rated items.
const (
	RateOverall     RatingItem = "overall"     // 总体
	RateAttitude    RatingItem = "attitude"    // 服务态度
	RateSkill       RatingItem = "skill"       // 业务技能
	RatePunctuality RatingItem = "punctuality" // 守时
	RateTidiness    RatingItem = "tidiness"    // 施工规范、现场整洁
)

// RatingItems returns the items in the order in which they are asked.
func RatingItems() []RatingItem {
	return []RatingItem{RateOverall, RateAttitude, RateSkill, RatePunctuality, RateTidiness}
}

// Rating is one of three levels.
type Rating string

// The ratings.
const (
	VerySatisfied Rating = "very_satisfied" // 很满意
	Satisfied     Rating = "satisfied"      // 基本满意
	Dissatisfied  Rating = "dissatisfied"   // 不满意
)

// Ratings returns the levels, best first.
func Ratings() []Rating { return []Rating{VerySatisfied, Satisfied, Dissatisfied} }

// MaskName keeps the first letter of a name, so that a receipt can say who
// signed without telling: 王小明 becomes 王**.
func MaskName(name string) string {
	r, _ := utf8.DecodeRuneInString(strings.TrimSpace(name))
	if r == utf8.RuneError || !unicode.IsLetter(r) {
		return ""
	}
	return string(r) + "**"
}

// Validate checks everything that needs neither key nor record.
func (r Receipt) Validate() error {
	switch {
	case r.V != 1:
		return &VersionError{What: "receipt", V: r.V}
	case !validSHA256(r.RecordSHA256):
		return errors.New("record_sha256 is not a SHA-256 in hex")
	case !order.ValidID(r.Order) || !order.ValidID(r.Job) || !order.ValidID(r.Technician):
		return errors.New("order, job or technician is not 1 to 64 letters, digits, - and _")
	case !order.ValidDevice(r.Device):
		return fmt.Errorf("device %.40q is not 8 to 23 letters and digits", r.Device)
	case r.Made.IsZero():
		return errors.New("made is missing")
	case !fits(r.Remarks, maxRemarks):
		return fmt.Errorf("remarks are longer than %d bytes, or no text", maxRemarks)
	case len(r.Attachments) > MaxAttachments:
		return fmt.Errorf("%d attachments are more than %d", len(r.Attachments), MaxAttachments)
	}
	if r.Splitter != nil {
		if err := r.Splitter.validate(); err != nil {
			return err
		}
	}
	if err := validateAttachments(r.Attachments); err != nil {
		return err
	}
	return r.Customer.validate(r.Attachments)
}

func (s Splitter) validate() error {
	if math.IsNaN(s.RxPowerDBm) || s.RxPowerDBm < -70 || s.RxPowerDBm > 20 {
		return fmt.Errorf("splitter: %g dBm is no reading", s.RxPowerDBm)
	}
	if !fits(s.Port, maxPort) || !fits(s.Meter, maxPort) {
		return fmt.Errorf("splitter: port or meter is longer than %d bytes, or no text", maxPort)
	}
	if s != JudgeSplitter(s, s.RxMinDBm) {
		return fmt.Errorf("splitter: %g dBm against %g dBm does not make %.20q", s.RxPowerDBm, s.RxMinDBm, s.Verdict)
	}
	return nil
}

func validateAttachments(all []Attachment) error {
	seen, total := map[string]bool{}, int64(0)
	for i, a := range all {
		folded := strings.Map(foldRune, a.Name)
		switch {
		case !ValidAttachmentName(a.Name):
			return fmt.Errorf("attachments[%d]: %.100q is not the plain name of a file", i, a.Name)
		case seen[folded]:
			return fmt.Errorf("attachments[%d]: name %q stands twice", i, a.Name)
		case !slices.Contains(AttachmentKinds(), a.Kind):
			return fmt.Errorf("attachments[%d]: kind %.40q is not known", i, a.Kind)
		case !validMediaType(a.MediaType):
			return fmt.Errorf("attachments[%d]: media_type %.40q is none", i, a.MediaType)
		case a.Bytes <= 0 || a.Bytes > MaxAttachment:
			return fmt.Errorf("attachments[%d]: %d bytes are not 1 to %d", i, a.Bytes, MaxAttachment)
		case !validSHA256(a.SHA256):
			return fmt.Errorf("attachments[%d]: sha256 is not a SHA-256 in hex", i)
		}
		seen[folded] = true
		if total += a.Bytes; total > MaxAttachmentsSize {
			return fmt.Errorf("attachments have more than %d bytes in all", MaxAttachmentsSize)
		}
	}
	return nil
}

func (c Customer) validate(attachments []Attachment) error {
	for item, rating := range c.Ratings {
		if !slices.Contains(RatingItems(), item) || !slices.Contains(Ratings(), rating) {
			return fmt.Errorf("rating %.40q of %.40q is not known", rating, item)
		}
	}
	s := c.Signature
	if s == nil {
		return nil
	}
	attached := false
	for _, a := range attachments {
		attached = attached || a.Name == s.Attachment
	}
	switch {
	case (s.Attachment == "") == (s.Typed == ""):
		return errors.New("signature is neither attached nor typed, or both")
	case s.Attachment != "" && !attached:
		return fmt.Errorf("signature: %.100q is not attached", s.Attachment)
	case s.Typed != "" && s.Typed != MaskName(s.Typed):
		return errors.New("signature: what was typed is not masked")
	case s.OnBehalf && !slices.Contains(Relations(), s.Relation):
		return fmt.Errorf("signature on behalf: relation %.40q is not known", s.Relation)
	case !s.OnBehalf && s.Relation != "":
		return errors.New("signature: a relation is only stated of who signs on behalf")
	}
	return nil
}

// ValidAttachmentName reports whether name is that of a file, without a path,
// that can be kept and shown anywhere: 1 to 100 bytes of UTF-8 without
// separators and control characters, and not beginning with a point.
func ValidAttachmentName(name string) bool {
	return name != "" && name[0] != '.' && fits(name, maxName) && !strings.ContainsAny(name, `/\:`) &&
		strings.TrimSpace(name) == name
}

// fits reports whether s is text of at most limit bytes that a screen can show.
func fits(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) // direction marks swap what is read
	})
}

func validMediaType(s string) bool {
	major, minor, ok := strings.Cut(s, "/")
	plain := func(s string) bool {
		return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.+-") == ""
	}
	return ok && len(s) <= maxPort && plain(major) && plain(minor)
}

func validSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Sign seals a receipt with the technician's key.
func (r Receipt) Sign(technician ed25519.PrivateKey) (order.Envelope, error) {
	if err := r.Validate(); err != nil {
		return order.Envelope{}, fmt.Errorf("cannot sign receipt: %w", err)
	}
	r.Digests = nil
	plain, err := json.Marshal(r)
	if err == nil {
		r.Digests, err = sectionDigests(plain)
	}
	if err != nil {
		return order.Envelope{}, fmt.Errorf("cannot encode receipt: %w", err)
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return order.Envelope{}, fmt.Errorf("cannot encode receipt: %w", err)
	}
	return order.Sign(TypeReceipt, payload, technician)
}

// decodeReceipt decodes a payload as far as it is legible. Errors are
// *VersionError, or tell what is wrong.
func decodeReceipt(payload []byte) (*Receipt, error) {
	var r Receipt
	if err := json.Unmarshal(payload, &r); err != nil {
		if n, ok := newerVersion(payload); ok {
			return &r, &VersionError{What: "receipt", V: n}
		}
		return nil, err
	}
	if r.V != 1 {
		return &r, &VersionError{What: "receipt", V: r.V}
	}
	if err := checkNames(payload); err != nil {
		return &r, err
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&Receipt{}); err != nil {
		return &r, err
	}
	return &r, r.Validate()
}

// newerVersion tells the version of a payload, and whether it is later than what
// we write: one that cannot be decoded as ours may still tell.
func newerVersion(payload []byte) (int, bool) {
	var head struct {
		V int `json:"v"`
	}
	return head.V, json.Unmarshal(payload, &head) == nil && head.V > 1
}

// VersionError says that a document is from a newer version of this program.
type VersionError struct {
	What string // record, receipt
	V    int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s version %d is not known to this program", e.What, e.V)
}
