package pppoe

import (
	"bytes"
	"crypto/md5" //nolint:gosec // it is what CHAP is made of
	"time"
)

// auth is the authentication of a session.
type auth struct {
	proto   uint16 // what LCP agreed on; 0: none
	refused int    // proposals of the peer that we can't do
	done    bool   // accepted, or none wanted
	id      byte
	message control       // the request or response, to be repeated as it is
	answers []byte        // the challenge that message answers
	next    time.Duration // message is repeated then; 0: never
}

func (s *session) startAuth() error {
	r := &s.result.Auth
	if s.auth.proto == protoCHAP {
		r.Protocol = authCHAP
		s.deadline = min(s.deadline, s.now()+challengeTime)
		return nil
	}
	r.Protocol = authPAP
	if s.sends >= maxAuthSends {
		s.outcome, r.Result = AuthNoAnswer, "no_answer"
		return nil
	}
	r.Attempts++
	s.auth.id = byte(r.Attempts)
	data := append([]byte{byte(len(s.o.Username))}, s.o.Username...)
	data = append(append(data, byte(len(s.o.Password))), s.o.Password...)
	s.auth.message = control{papRequest, s.auth.id, data}
	return s.sendAuth()
}

// sendAuth sends the message, and decides whether it may be repeated.
func (s *session) sendAuth() error {
	s.sends++
	s.result.Auth.Sends++
	s.auth.next = 0
	// One message is left for the second attempt, if there may be one.
	if s.sends+max(s.o.Attempts-s.result.Auth.Attempts, 0) < maxAuthSends {
		s.auth.next = s.now() + authRepeat
	}
	return s.send(s.auth.proto, s.auth.message)
}

// repeatAuth sends the same again: same identifier, same contents. A server
// that got the first gives the same answer and asks nobody a second time.
func (s *session) repeatAuth() error {
	if s.stage != StageAuth || s.auth.done {
		s.auth.next = 0
		return nil
	}
	return s.sendAuth()
}

// settle ends the authentication.
func (s *session) settle(accepted bool, message []byte) {
	r := &s.result.Auth
	r.ServerMessage, r.ServerMessageHex = text(message)
	s.auth.next = 0
	if accepted {
		s.auth.done, r.Result = true, "accepted"
		return
	}
	s.outcome, r.Result = AuthRejected, "rejected"
}

func (s *session) handlePAP(c control) {
	if s.stage != StageAuth || s.auth.proto != protoPAP || c.id != s.auth.id {
		return
	}
	switch c.code {
	case papAck:
		s.settle(true, papMessage(c.data))
	case papNak:
		s.settle(false, papMessage(c.data))
	}
}

func (s *session) handleCHAP(c control) error {
	if s.stage != StageAuth || s.auth.proto != protoCHAP {
		// A challenge anew, while the session is up, would be a further
		// authentication. It can wait for the end of the dial.
		return nil
	}
	switch c.code {
	case chapChallenge:
		return s.challenged(c)
	case chapSuccess, chapFailure:
		if s.auth.answers != nil && c.id == s.auth.id {
			s.settle(c.code == chapSuccess, c.data)
		}
	}
	return nil
}

// challenged answers a challenge (RFC 1994, 4.1), within what is allowed.
func (s *session) challenged(c control) error {
	value, name, ok := parseChallenge(c.data)
	if !ok {
		s.result.Malformed++
		return nil
	}
	r := &s.result.Auth
	if s.auth.answers != nil && c.id == s.auth.id && bytes.Equal(value, s.auth.answers) {
		// The peer repeats itself, so our response was lost.
		if s.auth.next == 0 {
			return nil
		}
		return s.sendAuth()
	}
	if s.sends >= maxAuthSends || s.auth.answers != nil && r.Attempts >= s.o.Attempts {
		return nil
	}
	r.Attempts++
	r.ServerName, _ = text(name)
	hash := md5.New() //nolint:gosec // it is what CHAP is made of
	hash.Write([]byte{c.id})
	hash.Write([]byte(s.o.Password))
	hash.Write(value)
	s.auth.id, s.auth.answers = c.id, bytes.Clone(value)
	data := hash.Sum([]byte{md5.Size})
	s.auth.message = control{chapResponse, c.id, append(data, s.o.Username...)}
	s.deadline = s.limit(authTime)
	return s.sendAuth()
}
