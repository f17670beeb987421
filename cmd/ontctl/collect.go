package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"ontagent/agent"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/consumer"
	"ontagent/transport/mqtt"
)

const (
	// batch bounds the messages that are made durable together.
	batch = 512
	// missingAfter is how long numbers must be missing until that is told:
	// what comes live overtakes what had to wait.
	missingAfter = time.Minute
	// saveEvery is the least time between two snapshots.
	saveEvery = time.Minute
	// publishers bounds the acknowledgements under way at once.
	publishers = 16
	// recordsWithin is the longest time between two acknowledgements to a
	// gateway while records wait, drainWithin while they fill more than one: a
	// visit is confirmed while the technician is still there.
	recordsWithin = 3 * time.Second
	drainWithin   = time.Second
	// lastRounds bounds the acknowledgements made before leaving.
	lastRounds = 20
	// reconnectMost is the longest pause before the broker is tried again.
	reconnectMost = 30 * time.Second
)

// collector files what the gateways of a tenant send, and signs for it.
type collector struct {
	tenant      string
	key         ed25519.PrivateKey
	only        map[string]bool // nil: all
	maxDevices  int
	ackInterval time.Duration
	persistent  bool // session
	options     consumer.Options
	archive     *archive
	tell        teller
	devices     map[string]*collected

	buffer []byte         // lines that are not durable yet
	noted  uint64         // messages in it
	since  []func() error // to be done once they are
	stats  collectStats
	saved  time.Time
	took   time.Duration // by the last snapshot
	dirty  bool          // the snapshot is behind
	begun  time.Time     // when the broker was reached first
}

// collected is what is known of one gateway.
type collected struct {
	tracker *consumer.Tracker
	audit   auditTrail
	version uint64            // of the last acknowledgement
	points  []transport.Point // in it
	// named is what the last acknowledgement in the journal names of class
	// record; for recovering only.
	named   []transport.Stored
	ackAt   time.Time // when it was published
	again   bool      // it may not have arrived: the gateway sends again, or the broker was lost
	changed bool      // something came since the last look
	missing time.Time // since when numbers are; zero: none
	told    bool      // and that was said
	session map[string]transport.Header
}

type collectStats struct {
	Stored     uint64 `json:"stored"`
	Duplicates uint64 `json:"duplicates"`
	Unreadable uint64 `json:"unreadable"` // not of the contract, or not of the gateway whose topic it came on
	Conflicts  uint64 `json:"conflicts"`  // other contents with the number of what is stored
	Records    uint64 `json:"records"`
	Acks       uint64 `json:"acks"`
	Overrun    uint64 `json:"overrun"` // came faster than they could be taken
}

