package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// node is one server of the cluster.
type node struct {
	program
	node             string // its name
	mqtt, monitoring string // ports
}

// cluster is three NATS servers with the configuration of docs/brokers.
type cluster struct {
	t       *testing.T
	clients *authority
	ca      string // of the nodes' certificates
	nodes   []*node
	http    *http.Client
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	path := built(t, "NATS_SERVER")
	c := &cluster{t: t, clients: newAuthority(t, "clients"), http: &http.Client{Timeout: 2 * time.Second}}
	authority := newAuthority(t, "nodes")
	c.ca = authority.file
	p := ports(t, 12)
	for i := range 3 {
		dir := t.TempDir()
		conf := filepath.Join(dir, "nats.conf")
		files := authority.issue("node", nil)
		name := fmt.Sprint("n", i+1)
		n := &node{node: name, mqtt: p[4*i], monitoring: p[4*i+1]}
		n.program = program{t: t, name: path, args: []string{"-c", conf}, env: []string{"NODE=" + name}}
		configure(t, "nats.conf", conf,
			"127.0.0.1:4222", "127.0.0.1:"+p[4*i+3], "127.0.0.1:8222", "127.0.0.1:"+n.monitoring, "0.0.0.0:6222", "127.0.0.1:"+p[4*i+2], "0.0.0.0:8883", "127.0.0.1:"+n.mqtt,
			"n1.example:6222", "127.0.0.1:"+p[2], "n2.example:6222", "127.0.0.1:"+p[6], "n3.example:6222", "127.0.0.1:"+p[10],
			"/var/lib/nats", filepath.Join(dir, "store"),
			"/etc/nats/node.pem", files.CertFile, "/etc/nats/node.key", files.KeyFile,
			"/etc/nats/nodes-ca.pem", authority.file, "/etc/nats/clients-ca.pem", c.clients.file)
		c.nodes = append(c.nodes, n)
		n.start()
	}
	c.healthy()
	return c
}

// healthy waits until every node says that it holds what it should.
func (c *cluster) healthy() {
	c.t.Helper()
	for _, n := range c.nodes {
		eventually(c.t, n.node+" is healthy", 90*time.Second, func() bool { return c.get(n, "/healthz", nil) })
	}
}

// get asks a node's monitoring, and reports whether it answered with success.
func (c *cluster) get(n *node, path string, into any) bool {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://127.0.0.1:"+n.monitoring+path, nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return false
	}
	return into == nil || json.Unmarshal(data, into) == nil
}

// leader returns the node that leads the stream of QoS 1 messages.
func (c *cluster) leader() *node {
	c.t.Helper()
	var name string
	eventually(c.t, "the stream of messages has a leader", time.Minute, func() bool {
		for _, n := range c.nodes {
			var js struct {
				Accounts []struct {
					Streams []struct {
						Name    string `json:"name"`
						Cluster struct {
							Leader string `json:"leader"`
						} `json:"cluster"`
					} `json:"stream_detail"`
				} `json:"account_details"`
			}
			if !c.get(n, "/jsz?accounts=true&streams=true", &js) {
				continue
			}
			for _, a := range js.Accounts {
				for _, s := range a.Streams {
					if s.Name == "$MQTT_msgs" && s.Cluster.Leader != "" {
						name = s.Cluster.Leader
						return true
					}
				}
			}
		}
		return false
	})
	return c.node(name)
}

func (c *cluster) node(name string) *node {
	for _, n := range c.nodes {
		if n.node == name {
			return n
		}
	}
	c.t.Fatalf("no node %q", name)
	return nil
}

// balancer carries connections to one node that answers, as in front of a
// cluster something must.
type balancer struct {
	port  string
	nodes []*node

	mu    sync.Mutex
	used  *node               // that of the newest connection; guarded by mu
	conns map[net.Conn]func() // those that are up, and how to end them; guarded by mu
}

func (c *cluster) balance(first int) *balancer {
	c.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	b := &balancer{conns: map[net.Conn]func(){}, nodes: append(slices.Clone(c.nodes[first:]), c.nodes[:first]...)}
	_, b.port, _ = net.SplitHostPort(ln.Addr().String())
	var wg sync.WaitGroup
	c.t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.carry(in) })
		}
	})
	return b
}

func (b *balancer) carry(in net.Conn) {
	defer in.Close()
	for _, n := range b.nodes {
		out, err := net.DialTimeout("tcp", "127.0.0.1:"+n.mqtt, time.Second)
		if err != nil {
			continue
		}
		b.mu.Lock()
		b.used = n
		b.conns[in] = func() {
			_ = in.Close()
			_ = out.Close()
		}
		b.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		})
		_, _ = io.Copy(in, out)
		_ = in.Close()
		_ = out.Close()
		wg.Wait()
		b.mu.Lock()
		delete(b.conns, in)
		b.mu.Unlock()
		return
	}
}

