package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"ontagent/agent"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// brokerFlags are how a command reaches the broker.
type brokerFlags struct {
	url, username, passwordFile, ca, cert, key string
}

func (b *brokerFlags) register(f *flag.FlagSet) {
	f.StringVar(&b.url, "broker", "", "broker `URL`: tcp://host:1883 or ssl://host:8883")
	f.StringVar(&b.username, "username", "", "user `NAME` at the broker")
	f.StringVar(&b.passwordFile, "password-file", "", "`FILE` with the password, so that it stands in no command line")
	f.StringVar(&b.ca, "ca", "", "CA `FILE` (PEM) that the broker's certificate must come from")
	f.StringVar(&b.cert, "cert", "", "client certificate `FILE` (PEM)")
	f.StringVar(&b.key, "cert-key", "", "its key `FILE` (PEM)")
}

// dial connects under a name of its own, without a session.
func (b *brokerFlags) dial(ctx context.Context) (*mqtt.Conn, error) {
	var suffix [6]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return nil, fmt.Errorf("cannot make a client id: %w", err)
	}
	return b.dialAs(ctx, "ontctl"+hex.EncodeToString(suffix[:]), false)
}

func (b *brokerFlags) dialAs(ctx context.Context, clientID string, persistent bool) (*mqtt.Conn, error) {
	o := mqtt.Options{
		Broker: b.url, ClientID: clientID, PersistentSession: persistent, Username: b.username,
		TLS:          mqtt.TLSOptions{CAFile: b.ca, CertFile: b.cert, KeyFile: b.key},
		MaxPacket:    transport.MaxPayload + 1024,
		InboundDepth: 4096, // a fleet's burst when the streams are opened
	}
	if b.passwordFile != "" {
		data, err := os.ReadFile(b.passwordFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read password: %w", err)
		}
		o.Password = strings.TrimRight(string(data), "\r\n")
	}
	if err := o.Check(); err != nil {
		return nil, cli.Exit(cli.Usage, "%w", err)
	}
	conn, err := mqtt.Dial(ctx, o)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, mqtt.ErrRefusedCredentials), errors.Is(err, mqtt.ErrNotAuthorized):
		return nil, cli.Exit(cli.Refused, "cannot use broker %s: %w", b.url, err)
	case err != nil:
		return nil, cli.Exit(cli.Unreachable, "cannot reach broker %s: %w", b.url, err)
	}
	return conn, nil
}

// reply is what a gateway says about one job.
type reply struct {
	status  *job.Status
	record  []byte // a signed record, as it is filed
	pending bool   // the gateway came (back) and asks for what waits
	err     error  // nothing more will come
}

// link carries one job's conversation.
type link interface {
	// send delivers a request; it may be called again with another one.
	send(ctx context.Context, id string, req order.Request) error
	replies() <-chan reply
	close()
}

// brokerLink talks to a gateway through the broker.
type brokerLink struct {
	conn           *mqtt.Conn
	tenant, device string
	order          string
	out            chan reply
	stop           context.CancelFunc
	done           chan struct{}
}

func dialBroker(ctx context.Context, b *brokerFlags, o order.Order, id string) (*brokerLink, error) {
	conn, err := b.dial(ctx)
	if err != nil {
		return nil, err
	}
	var filters []string
	type part struct {
		kind transport.Kind
		name string
	}
	parts := []part{{transport.KindStatus, id}, {transport.KindPending, ""}}
	if o.Order != "" { // a NOC's look makes no record
		parts = append(parts, part{transport.KindRecord, o.Order})
	}
	for _, part := range parts {
		filter, err := transport.Filter(o.Tenant, o.Device, part.kind, part.name)
		if err == nil {
			filters = append(filters, filter)
		} else {
			_ = conn.Close(ctx)
			return nil, cli.Exit(cli.Usage, "%w", err)
		}
	}
	if err := conn.Subscribe(ctx, filters...); err != nil {
		_ = conn.Close(ctx)
		return nil, cli.Exit(cli.Refused, "cannot follow the job at the broker: %w", err)
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &brokerLink{
		conn: conn, tenant: o.Tenant, device: o.Device, order: o.Order,
		out: make(chan reply, 64), stop: stop, done: make(chan struct{}),
	}
	go func() {
		defer close(l.done)
		l.receive(runCtx)
	}()
	return l, nil
}

func (l *brokerLink) send(ctx context.Context, id string, req order.Request) error {
	topic, err := transport.Topic(l.tenant, l.device, transport.KindCommand, id)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("cannot encode request: %w", err)
	}
	if err := l.conn.Publish(ctx, topic, 1, false, payload); err != nil {
		return cli.Exit(cli.Unreachable, "cannot deliver the command to the broker: %w", err)
	}
	return nil
}

func (l *brokerLink) replies() <-chan reply { return l.out }

func (l *brokerLink) receive(ctx context.Context) {
	seen := map[transport.Header]bool{} // the broker may deliver twice
	emit := func(r reply) {
		select {
		case l.out <- r:
		case <-ctx.Done():
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.conn.Lost():
			emit(reply{err: cli.Exit(cli.Unreachable, "lost the broker: %w", l.conn.Err())})
			return
		case p := <-l.conn.Inbound():
			r, header, ok := l.decode(p)
			id := transport.Header{Device: header.Device, Epoch: header.Epoch, Class: header.Class, Seq: header.Seq}
			if ok && (r.pending || !seen[id]) {
				seen[id] = true
				emit(r)
			}
		}
	}
}

// decode makes sense of one message; what makes none is not for us to report:
// anyone allowed to publish on the topic could have sent it.
func (l *brokerLink) decode(p mqtt.Packet) (reply, transport.Header, bool) {
	addr, err := transport.ParseTopic(p.Topic)
	if err != nil {
		return reply{}, transport.Header{}, false
	}
	header, body, err := transport.Decode(p.Payload)
	if err != nil || header.Device != l.device {
		return reply{}, transport.Header{}, false
	}
	switch addr.Kind {
	case transport.KindPending:
		return reply{pending: true}, header, true
	case transport.KindStatus:
		var st job.Status
		if json.Unmarshal(body, &st) != nil || st.ID != addr.Name {
			return reply{}, header, false
		}
		return reply{status: &st}, header, true
	case transport.KindRecord:
		var m agent.RecordMessage
		if json.Unmarshal(body, &m) != nil || m.Order != l.order {
			return reply{}, header, false
		}
		data, err := record.Marshal(m.Record)
		return reply{record: data}, header, err == nil
	default:
		return reply{}, header, false
	}
}

func (l *brokerLink) close() {
	l.stop()
	<-l.done
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = l.conn.Close(ctx)
}
