package module_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/optics/module"
)

// fakeConn answers MODULE_EEPROM_GET from an image, as the kernel does, and
// writes down what was asked.
type fakeConn struct {
	t *testing.T
	// image is what is in the cage; nil means nothing.
	image  *image
	family error            // of GetFamily
	err    error            // of every request
	a2     error            // of requests to A2h
	pages  map[uint8][]byte // upper halves of pages; others do not exist
	page   error            // of requests to pages that do not exist; nil means EREMOTEIO
	short  int              // bytes at most in one answer; 0 means all
	empty  bool             // answer without data

	asked  []string
	closed int
}

func (c *fakeConn) GetFamily(name string) (genetlink.Family, error) {
	if name != "ethtool" {
		c.t.Errorf("family %q", name)
	}
	return genetlink.Family{ID: 21, Version: 1, Name: name}, c.family
}

func (*fakeConn) SetDeadline(time.Time) error { return nil }

func (c *fakeConn) Close() error { c.closed++; return nil }

func (c *fakeConn) Execute(m genetlink.Message, family uint16, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	c.t.Helper()
	if family != 21 || m.Header.Command != unix.ETHTOOL_MSG_MODULE_EEPROM_GET || flags != netlink.Request {
		c.t.Errorf("request %+v to %d with %v", m.Header, family, flags)
	}
	var (
		device             string
		offset, length     uint32
		page, address      uint8
		haveAddr, havePage bool
	)
	ad, err := netlink.NewAttributeDecoder(m.Data)
	if err != nil {
		c.t.Fatal(err)
	}
	for ad.Next() {
		switch ad.Type() {
		case 1:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == 2 {
						device = ad.String()
					}
				}
				return nil
			})
		case 2:
			offset = ad.Uint32()
		case 3:
			length = ad.Uint32()
		case 4:
			page, havePage = ad.Uint8(), true
		case 6:
			address, haveAddr = ad.Uint8(), true
		default:
			c.t.Errorf("attribute %d", ad.Type())
		}
	}
	if err := ad.Err(); err != nil {
		c.t.Fatal(err)
	}
	asked := fmt.Sprintf("%#x:%d+%d", address, offset, length)
	if page > 0 {
		asked = fmt.Sprintf("%#x:%02xh:%d+%d", address, page, offset, length)
	}
	c.asked = append(c.asked, asked)
	// What the kernel refuses, so that a request that only this fake would
	// answer is noticed.
	if device != "eth1" || !haveAddr || !havePage || page != 0 && offset < 128 || length == 0 || length > 128 || offset > 255 ||
		offset < 128 && offset+length > 128 || offset+length > 256 {
		c.t.Errorf("the kernel would refuse %q page %d %s", device, page, c.asked[len(c.asked)-1])
		return nil, &netlink.OpError{Op: "receive", Err: unix.EINVAL}
	}
	if c.err != nil {
		return nil, &netlink.OpError{Op: "receive", Err: c.err}
	}
	if c.image == nil {
		return nil, &netlink.OpError{Op: "receive", Err: unix.ENODEV}
	}
	half := c.image.a0
	if page > 0 {
		half = nil
		if p := c.pages[page]; p != nil {
			half = append(make([]byte, 128), p...)
		}
	}
	if address == 0x51 {
		if c.a2 != nil {
			return nil, &netlink.OpError{Op: "receive", Err: c.a2}
		}
		half = c.image.a2
	}
	if half == nil && page > 0 && c.page != nil {
		return nil, &netlink.OpError{Op: "receive", Err: c.page}
	}
	if half == nil {
		return nil, &netlink.OpError{Op: "receive", Err: unix.EREMOTEIO}
	}
	data := half[offset : offset+length]
	if c.short > 0 && len(data) > c.short {
		data = data[:c.short]
	}
	ae := netlink.NewAttributeEncoder()
	ae.Nested(1, func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(1, 3)
		ae.String(2, "eth1")
		return nil
	})
	if !c.empty {
		ae.Bytes(7, data)
	}
	b, err := ae.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	return []genetlink.Message{{Header: genetlink.Header{Command: unix.ETHTOOL_MSG_MODULE_EEPROM_GET_REPLY, Version: 1}, Data: b}}, nil
}

