package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// SpeedURL is what the lab's speed-test server sends, and where it takes what
// is sent.
const SpeedURL = "http://" + InternetAddr + ":8080/speed"

// StartSpeedServer runs a web server that sends and takes bytes at these rates
// in all, in Mbit/s: the cables of the lab have no rate of their own. stop ends
// it.
func StartSpeedServer(ctx context.Context, downMbps, upMbps float64) (stop func(), err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", InternetAddr+":8080")
	if err != nil {
		return nil, fmt.Errorf("cannot start the speed-test server: %w", err)
	}
	down, up := &pace{mbps: downMbps}, &pace{mbps: upMbps}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 64<<10)
		if r.Method == http.MethodPost {
			for n, err := 0, error(nil); err == nil && up.wait(r.Context(), n); {
				n, err = r.Body.Read(buf)
			}
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", "1000000000000") // longer than any test
		if r.Method == http.MethodHead {
			return
		}
		for n, err := 0, error(nil); err == nil && down.wait(r.Context(), n); {
			n, err = w.Write(buf)
		}
	})}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) }) // it ends with the listener
	return func() {
		_ = server.Close()
		served.Wait()
	}, nil
}

// pace keeps all who wait for it to a rate together.
type pace struct {
	mbps float64

	mu   sync.Mutex
	free time.Time // when what was let through is gone; guarded by mu
}

// wait returns when n bytes more may have been let through, or false if ctx
// ended before.
func (p *pace) wait(ctx context.Context, n int) bool {
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) * 8 * 1000 / p.mbps))
	timer := time.NewTimer(p.free.Sub(now))
	p.mu.Unlock()
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
