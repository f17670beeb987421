package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/play"
	"ontagent/cmd/ontlab/scenario"
	"ontagent/cmd/ontlab/scratch"
)

// labVerb is the hidden verb that is a lab.
const labVerb = "lab"

// scenarioCopy is the lab's own copy of the file it was built from; the name
// has to stay.
func scenarioCopy(dir, name string) string { return filepath.Join(dir, name+".yaml") }

// up builds a lab and leaves it running.
func (a *app) up(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab up", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	name := f.String("name", "", "by which fault, shell and down find it (default: the scenario's)")
	if err := f.Parse(args); err != nil || f.NArg() != 1 {
		return fmt.Errorf("%w: up [--name NAME] FILE", errUsage)
	}
	s, err := scenario.Load(f.Arg(0))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *name == "" {
		*name = s.Name
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: up: the operator's servers take root; `ontlab run` plays %s in a guest", errUsage, f.Arg(0))
	}
	missing := netbox.Missing(ctx)
	var lacks []string
	for _, need := range play.Needs(s) {
		if slices.Contains(missing, need) {
			lacks = append(lacks, need)
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("%w: this kernel lacks %s, and a guest has no terminal for a lab to be used from; `ontlab run` plays %s in a guest",
			errUsage, strings.Join(lacks, ", "), f.Arg(0))
	}
	entries, err := netbox.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e netbox.Entry) bool { return e.Name == *name }) {
		return fmt.Errorf("%w: there is a lab of the name %s: `ontlab down %s`, or choose another --name", errUsage, *name, *name)
	}
	dir, err := scratch.New("up")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(f.Arg(0))
	if err == nil {
		err = os.WriteFile(scenarioCopy(dir.Path, s.Name), data, 0o600) //nolint:gosec // the name was checked
	}
	if err == nil {
		err = a.startLab(ctx, dir.Path, *name, s.Name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove())
	}
	return errors.Join(dir.Release(), a.tellLab(*name)) // the lab holds it now
}

// startLab starts the lab's process and waits until it is built.
func (a *app) startLab(ctx context.Context, dir, name, scenarioName string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	// It outlives this program: a session of its own, and nobody's death
	// concerns it.
	process, err := command.New(command.Options{}).Start(context.WithoutCancel(ctx), command.Spec{
		Path: self, Args: []string{labVerb, "--dir", dir, "--name", name, scenarioCopy(dir, scenarioName)},
		SysProcAttr: func(attr *syscall.SysProcAttr) { attr.Setpgid, attr.Setsid, attr.Pdeathsig = false, true, 0 },
	})
	if err != nil {
		return fmt.Errorf("cannot start the lab: %w", err)
	}
	for {
		if _, err := play.Ask(ctx, dir, scenario.Moment{}); err == nil {
			return nil
		}
		select {
		case <-process.Done():
			text, _ := os.ReadFile(labLog(dir))
			return fmt.Errorf("the lab did not come up: %s", bytes.TrimSpace(text))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), process.Stop())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func labLog(dir string) string { return filepath.Join(dir, "lab.log") }

// ownLog makes the lab's log this process's output: whoever started it is not
// there to read it.
func ownLog(args []string) error {
	i := slices.Index(args, "--dir")
	if i < 0 || i+1 >= len(args) {
		return fmt.Errorf("%w: lab needs --dir", errUsage)
	}
	log, err := os.OpenFile(labLog(args[i+1]), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write the lab's log: %w", err)
	}
	defer func() { _ = log.Close() }() // its copies stay
	return errors.Join(unix.Dup3(int(log.Fd()), 1, 0), unix.Dup3(int(log.Fd()), 2, 0))
}

// tellLab says what there is and what to do with it.
func (a *app) tellLab(name string) error {
	entry, err := findLab(name)
	if err != nil {
		return err
	}
	var hosts []string
	for _, h := range entry.Hosts {
		hosts = append(hosts, h.Name)
	}
	fmt.Fprintf(a.out, "lab %s is up: hosts %s\n  files   %s\n", name, strings.Join(hosts, " "), entry.Dir)
	fmt.Fprintf(a.out, "  shell   ontlab shell --lab %s gateway\n  fault   ontlab fault --lab %s dns_dead\n  end     ontlab down %s\n", name, name, name)
	return nil
}

// lab is the process of a lab, in the namespaces that Enter made.
func (a *app) lab(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab lab", flag.ContinueOnError)
	f.SetOutput(a.err)
	dir := f.String("dir", "", "the lab's files")
	name := f.String("name", "", "the lab's name")
	if err := f.Parse(args); err != nil || f.NArg() != 1 {
		return fmt.Errorf("%w: lab FILE", errUsage)
	}
	held, err := scratch.Hold(*dir)
	if err != nil {
		return err
	}
	defer held.Remove() //nolint:errcheck // a temporary directory
	s, err := scenario.Load(f.Arg(0))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	l, err := play.Build(ctx, s, play.Options{
		Dir: *dir, BinDir: filepath.Dir(self), Name: *name, Log: slog.New(slog.NewTextHandler(a.err, nil)),
	})
	if err != nil {
		return err
	}
	return errors.Join(l.Serve(ctx), l.Close()) //nolint:contextcheck // ctx has ended by then
}

// findLab returns the lab of a name, or the only one.
func findLab(name string) (netbox.Entry, error) {
	entries, err := netbox.List()
	if err != nil {
		return netbox.Entry{}, err
	}
	if name == "" && len(entries) == 1 {
		return entries[0], nil
	}
	if name == "" {
		return netbox.Entry{}, fmt.Errorf("%w: %d labs are up; say which by --lab NAME", errUsage, len(entries))
	}
	i := slices.IndexFunc(entries, func(e netbox.Entry) bool { return e.Name == name })
	if i < 0 {
		return netbox.Entry{}, fmt.Errorf("%w: there is no lab of the name %s; `ontlab list` names them", errUsage, name)
	}
	return entries[i], nil
}

// list prints the labs that are up, and clears up after those that were killed.
func (a *app) list() error {
	scratch.Sweep()
	entries, err := netbox.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		fmt.Fprintf(a.out, "%s\t%d hosts\t%s\n", e.Name, len(e.Hosts), e.Dir)
	}
	if len(entries) == 0 {
		fmt.Fprintln(a.out, "no lab is up")
	}
	return nil
}

