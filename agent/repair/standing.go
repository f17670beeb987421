package repair

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

const standingFile = "standing.json"

// Standing keeps the order and the command under which the gateway may heal
// itself: one at a time, the last one that was given. What is kept proves
// nothing by being kept; the authority judges it anew each time. It is safe for
// concurrent use.
type Standing struct {
	fs   durable.FS
	path string

	mu   sync.Mutex
	kept *order.Request // nil: there is none
}

// OpenStanding reads what was kept in dir, which exists. One that is damaged is
// an error, beside a Standing that holds none.
func OpenStanding(fsys durable.FS, dir string) (*Standing, error) {
	s := &Standing{fs: fsys, path: filepath.Join(dir, standingFile)}
	data, err := durable.ReadFile(fsys, "standing.read", s.path, order.MaxRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var req order.Request
	if err == nil {
		req, err = order.ParseRequest(data)
	}
	if err != nil {
		return s, fmt.Errorf("cannot read the standing order: %w", err)
	}
	s.kept = &req
	return s, nil
}

// Keep puts a granted request into the place of the one before, on flash. Only
// order and command are kept: what else came with it was of the moment.
func (s *Standing) Keep(req order.Request) error {
	req = order.Request{V: req.V, Order: req.Order, Command: req.Command}
	data, err := json.Marshal(req)
	if err == nil && len(data) > order.MaxRequest {
		err = order.ErrTooLarge
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = durable.WriteFile(s.fs, "standing.write", s.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the standing order: %w", err)
	}
	s.kept = &req
	return nil
}

// Request returns what is kept.
func (s *Standing) Request() (order.Request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		return order.Request{}, false
	}
	return *s.kept, true
}

// Drop forgets what is kept, if it still is that command.
func (s *Standing) Drop(req order.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil || req.Command == nil || order.Digest(*s.kept.Command) != order.Digest(*req.Command) {
		return nil
	}
	s.kept = nil
	return durable.Remove(s.fs, "standing.remove", s.path)
}