func (a *app) collect(ctx context.Context, args []string) error {
	f := a.flags("collect")
	var b brokerFlags
	b.register(f)
	dir := f.String("dir", "", "keep everything in `DIR`")
	keyFile := f.String("key", "", "sign acknowledgements with this collector `KEY` file")
	tenant := f.String("tenant", "default", "tenant `NAME`")
	var only list
	f.Var(&only, "device", "only the gateway `ID`; may be repeated (default: all of the tenant)")
	interval := f.Duration("ack-interval", 10*time.Second, "least `TIME` between two acknowledgements to a gateway; 3s at most while records wait")
	grace := f.Duration("grace", 25*time.Hour, "how long a gateway that is new here must be heard until what it sent before is not waited for; longer than it takes to send again")
	rotate := f.Int64("rotate", 64<<20, "`BYTES` after which a new journal file is begun")
	session := f.String("session", "persistent", "persistent: the broker keeps what comes while this is away; or clean")
	clientID := f.String("client-id", "", "`NAME` at the broker (default: collect and the key's id); one collector each")
	maxDevices := f.Int("max-devices", 100000, "`N` gateways at most; what others send is not taken")
	asJSON := f.Bool("json", false, "print what happens as JSON lines")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	switch {
	case b.url == "":
		return cli.Exit(cli.Usage, "collect: --broker is missing")
	case *dir == "":
		return cli.Exit(cli.Usage, "collect: --dir is missing")
	case !transport.ValidTenant(*tenant):
		return cli.Exit(cli.Usage, "collect: --tenant %q is not a name", *tenant)
	case *session != "persistent" && *session != "clean":
		return cli.Exit(cli.Usage, "collect: --session %q is neither persistent nor clean", *session)
	case *interval < 0 || *rotate < 1 || *maxDevices < 1 || *grace <= 0:
		return cli.Exit(cli.Usage, "collect: --ack-interval, --grace, --rotate and --max-devices must be positive")
	}
	key, err := readKey(*keyFile)
	if err != nil {
		return fmt.Errorf("collect: --key: %w", err)
	}
	c := &collector{
		tenant: *tenant, key: key, maxDevices: *maxDevices, ackInterval: *interval, devices: map[string]*collected{},
		persistent: *session == "persistent", options: consumer.Options{Grace: *grace}, tell: teller{a.out, *asJSON},
	}
	for _, id := range only {
		if !transport.ValidDevice(id) {
			return cli.Exit(cli.Usage, "collect: --device %q is not 8 to 23 letters and digits", id)
		}
		if c.only == nil {
			c.only = map[string]bool{}
		}
		c.only[id] = true
	}
	if *clientID == "" {
		pub, _ := key.Public().(ed25519.PublicKey)
		*clientID = "collect" + order.KeyID(pub)[:16]
	}
	if c.archive, err = openArchive(*dir, *rotate); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	err = c.recover()
	if err == nil {
		err = c.run(ctx, func() (*mqtt.Conn, error) { return b.dialAs(ctx, *clientID, c.persistent) })
		if !c.begun.IsZero() {
			c.summary()
		}
	}
	return errors.Join(err, c.archive.close())
}

