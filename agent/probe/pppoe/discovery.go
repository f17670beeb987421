package pppoe

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"
)

// dialer is one call of Dial.
type dialer struct {
	o      Options
	link   link
	own    mac
	uniq   [8]byte // our Host-Uniq
	began  time.Time
	end    time.Time // by MaxDuration
	sends  int       // authentication messages so far
	result Result

	frames chan frame
	failed error         // of the reader; valid once frames is closed
	stop   chan struct{} // closed to end the reader
	ended  chan struct{} // closed when it has ended
	buf    []byte        // for frames that are sent
}

// read passes on frames until the link fails or is closed.
func (d *dialer) read() {
	defer close(d.ended)
	defer close(d.frames)
	b := make([]byte, 2048)
	for {
		n, tag, tagged, err := d.link.receive(b)
		if err != nil {
			d.failed = err
			return
		}
		f, ok := parseFrame(bytes.Clone(b[:n]), tag, tagged)
		if !ok {
			// Told from other faults by its zero time.
			f = frame{}
		} else {
			f.at = time.Now()
		}
		select {
		case d.frames <- f:
		case <-d.stop:
			return
		}
	}
}

// wait returns the next frame that is for us, or ok = false at the given
// time. The error is ctx's or the link's.
func (d *dialer) wait(ctx context.Context, until time.Time) (f frame, ok bool, err error) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return frame{}, false, ctx.Err()
		case <-timer.C:
			return frame{}, false, nil
		case f, open := <-d.frames:
			switch {
			case !open:
				return frame{}, false, d.failed
			case f.at.IsZero():
				d.result.Malformed++
			case f.vlan != d.o.VLAN:
			case f.src == d.own:
				d.result.Looped++
				return f, true, nil
			case f.dst == d.own:
				return f, true, nil
			}
			// A flood of what isn't for us must not outrun the clock.
			if ctx.Err() != nil {
				return frame{}, false, ctx.Err()
			}
			if time.Until(until) <= 0 {
				return frame{}, false, nil
			}
		}
	}
}

func (d *dialer) send(f frame) error {
	f.src, f.vlan = d.own, d.o.VLAN
	d.buf = f.appendTo(d.buf[:0], d.o.Priority)
	return d.link.send(d.buf)
}

// parse reads the tags of a discovery packet, and counts a bad one.
func (d *dialer) parse(f frame, packet string) (tags, bool) {
	t, ok := parseTags(f.payload, packet)
	if !ok {
		d.result.Malformed++
	}
	return t, ok
}

// answered notes on which VLAN somebody answers, and what is wrong.
func (d *dialer) answered(f frame, t tags) {
	d.result.VLANAnswered = &f.vlan
	room := maxErrors - len(d.result.Errors)
	d.result.Errors = append(d.result.Errors, t.errors[:min(room, len(t.errors))]...)
}

// ours says whether a PADO or PADS answers one of ours, not of another client
// of the same address: a kernel session may be dialling too.
func (d *dialer) ours(t tags) bool { return t.hasUniq && bytes.Equal(t.hostUniq, d.uniq[:]) }

// repetition returns when the n-th (from 1) PADI or PADR is repeated.
func repetition(began time.Time, n int) time.Time {
	switch n {
	case 1:
		return began.Add(time.Second)
	case 2:
		return began.Add(2500 * time.Millisecond)
	}
	return began.Add(discoveryTime)
}

// discover looks for access concentrators. It returns an offer to take, or how
// the dial ended.
func (d *dialer) discover(ctx context.Context) (*Offer, Outcome, error) {
	d.result.Stage = StageDiscovery
	began := time.Now()
	defer func() { d.result.DiscoveryMs = millis(time.Since(began)) }()

	payload := appendTag(nil, tagServiceName, []byte(d.o.ServiceName))
	payload = appendTag(payload, tagHostUniq, d.uniq[:])
	payload = d.askPayload(payload)
	d.result.MaxPayloadAsked = d.o.MaxPayload

	verdict := earliest(began.Add(discoveryTime), d.end)
	sent, next := 0, began
	collecting := false
	for {
		now := time.Now()
		if !now.Before(verdict) {
			break
		}
		if !now.Before(next) && sent < 3 {
			if err := d.send(frame{dst: broadcast(), discovery: true, code: codePADI, payload: payload}); err != nil {
				return nil, "", err
			}
			sent++
			next = repetition(began, sent)
		}
		f, ok, err := d.wait(ctx, earliest(next, verdict))
		if err != nil {
			return nil, "", err
		}
		if !ok || !f.discovery || f.code != codePADO || f.src == d.own || f.session != 0 || f.src[0]&1 != 0 {
			continue
		}
		t, ok := d.parse(f, "PADO")
		if !ok || !d.ours(t) || len(d.result.Offers) == maxOffers || d.known(f.src, t.acName) {
			continue
		}
		d.answered(f, t)
		d.result.Offers = append(d.result.Offers, Offer{
			MAC: f.src.String(), ACName: t.acName, ServiceNames: t.services, MaxPayload: t.maxPayload,
			Errors: t.errors, OfferMs: millis(f.at.Sub(began)),
			from: f.src, cookie: t.cookie, relay: t.relay, hasCookie: t.hasCookie, hasRelay: t.hasRelay,
		})
		switch {
		case len(t.errors) > 0:
			verdict = earliest(verdict, f.at.Add(errorTime))
		case !collecting && d.fits(&d.result.Offers[len(d.result.Offers)-1]):
			collecting = true
			verdict = earliest(verdict, f.at.Add(collectTime))
			next = verdict // enough asked
		}
	}
	return d.choose()
}

