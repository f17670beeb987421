package play

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ontagent/cmd/ontlab/ontsim"
	"ontagent/cmd/ontlab/scenario"
)

// applyConsole makes what the ONT's console says, and how, what the settings
// say.
func (l *Lab) applyConsole(ctx context.Context, fault string) error {
	g := l.sc.Gateway
	p, on := l.latest(fault)
	switch fault {
	case "rx_power":
		if !on {
			p.RxPowerDBm = g.RxPowerDBm
		}
		l.sim.SetRxPower(float64(p.RxPowerDBm))
		return errors.Join(l.showModule(), l.setFibre(ctx))
	case "pon_state":
		if !on {
			p.State, p.OMCI, p.Alarms = g.State, g.OMCI, g.Alarms
		}
		l.sim.SetState(p.State)
		l.sim.SetOMCI(p.OMCI)
		l.setAlarms()
		return errors.Join(l.showModule(), l.setFibre(ctx))
	case "laser":
		if !on {
			p.TxPowerDBm, p.BiasMA = g.TxPowerDBm, g.BiasMA
		}
		l.sim.SetLaser(float64(p.TxPowerDBm), p.BiasMA)
		return l.showModule()
	case "rogue_laser":
		l.setAlarms()
		l.noise.end(fault)
		if on {
			l.noise.start(ctx, fault, func(ctx context.Context) { overrun(ctx, l.sim, p.TooLongPerS) })
		}
		return nil
	case "bit_errors":
		if on {
			l.noise.start(ctx, fault, func(ctx context.Context) { bitErrors(ctx, l.sim, p) })
		} else {
			l.noise.end(fault)
		}
		return nil
	}
	modes, err := l.consoleModes()
	if err != nil {
		return err
	}
	return l.setModes(ctx, modes)
}

// setAlarms makes the alarms of the PON port what the settings say.
func (l *Lab) setAlarms() {
	alarms := l.sc.Gateway.Alarms
	if p, on := l.latest("pon_state"); on {
		alarms = p.Alarms
	}
	if l.on("rogue_laser") {
		alarms = append(slices.Clip(alarms), "TX Too Long")
	}
	l.sim.SetAlarms(alarms...)
}

// setFibre lets the line carry frames only while an ONT could: there is light,
// the OLT has admitted it, and provisioned its services.
func (l *Lab) setFibre(ctx context.Context) error {
	light, state, omci := l.sc.Gateway.RxPowerDBm, l.sc.Gateway.State, l.sc.Gateway.OMCI
	if p, on := l.latest("rx_power"); on {
		light = p.RxPowerDBm
	}
	if p, on := l.latest("pon_state"); on {
		state, omci = p.State, p.OMCI
	}
	var chains strings.Builder
	if light == scenario.NoLight() || state != "O5" || !omci {
		for _, port := range []string{"eth0", "pon0"} {
			fmt.Fprintf(&chains, "chain %[1]s {\ntype filter hook ingress device %[1]q priority 0; policy drop;\n}\n", port)
		}
	}
	return rules(ctx, l.ont, "netdev fibre", chains.String())
}

// consoleModes are the habits that the console has now.
func (l *Lab) consoleModes() (ontsim.Mode, error) {
	names := l.sc.Gateway.ConsoleHabits
	if p, on := l.latest("console_habit"); on {
		names = p.Habits
	}
	var modes ontsim.Mode
	for _, name := range names {
		mode, err := consoleMode(l.sc.Gateway.Console, name)
		if err != nil {
			return 0, err
		}
		modes |= mode
	}
	if l.on("console_dead") {
		modes |= ontsim.Hang
	}
	return modes, nil
}

