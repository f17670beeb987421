// Ontagent runs on a subscriber's optical gateway. `ontagent run` is the daemon:
// it reads light, registration, links and load, streams them over MQTT, and
// carries out signed work orders. The other verbs are for whoever is logged in
// on the gateway; where a daemon runs they ask it, so that nobody gets into its
// way.
//
// Exit codes: 0 pass or done, 1 fail, 2 bad input or usage, 3 inconclusive,
// 4 refused, 5 unreachable.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/control"
	"ontagent/agent/diagnosis"
	"ontagent/cmd/cli"
	"ontagent/config"
)

// version is set by the build.
var version = "dev" //nolint:gochecknoglobals // the linker writes it

// built is when the source of this build was committed, in Unix seconds; set by
// the build, empty if that is not known.
var built = "" //nolint:gochecknoglobals // the linker writes it

// buildTime is a time that has certainly passed; zero if it is not known.
func buildTime() time.Time {
	seconds, err := strconv.ParseInt(built, 10, 64)
	if err != nil {
		return time.Time{}
	}
	const slack = 24 * time.Hour // clocks of those who build differ
	return time.Unix(seconds, 0).UTC().Add(-slack)
}

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(cli.Main(a.run))
}

// app is one invocation.
type app struct {
	in       io.Reader
	out, err io.Writer
	verb     string
	config   string
	json     bool
	recent   bool
	lang     string
}

type verb struct {
	name, args, help string
	run              func(a *app, ctx context.Context, args []string) error
}

func verbs() []verb {
	return []verb{
		{"run", "", "the daemon", (*app).daemon},
		{"status", "", "how the daemon is", (*app).status},
		{"collect", "", "read everything once", (*app).collect},
		{"optics", "", "read every optical source, fresh; optics decode FILE: an EEPROM image; optics parse --driver NAME FILE: a captured console", (*app).optics},
		{"diagnose", "", "climb the read-only rungs and say what is wrong, no record; --recent: only what telemetry saw change in the last minutes", (*app).diagnose},
		{"inspections", "", "the log of the line's inspections, and when the next is due", (*app).inspections},
		{"probe", "NAME", "one measurement by itself (pppoe, dhcp, dns, ping, …): `ontagent probe` lists them", (*app).probe},
		{"throughput", "", "measure the line's speed in each direction, against --contract; it loads the line", (*app).throughput},
		{"accept", "REQUEST.json", "hand a signed order and command to the daemon", (*app).accept},
		{"queue", "", "what waits for the broker: depth, age, drops and gaps by class; queue check DIR: verify a spool on flash", (*app).queue},
		{"identity", "", "print the public keys the operator vouches for (made at first use)", (*app).identity},
		{"config", "check|show", "check the configuration, or print it with secrets redacted", (*app).configure},
		{"version", "", "print the version", (*app).version},
	}
}

func (a *app) run(ctx context.Context, args []string) int {
	err := a.dispatch(ctx, args)
	var exit *cli.Error
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return cli.OK
	case errors.As(err, &exit):
		if exit.Err != nil {
			fmt.Fprintln(a.err, "ontagent:", exit.Err)
		}
		return exit.Code
	case errors.Is(err, control.ErrUnreachable):
		fmt.Fprintln(a.err, "ontagent:", err)
		return cli.Unreachable
	}
	fmt.Fprintln(a.err, "ontagent:", err)
	return cli.Usage
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		a.usage()
		return cli.Exit(cli.Usage, "no verb given")
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		a.usage()
		return nil
	}
	for _, v := range verbs() {
		if v.name == args[0] {
			a.verb = v.name
			return v.run(a, ctx, args[1:])
		}
	}
	return cli.Exit(cli.Usage, "unknown verb %q; `ontagent help` lists them", args[0])
}

func (a *app) usage() {
	fmt.Fprintln(a.out, "ontagent: the agent on the optical gateway\n\nVerbs (each has --help):")
	for _, v := range verbs() {
		fmt.Fprintf(a.out, "  %-11s %-13s %s\n", v.name, v.args, v.help)
	}
	fmt.Fprintln(a.out, "\n"+cli.Codes)
}

// parse reads the flags every verb has and checks the number of arguments.
func (a *app) parse(name string, args []string, want int) ([]string, error) {
	f := flag.NewFlagSet("ontagent "+name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is told once, by run; help goes to out
	f.StringVar(&a.config, "config", config.DefaultPath, "configuration `FILE`")
	f.BoolVar(&a.json, "json", false, "print JSON")
	if name == "diagnose" {
		f.BoolVar(&a.recent, "recent", false, "don't climb: show what telemetry saw change in the last minutes")
	}
	f.StringVar(&a.lang, "lang", "", "`LANGUAGE`: zh-CN or en (default: as configured)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			a.help(f)
			return nil, err
		}
		return nil, cli.Exit(cli.Usage, "%s: %w; `%s --help` lists the flags", name, err, f.Name())
	}
	if f.NArg() != want {
		takes := "nothing beside its flags"
		if want > 0 {
			takes = "one file, after its flags"
		}
		return nil, cli.Exit(cli.Usage, "%s takes %s, got %d", name, takes, f.NArg())
	}
	if a.lang != "" {
		if _, known := diagnosis.ParseLang(a.lang); !known {
			return nil, cli.Exit(cli.Usage, "--lang %q is neither zh-CN nor en", a.lang)
		}
	}
	return f.Args(), nil
}

// help prints what a verb does and takes.
func (a *app) help(f *flag.FlagSet) {
	for _, v := range verbs() {
		if v.name == a.verb {
			fmt.Fprintf(a.out, "ontagent %s\n  %s\n\n", strings.TrimSpace(v.name+" "+v.args), v.help)
		}
	}
	var text strings.Builder
	f.SetOutput(&text)
	f.PrintDefaults()
	fmt.Fprint(a.out, strings.ReplaceAll("\n"+text.String(), "\n  -", "\n  --")[1:])
}

// load reads and checks the configuration. Its warnings go to standard error
// where they can be acted upon; to all others they would be noise.
func (a *app) load() (config.Config, error) {
	c, warnings, err := config.Load(a.config)
	if err != nil {
		return config.Config{}, cli.Because(cli.Usage, err)
	}
	if a.verb == "run" || a.verb == "config" {
		for _, w := range warnings {
			fmt.Fprintln(a.err, "ontagent: warning:", w)
		}
	}
	if err := c.Check(); err != nil {
		return config.Config{}, cli.Because(cli.Usage, err)
	}
	if a.lang == "" {
		a.lang = c.Main.Language
	}
	return c, nil
}

func (a *app) version(context.Context, []string) error {
	fmt.Fprintln(a.out, "ontagent", version)
	return nil
}

func (a *app) configure(_ context.Context, args []string) error {
	what := "show"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		what, args = args[0], args[1:]
	}
	if what != "show" && what != "check" {
		return cli.Exit(cli.Usage, "config %s: neither check nor show", what)
	}
	if _, err := a.parse("config "+what, args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	if what == "check" {
		fmt.Fprintf(a.out, "%s: good\n", a.config)
		return nil
	}
	return c.Print(a.out)
}
