package pppoe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func options() Options {
	return Options{Interface: "wan0", Username: "u1@isp", Password: "p1"}
}

// play dials b in a bubble of its own.
func play(t *testing.T, o Options, set func(*bras), check func(*bras, Result)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBRAS(t)
		if set != nil {
			set(b)
		}
		o, err := o.normalise()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		r, err := dial(t.Context(), o, b)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > o.Duration() {
			t.Errorf("took %v, longer than %v", took, o.Duration())
		}
		check(b, r)
		if !b.leaks {
			b.orderly(t)
		}
		if r.Auth.Sends > 2 || r.Auth.Attempts > 2 {
			t.Errorf("%d authentications, %d messages", r.Auth.Attempts, r.Auth.Sends)
		}
		time.Sleep(time.Minute)
	})
}

func TestDialHealthy(t *testing.T) {
	for name, auth := range map[string][]option{"pap": {papOption()}, "chap_md5": {chapOption()}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			play(t, options(), func(b *bras) { b.auth, b.message = auth, "welcome" }, func(b *bras, r Result) {
				t := b.t
				if r.Outcome != OK || r.Stage != StageUp {
					t.Fatalf("%s at %s: %+v", r.Outcome, r.Stage, r)
				}
				wantAuth := Auth{Protocol: name, Result: "accepted", ServerMessage: "welcome", Attempts: 1, Sends: 1}
				switch name {
				case "none":
					wantAuth = Auth{Protocol: "none"}
				case "chap_md5":
					wantAuth.ServerName = "bras"
				}
				if diff := cmp.Diff(wantAuth, r.Auth); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				got := []netip.Addr{r.Address, r.Peer, r.DNS1, r.DNS2}
				want := []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("10.0.0.54")}
				if !slices.Equal(got, want) {
					t.Errorf("addresses %v, want %v", got, want)
				}
				if r.Echo.Sent != 3 || r.Echo.Received != 3 || r.Echo.LossRatio != 0 || r.Echo.AvgMs <= 0 || r.MTU != 1492 || r.LCP.MRU != 1492 {
					t.Errorf("echo %+v, MTU %d, MRU %d", r.Echo, r.MTU, r.LCP.MRU)
				}
				if r.TotalMs > 3000 || !r.TerminateAcked || !r.PADTSent || r.PADTReceived {
					t.Errorf("took %v ms; the end: %+v", r.TotalMs, r)
				}
				if len(b.packets(protoLCP, protocolReject)) != 1 {
					t.Error("CCP was not rejected")
				}
				if r.ACName != "bras-1" || r.ACMAC != b.addr.String() || r.SessionID != 1 || len(r.Offers) != 1 || *r.VLANAnswered != 0 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestDialVLAN(t *testing.T) {
	o := options()
	o.VLAN, o.Priority = 41, 5
	play(t, o, func(b *bras) { b.vlan = 41 }, func(b *bras, r Result) {
		t := b.t
		if r.Outcome != OK || r.VLANAnswered == nil || *r.VLANAnswered != 41 {
			t.Errorf("%+v", r)
		}
	})
	play(t, o, func(b *bras) { b.vlan = 42 }, func(b *bras, r Result) {
		t := b.t
		if r.Outcome != NoPADO || r.VLANAnswered != nil {
			t.Errorf("%+v", r)
		}
	})
}

func TestDialIPv6(t *testing.T) {
	o := options()
	o.IPv6 = true
	for _, has := range []bool{true, false} {
		play(t, o, func(b *bras) { b.ipv6 = has }, func(b *bras, r Result) {
			t := b.t
			want := IPv6{Result: "rejected"}
			if has {
				want = IPv6{Result: "up", Local: r.IPv6.Local, Peer: netip.MustParseAddr("fe80::9")}
			}
			if r.Outcome != OK || r.IPv6 != want || has && !r.IPv6.Local.IsValid() {
				t.Errorf("%s, %+v", r.Outcome, r.IPv6)
			}
		})
	}
	// A peer that never answers it costs three seconds, no more.
	play(t, o, func(b *bras) {
		b.hook = func(f *frame) bool { return !f.discovery && binary.BigEndian.Uint16(f.payload) == protoIPv6CP }
	}, func(b *bras, r Result) {
		t := b.t
		if r.Outcome != OK || r.IPv6.Result != "no_answer" || r.IPv6CPMs > 3100 {
			t.Errorf("%s, %+v, %v ms", r.Outcome, r.IPv6, r.IPv6CPMs)
		}
	})
}

func TestDialMaxPayload(t *testing.T) {
	for _, c := range []struct {
		name           string
		ask, has       uint16
		mtu            int
		asked, granted uint16
		want           uint16
	}{
		{"granted", 1500, 1500, 1508, 1500, 1500, 1500},
		{"less", 1500, 1496, 1508, 1500, 1496, 1496},
		{"not known", 1500, 0, 1508, 1500, 0, 1492},
		{"not asked for", 0, 1500, 1508, 0, 0, 1492},
		{"interface too small", 1500, 1500, 1500, 0, 0, 1492},
		{"interface smaller", 1500, 1500, 1504, 1496, 1496, 1496},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options()
			o.MaxPayload = c.ask
			play(t, o, func(b *bras) { b.maxPayload, b.mtu, b.mru = c.has, c.mtu, 1500 }, func(b *bras, r Result) {
				t := b.t
				got := []uint16{r.MaxPayloadAsked, r.MaxPayload, r.LCP.MRUAsked, r.LCP.MRU, r.MTU}
				if r.Outcome != OK || !slices.Equal(got, []uint16{c.asked, c.granted, c.want, c.want, c.want}) {
					t.Errorf("%s, %v", r.Outcome, got)
				}
			})
		})
	}
}

func TestDialDiscoveryOnly(t *testing.T) {
	o := options()
	o.DiscoveryOnly = true
	for _, vlan := range []uint16{0, 9} {
		play(t, o, func(b *bras) { b.vlan = vlan; b.second("bras-2").late = 100 * time.Millisecond }, func(b *bras, r Result) {
			t := b.t
			if n := b.sent(codePADR) + b.sent(codePADT); n != 0 || b.opened+b.next.opened != 0 {
				t.Errorf("%d packets beside PADIs", n)
			}
			if vlan == 0 && (r.Outcome != Offered || len(r.Offers) != 2 || r.TotalMs > 500 || b.sent(codePADI) != 1) {
				t.Errorf("%+v", r)
			}
			if vlan == 9 && (r.Outcome != NoPADO || r.TotalMs > 6000 || b.sent(codePADI) != 3) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestDialPicksAccessConcentrator(t *testing.T) {
	for _, c := range []struct {
		ac, service, want string
		outcome           Outcome
	}{
		{"", "", "bras-1", OK},
		{"bras-2", "", "bras-2", OK},
		{"", "iptv", "bras-2", OK},
		{"bras-3", "", "", NoMatch},
		{"", "voice", "", NoMatch},
	} {
		o := options()
		o.ACName, o.ServiceName = c.ac, c.service
		play(t, o, func(b *bras) {
			other := b.second("bras-2")
			other.services = []string{"iptv", ""}
			other.late = 100 * time.Millisecond
		}, func(b *bras, r Result) {
			t := b.t
			if r.Outcome != c.outcome || r.ACName != c.want || len(r.Offers) != 2 {
				t.Errorf("%+v: %+v", c, r)
			}
			if n := len(b.next.sessions); n != 0 {
				t.Errorf("%d sessions stay", n)
			}
		})
	}
}

// outcomes are the ways in which a dial fails, each with the texts that must
// come out of it.
func TestDialOutcomes(t *testing.T) {
	mute := func(proto uint16) func(*bras) {
		return func(b *bras) {
			b.hook = func(f *frame) bool { return !f.discovery && binary.BigEndian.Uint16(f.payload) == proto }
		}
	}
	// instead answers each of the client's packets of a kind by another.
	instead := func(proto uint16, code byte, with func(c control) (uint16, control)) func(*bras) {
		return func(b *bras) {
			b.hook = func(f *frame) bool {
				if f.discovery || binary.BigEndian.Uint16(f.payload) != proto {
					return false
				}
				c, _ := parseControl(f.payload[2:])
				p := b.sessions[f.session]
				if c.code != code || p == nil {
					return false
				}
				proto, answer := with(c)
				b.ppp(p, proto, answer, 0)
				return true
			}
		}
	}
	protocol := func(proto uint16) func(c control) (uint16, control) {
		return func(c control) (uint16, control) {
			return protoLCP, control{protocolReject, 3, c.appendTo(binary.BigEndian.AppendUint16(nil, proto))}
		}
	}
	for _, c := range []struct {
		name    string
		set     func(*bras)
		options func(*Options)
		outcome Outcome
		stage   Stage
		withinS float64
		check   func(*bras, Result) bool
	}{
		{
			name: "no PADO", set: func(b *bras) { b.vlan = 7 }, outcome: NoPADO, stage: StageDiscovery, withinS: 6,
			check: func(b *bras, r Result) bool { return b.sent(codePADI) == 3 && r.VLANAnswered == nil },
		},
		{
			name: "PADO with error", set: func(b *bras) { b.errors = [][2]string{{"\x02\x03", "full \xb2\xbb"}, {"\x02\x01", ""}} },
			outcome: PADOError, stage: StageDiscovery, withinS: 1.1,
			check: func(_ *bras, r Result) bool {
				return slices.Equal(r.Errors, []ErrorTag{
					{Packet: "PADO", Tag: 0x0203, Name: "Generic-Error", Text: "full \xb2\xbb", TextHex: "66756c6c20b2bb"},
					{Packet: "PADO", Tag: 0x0201, Name: "Service-Name-Error"},
				}) && len(r.Offers) == 1
			},
		},
		{name: "PADO with error, then a better one", set: func(b *bras) {
			other := b.second("bras-2")
			b.errors = [][2]string{{"\x02\x02", "restarting"}}
			other.late, other.addr = 700*time.Millisecond, mac{2, 0, 0, 0, 0, 0xb9}
		}, outcome: OK, stage: StageUp, withinS: 3, check: func(_ *bras, r Result) bool { return r.ACName == "bras-2" && len(r.Errors) == 1 }},
		{
			name: "PADS with error", set: func(b *bras) { b.padsErr = [][2]string{{"\x02\x01", "no such service"}} },
			outcome: PADSError, stage: StageSessionSetup, withinS: 1,
			check: func(b *bras, r Result) bool {
				return r.Errors[0] == ErrorTag{Packet: "PADS", Tag: 0x0201, Name: "Service-Name-Error", Text: "no such service"} && b.sent(codePADT) == 0
			},
		},
		{
			name: "no PADS", set: func(b *bras) { b.hook = func(f *frame) bool { return f.discovery && f.code == codePADR } },
			outcome: NoPADS, stage: StageSessionSetup, withinS: 10.5, check: func(b *bras, _ Result) bool { return b.sent(codePADR) == 3 },
		},
		{name: "LCP mute", set: func(b *bras) {
			mute(protoLCP)(b)
			b.lost = func(p []byte) bool { return binary.BigEndian.Uint16(p[12:]) == typeSession }
		}, outcome: LCPNoAnswer, stage: StageLCP, withinS: 22},
		{name: "LCP requests and never answers", set: mute(protoLCP), outcome: LCPNoAnswer, stage: StageLCP, withinS: 22},
		{name: "LCP unknown", set: instead(protoLCP, configureRequest, protocol(protoLCP)), outcome: LCPRejected, stage: StageLCP, withinS: 3},
		{name: "LCP code unknown", set: instead(protoLCP, configureRequest, func(c control) (uint16, control) {
			return protoLCP, control{codeReject, 1, c.appendTo(nil)}
		}), outcome: LCPRejected, stage: StageLCP, withinS: 3},
		{name: "LCP naks for ever", set: instead(protoLCP, configureRequest, func(c control) (uint16, control) {
			return protoLCP, control{configureNak, c.id, []byte{1, 4, 0, 1}}
		}), outcome: LCPNoAgreement, stage: StageLCP, withinS: 12, check: func(_ *bras, r Result) bool { return r.LCP.Requests == maxConfigure }},
		{name: "LCP rejects all", set: func(b *bras) {
			n := 0
			instead(protoLCP, configureRequest, func(c control) (uint16, control) {
				if n++; n == 1 {
					return protoLCP, control{configureReject, c.id, c.data}
				}
				b.sessions[1].lcpGiven = true
				return protoLCP, control{configureAck, c.id, c.data}
			})(b)
		}, outcome: OK, stage: StageUp, withinS: 3, check: func(_ *bras, r Result) bool {
			return slices.Equal(r.LCP.Rejected, []int{1, 5}) && r.LCP.MRU == 1500 && r.LCP.Magic == 0
		}},
		{name: "LCP terminated", set: instead(protoLCP, configureRequest, func(control) (uint16, control) {
			return protoLCP, control{terminateRequest, 1, []byte("bye \xff")}
		}), outcome: Terminated, stage: StageLCP, withinS: 3, check: func(b *bras, r Result) bool {
			return r.TerminateReason == "bye \xff" && r.TerminateReasonHex == "62796520ff" && len(b.packets(protoLCP, terminateAck)) == 1
		}},
		{name: "options rejected", set: func(b *bras) {
			b.auth = []option{{7, nil}, {13, []byte{1}}, papOption()}
		}, outcome: OK, stage: StageUp, withinS: 3, check: func(_ *bras, r Result) bool { return slices.Equal(r.LCP.PeerRejected, []int{7, 13}) }},
		{name: "MS-CHAP only", set: func(b *bras) {
			b.auth, b.stubborn = []option{{lcpAuth, []byte{0xc2, 0x23, 0x81}}}, true
		}, outcome: AuthUnsupported, stage: StageLCP, withinS: 3, check: func(_ *bras, r Result) bool {
			return slices.Equal(r.LCP.AuthAsked, []string{"mschap_v2"}) && r.Auth.Attempts == 0
		}},
		{
			name: "EAP, then CHAP", set: func(b *bras) { b.auth = []option{{lcpAuth, []byte{0xc2, 0x27}}, chapOption()} },
			outcome: OK, stage: StageUp, withinS: 3, check: func(_ *bras, r Result) bool {
				return slices.Equal(r.LCP.AuthAsked, []string{"eap", "chap_md5"}) && r.Auth.Protocol == "chap_md5"
			},
		},
		{
			name: "PAP rejected", set: func(b *bras) { b.password, b.message = "other", "691 密码错" },
			outcome: AuthRejected, stage: StageAuth, withinS: 3, check: func(_ *bras, r Result) bool {
				return r.Auth == Auth{Protocol: "pap", Result: "rejected", ServerMessage: "691 密码错", Attempts: 1, Sends: 1}
			},
		},
		{
			name: "CHAP rejected, twice allowed", set: func(b *bras) { b.auth, b.password, b.message = []option{chapOption()}, "other", "no" },
			options: func(o *Options) { o.Attempts = 2 },
			outcome: AuthRejected, stage: StageAuth, withinS: 3, check: func(b *bras, r Result) bool { return r.Auth.Attempts == 1 && b.count == 1 },
		},
		{
			name: "PAP unanswered", set: mute(protoPAP), outcome: AuthNoAnswer, stage: StageAuth, withinS: 27,
			check: func(b *bras, r Result) bool {
				all := b.packets(protoPAP, papRequest)
				return r.Auth.Attempts == 1 && r.Auth.Sends == 2 && len(all) == 2 && all[0].id == all[1].id && string(all[0].data) == string(all[1].data)
			},
		},
		{
			name: "PAP unanswered, twice allowed", set: mute(protoPAP), options: func(o *Options) { o.Attempts = 2 },
			outcome: AuthNoAnswer, stage: StageAuth, withinS: 55, check: func(b *bras, r Result) bool {
				return r.Auth.Attempts == 2 && r.Auth.Sends == 2 && len(b.packets(protoPAP, 0)) == 2 && b.opened == 2
			},
		},
		{
			name: "CHAP unanswered", set: func(b *bras) { mute(protoCHAP)(b); b.auth = []option{chapOption()} }, outcome: AuthNoAnswer, stage: StageAuth, withinS: 27,
			check: func(_ *bras, r Result) bool { return r.Auth.Attempts == 1 && r.Auth.Sends == 2 },
		},
		{name: "no challenge", set: func(b *bras) {
			b.auth = []option{chapOption()}
			b.lost = func(p []byte) bool { return len(p) > 22 && binary.BigEndian.Uint16(p[20:]) == protoCHAP }
		}, outcome: AuthNoAnswer, stage: StageAuth, withinS: 11, check: func(_ *bras, r Result) bool { return r.Auth.Attempts == 0 }},
		{
			name: "slow AAA", set: func(b *bras) { b.authDelay = 20 * time.Second }, options: func(o *Options) { o.Attempts = 2 },
			outcome: OK, stage: StageUp, withinS: 23, check: func(b *bras, r Result) bool { return b.count == 1 && r.Auth.Attempts == 1 },
		},
		{
			name: "slow AAA says no", set: func(b *bras) { b.authDelay, b.auth, b.password = 18*time.Second, []option{chapOption()}, "x" },
			outcome: AuthRejected, stage: StageAuth, withinS: 20, check: func(_ *bras, r Result) bool { return r.Auth.Attempts == 1 && r.Auth.Sends == 2 },
		},
		{
			name: "the first answer is lost", set: func(b *bras) {
				mute(protoPAP)(b)
				inner := b.hook
				b.hook = func(f *frame) bool { return b.opened < 2 && inner(f) }
			}, options: func(o *Options) { o.Attempts = 2 }, outcome: OK, stage: StageUp, withinS: 30,
			check: func(b *bras, r Result) bool { return r.Auth.Attempts == 2 && b.opened == 2 && b.count == 1 },
		},
		{name: "PAP unknown", set: instead(protoPAP, papRequest, protocol(protoPAP)), outcome: AuthUnsupported, stage: StageAuth, withinS: 3},
		{name: "terminated instead of an answer", set: instead(protoPAP, papRequest, func(control) (uint16, control) {
			return protoLCP, control{terminateRequest, 1, []byte("account in arrears")}
		}), outcome: Terminated, stage: StageAuth, withinS: 3, check: func(_ *bras, r Result) bool { return r.TerminateReason == "account in arrears" }},
		{name: "IPCP mute", set: func(b *bras) {
			mute(protoIPCP)(b)
		}, outcome: IPCPNoAnswer, stage: StageIPCP, withinS: 12},
		{name: "IPCP unknown", set: instead(protoIPCP, configureRequest, protocol(protoIPCP)), outcome: IPCPFailed, stage: StageIPCP, withinS: 3},
		{name: "IPCP terminated", set: instead(protoIPCP, configureRequest, func(control) (uint16, control) {
			return protoIPCP, control{terminateRequest, 1, []byte("no pool")}
		}), outcome: IPCPFailed, stage: StageIPCP, withinS: 3, check: func(_ *bras, r Result) bool { return r.TerminateReason == "no pool" }},
		{name: "IPCP naks for ever", set: instead(protoIPCP, configureRequest, func(c control) (uint16, control) {
			return protoIPCP, control{configureNak, c.id, []byte{3, 6, 1, 1, 1, c.id}}
		}), outcome: IPCPFailed, stage: StageIPCP, withinS: 12},
		{name: "address 0.0.0.0 suggested", set: instead(protoIPCP, configureRequest, func(c control) (uint16, control) {
			return protoIPCP, control{configureNak, c.id, []byte{3, 6, 0, 0, 0, 0}}
		}), outcome: NoAddress, stage: StageIPCP, withinS: 3},
		{name: "address 0.0.0.0 accepted", set: instead(protoIPCP, configureRequest, func(c control) (uint16, control) {
			return protoIPCP, control{configureAck, c.id, c.data}
		}), outcome: NoAddress, stage: StageIPCP, withinS: 3},
		{name: "address rejected", set: instead(protoIPCP, configureRequest, func(c control) (uint16, control) {
			return protoIPCP, control{configureReject, c.id, []byte{3, 6, 0, 0, 0, 0}}
		}), outcome: NoAddress, stage: StageIPCP, withinS: 3},
		{
			name: "no DNS", set: func(b *bras) { b.noDNS = true }, outcome: OK, stage: StageUp, withinS: 3,
			check: func(_ *bras, r Result) bool { return !r.DNS1.IsValid() && r.Address.IsValid() },
		},
		{name: "PADT while up", set: func(b *bras) {
			b.noEcho = func(int) bool {
				b.reply(clientMAC(), &frame{discovery: true, code: codePADT, session: 1, payload: appendTag(nil, tagGenericError, []byte("RP-PPPoE: Session limit"))}, 0)
				b.closed++
				delete(b.sessions, 1)
				return true
			}
		}, outcome: Terminated, stage: StageUp, withinS: 3, check: func(b *bras, r Result) bool {
			return r.PADTReceived && r.Errors[0].Text == "RP-PPPoE: Session limit" && r.Errors[0].Packet == "PADT" && b.sent(codePADT) == 0
		}},
		{name: "terminated while up", set: instead(protoLCP, echoRequest, func(control) (uint16, control) {
			return protoLCP, control{terminateRequest, 1, []byte("kicked")}
		}), outcome: Terminated, stage: StageUp, withinS: 3, check: func(_ *bras, r Result) bool { return r.TerminateReason == "kicked" && r.Address.IsValid() }},
		{
			name: "echoes lost", set: func(b *bras) { b.noEcho = func(int) bool { return true } }, outcome: EchoLost, stage: StageUp, withinS: 5,
			check: func(_ *bras, r Result) bool { return r.Echo.Sent == 5 && r.Echo.Received == 0 && r.Echo.LossRatio == 1 },
		},
		{
			name: "echoes die", set: func(b *bras) { b.noEcho = func(n int) bool { return n > 5 } },
			options: func(o *Options) { o.Echoes = 8 }, outcome: EchoLost, stage: StageUp, withinS: 5,
			check: func(_ *bras, r Result) bool { return r.Echo.Received == 5 },
		},
		{
			name: "an echo is lost", set: func(b *bras) { b.noEcho = func(n int) bool { return n == 2 } }, outcome: OK, stage: StageUp, withinS: 4,
			check: func(_ *bras, r Result) bool { return r.Echo.Received == 2 },
		},
		{
			name: "away for a moment", set: func(b *bras) { b.noEcho = func(n int) bool { return n < 5 } }, outcome: OK, stage: StageUp, withinS: 5,
			check: func(_ *bras, r Result) bool {
				return r.Echo.Sent == 5 && r.Echo.Received == 1 && r.Echo.LossRatio == 0.8
			},
		},
		{
			name: "no echoes wanted", options: func(o *Options) { o.Echoes = -1 }, outcome: OK, stage: StageUp, withinS: 1,
			check: func(b *bras, _ Result) bool { return len(b.packets(protoLCP, echoRequest)) == 0 },
		},
		{name: "echoes unknown", set: instead(protoLCP, echoRequest, func(c control) (uint16, control) {
			return protoLCP, control{codeReject, 1, c.appendTo(nil)}
		}), outcome: OK, stage: StageUp, withinS: 3},
		{name: "loop of frames", set: func(b *bras) {
			b.hook = func(f *frame) bool { f.dst = clientMAC(); b.raw(f.appendTo(nil, 0), 0); return true }
		}, outcome: Loop, stage: StageDiscovery, withinS: 6, check: func(_ *bras, r Result) bool { return r.Looped == 3 }},
		{name: "loop of LCP", set: func(b *bras) {
			b.hook = func(f *frame) bool {
				if !f.discovery {
					b.reply(f.src, f, 0)
				}
				return !f.discovery
			}
			b.lost = func(p []byte) bool { return len(p) > 22 && p[22] == configureRequest && p[len(p)-1] == 1 }
		}, outcome: Loop, stage: StageLCP, withinS: 12},
		{name: "loop of LCP with our address", set: func(b *bras) {
			b.hook = func(f *frame) bool {
				if !f.discovery {
					b.raw(f.appendTo(nil, 0), 0)
				}
				return !f.discovery
			}
		}, outcome: Loop, stage: StageLCP, withinS: 3},
		{
			name: "our magic in an echo", set: instead(protoLCP, echoRequest, func(c control) (uint16, control) { return protoLCP, c }),
			outcome: Loop, stage: StageUp, withinS: 3,
		},
		{name: "sessions one too many", set: func(b *bras) {
			n := 0
			b.lost = func(p []byte) bool {
				if p[15] != codePADS || binary.BigEndian.Uint16(p[12:]) != typeDiscovery {
					return false
				}
				if n++; n == 1 { // the first PADS comes very late
					time.AfterFunc(1100*time.Millisecond, func() { b.out <- p })
					return true
				}
				return false
			}
		}, outcome: OK, stage: StageUp, withinS: 5, check: func(b *bras, _ Result) bool { return b.opened == 2 && b.closed == 2 }},
		{name: "LCP before the PADS", set: func(b *bras) {
			b.lost = func(p []byte) bool {
				if p[15] != codePADS || binary.BigEndian.Uint16(p[12:]) != typeDiscovery {
					return false
				}
				time.AfterFunc(20*time.Millisecond, func() { b.out <- p })
				return true
			}
		}, outcome: OK, stage: StageUp, withinS: 1, check: func(_ *bras, r Result) bool { return r.LCPMs < 100 }},
		{name: "the server starts late", set: func(b *bras) {
			began := time.Now()
			b.hook = func(f *frame) bool { return !f.discovery && time.Since(began) < 800*time.Millisecond }
			b.lost = func(p []byte) bool {
				return binary.BigEndian.Uint16(p[12:]) == typeSession && time.Since(began) < 800*time.Millisecond
			}
			time.AfterFunc(850*time.Millisecond, func() { b.mu.Lock(); defer b.mu.Unlock(); b.lcpRequest(b.sessions[1]) })
		}, outcome: OK, stage: StageUp, withinS: 2, check: func(_ *bras, r Result) bool { return r.LCPMs < 900 && r.LCP.Requests == 3 }},
		{name: "LCP anew by a network server behind", set: func(b *bras) {
			again := false
			b.hook = func(f *frame) bool {
				if !again && !f.discovery && binary.BigEndian.Uint16(f.payload) == protoIPCP {
					again = true
					p := b.sessions[1]
					*p = peer{id: 1, client: f.src, papSeen: map[byte]bool{}, proposal: 1}
					b.auth = []option{papOption(), chapOption()}
					b.lcpRequest(p)
					return true
				}
				return false
			}
		}, outcome: OK, stage: StageUp, withinS: 4, check: func(_ *bras, r Result) bool {
			return r.Auth.Attempts == 2 && r.Auth.Sends == 2 && r.Auth.Protocol == "chap_md5" && r.Address.IsValid()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options()
			if c.options != nil {
				c.options(&o)
			}
			play(t, o, c.set, func(b *bras, r Result) {
				t := b.t
				if r.Outcome != c.outcome || r.Stage != c.stage {
					t.Errorf("%s at %s, want %s at %s", r.Outcome, r.Stage, c.outcome, c.stage)
				}
				if r.TotalMs > c.withinS*1000 {
					t.Errorf("took %v ms, allowed are %v s", r.TotalMs, c.withinS)
				}
				if c.check != nil && !c.check(b, r) || t.Failed() {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// Whatever the stage, a cancellation is answered within 100 ms, and what was
// opened is closed.
func TestDialCancelledAtEachStage(t *testing.T) {
	for _, stop := range []struct {
		stage Stage
		proto uint16
		code  byte
	}{
		{StageDiscovery, 0, codePADI},
		{StageSessionSetup, 0, codePADR},
		{StageLCP, protoLCP, configureRequest},
		{StageAuth, protoPAP, papRequest},
		{StageIPCP, protoIPCP, configureRequest},
		{StageUp, protoLCP, echoRequest},
		{StageUp, protoLCP, terminateRequest},
	} {
		for _, mute := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %d mute %t", stop.stage, stop.code, mute), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBRAS(t)
					b.delay = 10 * time.Millisecond
					ctx, cancel := context.WithCancel(t.Context())
					var at time.Time
					b.hook = func(f *frame) bool {
						hit := f.discovery && stop.proto == 0 && f.code == stop.code ||
							!f.discovery && binary.BigEndian.Uint16(f.payload) == stop.proto && f.payload[2] == stop.code
						if hit && at.IsZero() {
							at = time.Now()
							cancel()
						}
						return mute && !at.IsZero() && f.code != codePADT
					}
					o, err := options().normalise()
					if err != nil {
						t.Fatal(err)
					}
					r, err := dial(ctx, o, b)
					if wants := stop.code != terminateRequest; wants != errors.Is(err, context.Canceled) {
						t.Errorf("error %v", err)
					}
					if took := time.Since(at); took > 100*time.Millisecond {
						t.Errorf("took %v", took)
					}
					if r.Stage != stop.stage {
						t.Errorf("at %s, want %s", r.Stage, stop.stage)
					}
					time.Sleep(time.Second)
					b.orderly(t)
				})
			})
		}
	}
}

func TestDialInterfaceGone(t *testing.T) {
	for at := range 12 {
		synctest.Test(t, func(t *testing.T) {
			b := newBRAS(t)
			n := 0
			b.hook = func(*frame) bool {
				if n++; n > at {
					b.out <- nil
					b.fail = errGone
				}
				return false
			}
			began := time.Now()
			o, err := options().normalise()
			if err != nil {
				t.Fatal(err)
			}
			if r, err := dial(t.Context(), o, b); !errors.Is(err, errGone) {
				t.Errorf("after %d frames: %v, %+v", at, err, r)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("after %d frames: took %v", at, took)
			}
			time.Sleep(time.Minute)
		})
	}
}

// Answers that are none: cut short, with lengths that are too long, or noise.
func TestDialMalformed(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for proto, name := range map[uint16]string{0: "discovery", protoLCP: "lcp", protoPAP: "pap", protoCHAP: "chap", protoIPCP: "ipcp"} {
		for cut := 1; cut < 24; cut += step {
			t.Run(fmt.Sprintf("%s cut by %d", name, cut), func(t *testing.T) {
				play(t, options(), func(b *bras) {
					b.leaks = proto == 0
					if proto == protoCHAP {
						b.auth = []option{chapOption()}
					}
					b.lost = func(p []byte) bool {
						isSession := binary.BigEndian.Uint16(p[12:]) == typeSession
						if isSession != (proto != 0) || isSession && binary.BigEndian.Uint16(p[20:]) != proto {
							return false
						}
						bad := slices.Clone(p[:max(len(p)-cut, 20)])
						// A PPPoE length that fits, so that the inside is looked at.
						binary.BigEndian.PutUint16(bad[18:], uint16(len(bad)-20))
						time.AfterFunc(time.Millisecond, func() { b.out <- bad })
						return true
					}
				}, func(b *bras, r Result) {
					t := b.t
					if r.Outcome == OK || r.Outcome == "" {
						t.Errorf("%s: %+v", r.Outcome, r)
					}
					if r.Outcome == AuthRejected && proto != protoPAP && proto != protoCHAP {
						t.Errorf("%+v", r)
					}
				})
			})
		}
	}
}

// A flood of whatever kind neither breaks a dial nor prolongs it.
func TestDialFlood(t *testing.T) {
	every := 5 * time.Millisecond
	if testing.Short() {
		every = 50 * time.Millisecond
	}
	for name, flood := range map[string]func(b *bras) []byte{
		"of PADOs": func(b *bras) []byte {
			return (&frame{dst: clientMAC(), src: b.addr, discovery: true, code: codePADO}).appendTo(nil, 0)
		},
		"for others": func(b *bras) []byte { return (&frame{dst: b.addr, src: b.addr, session: 1}).appendTo(nil, 0) },
		"of datagrams": func(b *bras) []byte {
			return (&frame{dst: clientMAC(), src: b.addr, session: 1, payload: []byte{0, 0x21, 1, 2, 3}}).appendTo(nil, 0)
		},
		"of noise":             func(*bras) []byte { return []byte{1, 2, 3} },
		"of echo requests":     func(b *bras) []byte { return flooded(b, protoLCP, control{echoRequest, 1, []byte{1, 2, 3, 4}}) },
		"of LCP requests":      func(b *bras) []byte { return flooded(b, protoLCP, control{configureRequest, 1, []byte{7, 2}}) },
		"of unknown protocols": func(b *bras) []byte { return flooded(b, 0x80fd, control{configureRequest, 1, nil}) },
		"of unknown codes":     func(b *bras) []byte { return flooded(b, protoLCP, control{200, 1, nil}) },
		"of challenges":        func(b *bras) []byte { return flooded(b, protoCHAP, control{chapChallenge, 1, []byte{4, 1, 2, 3, 4}}) },
		"of PADTs of others": func(b *bras) []byte {
			return (&frame{dst: clientMAC(), src: b.addr, discovery: true, code: codePADT, session: 999}).appendTo(nil, 0)
		},
		"of PADTs by others": func(*bras) []byte {
			return (&frame{dst: clientMAC(), src: mac{2, 9}, discovery: true, code: codePADT, session: 1}).appendTo(nil, 0)
		},
		"of sessions of others": func(b *bras) []byte {
			return (&frame{dst: clientMAC(), src: b.addr, session: 999, payload: []byte{0xc0, 0x21, 5, 1, 0, 4}}).appendTo(nil, 0)
		},
		"in another VLAN": func(b *bras) []byte {
			return (&frame{dst: clientMAC(), src: b.addr, vlan: 5, session: 1, payload: []byte{0xc0, 0x21, 5, 1, 0, 4}}).appendTo(nil, 0)
		},
		"of IPCP with no option": func(b *bras) []byte {
			return flooded(b, protoIPCP, control{configureRequest, 1, []byte{3, 6, 10, 0, 0, 1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, options(), func(b *bras) {
				began := time.Now()
				var again func()
				again = func() {
					for range 20 {
						select {
						case b.out <- flood(b):
						default:
						}
					}
					if time.Since(began) < 5*time.Second {
						time.AfterFunc(every, again)
					}
				}
				again()
			}, func(b *bras, r Result) {
				t := b.t
				if name == "of LCP requests" {
					if r.Outcome != LCPNoAgreement || r.TotalMs > 12000 {
						t.Errorf("%+v", r)
					}
				} else if r.Outcome != OK || r.TotalMs > 3000 {
					t.Errorf("%+v", r)
				}
				if n := len(b.seen); n > 1000 {
					t.Errorf("it answers with %d frames", n)
				}
			})
		})
	}
}

func flooded(b *bras, proto uint16, c control) []byte {
	return (&frame{dst: clientMAC(), src: b.addr, session: 1, payload: c.appendTo(binary.BigEndian.AppendUint16(nil, proto))}).appendTo(nil, 0)
}

func TestDialMaxDuration(t *testing.T) {
	for _, limit := range []time.Duration{time.Millisecond, 1500 * time.Millisecond, 8 * time.Second} {
		o := options()
		o.MaxDuration = limit
		play(t, o, func(b *bras) { b.authDelay = time.Hour }, func(b *bras, r Result) {
			t := b.t
			if took := time.Duration(r.TotalMs * 1e6); took > limit+time.Second {
				t.Errorf("took %v with a limit of %v", took, limit)
			}
			if want := map[bool]Outcome{true: NoPADO, false: AuthNoAnswer}[limit < time.Second]; r.Outcome != want {
				t.Errorf("limit %v: %s", limit, r.Outcome)
			}
		})
	}
}

func TestDialSurvivesLoss(t *testing.T) {
	for n := range 14 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			play(t, options(), func(b *bras) {
				i := 0
				b.lost = func([]byte) bool { i++; return i == n+1 }
				b.leaks = n == 1 // nobody can know the session of a lost PADS
			}, func(b *bras, r Result) {
				t := b.t
				// What the server says of its own accord, and says once, is gone.
				if r.Outcome != OK && r.Outcome != AuthNoAnswer && r.Outcome != IPCPFailed && r.Outcome != LCPNoAgreement && r.Outcome != IPCPNoAnswer {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// Who got no processor until the time was up reads what came meanwhile, but not
// for ever.
func TestPastReadsWhatIsThere(t *testing.T) {
	d := &dialer{began: time.Now().Add(-time.Minute), frames: make(chan *frame, 1)}
	if d.past(time.Hour) || !d.past(time.Second) {
		t.Error("an empty queue is waited for, or the time is not")
	}
	d.frames <- nil
	n := 0
	for d.late = 0; !d.past(time.Second) && n < 1000; n++ {
	}
	if n != maxLate {
		t.Errorf("%d frames are read, want %d", n, maxLate)
	}
}