// recover brings the state up to what is on disk.
func (c *collector) recover() error {
	state, err := c.archive.load(c.tenant)
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	for _, s := range state.Devices {
		t, err := consumer.Restore(s.Tracker, c.options)
		if err != nil {
			return fmt.Errorf("collect: %w", err)
		}
		d := c.device(t.Device())
		d.tracker, d.version, d.points, d.again, d.audit = t, s.AckVersion, s.Points, s.AckAgain, s.Audit
	}
	var failed error
	damaged, err := c.archive.replay(state.File, state.Offset, func(e entry) {
		if failed == nil {
			failed = c.replayed(e)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return cli.Exit(cli.Fail, "collect: %w", err)
	}
	if damaged > 0 {
		c.tell.say(note{Event: "damaged", Count: uint64(damaged), Detail: "lines of the journal cannot be read"})
	}
	c.saved = time.Now()
	return nil
}

// replayed takes what was stored before.
func (c *collector) replayed(e entry) error {
	if e.Ack != nil {
		d := c.device(e.Ack.Device)
		// The one before was published, or what it names stands in this one too.
		d.tracker.Acknowledged(slices.DeleteFunc(d.named, func(s transport.Stored) bool { return slices.Contains(e.Ack.Stored, s) }))
		d.version, d.points, d.named = max(d.version, e.Ack.Version), e.Ack.Points, e.Ack.Stored
		d.again = true // whether it was published, nobody knows
		return nil
	}
	addr, err := transport.ParseTopic(e.Topic)
	if err != nil {
		return nil //nolint:nilerr // epoch_dated, which the messages tell as well
	}
	h, body, err := transport.Decode(e.message())
	if err != nil {
		return nil //nolint:nilerr // it was not taken into account then either
	}
	d := c.device(addr.Device)
	d.tracker.Observe(e.ReceivedAt, h, addr.Kind, addr.Name, e.message())
	d.changed = true
	_ = d.follow(addr, h.Class, body)
	if mayBeRecord(addr, h.Class) {
		return c.fileRecord(addr, body) // it may not have come so far
	}
	return nil
}

// device returns the state of a gateway, made if need be.
func (c *collector) device(id string) *collected {
	d := c.devices[id]
	if d == nil {
		d = &collected{tracker: consumer.NewTracker(id, c.options), session: map[string]transport.Header{}}
		c.devices[id] = d
	}
	return d
}

// run collects until ctx ends or nothing can be stored any more. The first
// connection must succeed; a later one is waited for.
func (c *collector) run(ctx context.Context, dial func() (*mqtt.Conn, error)) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	c.begun = time.Now()
	for {
		c.tell.say(note{Event: "connected", Detail: fmt.Sprintf("%d gateways known", len(c.devices))})
		err := c.session(ctx, conn)
		c.stats.Overrun += conn.Dropped()
		var store *storeError
		switch {
		case errors.As(err, &store):
			return cli.Exit(cli.Fail, "%w; nothing more is acknowledged", err)
		case errors.Is(err, mqtt.ErrSubscribeRefused):
			return cli.Exit(cli.Refused, "%w", err)
		case ctx.Err() != nil:
			if err := c.save(); err != nil {
				return cli.Exit(cli.Fail, "cannot keep the state, the journal has all: %w", err)
			}
			return nil
		}
		c.tell.say(note{Event: "disconnected", Detail: err.Error()})
		for pause := time.Second; ; pause = min(2*pause, reconnectMost) {
			select {
			case <-ctx.Done():
				return c.save()
			case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // spread, not secrecy
			}
			if conn, err = dial(); err == nil {
				break
			}
		}
	}
}

func (c *collector) hangUp(ctx context.Context, conn *mqtt.Conn) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

// storeError says that something could not be made durable.
type storeError struct{ err error }

func (e *storeError) Error() string { return "cannot store: " + e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// session collects over one connection, until it or ctx ends.
func (c *collector) session(ctx context.Context, conn *mqtt.Conn) error {
	var filters []string
	for _, kind := range []transport.Kind{
		transport.KindState, transport.KindInfo, transport.KindTelemetry, transport.KindEvent, transport.KindBackfill,
		transport.KindStatus, transport.KindRecord, transport.KindPending,
	} {
		devices := []string{"+"}
		if c.only != nil {
			devices = slices.Sorted(maps.Keys(c.only))
		}
		for _, device := range devices {
			filter, err := transport.Filter(c.tenant, device, kind, "+")
			if err != nil {
				return err
			}
			filters = append(filters, filter)
		}
	}
	// What waits at the broker comes before it answers: it is taken meanwhile.
	subscribed := make(chan error, 1)
	go func() { subscribed <- conn.Subscribe(ctx, filters...) }()
	var sent chan delivery // nil: no acknowledgements are under way
	ready, ending, rounds := false, ctx.Done(), 0
	defer func() {
		c.hangUp(context.WithoutCancel(ctx), conn)
		if !ready {
			<-subscribed //nolint:errcheck // it failed with the connection
		}
		if sent != nil {
			if err := c.delivered(<-sent); err != nil {
				c.tell.say(note{Event: "unacknowledged", Detail: err.Error()}) // they go again
			}
		}
	}()
	ticker := time.NewTicker(min(time.Second, max(c.ackInterval, 10*time.Millisecond)))
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-ending:
			if !ready {
				return ctx.Err()
			}
			// What is acknowledged now is not sent again.
			ending = nil
			if sent == nil {
				if sent, err = c.acknowledge(ctx, conn, time.Now(), 0); err == nil && sent == nil {
					return nil
				}
			}
		case err = <-subscribed:
			if ready = true; err != nil {
				return fmt.Errorf("cannot follow the streams: %w", err)
			}
		case d := <-sent:
			sent = nil
			if err = c.delivered(d); err == nil && ending == nil {
				if rounds++; rounds == lastRounds {
					return nil
				}
				if sent, err = c.acknowledge(ctx, conn, time.Now(), 0); err == nil && sent == nil {
					return nil
				}
			}
		case <-conn.Lost():
			return fmt.Errorf("lost the broker: %w", conn.Err())
		case p := <-conn.Inbound():
			err = c.take(time.Now(), p, conn.Inbound())
		case now := <-ticker.C:
			if c.persistent && conn.Dropped() > 0 {
				// The broker brings it again with the next connection.
				return errors.New("messages came faster than they could be stored")
			}
			c.look(now)
			if sent == nil && ready && ending != nil {
				sent, err = c.acknowledge(ctx, conn, now, c.ackInterval)
			}
			if err == nil {
				err = c.saveNow(now)
			}
		}
		if err != nil {
			return err
		}
	}
}

