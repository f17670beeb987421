package throughput

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pair is a TCP connection's two ends.
func pair(t *testing.T) (near *stream, far *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err = dialer{}.dial(t.Context(), addrPort(ln.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	if far, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.abort(); far.Close() })
	return near, far
}

// counts returns what a flow has moved by either way of counting, of one moment;
// 0 where the kernel has no such count.
func counts(t *testing.T, f *flow) (info, queue uint64) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.raw.Control(func(fd uintptr) {
		for _, byInfo := range []bool{true, false} {
			g := &flow{stream: f.stream, down: f.down, byInfo: byInfo, moved: f.moved}
			var r reading
			err := g.readFrom(fd, &r)
			switch {
			case !byInfo && err == nil:
				queue = r.bytes
			case f.byInfo && err == nil:
				info = r.bytes
			case f.byInfo || !byInfo:
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
	return info, queue
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func TestReceivedBytesAreCountedAlikeByInfoAndQueue(t *testing.T) {
	near, far := pair(t)
	near.early = 7
	if _, err := far.Write(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(near.conn, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	p, err := startPump([]*stream{near}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	f := p.flows[0]
	total := uint64(7)
	// More and less than what wakes the reader: both are counted.
	for _, n := range []int{1, 1000, 3 << 20, 100} {
		if _, err := far.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		total += uint64(n)
		eventually(t, "all has come", func() bool { _, q := counts(t, f); return q == total })
		if info, queue := counts(t, f); queue != total || f.byInfo && info != total {
			t.Errorf("by info %d, by queue %d of %d", info, queue, total)
		}
	}
	if _, begun := f.count(); begun.IsZero() {
		t.Error("it has begun at no time")
	}
	far.Close()
	select {
	case err := <-p.failed:
		if _, ok := errors.AsType[shortError](err); !ok || !strings.Contains(err.Error(), "after 3146836 bytes") {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("an end that comes with less than wakes the reader goes unseen")
	}
}

func TestSentBytesAreCountedAlikeByInfoAndQueue(t *testing.T) {
	for name, file := range map[string]bool{"sendfile": true, "write": false} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			if _, err := near.conn.Write([]byte("request")); err != nil {
				t.Fatal(err)
			}
			near.limit = 5 << 20
			heads := 0
			near.next = func() ([]byte, uint64) { heads++; return []byte("head"), 1 << 20 }
			s, err := newSupply()
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if !file {
				s.close()
				s = &supply{buf: make([]byte, writeSize)}
			}
			b := newBudget(8 << 20)
			p, err := startPump([]*stream{near}, s, b)
			if err != nil {
				t.Fatal(err)
			}
			defer p.stop()
			f := p.flows[0]
			received := make(chan int64)
			go func() {
				n, _ := io.Copy(io.Discard, far)
				received <- n
			}()
			if err := <-p.failed; err != errBudget { //nolint:errorlint // nothing else is meant
				t.Errorf("ended by %v", err)
			}
			p.stop()
			_ = far.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			got := <-received
			// The request was written before, and may have been acknowledged then.
			const want = 8 << 20
			eventually(t, "all is acknowledged", func() bool { _, q := counts(t, f); return q >= want })
			info, queue := counts(t, f)
			if got != want+7 || queue < want || queue > want+7 {
				t.Errorf("%d received, %d acknowledged by the queue", got, queue)
			}
			// TCP's SYN counts as one.
			if f.byInfo && info != uint64(got)+1 {
				t.Errorf("%d received, %d acknowledged", got, info)
			}
			if heads != 3 {
				t.Errorf("%d more requests", heads)
			}
		})
	}
}

func TestSupplyIsNotCompressible(t *testing.T) {
	s, err := newSupply()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	near, far := pair(t)
	src, err := s.source()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer near.conn.CloseWrite()
		for left := uint64(supplySize + 1000); left > 0; {
			var n int
			err := near.raw.Write(func(fd uintptr) bool {
				var err error
				n, err = src.send(fd, left)
				return err == nil
			})
			if err != nil {
				return
			}
			left -= uint64(n)
		}
	}()
	b, err := io.ReadAll(far)
	if err != nil || len(b) != supplySize+1000 {
		t.Fatal(len(b), err)
	}
	var seen [256]int
	for _, c := range b[:supplySize] {
		seen[c]++
	}
	for c, n := range seen {
		if n < supplySize/256*3/4 || n > supplySize/256*5/4 {
			t.Errorf("byte %#x comes %d times", c, n)
		}
	}
	if string(b[:1000]) != string(b[supplySize:]) {
		t.Error("it does not begin again")
	}
}
