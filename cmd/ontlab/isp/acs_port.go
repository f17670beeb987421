package isp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// acsPort is a TCP port in one of its modes, from opening to closing.
type acsPort struct {
	net.Listener // of which Accept is our own
	mode         acsMode
	server       http.Server
	served       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	held   []net.Conn // those that nothing is said to
}

// openACSPort opens a port in the network namespace of this thread.
func openACSPort(ctx context.Context, address string, mode acsMode, handler http.Handler) (*acsPort, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // its sockets take no filter, and plain TCP is what devices speak
	if mode == acsDrop {
		config.Control = func(_, _ string, socket syscall.RawConn) error { return acsDeaf(socket) }
	}
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	p := &acsPort{Listener: listener, mode: mode, server: http.Server{Handler: handler, ReadTimeout: time.Minute}}
	p.served.Go(func() { _ = p.server.Serve(p) }) // it ends with the listener
	return p, nil
}

// Accept returns the connections that are to be served, and deals with those
// that are not.
func (p *acsPort) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		switch p.mode {
		case acsServe:
			return conn, nil
		case acsReset:
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // so that closing resets it
			}
			_ = conn.Close()
		case acsSilent, acsDrop:
			p.mu.Lock()
			if p.closed {
				_ = conn.Close()
			} else {
				p.held = append(p.held, conn)
			}
			p.mu.Unlock()
		}
	}
}

// close closes the port and all its connections.
func (p *acsPort) close() error {
	err := errors.Join(p.server.Close(), p.Close())
	p.mu.Lock()
	p.closed = true
	for _, conn := range p.held {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.served.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// acsDeaf lets a listening socket drop every packet to it, SYNs as well: a
// filter that accepts no byte. No firewall is needed for that.
func acsDeaf(socket syscall.RawConn) error {
	program, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return fmt.Errorf("cannot assemble filter: %w", err)
	}
	filter := []unix.SockFilter{{Code: program[0].Op, Jt: program[0].Jt, Jf: program[0].Jf, K: program[0].K}}
	var set error
	err = socket.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
	})
	if err = errors.Join(err, set); err != nil {
		return fmt.Errorf("cannot filter packets to socket: %w", err)
	}
	return nil
}
