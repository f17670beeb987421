package throughput

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// What a head may be at most.
const maxHead = 16 << 10

// head is what counts of a response's head.
type head struct {
	status   int
	reason   string
	location string
	server   string
	coding   string // Transfer-Encoding
	length   int64  // -1 if not announced
	proxy    string // a header line that only an intermediary leaves
}

// parseHead reads the head of a response of HTTP/1.1: lines that end in CRLF or
// LF, the last one empty. n is its length, 0 if more of it must come.
func parseHead(b []byte) (h head, n int, err error) {
	// What cannot become a head is told before it is whole.
	if err := begins(b); err != nil {
		return head{}, 0, err
	}
	if n = headLength(b); n == 0 {
		if len(b) >= maxHead {
			return head{}, 0, fmt.Errorf("the server's head is longer than %d bytes", maxHead)
		}
		return head{}, 0, nil
	}
	h.length = -1
	line, rest := nextLine(b[:n])
	if err := h.statusLine(line); err != nil {
		return head{}, 0, err
	}
	for line, rest = nextLine(rest); line != ""; line, rest = nextLine(rest) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return head{}, 0, fmt.Errorf("the server's head has a malformed line: %.60q", line)
		}
		if err := h.field(name, strings.Trim(value, " \t")); err != nil {
			return head{}, 0, err
		}
	}
	return h, n, nil
}

// begins looks at whether b is HTTP/1.1 as far as it goes.
func begins(b []byte) error {
	const version = "HTTP/1.1 "
	n := min(len(b), len(version))
	switch {
	case string(b[:n]) == version[:n]:
		return nil
	case len(b) >= 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3, len(b) == 1 && (b[0] == 0x15 || b[0] == 0x16):
		// The type of an alert or a handshake, and the version, of a TLS record.
		return errTLS
	case bytes.HasPrefix(b, []byte("HTTP/")) && !bytes.Contains(b, []byte("HTTPS")):
		line, _ := nextLine(b)
		return fmt.Errorf("the server does not speak HTTP/1.1: it answers %.60q", line)
	case bytes.HasPrefix(b, []byte("HTTP/")):
		return errTLS
	}
	return fmt.Errorf("the server does not speak HTTP: it answers %.40q", b)
}

// headLength is 0 as long as the empty line has not come.
func headLength(b []byte) int {
	b = b[:min(len(b), maxHead)]
	for i := 0; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		if rest := b[i:]; len(rest) > 0 && rest[0] == '\n' {
			return i + 1
		} else if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 2
		}
	}
}

func nextLine(b []byte) (line string, rest []byte) {
	l, rest, _ := bytes.Cut(b, []byte{'\n'})
	return string(bytes.TrimSuffix(l, []byte{'\r'})), rest
}

func (h *head) statusLine(line string) error {
	_, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if len(code) != 3 || err != nil || n < 100 {
		return fmt.Errorf("the server does not speak HTTP/1.1: it answers %.60q", line)
	}
	h.status, h.reason = int(n), reason
	return nil
}

func (h *head) field(name, value string) error {
	switch strings.ToLower(name) {
	case "location":
		keepFirst(&h.location, value)
	case "server":
		keepFirst(&h.server, value)
	case "transfer-encoding":
		keepFirst(&h.coding, value)
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			return fmt.Errorf("the server announces a length that is none: %.60q", value)
		}
		h.length = int64(n)
	case "via", "x-cache", "x-cache-lookup", "age", "proxy-authenticate", "proxy-connection", "proxy-status", "proxy-support":
		keepFirst(&h.proxy, name+": "+value[:min(len(value), 80)])
	}
	return nil
}

func keepFirst(into *string, value string) {
	if *into == "" {
		*into = value
	}
}

// refusal says why a response cannot be measured by, or is nil. The body that
// came with it may tell more.
func (h *head) refusal(body []byte) error {
	switch {
	case h.status == 407:
		return fmt.Errorf("a proxy is in the way: it answers %s", h.said())
	case h.proxy != "" && h.status != 200:
		return fmt.Errorf("a proxy is in the way (%q): it answers %s", h.proxy, h.said())
	case h.proxy != "":
		return fmt.Errorf("a proxy is in the way: the answer has %q", h.proxy)
	case h.status >= 300 && h.status < 400 && h.location != "":
		if len(h.location) >= 6 && strings.EqualFold(h.location[:6], "https:") {
			return fmt.Errorf("the server wants HTTPS: it redirects to %.200q", h.location)
		}
		return fmt.Errorf("the server redirects to %.200q", h.location)
	case h.status == 400 && bytes.Contains(body, []byte("HTTPS")):
		return errTLS
	case h.status < 200 || h.status >= 300:
		return fmt.Errorf("the server answers %s", h.said())
	}
	return nil
}

// said is the status as it came.
func (h *head) said() string {
	return strings.TrimSpace(strconv.Itoa(h.status) + " " + h.reason[:min(len(h.reason), 80)])
}
