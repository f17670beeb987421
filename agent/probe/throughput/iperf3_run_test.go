package throughput

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// pour sends on all streams, or reads from them, until they end.
func (f *iperf3Fake) pour(down bool) (wait func()) {
	var wg sync.WaitGroup
	for _, c := range f.streams {
		wg.Go(func() {
			b := make([]byte, 64<<10)
			for err := error(nil); err == nil; {
				if down {
					time.Sleep(time.Millisecond) // 60 MB/s are enough
					_, err = c.Write(b)
				} else {
					time.Sleep(time.Millisecond)
					_, err = c.Read(b)
				}
			}
		})
	}
	return wg.Wait
}

func iperf3Options(f *iperf3Fake, dir Direction) Options {
	return Options{
		URL: "iperf3://" + f.l.Addr().String(), Direction: dir, Connections: 2,
		Window: 1100 * time.Millisecond, WarmUp: 500 * time.Millisecond, ProcRoot: "/proc", MaxBytes: 16 << 30,
	}
}

func TestIperf3RunLost(t *testing.T) {
	for _, dir := range []Direction{Down, Up} {
		before := iperf3Open(t)
		f := fakeIperf3(t, func(f *iperf3Fake) {
			f.toRunning()
			wait := f.pour(dir == Down)
			f.sayError(27, 0)
			f.rest()
			wait()
		})
		res, err := Run(t.Context(), iperf3Options(f, dir))
		if err != nil {
			t.Fatal(err)
		}
		r := res.Down
		if dir == Up {
			r = res.Up
		}
		if r == nil || r.Error != "the server limits the rate, and a test without a limit is above it" || res.Verdict != Inconclusive || r.TCPMbps != nil {
			t.Errorf("%s: %s: %+v", dir, res.Verdict, r)
		}
		f.stop()
		iperf3NothingLeft(t, before)
	}
}

func TestIperf3RunWithoutCount(t *testing.T) {
	for _, dir := range []Direction{Down, Up} {
		before := iperf3Open(t)
		f := fakeIperf3(t, func(f *iperf3Fake) {
			f.toRunning()
			wait := f.pour(dir == Down)
			f.hear(iperf3TestEnd)
			f.say(iperf3ExchangeResults)
			f.hearJSON()
			f.sayJSON("{}")
			f.rest()
			wait()
		})
		res, err := Run(t.Context(), iperf3Options(f, dir))
		if err != nil {
			t.Fatal(err)
		}
		r := res.Down
		if dir == Up {
			r = res.Up
		}
		if r == nil || r.Error != "" || res.Verdict != Measured || r.TCPMbps == nil || *r.TCPMbps < 1 || r.ServerBytes != nil {
			t.Errorf("%s: %s: %+v", dir, res.Verdict, r)
		}
		f.stop()
		iperf3NothingLeft(t, before)
	}
}

// A run that is cancelled ends at once, whatever the server waits for.
func TestIperf3RunCancelled(t *testing.T) {
	for _, c := range []struct {
		name   string
		script func(f *iperf3Fake, down bool) (wait func())
	}{
		{"opening", func(f *iperf3Fake, _ bool) func() { f.toCreate(); return nil }},
		{"running", func(f *iperf3Fake, down bool) func() { f.toRunning(); return f.pour(down) }},
		{"ending", func(f *iperf3Fake, down bool) func() {
			f.toRunning()
			wait := f.pour(down)
			f.hear(iperf3TestEnd)
			return wait
		}},
	} {
		for _, dir := range []Direction{Down, Up} {
			t.Run(c.name+", "+string(dir), func(t *testing.T) {
				before := iperf3Open(t)
				took := time.Hour
				for try := 0; try < 3 && took > 100*time.Millisecond; try++ {
					ctx, cancel := context.WithCancel(t.Context())
					var at time.Time
					f := fakeIperf3(t, func(f *iperf3Fake) {
						wait := c.script(f, dir == Down)
						time.Sleep(50 * time.Millisecond) // so that it waits
						at = time.Now()
						cancel()
						f.rest()
						if wait != nil {
							wait()
						}
					})
					if _, err := Run(ctx, iperf3Options(f, dir)); !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					end := time.Now()
					f.stop()
					took = min(took, end.Sub(at))
				}
				if took > 100*time.Millisecond {
					t.Errorf("took %v", took)
				}
				iperf3NothingLeft(t, before)
			})
		}
	}
}
