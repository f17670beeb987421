//nolint:thelper // what takes a *testing.T here are parts of one test, not helpers
package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"testing"

	"ontagent/agent/control"
	"ontagent/agent/job"
	"ontagent/cmd/ontlab/lab"
	"ontagent/transport"
)

// testVisitOverLAN: the broker is gone, the technician has the customer's LAN.
func testVisitOverLAN(t *testing.T, s *site) {
	const gateway = lab.LANAddr + ":7443"
	must(t, s.Order(t.Context(), "WO-lan", "--type", "repair", "--require", lab.BuiltRungs(), "--sn", device, "--mac", lab.WANMAC,
		"--lan-port", lab.LANInterface, "--threshold", "cpu.max=2,memory.max=2"))
	accept := func(root, at string) []string {
		return []string{
			"accept", "--order", s.Path("WO-lan.signed"), "--key", s.Path("technician.key"), "--time-key", s.Path("time.key"),
			"--root", s.Path(root), "--gateway", at, "--record", s.Path("lan.record"), "--json",
		}
	}
	s.refusedOverLAN(t, gateway, accept)

	must(t, s.broker.Stop())
	eventually(t, "loss noticed", func() bool { return !s.agentStatus(t).MQTT.Connected })
	s.run(t, 5, s.Ctl, "accept", "--order", s.Path("WO-lan.signed"), "--key", s.Path("technician.key"), "--broker", lab.BrokerURL)
	out := s.run(t, 0, s.Ctl, accept("root.pub", gateway)...)
	var last job.Status
	for line := range strings.Lines(out) {
		must(t, json.Unmarshal([]byte(line), &last))
	}
	if last.State != job.Succeeded || last.Verdict != "pass" {
		t.Errorf("the last status is %+v", last)
	}
	s.run(t, 0, s.Ctl, "record", "verify", "--root", s.Path("root.pub"), s.Path("visit.record"), s.Path("lan.record"))

	// What came over the LAN goes to the broker as well, when there is one.
	from := s.bringBroker(t)
	st, _ := s.status(t, last.ID, from, is(job.Succeeded))
	if st.RecordSHA != last.RecordSHA {
		t.Errorf("the broker has %+v, the LAN had %+v", st, last)
	}
	m, _, err := s.ear.Wait(bounded(t), from, func(m lab.Message) bool { return m.Kind == transport.KindRecord && m.Name == "WO-lan" })
	must(t, err)
	var body struct{ Record json.RawMessage }
	must(t, json.Unmarshal(m.Body, &body))
	must(t, os.WriteFile(s.Path("spooled.record"), body.Record, 0o600))
	s.run(t, 0, s.Ctl, "record", "verify", "--root", s.Path("root.pub"), s.Path("spooled.record"))
	s.settled(t)
}

// refusedOverLAN: ontctl gives its order to nobody but the gateway it is for,
// and the gateway takes nothing else there than orders.
func (s *site) refusedOverLAN(t *testing.T, gateway string, accept func(root, at string) []string) {
	t.Helper()
	client, err := control.DialTLS(t.Context(), gateway)
	must(t, err)
	defer client.Close()
	var hello json.RawMessage
	must(t, client.Call(bounded(t), control.OpHello, nil, func(_ string, data json.RawMessage) error {
		hello = data
		return nil
	}))
	for _, op := range []string{control.OpStatus, control.OpCollect, control.OpOptics, control.OpDiagnose} {
		err := client.Call(bounded(t), op, nil, func(string, json.RawMessage) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "unknown operation") {
			t.Errorf("%s over the LAN: %v", op, err)
		}
	}

	s.run(t, 4, s.Ctl, accept("stranger.pub", gateway)...)
	s.run(t, 5, s.Ctl, accept("root.pub", lab.LANAddr+":7444")...)
	impostor := s.impostor(t, hello)
	out, err := s.Run(t.Context(), s.Ctl, accept("root.pub", impostor)...)
	if lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), "does not hold the key") {
		t.Errorf("an impostor: %v %s", err, out)
	}
	must(t, s.Order(t.Context(), "WO-elsewhere", "--device", another))
	args := accept("root.pub", gateway)
	args[2] = s.Path("WO-elsewhere.signed")
	if out, err := s.Run(t.Context(), s.Ctl, args...); lab.ExitCode(err) != 4 || !strings.Contains(err.Error(), another) {
		t.Errorf("a gateway that the order is not for: %v %s", err, out)
	}
}

// impostor answers with a gateway's own documents, but has another key.
func (s *site) impostor(t *testing.T, hello json.RawMessage) (address string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	l, err := control.ListenTLS(t.Context(), lab.OperatorAddr+":0", tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	must(t, err)
	server := &control.Server{MaxConns: 4, Log: slog.New(slog.DiscardHandler), Ops: map[string]control.Op{
		control.OpHello: func(_ context.Context, _ json.RawMessage, send control.Send) error {
			return send(control.KindHello, hello)
		},
		control.OpSubmit: func(context.Context, json.RawMessage, control.Send) error {
			t.Error("the impostor was given an order")
			return nil
		},
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}
