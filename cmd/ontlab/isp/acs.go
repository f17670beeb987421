package isp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"ontagent/cmd/ontlab/netbox"
)

// ACSOptions describe an auto-configuration server. Listen has to be given.
type ACSOptions struct {
	// Listen is where it takes connections. Port 0 means 7547.
	Listen netip.AddrPort
	// Realm is that of its challenge. Empty means "acs".
	Realm string
	// Users are the names and passwords of the devices. An empty map lets
	// every device in that answers the challenge with a name.
	Users map[string]string
}

// ACS stands in for an operator's TR-069 server: it challenges a device by
// digest, answers its Inform, and ends the session with 204, having nothing to
// ask. It is safe for concurrent use.
//
// Its faults replace one another, and Healthy ends them all. Each change, also
// to Healthy, cuts the connections there are.
type ACS struct {
	host *netbox.Host
	opts ACSOptions
	gate *digestGate
	log  *responderLog

	mu      sync.Mutex
	stopped bool
	port    *acsPort // nil: nobody listens
}

// StartACS starts a server, which answers when StartACS returns. ctx bounds the
// start only.
func StartACS(ctx context.Context, host *netbox.Host, o ACSOptions) (*ACS, error) {
	if o.Listen.Port() == 0 {
		o.Listen = netip.AddrPortFrom(o.Listen.Addr(), 7547)
	}
	if o.Realm == "" {
		o.Realm = "acs"
	}
	log, err := openResponderLog(host, "acs")
	if err != nil {
		return nil, fmt.Errorf("cannot start ACS on %s: %w", host.Name(), err)
	}
	a := &ACS{host: host, opts: o, gate: newDigestGate(o.Realm), log: log}
	if err := a.Healthy(ctx); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return a, nil
}

// acsMode is what happens to a connection.
type acsMode int

const (
	acsServe  acsMode = iota
	acsReset          // accepted, and reset
	acsSilent         // accepted, and nothing more
	acsDrop           // its SYN is not answered
)

// Healthy ends the fault, whichever it is.
func (a *ACS) Healthy(ctx context.Context) error { return a.set(ctx, acsServe) }

// Refuse resets each connection once it is there, as a firewall before the
// server does, or a server that is overloaded.
func (a *ACS) Refuse(ctx context.Context) error { return a.set(ctx, acsReset) }

// Silent takes connections and says nothing.
func (a *ACS) Silent(ctx context.Context) error { return a.set(ctx, acsSilent) }

// Drop does not even take connections: they time out.
func (a *ACS) Drop(ctx context.Context) error { return a.set(ctx, acsDrop) }

// Down closes the port: connections are refused.
func (a *ACS) Down() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closePort()
}

func (a *ACS) set(ctx context.Context, mode acsMode) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	fail := func(err error) error {
		return fmt.Errorf("cannot open port %s on %s: %w", a.opts.Listen, a.host.Name(), err)
	}
	if a.stopped {
		return fail(net.ErrClosed)
	}
	if err := a.closePort(); err != nil {
		return err
	}
	err := a.host.Do(func() error {
		var err error
		a.port, err = openACSPort(ctx, a.opts.Listen.String(), mode, http.HandlerFunc(a.session))
		return err
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// closePort closes what is open. a.mu is held.
func (a *ACS) closePort() error {
	if a.port == nil {
		return nil
	}
	err := a.port.close()
	a.port = nil
	if err != nil {
		return fmt.Errorf("cannot close port %s on %s: %w", a.opts.Listen, a.host.Name(), err)
	}
	return nil
}

// Stop ends the server for good. Stopping it again does nothing.
func (a *ACS) Stop() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return nil
	}
	a.stopped = true
	return errors.Join(a.closePort(), a.log.Close())
}

// session answers one request of a CWMP session (TR-069, §3.4).
func (a *ACS) session(w http.ResponseWriter, r *http.Request) {
	status, body := a.answer(w.Header(), r)
	a.log.Info("request", "method", r.Method, "source", r.RemoteAddr, "status", status)
	if body != "" {
		w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// acsBody bounds what is read of a request, in bytes.
const acsBody = 1 << 20

func (a *ACS) answer(header http.Header, r *http.Request) (status int, body string) {
	text, err := io.ReadAll(io.LimitReader(r.Body, acsBody))
	if err != nil {
		return http.StatusBadRequest, ""
	}
	if r.Method != http.MethodPost {
		header.Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, ""
	}
	password := func(user string) (string, bool) {
		p, ok := a.opts.Users[user]
		return p, ok
	}
	if len(a.opts.Users) == 0 {
		password = nil
	}
	_, outcome := a.gate.check(r.Method, r.Header.Get("Authorization"), password)
	if outcome != digestGood {
		header.Set("WWW-Authenticate", a.gate.challenge(outcome == digestStale))
		return http.StatusUnauthorized, ""
	}
	if !strings.Contains(string(text), ":Inform>") {
		return http.StatusNoContent, "" // the device has nothing more to say, and we neither
	}
	return http.StatusOK, acsInformResponse(acsID(string(text)))
}

// acsID returns the ID of a CWMP message, which its answer repeats.
func acsID(envelope string) string {
	_, rest, ok := strings.Cut(envelope, "<cwmp:ID")
	if !ok {
		return ""
	}
	_, rest, _ = strings.Cut(rest, ">")
	id, _, ok := strings.Cut(rest, "<")
	if !ok || len(id) > 64 {
		return ""
	}
	return id // as it was escaped
}

func acsInformResponse(id string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:cwmp="urn:dslforum-org:cwmp-1-0">
<soap:Header><cwmp:ID soap:mustUnderstand="1">` + id + `</cwmp:ID></soap:Header>
<soap:Body><cwmp:InformResponse><MaxEnvelopes>1</MaxEnvelopes></cwmp:InformResponse></soap:Body>
</soap:Envelope>
`
}
