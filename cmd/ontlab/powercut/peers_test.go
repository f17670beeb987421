package powercut

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.etcd.io/bbolt"

	"ontagent/transport"
	"ontagent/transport/spool"
)

// payloadSize is what a peer is given at a time, in bytes.
const payloadSize = 200

func payload(n int) []byte {
	return fmt.Appendf(nil, "{%q:%q}", "m", fmt.Sprintf("%0*d", payloadSize-8, n))
}

// store is a queue on disk, ours or a peer's, as far as it takes to compare.
type store interface {
	put(n int) error
	// remove forgets a message that was delivered.
	remove(n int) error
	// has tells which of the messages below n are there.
	has(n int) (map[int]bool, error)
	close() error
}

type storeKind struct {
	name string
	open func(dir string) (store, error)
}

// bolt is a queue as collectors build it on bbolt: a bucket, keys that count.
type bolt struct{ db *bbolt.DB }

func boltKey(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func openBolt(noSync bool) func(string) (store, error) {
	return func(dir string) (store, error) {
		// The options of OpenTelemetry's file_storage, whose fsync is off by
		// default.
		db, err := bbolt.Open(filepath.Join(dir, "queue.db"), 0o600, &bbolt.Options{
			Timeout: time.Second, NoSync: noSync, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		})
		if err != nil {
			return nil, err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte("default"))
			return err
		})
		return &bolt{db}, err
	}
}

func (b *bolt) put(n int) error {
	return b.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("default")).Put(boltKey(n), payload(n)) })
}

func (b *bolt) remove(n int) error {
	return b.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("default")).Delete(boltKey(n)) })
}

func (b *bolt) has(n int) (map[int]bool, error) {
	found := map[int]bool{}
	err := b.db.View(func(tx *bbolt.Tx) error {
		for i := range n {
			if string(tx.Bucket([]byte("default")).Get(boltKey(i))) == string(payload(i)) {
				found[i] = true
			}
		}
		return nil
	})
	return found, err
}

func (b *bolt) close() error { return b.db.Close() }

// paho is the file store of the MQTT library: a file a message.
type paho struct{ store *mqtt.FileStore }

func openPaho(dir string) (store, error) {
	s := mqtt.NewFileStore(filepath.Join(dir, "paho"))
	s.Open()
	return &paho{s}, nil
}

func pahoKey(n int) string { return "o." + strconv.Itoa(n+1) }

func (p *paho) put(n int) error {
	m, ok := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	if !ok {
		return errors.New("no PUBLISH")
	}
	m.Qos, m.MessageID, m.TopicName, m.Payload = 1, uint16(n+1), "t", payload(n)
	p.store.Put(pahoKey(n), m)
	return nil
}

func (p *paho) remove(n int) error {
	p.store.Del(pahoKey(n))
	return nil
}

func (p *paho) has(n int) (map[int]bool, error) {
	found := map[int]bool{}
	for i := range n {
		if m, ok := p.store.Get(pahoKey(i)).(*packets.PublishPacket); ok && string(m.Payload) == string(payload(i)) {
			found[i] = true
		}
	}
	return found, nil
}

func (p *paho) close() error {
	p.store.Close()
	return nil
}

// ours is the spool: singly, as an event each, or in batches as telemetry.
type ours struct {
	q     *spool.Queue
	clock *clock
	class transport.Class
}

func openOurs(class transport.Class) func(string) (store, error) {
	return func(dir string) (store, error) {
		c := newClock()
		// The first in its directory: what is there must be read again.
		epoch := uint64(1)
		if _, err := os.Stat(filepath.Join(dir, "spool")); err == nil {
			epoch = 2
		}
		q, err := openSpool(newFiles(false), dir, epoch, c, style{confirm: spool.ByBroker})
		return &ours{q, c, class}, err
	}
}

func (o *ours) put(n int) error {
	o.clock.now = o.clock.now.Add(10 * time.Second) // a message every 10 s
	m := transport.Message{Class: o.class, Kind: transport.KindEvent, Name: "link", Body: payload(n)}
	if o.class == transport.ClassTelemetry {
		m.Kind, m.Name = transport.KindTelemetry, "optics"
	}
	err := o.q.Put(context.Background(), m)
	o.q.Maintain()
	return err
}

func (o *ours) remove(int) error {
	e, ok := next(o.q)
	if !ok {
		return errors.New("nothing to remove")
	}
	o.q.Done(e)
	o.q.Maintain()
	return nil
}

func (o *ours) has(n int) (map[int]bool, error) {
	found := map[int]bool{}
	at := map[string]int{}
	for i := range n {
		at[string(payload(i))] = i
	}
	for _, e := range recoverAll(o.q, o.clock, 2).entries {
		if i, ok := at[string(e.Message.Body)]; ok {
			found[i] = true
		}
	}
	return found, nil
}

func (o *ours) close() error { return o.q.Close() }