// consoleMode is the habit of a name, where the console's family can have it.
func consoleMode(family, name string) (ontsim.Mode, error) {
	mode := map[string]ontsim.Mode{
		"kernel_lines": ontsim.KernelLines, "daemon_text": ontsim.DaemonText, "nuls": ontsim.NULs, "lfcr": ontsim.LFCR,
		"no_echo": ontsim.NoEcho, "read_failed": ontsim.ReadFailed, "old_tool": ontsim.OldTool,
		"command_prompt": ontsim.CommandPrompt, "colours": ontsim.Colours, "babble": ontsim.Babble,
		"login_loop": ontsim.LoginLoop, "boot_loader": ontsim.BootLoader, "booting": ontsim.Booting, "hang": ontsim.Hang,
		"unknown_prompt": ontsim.UnknownPrompt, "no_diag": ontsim.NoDiag, "vanish": ontsim.Vanish,
	}[name]
	const ofRTL960x = ontsim.OldTool | ontsim.CommandPrompt | ontsim.Vanish
	switch {
	case mode == 0:
		return 0, fmt.Errorf("no console has the habit %q", name)
	case family != "rtl960x" && mode&ofRTL960x != 0:
		return 0, fmt.Errorf("a console of the family %s cannot have the habit %s", family, name)
	}
	return mode, nil
}

// setModes changes the console's habits. Those that it has from its start on,
// and their end, need a new start.
func (l *Lab) setModes(ctx context.Context, modes ontsim.Mode) error {
	const fromStart = ontsim.DaemonText | ontsim.LoginLoop | ontsim.BootLoader | ontsim.Booting | ontsim.UnknownPrompt
	old := l.modes
	l.modes = modes
	if old&ontsim.Vanish != 0 {
		// It may have gone, for good.
		return errors.Join(l.sim.Close(), l.startConsole(ctx))
	}
	l.sim.SetModes(modes)
	if (old^modes)&fromStart != 0 {
		l.sim.Restart()
	}
	return nil
}

// startConsole starts the ONT's console. The gateway knows it by a name that
// stays, whichever pseudo-terminal it is.
func (l *Lab) startConsole(ctx context.Context) error {
	modes, err := l.consoleModes()
	if err != nil {
		return fmt.Errorf("cannot start the ONT's console: %w", err)
	}
	g := l.sc.Gateway
	o := ontsim.Options{
		Driver: g.Console, State: g.State, Serial: g.Serial, NotProvisioned: !g.OMCI, TemperatureCelsius: g.TemperatureCelsius,
		Modes: modes,
	}
	if l.consoleLogin() {
		o.Username, o.Password = consoleUser, consolePassword
	}
	sim, err := ontsim.Start(context.WithoutCancel(ctx), o)
	if err != nil {
		return fmt.Errorf("cannot start the ONT's console: %w", err)
	}
	l.sim, l.modes = sim, modes
	if g.TemperatureCelsius == 0 {
		sim.SetTemperature(0) // the option's zero is another one
	}
	sim.SetSupply(g.SupplyV)
	for _, fault := range []string{"rx_power", "pon_state", "bit_errors", "laser", "rogue_laser"} {
		if err := l.applyConsole(ctx, fault); err != nil {
			return err
		}
	}
	if err := os.Remove(l.consolePort()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot name the ONT's console: %w", err)
	}
	if err := os.Symlink(sim.Path(), l.consolePort()); err != nil {
		return fmt.Errorf("cannot name the ONT's console: %w", err)
	}
	return nil
}

func (l *Lab) consolePort() string { return filepath.Join(l.gateway.Dir(), "ont-console") }

// Of a console that asks who is there.
const (
	consoleUser     = "admin"
	consolePassword = "lab"
)

// consoleLogin says whether the console asks for a login: only at its prompt
// some habits show.
func (l *Lab) consoleLogin() bool {
	shows := func(habits []string) bool {
		for _, h := range habits {
			if h == "daemon_text" || h == "login_loop" {
				return true
			}
		}
		return false
	}
	for _, m := range l.sc.Timeline {
		if shows(m.Params.Habits) {
			return true
		}
	}
	return shows(l.sc.Gateway.ConsoleHabits)
}
