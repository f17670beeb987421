package pppoe

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bras is an access concentrator in memory: a healthy one, unless its fields
// say otherwise. It is the link that the dial uses.
type bras struct {
	addr     mac
	name     string
	services []string
	vlan     uint16
	errors   [][2]string // of the PADO: a tag's two bytes, and its text
	padsErr  [][2]string
	delay    time.Duration // of everything it sends
	late     time.Duration // of PADOs, beyond that

	auth      []option // what it asks for, in turn; none: no authentication
	stubborn  bool     // never takes another authentication than the first
	user      string
	password  string
	message   string // of its verdict
	authDelay time.Duration

	address, peer  [4]byte
	dns            [2][4]byte
	noDNS          bool // rejects the options
	ipv6           bool
	maxPayload     uint16 // it agrees to
	mru            uint16
	noEcho         func(n int) bool
	next           *bras             // another one on the same segment
	hook           func(*frame) bool // sees all frames; true: it was dealt with
	sessions       map[uint16]*peer
	opened, closed int // sessions, PADTs from the client
	seen           []*frame

	t     *testing.T
	mu    *sync.Mutex
	out   chan []byte
	done  chan struct{}
	once  *sync.Once
	mtu   int
	fail  error // of send, once set
	count int   // of authentications asked for
	lost  func([]byte) bool
	order int
	// leaks says that sessions may stay, since the client can't know of them.
	leaks    bool
	wired    bool // to a real interface: nothing is delayed
	anyVLAN  bool // it answers PADIs of any, in its own
	priority *atomic.Int32
}

// peer is the double's side of one session.
type peer struct {
	id        uint16
	client    mac
	proposal  int
	lcpAcked  bool // by the client
	lcpGiven  bool
	begun     bool
	challenge []byte
	papSeen   map[byte]bool
	papAnswer *control
	echoes    int
	authed    bool
	netBegun  bool
	netAcked  bool
	repeats   int
}

// clientMAC is ours in tests.
func clientMAC() mac { return mac{2, 0, 0, 0, 0, 1} }

func newBRAS(t *testing.T) *bras {
	t.Helper()
	return &bras{
		addr: mac{2, 0, 0, 0, 0, 0xb1}, name: "bras-1", services: []string{""},
		auth: []option{papOption()}, user: "u1@isp", password: "p1",
		address: [4]byte{10, 0, 0, 7}, peer: [4]byte{10, 0, 0, 1}, dns: [2][4]byte{{10, 0, 0, 53}, {10, 0, 0, 54}},
		mru: 1492, delay: time.Millisecond, mtu: 1500,
		sessions: map[uint16]*peer{}, t: t, mu: new(sync.Mutex), priority: new(atomic.Int32), out: make(chan []byte, 4096),
		done: make(chan struct{}), once: new(sync.Once),
	}
}

func papOption() option  { return option{lcpAuth, []byte{0xc0, 0x23}} }
func chapOption() option { return option{lcpAuth, []byte{0xc2, 0x23, 5}} }

// second puts another access concentrator beside b.
func (b *bras) second(name string) *bras {
	other := *b
	other.addr[5], other.name, other.sessions = b.addr[5]+1, name, map[uint16]*peer{}
	b.next = &other
	return b.next
}

var _ link = (*bras)(nil)

func (b *bras) hardware() (address mac, mtu int) { return clientMAC(), b.mtu }
func (b *bras) admit(mac) error                  { return nil }

func (b *bras) close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

var errGone = errors.New("link is gone")

func (b *bras) receive(p []byte) (n int, tag uint16, tagged bool, err error) {
	select {
	case f := <-b.out:
		if f == nil {
			return 0, 0, false, errGone
		}
		return copy(p, f), 0, false, nil
	case <-b.done:
		return 0, 0, false, errGone
	}
}

