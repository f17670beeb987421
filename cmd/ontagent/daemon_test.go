package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/control"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/config"
)

var (
	operatorKey    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)) // root, operator and technician in one
	operatorPub, _ = operatorKey.Public().(ed25519.PublicKey)
)

// gateway is a daemon's directory, with a root key and a trust list.
func gateway(t *testing.T) (dir string, c config.Config) {
	t.Helper()
	dir, path := home(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list := order.TrustList{V: 1, Version: 1, Tenant: "default", Keys: []order.TrustKey{{ID: "op", Role: order.RoleOperator, Key: order.PublicKey(operatorPub)}}}
	writeDocument(t, filepath.Join(dir, "trust"), list.Sign)
	text = append(text, "config authority\n\toption root_key '"+order.PublicKey(operatorPub).String()+
		"'\n\toption trust_list '"+dir+"/trust'\n\toption statement '"+dir+"/statement'\nconfig mqtt\n\toption enabled 0\n"...)
	c, _, err = config.Parse(path, text)
	if err != nil {
		t.Fatal(err)
	}
	return dir, c
}

func writeDocument(t *testing.T, path string, sign func(ed25519.PrivateKey) (order.Envelope, error)) {
	t.Helper()
	env, err := sign(operatorKey)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, c config.Config) *daemon {
	t.Helper()
	d, err := newDaemon(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(d) })
	return d
}

// stop frees what a daemon holds that was never served.
func stop(d *daemon) {
	_ = d.sources.close()
	_ = d.lock.Close()
}

