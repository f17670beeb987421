package play

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"ontagent/cmd/ontlab/scenario"
)

// controlName is the socket in the lab's directory by which faults are asked
// for.
const controlName = "control.sock"

// request is a line to the lab; the answer is a line too.
type request struct {
	Fault  string          `json:"fault,omitempty"`
	Clear  string          `json:"clear,omitempty"`
	Params scenario.Params `json:"params"`
}

type answer struct {
	Error  string   `json:"error,omitempty"`
	Active []string `json:"active"`
}

// Serve lets faults come and go as they are asked for, until ctx ends.
func (l *Lab) Serve(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "unix", filepath.Join(l.o.Dir, controlName))
	if err != nil {
		return fmt.Errorf("cannot be asked for faults: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot be asked for faults: %w", err)
		}
		// One after the other: what a fault does to the lab is not for two at
		// once.
		l.answer(ctx, conn)
	}
}

func (l *Lab) answer(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }() // the answer is given or nobody listens
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	var r request
	if err := json.NewDecoder(io.LimitReader(conn, 64<<10)).Decode(&r); err != nil {
		return
	}
	var err error
	switch {
	case r.Fault != "":
		err = l.Fault(ctx, r.Fault, r.Params)
	case r.Clear != "":
		err = l.Clear(ctx, r.Clear)
	}
	a := answer{Active: l.Active()}
	if err != nil {
		a.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(a)
}

// Ask asks the lab whose files are in dir for a moment of a timeline, or, if
// the moment is empty, for nothing. It returns the faults that are there then.
func Ask(ctx context.Context, dir string, m scenario.Moment) ([]string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(dir, controlName))
	if err != nil {
		return nil, fmt.Errorf("cannot ask the lab: %w", err)
	}
	defer func() { _ = conn.Close() }() // all was said
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(request{Fault: m.Fault, Clear: m.Clear, Params: m.Params}); err != nil {
		return nil, fmt.Errorf("cannot ask the lab: %w", err)
	}
	var a answer
	if err := json.NewDecoder(bufio.NewReader(conn)).Decode(&a); err != nil {
		return nil, fmt.Errorf("cannot read the lab's answer: %w", err)
	}
	if a.Error != "" {
		return a.Active, errors.New(a.Error)
	}
	return a.Active, nil
}