// askPayload appends the tag of RFC 4638, if it is wanted.
func (d *dialer) askPayload(b []byte) []byte {
	if d.o.MaxPayload == 0 {
		return b
	}
	return appendTag(b, tagMaxPayload, binary.BigEndian.AppendUint16(nil, d.o.MaxPayload))
}

// known says whether there is an offer of this access concentrator already:
// it answers each PADI.
func (d *dialer) known(from mac, name string) bool {
	for i := range d.result.Offers {
		if d.result.Offers[i].from == from && d.result.Offers[i].ACName == name {
			return true
		}
	}
	return false
}

// fits says whether an offer is what was asked for.
func (d *dialer) fits(o *Offer) bool {
	if len(o.Errors) > 0 || d.o.ACName != "" && o.ACName != d.o.ACName {
		return false
	}
	return d.o.ServiceName == "" || slices.Contains(o.ServiceNames, d.o.ServiceName)
}

// choose takes the first offer that fits.
func (d *dialer) choose() (*Offer, Outcome, error) {
	outcome := NoPADO
	if d.result.Looped > 0 {
		outcome = Loop
	}
	for i := range d.result.Offers {
		o := &d.result.Offers[i]
		switch {
		case d.fits(o):
			d.result.ACMAC, d.result.ACName = o.MAC, o.ACName
			if d.o.DiscoveryOnly {
				return nil, Offered, nil
			}
			return o, "", nil
		case len(o.Errors) == 0:
			outcome = NoMatch
		case outcome != NoMatch:
			outcome = PADOError
		}
	}
	return nil, outcome, nil
}

// open asks the access concentrator for a session. It returns the session, or
// how the dial ended.
func (d *dialer) open(ctx context.Context, offer *Offer) (*session, Outcome, error) {
	d.result.Stage = StageSessionSetup
	began := time.Now()
	defer func() { d.result.SessionSetupMs = millis(time.Since(began)) }()
	// The peer speaks LCP the moment after its PADS.
	if err := d.link.admit(offer.from); err != nil {
		return nil, "", err
	}
	payload := appendTag(nil, tagServiceName, []byte(d.o.ServiceName))
	payload = appendTag(payload, tagHostUniq, d.uniq[:])
	payload = d.askPayload(payload)
	if offer.hasCookie {
		payload = appendTag(payload, tagCookie, offer.cookie)
	}
	if offer.hasRelay {
		payload = appendTag(payload, tagRelay, offer.relay)
	}
	verdict := earliest(began.Add(discoveryTime), d.end)
	next, sent := began, 0
	for {
		now := time.Now()
		if !now.Before(verdict) {
			return nil, NoPADS, nil
		}
		if !now.Before(next) && sent < 3 {
			if err := d.send(frame{dst: offer.from, discovery: true, code: codePADR, payload: payload}); err != nil {
				return nil, "", err
			}
			sent++
			next = repetition(began, sent)
		}
		f, ok, err := d.wait(ctx, earliest(next, verdict))
		if err != nil {
			if ctx.Err() != nil && sent > 0 {
				d.abandon(context.WithoutCancel(ctx), offer)
			}
			return nil, "", err
		}
		if !ok || !d.isPADS(f, offer) {
			continue
		}
		t, ok := d.parse(f, "PADS")
		if !ok || !d.ours(t) {
			continue
		}
		d.answered(f, t)
		if len(t.errors) > 0 || f.session == 0 {
			// Some open a session and say in the same breath that it is none.
			d.padt(offer, f.session)
			return nil, PADSError, nil
		}
		d.result.SessionID, d.result.MaxPayload = f.session, t.maxPayload
		return newSession(d, offer, f.session, t.maxPayload), "", nil
	}
}

func (d *dialer) isPADS(f frame, offer *Offer) bool {
	return f.discovery && f.code == codePADS && f.src == offer.from
}

// abandon waits a moment for the answer to a PADR that isn't wanted any more,
// and takes the session back.
func (d *dialer) abandon(ctx context.Context, offer *Offer) {
	until := time.Now().Add(cancelledTime)
	for {
		f, ok, err := d.wait(ctx, until)
		if err != nil || !ok {
			return
		}
		d.refuse(f, offer)
	}
}

// refuse ends the session of a PADS that is one too many: each PADR may have
// opened one.
func (d *dialer) refuse(f frame, offer *Offer) {
	if !d.isPADS(f, offer) || f.session == 0 {
		return
	}
	if t, ok := parseTags(f.payload, "PADS"); ok && d.ours(t) {
		d.padt(offer, f.session)
	}
}

// padt tells the access concentrator that a session is over. That it can't be
// sent means that the interface is gone, which is noticed elsewhere.
func (d *dialer) padt(offer *Offer, session uint16) {
	if session == 0 {
		return
	}
	var payload []byte
	if offer.hasRelay {
		payload = appendTag(payload, tagRelay, offer.relay)
	}
	if d.send(frame{dst: offer.from, discovery: true, code: codePADT, session: session, payload: payload}) == nil {
		d.result.PADTSent = true
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
