package interop

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// find returns the last message on a topic whose payload holds part.
func (c *client) find(topic, part string) (mqtt.Packet, bool) {
	for _, p := range slices.Backward(c.packets()) {
		if p.Topic == topic && strings.Contains(string(p.Payload), part) {
			return p, true
		}
	}
	return mqtt.Packet{}, false
}

func (c *client) await(topic, part string) mqtt.Packet {
	c.t.Helper()
	eventually(c.t, topic+" with "+part, 20*time.Second, func() bool { _, ok := c.find(topic, part); return ok })
	p, _ := c.find(topic, part)
	return p
}

// TestGatewaySession holds the gateway's own session to the rights, both ways.
func TestGatewaySession(t *testing.T) {
	for name, url := range map[string]func(*mosquitto) string{
		"TLS":       func(b *mosquitto) string { return b.gatewayURL },
		"WebSocket": func(b *mosquitto) string { return b.websocketURL },
	} {
		t.Run(name, func(t *testing.T) {
			office := newOffice(t)
			b := startMosquitto(t, office.section(t, office.order(t, "WO-1", ours, "T-1", time.Now().Add(time.Hour))))
			collector := dial(t, b.member("collector.1"))
			collector.subscribe(upFilters("+")...)
			o := b.gateway(ours)
			o.Broker, o.KeepAlive = url(b), 2*time.Second
			g, stop := startGateway(t, o, nil)
			up := "ont/1/" + tenant + "/" + ours + "/"
			collector.await(up+"state", `"online"`)
			collector.await(up+"info", `"model":"X"`)
			collector.await(up+"pending", `"session":1`)

			for _, m := range []struct {
				class transport.Class
				kind  transport.Kind
				name  string
			}{
				{transport.ClassTelemetry, transport.KindTelemetry, "link"},
				{transport.ClassEvent, transport.KindEvent, "link"},
				{transport.ClassRecord, transport.KindRecord, "WO-1"},
				{transport.ClassRecord, transport.KindStatus, "job1"},
				{transport.ClassTelemetry, transport.KindBackfill, "link"},
			} {
				g.put(m.class, m.kind, m.name, body(1))
				collector.await(up+string(m.kind)+"/"+m.name, "change 1")
			}

			// Down, each from who may.
			technician, noc := dial(t, b.member("T-1")), dial(t, b.member("noc.1"))
			technician.publish(up+"cmd/job2", false, "{}")
			noc.publish(up+"cfg", true, "{}")
			collector.publish(up+"ack", true, "{}")
			for _, in := range []struct {
				kind transport.Kind
				name string
			}{{transport.KindCommand, "job2"}, {transport.KindConfig, ""}, {transport.KindAck, ""}} {
				eventually(t, string(in.kind), 10*time.Second, func() bool { return g.heard(in.kind, in.name) })
			}

			// The broker is killed: the gateway comes back and loses nothing of its own.
			b.stop(syscall.SIGKILL)
			eventually(t, "loss is seen", 30*time.Second, func() bool { return !g.device.Status().Connected })
			for i := range 100 {
				g.put(transport.ClassEvent, transport.KindEvent, "link", body(100+i))
			}
			b.start()
			collector = dial(t, b.member("collector.1"))
			collector.subscribe(upFilters("+")...)
			eventually(t, "queue is empty", 30*time.Second, func() bool { return g.depth() == 0 })

			// The line is cut: the will tells. The test's own connection takes the
			// session over, which ends the gateway's without its goodbye.
			takeover := dial(t, b.gateway(ours))
			collector.await(up+"state", `"offline"`)
			takeover.close()
			eventually(t, "it is back", 30*time.Second, func() bool { return g.device.Status().Connected })
			stop()
			if p := collector.await(up+"state", `"offline","session":`); p.Retained {
				t.Error("the goodbye came as an old message")
			}
			late := dial(t, b.member("noc.1"))
			late.subscribe(up + "state")
			if p := late.await(up+"state", `"offline"`); !p.Retained {
				t.Error("state is not retained")
			}
		})
	}
}

// tls is how ontctl is told of a certificate.
func tls(o mqtt.Options) []string {
	return []string{"--broker", o.Broker, "--ca", o.TLS.CAFile, "--cert", o.TLS.CertFile, "--cert-key", o.TLS.KeyFile}
}

