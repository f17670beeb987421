package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"ontagent/agent/probe/dhcp"
)

// fakeWire is a wire in the bubble of a test: what is sent is shown to a
// server, which puts frames into the queue.
type fakeWire struct {
	queue    chan []byte
	woken    chan struct{}
	deadline time.Time
	server   func(w *fakeWire, p dhcp.Datagram)
	sent     []time.Duration // since begin
	begin    time.Time
	sendErr  error
	gone     chan error
}

func newFakeWire(server func(*fakeWire, dhcp.Datagram)) *fakeWire {
	return &fakeWire{queue: make(chan []byte, 1<<12), woken: make(chan struct{}, 1), gone: make(chan error, 1), server: server, begin: time.Now()}
}

func (w *fakeWire) Send(frame []byte) error {
	if w.sendErr != nil {
		return w.sendErr
	}
	w.sent = append(w.sent, time.Since(w.begin))
	p, err := dhcp.Parse(bytes.Clone(frame), 0, false)
	if err != nil {
		return err
	}
	if w.server != nil {
		w.server(w, p)
	}
	return nil
}

func (w *fakeWire) Receive(b []byte) (dhcp.Received, error) {
	select {
	case <-w.woken:
		return dhcp.Received{}, os.ErrDeadlineExceeded
	default:
	}
	select {
	case f := <-w.queue:
		return dhcp.Frame(copy(b, f), 0), nil
	case err := <-w.gone:
		return dhcp.Received{}, err
	case <-w.woken:
	case <-time.After(time.Until(w.deadline)):
	}
	return dhcp.Received{}, os.ErrDeadlineExceeded
}

func (w *fakeWire) SetDeadline(t time.Time) error { w.deadline = t; return nil }

func (w *fakeWire) Wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// after puts a frame on the wire later.
func (w *fakeWire) after(d time.Duration, p *dhcp.Datagram) {
	frame := p.Marshal()
	time.AfterFunc(d, func() { w.queue <- frame })
}

func (w *fakeWire) answer4(d time.Duration, t dhcp.Tag, payload []byte) {
	w.after(d, toClient4(t, payload))
}

func options() dhcp.Options {
	return dhcp.Options{Interface: "fake", MAC: net.HardwareAddr(clientMAC[:])}
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(nil)
		o := options()
		o.Families = dhcp.V4 | dhcp.V6 | dhcp.Routers
		begin := time.Now()
		res, err := dhcp.RunOn(t.Context(), o, w)
		if err != nil || res.Outcome != dhcp.Silent || res.V4Outcome != dhcp.Silent || res.V6Outcome != dhcp.Silent || res.RAOutcome != dhcp.Silent {
			t.Errorf("%+v, %v", res, err)
		}
		if took := time.Since(begin); took != 4750*time.Millisecond || took > o.Duration() {
			t.Errorf("took %v", took)
		}
		var want []time.Duration
		for _, at := range []time.Duration{0, time.Second, 2500 * time.Millisecond} {
			want = append(want, at, at, at)
		}
		if !slices.Equal(w.sent, want) || res.Sent != 9 {
			t.Errorf("sent at %v, want %v", w.sent, want)
		}
	})
}

func TestTwoServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
			_, _, _, _, request := p.Parts()
			w.answer4(20*time.Millisecond, 0, fullOffer(t, request, 1))
			w.answer4(25*time.Millisecond, 0, fullOffer(t, request, 1)) // again
			w.answer4(250*time.Millisecond, 0, fullOffer(t, request, 2))
			w.answer4(400*time.Millisecond, 0, fullOffer(t, request, 3)) // too late
		})
		var seen []int
		o := options()
		o.Answered = func(r dhcp.Result) {
			if r.Outcome != dhcp.Offered {
				t.Errorf("at an offer: %s", r.Outcome)
			}
			seen = append(seen, len(r.V4))
		}
		begin := time.Now()
		res, err := dhcp.RunOn(t.Context(), o, w)
		if err != nil || res.Outcome != dhcp.Offered || len(res.V4) != 2 || res.Sent != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		if res.V4[0].LatencyMs != 20 || res.V4[1].LatencyMs != 250 || res.V4[0].From != server4 || res.V4[0].FromMAC != "02:00:00:00:00:01" {
			t.Errorf("%+v", res.V4)
		}
		if took := time.Since(begin); took != 320*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if !slices.Equal(seen, []int{1, 2}) {
			t.Errorf("told of %v", seen)
		}
	})
}

func TestAnswerToALaterTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var xids [][]byte
		w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
			_, _, _, _, request := p.Parts()
			xids = append(xids, request[4:8])
			if len(xids) == 2 {
				w.answer4(5*time.Millisecond, 0, fullOffer(t, request, 1))
			}
			if seconds := request[9]; int(seconds) != len(xids)-1 {
				t.Errorf("try %d says %d seconds", len(xids), seconds)
			}
		})
		res, err := dhcp.RunOn(t.Context(), options(), w)
		if err != nil || len(res.V4) != 1 || res.V4[0].Try != 1 || res.V4[0].LatencyMs != 5 || bytes.Equal(xids[0], xids[1]) {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestWhatDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
			_, _, _, _, request := p.Parts()
			w.queue <- p.Marshal() // a loop
			foreign := fullOffer(t, request, 1)
			foreign[4] ^= 1
			w.answer4(time.Millisecond, 0, foreign)
			other := fullOffer(t, request, 1)
			other[33] ^= 1 // another's MAC
			w.answer4(time.Millisecond, 0, other)
			for vlan := range uint16(8) {
				w.answer4(time.Millisecond, dhcp.NewTag(40+vlan, 0), fullOffer(t, request, 1))
			}
			w.answer4(time.Millisecond, 0, fullOffer(t, request, 1)[:250])
			w.answer4(time.Millisecond, 0, reply(t, request, dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IP{10, 41, 0, 7})))
			broken := toClient4(0, fullOffer(t, request, 1)).Marshal()
			broken[60] ^= 1
			w.queue <- broken
			w.queue <- []byte{1, 2, 3}
			w.after(0, icmp(0, advert())) // nobody asked
		})
		res, err := dhcp.RunOn(t.Context(), options(), w)
		if err != nil || res.Outcome != dhcp.Malformed || len(res.V4) != 0 || len(res.Routers) != 0 || !res.Looped || res.Foreign != 6 || res.Damaged != 9 {
			t.Errorf("%+v, %v", res, err)
		}
		slices.Sort(res.OtherVLANs)
		if len(res.OtherVLANs) != 4 || len(slices.Compact(res.OtherVLANs)) != 4 || res.OtherVLANs[0] < 40 || res.OtherVLANs[3] > 47 {
			t.Errorf("other VLANs %v", res.OtherVLANs)
		}
	})
}

func TestNak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
			_, _, _, _, request := p.Parts()
			w.answer4(time.Millisecond, 0, reply(t, request, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptMessage("账号欠费"))))
		})
		res, err := dhcp.RunOn(t.Context(), options(), w)
		if err != nil || res.Outcome != dhcp.Nak || len(res.V4) != 1 || res.V4[0].Message != "账号欠费" {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestFamiliesTogether(t *testing.T) {
	tag := dhcp.NewTag(41, 5)
	for name, test := range map[string]struct {
		noAddress, noPrefix *iaStatus
		v4                  bool
		v6, all             dhcp.Outcome
		pd                  bool
	}{
		"all well":      {nil, nil, true, dhcp.Offered, dhcp.Offered, true},
		"no v4":         {nil, nil, false, dhcp.Offered, dhcp.Partial, true},
		"prefix alone":  {&iaStatus{iana.StatusNoAddrsAvail, "none"}, nil, true, dhcp.Offered, dhcp.Offered, true},
		"address alone": {nil, &iaStatus{iana.StatusNoPrefixAvail, "none"}, true, dhcp.NoPrefix, dhcp.Partial, true},
		"nothing":       {&iaStatus{iana.StatusNoAddrsAvail, "none"}, &iaStatus{iana.StatusNoPrefixAvail, "none"}, true, dhcp.NoAddresses, dhcp.Partial, true},
		"not asked":     {nil, nil, true, dhcp.Offered, dhcp.Offered, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			asked, told := false, false
			w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
				src, _, _, to, payload := p.Parts()
				_, _, has := p.Ethernet()
				if has != tag {
					t.Errorf("%s: asked with tag %x", name, has)
				}
				switch {
				case to == 67 && test.v4:
					w.answer4(time.Millisecond, tag, fullOffer(t, payload, 1))
				case to == 547:
					if src != client6 {
						t.Errorf("%s: asked from %s", name, src)
					}
					// A server asks first who has the address.
					if !asked {
						asked = true
						w.after(time.Millisecond, icmp(tag, ask(client6)))
					}
					w.after(2*time.Millisecond, toClient6(tag, advertise(t, payload, serverMAC, test.noAddress, test.noPrefix)))
				case to == 0 && payload[0] == 133:
					w.after(400*time.Millisecond, icmp(tag, advert()))
				case to == 0 && payload[0] == 136:
					told = true
				}
			})
			o := options()
			o.VLAN, o.Priority, o.PrefixDelegation = 41, 5, test.pd
			o.Families = dhcp.V4 | dhcp.V6 | dhcp.Routers
			res, err := dhcp.RunOn(t.Context(), o, w)
			if err != nil || res.Outcome != test.all || res.V6Outcome != test.v6 || res.RAOutcome != dhcp.Offered || !told {
				t.Errorf("%s: %+v, %v, told %v", name, res, err, told)
			}
			if len(res.V6) != 1 || len(res.Routers) != 1 || res.V6[0].From != server6 || res.Routers[0].From != server6 || res.Routers[0].LatencyMs != 400 {
				t.Errorf("%s: %+v", name, res)
			}
		})
	}
}

