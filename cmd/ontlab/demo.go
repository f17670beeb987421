package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ontagent/agent/command"
	"ontagent/agent/diagnosis"
	"ontagent/cmd/ontlab/lab"
	"ontagent/cmd/ontlab/ontsim"
)

const (
	demoDevice = "HWTC12345678"
	demoSerial = "HWTC12345678"
	healthyDBm = -19.2
	weakDBm    = -27.4
	// The contract of the installation.
	demoDownMbps = 500
	demoUpMbps   = 50
)

func (a *app) demo(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet("ontlab demo", flag.ContinueOnError)
	f.SetOutput(a.err)
	lang := f.String("lang", "en", "language of the technician's output: zh-CN or en")
	keep := f.String("keep", "", "leave keys, orders and records in `DIR`")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *lang != string(diagnosis.Chinese) && *lang != string(diagnosis.English) {
		return fmt.Errorf("%w: --lang %q is neither zh-CN nor en", errUsage, *lang)
	}
	dir := *keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "ontlab-demo-"); err != nil {
			return fmt.Errorf("cannot make a directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("%w: --keep makes a new directory: %w", errUsage, err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	l, err := lab.New(dir, filepath.Dir(self), demoDevice)
	if err != nil {
		return err
	}
	d := &demo{app: a, lab: l, lang: *lang, started: time.Now()}
	return d.play(ctx)
}

// demo plays one operator, one technician and one gateway.
type demo struct {
	*app
	lab     *lab.Lab
	lang    string
	started time.Time
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "\n=== %4.1f s  %s\n", time.Since(d.started).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) play(ctx context.Context) (err error) {
	d.say("The operator's side: an MQTT broker, DNS, a speed-test server, an address beyond; and an ONT's console on a pty")
	stopBroker, err := lab.StartBroker()
	if err != nil {
		return err
	}
	defer stopBroker()
	sim, err := ontsim.Start(ctx, ontsim.Options{RxPowerDBm: healthyDBm, Serial: demoSerial})
	if err != nil {
		return fmt.Errorf("cannot start the ONT simulator: %w", err)
	}
	defer func() { err = errors.Join(err, sim.Close()) }()

	d.say("Keys: the operator's root signs a trust list, an operator key vouches for the gateway's own keys")
	config := lab.GatewayConfig{
		ConsolePath: sim.Path(), RootKey: d.lab.Path("root.pub"),
		Extra: "config throughput\n\toption url '" + lab.SpeedURL + "'\n\toption window '3'\n",
	}
	if err := d.lab.WriteConfig(config); err != nil {
		return err
	}
	if err := d.lab.Enrol(ctx); err != nil {
		return err
	}

	d.say("The gateway: ontagent in a network namespace of its own, with a WAN, a LAN port and the console %s", sim.Path())
	log, err := os.Create(d.lab.Path("ontagent.log"))
	if err != nil {
		return fmt.Errorf("cannot write log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := d.lab.StartGateway(ctx, log); err != nil {
		return d.withLog(err)
	}
	defer func() { err = errors.Join(err, d.lab.StopGateway()) }()
	stopDNS, err := lab.StartDNS(ctx)
	if err != nil {
		return err
	}
	defer stopDNS()
	stopSpeed, err := lab.StartSpeedServer(ctx, 1.04*demoDownMbps, 1.04*demoUpMbps)
	if err != nil {
		return err
	}
	defer stopSpeed()
	if err := d.visits(ctx, sim); err != nil {
		return d.withLog(err)
	}
	return nil
}

// withLog adds what the agent last said.
func (d *demo) withLog(err error) error {
	data, readErr := os.ReadFile(d.lab.Path("ontagent.log"))
	if readErr != nil || len(data) == 0 {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return fmt.Errorf("%w\nthe gateway's log ends with:\n  %s", err, strings.Join(lines[max(0, len(lines)-12):], "\n  "))
}

// visit is one run of the acceptance and what must come of it.
type visit struct {
	title  string
	order  string
	record string
	exit   int
}

func (d *demo) visits(ctx context.Context, sim *ontsim.Sim) error {
	// The gateway of the demo is this machine: its load says nothing about a
	// line, so the order sets those limits out of the way, and the record
	// shows that it did.
	own := []string{"--threshold", "cpu.max=2,memory.max=2"}
	resources := []string{"--sn", demoSerial, "--mac", lab.WANMAC, "--lan-port", lab.LANInterface}
	repair := append([]string{"--type", "repair", "--require", lab.BuiltRungs()}, append(own, resources...)...)
	install := append([]string{
		"--type", "install", "--service", fmt.Sprintf("internet:ipoe::%d/%d", demoDownMbps, demoUpMbps),
		"--max-bytes", "2000000000", "--consent", "disturb",
	}, append(own, resources...)...)
	d.say("Two work orders, signed by the operator: WO-repair (修机), WO-install (装机)")
	if err := d.lab.Order(ctx, "WO-repair", repair...); err != nil {
		return err
	}
	if err := d.lab.Order(ctx, "WO-install", install...); err != nil {
		return err
	}
	for _, v := range []visit{
		{"A repair on a healthy line (light at -19.2 dBm): pass", "WO-repair", "1.record", 0},
		{"The same with light at -27.4 dBm: fail", "WO-repair", "2.record", 1},
		{"An installation, with a speed test, but without the AAA extract that its account is held against: inconclusive", "WO-install", "3.record", 3},
	} {
		sim.SetRxPower(healthyDBm)
		if v.exit == 1 {
			sim.SetRxPower(weakDBm)
		}
		d.say("%s", v.title)
		if err := d.ctl(ctx, v.exit, "accept", "--order", d.lab.Path(v.order+".signed"), "--key", d.lab.Path("technician.key"),
			"--time-key", d.lab.Path("time.key"), "--broker", lab.BrokerURL, "--root", d.lab.Path("root.pub"),
			"--record", d.lab.Path(v.record), "--lang", d.lang); err != nil {
			return err
		}
	}
	d.say("The records, checked by a program that knows only the operator's root key")
	if err := d.ctl(ctx, 0, "record", "verify", "--root", d.lab.Path("root.pub"), "--lang", d.lang,
		d.lab.Path("1.record"), d.lab.Path("2.record"), d.lab.Path("3.record")); err != nil {
		return err
	}
	if err := d.receipt(ctx); err != nil {
		return err
	}
	d.say("The second record, as people read it")
	if err := d.ctl(ctx, 0, "record", "show", "--root", d.lab.Path("root.pub"), "--lang", d.lang, d.lab.Path("2.record")); err != nil {
		return err
	}
	d.say("The same record with one reading altered")
	if err := d.alter("2.record", "altered.record"); err != nil {
		return err
	}
	said, err := d.told(ctx, 1, "record", "verify", "--root", d.lab.Path("root.pub"), "--lang", d.lang, d.lab.Path("altered.record"))
	if err != nil {
		return err
	}
	if !strings.Contains(said, " optical: rx_power_dbm\n") {
		return errors.New("ontctl record verify does not name the reading that was altered, and no other")
	}
	d.say("Done: three visits, three verdicts as expected, three records and a receipt verified, two alterations found and named")
	return nil
}

// ctl runs ontctl in front of the audience and holds it to its exit code.
func (d *demo) ctl(ctx context.Context, want int, args ...string) error {
	_, err := d.told(ctx, want, args...)
	return err
}

// told is ctl, and returns what ontctl told.
func (d *demo) told(ctx context.Context, want int, args ...string) (string, error) {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = strings.TrimPrefix(arg, d.lab.Dir+"/")
	}
	fmt.Fprintf(d.out, "$ ontctl %s\n", strings.Join(shown, " "))
	runner := command.New(command.Options{})
	var said bytes.Buffer
	_, err := runner.Run(ctx, command.Spec{Path: d.lab.Ctl, Args: args, Stdout: io.MultiWriter(&said, indent(d.out)), Stderr: indent(d.err)})
	if got := lab.ExitCode(err); got != want {
		return "", fmt.Errorf("ontctl %s ended with %d, expected was %d", args[0], got, want)
	}
	fmt.Fprintf(d.out, "  (exit code %d)\n", want)
	return said.String(), nil
}

// indent sets what a program says apart.
func indent(w io.Writer) io.Writer { return &indenter{w: w, fresh: true} }

type indenter struct {
	w     io.Writer
	fresh bool
}

func (i *indenter) Write(p []byte) (int, error) {
	for _, line := range strings.SplitAfter(string(p), "\n") {
		if line == "" {
			continue
		}
		if i.fresh {
			line = "  " + line
		}
		i.fresh = strings.HasSuffix(line, "\n")
		if _, err := io.WriteString(i.w, line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
