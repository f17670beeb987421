package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// I2C addresses of the two parts of an image.
const (
	addressA0 = 0x50
	addressA2 = 0x51
)

// recheckAfter is how long the static pages are believed without another look
// at the serial number: a module can be changed between two polls, and the
// calibration of one is wrong for another.
const recheckAfter = 5 * time.Minute

// Options configure a Reader.
type Options struct {
	// Interface is the network interface of the module's cage.
	Interface string
	// Log may be nil.
	Log *slog.Logger
	// Dial opens the kernel's ethtool family; nil means the real one. Tests
	// hand in recorded messages.
	Dial func() (Conn, error)
	// Ioctl performs an ethtool ioctl on the bytes of its structure; nil
	// means the real one.
	Ioctl func(iface string, request []byte) error
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Reader reads the module of one interface. It is safe for concurrent use.
type Reader struct {
	opts Options
	log  *slog.Logger

	mu      sync.Mutex
	ioctl   bool      // guarded by mu: netlink cannot, ioctl can
	known   bool      // guarded by mu: device and what follows hold
	device  device    // guarded by mu
	pageErr error     // guarded by mu: why a page was promised and not read
	partial bool      // guarded by mu: a page that may exist was not read
	serial  []byte    // guarded by mu: what is at device.serialAt
	checked time.Time // guarded by mu: when serial was last compared
}

var _ optics.FreshReader = (*Reader)(nil)

// New returns a Reader. It does not touch the kernel.
func New(opts Options) *Reader {
	if opts.Dial == nil {
		opts.Dial = dialEthtool
	}
	if opts.Ioctl == nil {
		opts.Ioctl = ethtoolIoctl
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Reader{opts: opts, log: log}
}

// Name is "module:" and the interface.
func (r *Reader) Name() string { return "module:" + r.opts.Interface }

// ReadOptics reads the live values; static pages are read when a module
// appears and looked at again from time to time. The error is compatible with
// collectors.ErrNoData if there is no module or the driver cannot read one.
func (r *Reader) ReadOptics(ctx context.Context) (optics.Reading, error) {
	return r.read(ctx, false)
}

// ReadOpticsFresh reads everything, the static pages too.
func (r *Reader) ReadOpticsFresh(ctx context.Context) (optics.Reading, error) {
	return r.read(ctx, true)
}

// Info returns what the module that was read last says of itself; false if
// there is none.
func (r *Reader) Info() (Info, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known {
		return Info{}, false
	}
	return *r.device.about(), true
}

func (r *Reader) read(ctx context.Context, fresh bool) (optics.Reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.open(ctx, fresh)
	if err != nil {
		r.known = false
		return optics.Unread(r.Name(), collectors.StatusError), r.wrap(err)
	}
	defer t.close()
	m := r.device
	if !m.sound() || r.pageErr != nil {
		r.known = false // begin anew next time
	}
	places := m.live()
	if r.pageErr != nil && len(places) > 0 {
		return m.reading(nil, r.Name()), r.wrap(fmt.Errorf("diagnostics page: %w", r.pageErr))
	}
	var (
		live   [][]byte
		failed error
	)
	for _, at := range places {
		b, err := t.read(at)
		if err != nil {
			r.known = false // gone or changed: begin anew
			if gone(err) && len(live) == 0 {
				return optics.Unread(r.Name(), collectors.StatusError), r.wrap(err)
			}
			// What was read of the others holds all the same.
			failed = r.wrap(fmt.Errorf("diagnostics page: %w", err))
		}
		live = append(live, b)
	}
	return m.reading(live, r.Name()), failed
}

// identify reads the static pages, unless the module is still the one that
// was read before.
func (r *Reader) identify(t transport, fresh bool) error {
	now := r.opts.Now()
	if r.known && !fresh && now.Sub(r.checked) < recheckAfter {
		return nil
	}
	if r.known && !fresh && !r.partial {
		b, err := t.read(r.device.serialAt())
		if err != nil {
			return err
		}
		if bytes.Equal(b, r.serial) {
			r.checked = now
			return nil
		}
		r.log.Info("optical module changed", "interface", r.opts.Interface)
	}
	lower, err := t.read(place{address: addressA0, length: halfPage})
	if err != nil {
		return err
	}
	r.pageErr, r.partial = nil, false
	switch kindOf(lower[0]) {
	case kindSFP:
		err = r.identifySFP(t, lower)
	case kindQSFP:
		err = r.identifyQSFP(t, lower)
	case kindCMIS:
		err = r.identifyCMIS(t, lower)
	case kindUnknown:
		err = fmt.Errorf("cannot decode module: %w: identifier %#02x", ErrUnknownKind, lower[0])
	}
	if err != nil {
		return err
	}
	r.checked, r.known = now, true
	return nil
}

func (r *Reader) identifySFP(t transport, a0 []byte) error {
	var (
		a2  []byte
		err error
	)
	if a0[92]&0x40 != 0 {
		// A page that is promised and cannot be read is an error of each
		// reading, not of the module.
		if a2, err = t.read(place{address: addressA2, length: halfPage}); err != nil {
			if gone(err) {
				return err
			}
			r.pageErr, a2 = err, nil
		}
	}
	m, err := decodeStatic(a0, a2)
	if err != nil {
		return err
	}
	r.device, r.serial = m, a0[68:68+serialLength]
	return nil
}

// upper reads the upper half of a page.
func upper(t transport, page byte) ([]byte, error) {
	return t.read(place{address: addressA0, page: page, offset: halfPage, length: halfPage})
}

// optional is upper for a page that a module or a driver may not have. One
// that could not be read for another reason is tried again some time.
func (r *Reader) optional(t transport, page byte) []byte {
	b, err := upper(t, page)
	if err == nil {
		return b
	}
	for _, absent := range []error{unix.EOPNOTSUPP, unix.EINVAL, unix.ENXIO} {
		if errors.Is(err, absent) {
			return nil
		}
	}
	r.partial = true
	return nil
}

func (r *Reader) identifyQSFP(t transport, lower []byte) error {
	page00, err := upper(t, 0)
	if err != nil {
		return err
	}
	var page03 []byte
	if lower[2]&qsfpFlatMemory == 0 {
		page03 = r.optional(t, 3)
	}
	m := decodeQSFP(lower, page00, page03)
	r.device, r.serial = m, page00[qsfpSerial-halfPage:][:serialLength]
	return nil
}

func (r *Reader) identifyCMIS(t transport, lower []byte) error {
	page00, err := upper(t, 0)
	if err != nil {
		return err
	}
	var page01, page02 []byte
	if lower[2]&cmisFlatMemory == 0 {
		page01, page02 = r.optional(t, 1), r.optional(t, 2)
	}
	m := decodeCMIS(lower, page00, page01, page02)
	r.device, r.serial = m, page00[cmisSerial-halfPage:][:serialLength]
	return nil
}

// wrap names the interface and turns "there is no module" into ErrNoData.
func (r *Reader) wrap(err error) error {
	if gone(err) {
		return fmt.Errorf("no optical module at %s: %w (%w)", r.opts.Interface, collectors.ErrNoData, err)
	}
	return fmt.Errorf("cannot read optical module of %s: %w", r.opts.Interface, err)
}

// gone reports whether err says that there is nothing to read: no module, no
// interface, or a driver that has no way to read one.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)
}

// transport fetches bytes of a module.
type transport interface {
	// read returns exactly the bytes of the place.
	read(at place) ([]byte, error)
	close()
}

// open returns a way to the module, and sees to it that the static pages are
// known: by netlink where the kernel can, by ioctl elsewhere. A kernel that
// has the ethtool family but not this request says EOPNOTSUPP, as a driver
// does that cannot read modules; then both are tried.
func (r *Reader) open(ctx context.Context, fresh bool) (transport, error) {
	ways := []func(context.Context) (transport, error){r.openNetlink, r.openIoctl}
	if r.ioctl {
		ways = ways[1:]
	}
	var failed error
	for i, way := range ways {
		t, err := way(ctx)
		if err == nil {
			if err = r.identify(t, fresh); err == nil {
				r.ioctl = r.ioctl || i > 0
				return t, nil
			}
			t.close()
		}
		if failed == nil || errors.Is(failed, errNoNetlink) {
			failed = err
		}
		if !errors.Is(err, errNoNetlink) && !errors.Is(err, unix.EOPNOTSUPP) {
			break
		}
	}
	r.ioctl = false
	return nil, failed
}

// errShort: the kernel answered with fewer bytes than were asked for.
var errShort = errors.New("short answer")
