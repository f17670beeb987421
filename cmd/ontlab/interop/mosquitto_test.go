package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ontagent/transport/mqtt"
)

const (
	tenant = "isp"
	ours   = "HWTC12345678"
	other  = "HWTC87654321"
)

// mosquitto is the real broker with the configuration of docs/brokers.
type mosquitto struct {
	program
	dir             string
	gateways, staff *authority
	// Where its listeners are; the test's own has no rules at all.
	gatewayURL, websocketURL, staffURL, openURL string
	ports                                       []string
}

// startMosquitto starts the broker; what technicians says is added to
// staff.acl.
func startMosquitto(t *testing.T, technicians string) *mosquitto {
	t.Helper()
	if testing.Short() {
		t.Skip("a broker and its clients, with -short")
	}
	b := &mosquitto{
		dir: t.TempDir(), gateways: newAuthority(t, "gateways"), staff: newAuthority(t, "staff"), ports: ports(t, 4),
	}
	b.t = t
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			b.name = path
			break
		}
	}
	if b.name == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("no mosquitto (Debian package mosquitto)")
		}
		t.Skip("no mosquitto (Debian package mosquitto)")
	}
	conf := filepath.Join(b.dir, "mosquitto.conf")
	b.args = []string{"-c", conf}
	configure(t, "mosquitto.conf", conf,
		"user mosquitto", "user root", // who can read the test's files
		"/etc/mosquitto/", b.dir+"/", "/run/mosquitto/", b.dir+"/", "/var/lib/mosquitto/", b.dir+"/",
		"log_dest syslog", "log_dest stderr",
		"listener 8883\n", "listener "+b.ports[0]+" 127.0.0.1\n",
		"listener 8443\n", "listener "+b.ports[1]+" 127.0.0.1\n",
		"listener 8884\n", "listener "+b.ports[2]+" 127.0.0.1\n",
		"# crlfile", "crlfile",
	)
	b.append("mosquitto.conf", "\nlistener "+b.ports[3]+" 127.0.0.1\nallow_anonymous true\n")
	configure(t, "gateways.acl", filepath.Join(b.dir, "gateways.acl"))
	configure(t, "staff.acl", filepath.Join(b.dir, "staff.acl"))
	b.append("staff.acl", technicians)
	server := b.gateways.issue("broker", nil)
	for from, to := range map[string]string{
		b.gateways.file: "gateways-ca.pem", b.staff.file: "staff-ca.pem", server.CertFile: "broker.pem", server.KeyFile: "broker.key",
	} {
		if err := os.WriteFile(filepath.Join(b.dir, to), []byte(read(t, from)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.gateways.revoke(filepath.Join(b.dir, "gateways-crl.pem"))
	b.staff.revoke(filepath.Join(b.dir, "staff-crl.pem"))
	for i, url := range []*string{&b.gatewayURL, &b.websocketURL, &b.staffURL, &b.openURL} {
		*url = []string{"ssl", "wss", "ssl", "tcp"}[i] + "://127.0.0.1:" + b.ports[i]
	}
	b.start()
	return b
}

// start starts the broker and waits for its listeners.
func (b *mosquitto) start() {
	b.t.Helper()
	b.program.start()
	for _, port := range b.ports {
		eventually(b.t, "mosquitto listens on "+port, 10*time.Second, func() bool { return reachable(port) })
	}
}

func (b *mosquitto) append(file, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, file)
	if err := os.WriteFile(path, []byte(read(b.t, path)+text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// gateway and member return how somebody reaches the broker.
func (b *mosquitto) gateway(cn string) mqtt.Options {
	return mqtt.Options{Broker: b.gatewayURL, ClientID: "anything", TLS: b.gateways.issue(cn, nil)}
}

func (b *mosquitto) member(cn string) mqtt.Options {
	o := mqtt.Options{Broker: b.staffURL, ClientID: "anything", TLS: b.staff.issue(cn, nil)}
	o.TLS.CAFile = b.gateways.file // which signed the broker's certificate
	return o
}

func (b *mosquitto) open() mqtt.Options {
	return mqtt.Options{Broker: b.openURL, ClientID: fmt.Sprintf("test%d", time.Now().UnixNano())}
}

// client is a connection that takes down what it hears.
type client struct {
	t    *testing.T
	conn *mqtt.Conn
	done chan struct{}

	mu  sync.Mutex
	got []mqtt.Packet // guarded by mu
}

func dial(t *testing.T, o mqtt.Options) *client {
	t.Helper()
	o.ConnectTimeout, o.InboundDepth, o.MaxPacket = 10*time.Second, 1<<14, 256<<10
	conn, err := mqtt.Dial(testContext(t), o)
	if err != nil {
		t.Fatalf("%s: %v", o.Broker, err)
	}
	c := &client{t: t, conn: conn, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for {
			select {
			case p := <-conn.Inbound():
				c.mu.Lock()
				c.got = append(c.got, p)
				c.mu.Unlock()
				p.Ack()
			case <-conn.Lost():
				return
			}
		}
	}()
	t.Cleanup(c.close)
	return c
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (c *client) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = c.conn.Close(ctx)
	<-c.done
}

func (c *client) subscribe(filters ...string) {
	c.t.Helper()
	if err := c.conn.Subscribe(testContext(c.t), filters...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) publish(topic string, retain bool, payload string) {
	c.t.Helper()
	if err := c.conn.Publish(testContext(c.t), topic, 1, retain, []byte(payload)); err != nil {
		c.t.Fatalf("%s: %v", topic, err)
	}
}

// packets returns what was heard so far.
func (c *client) packets() []mqtt.Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]mqtt.Packet(nil), c.got...)
}

// heard reports whether a payload came on a topic.
func (c *client) heard(topic, payload string) bool {
	for _, p := range c.packets() {
		if p.Topic == topic && string(p.Payload) == payload {
			return true
		}
	}
	return false
}

func (c *client) wait(topic, payload string) {
	c.t.Helper()
	eventually(c.t, topic+" "+payload, 10*time.Second, func() bool { return c.heard(topic, payload) })
}