func (b *bras) send(raw []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	f, ok := parseFrame(bytes.Clone(raw), 0, false)
	if !ok {
		b.t.Errorf("the client sends a bad frame: %x", raw)
		return nil
	}
	b.seen = append(b.seen, f)
	for each := b; each != nil; each = each.next {
		if (f.vlan == each.vlan || each.anyVLAN) && (f.dst == each.addr || f.dst == broadcast()) {
			each.handle(f)
		}
	}
	return nil
}

// raw puts bytes on the line, after the delay.
func (b *bras) raw(p []byte, extra time.Duration) {
	if b.lost != nil && b.lost(p) {
		return
	}
	if b.wired && extra == 0 {
		b.out <- p
		return
	}
	// A microsecond apart, so that they keep their order.
	b.order++
	time.AfterFunc(b.delay+extra+time.Duration(b.order)*time.Microsecond, func() {
		select {
		case b.out <- p:
		default: // as a socket's buffer
		}
	})
}

func (b *bras) reply(to mac, f *frame, extra time.Duration) {
	f.dst, f.src, f.vlan = to, b.addr, b.vlan
	b.raw(f.appendTo(nil, 0), extra)
}

func (b *bras) ppp(p *peer, proto uint16, c control, extra time.Duration) {
	body := c.appendTo(binary.BigEndian.AppendUint16(nil, proto))
	b.reply(p.client, &frame{session: p.id, payload: body}, extra)
}

func (b *bras) handle(f *frame) {
	if b.hook != nil && b.hook(f) {
		return
	}
	if f.discovery {
		b.discover(f)
		return
	}
	p := b.sessions[f.session]
	if p == nil || len(f.payload) < 2 {
		return
	}
	c, ok := parseControl(f.payload[2:])
	if !ok {
		b.t.Errorf("the client sends a bad packet: %x", f.payload)
		return
	}
	switch binary.BigEndian.Uint16(f.payload) {
	case protoLCP:
		b.lcp(p, c)
	case protoPAP:
		b.pap(p, c)
	case protoCHAP:
		b.chap(p, c)
	case protoIPCP:
		b.ipcp(p, c)
	case protoIPv6CP:
		b.ipv6cp(p, c)
	}
}

// echoed are the tags that an answer must carry.
func echoed(payload []byte) []byte {
	t, ok := parseTags(payload, "")
	var b []byte
	if !ok {
		return nil
	}
	if t.hasUniq {
		b = appendTag(b, tagHostUniq, t.hostUniq)
	}
	if t.hasRelay {
		b = appendTag(b, tagRelay, t.relay)
	}
	return b
}

func (b *bras) discover(f *frame) {
	t, ok := parseTags(f.payload, "")
	if !ok {
		b.t.Errorf("the client sends bad tags: %x", f.payload)
		return
	}
	answer := echoed(f.payload)
	if t.maxPayload != 0 && b.maxPayload != 0 {
		answer = appendTag(answer, tagMaxPayload, binary.BigEndian.AppendUint16(nil, min(t.maxPayload, b.maxPayload)))
	}
	addErrors := func(all [][2]string) {
		for _, e := range all {
			answer = appendTag(answer, binary.BigEndian.Uint16([]byte(e[0])), []byte(e[1]))
		}
	}
	switch f.code {
	case codePADI:
		answer = appendTag(answer, tagACName, []byte(b.name))
		for _, s := range b.services {
			answer = appendTag(answer, tagServiceName, []byte(s))
		}
		answer = appendTag(answer, tagCookie, []byte("cookie of "+b.name))
		answer = appendTag(answer, tagRelay, []byte{1, 2, 3})
		addErrors(b.errors)
		b.reply(f.src, &frame{discovery: true, code: codePADO, payload: answer}, b.late)
	case codePADR:
		if string(t.cookie) != "cookie of "+b.name || string(t.relay) != "\x01\x02\x03" {
			if b.lost == nil {
				b.t.Errorf("PADR with cookie %q, relay %x", t.cookie, t.relay)
			}
			return
		}
		answer = appendTag(answer, tagServiceName, []byte(t.services[0]))
		if len(b.padsErr) > 0 {
			addErrors(b.padsErr)
			b.reply(f.src, &frame{discovery: true, code: codePADS, payload: answer}, 0)
			return
		}
		b.opened++
		p := &peer{id: uint16(b.opened), client: f.src, papSeen: map[byte]bool{}}
		b.sessions[p.id] = p
		b.reply(f.src, &frame{discovery: true, code: codePADS, session: p.id, payload: answer}, 0)
		b.lcpRequest(p)
	case codePADT:
		if b.sessions[f.session] != nil {
			b.closed++
			delete(b.sessions, f.session)
		}
	}
}

