package play

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"ontagent/collectors/host"
	"ontagent/collectors/link"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/hwmon"
)

// asGateway reads something as the gateway's agent does.
func asGateway(l *Lab, read func(ctx context.Context) error) func(context.Context, *Lab) error {
	return func(ctx context.Context, _ *Lab) error { return l.gateway.Do(func() error { return read(ctx) }) }
}

// TestFaultsOfTheGateway lets what stands in for the gateway's hardware change,
// and change back.
func TestFaultsOfTheGateway(t *testing.T) {
	t.Parallel()
	l := buildLab(t, `scenario: plain-gateway
services:
  - {kind: internet, access: ipoe, vlan: 0, down_mbps: 40, up_mbps: 15}
gateway:
  rx_power_dbm: -20
  module: {rx_offset_db: -1, rx_warn_low_dbm: -24}
  lan: {}
  load: {cpu_busy_ratio: 0.2}
expect:
  verdict: pass
`)
	lan := func(want link.Link) func(context.Context, *Lab) error {
		return asGateway(l, func(ctx context.Context) error {
			links, err := link.New(link.Options{Include: []string{homePort}}).Links(ctx)
			if err != nil || len(links) != 1 {
				return fmt.Errorf("%d ports: %w", len(links), err)
			}
			got := link.Link{
				Carrier: links[0].Carrier, SpeedMegabits: links[0].SpeedMegabits, Duplex: links[0].Duplex,
				MaxMegabits: links[0].MaxMegabits, PeerMaxMegabits: links[0].PeerMaxMegabits,
			}
			if got != want {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	gigabit := lan(link.Link{Carrier: true, SpeedMegabits: 1000, Duplex: "full", MaxMegabits: 1000, PeerMaxMegabits: 1000})
	load := func(cpu, memory, celsius float64) func(context.Context, *Lab) error {
		return asGateway(l, func(ctx context.Context) error {
			f, err := host.New(host.Options{}).Read(ctx)
			if err != nil || math.Abs(f.CPUBusy.Value-cpu) > 0.08 || f.MemUsed.Value != memory || f.Temperature.Value != celsius {
				return fmt.Errorf("cpu %v, memory %v, temperature %v: %w", f.CPUBusy, f.MemUsed, f.Temperature, err)
			}
			return nil
		})
	}
	module := func(ok func(optics.Reading) bool) func(context.Context, *Lab) error {
		return asGateway(l, func(ctx context.Context) error {
			r, err := hwmon.New(hwmon.Options{Chip: moduleChip}).ReadOptics(ctx)
			if err == nil && !ok(r) {
				err = errors.New("another reading")
			}
			if err != nil {
				return fmt.Errorf("%+v: %w", r, err)
			}
			return nil
		})
	}
	near := func(got, want float64) bool { return math.Abs(got-want) < 0.4 } // powers are in whole microwatts
	healthy := module(func(r optics.Reading) bool {
		return near(r.RxPower.Value, -21) && near(r.TxPower.Value, 2.3) && r.WarningsKnown && len(r.Warnings) == 0 && near(r.Voltage.Value, 3.3)
	})
	walkThrough(t, l, []walk{
		{
			fault: "lan_port", params: []string{"speed_mbps=100", "duplex=half", "peer_max_mbps=0"}, gone: gigabit,
			there: lan(link.Link{Carrier: true, SpeedMegabits: 100, Duplex: "half", MaxMegabits: 1000}),
		},
		{fault: "lan_unplugged", there: lan(link.Link{SpeedMegabits: 1000, Duplex: "full", MaxMegabits: 1000, PeerMaxMegabits: 1000}), gone: gigabit},
		{
			fault: "gateway_load", params: []string{"cpu_busy_ratio=0.9", "memory_used_ratio=0.6", "temperature_celsius=97"},
			there: load(0.9, 0.6, 97), gone: load(0.2, 0.4, 45),
		},
		{fault: "rx_power", params: []string{"rx_power_dbm=-25"}, gone: healthy, there: module(func(r optics.Reading) bool {
			return r.RxPower.Value < -24 && len(r.Warnings) == 1 && r.Warnings[0] == "rx_low"
		})},
		{fault: "rx_power", params: []string{"rx_power_dbm=none"}, gone: healthy, there: module(func(r optics.Reading) bool {
			return r.RxPower.Status == "no_light" && r.TxPower.Status == "no_light"
		})},
		{fault: "laser", params: []string{"bias_ma=75"}, gone: healthy, there: module(func(r optics.Reading) bool {
			return r.Bias.Value == 75 && len(r.Warnings) == 1 && r.Warnings[0] == "bias_high"
		})},
	})
}
