package order

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func testExtract() Extract {
	return Extract{
		V: 1, Order: "WO-1", Device: testDevice, Taken: testNow.Add(-time.Minute), Account: "ad*****@isp", State: AccountActive,
		DownMbps: 500, UpMbps: 50.5, Template: "p500", Pools: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, MTU: 1492, VLAN: 41, MaxSessions: 1,
		Session: &ExtractSession{Online: true, Since: testNow.Add(-time.Hour), V4: netip.MustParseAddr("203.0.113.7"), MAC: "02:00:00:00:00:01", VLAN: 41},
	}
}

func TestExtractTravelsWithTheOrder(t *testing.T) {
	w := newWorld(t)
	r := w.request(w.order(), w.command())
	r.Extract = new(must(testExtract().Sign(w.operator)))
	g, err := run(w.authority(), w.parse(r))
	if err != nil {
		t.Fatal(err)
	}
	same := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	if g.Extract == nil {
		t.Fatal("it got lost")
	}
	if diff := cmp.Diff(testExtract(), *g.Extract, same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if g.Request.Extract == nil || Digest(*g.Request.Extract) != Digest(*r.Extract) {
		t.Error("the envelope is not kept as it came")
	}
}

// TestHostileExtractIsRefused: with its command, and nothing is used up.
func TestHostileExtractIsRefused(t *testing.T) {
	w := newWorld(t)
	with := func(change func(*Extract)) Envelope {
		e := testExtract()
		change(&e)
		return must(e.Sign(w.operator))
	}
	by := func(key ed25519.PrivateKey) Envelope { return must(testExtract().Sign(key)) }
	// Signed by the right key, but not by this program.
	raw := func(payload string) Envelope { return must(Sign(TypeExtract, []byte(payload), w.operator)) }
	text := func() string { return string(must(json.Marshal(testExtract()))) }()
	for name, tt := range map[string]struct {
		env    Envelope
		reason Reason
	}{
		"of another order":      {with(func(e *Extract) { e.Order = "WO-2" }), ReasonMalformed},
		"of another device":     {with(func(e *Extract) { e.Device = "HWTC87654321" }), ReasonMalformed},
		"by a stranger":         {by(newKey(t)), ReasonUnknownKey},
		"by the technician":     {by(w.technician), ReasonUnknownKey},
		"by the NOC":            {by(w.noc), ReasonUnknownKey},
		"by the time key":       {by(w.timeKey), ReasonUnknownKey},
		"by the root":           {by(w.root), ReasonUnknownKey},
		"an order":              {must(w.order().Sign(w.operator)), ReasonMalformed},
		"newer version":         {raw(strings.Replace(text, `"v":1`, `"v":2`, 1)), ReasonMalformed},
		"unknown field":         {raw(strings.Replace(text, `"v":1`, `"v":1,"password":"x"`, 1)), ReasonMalformed},
		"account in full":       {raw(strings.Replace(text, "ad*****", "ad1234", 1)), ReasonMalformed},
		"no date":               {raw(strings.Replace(text, `"taken"`, `"Taken2"`, 1)), ReasonMalformed},
		"not JSON":              {raw("extract"), ReasonMalformed},
		"unknown state":         {raw(strings.Replace(text, `"active"`, `"paused"`, 1)), ReasonMalformed},
		"a text without an end": {raw(strings.Replace(text, "p500", strings.Repeat("p", 129), 1)), ReasonMalformed},
		"altered": {func() Envelope {
			env := by(w.operator)
			env.Payload = base64.StdEncoding.EncodeToString([]byte(strings.Replace(text, "500", "900", 1)))
			return env
		}(), ReasonBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.authority()
			r := w.request(w.order(), w.command())
			before := string(w.store.data)
			r.Extract = &tt.env
			_, err := a.Verify(w.parse(r))
			if got := reasonOf(err); got != tt.reason {
				t.Errorf("refused as %q (%v), want %q", got, err, tt.reason)
			}
			if before != "" && before != string(w.store.data) {
				t.Error("the state changed")
			}
		})
	}

	t.Run("by a revoked key", func(t *testing.T) {
		second := newKey(t)
		w := newWorld(t)
		w.trust.Keys = append(w.trust.Keys, TrustKey{"op-2", RoleOperator, public(second)})
		w.trust.RevokedKeys = []string{public(second).ID()}
		r := w.request(w.order(), w.command())
		r.Extract = new(must(testExtract().Sign(second)))
		if _, err := w.authority().Verify(w.parse(r)); reasonOf(err) != ReasonRevoked {
			t.Errorf("%v", err)
		}
	})
	t.Run("too large with order and trust list", func(t *testing.T) {
		w := newWorld(t)
		for i := 0; ; i++ {
			w.trust.Keys = append(w.trust.Keys, TrustKey{fmt.Sprintf("op-%d", i+2), RoleOperator, public(newKey(t))})
			if len(must(w.trust.Sign(w.root)).Payload) > maxCarried-2048 {
				break
			}
		}
		a := w.authority()
		if err := a.AdoptTrust(must(w.trust.Sign(w.root))); err != nil {
			t.Fatal(err)
		}
		r := w.request(w.order(), w.command())
		r.Trust = nil
		if _, err := a.Verify(w.parse(r)); err != nil {
			t.Fatalf("without an extract: %v", err)
		}
		e := testExtract()
		for len(e.Pools) < maxList {
			e.Pools = append(e.Pools, netip.MustParsePrefix("2001:db8:aaaa:bbbb:cccc:dddd:eeee:0/112"))
		}
		r.Extract = new(must(e.Sign(w.operator)))
		if _, err := a.Verify(w.parse(r)); reasonOf(err) != ReasonTooLarge {
			t.Errorf("%v", err)
		}
	})
	t.Run("unsigned", func(t *testing.T) {
		r := w.request(w.order(), w.command())
		data := must(json.Marshal(r))
		_, err := ParseRequest([]byte(strings.Replace(string(data), `{"v":1,`, `{"v":1,"extract":`+text+`,`, 1)))
		if err == nil {
			t.Error("it was read as a request")
		}
	})
}

func FuzzExtract(f *testing.F) {
	f.Add(must(json.Marshal(testExtract())))
	f.Add([]byte(`{"v":1,"order":"a","device":"HWTC12345678","taken":"2026-05-04T10:00:00Z","session":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e Extract
		if decodeStrict(data, &e) != nil || e.Validate() != nil {
			return
		}
		// What holds once, holds after a round trip, and says the same.
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var second Extract
		if err := decodeStrict(again, &second); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if third := must(json.Marshal(second)); string(third) != string(again) {
			t.Errorf("%s became %s", again, third)
		}
		if strings.Contains(e.Account, "@") && !strings.Contains(e.Account, "*") {
			t.Errorf("account in full: %q", e.Account)
		}
	})
}