func noIoctl(string, []byte) error { return unix.EOPNOTSUPP }

func reader(c *fakeConn, now *time.Time) *module.Reader {
	opts := module.Options{
		Interface: "eth1",
		Dial:      func() (module.Conn, error) { return c, nil },
		Ioctl:     noIoctl,
	}
	if now != nil {
		opts.Now = func() time.Time { return *now }
	}
	return module.New(opts)
}

func TestReaderReadsLiveBytesOnly(t *testing.T) {
	normal := images(t, "gpon-ma5671a-normal")[0]
	c := &fakeConn{t: t, image: &normal}
	now := time.Unix(0, 0)
	r := reader(c, &now)
	want := func(what string, asked ...string) {
		t.Helper()
		reading, err := r.ReadOptics(t.Context())
		if err != nil || !reading.RxPower.OK() || reading.RxPower.Raw != "0x00aa" || reading.Source != "module:eth1" {
			t.Errorf("%s: %+v, %v", what, reading.RxPower, err)
		}
		if fmt.Sprint(c.asked) != fmt.Sprint(asked) {
			t.Errorf("%s: asked %v, want %v", what, c.asked, asked)
		}
		c.asked = nil
	}
	want("first", "0x50:0+128", "0x51:0+128", "0x51:96+24")
	want("second", "0x51:96+24")
	now = now.Add(6 * time.Minute)
	want("after a while", "0x50:68+28", "0x51:96+24")
	if info, ok := r.Info(); !ok || info.Vendor != "HUAWEI" {
		t.Errorf("info %+v, %v", info, ok)
	}
	if _, err := r.ReadOpticsFresh(t.Context()); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(c.asked); got != "[0x50:0+128 0x51:0+128 0x51:96+24]" {
		t.Errorf("fresh: asked %v", got)
	}
	if c.closed != 4 {
		t.Errorf("%d of 4 connections closed", c.closed)
	}
}

