// Package ontsim plays the serial console of an ONT on a pseudo-terminal:
// login, shell, the tools with their odd blanks and line ends, and the awkward
// habits of real consoles, in the dialect of each family that
// collectors/optics/console reads. It is for the demo, for scenarios and for
// tests; nothing on a gateway uses it.
//
// What it says is taken from captures: two blanks before dBm, a blank and LF
// CR after the ONU state, "-inf" without light, a temperature below zero
// printed 256 too high.
package ontsim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// NoLight is the received power of a dark fibre, for SetRxPower.
func NoLight() float64 { return math.Inf(-1) }

// Mode is an awkward habit; modes add up.
type Mode uint

// The modes.
const (
	// KernelLines cuts stamped kernel messages into answers.
	KernelLines Mode = 1 << iota
	// DaemonText lets unstamped text of a daemon bury the first login prompt.
	DaemonText
	// NULs puts NUL bytes before lines.
	NULs
	// LFCR ends all lines with LF CR instead of CR LF.
	LFCR
	// NoEcho does not echo what is typed.
	NoEcho
	// ReadFailed refuses all transceiver values.
	ReadFailed
	// OldTool does not know alarm-status of the transceiver.
	OldTool
	// CommandPrompt shows "RTK.0> command:" instead of "RTK.0> ".
	CommandPrompt
	// Colours wraps values in ANSI sequences.
	Colours
	// Babble streams text without end.
	Babble
	// LoginLoop prints the login prompt again and again.
	LoginLoop
	// BootLoader sits at the prompt of U-Boot.
	BootLoader
	// Booting prints a boot loader's countdown, from the moment somebody has
	// the device open, and starts the ONT when it ends; a byte typed meanwhile
	// stops it, as on the real one.
	Booting
	// Hang reads, but never answers.
	Hang
	// UnknownPrompt shows the prompt of a family nobody knows.
	UnknownPrompt
	// NoDiag has a shell without the diag tool.
	NoDiag
	// Vanish closes the line in the middle of the next rx-power answer.
	Vanish
)

// Options configure a Sim. The zero value is a healthy ONT that wants no
// login: -19.2 dBm, O5, provisioned.
type Options struct {
	// Driver is the dialect, one of Dialects; "" means rtl960x.
	Driver string
	// StepPassword is asked for by the way from the outer tier to the inner
	// one; "" means that it is not. rtl960x has none.
	StepPassword string
	// RxPowerDBm is the received power; 0 means -19.2, for 0 dBm use
	// SetRxPower.
	RxPowerDBm float64
	// State is the O name; "" means O5.
	State string
	// Serial is the GPON serial number; "" means ONTS00000001.
	Serial string
	// NotProvisioned leaves the OMCI unprovisioned.
	NotProvisioned bool
	// Username and Password ask for a login; "" means none.
	Username, Password string
	// TemperatureCelsius; 0 means 42.359375.
	TemperatureCelsius float64
	// TxPowerDBm is what the laser gives while it is on; 0 means 2.287339, for
	// none use SetLaser.
	TxPowerDBm float64
	// BiasMA is the laser's bias current while it is on; 0 means 14.35.
	BiasMA float64
	// SupplyV is the supply voltage; 0 means 3.1703, for none use SetSupply.
	SupplyV float64
	// Modes to begin with.
	Modes Mode
	// Delay before each answer.
	Delay time.Duration
}

// Sim is a running simulation.
type Sim struct {
	path   string
	master *os.File
	cancel context.CancelFunc
	done   chan struct{}

	dialect *dialect // nil for rtl960x

	mu               sync.Mutex
	typedN, printedN int64     // bytes typed and printed; guarded by mu
	tier             int       // logins passed; guarded by mu
	opts             Options   // guarded by mu
	received         []string  // guarded by mu
	out              []byte    // guarded by mu; text waiting for the line
	where            place     // guarded by mu
	typed            []byte    // guarded by mu
	user             string    // guarded by mu
	began            time.Time // of the boot; guarded by mu
	booted           int       // steps of the boot that were printed; guarded by mu
	kernel           int       // kernel messages so far; guarded by mu
	counters         counters  // guarded by mu
	vanished         bool      // guarded by mu
	alarms           []string  // guarded by mu
	buried           bool      // the login prompt was, once; guarded by mu
}

type counters struct{ tooLong, bip, bipBlocks, fecBits, fecBytes, fecCorrected, fecUncorrected, good uint64 }

// place is where the console is.
type place int