// playPeers gives peers the cuts that the spool gets: how much of what they
// said they have is gone. What the kernel writes back by itself within half a
// minute is played by one sync of the whole file system, at a random moment
// before the cut.
func playPeers(m *machine, out io.Writer) error {
	cuts := size(8, 40)
	for _, kind := range []storeKind{
		{"spool, events", openOurs(transport.ClassEvent)},
		{"bbolt queue, NoSync (the default of OpenTelemetry's file_storage)", openBolt(true)},
		{"bbolt queue, synced", openBolt(false)},
		{"paho FileStore", openPaho},
	} {
		rnd := rand.New(rand.NewPCG(5, 41))
		acked, lost, hit, unreadable := 0, 0, 0, 0
		for range cuts {
			a, l, err := peerCut(m, kind, rnd)
			if err != nil {
				unreadable++
			}
			acked, lost = acked+a, lost+l
			if l > 0 {
				hit++
			}
		}
		verdict := "peer"
		if strings.HasPrefix(kind.name, "spool") {
			verdict = "ok"
			if lost > 0 || unreadable > 0 {
				verdict = "FAIL"
			}
		}
		result := fmt.Sprintf("acknowledged loss %d of %d (%.0f %%), in %d cuts", lost, acked, 100*float64(lost)/float64(max(acked, 1)), hit)
		if unreadable > 0 {
			result += fmt.Sprintf("; %d times it doesn't open again", unreadable)
		}
		line(out, "power-cut", kind.name+" on ext4 image, one writeback before", cuts, result, verdict)
		if verdict == "FAIL" {
			return fmt.Errorf("%s: %s", kind.name, result)
		}
	}
	return nil
}

// peerCut lets a store take messages, cuts the power and counts. An error
// means that what is left can't be read: all is lost.
func peerCut(m *machine, kind storeKind, rnd *rand.Rand) (acked, lost int, err error) {
	acked = 60 + rnd.IntN(200)
	written := rnd.IntN(acked)
	d, err := m.fresh()
	if err != nil {
		return 0, 0, err
	}
	s, err := kind.open(d.dir)
	if err != nil {
		return 0, 0, errors.Join(err, d.unmount())
	}
	for n := range acked {
		if err := s.put(n); err != nil {
			return 0, 0, errors.Join(fmt.Errorf("message %d: %w", n, err), s.close(), d.unmount())
		}
		if n == written {
			commit(d.dir)
		}
	}
	image, err := d.snapshot(func() {}, func() {})
	if err := errors.Join(err, s.close(), d.unmount()); err != nil {
		return 0, 0, err
	}
	found, err := recount(m, kind, image, acked)
	return acked, acked - len(found), err
}

// recount opens what a power cut left.
func recount(m *machine, kind storeKind, image []byte, n int) (found map[int]bool, err error) {
	d, err := m.revived(image)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.unmount()) }()
	// A peer may map a file that is shorter than it thinks.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			found, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	s, err := kind.open(d.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.has(n)
}

// playWrites measures what reaches the device for each byte of payload, all
// messages being queued and then delivered: the file system's own writes too.
func playWrites(m *machine, out io.Writer) error {
	n := size(500, 5000)
	worst := 0.0
	var worstPeer float64
	for _, kind := range []storeKind{
		{"spool, 200 B singly (events)", openOurs(transport.ClassEvent)},
		{"spool, 200 B in batches (telemetry)", openOurs(transport.ClassTelemetry)},
		{"peer bbolt queue, synced, 200 B singly", openBolt(false)},
		{"peer bbolt queue, NoSync, 200 B singly", openBolt(true)},
		{"peer paho FileStore, 200 B singly", openPaho},
	} {
		passed, reached, err := writes(m, kind, n)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		bytes := float64(n * payloadSize)
		verdict := "peer"
		switch {
		case strings.HasPrefix(kind.name, "spool"):
			verdict = "ok"
			worst = max(worst, float64(passed)/bytes)
		case strings.Contains(kind.name, "bbolt"):
			worstPeer = max(worstPeer, float64(passed)/bytes)
		}
		line(out, "flash-writes", kind.name+", on ext4", n, fmt.Sprintf("%d payload bytes: %d to write(), %.1f times; %d to the device, %.1f times, journal included",
			n*payloadSize, passed, float64(passed)/bytes, reached, float64(reached)/bytes), verdict)
	}
	if worst >= worstPeer {
		return fmt.Errorf("the spool writes %.1f times its payload, a peer %.1f times", worst, worstPeer)
	}
	return nil
}

// writes returns the bytes that were passed to write() and those that reached
// the device.
func writes(m *machine, kind storeKind, n int) (passed, reached int64, err error) {
	d, err := m.fresh()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, d.unmount()) }()
	commit(d.dir)
	_, s0, err := d.written()
	if err != nil {
		return 0, 0, err
	}
	w0, err := wchar()
	if err != nil {
		return 0, 0, err
	}
	s, err := kind.open(d.dir)
	if err != nil {
		return 0, 0, err
	}
	for i := 0; i < n; i += 50 {
		for j := i; j < i+50; j++ {
			if err := s.put(j); err != nil && !errors.Is(err, transport.ErrNotDurable) {
				return 0, 0, err
			}
		}
		for j := i; j < i+50; j++ {
			if err := s.remove(j); err != nil {
				return 0, 0, err
			}
		}
	}
	if err := s.close(); err != nil {
		return 0, 0, err
	}
	w1, err := wchar()
	if err != nil {
		return 0, 0, err
	}
	commit(d.dir)
	_, s1, err := d.written()
	return w1 - w0, (s1 - s0) * 512, err
}

// wchar is what this process has passed to write() so far, in bytes.
func wchar() (int64, error) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	for field := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(field, "wchar: "); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, errors.New("no count of written bytes")
}