func TestReaderNoticesAnotherModule(t *testing.T) {
	normal, other := images(t, "gpon-ma5671a-normal")[0], images(t, "sff8472-finisar*")[0]
	c := &fakeConn{t: t, image: &normal}
	now := time.Unix(0, 0)
	r := reader(c, &now)
	if _, err := r.ReadOptics(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Pulled out: no data, and what was known is forgotten.
	c.image = nil
	if _, err := r.ReadOptics(t.Context()); !errors.Is(err, collectors.ErrNoData) {
		t.Errorf("empty cage: %v", err)
	}
	if _, ok := r.Info(); ok {
		t.Error("the module that was pulled out is still known")
	}
	c.image = &other
	if _, err := r.ReadOptics(t.Context()); err != nil {
		t.Error(err)
	}
	if info, _ := r.Info(); info.SerialNo != "MUP0WB0" {
		t.Errorf("info %+v", info)
	}
	// Changed between two polls: noticed when the serial is looked at again.
	c.image = &normal
	now = now.Add(time.Hour)
	if _, err := r.ReadOptics(t.Context()); err != nil {
		t.Error(err)
	}
	if info, _ := r.Info(); info.Vendor != "HUAWEI" {
		t.Errorf("info %+v", info)
	}
}

func TestReaderErrors(t *testing.T) {
	normal, copper := images(t, "gpon-ma5671a-normal")[0], images(t, "sff8079-*")[0]
	qsfp := images(t, "sff8636-*")[0]
	other := image{a0: append([]byte{0x06}, make([]byte, 255)...)} // XFP
	tests := []struct {
		name   string
		conn   fakeConn
		noData bool
		err    error // expected, besides noData; nil means none
		status collectors.Status
	}{
		{"no module", fakeConn{}, true, unix.ENODEV, collectors.StatusError},
		{"no support", fakeConn{image: &normal, err: unix.EOPNOTSUPP}, true, unix.EOPNOTSUPP, collectors.StatusError},
		{"I2C error", fakeConn{image: &normal, err: unix.EIO}, false, unix.EIO, collectors.StatusError},
		{"not permitted", fakeConn{image: &normal, err: unix.EPERM}, false, os.ErrPermission, collectors.StatusError},
		{"A2h does not answer", fakeConn{image: &normal, a2: unix.ENXIO}, false, unix.ENXIO, collectors.StatusError},
		{"A2h I2C error", fakeConn{image: &normal, a2: unix.EREMOTEIO}, false, unix.EREMOTEIO, collectors.StatusError},
		{"no diagnostics", fakeConn{image: &copper}, false, nil, collectors.StatusUnsupported},
		{"QSFP", fakeConn{image: &qsfp}, false, nil, collectors.StatusUnsupported},
		{"another kind", fakeConn{image: &other}, false, module.ErrUnknownKind, collectors.StatusError},
		{"short answers", fakeConn{image: &normal, short: 16}, false, nil, collectors.StatusOK},
		{"empty answers", fakeConn{image: &normal, empty: true}, false, errAny, collectors.StatusError},
		{"no family", fakeConn{image: &normal, family: os.ErrNotExist}, true, unix.EOPNOTSUPP, collectors.StatusError},
		{"family fails", fakeConn{image: &normal, family: unix.EINTR}, false, unix.EINTR, collectors.StatusError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.conn.t = t
			r, err := reader(&tt.conn, nil).ReadOptics(t.Context())
			if errors.Is(err, collectors.ErrNoData) != tt.noData {
				t.Errorf("error %v, no data wanted: %v", err, tt.noData)
			}
			switch {
			case tt.err == nil && err != nil, tt.err != nil && err == nil:
				t.Errorf("error %v, want %v", err, tt.err)
			case tt.err != nil && !errors.Is(tt.err, errAny) && !errors.Is(err, tt.err):
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if r.RxPower.Status != tt.status {
				t.Errorf("rx %+v, want %q", r.RxPower, tt.status)
			}
		})
	}
}

var errAny = errors.New("any error")

// fakeIoctl answers as the kernel does, in the byte order of this host.
type fakeIoctl struct {
	t     *testing.T
	image *image
	kind  uint32
	short bool
	asked []string
}

func (f *fakeIoctl) do(iface string, b []byte) error {
	f.t.Helper()
	if iface != "eth1" {
		f.t.Errorf("interface %q", iface)
	}
	if f.image == nil {
		return unix.ENODEV
	}
	blob := append(append([]byte{}, f.image.a0...), f.image.a2...)
	if f.kind == 1 {
		blob = blob[:256]
	}
	switch command := binary.NativeEndian.Uint32(b); command {
	case 0x42:
		if len(b) != 44 {
			f.t.Errorf("modinfo of %d bytes", len(b))
		}
		binary.NativeEndian.PutUint32(b[4:], f.kind)
		binary.NativeEndian.PutUint32(b[8:], uint32(len(blob)))
	case 0x43:
		offset, length := binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
		f.asked = append(f.asked, fmt.Sprintf("%d+%d", offset, length))
		if int(offset+length) > len(blob) || len(b) != 16+int(length) {
			return unix.EINVAL
		}
		copy(b[16:], blob[offset:offset+length])
		if f.short {
			binary.NativeEndian.PutUint32(b[12:], length-1)
		}
	default:
		f.t.Errorf("command %#x", command)
	}
	return nil
}

func TestReaderFallsBackToIoctl(t *testing.T) {
	normal, change := images(t, "gpon-ma5671a-normal")[0], images(t, "gpon-pmg3000*")[0]
	qsfp := images(t, "sff8636-*")[0]
	tests := []struct {
		name   string
		conn   fakeConn
		ioctl  fakeIoctl
		want   collectors.Status
		err    error
		noData bool
	}{
		{"kernel without ethtool netlink", fakeConn{family: os.ErrNotExist}, fakeIoctl{image: &normal, kind: 2}, collectors.StatusOK, nil, false},
		{"kernel without the request", fakeConn{err: unix.EOPNOTSUPP}, fakeIoctl{image: &normal, kind: 2}, collectors.StatusOK, nil, false},
		{"no module", fakeConn{family: os.ErrNotExist}, fakeIoctl{kind: 2}, collectors.StatusError, unix.ENODEV, true},
		{"address change hides A2h", fakeConn{family: os.ErrNotExist}, fakeIoctl{image: &change, kind: 1}, collectors.StatusError, unix.ENXIO, false},
		{"QSFP", fakeConn{family: os.ErrNotExist}, fakeIoctl{image: &qsfp, kind: 3}, collectors.StatusUnsupported, nil, false},
		{"XFP", fakeConn{family: os.ErrNotExist}, fakeIoctl{image: &normal, kind: 5}, collectors.StatusError, module.ErrUnknownKind, false},
		{"short", fakeConn{family: os.ErrNotExist}, fakeIoctl{image: &normal, kind: 2, short: true}, collectors.StatusError, errAny, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.conn.t, tt.ioctl.t = t, t
			r := module.New(module.Options{
				Interface: "eth1",
				Dial:      func() (module.Conn, error) { return &tt.conn, nil },
				Ioctl:     tt.ioctl.do,
			})
			for range 2 {
				got, err := r.ReadOptics(t.Context())
				if got.RxPower.Status != tt.want || errors.Is(err, collectors.ErrNoData) != tt.noData {
					t.Errorf("got %+v, %v", got.RxPower, err)
				}
				if (err != nil) != (tt.err != nil) || tt.err != nil && !errors.Is(tt.err, errAny) && !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			}
			if tt.want == collectors.StatusOK && fmt.Sprint(tt.ioctl.asked) != "[0+128 256+128 352+24 352+24]" {
				t.Errorf("asked %v", tt.ioctl.asked)
			}
		})
	}
}

