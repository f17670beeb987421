package fleet_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"ontagent/cmd/ontlab/fleet"
	"ontagent/transport/mqtt"
)

func TestFleet(t *testing.T) {
	b := newBroker(t, nil)
	const gateways = 50
	f, err := fleet.New(fleet.Options{
		Dial: mqtt.Options{Broker: "tcp://" + b.addr}, Tenant: tenant, Gateways: gateways,
		Backoff:   mqtt.Backoff{Spread: 50 * time.Millisecond, Base: 10 * time.Millisecond, Cap: 100 * time.Millisecond},
		Telemetry: 100 * time.Millisecond, Sources: []string{"127.0.3.4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx) }()
	eventually := func(what string, ok func(fleet.Sample) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(f.Sample()); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within 30 s; %+v", what, f.Sample())
			}
		}
	}
	eventually("connected and publishing", func(s fleet.Sample) bool { return s.Connected == gateways && s.Published > 2*gateways })
	if s := f.Sample(); s.Attempts != gateways || s.Connections != gateways || s.Errors != 0 || s.BytesIn == 0 || s.BytesOut == 0 || s.Gateways != gateways {
		t.Errorf("after the start: %+v", s)
	}
	b.kill()
	eventually("lost", func(s fleet.Sample) bool { return s.Connected == 0 && s.Errors >= gateways && s.LastError != "" })
	b.start()
	eventually("back", func(s fleet.Sample) bool { return s.Connected == gateways && s.Connections >= 2*gateways })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended by %v", err)
	}
	if s := f.Sample(); s.Connected != 0 || s.Attempts < s.Connections {
		t.Errorf("after the end: %+v", s)
	}
}

func TestFleetRefusesBadOptions(t *testing.T) {
	good := fleet.Options{Dial: mqtt.Options{Broker: "tcp://127.0.0.1:1"}, Tenant: tenant, Gateways: 1}
	for name, spoil := range map[string]func(*fleet.Options){
		"none":       func(o *fleet.Options) { o.Gateways = 0 },
		"few ports":  func(o *fleet.Options) { o.Sources, o.Gateways = []string{"127.0.0.1"}, fleet.PerSource+1 },
		"no source":  func(o *fleet.Options) { o.Sources = []string{"here"} },
		"elsewhere":  func(o *fleet.Options) { o.Dial.Broker, o.Gateways = "tcp://192.0.2.1", fleet.PerSource+1 },
		"too many":   func(o *fleet.Options) { o.Gateways = fleet.MaxGateways + 1 },
		"no broker":  func(o *fleet.Options) { o.Dial.Broker = "" },
		"bad tenant": func(o *fleet.Options) { o.Tenant = "a/b" },
	} {
		o := good
		spoil(&o)
		if _, err := fleet.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good.Gateways = fleet.PerSource + 1 // needs a second address, and 127.0.0.0/8 has many
	if _, err := fleet.New(good); err != nil {
		t.Error(err)
	}
}