// cut ends all connections, as a line does.
func (b *balancer) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, end := range b.conns {
		end()
	}
}

func (b *balancer) node() *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

func (c *cluster) options(b *balancer, cn string) mqtt.Options {
	o := mqtt.Options{
		Broker: "ssl://127.0.0.1:" + b.port, ClientID: strings.ReplaceAll(cn, ".", ""), TLS: c.clients.issue(cn, nil),
		KeepAlive: 5 * time.Second, AckTimeout: 10 * time.Second, ConnectTimeout: 20 * time.Second,
	}
	o.TLS.CAFile = c.ca
	return o
}

// follower is a collector that connects again whenever it must.
type follower struct {
	mu      sync.Mutex
	numbers map[number]int    // how often each message came
	topics  map[string]string // the last payload
	heardOf []string          // topics and payloads of state messages
	online  bool
}

func follow(t *testing.T, o mqtt.Options) *follower {
	t.Helper()
	o.PersistentSession, o.InboundDepth, o.MaxPacket = true, 1<<14, 256<<10
	f := &follower{numbers: map[number]int{}, topics: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			conn, err := mqtt.Dial(ctx, o)
			if err != nil {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			if err := conn.Subscribe(ctx, upFilters("+")...); err == nil {
				f.set(true)
				f.take(ctx, conn)
				f.set(false)
			}
			end, stop := context.WithTimeout(context.Background(), time.Second)
			_ = conn.Close(end)
			stop()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

func (f *follower) set(online bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.online = online
}

func (f *follower) take(ctx context.Context, conn *mqtt.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-conn.Lost():
			return
		case p := <-conn.Inbound():
			f.mu.Lock()
			f.topics[p.Topic] = string(p.Payload)
			if strings.HasSuffix(p.Topic, "/state") {
				f.heardOf = append(f.heardOf, p.Topic+" "+string(p.Payload))
			}
			if h, _, err := transport.Decode(p.Payload); err == nil && h.Class != transport.ClassSession {
				f.numbers[number{h.Epoch, h.Class, h.Seq}]++
			}
			f.mu.Unlock()
			p.Ack()
		}
	}
}

func (f *follower) last(topic string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.topics[topic]
}

// heard reports whether a state message with part came at any time.
func (f *follower) heard(topic, part string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.heardOf, func(s string) bool { return strings.HasPrefix(s, topic+" ") && strings.Contains(s, part) })
}

func (f *follower) missing(class transport.Class, n int) (gone []uint64, again int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return missing(f.numbers, class, n)
}

func (f *follower) connected() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.online
}

