package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ontagent/agent/probe/throughput"
	"ontagent/cmd/cli"
)

// snippet returns a block of code of the page about speed tests.
func snippet(t *testing.T, language, first string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "speed-test.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```"+language+"\n"+first)
	text, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("the page has no %s that begins with %q", language, first)
	}
	return first + text
}

// freePort is one that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// serve runs a server until the test ends, and waits until it listens.
func serve(t *testing.T, port string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", args[0], out.Bytes()[max(0, out.Len()-2000):])
		}
	})
	for range 400 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%s does not listen: %s", args[0], out.String())
}

// wants skips a test whose server is not here, unless it must run.
func wants(t *testing.T, tool string) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	if _, err := exec.LookPath(tool); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s: %v", tool, err)
		}
		t.Skipf("needs %s: %v", tool, err)
	}
}

// measured runs the verb, whose contract anything reaches.
func measured(t *testing.T, args ...string) throughput.Result {
	t.Helper()
	args = append([]string{"throughput", "--contract", "1", "--window", "2", "--consent", "--json"}, args...)
	code, out, errs := ontagent(t, args...)
	var r throughput.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != cli.OK || errs != "" {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if r.Down == nil || r.Up == nil || r.Down.Verdict != throughput.Pass || r.Up.Verdict != throughput.Pass {
		t.Errorf("%s", out)
	}
	return r
}

// The configuration of nginx that the page recommends.
func TestShapedThroughputWithNginx(t *testing.T) {
	wants(t, "nginx")
	dir, port := t.TempDir(), freePort(t)
	if err := os.MkdirAll(filepath.Join(dir, "speed"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "speed", "100g")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 100e9); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	// What reads /dev/zero as fast as loopback goes would load the machine.
	server := snippet(t, "nginx", "server {")
	server = strings.NewReplacer("listen 8080;", "listen 127.0.0.1:"+port+";\n    limit_rate 20m;", "root /srv;", "root "+dir+";").Replace(server)
	server = regexp.MustCompile(`listen \[::\]:8080;`).ReplaceAllString(server, "")
	if strings.Contains(server, "8080") || strings.Contains(server, "/srv") {
		t.Fatalf("not all was replaced: %s", server)
	}
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr notice; user root;
events { }
http {
access_log off;
client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; scgi_temp_path %[1]s/s; uwsgi_temp_path %[1]s/u;
%[2]s}
`, dir, server)
	if os.Getuid() != 0 {
		conf = strings.Replace(conf, "user root;", "", 1)
	}
	path := filepath.Join(dir, "conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, port, "nginx", "-p", dir, "-c", path, "-e", "stderr")
	base := "http://127.0.0.1:" + port
	r := measured(t, "--url", base+"/speed/100g", "--upload-url", base+"/upload")
	if !strings.HasPrefix(r.ServerName, "nginx") || r.Down.CountedBy != "tcp_info" {
		t.Errorf("%q, %q", r.ServerName, r.Down.CountedBy)
	}
	// Nothing of an upload is kept.
	for _, temp := range []string{"b", "p"} {
		if entries, err := os.ReadDir(filepath.Join(dir, temp)); err == nil && len(entries) > 0 {
			t.Errorf("an upload left %d files behind", len(entries))
		}
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Head(base + "/speed/100g?x")
	if err != nil || resp.ContentLength != 100e9 || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("%v, %v", resp, err)
	}
}

// speedServer starts our own server on a host, as the page's unit for systemd
// does, and returns its URL.
func (h *netHost) speedServer(address string) string {
	h.t.Helper()
	unit := snippet(h.t, "ini", "# /etc/systemd/system/ontctl-speed.service")
	found := regexp.MustCompile(`(?m)^ExecStart=\S+/ontctl (speed-server --listen :8080)$`).FindStringSubmatch(unit)
	if found == nil {
		h.t.Fatalf("the unit does not start it: %s", unit)
	}
	program := filepath.Join(h.t.TempDir(), "ontctl")
	if out, err := exec.CommandContext(h.t.Context(), "go", "build", "-o", program, "../ontctl").CombinedOutput(); err != nil {
		h.t.Fatalf("cannot build: %v: %s", err, out)
	}
	h.start(append([]string{program}, strings.Fields(found[1])...)...)
	h.await("tcp6", 8080) // of both families
	return "http://" + address + ":8080/"
}
