package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"ontagent/agent/control"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
)

const closeTimeout = 3 * time.Second

// gatewayLink talks to a gateway on the LAN, where there may be no broker.
type gatewayLink struct {
	address string
	root    order.PublicKey
	order   order.Order
	out     chan reply
	cancel  context.CancelFunc
	client  *control.Client
	done    chan struct{}
}

// dialGateway connects and makes sure that the operator vouches for the key at
// the other end before anything is said.
func dialGateway(ctx context.Context, address string, root order.PublicKey, o order.Order) (*gatewayLink, error) {
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return nil, cli.Exit(cli.Usage, "--gateway %q is not HOST:PORT", address)
	}
	client, err := control.DialTLS(ctx, address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, cli.Exit(cli.Unreachable, "%w", err)
	}
	l := &gatewayLink{address: address, root: root, order: o, out: make(chan reply, 64), client: client}
	if err := l.recognise(ctx); err != nil {
		_ = client.Close()
		return nil, err
	}
	return l, nil
}

func (l *gatewayLink) recognise(ctx context.Context) error {
	var hello control.Hello
	err := l.client.Call(ctx, control.OpHello, nil, func(kind string, data json.RawMessage) error {
		if kind != control.KindHello {
			return nil
		}
		return json.Unmarshal(data, &hello)
	})
	if err != nil {
		return cli.Exit(cli.Unreachable, "cannot talk to the gateway at %s: %w", l.address, err)
	}
	if hello.Trust == nil || hello.Statement == nil {
		return cli.Exit(cli.Refused, "the gateway at %s has no trust list or device statement: it cannot be told from another", l.address)
	}
	trust, err := order.OpenTrustList(*hello.Trust, []byte(l.root))
	if err != nil {
		return cli.Exit(cli.Refused, "the gateway at %s: %w", l.address, err)
	}
	st, err := order.OpenStatement(*hello.Statement, trust)
	switch {
	case err != nil:
		return cli.Exit(cli.Refused, "the gateway at %s: %w", l.address, err)
	case st.Device != l.order.Device:
		return cli.Exit(cli.Refused, "the gateway at %s is %s, the order is for %s", l.address, st.Device, l.order.Device)
	case st.TLSSPKI != l.client.SPKI():
		return cli.Exit(cli.Refused, "what answers at %s does not hold the key of %s", l.address, st.Device)
	}
	return nil
}

// send submits a request; the answers come back on the same connection, until
// the job has ended or needs another request.
func (l *gatewayLink) send(ctx context.Context, _ string, req order.Request) error {
	l.wait()
	callCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel, l.done = cancel, make(chan struct{})
	go func() {
		defer close(l.done)
		err := l.client.Call(callCtx, control.OpSubmit, req, func(kind string, data json.RawMessage) error {
			return l.receive(callCtx, kind, data)
		})
		if err != nil && callCtx.Err() == nil {
			l.emit(callCtx, reply{err: cli.Exit(cli.Unreachable, "lost the gateway at %s: %w", l.address, err)})
		}
	}()
	return nil
}

func (l *gatewayLink) receive(ctx context.Context, kind string, data json.RawMessage) error {
	switch kind {
	case control.KindStatus:
		var st job.Status
		if err := json.Unmarshal(data, &st); err != nil {
			return fmt.Errorf("cannot read job status: %w", err)
		}
		l.emit(ctx, reply{status: &st})
	case control.KindRecord:
		var env order.Envelope
		if err := json.Unmarshal(data, &env); err != nil {
			return fmt.Errorf("cannot read record: %w", err)
		}
		file, err := record.Marshal(env)
		if err != nil {
			return err
		}
		l.emit(ctx, reply{record: file})
	}
	return nil
}

// wait lets the call under way come to its end by itself: after a CHALLENGE it
// has said all it had to say.
func (l *gatewayLink) wait() {
	if l.done == nil {
		return
	}
	select {
	case <-l.done:
	case <-time.After(closeTimeout):
		l.cancel()
		<-l.done
	}
}

func (l *gatewayLink) emit(ctx context.Context, r reply) {
	select {
	case l.out <- r:
	case <-ctx.Done():
	}
}

func (l *gatewayLink) replies() <-chan reply { return l.out }

func (l *gatewayLink) close() {
	_ = l.client.Close()
	if l.cancel != nil {
		l.cancel()
		<-l.done
	}
}
