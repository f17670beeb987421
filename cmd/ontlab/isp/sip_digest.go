package isp

import (
	"crypto/md5" //nolint:gosec // what the protocol asks for
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Digest access authentication (RFC 2617, RFC 3261 §22): MD5 with qop=auth,
// which is what telephone adapters and TR-069 clients speak.

// How long a nonce is good for, and how many there are at most.
const (
	digestNonceLife = 5 * time.Minute
	digestNonces    = 256
)

// digestOutcome is what credentials are worth.
type digestOutcome string

const (
	digestGood      digestOutcome = "good"
	digestMalformed digestOutcome = "malformed"    // or nothing that was asked for
	digestStale     digestOutcome = "stale"        // right or not, the nonce is old, used before, or not ours
	digestUnknown   digestOutcome = "unknown_user" // no such name
	digestWrong     digestOutcome = "wrong_password"
)

// digestGate is one server's realm. It is safe for concurrent use.
type digestGate struct {
	realm string
	now   func() time.Time
	life  time.Duration // of a nonce

	mu     sync.Mutex
	nonces map[string]*digestNonce
}

type digestNonce struct {
	issued time.Time
	count  uint64 // the last one used
}

func newDigestGate(realm string) *digestGate {
	return &digestGate{realm: realm, now: time.Now, life: digestNonceLife, nonces: map[string]*digestNonce{}}
}

// challenge returns the value of a WWW-Authenticate header with a new nonce.
func (g *digestGate) challenge(stale bool) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	oldest := ""
	for value, n := range g.nonces {
		if now.Sub(n.issued) > g.life {
			delete(g.nonces, value)
		} else if oldest == "" || n.issued.Before(g.nonces[oldest].issued) {
			oldest = value
		}
	}
	if len(g.nonces) >= digestNonces {
		delete(g.nonces, oldest)
	}
	nonce := rand.Text()
	g.nonces[nonce] = &digestNonce{issued: now}
	text := fmt.Sprintf(`Digest realm="%s", nonce="%s", algorithm=MD5, qop="auth"`, g.realm, nonce)
	if stale {
		text += ", stale=true"
	}
	return text
}

// check judges the value of an Authorization header. password returns a user's
// password and whether there is such a user; where it is nil any answer to a
// challenge of ours will do. The user's name comes back, where the credentials
// have one.
func (g *digestGate) check(method, header string, password func(user string) (string, bool)) (user string, _ digestOutcome) {
	c, err := parseDigestCredentials(header)
	if err != nil || c.realm != g.realm || c.qop != "auth" || c.algorithm != "" && !strings.EqualFold(c.algorithm, "MD5") {
		return c.user, digestMalformed
	}
	if password != nil {
		secret, known := password(c.user)
		if !known {
			return c.user, digestUnknown
		}
		if want := c.answer(method, secret); subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(c.response))) != 1 {
			return c.user, digestWrong
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nonces[c.nonce]
	if n == nil || g.now().Sub(n.issued) > g.life || c.count <= n.count {
		return c.user, digestStale
	}
	n.count = c.count
	return c.user, digestGood
}

// digestCredentials are what a client answers to a challenge.
type digestCredentials struct {
	user, realm, nonce, uri, response, algorithm, cnonce, qop string
	nc                                                        string // as it came: it is part of what is hashed
	count                                                     uint64 // nc's value
}

// answer returns the response that is right for a password.
func (c digestCredentials) answer(method, password string) string {
	h := func(parts ...string) string {
		sum := md5.Sum([]byte(strings.Join(parts, ":"))) //nolint:gosec // what the protocol asks for
		return hex.EncodeToString(sum[:])
	}
	return h(h(c.user, c.realm, password), c.nonce, c.nc, c.cnonce, c.qop, h(method, c.uri))
}

// parseDigestCredentials reads the value of an Authorization header.
func parseDigestCredentials(header string) (digestCredentials, error) {
	var c digestCredentials
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	if !strings.EqualFold(scheme, "Digest") {
		return c, errors.New("these are no digest credentials")
	}
	fields := map[string]*string{
		"username": &c.user, "realm": &c.realm, "nonce": &c.nonce, "uri": &c.uri, "response": &c.response,
		"algorithm": &c.algorithm, "cnonce": &c.cnonce, "qop": &c.qop, "nc": &c.nc,
	}
	for rest = strings.TrimLeft(rest, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return c, fmt.Errorf("%q has no value", rest)
		}
		var value string
		if value, rest, ok = digestValue(strings.TrimLeft(after, " \t")); !ok {
			return c, fmt.Errorf("the value of %s does not end", name)
		}
		if field := fields[strings.ToLower(strings.TrimSpace(name))]; field != nil {
			*field = value
		}
	}
	if c.user == "" || c.nonce == "" || c.uri == "" || c.response == "" {
		return c, errors.New("name, nonce, uri or response is missing")
	}
	if c.qop != "" {
		count, err := strconv.ParseUint(c.nc, 16, 32)
		if err != nil || c.cnonce == "" {
			return c, errors.New("qop without nc and cnonce")
		}
		c.count = count
	}
	return c, nil
}

// digestValue cuts a value, quoted or not, off the front of s.
func digestValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ", \t")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