func TestReaderCancelled(t *testing.T) {
	normal := images(t, "gpon-ma5671a-normal")[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := reader(&fakeConn{t: t, image: &normal}, nil).ReadOptics(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The real kernel, on the loopback interface: it has no module, and saying so
// is all that can be expected of it.
func TestReaderRealKernelWithoutModule(t *testing.T) {
	_, err := module.New(module.Options{Interface: "lo"}).ReadOptics(t.Context())
	switch {
	case errors.Is(err, collectors.ErrNoData), errors.Is(err, os.ErrPermission):
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		t.Skipf("generic netlink does not work here: %v", err)
	default:
		t.Errorf("got %v, want no data", err)
	}
}

// A module whose static pages were disturbed on the bus is read again at the
// next poll, not only when somebody looks at the serial number.
func TestReaderReadsDisturbedPagesAgain(t *testing.T) {
	normal := images(t, "gpon-ma5671a-normal")[0]
	for name, disturb := range map[string]func(im *image){
		"A0h": func(im *image) { im.a0[20] ^= 1 },
		"A2h": func(im *image) { im.a2[3] ^= 1 },
	} {
		bad := image{a0: bytes.Clone(normal.a0), a2: bytes.Clone(normal.a2)}
		disturb(&bad)
		c := &fakeConn{t: t, image: &bad}
		r := reader(c, nil)
		if got, err := r.ReadOptics(t.Context()); err != nil || got.RxPower.Status != collectors.StatusUntrusted {
			t.Errorf("%s: %+v, %v", name, got.RxPower, err)
		}
		c.image = &normal
		if got, err := r.ReadOptics(t.Context()); err != nil || !got.RxPower.OK() {
			t.Errorf("%s, read again: %+v, %v", name, got.RxPower, err)
		}
	}
}

// A module that asks for an address change: its diagnostics are read by
// netlink all the same, where the ioctl hides them.
func TestReaderAddressChange(t *testing.T) {
	im := images(t, "gpon-pmg3000*")[0]
	r := reader(&fakeConn{t: t, image: &im}, nil)
	got, err := r.ReadOptics(t.Context())
	if err != nil || !got.RxPower.OK() {
		t.Errorf("%+v, %v", got.RxPower, err)
	}
	if info, ok := r.Info(); !ok || !info.AddressChange {
		t.Errorf("info %+v", info)
	}
}

func TestReaderPolls(t *testing.T) {
	qsfp, cmis := images(t, "sff8636-*")[0], images(t, "cmis-*")[0]
	tests := []struct {
		name          string
		conn          fakeConn
		first, second []string
		lane          float64 // rx of the first
		alarm         bool    // thresholds of rx were read
		err           bool
	}{
		{
			"QSFP without page 03h",
			fakeConn{image: &qsfp, page: unix.EOPNOTSUPP},
			[]string{"0x50:0+128", "0x50:128+128", "0x50:03h:128+128", "0x50:2+56"},
			[]string{"0x50:2+56"},
			-0.886818, false, false,
		},
		{
			"QSFP",
			fakeConn{image: &qsfp, pages: map[uint8][]byte{3: page03()}},
			[]string{"0x50:0+128", "0x50:128+128", "0x50:03h:128+128", "0x50:2+56"},
			[]string{"0x50:2+56"},
			-0.886818, true, false,
		},
		{
			"CMIS",
			fakeConn{image: &cmis, pages: map[uint8][]byte{1: page01(0x07), 2: page02(), 0x11: cmis.a2[:128]}},
			[]string{"0x50:0+128", "0x50:128+128", "0x50:01h:128+128", "0x50:02h:128+128", "0x50:9+9", "0x50:11h:139+63"},
			[]string{"0x50:9+9", "0x50:11h:139+63"},
			-0.9691, true, false,
		},
		{
			"CMIS without lanes",
			fakeConn{image: &cmis},
			[]string{"0x50:0+128", "0x50:128+128", "0x50:01h:128+128", "0x50:02h:128+128", "0x50:9+9", "0x50:11h:139+63"},
			[]string{"0x50:0+128", "0x50:128+128", "0x50:01h:128+128", "0x50:02h:128+128", "0x50:9+9", "0x50:11h:139+63"},
			0, false, true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.conn.t = t
			now := time.Unix(0, 0)
			r := reader(&tt.conn, &now)
			for _, asked := range [][]string{tt.first, tt.second} {
				tt.conn.asked = nil
				got, err := r.ReadOptics(t.Context())
				if (err != nil) != tt.err {
					t.Fatal(err)
				}
				if d := cmp.Diff(asked, tt.conn.asked); d != "" {
					t.Errorf("asked (-want +got):\n%s", d)
				}
				if tt.err {
					if got.RxPower.Status != collectors.StatusError || !got.Temperature.OK() || got.LanesStatus() != collectors.StatusError {
						t.Errorf("got %+v", got)
					}
					continue
				}
				if len(got.Lanes) == 0 || !got.Lanes[0].RxPower.OK() || math.Abs(got.Lanes[0].RxPower.Value-tt.lane) > 1e-5 {
					t.Errorf("lanes %+v", got.Lanes)
				}
				if known := got.Thresholds != nil && got.Thresholds.RxPower.AlarmLow.Known; known != tt.alarm {
					t.Errorf("thresholds %+v", got.Thresholds)
				}
			}
			if tt.err {
				return
			}
			now = now.Add(6 * time.Minute)
			tt.conn.asked = nil
			if _, err := r.ReadOptics(t.Context()); err != nil {
				t.Error(err)
			}
			if want := append([]string{map[bool]string{true: "0x50:166+28", false: "0x50:196+28"}[tt.name[0] == 'C']}, tt.second...); !slices.Equal(want, tt.conn.asked) {
				t.Errorf("after a while: asked %v, want %v", tt.conn.asked, want)
			}
		})
	}
}

// By ioctl the pages lie one behind the other.
func TestReaderQSFPByIoctl(t *testing.T) {
	im := images(t, "sff8636-*")[0]
	im.a2 = append(make([]byte, 256), page03()...)
	f := fakeIoctl{t: t, image: &im, kind: 3}
	r := module.New(module.Options{
		Interface: "eth1", Ioctl: f.do,
		Dial: func() (module.Conn, error) { return &fakeConn{t: t, family: os.ErrNotExist}, nil },
	})
	for range 2 {
		got, err := r.ReadOptics(t.Context())
		if err != nil || got.LanesStatus() != collectors.StatusOK || got.Thresholds == nil {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if d := cmp.Diff([]string{"0+128", "128+128", "512+128", "2+56", "2+56"}, f.asked); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A page of thresholds that could not be read for once is read later.
func TestReaderReadsLostPageLater(t *testing.T) {
	im := images(t, "sff8636-*")[0]
	c := &fakeConn{t: t, image: &im}
	now := time.Unix(0, 0)
	r := reader(c, &now)
	if got, err := r.ReadOptics(t.Context()); err != nil || got.Thresholds != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	c.pages = map[uint8][]byte{3: page03()}
	now = now.Add(6 * time.Minute)
	if got, err := r.ReadOptics(t.Context()); err != nil || got.Thresholds == nil {
		t.Errorf("%+v, %v", got, err)
	}
}
