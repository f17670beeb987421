package netbox_test

import (
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// How exact it is, the guest's tests say; this is that it is there, and goes.
func TestRateIsLimited(t *testing.T) {
	b := newBox(t)
	if missing := netbox.Missing(t.Context()); slices.Contains(missing, netbox.NeedTBF) {
		t.Skip("the running kernel has no tbf; the guest's tests need it")
	}
	a, z := newHost(t, b, "a"), newHost(t, b, "z")
	must(t,
		b.Cable(a, "eth0", z, "eth0", netbox.CableOptions{}),
		a.Address("eth0", "10.0.0.1/24"), z.Address("eth0", "10.0.0.2/24"),
	)
	const rate = 6
	must(t, a.Impair("eth0", netbox.Impairment{RateMbps: 3}), a.Impair("eth0", netbox.Impairment{RateMbps: rate})) // instead
	var got float64
	for range 5 { // a busy machine is slower
		if got = throughput(t, a, z); math.Abs(got/rate-1) < 0.03 {
			break
		}
	}
	t.Logf("%.2f Mbit/s", got)
	if math.Abs(got/rate-1) >= 0.03 {
		t.Errorf("%.2f Mbit/s, want %d", got, rate)
	}
	if back := throughput(t, z, a); back < 2*rate {
		t.Errorf("the other way: %.2f Mbit/s", back)
	}
	must(t, a.Impair("eth0", netbox.Impairment{}))
	if free := throughput(t, a, z); free < 2*rate {
		t.Errorf("without: %.2f Mbit/s", free)
	}
}

// throughput sends 0.9 MB by TCP and returns the rate of frames, in Mbit/s,
// after the first 200 kB.
func throughput(t *testing.T, from, to *netbox.Host) float64 {
	t.Helper()
	addr := map[string]string{"a": "10.0.0.1:80", "z": "10.0.0.2:80"}[to.Name()]
	l, err := to.Listen(t.Context(), "tcp", addr)
	must(t, err)
	defer l.Close()
	c, err := from.Dial(t.Context(), "tcp", addr)
	must(t, err)
	in, err := l.Accept()
	must(t, err)
	defer in.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 900_000))
		c.Close()
		sent <- err
	}()
	must(t, in.SetDeadline(time.Now().Add(patience)))
	_, err = io.CopyN(io.Discard, in, 200_000)
	must(t, err)
	began := time.Now()
	n, err := io.Copy(io.Discard, in)
	took := time.Since(began)
	must(t, err, <-sent)
	// Segments of 1448 bytes are in frames of 1514.
	return float64(n) * 1514 / 1448 * 8 / took.Seconds() / 1e6
}
