package interop

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// role is who may do what, as docs/brokers.md has it.
type role struct {
	name    string
	connect func(*mosquitto) mqtt.Options
	// of which devices of the tenant
	devices      []string
	reads, sends []transport.Kind
}

func roles() []role {
	up := []transport.Kind{
		transport.KindState, transport.KindInfo, transport.KindTelemetry, transport.KindEvent,
		transport.KindBackfill, transport.KindRecord, transport.KindPending, transport.KindStatus,
	}
	down := []transport.Kind{transport.KindCommand, transport.KindConfig, transport.KindAck}
	without := func(kinds []transport.Kind, not transport.Kind) []transport.Kind {
		return slices.DeleteFunc(slices.Clone(kinds), func(k transport.Kind) bool { return k == not })
	}
	all := []string{ours, other}
	gateway := func(cn string) func(b *mosquitto) mqtt.Options {
		return func(b *mosquitto) mqtt.Options { return b.gateway(cn) }
	}
	member := func(cn string) func(b *mosquitto) mqtt.Options {
		return func(b *mosquitto) mqtt.Options { return b.member(cn) }
	}
	return []role{
		{"gateway", gateway(ours), []string{ours}, down, up},
		{"gateway by WebSocket", func(b *mosquitto) mqtt.Options {
			o := b.gateway(ours)
			o.Broker = b.websocketURL
			return o
		}, []string{ours}, down, up},
		{"gateway that calls itself another", func(b *mosquitto) mqtt.Options {
			o := b.gateway(ours)
			o.ClientID, o.Username = other, other
			return o
		}, []string{ours}, down, up},
		{"collector", member("collector.1"), all, up, []transport.Kind{transport.KindAck}},
		{
			"Telegraf", member("telegraf.1"), all,
			[]transport.Kind{transport.KindTelemetry, transport.KindEvent, transport.KindBackfill},
			nil,
		},
		{
			"NOC", member("noc.1"), all, without(up, transport.KindRecord),
			[]transport.Kind{transport.KindConfig, transport.KindCommand},
		},
		{
			"technician", member("T-1"),
			[]string{ours},
			without(without(up, transport.KindRecord), transport.KindBackfill),
			[]transport.Kind{transport.KindCommand},
		},
		{"technician whose order has ended", member("T-2"), nil, nil, nil},
		{"technician without order", member("T-3"), nil, nil, nil},
		{"member named like a gateway", member(ours), nil, nil, nil},
		{"gateway named like the collector", gateway("collector.1"), nil, nil, nil},
		{"gateway named like a technician", gateway("T-1"), nil, nil, nil},
		{"gateway named +", gateway("+"), nil, nil, nil},
		{"gateway named #", gateway("#"), nil, nil, nil},
		{"gateway named like two levels", gateway(ours + "/telemetry"), nil, nil, nil},
	}
}

// place is a topic of the matrix.
type place struct {
	topic  string
	device string // empty: not one of the contract's, or another tenant's
	kind   transport.Kind
}

func places(t *testing.T) []place {
	t.Helper()
	kinds := []transport.Kind{
		transport.KindState, transport.KindInfo, transport.KindTelemetry, transport.KindEvent, transport.KindBackfill,
		transport.KindRecord, transport.KindPending, transport.KindStatus, transport.KindCommand, transport.KindConfig, transport.KindAck,
	}
	var all []place
	for _, where := range [][2]string{{tenant, ours}, {tenant, other}, {"rival", ours}} {
		for _, kind := range kinds {
			topic, err := transport.Topic(where[0], where[1], kind, "x1")
			if err != nil {
				topic, err = transport.Topic(where[0], where[1], kind, "")
			}
			if err != nil {
				t.Fatal(err)
			}
			p := place{topic, where[1], kind}
			if where[0] != tenant {
				p.device = ""
			}
			all = append(all, p)
		}
	}
	own := "ont/1/" + tenant + "/" + ours
	for _, topic := range []string{
		own, own + "/", own + "/state/x", own + "/telemetry", own + "/telemetry/x/y", own + "/other",
		own + "/cmd", own + "/cmd/x/y", "ont/1/" + tenant, "ont/2/" + tenant + "/" + ours + "/state", ours, "stray", "/" + own + "/state",
	} {
		all = append(all, place{topic: topic})
	}
	// "+" matches an empty level too; consumers refuse such a topic.
	return append(all, place{own + "/telemetry/", ours, transport.KindTelemetry})
}

func (r role) may(kinds []transport.Kind, p place) bool {
	return p.device != "" && slices.Contains(r.devices, p.device) && slices.Contains(kinds, p.kind)
}

