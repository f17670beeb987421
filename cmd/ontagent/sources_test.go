package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"ontagent/cmd/ontlab/ontsim"
	"ontagent/collectors"
	"ontagent/config"
	"ontagent/transport"
)

func parseConfig(t *testing.T, text string) config.Config {
	t.Helper()
	c, _, err := config.Parse("test.conf", []byte("config main\n\toption device HWTC12345678\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryCollectorsSamplesCanBeSent reads all there is, the way the daemon
// does, and encodes it: one key that collides would lose a whole message.
func TestEveryCollectorsSamplesCanBeSent(t *testing.T) {
	sim, err := ontsim.Start(t.Context(), ontsim.Options{})
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	defer sim.Close()
	log := slog.New(slog.DiscardHandler)
	c := parseConfig(t, "config console\n\toption enabled 1\n\toption port "+sim.Path()+"\n")
	s, err := openSources(c, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	registry := s.registry(c, log)
	results := collectOnce(ctx, registry)
	results = append(results, collectors.Result{Collector: "collector", Samples: registry.HealthSamples()})
	for _, r := range collectedOf(results) {
		if len(r.Samples) == 0 {
			// Emulation of this machine garbles netlink, and there is no other here.
			if netlink := r.Collector == "link" || r.Collector == "wan"; !netlink || runtime.GOARCH != "mips" {
				t.Errorf("%s gave nothing: %s", r.Collector, r.Error)
			}
			continue
		}
		for _, body := range r.Samples {
			h := transport.Header{V: 1, Device: "HWTC12345678", Epoch: 1, Class: transport.ClassTelemetry, Seq: 1, Clock: "none"}
			if _, err := transport.Encode(h, body); err != nil {
				t.Errorf("%s: %v", r.Collector, err)
			}
		}
	}
	var optics map[string]any
	for _, r := range collectedOf(results) {
		if r.Collector == "optics" && len(r.Samples) == 1 {
			if err := json.Unmarshal(r.Samples[0], &optics); err != nil {
				t.Fatal(err)
			}
		}
	}
	if optics["rx_power_dbm"] != -19.2 {
		t.Errorf("optics read %v", optics)
	}
}