const (
	atLogin place = iota
	atPassword
	atShell
	atDiag
	atBoot
	atUnknown
	atStepPassword
)

// Start opens a pseudo-terminal and plays an ONT on it until ctx ends or
// Close is called.
func Start(ctx context.Context, opts Options) (*Sim, error) {
	dialect := dialects()[opts.Driver]
	if dialect == nil && opts.Driver != "" && opts.Driver != "rtl960x" {
		return nil, fmt.Errorf("cannot start ONT simulator: no dialect %q", opts.Driver)
	}
	master, path, err := openPTY()
	if err != nil {
		return nil, fmt.Errorf("cannot start ONT simulator: %w", err)
	}
	if opts.RxPowerDBm == 0 {
		opts.RxPowerDBm = -19.2
	}
	if opts.State == "" {
		opts.State = "O5"
	}
	if opts.Serial == "" {
		opts.Serial = "ONTS00000001"
	}
	if opts.TemperatureCelsius == 0 {
		opts.TemperatureCelsius = 42.359375
	}
	if opts.TxPowerDBm == 0 {
		opts.TxPowerDBm = 2.287339
	}
	if opts.BiasMA == 0 {
		opts.BiasMA = 14.35
	}
	if opts.SupplyV == 0 {
		opts.SupplyV = 3.1703
	}
	s := &Sim{path: path, master: master, dialect: dialect, opts: opts, done: make(chan struct{}), counters: counters{good: 999}}
	s.restart()
	ctx, s.cancel = context.WithCancel(ctx)
	go s.serve(ctx)
	return s, nil
}

// Path is the serial device to open.
func (s *Sim) Path() string { return s.path }

// Close ends the simulation; whoever has the device open sees it vanish.
func (s *Sim) Close() error {
	s.cancel()
	<-s.done
	return nil
}

// SetRxPower sets the received power in dBm; NoLight() or below -40 is dark.
func (s *Sim) SetRxPower(dBm float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.RxPowerDBm = dBm
}

// SetState sets the state by its O name, O1 to O7.
func (s *Sim) SetState(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.State = name
}

// SetSerial sets the GPON serial number.
func (s *Sim) SetSerial(sn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Serial = sn
}

// SetOMCI says whether the OLT has provisioned services.
func (s *Sim) SetOMCI(provisioned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.NotProvisioned = !provisioned
}

// SetTemperature sets the temperature in degrees Celsius.
func (s *Sim) SetTemperature(celsius float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.TemperatureCelsius = celsius
}

// SetLaser sets what the laser gives while it is on, in dBm – NoLight() or
// below -40 is nothing at all –, and its bias current then.
func (s *Sim) SetLaser(dBm, biasMA float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.TxPowerDBm, s.opts.BiasMA = dBm, biasMA
}

// SetSupply sets the supply voltage; 0 is how a broken read looks.
func (s *Sim) SetSupply(volts float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.SupplyV = volts
}

// Overrun lets the PON MAC count that the laser stayed on beyond its time
// slots.
func (s *Sim) Overrun(times uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.tooLong += times
}

// SetAlarms sets the active alarms of the PON MAC by their printed names:
// LOS, LOF, LOM, SF, SD, "TX Too Long", "TX Mismatch". LOS is active by itself
// without light.
func (s *Sim) SetAlarms(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alarms = append([]string(nil), names...)
}

// AddErrors lets the error counters grow.
func (s *Sim) AddErrors(bip, fecCorrected, fecUncorrected uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.bip += bip
	s.counters.bipBlocks += (bip + 7) / 8
	s.counters.fecBits += fecCorrected
	s.counters.fecBytes += fecCorrected
	s.counters.fecCorrected += fecCorrected
	s.counters.fecUncorrected += fecUncorrected
}

// SetModes replaces the awkward habits. The console stays where it is; use
// Restart to begin anew.
func (s *Sim) SetModes(m Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Modes = m
}

// Restart is a power cut: whatever was typed or logged in is forgotten.
func (s *Sim) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart()
}

// Received returns every line that was typed, in order, the empty ones too.
// Passwords are shown as typed: they are the lab's own.
func (s *Sim) Received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.received...)
}

// Traffic returns how many bytes were typed and how many were printed so far.
func (s *Sim) Traffic() (typed, printed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.typedN, s.printedN
}

// Say prints text, as a daemon would, whatever is going on.
func (s *Sim) Say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print(text)
}

func (s *Sim) has(m Mode) bool { return s.opts.Modes&m != 0 }

