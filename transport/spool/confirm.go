package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"ontagent/transport"
)

// Confirm forgets the messages that the collector has signed for one by one, by
// number and content: whoever can forge messages on their way may make it
// believe that it has all of them, but not that it has one it never saw. What
// differs from what was sent stays, and goes again; what was never sent is
// passed over, since the collector cannot tell. The error is compatible with
// errors.Is(err, ErrStale).
func (q *Queue) Confirm(version uint64, stored []transport.Stored) error {
	released, err := q.confirmed(version, stored)
	if err != nil {
		return fmt.Errorf("cannot take acknowledgement %d: %w", version, err)
	}
	if released {
		q.settleAcks()
	}
	return nil
}

func (q *Queue) confirmed(version uint64, stored []transport.Stored) (released bool, err error) {
	q.mu.Lock()
	_, err = q.acknowledged(version, nil)
	q.mu.Unlock()
	if err != nil {
		return false, err
	}
	for _, s := range stored {
		var c *class
		for i := range q.classes {
			if q.classes[i].name == s.Class {
				c = &q.classes[i]
			}
		}
		if c == nil {
			continue
		}
		digest, ok := q.digest(c, s.Epoch, s.Seq)
		switch {
		case !ok: // gone, never there, or not to be read now
		case digest != s.SHA256:
			q.log.Warn("collector holds another message than was sent", "class", string(s.Class), "epoch", s.Epoch, "seq", s.Seq)
		case q.releaseOne(c, s.Epoch, s.Seq):
			released = true
		}
	}
	return released, nil
}

// digest is that of a message's payload as it is published.
func (q *Queue) digest(c *class, epoch, seq uint64) (sha string, ok bool) {
	q.mu.Lock()
	var entry transport.Entry
	var err error
	if i := c.findRAM(seq); epoch == q.epoch && i >= 0 {
		entry = c.ram[i].entry
		q.mu.Unlock()
	} else {
		s, i := c.find(epoch, seq)
		q.mu.Unlock()
		if s == nil {
			return "", false
		}
		entry, err = q.read(place{class: c, seg: s, index: i})
	}
	var payload []byte
	if err == nil {
		payload, err = transport.Encode(entry.Header, entry.Message.Body)
	}
	if err != nil {
		q.log.Warn("cannot read what the collector holds", "class", string(c.name), "epoch", epoch, "seq", seq, "error", err)
		return "", false
	}
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:]), true
}

func (q *Queue) releaseOne(c *class, epoch, seq uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := c.findRAM(seq); epoch == q.epoch && i >= 0 {
		c.removeRAM(i)
	} else if s, i := c.find(epoch, seq); s != nil {
		q.forget(s, i)
	} else {
		return false
	}
	q.progressed(c)
	// What was never on flash leaves no entry there that says it is gone.
	if _, live := c.goneIn(epoch, false); !live && epoch == q.epoch && !q.owing() {
		upTo := c.last
		if len(c.ram) > 0 {
			upTo = c.ram[0].entry.Header.Seq - 1
		}
		c.setGone(epoch, upTo)
	}
	return true
}