// down ends labs and removes what they left.
func (a *app) down(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab down", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	all := f.Bool("all", false, "end all of them")
	if err := f.Parse(args); err != nil || f.NArg() > 1 || *all && f.NArg() > 0 {
		return fmt.Errorf("%w: down [NAME | --all]", errUsage)
	}
	var entries []netbox.Entry
	var err error
	if *all {
		entries, err = netbox.List()
	} else {
		var e netbox.Entry
		e, err = findLab(f.Arg(0))
		entries = append(entries, e)
	}
	if err != nil {
		return err
	}
	defer scratch.Sweep()
	var problems []error
	for _, e := range entries {
		problems = append(problems, netbox.Down(ctx, e.Name), os.RemoveAll(e.Dir))
	}
	return errors.Join(problems...)
}

// shell runs a shell, or a command, on a host of a lab.
func (a *app) shell(args []string) error {
	f := flag.NewFlagSet("ontlab shell", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	name := f.String("lab", "", "which lab, if there are several")
	if err := f.Parse(args); err != nil || f.NArg() == 0 {
		return fmt.Errorf("%w: shell [--lab NAME] HOST [COMMAND [ARG...]]", errUsage)
	}
	entry, err := findLab(*name)
	if err != nil {
		return err
	}
	argv := f.Args()[1:]
	if len(argv) == 0 {
		argv = []string{"/bin/sh", "-i"}
	}
	return netbox.Shell(entry.Name, f.Arg(0), argv)
}

// fault makes a fault of a lab come or go.
func (a *app) fault(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab fault", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	name := f.String("lab", "", "which lab, if there are several")
	clear := f.Bool("clear", false, "the fault goes")
	if err := f.Parse(args); err != nil || f.NArg() == 0 {
		return fmt.Errorf("%w: fault [--lab NAME] [--clear] FAULT [PARAMETER=VALUE...]; docs/scenarios.md lists them", errUsage)
	}
	entry, err := findLab(*name)
	if err != nil {
		return err
	}
	m := scenario.Moment{Clear: f.Arg(0)}
	if !*clear {
		if m, err = labFault(entry.Dir, f.Arg(0), f.Args()[1:]); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	active, err := play.Ask(ctx, entry.Dir, m)
	if err != nil {
		return err
	}
	if len(active) == 0 {
		active = []string{"none"}
	}
	fmt.Fprintf(a.out, "faults: %s\n", strings.Join(active, " "))
	return nil
}

// labFault reads a fault of the lab whose files are in dir.
func labFault(dir, fault string, params []string) (scenario.Moment, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) != 1 {
		return scenario.Moment{}, fmt.Errorf("cannot find the lab's scenario in %s", dir)
	}
	s, err := scenario.Load(files[0])
	if err != nil {
		return scenario.Moment{}, err
	}
	return s.Fault(fault, params)
}
