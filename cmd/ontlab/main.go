// Ontlab is a small access network on one machine: a broker, DNS, an ONT's
// console on a pty, and the real agent in a network namespace of its own.
// `ontlab demo` shows a whole visit with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"ontagent/cmd/cli"
	"ontagent/cmd/ontlab/lab"
	"ontagent/cmd/ontlab/netbox"
)

// version is set by the build.
var version = "dev" //nolint:gochecknoglobals // the linker writes it

func main() {
	a := &app{out: os.Stdout, err: os.Stderr}
	os.Exit(cli.Main(a.run))
}

// app is one invocation.
type app struct {
	out, err io.Writer
}

var errUsage = errors.New("usage")

func (a *app) run(ctx context.Context, args []string) int {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
	}
	var err error
	switch verb {
	case "demo":
		return a.inLab(ctx, args, a.demo)
	case "bench":
		err = a.bench(ctx, args[1:])
	case benchOneVerb:
		err = a.benchInLab(ctx, args[1:])
	case benchThroughputVerb:
		return a.benchThroughput(ctx, args[1:])
	case "fleet":
		err = a.fleet(ctx, args[1:])
	case "run":
		return a.runExit(a.scenarios(ctx, args[1:]))
	case playVerb, labVerb:
		if verb == labVerb {
			if err := ownLog(args[1:]); err != nil {
				return a.exit(err)
			}
		}
		if !netbox.Inside() {
			// Not there yet, or the first process there: see Enter.
			code, err := netbox.Enter(ctx, nil, a.out, a.err, args...)
			if err != nil {
				return a.exit(err)
			}
			return code
		}
		if verb == playVerb {
			err = a.play(ctx, args[1:])
		} else {
			err = a.lab(ctx, args[1:])
		}
	case "up":
		err = a.up(ctx, args[1:])
	case "list":
		err = a.list()
	case "down":
		err = a.down(ctx, args[1:])
	case "shell":
		err = a.shell(args[1:])
	case "fault":
		err = a.fault(ctx, args[1:])
	case netbox.MissingVerb:
		err = netbox.ReportMissing(a.out)
	case "vm":
		return a.vm(ctx, args[1:])
	case lab.InitVerb:
		err = lab.GatewayInit(ctx, args[1:])
	case "version":
		fmt.Fprintln(a.out, "ontlab", version)
	case "help", "-h", "--help":
		a.usage()
	case "":
		a.usage()
		err = fmt.Errorf("%w: no verb given", errUsage)
	default:
		err = fmt.Errorf("%w: unknown verb %q; `ontlab help` lists them", errUsage, verb)
	}
	return a.exit(err)
}

func (a *app) usage() {
	fmt.Fprint(a.out, `ontlab: a small access network on this machine

  demo [--lang zh-CN|en] [--keep DIR]   play a visit: order, ladder, verdict, record, three times
  bench [--minutes N]                   measure the agents in bin/ and dist/: size, memory, CPU, event latency
  bench-throughput [--only PARTS] [--rounds N] [--quota-runs N]
                                        hold the speed test against a shaper's truth and iperf3, curl, net/http
  fleet [--broker URL] [--gateways N] [--spread 30s] [--duration 5m] [--telemetry-interval 1m] [--json]
                                        play many gateways against a broker: connections, attempts, rates, memory
  run [--json] [--where host|guest|auto] [--jobs N] [--keep DIR] FILE...
                                        play scenarios, in a guest where this kernel lacks what they need
  up [--name NAME] FILE                 build a scenario's lab and leave it running
  fault [--lab NAME] [--clear] FAULT [PARAMETER=VALUE...]
                                        let a fault of docs/scenarios.md come or go
  shell [--lab NAME] HOST [COMMAND...]  a shell on gateway, home, bras, core, ...
  list                                  the labs that are up
  down [NAME | --all]                   end them
  vm [--modules M,M] [--memory MIB] COMMAND [ARG...]
                                        run a command in a guest with Debian's kernel, with its exit status
  version

Exit codes: 0 as expected, 1 not as expected, 2 usage, or this machine cannot
`)
}

func (a *app) exit(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return cli.OK
	case errors.Is(err, errUsage), errors.Is(err, lab.ErrNoNamespaces):
		fmt.Fprintln(a.err, "ontlab:", err)
		return cli.Usage
	}
	fmt.Fprintln(a.err, "ontlab:", err)
	return cli.Fail
}

// inLab runs a verb inside namespaces of its own.
func (a *app) inLab(ctx context.Context, args []string, verb func(context.Context, []string) error) int {
	if lab.Inside() {
		return a.exit(verb(ctx, args[1:]))
	}
	code, err := lab.Enter(ctx, a.out, a.err, args...)
	if err != nil {
		return a.exit(err)
	}
	return code
}