func TestInform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
			src, _, _, to, payload := p.Parts()
			switch to {
			case 67:
				m, err := dhcpv4.FromBytes(payload)
				if err != nil || m.MessageType() != dhcpv4.MessageTypeInform || src != netip.MustParseAddr("10.41.0.77") || m.ClientIPAddr.String() != "10.41.0.77" || m.IsBroadcast() {
					t.Errorf("%v, %v", m, err)
				}
				w.answer4(time.Millisecond, 0, reply(t, payload, dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithDNS(net.IP{10, 64, 0, 53})))
			case 547:
				if payload[0] != 11 || bytes.Contains(payload, []byte{0, 3, 0, 12}) {
					t.Errorf("%x", payload)
				}
				answer := bytes.Clone(payload[:4])
				answer[0] = 7
				duid := duidLL(clientMAC).ToBytes()
				answer = append(answer, 0, 1, 0, byte(len(duid)))
				answer = append(answer, duid...)
				answer = append(answer, 0, 2, 0, 4, 0, 3, 0, 9)
				w.after(time.Millisecond, toClient6(0, answer))
			}
		})
		o := options()
		o.Inform, o.Families, o.Address = true, dhcp.V4|dhcp.V6, netip.MustParseAddr("10.41.0.77")
		res, err := dhcp.RunOn(t.Context(), o, w)
		if err != nil || res.Outcome != dhcp.Informed || res.V4Outcome != dhcp.Informed || res.V6Outcome != dhcp.Informed || len(res.V4[0].DNS) != 1 || res.V6[0].ServerDUID != "00030009" {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestRequestOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(func(_ *fakeWire, p dhcp.Datagram) {
			src, dst, from, to, payload := p.Parts()
			switch to {
			case 67:
				m, err := dhcpv4.FromBytes(payload)
				if err != nil || m.MessageType() != dhcpv4.MessageTypeDiscover || !m.IsBroadcast() || m.ClientHWAddr.String() != "02:00:00:00:00:41" ||
					src.String() != "0.0.0.0" || dst != all4 || from != 68 || m.ClassIdentifier() != "udhcp" || m.RequestedIPAddress() != nil {
					t.Errorf("%v, %v", m, err)
				}
				if id := m.Options.Get(dhcpv4.OptionClientIdentifier); !bytes.Equal(id, []byte{0, 'm', 'e'}) {
					t.Errorf("client id %x", id)
				}
			case 547:
				if dst != netip.MustParseAddr("ff02::1:2") || from != 546 {
					t.Errorf("to %s from port %d", dst, from)
				}
				checkSolicit(t, payload)
			}
		})
		o := options()
		o.Families, o.Tries, o.VendorClass, o.ClientID, o.DUID, o.PrefixDelegation = dhcp.V4|dhcp.V6, 1, "udhcp", []byte{0, 'm', 'e'}, []byte{255, 255, 1, 2, 3}, true
		if _, err := dhcp.RunOn(t.Context(), o, w); err != nil {
			t.Error(err)
		}
	})
}

