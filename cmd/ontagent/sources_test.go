package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ontagent/cmd/ontlab/ontsim"
	"ontagent/collectors"
	"ontagent/config"
	"ontagent/transport"
)

// conforms holds a payload to the schema that the NOC reads.
func conforms(t *testing.T, name string, payload []byte) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("../../docs/mqtt-api/schema", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, payload)
	}
}

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
			payload, err := transport.Encode(h, body)
			if err != nil {
				t.Errorf("%s: %v", r.Collector, err)
				continue
			}
			conforms(t, "telemetry-"+r.Collector, payload)
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