func (b *bras) lcpRequest(p *peer) {
	options := []option{{lcpMRU, binary.BigEndian.AppendUint16(nil, b.mru)}, {lcpMagic, []byte{0xb, 0xb, 0xb, byte(p.id)}}}
	if len(b.auth) > 0 {
		options = append(options, b.auth[min(p.proposal, len(b.auth)-1)])
	}
	b.ppp(p, protoLCP, control{configureRequest, byte(p.proposal), encodeOptions(options)}, 0)
	b.again(p, &p.lcpAcked, b.lcpRequest)
}

// again does something once more after three seconds, as long as it isn't done.
func (b *bras) again(p *peer, done *bool, f func(*peer)) {
	if p.repeats++; p.repeats > 20 {
		return
	}
	time.AfterFunc(3*time.Second, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !*done && b.sessions[p.id] == p {
			f(p)
		}
	})
}

func (b *bras) lcp(p *peer, c control) {
	switch c.code {
	case configureRequest:
		p.lcpGiven = true
		b.ppp(p, protoLCP, control{configureAck, c.id, c.data}, 0)
	case configureAck:
		p.lcpAcked = true
	case configureNak, configureReject:
		if p.proposal < 20 {
			if !b.stubborn {
				p.proposal++
			}
			b.lcpRequest(p)
		}
	case terminateRequest:
		b.ppp(p, protoLCP, control{terminateAck, c.id, nil}, 0)
	case echoRequest:
		p.echoes++
		if b.noEcho == nil || !b.noEcho(p.echoes) {
			b.ppp(p, protoLCP, control{echoReply, c.id, []byte{0xb, 0xb, 0xb, byte(p.id)}}, 0)
		}
	}
	if p.lcpAcked && p.lcpGiven && !p.begun {
		p.begun = true
		switch {
		case len(b.auth) == 0:
			b.network(p)
		case b.auth[min(p.proposal, len(b.auth)-1)].data[0] == 0xc2:
			p.challenge = []byte("0123456789abcdef")
			b.ppp(p, protoCHAP, control{chapChallenge, 9, append([]byte{16}, "0123456789abcdefbras"...)}, 0)
		}
	}
}

func (b *bras) pap(p *peer, c control) {
	if c.code != papRequest {
		b.t.Errorf("PAP code %d", c.code)
		return
	}
	if p.papAnswer != nil { // as pppd: the same once more, and nobody is asked
		b.ppp(p, protoPAP, *p.papAnswer, 0)
		return
	}
	if p.papSeen[c.id] {
		return
	}
	p.papSeen[c.id] = true
	user := c.data[1 : 1+c.data[0]]
	password := c.data[2+len(user):]
	b.verdict(p, string(user) == b.user && string(password) == b.password, func(ok bool) {
		code := byte(papNak)
		if ok {
			code = papAck
		}
		answer := control{code, c.id, append([]byte{byte(len(b.message))}, b.message...)}
		b.ppp(p, protoPAP, answer, b.authDelay)
		time.AfterFunc(b.authDelay, func() { b.mu.Lock(); p.papAnswer = &answer; b.mu.Unlock() })
	})
}

func (b *bras) chap(p *peer, c control) {
	if c.code != chapResponse {
		b.t.Errorf("CHAP code %d", c.code)
		return
	}
	value, name, ok := parseChallenge(c.data)
	want := md5.Sum(append(append([]byte{c.id}, b.password...), p.challenge...))
	b.verdict(p, ok && string(name) == b.user && bytes.Equal(value, want[:]), func(ok bool) {
		code := byte(chapFailure)
		if ok {
			code = chapSuccess
		}
		b.ppp(p, protoCHAP, control{code, c.id, []byte(b.message)}, b.authDelay)
	})
}