// restart begins anew; s.mu is held or not yet shared.
func (s *Sim) restart() {
	s.typed, s.user, s.out, s.buried, s.booted, s.tier = nil, "", nil, false, 0, 0
	s.began = time.Now()
	switch {
	case s.has(BootLoader), s.has(Booting):
		s.where = atBoot
	case s.has(UnknownPrompt):
		s.where = atUnknown
	case s.opts.Username != "":
		s.where = atLogin
	case s.dialect != nil:
		s.where = s.dialect.home()
	default:
		s.where = atShell
	}
}

// serve moves bytes between the line and the console.
func (s *Sim) serve(ctx context.Context) {
	defer close(s.done)
	defer func() { _ = s.master.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.master.SetDeadline(time.Now()) })
	defer stop()
	const tick = 10 * time.Millisecond
	buf := make([]byte, 512)
	lastTick := time.Now()
	for ctx.Err() == nil {
		_ = s.master.SetReadDeadline(time.Now().Add(tick))
		n, err := s.master.Read(buf)
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, unix.EIO): // nobody has the device open
			s.mu.Lock()
			s.out = nil // a line that nobody listens to keeps nothing
			s.began, s.booted = time.Now(), 0
			s.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(tick):
			}
			continue
		default:
			return
		}
		s.mu.Lock()
		for _, b := range buf[:n] {
			s.take(b)
		}
		if now := time.Now(); now.Sub(lastTick) >= tick {
			lastTick = now
			s.tick(now)
		}
		s.typedN += int64(max(n, 0))
		s.printedN += int64(len(s.out))
		out, delay, vanish := s.out, s.opts.Delay, s.vanished
		s.out = nil
		s.mu.Unlock()
		if len(out) > 0 {
			if n > 0 && delay > 0 {
				select {
				case <-ctx.Done():
					return
				case <-time.After(delay):
				}
			}
			s.write(ctx, out)
		}
		if vanish {
			// What was written is lost with the line unless it was read.
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			return
		}
	}
}

// write sends bytes; what a full line does not take within a second is lost.
func (s *Sim) write(ctx context.Context, b []byte) {
	if ctx.Err() != nil {
		return
	}
	_ = s.master.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = s.master.Write(b)
}

// tick plays what happens by itself.
func (s *Sim) tick(now time.Time) {
	switch {
	case s.has(Babble):
		s.out = append(s.out, strings.Repeat("x", 2048)...)
	case s.has(LoginLoop):
		s.print("\nlogin: ")
	case s.where == atBoot && s.has(Booting):
		s.boot(now)
	}
}

// boot prints a countdown, a number every tenth of a second, and starts the
// ONT at its end.
func (s *Sim) boot(now time.Time) {
	const step = 100 * time.Millisecond
	at := int(now.Sub(s.began) / step)
	switch {
	case s.booted == 0 && at == 0:
		s.booted = 1
		s.print("\nU-Boot 2011.12 (lab)\n\nHit any key to stop autoboot:  3 ")
	case at >= s.booted && s.booted <= 3:
		s.booted++
		s.print(fmt.Sprintf("\b\b\b%2d ", 4-s.booted))
	case at > 3:
		s.booted = 0
		s.opts.Modes &^= Booting
		s.restart()
		s.print("\n## Booting kernel\nLinux version 2.6.30.9 (lab)\n")
		s.greet()
	}
}

// greet prints the prompt of where the console is.
func (s *Sim) greet() {
	if s.dialect != nil {
		s.greetDialect()
		return
	}
	switch s.where {
	case atLogin:
		s.print("login: ")
		if s.has(DaemonText) && !s.buried {
			s.buried = true
			s.print("service /bin/ftpd port 21 tcp enabled\n")
		}
	case atPassword:
		s.print("Password: ")
	case atShell:
		s.print("# ")
	case atDiag:
		if s.has(CommandPrompt) {
			s.print("RTK.0> command:")
		} else {
			s.print("RTK.0> ")
		}
	case atBoot:
		s.print("=> ")
	case atUnknown:
		s.print("ZXHN> ")
	case atStepPassword:
	}
}

// print queues text with the line ends of a terminal.
func (s *Sim) print(text string) {
	end := "\r\n"
	if s.has(LFCR) {
		end = "\n\r"
	}
	if s.has(NULs) {
		end += "\x00\x00"
	}
	s.out = append(s.out, strings.ReplaceAll(text, "\n", end)...)
}

