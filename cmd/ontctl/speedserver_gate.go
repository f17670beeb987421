package main

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// speedTurnedAway bounds how many connections there may be at once beyond the
// limits, just to be told so.
const speedTurnedAway = 64

// speedGate counts the connections of a server.
type speedGate struct {
	limits speedLimits

	mu         sync.Mutex // guards what follows
	total      int
	byAddress  map[netip.Addr]int
	turnedAway int
}

func newSpeedGate(l speedLimits) *speedGate {
	return &speedGate{limits: l, byAddress: map[netip.Addr]int{}}
}

// enter admits a connection, or admits it only to be turned away (busy), or
// neither. leave is to be called when it has ended.
func (g *speedGate) enter(from netip.Addr) (busy, ok bool, leave func()) {
	from = from.Unmap().WithZone("")
	if len(g.limits.allow) > 0 && !slices.ContainsFunc(g.limits.allow, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return false, false, nil
	}
	if from.Is6() {
		// Whoever has one address there has them all.
		p, _ := from.Prefix(64)
		from = p.Addr()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total < g.limits.connections && g.byAddress[from] < g.limits.perAddress {
		g.total++
		g.byAddress[from]++
		return false, true, sync.OnceFunc(func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.total--
			if g.byAddress[from]--; g.byAddress[from] == 0 {
				delete(g.byAddress, from)
			}
		})
	}
	if g.turnedAway == speedTurnedAway {
		return false, false, nil
	}
	g.turnedAway++
	return true, true, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.turnedAway--
	})
}

// speedListener accepts what its gate lets in.
type speedListener struct {
	net.Listener
	gate *speedGate
	now  func() time.Time
}

// Accept implements net.Listener.
func (l *speedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, isTCP := c.(*net.TCPConn)
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err == nil && isTCP {
			if busy, ok, leave := l.gate.enter(from.Addr()); ok {
				return &speedConn{TCPConn: tcp, busy: busy, since: l.now(), leave: leave}, nil
			}
		}
		if isTCP {
			_ = tcp.SetLinger(0) // nothing of it is to stay here
		}
		_ = c.Close()
	}
}

// speedConn is a connection that has passed the gate. As it is a *net.TCPConn,
// what is sent from a file never comes into this process.
type speedConn struct {
	*net.TCPConn
	busy  bool // it is to be turned away
	since time.Time
	leave func()
}

var _ io.ReaderFrom = (*speedConn)(nil)

// Close implements net.Conn.
func (c *speedConn) Close() error {
	err := c.TCPConn.Close()
	c.leave()
	return err
}

// speedConnKey is where a request's context has its connection.
type speedConnKey struct{}