// TestOntctl runs the programs of technician and NOC with the certificates
// that they have.
func TestOntctl(t *testing.T) {
	office := newOffice(t)
	wo := office.order(t, "WO-1", ours, "T-1", time.Now().Add(time.Hour))
	b := startMosquitto(t, office.section(t, wo))
	// A gateway that does what it is told, in no time.
	g, _ := startGateway(t, b.gateway(ours), func(g *gateway, in transport.Inbound) {
		if in.Kind != transport.KindCommand {
			return
		}
		for _, st := range []job.Status{
			{ID: in.Name, Order: "WO-1", CommandType: order.Accept, State: job.Accepted},
			{ID: in.Name, Order: "WO-1", CommandType: order.Accept, State: job.Succeeded, Progress: 1, Verdict: "pass"},
		} {
			g.put(transport.ClassRecord, transport.KindStatus, in.Name, st)
		}
	})
	eventually(t, "gateway is connected", 10*time.Second, func() bool { return g.device.Status().Connected })

	t.Run("accept by the order's technician", func(t *testing.T) {
		args := append([]string{"accept", "--order", wo, "--key", office.key("T-1"), "--json"}, tls(b.member("T-1"))...)
		out, code := office.run(t, args...)
		if code != cli.OK || !strings.Contains(out, `"SUCCEEDED"`) {
			t.Errorf("ended with %d:\n%s", code, out)
		}
	})
	t.Run("accept by another technician", func(t *testing.T) {
		// The command is acknowledged and never arrives.
		before := g.count()
		args := append([]string{"accept", "--order", wo, "--key", office.key("T-1"), "--json", "--wait", "500ms"}, tls(b.member("T-9"))...)
		out, code := office.run(t, args...)
		if code != cli.Unreachable {
			t.Errorf("ended with %d, want %d:\n%s", code, cli.Unreachable, out)
		}
		if g.count() != before {
			t.Error("the command arrived")
		}
	})
	t.Run("accept with a gateway's certificate", func(t *testing.T) {
		o := b.gateway(ours)
		o.Broker = b.staffURL
		args := append([]string{"accept", "--order", wo, "--key", office.key("T-1")}, tls(o)...)
		if out, code := office.run(t, args...); code != cli.Refused {
			t.Errorf("ended with %d, want %d:\n%s", code, cli.Refused, out)
		}
	})
	t.Run("collect", func(t *testing.T) {
		office.keygen(t, "collector")
		dir := t.TempDir()
		args := append([]string{"collect", "--dir", dir, "--key", office.key("collector"), "--tenant", tenant, "--ack-interval", "100ms", "--grace", "1s", "--json"},
			tls(b.member("collector.1"))...)
		cmd := exec.CommandContext(t.Context(), office.ontctl, args...)
		var out output
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { t.Logf("collect said: %s", tail(out.String(), 600)) }()
		eventually(t, "collector is connected", 10*time.Second, func() bool { return strings.Contains(b.log.String(), "as collector.1 ") })
		g.put(transport.ClassEvent, transport.KindEvent, "link", body(1))
		n := 1
		eventually(t, "signed ack", 20*time.Second, func() bool {
			if !g.heard(transport.KindAck, "") && n < 100 {
				n++ // one that comes once it has subscribed
				g.put(transport.ClassEvent, transport.KindEvent, "link", body(n))
				time.Sleep(100 * time.Millisecond)
			}
			return g.heard(transport.KindAck, "")
		})
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	})
	t.Run("cfg by the NOC", func(t *testing.T) {
		office.keygen(t, "noc")
		set := func(cn, version string) (string, int) {
			return office.run(t, append([]string{
				"cfg", "--key", office.key("noc"), "--tenant", tenant, "--device", ours,
				"--version", version, "--spread", "200s",
			}, tls(b.member(cn))...)...)
		}
		before := g.count()
		// What may not be said is acknowledged, so ontctl can't know.
		if out, code := set("T-1", "1"); code != cli.OK {
			t.Errorf("a technician's ended with %d: %s", code, out)
		}
		if g.heard(transport.KindConfig, "") || g.count() != before {
			t.Error("a technician's cfg arrived")
		}
		if out, code := set("noc.1", "2"); code != cli.OK {
			t.Errorf("ended with %d: %s", code, out)
		}
		eventually(t, "settings", 10*time.Second, func() bool { return g.heard(transport.KindConfig, "") })
		if g.count() != before+1 {
			t.Errorf("%d messages arrived", g.count()-before)
		}
	})
	for _, who := range []struct {
		cn                     string
		sees, neverSees, event string
	}{
		{"noc.1", "/event/link", "/record/", "n"},
		{"T-1", "/event/link", "/record/", "t"},
		{"collector.1", "/record/WO-1", "/cmd/", "c"},
	} {
		t.Run("watch by "+who.cn, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), office.ontctl, append([]string{"watch", "--json"}, tls(b.member(who.cn))...)...)
			var out, errs output
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			eventually(t, "birth is shown", 10*time.Second, func() bool { return strings.Contains(out.String(), "/info") })
			g.put(transport.ClassRecord, transport.KindRecord, "WO-1", map[string]any{"for": who.event})
			g.put(transport.ClassEvent, transport.KindEvent, "link", map[string]any{"subject": "eth0", "what": who.event})
			eventually(t, "event is shown", 10*time.Second, func() bool { return strings.Contains(out.String(), `"what":"`+who.event) })
			if text := out.String(); !strings.Contains(text, who.sees) || strings.Contains(text, who.neverSees) {
				t.Errorf("shown:\n%s\n%s", text, errs.String())
			}
		})
	}
}