// take stores a message and those that wait behind it, then tells the broker.
func (c *collector) take(now time.Time, p mqtt.Packet, more <-chan mqtt.Packet) error {
	packets := []mqtt.Packet{p}
	for len(packets) < batch {
		select {
		case p := <-more:
			packets = append(packets, p)
			continue
		default:
		}
		break
	}
	for _, p := range packets {
		if err := c.message(now, p); err != nil {
			return &storeError{err}
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	for _, p := range packets {
		p.Ack()
	}
	return nil
}

// flush makes durable what was noted.
func (c *collector) flush() error {
	if len(c.buffer) > 0 {
		if err := c.archive.append(c.buffer); err != nil {
			return &storeError{err}
		}
		c.buffer, c.dirty = c.buffer[:0], true
		c.stats.Stored += c.noted
		c.noted = 0
	}
	for _, after := range c.since {
		if err := after(); err != nil {
			return &storeError{err}
		}
	}
	c.since = c.since[:0]
	return nil
}

// message judges one message and notes it for storing.
func (c *collector) message(now time.Time, p mqtt.Packet) error {
	addr, err := transport.ParseTopic(p.Topic)
	if err != nil || addr.Tenant != c.tenant || c.only != nil && !c.only[addr.Device] {
		c.stats.Unreadable++
		return nil //nolint:nilerr // anyone may publish: it is counted
	}
	h, body, err := transport.Decode(p.Payload)
	if err != nil || h.Device != addr.Device {
		c.stats.Unreadable++
		c.tell.say(note{Event: "unreadable", Device: addr.Device, Detail: fmt.Sprintf("on %s", p.Topic)})
		return nil //nolint:nilerr // anyone may publish: it is counted
	}
	if c.devices[addr.Device] == nil && len(c.devices) >= c.maxDevices {
		c.stats.Unreadable++
		c.tell.say(note{Event: "ignored", Device: addr.Device, Detail: "too many gateways"})
		return nil
	}
	d := c.device(addr.Device)
	if p.Retained && h.Class == transport.ClassSession && d.session[p.Topic] == h {
		return nil // the broker shows it with every subscription
	}
	out := d.tracker.Observe(now, h, addr.Kind, addr.Name, p.Payload)
	d.changed = true
	c.report(d, addr, h, out)
	if out.Verdict == consumer.Duplicate {
		c.stats.Duplicates++
		d.again = d.again || h.Class == transport.ClassEvent
		return nil
	}
	if h.Class == transport.ClassSession {
		d.session[p.Topic] = h
	}
	e := entry{ReceivedAt: now.UTC(), Topic: p.Topic, Retained: p.Retained, Payload: p.Payload}
	dated := d.tracker.DateOf(h)
	e.Quality = dated.Quality
	if dated.Quality != consumer.QualityNone {
		e.Time, e.ErrorS = &dated.Time, dated.Error.Seconds()
	}
	switch out.Verdict {
	case consumer.Conflict:
		c.stats.Conflicts++
		e.Verdict = out.Verdict.String()
	case consumer.Late, consumer.Implausible:
		e.Verdict = out.Verdict.String()
	case consumer.New, consumer.Untracked, consumer.Duplicate:
	}
	if err := c.note(e); err != nil {
		return err
	}
	c.noted++
	if out.Dated {
		if at := d.tracker.Date(h.Epoch, h.UptimeS); at.Quality != consumer.QualityNone {
			start := at.Time.UnixMilli() - int64(h.UptimeS*1000)
			if err := c.note(entry{ReceivedAt: now.UTC(), EpochDated: &epochDated{h.Device, h.Epoch, start, h.UptimeS}}); err != nil {
				return err
			}
		}
	}
	if problem := d.follow(addr, h.Class, body); problem != "" {
		c.tell.say(note{Event: "audit", Device: addr.Device, Detail: problem})
	}
	if mayBeRecord(addr, h.Class) {
		c.since = append(c.since, func() error { return c.fileRecord(addr, body) })
	}
	return nil
}

func (c *collector) note(e entry) error {
	line, err := e.line()
	c.buffer = append(c.buffer, line...)
	return err
}

// follow hands what belongs to the audit trail to it. A digest says nothing of
// the topic: what is of class record is taken for what it is wherever it came.
func (d *collected) follow(addr transport.Address, class transport.Class, body []byte) (problem string) {
	switch {
	case class == transport.ClassRecord, addr.Kind == transport.KindEvent && addr.Name == "audit":
		var m agent.AuditMessage
		if json.Unmarshal(body, &m) == nil && m.Line != "" {
			return d.audit.take(m.Line)
		}
	case (addr.Kind == transport.KindTelemetry || addr.Kind == transport.KindBackfill) && addr.Name == "heartbeat":
		return d.audit.ends(auditHead(body))
	}
	return ""
}

// mayBeRecord reports whether a message is to be looked at for a record to file.
func mayBeRecord(addr transport.Address, class transport.Class) bool {
	return addr.Kind == transport.KindRecord || class == transport.ClassRecord
}

// fileRecord files a record by itself. What is none stays in the journal.
func (c *collector) fileRecord(addr transport.Address, body []byte) error {
	var m agent.RecordMessage
	if err := json.Unmarshal(body, &m); err != nil || addr.Kind != transport.KindRecord && m.Record.Payload == "" {
		return nil //nolint:nilerr // it stays in the journal
	}
	data, err := record.Marshal(m.Record)
	if err != nil {
		return nil //nolint:nilerr // it stays in the journal
	}
	v := record.Verify(data, record.VerifyOptions{})
	if v.Record == nil || v.Record.Device != addr.Device || !order.ValidID(m.Order) || !order.ValidID(v.Record.Job) || len(v.Digest) < 16 {
		c.tell.say(note{Event: "record", Device: addr.Device, Detail: "not filed: what came on " + string(addr.Kind) + "/" + addr.Name + " is no record of this gateway"})
		return nil
	}
	path, err := c.archive.file(addr.Device, m.Order, v.Record.Job, v.Digest, data)
	if err != nil {
		return err
	}
	if path != "" {
		c.stats.Records++
		c.tell.say(note{Event: "record", Device: addr.Device, Path: path, Detail: "filed, " + string(v.Status)})
	}
	return nil
}

// report tells what a message changed.
func (c *collector) report(d *collected, addr transport.Address, h transport.Header, out consumer.Outcome) {
	n := note{Device: addr.Device, Class: h.Class, Epoch: h.Epoch, From: h.Seq, To: h.Seq}
	switch out.Verdict {
	case consumer.Duplicate, consumer.Late, consumer.Implausible:
		n.Event = out.Verdict.String()
		c.tell.say(n)
	case consumer.Conflict:
		n.Event, n.Detail = consumer.Conflict.String(), "another content has this number: one of them is forged, or the gateway lost count; both are stored"
		c.tell.say(n)
	case consumer.New, consumer.Untracked:
	}
	if g := out.Gap; g != nil {
		c.tell.say(note{
			Event: "gap", Device: addr.Device, Class: g.Class, Epoch: g.Epoch, FromEpoch: g.FromEpoch, From: g.FromSeq, To: g.ToSeq,
			Count: g.Count, Reason: g.Reason,
		})
	}
	if out.Ignored != "" {
		n.Event, n.Detail = "gap_ignored", out.Ignored
		c.tell.say(n)
	}
	for _, hole := range out.GaveUp {
		c.tell.say(note{Event: "given_up", Device: addr.Device, Class: hole.Class, Epoch: hole.Epoch, From: hole.From, To: hole.To})
	}
	if out.Dated {
		dated := d.tracker.Date(h.Epoch, h.UptimeS)
		c.tell.say(note{Event: "dated", Device: addr.Device, Epoch: h.Epoch, Detail: "by its clock at " + dated.Time.Format(time.RFC3339)})
	}
}

// look tells what has been missing for a while, and what is no more.
func (c *collector) look(now time.Time) {
	for _, d := range c.devices {
		if !d.changed && (d.missing.IsZero() || d.told) {
			continue
		}
		d.changed = false
		count := d.tracker.Totals().Missing
		switch {
		case count == 0:
			if d.told {
				c.tell.say(note{Event: "complete", Device: d.tracker.Device()})
			}
			d.missing, d.told = time.Time{}, false
		case d.missing.IsZero():
			d.missing = now
		case !d.told && now.Sub(d.missing) >= missingAfter:
			d.told = true
			for _, hole := range d.tracker.Missing(8) {
				c.tell.say(note{
					Event: "missing", Device: d.tracker.Device(), Class: hole.Class, Epoch: hole.Epoch, From: hole.From, To: hole.To,
					Count: hole.To - hole.From + 1,
				})
			}
		}
	}
}

// letter is an acknowledgement to a gateway.
type letter struct {
	device  string
	topic   string
	payload []byte
	points  []transport.Point  // in it, if they are news
	stored  []transport.Stored // in it
}

// delivery is how the publishing of letters ended.
type delivery struct {
	letters []letter
	err     error
}

// acknowledge signs for what is stored, gateway by gateway, at most once in an
// interval each. Versions are durable before anyone can see them. What is to be
// published is on its way when it returns; nil means that there is nothing.
func (c *collector) acknowledge(ctx context.Context, conn *mqtt.Conn, now time.Time, interval time.Duration) (chan delivery, error) {
	if err := c.flush(); err != nil {
		return nil, err
	}
	var due []letter
	for id, d := range c.devices {
		pace := interval
		switch waiting := d.tracker.Waiting(); {
		case waiting > consumer.MaxStored:
			pace = min(pace, drainWithin)
		case waiting > 0:
			pace = min(pace, recordsWithin)
		}
		if now.Sub(d.ackAt) < pace {
			continue
		}
		points, stored := d.tracker.Checkpoint(), d.tracker.Stored()
		news := points
		if slices.Equal(points, d.points) && !d.again {
			news = nil
		}
		if len(news) == 0 && len(stored) == 0 {
			continue
		}
		version := max(d.version+1, uint64(max(now.UnixMilli(), 1)))
		ack := order.Ack{V: 1, Tenant: c.tenant, Device: id, Version: version, Points: points, Stored: stored}
		env, err := ack.Sign(c.key)
		if err != nil {
			return nil, &storeError{err}
		}
		payload, err := json.Marshal(env)
		if err != nil {
			return nil, &storeError{err}
		}
		topic, err := transport.Topic(c.tenant, id, transport.KindAck, "")
		if err != nil {
			return nil, &storeError{err}
		}
		if err := c.note(entry{ReceivedAt: now.UTC(), Ack: &ack}); err != nil {
			return nil, &storeError{err}
		}
		d.version, d.points, d.ackAt, d.again = version, points, now, false
		due = append(due, letter{id, topic, payload, news, stored})
	}
	if err := c.flush(); err != nil {
		return nil, err
	}
	if len(due) == 0 {
		return nil, nil
	}
	sent := make(chan delivery, 1)
	go func() {
		// Also after ctx has ended: what is acknowledged is not sent again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
		defer cancel()
		sent <- delivery{due, publish(ctx, conn, due)}
	}()
	return sent, nil
}

// ackTimeout bounds the publishing of a round of acknowledgements.
const ackTimeout = 30 * time.Second

// publish publishes letters to stay, several at a time. An error says that some
// may not have arrived.
func publish(ctx context.Context, conn *mqtt.Conn, letters []letter) error {
	var group sync.WaitGroup
	errs := make(chan error, publishers)
	for part := range slices.Chunk(letters, (len(letters)+publishers-1)/publishers) {
		group.Go(func() {
			for _, l := range part {
				if err := conn.Publish(ctx, l.topic, 1, true, l.payload); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		})
	}
	group.Wait()
	close(errs)
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return failed
}

// delivered notes how letters fared.
func (c *collector) delivered(sent delivery) error {
	for _, l := range sent.letters {
		d := c.devices[l.device]
		if sent.err != nil {
			d.again, d.ackAt = true, time.Time{} // nobody knows which arrived
			continue
		}
		c.stats.Acks++
		d.tracker.Acknowledged(l.stored)
		c.dirty = true
		for _, p := range l.points {
			c.tell.say(note{Event: "ack", Device: l.device, Class: p.Class, Epoch: p.Epoch, To: p.Seq, Version: d.version})
		}
		if n := len(l.stored); n > 0 {
			c.tell.say(note{Event: "ack", Device: l.device, Class: transport.ClassRecord, Count: uint64(n), Version: d.version})
		}
	}
	return sent.err
}

// saveNow takes a snapshot if there is something new and it is time.
func (c *collector) saveNow(now time.Time) error {
	if !c.dirty || now.Sub(c.saved) < max(saveEvery, 20*c.took) {
		return nil
	}
	if err := c.save(); err != nil {
		return &storeError{err}
	}
	return nil
}

func (c *collector) save() error {
	begun := time.Now()
	s := collectState{Tenant: c.tenant, Devices: []deviceState{}}
	for _, id := range slices.Sorted(maps.Keys(c.devices)) {
		d := c.devices[id]
		tracker, err := json.Marshal(d.tracker)
		if err != nil {
			return err
		}
		s.Devices = append(s.Devices, deviceState{d.version, d.points, d.again, d.audit, tracker})
	}
	if err := c.archive.save(s); err != nil {
		return err
	}
	c.saved, c.took, c.dirty = time.Now(), time.Since(begun), false
	return nil
}

func (c *collector) summary() {
	for _, id := range slices.Sorted(maps.Keys(c.devices)) {
		t := c.devices[id].tracker.Totals()
		c.tell.say(note{Event: "account", Device: id, Account: &t})
	}
	c.tell.say(note{Event: "summary", Stats: &c.stats})
}

// note is one line of what a collector prints.
type note struct {
	Time      time.Time        `json:"time"`
	Event     string           `json:"event"`
	Device    string           `json:"device,omitempty"`
	Class     transport.Class  `json:"class,omitempty"`
	FromEpoch uint64           `json:"from_epoch,omitempty"`
	Epoch     uint64           `json:"epoch,omitempty"`
	From      uint64           `json:"from_seq,omitempty"`
	To        uint64           `json:"to_seq,omitempty"`
	Count     uint64           `json:"count,omitempty"`
	Reason    string           `json:"reason,omitempty"`
	Version   uint64           `json:"version,omitempty"`
	Path      string           `json:"path,omitempty"`
	Detail    string           `json:"detail,omitempty"`
	Account   *consumer.Totals `json:"account,omitempty"`
	Stats     *collectStats    `json:"stats,omitempty"`
}

type teller struct {
	out  io.Writer
	json bool
}

func (t teller) say(n note) {
	n.Time = time.Now().UTC().Truncate(time.Millisecond)
	if t.json {
		if line, err := json.Marshal(n); err == nil {
			_, _ = t.out.Write(append(line, '\n'))
		}
		return
	}
	fmt.Fprintln(t.out, clean(n.text()))
}

// text is the note in words.
func (n note) text() string {
	parts := []string{n.Time.Local().Format(time.TimeOnly)}
	add := func(ok bool, format string, args ...any) {
		if ok {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(n.Device != "", "%s", n.Device)
	add(true, "%s", n.Event)
	add(n.Class != "", "%s", n.Class)
	add(n.FromEpoch != 0, "epochs %d to", n.FromEpoch)
	add(n.Epoch != 0, "%d", n.Epoch)
	switch {
	case n.From == 0 && n.To == 0:
	case n.From == n.To:
		add(true, "#%d", n.From)
	case n.From == 0:
		add(true, "up to #%d", n.To)
	case n.To == 0:
		add(true, "from #%d on", n.From)
	default:
		add(true, "#%d–%d", n.From, n.To)
	}
	add(n.Count != 0, "(%d)", n.Count)
	add(n.Reason != "", "%s", n.Reason)
	add(n.Version != 0, "version %d", n.Version)
	add(n.Path != "", "%s", n.Path)
	add(n.Detail != "", "%s", n.Detail)
	if s := n.Account; s != nil {
		add(true, "received %d, duplicates %d, missing %d, dropped %d, from before %d, given up %d",
			s.Received, s.Duplicates, s.Missing, s.Dropped, s.Before, s.GaveUp)
	}
	if s := n.Stats; s != nil {
		add(true, "stored %d, duplicates %d, conflicts %d, unreadable %d, records %d, acknowledgements %d, overrun %d",
			s.Stored, s.Duplicates, s.Conflicts, s.Unreadable, s.Records, s.Acks, s.Overrun)
	}
	return strings.Join(parts, " ")
}