// take handles one typed byte.
func (s *Sim) take(b byte) {
	if s.where == atBoot && s.has(Booting) {
		// The countdown was stopped: the ONT is down until somebody comes.
		s.opts.Modes = s.opts.Modes&^Booting | BootLoader
		s.received = append(s.received, string(b))
		s.print("\n")
		s.greet()
		return
	}
	if b != '\r' && b != '\n' {
		if len(s.typed) < 1024 {
			s.typed = append(s.typed, b)
		}
		if !s.has(NoEcho) && !s.has(Hang) {
			if s.where == atPassword || s.where == atStepPassword {
				b = '*'
			}
			s.out = append(s.out, b)
		}
		return
	}
	line := string(s.typed)
	s.typed = nil
	s.received = append(s.received, line)
	if s.has(Hang) {
		return
	}
	if !s.has(NoEcho) {
		s.print("\n")
	}
	s.obey(strings.TrimSpace(line))
	if !s.vanished {
		s.greet()
	}
}

// obey executes one line.
func (s *Sim) obey(line string) {
	if s.dialect != nil && (s.where == atShell || s.where == atDiag || s.where == atStepPassword) {
		s.obeyDialect(line)
		return
	}
	switch s.where {
	case atLogin:
		if line != "" {
			s.user, s.where = line, atPassword
		}
	case atPassword:
		if s.user != s.opts.Username || line != s.opts.Password {
			s.print("Login incorrect\n")
			s.where = atLogin
			return
		}
		if s.dialect != nil {
			s.tier++
			s.where = s.dialect.home()
			if s.tier < s.dialect.logins {
				s.where = atLogin
			}
			s.print("\n")
			return
		}
		s.where = atShell
		s.print("\n\nBusyBox v1.12.4 (2025-03-20 16:59:46 CST) built-in shell (ash)\nEnter 'help' for a list of built-in commands.\n\n")
	case atShell:
		s.shell(line)
	case atDiag:
		s.diag(line)
	case atBoot:
		if line != "" {
			s.print("Unknown command '" + line + "' - try 'help'\n")
		}
	case atUnknown:
		if line != "" {
			s.print("%Error 20201: Unknown command\n")
		}
	case atStepPassword:
	}
}

func (s *Sim) shell(line string) {
	switch line {
	case "":
	case "diag":
		if s.has(NoDiag) {
			s.print("-sh: diag: not found\n")
			return
		}
		s.where = atDiag
	case "ps":
		s.print("  PID USER       VSZ STAT COMMAND\n    1 admin     1212 S    init\n")
		for _, pid := range []int{321, 477} {
			s.print(fmt.Sprintf("  %3d admin    22616 S    omci_app -s %s -f off 0 -m enable_wq -d err\n", pid, s.opts.Serial))
		}
	case "exit":
		if s.opts.Username != "" {
			s.where = atLogin
			s.print("\n")
		}
	default:
		word, _, _ := strings.Cut(line, " ")
		s.print("-sh: " + word + ": not found\n")
	}
}

// stateNames are the words diag prints for a state.
func stateName(o string) string {
	switch o {
	case "O1":
		return "Initial State"
	case "O2":
		return "Standby State"
	case "O3":
		return "Serial Number State"
	case "O4":
		return "Ranging State"
	case "O5":
		return "Operation State"
	case "O6":
		return "POPUP State"
	case "O7":
		return "Emergency Stop State"
	}
	return ""
}

