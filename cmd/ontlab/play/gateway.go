package play

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// layLAN connects gateway and home: by a port that says of its link what the
// scenario wants, or else by a cable.
func (l *Lab) layLAN() (err error) {
	if !l.sc.Gateway.LAN.Given {
		return l.box.Cable(l.gateway, homePort, l.home, "eth0", netbox.CableOptions{})
	}
	if l.lan, err = l.box.Wire(l.gateway, homePort, l.home, "eth0"); err != nil {
		return err
	}
	return l.applyLANPort()
}

// applyLANPort makes what the LAN port says of its link what the settings say.
func (l *Lab) applyLANPort() error {
	if l.lan == nil {
		return errNotHere("LAN port that says what it is told")
	}
	lan := l.sc.Gateway.LAN
	if p, on := l.latest("lan_port"); on {
		lan = scenario.LAN{SpeedMbps: p.SpeedMbps, Duplex: p.Duplex, PortMaxMbps: p.PortMaxMbps, PeerMaxMbps: p.PeerMaxMbps}
	}
	return l.lan.Set(netbox.PHY{
		SpeedMbps: lan.SpeedMbps, HalfDuplex: lan.Duplex == scenario.DuplexHalf, MaxMbps: lan.PortMaxMbps, PeerMaxMbps: lan.PeerMaxMbps,
	})
}

// plugLAN gives the LAN port its link, or takes it, where that is not what the
// other end does.
func (l *Lab) plugLAN(in bool) error {
	if l.lan == nil {
		return nil
	}
	return l.lan.Plug(in)
}

// moduleChip is the name of the optical module's hwmon chip.
const moduleChip = "sfp"

// standDir is where what stands in for the gateway's hardware is.
func (l *Lab) standDir(name string) string { return filepath.Join(l.gateway.Dir(), "hardware", name) }

// startGateway shows the gateway the hardware that the scenario gives it, in
// the place of the machine's that plays it.
func (l *Lab) startGateway(ctx context.Context) error {
	g := l.sc.Gateway
	classes := map[string]string{}
	if g.Module.Given {
		classes["hwmon"] = l.standDir("hwmon")
		if err := l.writeStand("hwmon/hwmon0/name", moduleChip+"\n"); err != nil {
			return err
		}
	}
	if g.Load.Given {
		classes["thermal"] = l.standDir("thermal")
		if err := errors.Join(
			l.writeStand("thermal/thermal_zone0/type", "cpu-thermal\n"), l.applyLoad(), l.startClockwork(ctx),
			l.gateway.Stand(l.standDir("stat"), "/proc/stat"), l.gateway.Stand(l.standDir("meminfo"), "/proc/meminfo"),
		); err != nil {
			return err
		}
	}
	if len(classes) == 0 {
		return nil
	}
	return l.gateway.StandClass(classes)
}