func TestNATSCluster(t *testing.T) {
	c := startCluster(t)
	const up = "ont/1/" + tenant + "/" + ours + "/"
	front, back := c.balance(0), c.balance(1)
	collector := follow(t, c.options(back, "collector.1"))
	eventually(t, "collector is connected", time.Minute, collector.connected)

	o := c.options(front, ours)
	began := time.Now()
	g, stop := startGateway(t, o, nil)
	eventually(t, "gateway is connected", time.Minute, func() bool { return g.device.Status().Connected })
	t.Logf("session up in %v: three QoS 1 subscriptions of three replicas each", time.Since(began).Round(time.Millisecond))

	t.Run("state and birth, also for who comes later", func(t *testing.T) {
		eventually(t, "birth", 10*time.Second, func() bool { return strings.Contains(collector.last(up+"info"), `"model":"X"`) })
		late := dial(t, c.options(c.balance(2), "T-1"))
		late.subscribe(up+"state", up+"info")
		late.await(up+"state", `"online"`)
		late.await(up+"info", `"model":"X"`)
	})

	t.Run("every kind of topic, and the largest message", func(t *testing.T) {
		for _, kind := range []transport.Kind{
			transport.KindTelemetry, transport.KindBackfill, transport.KindEvent, transport.KindRecord, transport.KindStatus,
		} {
			g.put(transport.ClassDebug, kind, "Order-7_x", body(1))
			topic := up + string(kind) + "/Order-7_x"
			eventually(t, topic, 10*time.Second, func() bool { return collector.last(topic) != "" })
		}
		g.put(transport.ClassRecord, transport.KindRecord, "large", map[string]any{"record": strings.Repeat("r", 127<<10)})
		eventually(t, "large", 10*time.Second, func() bool { return len(collector.last(up+"record/large")) > 127<<10 })
	})

	t.Run("rights", func(t *testing.T) {
		// What may not be read is refused, other than at mosquitto; what may not
		// be sent is acknowledged and dropped, as there.
		technician := dial(t, c.options(front, "T-1"))
		if err := technician.conn.Subscribe(testContext(t), up+"record/+"); err == nil {
			t.Error("a technician may subscribe to records")
		}
		technician = dial(t, c.options(front, "T-1"))
		technician.publish(up+"cmd/job1", false, "{}")
		eventually(t, "command", 10*time.Second, func() bool { return g.heard(transport.KindCommand, "job1") })
		technician.publish(up+"cfg", false, "{}") // acknowledged
		technician.publish(up+"cmd/job2", false, "{}")
		eventually(t, "next command", 10*time.Second, func() bool { return g.heard(transport.KindCommand, "job2") })
		if g.heard(transport.KindConfig, "") {
			t.Error("a technician's cfg arrived")
		}
		for name, o := range map[string]mqtt.Options{
			"unknown user": c.options(front, other), "no certificate": {Broker: o.Broker, ClientID: "x1", TLS: mqtt.TLSOptions{CAFile: c.ca}},
		} {
			if conn, err := mqtt.Dial(testContext(t), o); err == nil {
				_ = conn.Close(testContext(t))
				t.Errorf("%s: connected", name)
			}
		}
	})

	t.Run("will", func(t *testing.T) {
		// Not by taking the session over: there NATS publishes none.
		front.cut()
		eventually(t, "offline", 20*time.Second, func() bool { return collector.heard(up+"state", `"offline"`) })
		eventually(t, "online again", 30*time.Second, func() bool { return strings.Contains(collector.last(up+"state"), `"online"`) })
	})

	// One node after another is killed while messages flow: the leader of the
	// stream, the one the gateway is connected to, the collector's.
	t.Run("conservation", func(t *testing.T) {
		n := 0
		put := func(count int, pause time.Duration) {
			for range count {
				n++
				g.put(transport.ClassEvent, transport.KindEvent, "link", body(n))
				g.put(transport.ClassTelemetry, transport.KindTelemetry, "link", body(n))
				time.Sleep(pause)
			}
		}
		put(200, 2*time.Millisecond)
		for _, victim := range []struct {
			what string
			node func() *node
		}{
			{"the stream's leader", c.leader}, {"the gateway's", front.node}, {"the collector's", back.node},
		} {
			v := victim.node()
			put(100, 2*time.Millisecond)
			v.stop(syscall.SIGKILL)
			began := time.Now()
			put(300, 5*time.Millisecond)
			eventually(t, "what was put is acknowledged by the rest", 2*time.Minute, func() bool { return g.depth() == 0 })
			t.Logf("%s, %s, killed: everything acknowledged by the other two after %v", v.node, victim.what, time.Since(began).Round(10*time.Millisecond))
			v.start()
			c.healthy()
		}
		// All at once, as where a site loses its power; the disks keep theirs.
		for _, v := range c.nodes {
			v.stop(syscall.SIGKILL)
		}
		put(100, time.Millisecond)
		for _, v := range c.nodes {
			v.start()
		}
		c.healthy()
		eventually(t, "queue is empty", 2*time.Minute, func() bool { return g.depth() == 0 })
		for _, class := range []transport.Class{transport.ClassEvent, transport.ClassTelemetry} {
			eventually(t, "all of class "+string(class), 2*time.Minute, func() bool {
				gone, _ := collector.missing(class, n)
				return len(gone) == 0
			})
			_, again := collector.missing(class, n)
			t.Logf("%s: %d of %d messages arrived, %d more than once", class, n, n, again)
		}
		s := g.device.Status()
		t.Logf("gateway: %d connections in %d attempts", s.Connections, s.Attempts)
	})

	// Facts of docs/brokers.md rather than promises of ours.
	t.Run("wills that do not come", func(t *testing.T) {
		stop()
		eventually(t, "goodbye", 20*time.Second, func() bool { return strings.Contains(collector.last(up+"state"), `"offline"`) })
		w := c.balance(2)
		o := c.options(w, ours)
		for what, end := range map[string]func(){
			"taken over":      func() { dial(t, c.options(c.balance(1), ours)) },
			"its node killed": func() { w.node().stop(syscall.SIGKILL) },
		} {
			o.Will = &mqtt.Will{Topic: up + "state", Payload: []byte(what), Retain: true}
			conn, err := mqtt.Dial(testContext(t), o)
			if err != nil {
				t.Fatal(err)
			}
			end()
			<-conn.Lost()
			_ = conn.Close(testContext(t))
			time.Sleep(3 * time.Second)
			t.Logf("%s: will published: %v", what, collector.heard(up+"state", what))
		}
	})
}
