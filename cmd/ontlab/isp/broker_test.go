package isp

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// connectMQTT says CONNECT and returns the answer's kind and code.
func connectMQTT(t *testing.T, from *netbox.Host, at string, wait time.Duration) ([4]byte, error) {
	t.Helper()
	var answer [4]byte
	conn, err := from.Dial(t.Context(), "tcp", at)
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(wait)))
	if _, err := conn.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a")); err != nil {
		return answer, err
	}
	_, err = conn.Read(answer[:])
	return answer, err
}

func TestBroker(t *testing.T) {
	core, home := coreAndHome(t)
	ctx := t.Context()
	began := time.Now()
	b, err := StartBroker(ctx, core, BrokerOptions{Listen: netip.MustParseAddrPort("10.64.0.1:0")})
	must(t, err)
	t.Logf("started in %v", time.Since(began))
	defer func() { must(t, b.Stop(), b.Stop()) }()
	const at = "10.64.0.1:1883"
	for range 2 {
		if answer, err := connectMQTT(t, home, at, patience); err != nil || answer != [4]byte{0x20, 2, 0, 0} {
			t.Errorf("healthy: % x, %v", answer, err)
		}
		must(t, b.Silent())
		if _, err := connectMQTT(t, home, at, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("silent: %v", err)
		}
		must(t, b.Healthy(ctx), b.Healthy(ctx))
		if _, err := connectMQTT(t, home, at, patience); err != nil {
			t.Errorf("after silence: %v", err)
		}
		must(t, b.Down(), b.Down())
		if _, err := connectMQTT(t, home, at, patience); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("down: %v", err)
		}
		if b.Silent() == nil {
			t.Error("what is down was held")
		}
		must(t, b.Healthy(ctx))
	}
	must(t, b.Stop())
	if b.Healthy(ctx) == nil {
		t.Error("what was stopped for good is there again")
	}
}
