package lab

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/miekg/dns"
	mqttserver "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// BrokerURL is where the lab's broker listens.
const BrokerURL = "tcp://" + OperatorAddr + ":1883"

// StartBroker runs an MQTT broker inside this process; stop ends it. It lets
// everyone do everything: who may do what is decided by signatures.
func StartBroker() (stop func(), err error) {
	server := mqttserver.New(&mqttserver.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return nil, fmt.Errorf("cannot configure broker: %w", err)
	}
	tcp := listeners.NewTCP(listeners.Config{ID: "lab", Address: OperatorAddr + ":1883"})
	if err := server.AddListener(tcp); err != nil {
		return nil, fmt.Errorf("cannot start broker: %w", err)
	}
	if err := server.Serve(); err != nil {
		return nil, fmt.Errorf("cannot start broker: %w", err)
	}
	return func() { _ = server.Close() }, nil
}

// SiteName is a name the lab's DNS knows.
const SiteName = "www.lab.test"

// StartDNS runs a name server that knows SiteName and denies everything else.
func StartDNS(ctx context.Context) (stop func(), err error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp", OperatorAddr+":53")
	if err != nil {
		return nil, fmt.Errorf("cannot start DNS: %w", err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(answer)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	return func() {
		_ = server.Shutdown()
		_ = conn.Close()
		<-done
	}, nil
}

func answer(w dns.ResponseWriter, req *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = true
	if len(req.Question) == 1 {
		q := req.Question[0]
		switch {
		case q.Name != SiteName+".":
			m.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
				A:   net.ParseIP(InternetAddr),
			})
		}
	}
	_ = w.WriteMsg(m)
}
