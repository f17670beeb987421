package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"ontagent/agent/record"
)

// readAttached reads a file of at most record.MaxAttachment bytes. What is no
// regular file itself – a link, a pipe – is refused unopened.
func readAttached(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("cannot read %s: %w", path, errNotRegular)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("cannot read %s: %w", path, errNotRegular)
	case info.Size() > record.MaxAttachment:
		return nil, fmt.Errorf("cannot read %s: %w", path, errTooLarge)
	}
	data, err := io.ReadAll(io.LimitReader(f, record.MaxAttachment+1))
	if err == nil && len(data) > record.MaxAttachment {
		err = fmt.Errorf("cannot read %s: %w", path, errTooLarge)
	}
	return data, err
}

var errTooLarge = fmt.Errorf("larger than %d bytes", record.MaxAttachment)

func fileDigest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// attachment describes a file for a receipt, and warns of what it gives away.
func (a *app) attachment(kind record.AttachmentKind, path string) (record.Attachment, error) {
	data, err := readAttached(path)
	if err != nil {
		return record.Attachment{}, err
	}
	if len(data) == 0 {
		return record.Attachment{}, fmt.Errorf("%s is empty", path)
	}
	name := filepath.Base(path)
	if !record.ValidAttachmentName(name) {
		return record.Attachment{}, fmt.Errorf("%q is no name that can be kept anywhere", name)
	}
	if tellsPlace(data) {
		fmt.Fprintf(a.err, "ontctl: %s tells where it was taken (GPS): it is attached as it is; where the place must stay secret, take it again without\n", clean(path))
	}
	return record.Attachment{
		Name: name, Kind: kind, MediaType: mediaType(data), Bytes: int64(len(data)), SHA256: fileDigest(data),
	}, nil
}

// mediaType tells by its first bytes what a file is.
func mediaType(data []byte) string {
	if len(data) >= 12 && string(data[4:8]) == "ftyp" && slices.Contains([]string{"heic", "heix", "mif1", "msf1"}, string(data[8:12])) {
		return "image/heic"
	}
	t, _, err := mime.ParseMediaType(http.DetectContentType(data))
	if err != nil {
		return "application/octet-stream"
	}
	return t
}

// tellsPlace reports whether a picture has a GPS block in its Exif data,
// whatever kind of picture it is.
func tellsPlace(data []byte) bool {
	const deepest = 1 << 20 // where cameras put it
	rest := data[:min(len(data), deepest)]
	for {
		_, after, found := bytes.Cut(rest, []byte("Exif\x00\x00"))
		if !found {
			// PNG has a block of its own for it.
			_, after, found = bytes.Cut(data[:min(len(data), deepest)], []byte("eXIf"))
			return found && gpsInTIFF(after)
		}
		if gpsInTIFF(after) {
			return true
		}
		rest = after
	}
}

// gpsInTIFF looks for the tag GPSInfo (0x8825) in the first directory (TIFF 6.0,
// section 2; Exif 2.3, section 4.6.3).
func gpsInTIFF(t []byte) bool {
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case len(t) < 8:
		return false
	case string(t[:4]) == "MM\x00*":
		order = binary.BigEndian
	case string(t[:4]) != "II*\x00":
		return false
	}
	at := uint64(order.Uint32(t[4:]))
	if at+2 > uint64(len(t)) {
		return false
	}
	n := uint64(order.Uint16(t[at:]))
	for i := range n {
		entry := at + 2 + 12*i
		if entry+12 > uint64(len(t)) {
			return false
		}
		if order.Uint16(t[entry:]) == 0x8825 {
			return true
		}
	}
	return false
}

// attachmentState says whether a file is the one that a receipt names.
type attachmentState string

const (
	attachedOK      attachmentState = "ok"
	attachedMissing attachmentState = "missing"
	attachedSwapped attachmentState = "swapped"    // it is another attachment of the receipt
	attachedAltered attachmentState = "altered"    // other bytes
	attachedBad     attachmentState = "unreadable" // a link, a directory, too large
	attachedLater   attachmentState = "added"      // no attachment of the receipt
	attachedUnknown attachmentState = "unchecked"  // nobody said where the files are
)

// attachmentCheck is what was found of one file.
type attachmentCheck struct {
	Name   string          `json:"name"`
	State  attachmentState `json:"state"`
	Detail string          `json:"detail,omitempty"` // English
	Of     string          `json:"of,omitempty"`     // the attachment whose content a swapped one has
}

// checkAttachments holds the files of a directory against those that a receipt
// names. Files among except – the record, the receipt – are not counted as
// added.
func checkAttachments(dir string, list []record.Attachment, except ...string) ([]attachmentCheck, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	byDigest := map[string]string{}
	for _, at := range list {
		byDigest[at.SHA256] = at.Name
	}
	var checks []attachmentCheck
	for _, at := range list {
		checks = append(checks, checkAttachment(dir, at, byDigest))
	}
	for _, e := range entries {
		named := slices.ContainsFunc(list, func(at record.Attachment) bool { return at.Name == e.Name() })
		if named || slices.ContainsFunc(except, func(path string) bool { return sameFile(path, filepath.Join(dir, e.Name())) }) {
			continue
		}
		checks = append(checks, attachmentCheck{Name: e.Name(), State: attachedLater, Detail: "the receipt does not name it: it was added after closing"})
	}
	return checks, nil
}

func checkAttachment(dir string, at record.Attachment, byDigest map[string]string) attachmentCheck {
	c := attachmentCheck{Name: at.Name, State: attachedOK}
	if !record.ValidAttachmentName(at.Name) { // of a receipt that is not valid anyway
		c.State, c.Detail = attachedBad, "no plain name of a file"
		return c
	}
	data, err := readAttached(filepath.Join(dir, at.Name))
	digest := fileDigest(data)
	other, known := byDigest[digest]
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.State = attachedMissing
	case err != nil:
		c.State, c.Detail = attachedBad, err.Error()
	case digest == at.SHA256 && int64(len(data)) == at.Bytes:
	case known && other != at.Name:
		c.State, c.Of, c.Detail = attachedSwapped, other, "its content is that of "+other
	default:
		c.State, c.Detail = attachedAltered, fmt.Sprintf("%d bytes with sha256 %s", len(data), digest)
		if int64(len(data)) < at.Bytes {
			c.Detail += fmt.Sprintf("; shorter: it had %d", at.Bytes)
		}
	}
	return c
}