func (s *Sim) diag(line string) {
	const rule = "============================================================\n"
	dark := s.opts.RxPowerDBm < -40
	what, transceiver := strings.CutPrefix(line, "pon get transceiver ")
	if transceiver && s.has(ReadFailed) {
		s.print("% transceiver read failed\n")
		return
	}
	if transceiver && what == "alarm-status" {
		s.transceiverAlarms(dark)
		return
	}
	if transceiver {
		s.transceiver(what, dark)
		return
	}
	switch line {
	case "":
	case "exit":
		s.where = atShell
	case "gpon get onu-state":
		name := stateName(s.opts.State)
		if name == "" {
			s.print("ONU state: Unknown \n\r")
			return
		}
		s.answer("ONU state: "+name, "("+s.opts.State+") \n\r")
	case "gpon get alarm-status":
		for _, name := range []string{"LOS", "LOF", "LOM", "SF", "SD", "TX Too Long", "TX Mismatch"} {
			word := "clear"
			for _, on := range s.alarms {
				if on == name {
					word = "occur"
				}
			}
			if name == "LOS" && dark {
				word = "occur"
			}
			s.print("Alarm " + name + ", status: " + word + "\n")
		}
	case "gpon get rogue-sd-cnt":
		s.print(fmt.Sprintf("SD too long count: %d\nSD mismatch count: 0\n", s.counters.tooLong))
	case "gpon show counter global ds-phy":
		c := &s.counters
		c.good += 1000
		s.print(rule + "     GPON ONU MAC Device Counter: DS PHY\n")
		for _, row := range []struct {
			label string
			n     uint64
		}{
			{"BIP Error bits  ", c.bip},
			{"BIP Error blocks", c.bipBlocks},
			{"FEC Correct bits", c.fecBits},
			{"FEC Correct bytes", c.fecBytes},
			{"FEC Correct codewords", c.fecCorrected},
			{"FEC codewords Uncor", c.fecUncorrected},
			{"Superframe LOS  ", 0},
			{"PLEN fail       ", 0},
			{"PLEN correct    ", c.good},
		} {
			s.print(fmt.Sprintf("%s: %d\n", row.label, row.n))
		}
		s.print(rule)
	case "gpon show us-flow":
		s.print(rule + "    GPON ONU MAC U/S Flow Status\nFlow ID | GEM Port | Type | TCont\n")
		if !s.opts.NotProvisioned {
			s.print("      0 |      263 |  ETH |     0\n      1 |      264 |  ETH |     1\n      2 |      267 |  ETH |     1\n")
		}
		s.print("     64 |        2 | OMCI |    16\n" + rule)
	default:
		s.print("^Incomplete command\n")
	}
}

// transceiver prints one value.
func (s *Sim) transceiver(what string, dark bool) {
	power := func(label string, dBm float64, on bool) {
		if !on {
			s.answer(label+": ", "-inf  dBm\n")
			return
		}
		s.answer(label+": ", fmt.Sprintf("%f  dBm\n", dBm))
	}
	switch what {
	case "rx-power":
		if s.has(Vanish) {
			s.print("Rx Power: -1")
			s.vanished = true
			return
		}
		power("Rx Power", s.opts.RxPowerDBm, !dark)
	case "tx-power":
		power("Tx Power", s.opts.TxPowerDBm, s.shines())
	case "bias-current":
		s.answer("Bias Current: ", fmt.Sprintf("%f mA\n", s.bias()))
	case "temperature":
		t := s.opts.TemperatureCelsius
		if t < 0 {
			t += 256 // the tool reads the high byte unsigned
		}
		s.answer("Temperature: ", fmt.Sprintf("%f C\n", t))
	case "voltage":
		s.answer("Voltage: ", fmt.Sprintf("%f V\n", s.opts.SupplyV))
	default:
		s.print("^Incomplete command\n")
	}
}

// transceiverAlarms prints the flags of the transceiver.
func (s *Sim) transceiverAlarms(dark bool) {
	if s.has(OldTool) {
		s.print("^Incomplete command\n")
		return
	}
	for _, row := range []struct {
		level                 string
		rxLow, rxHi, biasHigh float64
	}{{"Alarm", -27.0, -7.0, 80}, {"Warning", -26.0, -8.0, 70}} {
		for _, what := range []string{"Temperature", "Voltage", "Bias Current", "Tx Power", "Rx Power"} {
			for _, side := range []string{"high", "low"} {
				word := "clear"
				if what == "Rx Power" && (side == "low" && s.opts.RxPowerDBm <= row.rxLow || side == "high" && s.opts.RxPowerDBm >= row.rxHi) ||
					what == "Bias Current" && side == "high" && s.bias() >= row.biasHigh {
					word = "occur"
				}
				s.print(row.level + " " + what + " " + side + ", status: " + word + "\n")
			}
		}
	}
	word := "clear"
	if dark {
		word = "occur"
	}
	s.print("Optical LOS, status: " + word + "\n")
}

// answer prints a line in two parts, with what the modes put between them.
func (s *Sim) answer(label, value string) {
	s.print(label)
	if s.has(KernelLines) {
		s.kernel++
		s.out = append(s.out, fmt.Sprintf("[%5d.%06d] eth0.2: link change %d\r\n", 100+s.kernel, s.kernel, s.kernel)...)
	}
	if s.has(Colours) {
		text := strings.TrimRight(value, "\n\r")
		s.print("\x1b[1;32m" + text + "\x1b[0m" + value[len(text):])
		return
	}
	s.print(value)
}