func TestEndsWithTheInterfaceAndTheContext(t *testing.T) {
	for _, gone := range []error{dhcp.ErrNoInterface, dhcp.ErrDown} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeWire(nil)
			time.AfterFunc(300*time.Millisecond, func() { w.gone <- gone })
			begin := time.Now()
			res, err := dhcp.RunOn(t.Context(), options(), w)
			if !errors.Is(err, gone) || time.Since(begin) != 300*time.Millisecond || res.Sent != 1 {
				t.Errorf("%+v, %v after %v", res, err, time.Since(begin))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		begin := time.Now()
		w := newFakeWire(func(w *fakeWire, p dhcp.Datagram) {
			_, _, _, _, request := p.Parts()
			w.answer4(time.Millisecond, 0, fullOffer(t, request, 1))
		})
		o := options()
		o.Collect = time.Second
		res, err := dhcp.RunOn(ctx, o, w)
		if !errors.Is(err, context.Canceled) || time.Since(begin) != 300*time.Millisecond || len(res.V4) != 1 || res.Outcome != dhcp.Offered {
			t.Errorf("%+v, %v after %v", res, err, time.Since(begin))
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := dhcp.RunOn(done, options(), newFakeWire(nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire(nil)
		w.sendErr = dhcp.ErrBusy
		res, err := dhcp.RunOn(t.Context(), options(), w)
		if !errors.Is(err, dhcp.ErrDown) || res.Sent != 0 {
			t.Errorf("nothing could be sent: %+v, %v", res, err)
		}
	})
}

// A server that sends without end neither hangs a run nor fills its result.
func TestFlood(t *testing.T) {
	for name, make := range map[string]func(request []byte, i int) []byte{
		"offers": func(request []byte, i int) []byte {
			b := fullOffer(t, request, 1)
			b[18], b[19] = byte(i>>8), byte(i)
			return b
		},
		"foreign": func(request []byte, i int) []byte {
			b := fullOffer(t, request, 1)
			b[4]++
			return b
		},
		"garbage": func(request []byte, i int) []byte { return request[:i%200] },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeWire(nil)
			stop := time.Now().Add(10 * time.Second)
			w.server = func(w *fakeWire, p dhcp.Datagram) {
				_, _, _, _, request := p.Parts()
				for i := range 1000 {
					w.after(time.Duration(i)*time.Millisecond, toClient4(0, make(request, i)))
				}
			}
			begin := time.Now()
			res, err := dhcp.RunOn(t.Context(), options(), w)
			if took := time.Since(begin); err != nil || took > options().Duration() || len(res.V4) > 16 {
				t.Errorf("%s: %d offers after %v, %v", name, len(res.V4), took, err)
			}
			time.Sleep(time.Until(stop))
		})
	}
}

func TestBadOptions(t *testing.T) {
	for name, change := range map[string]func(*dhcp.Options){
		"vlan":     func(o *dhcp.Options) { o.VLAN = 4095 },
		"priority": func(o *dhcp.Options) { o.VLAN, o.Priority = 1, 8 },
		"untagged": func(o *dhcp.Options) { o.Priority = 1 },
		"family":   func(o *dhcp.Options) { o.Families = 8 },
		"short":    func(o *dhcp.Options) { o.MAC = o.MAC[:5] },
		"group":    func(o *dhcp.Options) { o.MAC = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} },
		"prefix":   func(o *dhcp.Options) { o.Inform, o.PrefixDelegation = true, true },
		"address":  func(o *dhcp.Options) { o.Address = server6 },
		"client":   func(o *dhcp.Options) { o.ClientID = make([]byte, 256) },
		"duid":     func(o *dhcp.Options) { o.DUID = make([]byte, 131) },
	} {
		o := options()
		change(&o)
		if _, err := dhcp.Run(t.Context(), o); !errors.Is(err, dhcp.ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
