package fleet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"ontagent/cmd/ontlab/fleet"
)

// peerEnv names the store that a process of its own is to measure.
const peerEnv = "ONTLAB_PEER_STORE"

const nothingMeasured = "that measures nothing"

// TestReliabilityLinkKillPeer does to paho.mqtt.golang, with its own
// reconnecting and its own stores, what TestReliabilityLinkKill does to ours:
// a message is deleted once its token reports success. Each store is measured
// by a process of its own, because the library ends it where a file is not
// where it expects it.
func TestReliabilityLinkKillPeer(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: this measures another library")
	}
	for _, store := range []string{"MemoryStore", "FileStore"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPeerStore$", "-test.v")
		cmd.Env = append(os.Environ(), peerEnv+"="+store)
		out, err := cmd.CombinedOutput()
		_, line, measured := strings.Cut(string(out), "reliability: ")
		line, _, _ = strings.Cut(line, "\n")
		_, crash, crashed := strings.Cut(string(out), "panic: ")
		crash, _, _ = strings.Cut(crash, "\n")
		races := strings.Count(string(out), "WARNING: DATA RACE")
		switch {
		case err == nil && measured:
			t.Logf("reliability: %s", line)
		case measured && races > 0 && !strings.Contains(string(out), nothingMeasured):
			// The race detector fails that process for what it saw in the library.
			t.Logf("reliability: %s; data races seen in the library: %d | peer", strings.TrimSuffix(line, " | peer"), races)
		case crashed:
			t.Logf("reliability: link-kill | paho AutoReconnect with %s | 1 | the library panicked: %s | peer", store, noPath(crash))
		default:
			t.Errorf("cannot measure paho with %s: %v\n%s", store, err, out)
		}
	}
}

// noPath leaves the directories of this run out of a text.
func noPath(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if strings.HasPrefix(w, "/") {
			words[i] = filepath.Base(strings.TrimSuffix(w, ":"))
		}
	}
	return strings.Join(words, " ")
}

func TestPeerStore(t *testing.T) {
	kills := 200
	if os.Getenv("LONG") == "1" {
		kills = 1000
	}
	p := &peerRun{t: t, want: kills, name: os.Getenv(peerEnv)}
	switch p.name {
	case "MemoryStore":
		p.store = func(string) paho.Store { return paho.NewMemoryStore() }
	case "FileStore":
		p.store = func(dir string) paho.Store { return paho.NewFileStore(dir) }
	default:
		t.Skip("TestReliabilityLinkKillPeer runs it")
	}
	p.broker = newBroker(t, nil)
	p.run()
	t.Logf("reliability: link-kill | paho AutoReconnect with %s | %d | lost %d of %d messages reported as published (%d restarts of the client) | peer",
		p.name, p.kills.Load(), p.lost, p.deleted, p.restarts)
}

// peerRun is some clients of paho on links that are killed.
type peerRun struct {
	t      *testing.T
	broker *broker
	want   int
	name   string
	store  func(dir string) paho.Store
	kills  atomic.Int64

	mu       sync.Mutex
	done     map[string]bool // of the messages put: whether their token reported success; guarded by mu
	got      map[string]bool // what the subscriber has; guarded by mu
	restarts int             // guarded by mu
	lost     int
	deleted  int
}

const (
	peerClients = 8
	peerWindow  = 16
)