func (b *bras) verdict(p *peer, ok bool, tell func(bool)) {
	b.count++
	tell(ok)
	if ok {
		p.authed = true
		time.AfterFunc(b.authDelay+time.Millisecond, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.network(p)
		})
		return
	}
	b.ppp(p, protoLCP, control{terminateRequest, 77, []byte("Authentication failed")}, b.authDelay)
}

func (b *bras) network(p *peer) {
	if p.netBegun {
		return
	}
	p.netBegun = true
	b.ipcpRequest(p)
	b.ppp(p, 0x80fd, control{configureRequest, 1, []byte{0x12, 6, 0, 0, 0, 1}}, 0) // CCP
	if b.ipv6 {
		b.ppp(p, protoIPv6CP, control{configureRequest, 1, encodeOptions([]option{{ipv6Interface, []byte{0, 0, 0, 0, 0, 0, 0, 9}}})}, 0)
	}
}

func (b *bras) ipcpRequest(p *peer) {
	b.ppp(p, protoIPCP, control{configureRequest, 1, encodeOptions([]option{{ipcpAddress, b.peer[:]}})}, 0)
	b.again(p, &p.netAcked, b.ipcpRequest)
}

func (b *bras) ipcp(p *peer, c control) {
	p.netAcked = p.netAcked || c.code == configureAck
	if c.code != configureRequest {
		return
	}
	options, _ := parseOptions(c.data)
	var rejected, better []option
	for _, o := range options {
		want := b.address[:]
		switch o.kind {
		case ipcpDNS1, ipcpDNS2:
			if b.noDNS {
				rejected = append(rejected, o)
				continue
			}
			want = b.dns[(o.kind-ipcpDNS1)/2][:]
		}
		if !bytes.Equal(o.data, want) {
			better = append(better, option{o.kind, want})
		}
	}
	switch {
	case len(rejected) > 0:
		b.ppp(p, protoIPCP, control{configureReject, c.id, encodeOptions(rejected)}, 0)
	case len(better) > 0:
		b.ppp(p, protoIPCP, control{configureNak, c.id, encodeOptions(better)}, 0)
	default:
		b.ppp(p, protoIPCP, control{configureAck, c.id, c.data}, 0)
	}
}

func (b *bras) ipv6cp(p *peer, c control) {
	switch {
	case !b.ipv6:
		data := c.appendTo(binary.BigEndian.AppendUint16(nil, protoIPv6CP))
		b.ppp(p, protoLCP, control{protocolReject, 5, data}, 0)
	case c.code == configureRequest:
		b.ppp(p, protoIPv6CP, control{configureAck, c.id, c.data}, 0)
	}
}

// sent counts the client's discovery packets of a code.
func (b *bras) sent(code byte) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, f := range b.seen {
		if f.discovery && f.code == code {
			n++
		}
	}
	return n
}

// packets returns the client's control packets of a protocol and code.
func (b *bras) packets(proto uint16, code byte) []control {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []control
	for _, f := range b.seen {
		if f.discovery || binary.BigEndian.Uint16(f.payload) != proto {
			continue
		}
		if c, ok := parseControl(f.payload[2:]); ok && (code == 0 || c.code == code) {
			all = append(all, c)
		}
	}
	return all
}

// orderly fails unless all sessions were closed, each by PPP and PPPoE, and
// nothing was sent afterwards.
func (b *bras) orderly(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.sessions) != 0 || b.opened != b.closed {
		t.Errorf("%d of %d sessions stay", len(b.sessions), b.opened)
	}
	last := slices.IndexFunc(b.seen, func(f *frame) bool { return f.discovery && f.code == codePADT })
	if b.opened == 1 && last >= 0 && last != len(b.seen)-1 {
		t.Errorf("something was sent after the PADT: %+v", b.seen[last+1:])
	}
}