// TestRoles tries every role at every topic in both directions.
func TestRoles(t *testing.T) {
	office := newOffice(t)
	valid, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	b := startMosquitto(t, office.section(t,
		office.order(t, "WO-1", ours, "T-1", valid), office.order(t, "WO-2", ours, "T-2", past)))
	topics := places(t)
	tried := 0
	for _, r := range roles() {
		t.Run(r.name, func(t *testing.T) {
			witness := dial(t, b.open())
			witness.subscribe("#")
			// Retained, from before: what a newcomer would be given.
			for _, p := range topics {
				witness.publish(p.topic, true, "retained")
			}
			c := dial(t, r.connect(b))
			// Nobody is told what they may not read: every subscription is granted.
			filters := []string{"#", "ont/#", "ont/1/+/+/record/+", "ont/1/" + tenant + "/" + ours + "/#", "$SYS/#"}
			for _, p := range topics {
				filters = append(filters, p.topic)
			}
			c.subscribe(filters...)
			for _, p := range topics {
				witness.publish(p.topic, false, "live")
			}
			last := ""
			for _, p := range topics {
				if r.may(r.reads, p) {
					last = p.topic
				}
			}
			if last == "" {
				time.Sleep(200 * time.Millisecond) // for what must not come there is nothing to wait for
			} else {
				witness.publish(last, false, "end")
				c.wait(last, "end") // in order, so all before it came
			}
			for _, p := range topics {
				want := r.may(r.reads, p)
				if got := c.heard(p.topic, "retained"); got != want {
					t.Errorf("%s: retained message heard: %v, want %v", p.topic, got, want)
				}
				if got := c.heard(p.topic, "live"); got != want {
					t.Errorf("%s: message heard: %v, want %v", p.topic, got, want)
				}
			}
			for _, p := range c.packets() {
				if !slices.ContainsFunc(topics, func(q place) bool { return q.topic == p.Topic }) {
					t.Errorf("heard %s", p.Topic)
				}
			}

			// Every message is acknowledged, the forbidden ones as well.
			for _, p := range topics {
				c.publish(p.topic, false, r.name)
			}
			second := dial(t, b.open()) // after the acknowledgements, so behind everything
			second.publish("fence", false, r.name)
			witness.wait("fence", r.name)
			for _, p := range topics {
				want := r.may(r.sends, p)
				if got := witness.heard(p.topic, r.name); got != want {
					t.Errorf("%s: message passed: %v, want %v", p.topic, got, want)
				}
			}
			tried += 3 * len(topics)
		})
	}
	t.Logf("%d roles, %d topics: %d trials", len(roles()), len(topics), tried)
}

