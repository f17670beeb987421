package console

import "strings"

// sub stands for something that was garbled. No label, number or prompt
// contains it, so whatever it sits in is not understood.
const sub = 0x1a

// maxLine bounds the current line; what comes after is lost, and the line
// with it.
const maxLine = 4096

// cleaner turns the bytes of a console into lines of text. It works byte by
// byte, so that it does not matter how the bytes were cut into reads.
//
// Gone are ANSI sequences, NUL, BEL, carriage returns, a literal ^M at a
// line's end, and kernel messages with their time stamp, also when one cuts a
// line in two. Backspace moves back, as on a terminal. Where anything but a
// well-formed sequence touched a number, or a number was overwritten, a sub
// takes its place: a digit must not get lost in silence.
type cleaner struct {
	// keepKernel keeps the text of lines that begin with a kernel time stamp:
	// some devices answer through the kernel log.
	keepKernel bool

	lines []string // complete lines
	cur   []byte   // the line being written
	back  int      // how far the cursor stands left of the end of cur
	cr    bool     // a carriage return whose meaning depends on what follows

	stripped stripping // since the last byte that was kept
	esc      escape
	escLen   int

	inKernel    bool // within a kernel message that is dropped
	afterKernel bool // the byte before ended such a message
}

// stripping says what was taken out between two kept bytes.
type stripping int

const (
	nothing stripping = iota
	sequence
	rubbish
)

// escape is the place within an ANSI sequence.
type escape int

const (
	escNone escape = iota
	escStart
	escCSI
	escOSC
	escOSCEnd // ESC within an OSC
	escCharset
)

// maxEscape bounds an ANSI sequence; a longer one is none.
const maxEscape = 64

// Write takes bytes; it never fails.
func (c *cleaner) Write(p []byte) (int, error) {
	for _, b := range p {
		c.add(b)
	}
	return len(p), nil
}

// reset forgets all text but stays within a sequence or kernel message.
func (c *cleaner) reset() {
	c.lines = nil
	c.cur = c.cur[:0]
	c.back = 0
	c.cr = false
	c.stripped = nothing
	if !c.inKernel {
		c.afterKernel = false
	}
}

// tail is the line being written: where a prompt stands.
func (c *cleaner) tail() string { return string(c.cur) }

// empty reports whether nothing has been written.
func (c *cleaner) empty() bool { return len(c.lines) == 0 && len(c.cur) == 0 }

func (c *cleaner) add(b byte) {
	if c.esc != escNone {
		if c.escape(b) {
			return
		}
	}
	if c.inKernel {
		if b == '\n' {
			c.inKernel, c.afterKernel = false, true
		}
		return
	}
	after := c.afterKernel
	c.afterKernel = false
	if b == '\r' {
		c.cr = !after && len(c.cur) > 0
		return
	}
	if c.cr {
		c.cr = false
		c.endLine() // CR LF, or a bare CR before more text
		if b == '\n' {
			return
		}
	}
	switch {
	case b == '\n':
		c.endLine()
	case b == 0x1b:
		c.esc, c.escLen = escStart, 0
	case b == 0 || b == '\a':
		c.stripped = rubbish
	case b == '\b':
		if c.back < len(c.cur) {
			c.back++
		}
	case b == '\t':
		c.put('\t')
	case b < 0x20 || b == 0x7f:
		c.put(sub)
	default:
		c.put(b)
	}
}

// escape takes a byte of an ANSI sequence; false means that the byte is text.
func (c *cleaner) escape(b byte) bool {
	c.escLen++
	if c.escLen > maxEscape {
		c.esc, c.stripped = escNone, rubbish
		return false
	}
	end := func(s stripping) {
		c.esc = escNone
		c.stripped = max(c.stripped, s)
	}
	switch c.esc {
	case escStart:
		switch {
		case b == '[':
			c.esc = escCSI
		case b == ']':
			c.esc = escOSC
		case b >= 0x20 && b <= 0x2f:
			c.esc = escCharset
		case b >= 0x30 && b <= 0x7e:
			end(rubbish) // two bytes are too few to be sure
		default:
			end(rubbish)
			return false
		}
	case escCharset:
		end(rubbish)
	case escCSI:
		switch {
		case b >= 0x40 && b <= 0x7e:
			end(sequence)
		case b < 0x20 || b > 0x7e:
			end(rubbish)
			return false
		}
	case escOSC:
		switch b {
		case '\a':
			end(sequence)
		case 0x1b:
			c.esc = escOSCEnd
		case '\n', '\r':
			end(rubbish)
			return false
		}
	case escOSCEnd:
		end(sequence)
		return b == '\\'
	case escNone:
	}
	return true
}

// put writes one byte at the cursor.
func (c *cleaner) put(b byte) {
	if len(c.cur) >= maxLine {
		c.cur[len(c.cur)-1] = sub
		return
	}
	if c.stripped != nothing {
		before := len(c.cur) > 0 && inNumber(c.cur[len(c.cur)-1])
		if c.stripped == rubbish && (before || inNumber(b)) ||
			c.stripped == sequence && before && inNumber(b) {
			c.cur = append(c.cur, sub)
		}
		c.stripped = nothing
	}
	if c.back > 0 {
		at := len(c.cur) - c.back
		switch old := c.cur[at]; {
		case old == ' ', b == ' ' && !inNumber(old):
			c.cur[at] = b
		default:
			c.cur[at] = sub
		}
		c.back--
		return
	}
	c.cur = append(c.cur, b)
	if b == ']' {
		c.kernel()
	}
}

// kernel recognises a kernel time stamp at the end of the current line and
// begins to drop the message. What stood before it is continued after it.
func (c *cleaner) kernel() {
	start, ok := kernelStamp(c.cur)
	if !ok {
		return
	}
	atStart := len(strings.TrimSpace(string(c.cur[:start]))) == 0
	c.cur = c.cur[:start]
	if atStart && c.keepKernel {
		return
	}
	c.inKernel = true
}

// endLine completes the current line.
func (c *cleaner) endLine() {
	if (c.stripped == rubbish || c.back > 0) && len(c.cur) > 0 && inNumber(c.cur[len(c.cur)-1]) {
		c.cur = append(c.cur, sub)
	}
	c.stripped = nothing
	line := string(c.cur)
	for strings.HasSuffix(line, "^M") {
		line = strings.TrimSuffix(line, "^M")
	}
	c.lines = append(c.lines, line)
	c.cur = c.cur[:0]
	c.back = 0
}

// kernelStamp finds "[   12.345678]" at the end of b.
func kernelStamp(b []byte) (start int, ok bool) {
	i := len(b) - 2 // before the bracket
	digits := 0
	for i >= 0 && isDigit(b[i]) {
		i, digits = i-1, digits+1
	}
	if digits != 6 || i < 0 || b[i] != '.' {
		return 0, false
	}
	i--
	digits = 0
	for i >= 0 && isDigit(b[i]) {
		i, digits = i-1, digits+1
	}
	if digits == 0 {
		return 0, false
	}
	for i >= 0 && b[i] == ' ' {
		i--
	}
	if i < 0 || b[i] != '[' {
		return 0, false
	}
	return i, true
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// inNumber reports whether b can be part of a number.
func inNumber(b byte) bool {
	return isDigit(b) || b == '-' || b == '+' || b == '.' || b == ','
}