// writeStand writes a file of the stand-ins in one piece, and in place: it may
// be shown elsewhere already.
func (l *Lab) writeStand(name, text string) error {
	path := l.standDir(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as sysfs has it
		return fmt.Errorf("cannot write stand-in: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // as sysfs has it
	if err != nil {
		return fmt.Errorf("cannot write stand-in: %w", err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err = errors.Join(err, f.Truncate(int64(len(text))), f.Close()); err != nil {
		return fmt.Errorf("cannot write stand-in %s: %w", name, err)
	}
	return nil
}

// showModule makes the optical module read what is there now: as the sfp driver
// of the kernel shows it, powers in whole microwatts.
func (l *Lab) showModule() error {
	m := l.sc.Gateway.Module
	if !m.Given {
		return nil
	}
	rx, tx, bias, state := l.sc.Gateway.RxPowerDBm, l.sc.Gateway.TxPowerDBm, l.sc.Gateway.BiasMA, l.sc.Gateway.State
	if p, on := l.latest("rx_power"); on {
		rx = p.RxPowerDBm
	}
	if p, on := l.latest("laser"); on {
		tx, bias = p.TxPowerDBm, p.BiasMA
	}
	if p, on := l.latest("pon_state"); on {
		state = p.State
	}
	if rx == scenario.NoLight() || !strings.Contains("O3 O4 O5", state) {
		tx, bias = scenario.NoLight(), 0 // nobody has told the laser to shine
	}
	rx += scenario.DBm(m.RxOffsetDB)
	write := func(attr string, value float64) error {
		return l.writeStand("hwmon/hwmon0/"+attr, fmt.Sprintf("%.0f\n", value))
	}
	// A limit that there is not is 0 to the driver; one of the upper ones binds
	// nothing.
	high := float64(m.RxWarnHighDBm)
	problems := []error{
		l.writeStand("hwmon/hwmon0/power1_label", "TX_power\n"), l.writeStand("hwmon/hwmon0/in0_label", "VCC\n"),
		write("temp1_input", l.sc.Gateway.TemperatureCelsius*1e3), write("in0_input", m.SupplyV*1e3), write("curr1_input", bias),
		write("power1_input", microwatts(float64(tx))), write("power2_input", microwatts(float64(rx))),
		write("curr1_max", m.BiasWarnMA), write("power2_min", microwatts(float64(m.RxWarnLowDBm))), write("power2_max", microwatts(high)),
	}
	flag := func(attr string, on bool) {
		value := 0.0
		if on {
			value = 1
		}
		problems = append(problems, write(attr, value))
	}
	for _, quantity := range []string{"temp1", "in0", "curr1", "power1", "power2"} {
		for _, side := range []string{"lcrit", "crit", "min", "max"} {
			over := quantity == "curr1" && side == "max" && bias > m.BiasWarnMA ||
				quantity == "power2" && side == "min" && rx < m.RxWarnLowDBm ||
				quantity == "power2" && side == "max" && rx > m.RxWarnHighDBm && m.RxWarnHighDBm != scenario.NoLight()
			flag(quantity+"_"+side+"_alarm", over)
		}
	}
	return errors.Join(problems...)
}

// microwatts of a power in dBm; 0 for none.
func microwatts(dBm float64) float64 { return math.Pow(10, dBm/10) * 1e3 }

// load is how busy the gateway says it is.
type load struct {
	mu   sync.Mutex
	busy float64 // of its processor time; guarded by mu
}

// tickRate is how many ticks of /proc/stat a second has, on every machine.
const tickRate = 100

// applyLoad makes the gateway's load what the settings say.
func (l *Lab) applyLoad() error {
	now := l.sc.Gateway.Load
	if !now.Given {
		return errNotHere("load that is told")
	}
	if p, on := l.latest("gateway_load"); on {
		now.CPUBusyRatio, now.MemoryUsedRatio, now.TemperatureCelsius = p.CPUBusyRatio, p.MemoryUsed, p.Temperature
	}
	l.load.mu.Lock()
	l.load.busy = now.CPUBusyRatio
	l.load.mu.Unlock()
	const total = 250_000 // KiB; a round figure, so that limits can be met exactly
	available := int(math.Round(total * (1 - now.MemoryUsedRatio)))
	return errors.Join(
		l.writeStand("thermal/thermal_zone0/temp", fmt.Sprintf("%.0f\n", now.TemperatureCelsius*1e3)),
		l.writeStand("meminfo", fmt.Sprintf("MemTotal:       %8d kB\nMemFree:        %8d kB\nMemAvailable:   %8d kB\nBuffers:        %8d kB\nCached:         %8d kB\n",
			total, available, available, 0, 0)),
	)
}

// startClockwork lets the processor times of the gateway go on.
func (l *Lab) startClockwork(ctx context.Context) error {
	rest, err := os.ReadFile("/proc/stat")
	if err != nil {
		return fmt.Errorf("cannot read processor times: %w", err)
	}
	// What the kernel says besides: interrupts, the time of the boot.
	if at := bytes.Index(rest, []byte("\nintr ")); at >= 0 {
		rest = rest[at+1:]
	}
	l.noise.start(ctx, "clockwork", func(ctx context.Context) {
		var busy, idle float64
		for last := time.Now(); ; {
			l.load.mu.Lock()
			ratio := l.load.busy
			l.load.mu.Unlock()
			now := time.Now()
			passed := now.Sub(last).Seconds() * tickRate
			last = now
			busy, idle = busy+passed*ratio, idle+passed*(1-ratio)
			if err := l.writeStand("stat", processorTimes(busy, idle)+string(rest)); err != nil {
				l.o.Log.Warn("the gateway's processor times stand still", "error", err)
				return
			}
			if !sleepUntil(ctx, now.Add(20*time.Millisecond)) {
				return
			}
		}
	})
	// There must be something to show.
	return waitFor(ctx, l.standDir("stat"))
}

// processorTimes are the lines of one core in /proc/stat. All figures have the
// same width, so that a reader who meets a change finds a line all the same.
func processorTimes(busy, idle float64) string {
	line := fmt.Sprintf("%010.0f %010d %010d %010.0f %010d %010d %010d %010d %010d %010d\n", busy, 0, 0, idle, 0, 0, 0, 0, 0, 0)
	return "cpu  " + line + "cpu0 " + line
}

// waitFor waits until there is a file with something in it.
func waitFor(ctx context.Context, path string) error {
	for {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return nil
		}
		if !sleepUntil(ctx, time.Now().Add(5*time.Millisecond)) {
			return fmt.Errorf("cannot find %s: %w", path, context.Cause(ctx))
		}
	}
}
