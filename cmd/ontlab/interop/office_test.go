package interop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ontagent/agent/order"
)

// office is where orders are signed.
type office struct {
	dir, ontctl    string
	root, operator ed25519.PrivateKey
}

func newOffice(t *testing.T) *office {
	t.Helper()
	if testing.Short() {
		t.Skip("programs are built and run, with -short")
	}
	o := &office{dir: t.TempDir(), root: newKey(t), operator: newKey(t)}
	o.ontctl = filepath.Join(o.dir, "ontctl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", o.ontctl, "ontagent/cmd/ontctl").CombinedOutput(); err != nil {
		t.Fatalf("cannot build ontctl: %v\n%s", err, out)
	}
	env, err := order.TrustList{V: 1, Version: 1, Tenant: tenant, Keys: []order.TrustKey{
		{ID: "op-1", Role: order.RoleOperator, Key: public(o.operator)},
	}}.Sign(o.root)
	if err != nil {
		t.Fatal(err)
	}
	o.write(t, "trust", env)
	return o
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) order.PublicKey {
	pub, _ := key.Public().(ed25519.PublicKey)
	return order.PublicKey(pub)
}

// write puts a document into a file.
func (o *office) write(t *testing.T, name string, doc any) string {
	t.Helper()
	data, err := json.Marshal(doc)
	if err == nil {
		err = os.WriteFile(filepath.Join(o.dir, name), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(o.dir, name)
}

// order returns the file of a signed order for one technician.
func (o *office) order(t *testing.T, id, device, technician string, until time.Time) string {
	t.Helper()
	o.keygen(t, technician)
	key, err := order.ParsePublicKey(strings.TrimSpace(read(t, filepath.Join(o.dir, technician+".pub"))))
	if err != nil {
		t.Fatal(err)
	}
	env, err := order.Order{
		V: 1, Order: id, Rev: 1, Type: order.Repair, Tenant: tenant, Device: device,
		Technicians: []order.Technician{{ID: technician, Key: key}},
		Allow:       []order.CommandType{order.Accept, order.Diagnose}, MaxRuns: 3,
		NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
	}.Sign(o.operator)
	if err != nil {
		t.Fatal(err)
	}
	return o.write(t, id+"-"+technician, env)
}

// section returns what `ontctl acl mosquitto` makes of orders.
func (o *office) section(t *testing.T, orders ...string) string {
	t.Helper()
	args := []string{"acl", "mosquitto", "--trust", filepath.Join(o.dir, "trust"), "--root", public(o.root).String()}
	cmd := exec.CommandContext(t.Context(), o.ontctl, append(args, orders...)...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("ontctl acl: %v: %s", err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// keygen makes somebody's key pair, if there is none.
func (o *office) keygen(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(o.key(name)); err == nil {
		return
	}
	if out, code := o.run(t, "keygen", "--out", filepath.Join(o.dir, name)); code != 0 {
		t.Fatal(out)
	}
}

// key returns the file of somebody's secret key.
func (o *office) key(name string) string { return filepath.Join(o.dir, name+".key") }

// run runs ontctl and returns what it printed.
func (o *office) run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), o.ontctl, args...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal("ontctl did not start")
	}
	return text.String(), cmd.ProcessState.ExitCode()
}
