// Package control lets people on the spot talk to the running agent: local
// verbs over a unix socket, and a technician's ontctl over TLS on the LAN when
// the line is down.
//
// Both speak lines of JSON. A client sends one request per line; the server
// answers with any number of messages and an end. Which operations a listener
// offers is decided by whoever builds its Server: the LAN gets only those that
// carry signed envelopes.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Limits of the protocol.
const (
	maxLine      = 160 << 10 // a request of 64 KiB in base64, or a record, and its frame
	patience     = 30 * time.Second
	writeTimeout = 10 * time.Second
)

type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

// message is one line from the server. The last one of an answer has End set.
type message struct {
	Kind  string          `json:"kind,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
	End   bool            `json:"end,omitempty"`
	Error string          `json:"error,omitempty"` // with End: what went wrong
}

// Send sends one message of an answer.
type Send func(kind string, data any) error

// Op carries one operation out.
type Op func(ctx context.Context, args json.RawMessage, send Send) error

// Server answers requests on any number of listeners.
type Server struct {
	Ops map[string]Op
	// MaxConns bounds connections at a time, per listener.
	MaxConns int
	// MaxRequests bounds the requests of one connection; 0 means no bound.
	MaxRequests int
	// Patience is how long a client may take for its request, or for a TLS
	// handshake; 0 means 30 s.
	Patience time.Duration
	// Admit is asked before a connection is served; nil admits everyone.
	Admit func(remote net.Addr) bool
	Log   *slog.Logger
}

// Serve answers on l until ctx ends, then closes l and waits for what is under
// way.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close() //nolint:errcheck // closed already when ctx ended
	slots := make(chan struct{}, s.MaxConns)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("cannot accept on %s: %w", l.Addr(), err)
		}
		if s.Admit != nil && !s.Admit(conn.RemoteAddr()) {
			_ = conn.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close() // full: a client tries again
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			defer conn.Close() //nolint:errcheck // nothing is left to lose
			unblock := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
			defer unblock()
			s.converse(ctx, conn)
		})
	}
}

func (s *Server) converse(ctx context.Context, conn net.Conn) {
	wait := s.Patience
	if wait == 0 {
		wait = patience
	}
	lines := bufio.NewReaderSize(io.LimitReader(conn, 64*maxLine), 4096)
	for n := 0; ctx.Err() == nil && (s.MaxRequests == 0 || n < s.MaxRequests); n++ {
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		line, err := readLine(lines)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.Log.Debug("control connection ended", "error", err)
			}
			return
		}
		if err := s.answer(ctx, conn, line); err != nil {
			return
		}
	}
}

// answer runs one request; an error means that the connection is of no use.
func (s *Server) answer(ctx context.Context, conn net.Conn, line []byte) error {
	send := func(m message) error {
		data, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("cannot encode answer: %w", err)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err = conn.Write(append(data, '\n'))
		return err
	}
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return send(message{End: true, Error: "malformed request"})
	}
	op, known := s.Ops[req.Op]
	if !known {
		return send(message{End: true, Error: fmt.Sprintf("unknown operation %q", req.Op)})
	}
	err := op(ctx, req.Args, func(kind string, data any) error {
		raw, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("cannot encode answer: %w", err)
		}
		return send(message{Kind: kind, Data: raw})
	})
	end := message{End: true}
	if err != nil {
		end.Error = err.Error()
	}
	return send(end)
}

// readLine reads up to a line end, refusing more than maxLine bytes.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("line is longer than %d bytes", maxLine)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
