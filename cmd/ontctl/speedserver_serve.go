package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	// speedChunk is what is sent between two looks at the clock.
	speedChunk = 256 << 10
	// A request that moved less in less time was no test, and is not logged.
	speedNotable     = 64 << 10
	speedNotableTime = time.Second
	// speedPathLogged bounds what is logged of a path.
	speedPathLogged = 128
)

// How a request ended.
const (
	speedComplete = "complete"
	speedClosed   = "closed_by_client"
	speedStalled  = "stalled"
	speedTimeUp   = "time_limit"
	speedTooLarge = "too_large"
)

// ServeHTTP implements http.Handler.
func (s *speedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "ontctl/"+version)
	h.Set("Cache-Control", "no-store")
	h.Set("Congestion-Control", s.congestion)
	c := http.NewResponseController(w)
	// The last request's may stand.
	_ = c.SetWriteDeadline(s.now().Add(s.limits.stall))
	if conn, ok := r.Context().Value(speedConnKey{}).(*speedConn); ok {
		if conn.busy {
			h.Set("Retry-After", "10")
			h.Set("Connection", "close")
			http.Error(w, "too many tests are running", http.StatusServiceUnavailable)
			return
		}
		if s.now().Sub(conn.since) > speedLife {
			h.Set("Connection", "close")
		}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.download(w, r, c)
	case http.MethodPost, http.MethodPut:
		s.upload(w, r, c)
	default:
		h.Set("Allow", "GET, HEAD, POST, PUT")
		h.Set("Connection", "close")
		http.Error(w, "GET, HEAD, POST and PUT are served here", http.StatusMethodNotAllowed)
	}
}

// wanted returns how much is asked for: bytes, or seconds of a body whose end
// is the connection's.
func (s *speedServer) wanted(r *http.Request) (bytes int64, lasting time.Duration, err error) {
	q := r.URL.Query()
	if q.Has("bytes") {
		n, err := strconv.ParseInt(q.Get("bytes"), 10, 64)
		if err != nil || n < 0 || n > s.limits.bytes {
			return 0, 0, fmt.Errorf("bytes must be 0 to %d", s.limits.bytes)
		}
		return n, s.limits.time, nil
	}
	// The name that TR-143 has for it.
	if name, ok := strings.CutPrefix(path.Base(r.URL.Path), "dntimebasedmode_"); ok {
		text, ok := strings.CutSuffix(name, ".txt")
		n, err := strconv.ParseUint(text, 10, 16)
		longest := uint64(s.limits.time / time.Second)
		if !ok || err != nil || n < 1 || n > longest {
			return 0, 0, fmt.Errorf("dntimebasedmode_SECONDS.txt must be of 1 to %d seconds", longest)
		}
		return -1, time.Duration(n) * time.Second, nil
	}
	return s.limits.bytes, s.limits.time, nil
}

func (s *speedServer) download(w http.ResponseWriter, r *http.Request, c *http.ResponseController) {
	begin := s.now()
	left, lasting, err := s.wanted(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if left >= 0 {
		h.Set("Content-Length", strconv.FormatInt(left, 10))
	} else {
		h.Set("Transfer-Encoding", "identity") //nolint:gosec // it is one or the other; this says to net/http: no chunks
	}
	if r.Method == http.MethodHead {
		return
	}
	body, err := s.openBody()
	if err != nil {
		h.Del("Content-Length")
		h.Del("Transfer-Encoding")
		http.Error(w, "out of descriptors", http.StatusServiceUnavailable)
		s.log.Error("cannot read what is sent", "error", err)
		return
	}
	defer body.Close() //nolint:errcheck // it was only read
	end := begin.Add(lasting)
	var sent int64
	outcome := speedComplete
	for left != 0 {
		now := s.now()
		if !now.Before(end) {
			if left > 0 {
				outcome = speedTimeUp
			}
			break
		}
		deadline := now.Add(s.limits.stall)
		timeUp := end.Before(deadline) && left > 0
		if timeUp {
			deadline = end
		}
		_ = c.SetWriteDeadline(deadline)
		chunk := int64(speedChunk)
		if left > 0 {
			chunk = min(chunk, left)
		}
		if sent%speedBody == 0 {
			if _, err := body.Seek(0, io.SeekStart); err != nil {
				s.log.Error("cannot read what is sent", "error", err)
				break
			}
		}
		n, err := io.CopyN(w, body, chunk)
		sent += n
		if left > 0 {
			left -= n
		}
		if err != nil {
			outcome = speedEnd(err, timeUp)
			break
		}
	}
	s.tell(r, "down", sent, begin, outcome)
}

// speedReceived is the answer to an upload.
type speedReceived struct {
	ReceivedBytes int64   `json:"received_bytes"` // of the body
	DurationS     float64 `json:"duration_s"`     // from the head to the body's end
	End           string  `json:"end"`
}

func (s *speedServer) upload(w http.ResponseWriter, r *http.Request, c *http.ResponseController) {
	begin := s.now()
	end := begin.Add(s.limits.time)
	got, outcome := int64(0), speedComplete
	if r.ContentLength > s.limits.bytes {
		outcome = speedTooLarge
	}
	buf, _ := s.buffers.Get().(*[64 << 10]byte)
	defer s.buffers.Put(buf)
	for outcome == speedComplete {
		now := s.now()
		deadline := now.Add(s.limits.stall)
		timeUp := end.Before(deadline)
		if timeUp {
			deadline = end
		}
		_ = c.SetReadDeadline(deadline)
		n, err := r.Body.Read(buf[:])
		got += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			s.answer(w, c, http.StatusOK, got, begin, outcome)
			s.tell(r, "up", got, begin, outcome)
			return
		case err != nil:
			outcome = speedEnd(err, timeUp)
		case got > s.limits.bytes:
			outcome = speedTooLarge
		case !now.Before(end):
			outcome = speedTimeUp
		}
	}
	// What still comes is not taken: the connection ends with the answer.
	w.Header().Set("Connection", "close")
	status := http.StatusRequestTimeout
	switch outcome {
	case speedTooLarge:
		status = http.StatusRequestEntityTooLarge
	case speedClosed:
		status = http.StatusBadRequest
	}
	s.answer(w, c, status, got, begin, outcome)
	s.tell(r, "up", got, begin, outcome)
}

func (s *speedServer) answer(w http.ResponseWriter, c *http.ResponseController, status int, got int64, begin time.Time, outcome string) {
	w.Header().Set("Content-Type", "application/json")
	_ = c.SetWriteDeadline(s.now().Add(s.limits.stall))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(speedReceived{got, s.now().Sub(begin).Seconds(), outcome}) // whoever asked may be gone
}

// speedEnd names why a request ended early; timeUp says what a deadline that
// passed was for.
func speedEnd(err error, timeUp bool) string {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return speedClosed
	case timeUp:
		return speedTimeUp
	}
	return speedStalled
}

// tell logs a test: who, what and how much, and not what else is in the URL.
func (s *speedServer) tell(r *http.Request, direction string, bytes int64, begin time.Time, outcome string) {
	took := s.now().Sub(begin)
	if bytes < speedNotable && took < speedNotableTime {
		return
	}
	client, _ := netip.ParseAddrPort(r.RemoteAddr)
	s.log.Info("test", "direction", direction, "client", client.Addr().Unmap().String(), "method", r.Method,
		"path", r.URL.Path[:min(len(r.URL.Path), speedPathLogged)],
		"bytes", bytes, "duration_s", float64(took.Milliseconds())/1000,
		"mbps", math.Round(float64(bytes)*8/1e4/max(took.Seconds(), 0.001))/100, "end", outcome)
}
