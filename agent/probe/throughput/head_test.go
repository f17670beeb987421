package throughput

import (
	"errors"
	"strings"
	"testing"
)

func TestParseHead(t *testing.T) {
	const wire = "HTTP/1.1 200 All is well\r\nServer: x/1\nContent-Length:  12 \r\nlocation: /a\r\nLocation: /b\r\nX:\r\n\r\nbody"
	for n := range len(wire) - len("body") {
		if h, size, err := parseHead([]byte(wire[:n])); size != 0 || err != nil || h.status != 0 {
			t.Fatalf("%q: %+v, %d, %v", wire[:n], h, size, err)
		}
	}
	h, size, err := parseHead([]byte(wire))
	want := head{status: 200, reason: "All is well", location: "/a", server: "x/1", length: 12}
	if err != nil || h != want || wire[size:] != "body" {
		t.Errorf("%+v, %q, %v", h, wire[size:], err)
	}
	for _, bad := range []string{
		"H\x00", "GET / HTTP/1.1\r\n", "HTTP/2 200\r\n", "HTTP/1.1 20 x\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "HTTP/1.1 +20\r\n\r\n",
		"HTTP/1.1 200\r\n folded: 1\r\n\r\n", "HTTP/1.1 200\r\n:\r\n\r\n", "HTTP/1.1 200\r\nx\r\n\r\n",
		"HTTP/1.1 200\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0x1\r\n\r\n",
		"HTTP/1.1 200\r\n" + strings.Repeat("a: b\r\n", maxHead/6),
	} {
		if h, n, err := parseHead([]byte(bad)); err == nil {
			t.Errorf("%.40q: %+v, %d", bad, h, n)
		}
	}
}

// FuzzAnswers checks that answers mean the same however they are cut.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 413 Too Large\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nuntil the end", "\x15\x03\x01", "HTTP/1.1 403 No\r\nVia: x\r\n\r\n", "HTTP/1.0 400 Bad\r\n\r\nHTTPS",
	} {
		f.Add([]byte(s), uint8(5))
	}
	f.Fuzz(func(t *testing.T, wire []byte, piece uint8) {
		take := func(n int) error {
			a := answers{large: true}
			for rest := wire; len(rest) > 0; {
				k := min(n, len(rest))
				if err := a.take(rest[:k:k]); err != nil {
					return err
				}
				if len(a.buf) >= maxHead {
					t.Fatalf("%d bytes kept", len(a.buf))
				}
				rest = rest[k:]
			}
			return nil
		}
		whole, cut := take(len(wire)), take(int(piece)+1)
		if (whole == nil) != (cut == nil) || errors.Is(whole, errTooLarge) != errors.Is(cut, errTooLarge) {
			t.Fatalf("%v, but %v in pieces", whole, cut)
		}
		h, n, err := parseHead(wire)
		if n < 0 || n > len(wire) || n > maxHead || n > 0 && err != nil || n == 0 && h != (head{}) {
			t.Fatalf("%+v, %d, %v", h, n, err)
		}
		_ = h.refusal(wire[n:])
	})
}
