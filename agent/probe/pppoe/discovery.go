package pppoe

import (
	"bytes"
	"context"
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
	sends  int // authentication messages so far
	result Result

	frames chan *frame   // nil: a frame that is none
	failed error         // of the reader; valid once frames is closed
	stop   chan struct{} // closed to end the reader
	ended  chan struct{} // closed when it has ended
	buf    []byte        // for frames that are sent
	late   int           // frames taken after the time was up
}

// now is the time since the dial began. All times here are such: they are
// monotonic, and half the size.
//
//go:noinline
func (d *dialer) now() time.Duration { return time.Since(d.began) }

// limit is the end of something that may take that long from now on.
//
//go:noinline
func (d *dialer) limit(t time.Duration) time.Duration { return min(d.now()+t, d.o.MaxDuration) }

// past says that a time has passed and all is read that came before it: where
// this program got no processor for a while, the answers are there already. A
// flood doesn't keep it.
func (d *dialer) past(t time.Duration) bool {
	if d.now() < t {
		d.late = 0
		return false
	}
	d.late++
	return len(d.frames) == 0 || d.late > maxLate
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
		if ok {
			f.at = d.now()
		}
		select {
		case d.frames <- f:
		case <-d.stop:
			return
		}
	}
}

// wait returns the next frame that is for us, or nil at the given time. The
// error is ctx's or the link's.
func (d *dialer) wait(ctx context.Context, until time.Duration) (*frame, error) {
	timer := time.NewTimer(until - d.now())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, nil //nolint:nilnil // no frame, and no fault
		case f, open := <-d.frames:
			switch {
			case !open:
				return nil, d.failed
			case f == nil:
				d.result.Malformed++
			case f.vlan != d.o.VLAN:
			case f.src == d.own:
				d.result.Looped++
				return f, nil
			case f.dst == d.own:
				return f, nil
			}
			// A flood of what isn't for us must not outrun the clock.
			if ctx.Err() != nil || d.now() >= until {
				return nil, ctx.Err()
			}
		}
	}
}

func (d *dialer) send(f *frame) error {
	f.src, f.vlan = d.own, d.o.VLAN
	d.buf = f.appendTo(d.buf[:0], d.o.Priority)
	return d.link.send(d.buf)
}

// parse reads the tags of a discovery packet, and counts a bad one.
//
//go:noinline
func (d *dialer) parse(f *frame, packet string) (*tags, bool) {
	t, ok := parseTags(f.payload, packet)
	if !ok {
		d.result.Malformed++
	}
	return t, ok
}

// answered notes on which VLAN somebody answers, and what is wrong.
//
//go:noinline
func (d *dialer) answered(f *frame, t *tags) {
	d.result.VLANAnswered = &f.vlan
	room := maxErrors - len(d.result.Errors)
	d.result.Errors = append(d.result.Errors, t.errors[:min(room, len(t.errors))]...)
}

// ours says whether a PADO or PADS answers one of ours, not of another client
// of the same address: a kernel session may be dialling too.
//
//go:noinline
func (d *dialer) ours(t *tags) bool { return t.hasUniq && bytes.Equal(t.hostUniq, d.uniq[:]) }

// ask sends a PADI or PADR, the n-th (from 1), and returns when to repeat it:
// after 1 and 2.5 s.
func (d *dialer) ask(to mac, code byte, payload []byte, began time.Duration, n int) (time.Duration, error) {
	next := began + setupTime // the longer of the two: not again
	switch n {
	case 1:
		next = began + time.Second
	case 2:
		next = began + 2500*time.Millisecond
	}
	return next, d.send(&frame{dst: to, discovery: true, code: code, payload: payload})
}

// question is what the tags of a PADI and a PADR have in common.
func (d *dialer) question() []byte {
	payload := appendTag(nil, tagServiceName, []byte(d.o.ServiceName))
	payload = appendTag(payload, tagHostUniq, d.uniq[:])
	if d.o.MaxPayload != 0 {
		payload = appendTag(payload, tagMaxPayload, append16(nil, d.o.MaxPayload))
	}
	return payload
}

