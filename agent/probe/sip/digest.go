package sip

import (
	"crypto/md5" //nolint:gosec // what registrars speak
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// challenge is what a server wants to be answered. Its texts are as they stand
// between the quotes, so that they can be sent back as they came.
type challenge struct {
	realm, nonce, opaque string
	hasOpaque            bool
	algorithm            string // as the server wrote it; "" for MD5
	qop                  bool   // it understands qop=auth
	stale                bool
}

// parseChallenge reads a WWW-Authenticate or Proxy-Authenticate header. ok is
// false if it isn't one that can be answered.
func parseChallenge(value string) (c challenge, ok bool) {
	scheme, rest, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Digest") || len(value) > maxChallenge {
		return challenge{}, false
	}
	qop, hasQOP := "", false
	for rest = strings.TrimSpace(rest); rest != ""; {
		var p string
		p, rest = split(rest, ',')
		key, v, _ := strings.Cut(p, "=")
		v = strings.TrimSpace(v)
		if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "realm":
			c.realm = v
		case "nonce":
			c.nonce = v
		case "opaque":
			c.opaque, c.hasOpaque = v, true
		case "algorithm":
			c.algorithm = v
		case "qop":
			qop, hasQOP = v, true
		case "stale":
			c.stale = strings.EqualFold(v, "true")
		}
	}
	for rest = qop; rest != ""; {
		var v string
		v, rest = split(rest, ',')
		c.qop = c.qop || strings.EqualFold(v, "auth")
	}
	_, known := c.hash("")
	return c, known && c.nonce != "" && c.qop == hasQOP
}

const maxChallenge = 4 << 10

// hash is H of RFC 7616, section 3.4; false for an algorithm it doesn't know.
func (c *challenge) hash(s string) (string, bool) {
	switch {
	case c.algorithm == "", strings.EqualFold(c.algorithm, "MD5"):
		h := md5.Sum([]byte(s)) //nolint:gosec // as above
		return hex.EncodeToString(h[:]), true
	case strings.EqualFold(c.algorithm, "SHA-256"):
		h := sha256.Sum256([]byte(s))
		return hex.EncodeToString(h[:]), true
	}
	return "", false
}

// answer returns the value of the Authorization header for the count-th request
// with this nonce.
func (c *challenge) answer(user, password, method, uri, cnonce string, count int) string {
	h := func(s string) string {
		s, _ = c.hash(s)
		return s
	}
	ha1, ha2 := h(user+":"+c.realm+":"+password), h(method+":"+uri)
	nc := strconv.FormatUint(uint64(uint32(count)), 16)
	nc = "00000000"[:8-len(nc)] + nc
	var response string
	if c.qop {
		response = h(ha1 + ":" + c.nonce + ":" + nc + ":" + cnonce + ":auth:" + ha2)
	} else {
		response = h(ha1 + ":" + c.nonce + ":" + ha2)
	}
	s := `Digest username="` + user + `", realm="` + c.realm + `", nonce="` + c.nonce + `", uri="` + uri + `", response="` + response + `"`
	if c.algorithm != "" {
		s += ", algorithm=" + c.algorithm
	}
	if c.hasOpaque {
		s += `, opaque="` + c.opaque + `"`
	}
	if c.qop {
		s += `, qop=auth, nc=` + nc + `, cnonce="` + cnonce + `"`
	}
	return s
}