func TestCertificates(t *testing.T) {
	b := startMosquitto(t, "")
	stranger := newAuthority(t, "stranger")
	of := func(a *authority, change func(*x509.Certificate)) mqtt.TLSOptions {
		o := a.issue(ours, change)
		o.CAFile = b.gateways.file
		return o
	}
	revoked := of(b.gateways, nil)
	b.gateways.revoke(filepath.Join(b.dir, "gateways-crl.pem"), revoked)
	b.signal(syscall.SIGHUP) // no restart: other sessions stay up
	eventually(t, "the list of revoked certificates is read", 10*time.Second, func() bool {
		conn, err := mqtt.Dial(testContext(t), mqtt.Options{Broker: b.gatewayURL, ClientID: ours, TLS: revoked, ConnectTimeout: 5 * time.Second})
		if err == nil {
			_ = conn.Close(testContext(t))
		}
		return err != nil
	})
	for name, tc := range map[string]struct {
		tls           mqtt.TLSOptions
		gateway, team bool // may connect there
	}{
		"of a gateway":  {of(b.gateways, nil), true, false},
		"of staff":      {of(b.staff, nil), false, true},
		"none":          {mqtt.TLSOptions{CAFile: b.gateways.file}, false, false},
		"of a stranger": {of(stranger, nil), false, false},
		"self-signed":   {of(newAuthority(t, ours), nil), false, false},
		"expired": {of(b.gateways, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), false, false},
		"not yet valid":  {of(b.gateways, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), false, false},
		"revoked":        {revoked, false, false},
		"without a name": {of(b.gateways, func(c *x509.Certificate) { c.Subject.CommonName = "" }), false, false},
		"for servers only": {of(b.gateways, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for url, want := range map[string]bool{b.gatewayURL: tc.gateway, b.websocketURL: tc.gateway, b.staffURL: tc.team} {
				conn, err := mqtt.Dial(testContext(t), mqtt.Options{Broker: url, ClientID: ours, TLS: tc.tls, ConnectTimeout: 5 * time.Second})
				if err == nil {
					_ = conn.Close(testContext(t))
				}
				if name == "revoked" && url == b.websocketURL {
					t.Logf("WebSocket: connected: %v; no list is asked there, docs/brokers.md says so", err == nil)
					continue
				}
				if (err == nil) != want {
					t.Errorf("%s: connected: %v (%v), want %v", url, err == nil, err, want)
				}
			}
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		conn, err := mqtt.Dial(testContext(t), mqtt.Options{
			Broker: strings.Replace(b.gatewayURL, "ssl", "tcp", 1), ClientID: ours, ConnectTimeout: 2 * time.Second,
		})
		if err == nil {
			_ = conn.Close(testContext(t))
			t.Error("connected")
		}
	})
}

// A certificate is one session: a second connection with it ends the first, and
// nobody else's can, whatever client id it gives.
func TestOneSessionForOneCertificate(t *testing.T) {
	b := startMosquitto(t, "")
	first := dial(t, b.gateway(ours))
	for _, o := range []mqtt.Options{b.gateway(other), b.member("T-1"), b.member("noc.1")} {
		o.ClientID, o.Username = ours, ours
		c := dial(t, o)
		c.publish("fence", false, "")
		if err := first.conn.Err(); err != nil {
			t.Fatalf("ended by another's certificate: %v", err)
		}
	}
	o := b.gateway(ours)
	o.ClientID = "fresh"
	second := dial(t, o)
	select {
	case <-first.conn.Lost():
	case <-time.After(10 * time.Second):
		t.Error("two sessions with one certificate")
	}
	if err := second.conn.Err(); err != nil {
		t.Error(err)
	}
}

// A last will on somebody else's topic does not get a gateway in.
func TestWillIsBoundByRights(t *testing.T) {
	b := startMosquitto(t, "")
	witness := dial(t, b.open())
	witness.subscribe("ont/#")
	for device, want := range map[string]bool{ours: true, other: false} {
		o := b.gateway(ours)
		o.KeepAlive = time.Second
		o.Will = &mqtt.Will{Topic: "ont/1/isp/" + device + "/state", Payload: []byte("will of " + ours), Retain: true}
		conn, err := mqtt.Dial(testContext(t), o)
		if err == nil {
			// Taken over by a second session: the first one ends without goodbye.
			dial(t, b.gateway(ours))
			<-conn.Lost()
			_ = conn.Close(testContext(t))
			witness.publish("ont/fence", false, device)
			witness.wait("ont/fence", device)
		}
		if got := witness.heard("ont/1/isp/"+device+"/state", "will of "+ours); got != want {
			t.Errorf("will of %s for %s published: %v, want %v", ours, device, got, want)
		}
		t.Logf("will of %s for %s: %v", ours, device, err)
	}
}

// Rights follow the orders without a restart: a new order works, an ended one
// stops, in sessions that stay up.
func TestRightsFollowOrders(t *testing.T) {
	office := newOffice(t)
	valid, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	b := startMosquitto(t, office.section(t, office.order(t, "WO-1", ours, "T-1", valid)))
	witness := dial(t, b.open())
	leaving, coming := dial(t, b.member("T-1")), dial(t, b.member("T-2"))
	const topic = "ont/1/isp/" + ours + "/event/link"
	leaving.subscribe(topic)
	coming.subscribe(topic)
	witness.publish(topic, false, "before")
	leaving.wait(topic, "before")

	configure(t, "staff.acl", filepath.Join(b.dir, "staff.acl"))
	b.append("staff.acl", office.section(t, office.order(t, "WO-1", ours, "T-1", past), office.order(t, "WO-2", ours, "T-2", valid)))
	b.signal(syscall.SIGHUP)
	n := 0
	eventually(t, "the new order's technician hears", 10*time.Second, func() bool {
		n++
		witness.publish(topic, false, fmt.Sprint("after ", n))
		return coming.heard(topic, fmt.Sprint("after ", n-1))
	})
	last := fmt.Sprint("after ", n)
	coming.wait(topic, last)
	if coming.heard(topic, "before") || leaving.heard(topic, last) {
		t.Error("heard what the order of the time did not allow")
	}
	witness.subscribe("ont/1/isp/+/cmd/+")
	leaving.publish("ont/1/isp/"+ours+"/cmd/late", false, "x")
	coming.publish("ont/1/isp/"+ours+"/cmd/now", false, "x")
	witness.wait("ont/1/isp/"+ours+"/cmd/now", "x")
	if witness.heard("ont/1/isp/"+ours+"/cmd/late", "x") {
		t.Error("a command passed after the order had ended")
	}
}
