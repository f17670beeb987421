package isp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// browser is a client on a host that follows no redirect and reuses no
// connection.
func browser(from *netbox.Host, wait time.Duration) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: from.Dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       wait,
	}
}

func get(t *testing.T, c *http.Client, url string) (status int, header http.Header, body string, _ error) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		return 0, nil, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Header, string(text), err
}

// endless is a body without a length.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	e.left -= n
	return n, nil
}

func TestHTTP(t *testing.T) {
	core, home := coreAndHome(t)
	ctx := t.Context()
	began := time.Now()
	h, err := StartHTTP(ctx, core, HTTPOptions{Listen: []netip.AddrPort{
		netip.MustParseAddrPort("10.64.0.1:80"), netip.MustParseAddrPort("[fd00:64::1]:0"), netip.MustParseAddrPort("10.64.0.1:8080"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(began))
	defer func() { must(t, h.Stop(), h.Stop()) }()
	c := browser(home, patience)

	healthy := func() {
		t.Helper()
		for _, base := range []string{"http://10.64.0.1", "http://[fd00:64::1]", "http://10.64.0.1:8080"} {
			if status, _, body, err := get(t, c, base); status != 200 || !strings.Contains(body, HTTPMarker) {
				t.Errorf("%s: %d %q, %v", base, status, body, err)
			}
			if status, _, body, err := get(t, c, base+"/generate_204"); status != 204 || body != "" {
				t.Errorf("%s/generate_204: %d %q, %v", base, status, body, err)
			}
		}
		if status, _, body, err := get(t, c, "http://10.64.0.1/portal"); status != 200 || !strings.Contains(body, PortalMarker) {
			t.Errorf("portal: %d %q, %v", status, body, err)
		}
	}
	healthy()
	began = time.Now()
	if status, header, body, err := get(t, c, "http://10.64.0.1/speed/10m"); status != 200 || len(body) != 10e6 || header.Get("Content-Length") != "10000000" {
		t.Errorf("download: %d, %d bytes, %v", status, len(body), err)
	}
	t.Logf("10 MB down in %v", time.Since(began))
	if r, err := c.Head("http://10.64.0.1/speed/1g"); err != nil || r.ContentLength != 1e9 {
		t.Errorf("the largest file: %v", err)
	}
	if status, _, _, err := get(t, c, "http://10.64.0.1/speed/none"); status != 404 {
		t.Errorf("no such file: %d, %v", status, err)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		for _, path := range []string{"/upload", "/speed/1m"} {
			for name, body := range map[string]func(int) io.Reader{
				"with length":    func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) },
				"without length": func(n int) io.Reader { return &endless{n} },
			} {
				const size = 20e6
				r, err := http.NewRequestWithContext(ctx, method, "http://10.64.0.1"+path, body(size))
				must(t, err)
				began = time.Now()
				a, err := c.Do(r)
				must(t, err)
				text, err := io.ReadAll(a.Body)
				a.Body.Close()
				if a.StatusCode != http.StatusOK || string(text) != fmt.Sprintln(int(size)) {
					t.Errorf("%s %s %s: %s %q, %v", method, path, name, a.Status, text, err)
				}
				t.Logf("20 MB up in %v", time.Since(began))
			}
		}
	}
	if used := diskUsage(t, h.dir()); used > 1<<20 {
		t.Errorf("all this takes %d bytes on the disk", used)
	}

	for _, base := range []string{"http://10.64.0.1/", "http://[fd00:64::1]/generate_204", "http://10.64.0.1/speed/1m"} {
		must(t, h.WalledGarden(ctx, "http://10.64.0.1/portal"))
		if status, header, _, err := get(t, c, base); status != 302 || header.Get("Location") != "http://10.64.0.1/portal" {
			t.Errorf("walled garden: %d to %q, %v", status, header.Get("Location"), err)
		}
		if status, _, body, err := get(t, c, "http://10.64.0.1/portal"); status != 200 || !strings.Contains(body, PortalMarker) {
			t.Errorf("walled garden's portal: %d %q, %v", status, body, err)
		}
		must(t, h.Status(ctx, 503))
		if status, _, _, err := get(t, c, base); status != 503 {
			t.Errorf("status: %d, %v", status, err)
		}
		must(t, h.Reset(ctx))
		if _, _, _, err := get(t, c, base); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset: %v", err)
		}
		must(t, h.Down())
		if _, _, _, err := get(t, c, base); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("down: %v", err)
		}
		must(t, h.Stall(ctx))
		if _, _, _, err := get(t, browser(home, 200*time.Millisecond), base); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stall: %v", err)
		}
	}
	must(t, h.Healthy(ctx))
	healthy()
	if h.Status(ctx, 200) == nil || h.Status(ctx, 444) == nil || h.WalledGarden(ctx, `http://x/"; return 200 "`) == nil || h.WalledGarden(ctx, "/portal") == nil {
		t.Error("faults that are none are played")
	}
	healthy()

	// A download under way stops where it is.
	conn, err := home.Dial(ctx, "tcp", "10.64.0.1:80")
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "GET /speed/1g HTTP/1.0\r\n\r\n")
	must(t, err)
	if _, err := io.CopyN(io.Discard, conn, 5e6); err != nil {
		t.Fatal(err)
	}
	must(t, h.Stall(ctx), conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	if n, err := io.Copy(io.Discard, conn); !errors.Is(err, os.ErrDeadlineExceeded) || n > 50e6 {
		t.Errorf("%d bytes came after the stall: %v", n, err)
	}
}

