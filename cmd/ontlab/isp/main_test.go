package isp

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// TestMain runs the tests of this package again inside namespaces.
func TestMain(m *testing.M) {
	os.Exit(testMain(m)) //nolint:forbidigo // this is the main function of a program
}

// noBox says why there can be no lab here; empty: there can.
var noBox string //nolint:gochecknoglobals // TestMain can hand nothing to tests otherwise

func testMain(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flag.Parse()
	if netbox.Inside() || testing.Short() {
		return m.Run()
	}
	code, err := netbox.Enter(ctx, nil, os.Stdout, os.Stderr, os.Args[1:]...)
	if err != nil {
		noBox = err.Error()
		fmt.Fprintln(os.Stderr, err)
		return m.Run()
	}
	return code
}

// patience bounds every wait for what must happen.
const patience = 30 * time.Second

// newBox opens a lab, which is closed with the test. Where there can be none
// the test is skipped; in CI it fails.
func newBox(t *testing.T) *netbox.Box {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("not with -short: it needs namespaces")
	case !netbox.Inside() && os.Getenv("CI") == "true":
		t.Fatal(noBox)
	case !netbox.Inside():
		t.Skip(noBox)
	}
	b, err := netbox.Open(netbox.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func newHost(t *testing.T, b *netbox.Box, name string) *netbox.Host {
	t.Helper()
	h, err := b.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// bounded returns a context that ends with the test, or after patience.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