func TestDamagedStateStopsOrdersNotTelemetry(t *testing.T) {
	for name, damage := range map[string]struct{ file, content string }{
		"authority, cut off":      {"authority.json", `{"v":1,"orders":{"WO-1":{"rev":`},
		"authority, of later":     {"authority.json", `{"v":2}`},
		"authority, too large":    {"authority.json", strings.Repeat(" ", maxState+1)},
		"authority, altered list": {"authority.json", `{"v":1,"trust":{"payloadType":"x","payload":"e30=","signatures":[]},"orders":{},"counters":{}}`},
		"keys":                    {"device.keys", "-----BEGIN NOTHING-----\n"},
		"keys, empty":             {"device.keys", ""},
		"chain of records":        {"records/0000000000000001-a.record", "rotten"},
		"jobs are no directory":   {"jobs", "rotten"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, c := gateway(t)
			path := filepath.Join(dir, "state", damage.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(damage.content), 0o600); err != nil {
				t.Fatal(err)
			}
			d := start(t, c)
			if d.refusing == nil || d.jobs != nil || d.authority != nil {
				t.Fatalf("refusing: %v, jobs %v", d.refusing, d.jobs)
			}
			if st := d.submit("abc", []byte("{}")); st.State != job.Rejected || st.Reason != order.ReasonInternal || st.Detail == "" {
				t.Errorf("answer %+v", st)
			}
			var info map[string]any
			if err := json.Unmarshal(d.birth(), &info); err != nil || info["refusing"] != string(order.ReasonInternal) {
				t.Errorf("birth %v, %v", info, err)
			}
			var st agentStatus
			if err := d.opStatus(t.Context(), nil, func(_ string, data any) error {
				st, _ = data.(agentStatus)
				return nil
			}); err != nil || st.Refusing == "" {
				t.Errorf("status %+v, %v", st, err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != damage.content {
				t.Errorf("what a person may want to look at was changed: %v", err)
			}
		})
	}
}

func TestLostClockFloorIsNoReasonNotToStart(t *testing.T) {
	for name, content := range map[string]string{"garbage": "yesterday", "too large": strings.Repeat("x", 1000), "empty": ""} {
		t.Run(name, func(t *testing.T) {
			dir, c := gateway(t)
			if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "state", "clock.floor"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if d := start(t, c); d.refusing != nil {
				t.Errorf("refusing: %v", d.refusing)
			}
		})
	}
}

func TestStateIsForOneDaemon(t *testing.T) {
	_, c := gateway(t)
	first := start(t, c)
	if _, err := newDaemon(c, slog.New(slog.DiscardHandler)); !errors.Is(err, errInUse) {
		t.Errorf("second daemon: %v, want in use", err)
	}
	keys, err := openKeys(c)
	if err != nil || keys.Bundle() != first.keys.Bundle() {
		t.Errorf("identity beside a daemon: %v", err)
	}
}

func TestIdentityDoesNotRaceTheDaemonForNewKeys(t *testing.T) {
	dir, c := gateway(t)
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockState(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := openKeys(c); !errors.Is(err, errInUse) {
		t.Errorf("made keys beside a daemon that is about to: %v", err)
	}
}

// TestStatementHasToFit: a record with another statement would be believed by
// nobody; the visit must not even begin.
func TestStatementHasToFit(t *testing.T) {
	dir, c := gateway(t)
	d := start(t, c)
	if _, err := d.statement(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no statement: %v", err)
	}
	var spki [32]byte
	good := order.Statement{V: 1, Device: d.keys.Device, X25519: d.keys.BoxPublic(), TLSSPKI: d.keys.Bundle().TLSSPKI}
	if pub, ok := d.keys.Record.Public().(ed25519.PublicKey); ok {
		good.Ed25519 = order.PublicKey(pub)
	}
	for name, tc := range map[string]struct {
		change func(*order.Statement)
		good   bool
	}{
		"good":              {func(*order.Statement) {}, true},
		"of another device": {func(s *order.Statement) { s.Device = "HWTC99999999" }, false},
		"of an earlier key": {func(s *order.Statement) { s.Ed25519 = order.PublicKey(operatorPub) }, false},
		"of an earlier box": {func(s *order.Statement) { s.X25519[0] ^= 1 }, false},
		"of an earlier TLS": {func(s *order.Statement) { s.TLSSPKI = strings.Repeat("ab", len(spki)) }, false},
	} {
		s := good
		tc.change(&s)
		writeDocument(t, filepath.Join(dir, "statement"), s.Sign)
		if _, err := d.statement(); (err == nil) != tc.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	writeDocument(t, filepath.Join(dir, "statement"), func(ed25519.PrivateKey) (order.Envelope, error) { return good.Sign(stranger) })
	if _, err := d.statement(); !errors.Is(err, order.ErrUnknownKey) {
		t.Errorf("by a stranger: %v", err)
	}
}

// TestSecretsStayOffTheOutside: configured and sealed secrets, and keys, are in
// nothing the daemon says by itself.
func TestSecretsStayOffTheOutside(t *testing.T) {
	dir, c := gateway(t)
	c.MQTT.Enabled, c.MQTT.Broker, c.MQTT.Username, c.MQTT.Password = true, "tcp://127.0.0.1:1", "user", "mqtt-hunter2"
	c.Console.Username, c.Console.Password = "root", "console-hunter2"
	c.Collectors.WAN.Enabled = false // two users of netlink at once are a matter of theirs
	var logged bytes.Buffer
	d, err := newDaemon(c, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	defer stop(d)
	local, err := control.ListenUnix(t.Context(), c.Control.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var said bytes.Buffer
	said.Write(d.birth())
	send := func(_ string, data any) error { return json.NewEncoder(&said).Encode(data) }
	if err := errors.Join(d.opStatus(ctx, nil, send), d.opHello(ctx, nil, send), d.opSubmit(ctx, []byte(`{"v":1}`), send)); err != nil {
		t.Fatal(err)
	}
	if err := d.serve(ctx, local); err != nil {
		t.Fatal(err)
	}
	keyFile, err := os.ReadFile(filepath.Join(dir, "state", "device.keys"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{"hunter2"}
	for line := range strings.Lines(string(keyFile)) {
		if !strings.HasPrefix(line, "-----") {
			secrets = append(secrets, strings.TrimSpace(line))
		}
	}
	for _, secret := range secrets {
		if strings.Contains(logged.String()+said.String(), secret) {
			t.Error("a secret was logged or told")
		}
	}
	for _, name := range []string{".", "device.keys", "authority.json", "jobs", "records"} {
		info, err := os.Stat(filepath.Join(dir, "state", name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v: others may read it", name, info.Mode(), err)
		}
	}
}

func TestNoCoreDumps(t *testing.T) {
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &before); err != nil {
		t.Skip(err)
	}
	if err := noCoreDumps(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &after); err != nil || after.Cur != 0 || after.Max != 0 {
		t.Errorf("%+v, %v", after, err)
	}
}
