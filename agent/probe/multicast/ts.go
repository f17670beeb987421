package multicast

// TS is what the continuity counters of an MPEG transport stream tell (ISO/IEC
// 13818-1, section 2.4.3.3): four bits for each PID, which count the packets
// with payload.
type TS struct {
	Packets uint64 `json:"packets"`
	// Errors counts discontinuities that weren't announced; Lost the packets
	// that are missing at least, up to 15 each time.
	Errors uint64 `json:"cc_errors"`
	Lost   uint64 `json:"lost"`
	// Damaged packets were marked by who sent them (transport_error_indicator).
	Damaged uint64 `json:"damaged"`
	PIDs    int    `json:"pids"`

	// By PID: the counter, and marks.
	counters [8192]byte
}

const (
	tsSize = 188
	tsSync = 0x47
	tsNull = 0x1fff // stuffing, whose counter means nothing

	tsSeen     = 0x10
	tsRepeated = 0x20 // the last packet has come twice
)

// isTS reports whether b is made of whole TS packets.
func isTS(b []byte) bool {
	if len(b) == 0 || len(b)%tsSize != 0 {
		return false
	}
	for at := 0; at < len(b); at += tsSize {
		if b[at] != tsSync {
			return false
		}
	}
	return true
}

// take counts the packets in b, for which isTS holds.
func (t *TS) take(b []byte) {
	for ; len(b) >= tsSize; b = b[tsSize:] {
		t.packet(b[:tsSize])
	}
}

func (t *TS) packet(b []byte) {
	t.Packets++
	if b[1]&0x80 != 0 {
		t.Damaged++
		return
	}
	pid := uint16(b[1]&0x1f)<<8 | uint16(b[2])
	if pid == tsNull {
		return
	}
	state := &t.counters[pid]
	counter := b[3] & 15
	adaptation, payload := b[3]&0x20 != 0, b[3]&0x10 != 0
	announced := adaptation && b[4] > 0 && b[5]&0x80 != 0
	switch last := *state & 15; {
	case *state&tsSeen == 0 || announced:
		if !payload && !announced {
			return // its counter is that of a packet not seen
		}
		if *state == 0 {
			t.PIDs++
		}
		*state = tsSeen | counter
	case !payload:
		// The counter stands still.
	case counter == last && *state&tsRepeated == 0:
		*state |= tsRepeated
	default:
		if missing := (counter - last - 1) & 15; missing != 0 {
			t.Errors++
			t.Lost += uint64(missing)
		}
		*state = tsSeen | counter
	}
}

func (t *TS) loss() float64 { return ratio(t.Lost, t.Packets) }
