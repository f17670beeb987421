package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrRunning means that another agent answers on the socket already.
var ErrRunning = errors.New("an agent is running already")

// ListenUnix listens on a socket that only its owner can reach. A stale file
// left by a killed agent is replaced; one that answers is not.
func ListenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // /var/run is for everyone
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot listen on %s: %w", path, ErrRunning)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("cannot listen on %s: it is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot replace stale socket: %w", err)
		}
	}
	// Made for the owner alone: between bind and chmod others could connect.
	// The mask is the process's; whoever else makes a file in this moment gets
	// it for the owner alone, too.
	mask := syscall.Umask(0o077)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot protect %s: %w", path, err)
	}
	return l, nil
}

// ListenTLS listens for technicians on the LAN. Clients recognise the gateway
// by its certificate's key, which the operator's device statement names.
func ListenTLS(ctx context.Context, address string, cert tls.Certificate) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}), nil
}

// Limiter admits a bounded number of connections: a burst, refilled slowly. A
// signature check costs a slow processor tens of milliseconds, and anyone on
// the LAN can ask for one.
type Limiter struct {
	burst  int
	refill time.Duration
	now    func() time.Time

	mu     sync.Mutex
	tokens int
	last   time.Time
}

// NewLimiter admits burst connections at once and one more per refill.
func NewLimiter(burst int, refill time.Duration, now func() time.Time) *Limiter {
	return &Limiter{burst: burst, refill: refill, now: now, tokens: burst, last: now()}
}

// Admit reports whether one more connection is welcome.
func (l *Limiter) Admit(net.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(l.now().Sub(l.last) / l.refill); n > 0 {
		l.tokens = min(l.burst, l.tokens+n)
		l.last = l.last.Add(time.Duration(n) * l.refill)
	}
	if l.tokens == 0 {
		return false
	}
	l.tokens--
	return true
}
