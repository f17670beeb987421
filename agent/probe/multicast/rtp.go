package multicast

import "encoding/binary"

// RTP is what the sequence numbers of a stream tell. They are believed from the
// first packet on; a sender that starts anew is followed from there.
type RTP struct {
	Packets    uint64 `json:"packets"` // without duplicates
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	Reordered  uint64 `json:"reordered"`
	Restarts   int    `json:"restarts"` // another SSRC, or a leap in the numbers

	ssrc   uint32
	last   uint16 // the greatest number
	next   int32  // what would make a leap a restart; -1 for none
	window uint64 // which of the 64 numbers until last have come; bit 0 is last
}

// parseRTP takes a packet's fixed header and payload (RFC 3550, section 5.1).
func parseRTP(b []byte) (seq uint16, ssrc uint32, payload []byte, ok bool) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return 0, 0, nil, false
	}
	at := 12 + 4*int(b[0]&15)
	if b[0]&0x10 != 0 { // extension
		if len(b) < at+4 {
			return 0, 0, nil, false
		}
		at += 4 + 4*int(binary.BigEndian.Uint16(b[at+2:]))
	}
	end := len(b)
	if b[0]&0x20 != 0 { // padding, its length in the last byte
		end -= int(b[end-1])
		if b[len(b)-1] == 0 {
			return 0, 0, nil, false
		}
	}
	if at > end {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[8:]), b[at:end], true
}

// maxDropout is the greatest gap that is a loss and not a restart (RFC 3550,
// appendix A.1).
const maxDropout = 3000

// take counts a packet, and reports whether it is new: neither a duplicate nor
// of doubtful number.
func (r *RTP) take(seq uint16, ssrc uint32) bool {
	if r.Packets == 0 || ssrc != r.ssrc {
		if r.Packets > 0 {
			r.Restarts++
		}
		r.restart(seq, ssrc)
		return true
	}
	ahead := int(int16(seq - r.last))
	switch {
	case ahead > 0 && ahead < maxDropout:
		r.Lost += uint64(ahead - 1)
		r.window = r.window<<min(ahead, 64) | 1
		r.last = seq
	case ahead <= 0 && ahead > -64:
		bit := uint64(1) << -ahead
		if r.window&bit != 0 {
			r.Duplicates++
			return false
		}
		r.window |= bit
		r.Lost-- // it was counted when what followed it came
		r.Reordered++
	case int32(seq) == r.next: // the second in a row
		r.Restarts++
		r.restart(seq, ssrc)
		r.Packets++ // the first
		return true
	default:
		r.next = int32(seq + 1)
		return false
	}
	r.Packets++
	r.next = -1
	return true
}

// restart believes seq, and takes what was before it as not lost.
func (r *RTP) restart(seq uint16, ssrc uint32) {
	r.ssrc, r.last, r.next, r.window = ssrc, seq, -1, ^uint64(0)
	r.Packets++
}

func (r *RTP) loss() float64 { return ratio(r.Lost, r.Packets) }

func ratio(lost, got uint64) float64 {
	if lost+got == 0 {
		return 0
	}
	return float64(lost) / float64(lost+got)
}
