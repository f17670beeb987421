package module

import (
	"fmt"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// kind is which standard lays out a module's memory.
type kind int

const (
	kindUnknown kind = iota
	kindSFP          // SFF-8079, SFF-8472
	kindQSFP         // SFF-8436, SFF-8636
	kindCMIS
)

// kindOf tells by the identifier of SFF-8024, byte 0 of every module.
func kindOf(identifier byte) kind {
	switch identifier {
	case 0x02, 0x03: // soldered, SFP
		return kindSFP
	case 0x0c, 0x0d, 0x11: // QSFP, QSFP+, QSFP28
		return kindQSFP
	case 0x18, 0x19, 0x1b, 0x1e, 0x1f, 0x20: // QSFP-DD, OSFP, DSFP; QSFP, SFP-DD, SFP with CMIS
		return kindCMIS
	}
	return kindUnknown
}

// DecodeImage decodes a whole image, as `ethtool -m … raw on` writes it: of an
// SFP, A0h and, if there are more than 256 bytes, A2h; of others the lower half
// and behind it the upper halves of some pages, page 00h first.
//
// Which page an upper half is, the image does not say. Those of CMIS that have
// a checksum are known by it (01h, 02h); the last of the others that is not
// blank is taken for the lanes' (11h). Of a QSFP the last that can be page 03h
// is. Bytes that do not fill a half are left out.
//
// The statuses of the readings are as of Decode. The error is compatible with
// ErrUnknownKind for an image of another kind; any other means that there are
// too few bytes.
func DecodeImage(image []byte, source string) (Info, optics.Reading, error) {
	unread := optics.Unread(source, collectors.StatusError)
	if len(image) == 0 {
		return Info{}, unread, fmt.Errorf("cannot decode module: no bytes")
	}
	k := kindOf(image[0])
	switch k {
	case kindUnknown:
		return Info{}, unread, fmt.Errorf("cannot decode module: %w: identifier %#02x", ErrUnknownKind, image[0])
	case kindSFP:
		if len(image) <= 2*halfPage {
			return Decode(image, nil, source)
		}
		return Decode(image[:2*halfPage], image[2*halfPage:], source)
	case kindQSFP, kindCMIS:
	}
	if len(image) < 2*halfPage {
		return Info{}, unread, fmt.Errorf("cannot decode module: %d bytes, %d needed", len(image), 2*halfPage)
	}
	lower, page00 := image[:halfPage], image[halfPage:2*halfPage]
	var rest [][]byte
	for b := image[2*halfPage:]; len(b) >= halfPage; b = b[halfPage:] {
		rest = append(rest, b[:halfPage])
	}
	if k == kindQSFP {
		var page03 []byte
		for _, page := range rest {
			if plausiblePage03(page) {
				page03 = page
			}
		}
		m := decodeQSFP(lower, page00, page03)
		return m.info, m.reading([][]byte{lower[qsfpLiveOffset:][:qsfpLiveLength]}, source), nil
	}
	var page01, page02, lanes []byte
	for _, page := range rest {
		switch {
		case page01 == nil && cmisPageSound(page, cmisSumFrom01):
			page01 = page
		case page01 != nil && page02 == nil && cmisPageSound(page, cmisSumFrom02):
			page02 = page
		case !blank(page):
			lanes = page
		}
	}
	m := decodeCMIS(lower, page00, page01, page02)
	live := [][]byte{lower[cmisModuleOffset:][:cmisModuleLength]}
	if lanes != nil {
		live = append(live, lanes[cmisLaneOffset-halfPage:][:cmisLaneLength])
	}
	return m.info, m.reading(live, source), nil
}

func blank(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