// discover looks for access concentrators. It returns an offer to take, or how
// the dial ended.
func (d *dialer) discover(ctx context.Context) (*Offer, Outcome, error) {
	d.result.Stage = StageDiscovery
	began := d.now()
	defer func() { d.result.DiscoveryMs = millis(d.now() - began) }()
	d.result.MaxPayloadAsked = d.o.MaxPayload
	payload := d.question()
	verdict := d.limit(discoveryTime)
	sent, next := 0, began
	collecting := false
	for !d.past(verdict) {
		if d.now() >= next && sent < 3 {
			var err error
			sent++
			if next, err = d.ask(broadcast(), codePADI, payload, began, sent); err != nil {
				return nil, "", err
			}
		}
		f, err := d.wait(ctx, min(next, verdict))
		if err != nil {
			return nil, "", err
		}
		if f == nil || !f.discovery || f.code != codePADO || f.src == d.own || f.session != 0 || f.src[0]&1 != 0 {
			continue
		}
		t, ok := d.parse(f, "PADO")
		if !ok || !d.ours(t) || len(d.result.Offers) == maxOffers || d.known(f.src, t.acName) {
			continue
		}
		d.answered(f, t)
		d.result.Offers = append(d.result.Offers, Offer{
			MAC: f.src.String(), ACName: t.acName, ServiceNames: t.services, MaxPayload: t.maxPayload,
			Errors: t.errors, OfferMs: millis(f.at - began),
			from: f.src, tags: t,
		})
		switch {
		case len(t.errors) > 0:
			verdict = min(verdict, f.at+errorTime)
		case !collecting && d.fits(&d.result.Offers[len(d.result.Offers)-1]):
			collecting = true
			verdict = min(verdict, f.at+collectTime)
			next = verdict // enough asked
		}
	}
	return d.choose()
}

// known says whether there is an offer of this access concentrator already:
// it answers each PADI.
//
//go:noinline
func (d *dialer) known(from mac, name string) bool {
	for i := range d.result.Offers {
		if d.result.Offers[i].from == from && d.result.Offers[i].ACName == name {
			return true
		}
	}
	return false
}

// fits says whether an offer is what was asked for.
//
//go:noinline
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
	began := d.now()
	defer func() { d.result.SessionSetupMs = millis(d.now() - began) }()
	// The peer speaks LCP the moment after its PADS.
	if err := d.link.admit(offer.from); err != nil {
		return nil, "", err
	}
	payload := d.question()
	if offer.tags.hasCookie {
		payload = appendTag(payload, tagCookie, offer.tags.cookie)
	}
	if offer.tags.hasRelay {
		payload = appendTag(payload, tagRelay, offer.tags.relay)
	}
	verdict := d.limit(setupTime)
	next, sent := began, 0
	// What comes of the session before its PADS: another part of the access
	// concentrator sends it.
	var early []*frame
	for {
		if d.past(verdict) {
			return nil, NoPADS, nil
		}
		if d.now() >= next && sent < 3 {
			var err error
			sent++
			if next, err = d.ask(offer.from, codePADR, payload, began, sent); err != nil {
				return nil, "", err
			}
		}
		f, err := d.wait(ctx, min(next, verdict))
		if err != nil {
			if ctx.Err() != nil && sent > 0 {
				d.abandon(context.WithoutCancel(ctx), offer)
			}
			return nil, "", err
		}
		if f != nil && !f.discovery && f.src == offer.from && len(early) < maxEarly {
			early = append(early, f)
		}
		if f == nil || !d.isPADS(f, offer) {
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
		return newSession(d, offer, f, t.maxPayload, early), "", nil
	}
}

func (d *dialer) isPADS(f *frame, offer *Offer) bool {
	return f.discovery && f.code == codePADS && f.src == offer.from
}

// abandon waits a moment for the answer to a PADR that isn't wanted any more,
// and takes the session back.
func (d *dialer) abandon(ctx context.Context, offer *Offer) {
	until := d.now() + cancelledTime
	for {
		f, err := d.wait(ctx, until)
		if f == nil || err != nil {
			return
		}
		d.refuse(f, offer)
	}
}

// refuse ends the session of a PADS that is one too many: each PADR may have
// opened one.
func (d *dialer) refuse(f *frame, offer *Offer) {
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
	if offer.tags.hasRelay {
		payload = appendTag(payload, tagRelay, offer.tags.relay)
	}
	if d.send(&frame{dst: offer.from, discovery: true, code: codePADT, session: session, payload: payload}) == nil {
		d.result.PADTSent = true
	}
}