func (p *peerRun) run() {
	t := p.t
	t.Helper()
	p.done, p.got = map[string]bool{}, map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	var relays sync.WaitGroup
	defer relays.Wait()
	defer cancel()

	topic := "peer/" + p.name
	subscriber := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + p.broker.addr).SetClientID("peer-subscriber").SetOrderMatters(true))
	if token := subscriber.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer subscriber.Disconnect(100)
	token := subscriber.Subscribe(topic, 1, func(_ paho.Client, m paho.Message) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got[string(m.Payload())] = true
	})
	if token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}

	var clients sync.WaitGroup
	var last []*paho.ClientOptions
	for i := range peerClients {
		random := rand.New(rand.NewPCG(uint64(i), 4))
		relay, err := fleet.NewRelay(ctx, fleet.RelayOptions{
			Broker: p.broker.addr,
			Plan: func(int) fleet.Cut {
				if p.kills.Load() >= int64(p.want) {
					return fleet.Cut{}
				}
				return fleet.Cut{
					Packet: 1 + random.IntN(60), Down: random.IntN(2) == 0, Where: fleet.Where(random.IntN(3)), Reset: random.IntN(2) == 0,
				}
			},
			Made: func(fleet.Cut, time.Time) { p.kills.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		relays.Go(func() { _ = relay.Serve(ctx) })
		dir := t.TempDir()
		clients.Go(func() { p.client(i, relay.Addr(), topic, dir) })
		last = append(last, p.options(i, relay.Addr()).SetStore(p.store(dir)))
	}
	clients.Wait()
	// After the last restart what the store kept goes again, undisturbed.
	for _, o := range last {
		client := paho.NewClient(o)
		client.Connect()
		defer client.Disconnect(0)
	}
	// What is under way arrives, if it ever does.
	for quiet, before := 0, -1; quiet < 20; time.Sleep(50 * time.Millisecond) {
		p.mu.Lock()
		now := len(p.got)
		p.mu.Unlock()
		if quiet++; now != before {
			quiet, before = 0, now
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, done := range p.done {
		if done {
			p.deleted++
			if !p.got[id] {
				p.lost++
			}
		}
	}
	if p.deleted == 0 || p.kills.Load() < int64(p.want) {
		t.Errorf("paho with %s: %d messages, %d kills: %s", p.name, p.deleted, p.kills.Load(), nothingMeasured)
	}
}

// options are those with which paho promises to lose nothing.
func (p *peerRun) options(i int, addr string) *paho.ClientOptions {
	return paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("peer" + strconv.Itoa(i)).
		SetAutoReconnect(true).SetMaxReconnectInterval(killCap).SetConnectRetry(true).SetConnectRetryInterval(killCap).
		SetCleanSession(false).SetResumeSubs(false).SetWriteTimeout(5 * time.Second).SetProtocolVersion(4)
}

// client publishes, a window at a time, until there were enough kills. Every
// dozen windows its process ends and starts again: the store stays, if it can.
func (p *peerRun) client(i int, addr, topic, dir string) {
	limit := time.Now().Add(time.Duration(p.want) * 200 * time.Millisecond)
	next := 0
	var waiting []string // not reported as published
	for p.kills.Load() < int64(p.want) && time.Now().Before(limit) {
		client := paho.NewClient(p.options(i, addr).SetStore(p.store(dir)))
		connect := client.Connect()
		if !connect.WaitTimeout(10 * time.Second) {
			p.t.Logf("paho with %s: no connection within 10 s", p.name)
		}
		for range 12 {
			for len(waiting) < peerWindow {
				waiting = append(waiting, fmt.Sprintf("%d-%d", i, next))
				next++
			}
			waiting = p.publish(client, topic, waiting)
			if p.kills.Load() >= int64(p.want) {
				break
			}
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
		client.Disconnect(0)
	}
}

// publish publishes messages and returns those of which success was not
// reported.
func (p *peerRun) publish(client paho.Client, topic string, messages []string) []string {
	tokens := make([]paho.Token, len(messages))
	for i, m := range messages {
		tokens[i] = client.Publish(topic, 1, false, m)
	}
	var again []string
	for i, m := range messages {
		ok := tokens[i].WaitTimeout(2*time.Second) && tokens[i].Error() == nil
		if !ok {
			again = append(again, m)
		}
		p.mu.Lock()
		p.done[m] = ok
		p.mu.Unlock()
	}
	return again
}
