package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"ontagent/agent/probe/dhcp"
	"ontagent/agent/probe/ntp"
	"ontagent/agent/probe/pppoe"
	"ontagent/agent/probe/tcp"
	"ontagent/cmd/cli"
	"ontagent/collectors/wan"
	"ontagent/config"
)

// probing is one run of a probe of agent/probe by itself.
type probing struct {
	*app
	name     string
	spec     string // see probe_text.go
	outcomes string // as well
	flags    []*probeFlag
	conf     config.Config // the defaults of the flags
	secret   string        // the file that a password is in
	force    bool

	head probeHead
	// held says that less was done than was asked for, so as to disturb nobody:
	// that nothing came of it then proves nothing.
	held bool
}

// probe runs one probe, for who is logged in.
func (a *app) probe(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || strings.HasPrefix(args[0], "-") {
		if len(args) > 0 && args[0] != "help" && args[0] != "-h" && args[0] != "--help" {
			return cli.Exit(cli.Usage, "probe: the name of a probe comes first; `ontagent probe` lists them")
		}
		fmt.Fprint(a.out, "ontagent probe NAME [flags]\n  one measurement by itself, without an order and without a record\n\nProbes (each has --help):\n"+probeList+probeCodes)
		return nil
	}
	p := &probing{app: a, name: args[0]}
	result, err := p.run(ctx, args[1:])
	if _, ok := errors.AsType[*cli.Error](err); ok || errors.Is(err, flag.ErrHelp) {
		return err // nothing was tried
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	p.head.Probe = p.name
	outcome, printErr := p.print(result, err)
	if printErr != nil {
		return cli.Because(cli.Inconclusive, printErr)
	}
	return p.exit(outcome, err)
}

// run reads configuration and flags, and measures.
func (p *probing) run(ctx context.Context, args []string) (any, error) {
	prepare := p.prepare()
	if prepare == nil {
		return nil, cli.Exit(cli.Usage, "unknown probe %q; `ontagent probe` lists them", p.name)
	}
	// The configuration has the defaults of the flags, one of which says where
	// it is.
	p.conf = config.Default()
	prepare(p)
	if err := p.parse(args); err != nil {
		return nil, err
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	p.flags = nil
	measure := prepare(p)
	if err := p.parse(args); err != nil {
		return nil, err
	}
	return measure(ctx)
}

// load reads the configuration, which need not be there unless it was asked for.
func (p *probing) load() error {
	path := p.config
	if path == "" {
		path = config.DefaultPath
	}
	c, _, err := config.Load(path)
	switch {
	case err == nil:
		p.conf = c
	case p.config != "":
		return cli.Because(cli.Usage, err)
	case !errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(p.err, "ontagent: warning: only the flags count:", err)
	}
	return nil
}

func (p *probing) parse(args []string) error {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&p.config, "config", "", "")
	f.BoolVar(&p.json, "json", false, "")
	refused := false
	f.BoolFunc("password", "", func(string) error {
		refused = true
		return flag.ErrHelp // whatever: its text would quote the value
	})
	for _, v := range p.flags {
		f.Var(v, v.name, "")
	}
	err := f.Parse(args)
	switch {
	case refused:
		return p.usageError("--password is refused: every user of this machine can read arguments; there is --password-file")
	case errors.Is(err, flag.ErrHelp):
		i := strings.Index(probeList, "  "+p.name+" ")
		does, _, _ := strings.Cut(probeList[i+2+len(p.name):], "\n")
		fmt.Fprint(p.out, "ontagent probe "+p.name+" [flags]\n  "+strings.TrimSpace(does)+"\n\n"+
			p.spec+probeFlags+"\nOutcomes, each with its exit code:\n"+p.outcomes+probeCodes)
		return err
	case err != nil:
		return p.usageError(err.Error() + "; `ontagent probe " + p.name + " --help` lists the flags")
	case f.NArg() != 0:
		return p.usageError("there is something beside the flags")
	}
	return nil
}

func (p *probing) usageError(text string) error {
	return cli.Exit(cli.Usage, "probe %s: %s", p.name, text)
}

// sources are those that a probe may read: the state of an interface – "" is
// that of the default route – and the system's resolvers.
func (p *probing) sources(name string) *sources {
	return &sources{wan: wan.New(wan.Options{Interface: name, Log: slog.New(slog.DiscardHandler)})}
}

// exit says how the program ends.
func (p *probing) exit(outcome string, err error) error {
	if err == nil {
		code, _ := outcomeIn(p.outcomes, outcome)
		if code == cli.Fail && p.held {
			code = cli.Inconclusive
		}
		if code == cli.OK {
			return nil
		}
		return cli.Silent(code)
	}
	code := cli.Inconclusive
	for _, wrong := range [...]error{pppoe.ErrOptions, dhcp.ErrOptions, ntp.ErrOptions, tcp.ErrOptions} {
		if errors.Is(err, wrong) {
			code = cli.Usage
		}
	}
	return cli.Exit(code, "probe %s: %w", p.name, err)
}

var errInterrupted = errors.New("interrupted")

// outcomeIn finds the exit code of an outcome, and what it means.
func outcomeIn(outcomes, name string) (code int, meaning string) {
	i := strings.Index(outcomes, " "+name+" ")
	if i < 1 || name == "" {
		return cli.Inconclusive, ""
	}
	meaning, _, _ = strings.Cut(outcomes[i+len(name)+2:], "\n")
	return int(outcomes[i-1] - '0'), strings.TrimSpace(meaning)
}