func TestHTTPRate(t *testing.T) {
	core, home := coreAndHome(t)
	h, err := StartHTTP(bounded(t), core, HTTPOptions{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("10.64.0.1:80")}, SpeedFiles: map[string]int64{"file": 2e6}, RateMbps: 8,
	})
	must(t, err)
	defer func() { must(t, h.Stop()) }()
	began := time.Now()
	if _, _, body, err := get(t, browser(home, patience), "http://10.64.0.1/speed/file"); err != nil || len(body) != 2e6 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if took := time.Since(began); took < time.Second || took > 20*time.Second { // nginx counts in seconds, and a machine may be busy
		t.Errorf("2 MB at 8 Mbit/s take %v", took)
	}
}

// diskUsage returns how many bytes of the disk the files below dir take.
func diskUsage(t *testing.T, dir string) (used int64) {
	t.Helper()
	must(t, filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				used += stat.Blocks * 512
			}
		}
		return err
	}))
	return used
}

// TestIntercept is an unpaid line: whatever page is asked for, the portal
// comes.
func TestIntercept(t *testing.T) {
	b := newBox(t)
	core, bras, home := newHost(t, b, "core"), newHost(t, b, "bras"), newHost(t, b, "home")
	must(t,
		b.Cable(core, "eth0", bras, "core0", netbox.CableOptions{}),
		b.Cable(bras, "access0", home, "eth0", netbox.CableOptions{}),
		core.Address("eth0", "10.64.0.1/24"), core.Address("eth0", "10.64.0.99/24"), bras.Address("core0", "10.64.0.254/24"),
		core.Address("eth0", "fd00:64::1/64"), core.Address("eth0", "fd00:64::99/64"), bras.Address("core0", "fd00:64::fe/64"),
		bras.Address("access0", "100.64.0.1/24"), home.Address("eth0", "100.64.0.2/24"),
		bras.Address("access0", "fd00:100::1/64"), home.Address("eth0", "fd00:100::2/64"),
		core.Route("default", "10.64.0.254"), home.Route("default", "100.64.0.1"),
		core.Route("default", "fd00:64::fe"), home.Route("default", "fd00:100::1"),
		bras.Forward(true),
	)
	ctx := t.Context()
	h, err := StartHTTP(ctx, core, HTTPOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("10.64.0.1:80"), netip.MustParseAddrPort("[fd00:64::1]:80")}})
	must(t, err)
	defer func() { must(t, h.Stop()) }()
	portal, err := core.Listen(ctx, "tcp", "10.64.0.99:80")
	must(t, err)
	portal6, err := core.Listen(ctx, "tcp", "[fd00:64::99]:80")
	must(t, err)
	server := http.Server{Handler: http.RedirectHandler("http://10.64.0.99/portal", http.StatusFound)}
	defer server.Close()
	for _, l := range []net.Listener{portal, portal6} {
		go func() { _ = server.Serve(l) }()
	}
	c := browser(home, patience)
	if err := Intercept(ctx, bras, true, netip.MustParseAddrPort("10.64.0.99:80")); errors.Is(err, netbox.ErrNoKernel) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	for _, try := range []struct {
		url    string
		portal netip.AddrPort
	}{{"http://10.64.0.1/", netip.MustParseAddrPort("10.64.0.99:80")}, {"http://[fd00:64::1]/", netip.MustParseAddrPort("[fd00:64::99]:80")}} {
		must(t, Intercept(ctx, bras, false, try.portal)) // there is nothing to end
		for range 2 {
			if status, _, body, err := get(t, c, try.url); status != 200 || !strings.Contains(body, HTTPMarker) {
				t.Errorf("%s before: %d %q, %v", try.url, status, body, err)
			}
			must(t, Intercept(ctx, bras, true, try.portal), Intercept(ctx, bras, true, try.portal))
			if status, _, _, err := get(t, c, try.url); status != 302 {
				t.Errorf("%s intercepted: %d, %v", try.url, status, err)
			}
			must(t, Intercept(ctx, bras, false, try.portal))
		}
		if status, _, body, err := get(t, c, try.url); status != 200 || !strings.Contains(body, HTTPMarker) {
			t.Errorf("%s afterwards: %d %q, %v", try.url, status, body, err)
		}
	}
}
