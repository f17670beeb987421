package consumer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"ontagent/transport"
)

// MaxStored bounds what Stored returns: what one signed acknowledgement can
// carry.
const MaxStored = 64

// content is a message of class record, by number and digest of its payload.
type content struct {
	epoch, seq uint64
	sum        [sha256.Size]byte
}

// ledger knows messages of class record by their content.
type ledger struct {
	kept    []content // stored last, oldest first
	waiting []content // to be acknowledged, oldest first
}

// knows reports whether the content is stored, as far as that is remembered,
// and whether another with its number is.
func (l *ledger) knows(c content) (same, other bool) {
	for _, all := range [...][]content{l.kept, l.waiting} {
		for _, x := range all {
			if x.seq == c.seq && x.epoch == c.epoch {
				same, other = same || x.sum == c.sum, other || x.sum != c.sum
			}
		}
	}
	return same, other
}

// keep takes note that the content is stored.
func (l *ledger) keep(c content, most int) {
	if drop := len(l.kept) + 1 - most; drop > 0 {
		l.kept = slices.Delete(l.kept, 0, drop)
	}
	l.kept = append(l.kept, c)
}

// queue has the content acknowledged. Without room it is not: the gateway sends
// it again.
func (l *ledger) queue(c content, most int) {
	if len(l.waiting) < most && !slices.Contains(l.waiting, c) {
		l.waiting = append(l.waiting, c)
	}
}

// judge corrects the verdict over the number of a message of class record by
// what is known of its content, and queues it for acknowledgement.
func (t *Tracker) judge(h transport.Header, payload []byte, v Verdict) Verdict {
	if h.Epoch == 0 || h.Seq == 0 {
		return v // no acknowledgement can name it
	}
	c := content{h.Epoch, h.Seq, sha256.Sum256(payload)}
	same, other := t.ledger.knows(c)
	switch {
	case same:
		v = Duplicate
	case other:
		v = Conflict
	case v == Duplicate:
		v = Late // which content had the number is forgotten
	}
	if !same {
		t.ledger.keep(c, t.o.Digests)
	}
	t.ledger.queue(c, t.o.Waiting)
	return v
}

// Stored returns what of class record is to be acknowledged next, oldest first,
// at most MaxStored and each number once. It may be acknowledged once everything
// observed so far is stored, and is returned again until Acknowledged is told.
func (t *Tracker) Stored() []transport.Stored {
	var out []transport.Stored
	for _, c := range t.ledger.waiting {
		s := c.stored()
		// Another content with the same number: with the next.
		if !slices.ContainsFunc(out, func(o transport.Stored) bool { return o.Epoch == s.Epoch && o.Seq == s.Seq }) {
			out = append(out, s)
		}
		if len(out) == MaxStored {
			break
		}
	}
	return out
}

func (c content) stored() transport.Stored {
	return transport.Stored{Class: transport.ClassRecord, Epoch: c.epoch, Seq: c.seq, SHA256: hex.EncodeToString(c.sum[:])}
}

// Waiting returns how many messages of class record wait to be acknowledged.
func (t *Tracker) Waiting() int { return len(t.ledger.waiting) }

// Acknowledged says that an acknowledgement of these was published. Whether it
// arrives nobody knows: what the gateway sends again is acknowledged again.
func (t *Tracker) Acknowledged(stored []transport.Stored) {
	named := make(map[transport.Stored]bool, len(stored))
	for _, s := range stored {
		named[s] = true
	}
	t.ledger.waiting = slices.DeleteFunc(t.ledger.waiting, func(c content) bool { return named[c.stored()] })
}

// keptSnapshot is how many of the contents stored last stand in a snapshot:
// more than a broker has under way when a collector ends.
const keptSnapshot = 64

// contentSize is that of one in a snapshot: epoch, seq, digest.
const contentSize = 8 + 8 + sha256.Size

func pack(all []content) []byte {
	b := make([]byte, 0, len(all)*contentSize)
	for _, c := range all {
		b = binary.BigEndian.AppendUint64(b, c.epoch)
		b = binary.BigEndian.AppendUint64(b, c.seq)
		b = append(b, c.sum[:]...)
	}
	return b
}

func unpack(b []byte) ([]content, error) {
	if len(b)%contentSize != 0 {
		return nil, errors.New("digests are cut")
	}
	var all []content
	for part := range slices.Chunk(b, contentSize) {
		c := content{binary.BigEndian.Uint64(part), binary.BigEndian.Uint64(part[8:]), [sha256.Size]byte(part[16:])}
		if c.epoch == 0 || c.seq == 0 {
			return nil, errors.New("digests are not of messages")
		}
		all = append(all, c)
	}
	return all, nil
}

// snapshot returns what is kept of l.
func (l *ledger) snapshot() (kept, waiting []byte) {
	return pack(l.kept[max(0, len(l.kept)-keptSnapshot):]), pack(l.waiting)
}

// restore takes what snapshot returned, within the bounds of o.
func (l *ledger) restore(kept, waiting []byte, o Options) error {
	var err, err2 error
	l.kept, err = unpack(kept)
	l.waiting, err2 = unpack(waiting)
	l.kept = l.kept[max(0, len(l.kept)-o.Digests):]
	l.waiting = l.waiting[:min(len(l.waiting), o.Waiting)]
	return errors.Join(err, err2)
}
