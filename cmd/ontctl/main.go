// Ontctl is the operator's side of ontagent: keys and work orders, triggering
// and following a job on a gateway, watching the streams, and checking and
// showing the signed records.
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
	"strings"

	"ontagent/cmd/cli"
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

type command struct {
	name, args, help string
	run              func(a *app, ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"keygen", "--out NAME", "make an Ed25519 key pair: NAME.key (secret) and NAME.pub", (*app).keygen},
		{"trust", "--root KEY --version N --add ROLE:ID:PUB …", "sign a trust list with the root key", (*app).trust},
		{"device statement", "--operator KEY --bundle FILE", "sign which keys a gateway holds", (*app).deviceStatement},
		{"order new", "--type TYPE --device ID --technician ID:PUB …", "write a work order, unsigned", (*app).orderNew},
		{"order sign", "--operator KEY [--secrets FILE --statement FILE] ORDER", "sign a work order", (*app).orderSign},
		{"order show", "[--trust FILE --root KEY] ORDER", "show a work order, signed or not", (*app).orderShow},
		{"extract sign", "--key OPERATOR EXTRACT", "sign what the AAA says of an order's account", (*app).extractSign},
		{"extract show", "[--trust FILE --root KEY] EXTRACT", "show an AAA extract, signed or not", (*app).extractShow},
		{"accept", "--order FILE --key KEY (--broker URL | --gateway HOST:PORT)", "run the acceptance and follow it", (*app).accept},
		{"diagnose", "(--order FILE | --device ID) --key KEY (--broker URL | --gateway HOST:PORT)", "run the read-only rungs, without a record", (*app).diagnose},
		{"repair", "--order FILE --key KEY [--action ACTION] [--standing] …", "have a gateway do one safe thing that may bring its line back", (*app).repair},
		{"inspect", "--order FILE --key KEY …", "inspect a line as it is, without disturbing it", (*app).inspect},
		{"cancel", "--order FILE --key KEY --job ID …", "stop a running job", (*app).cancelJob},
		{"close", "--order FILE --key KEY …", "close a work order on the gateway", (*app).closeOrder},
		{"acl mosquitto", "--trust FILE --root KEY [ORDER …]", "write technicians' rights at mosquitto from signed orders", (*app).aclMosquitto},
		{"watch", "--broker URL [--device ID]", "follow the streams: a live table, or JSON lines with --json", (*app).watch},
		{"collect", "--broker URL --dir DIR --key KEY", "store everything that gateways send, and sign for it", (*app).collect},
		{"cfg", "--key KEY --version N --device ID … (--broker URL | --out FILE)", "sign settings for gateways and publish them", (*app).cfg},
		{"audit verify", "[--head N:SHA256] FILE …", "check audit trails, as collected or as read on a gateway", (*app).auditVerify},
		{"record verify", "--root KEY FILE …", "check signed records offline, and their chain", (*app).recordVerify},
		{"record show", "[--root KEY] [--receipt FILE] [--format html] [-o FILE] FILE", "show a record to people, as text or as a page to print", (*app).recordShow},
		{"record diff", "[--root KEY] OLD NEW", "say what changed on a line between two visits", (*app).recordDiff},
		{"record export", "[--root KEY] [--format csv] [--rungs] (--dir DIR | FILE …)", "write records as JSON or CSV for other systems", (*app).recordExport},
		{"receipt make", "--record FILE --key KEY [--splitter-dbm DBM] [--photo KIND=FILE …] [--signature FILE] …", "make the customer's receipt (客户回执) of a record", (*app).receiptMake},
		{"receipt verify", "--root KEY (RECORD RECEIPT [ATTACHMENTS] | --dir DIR)", "check receipts with their records and attachments offline", (*app).receiptVerify},
		{"receipt file", "--root KEY --dir DIR RECEIPT [ATTACHMENTS]", "file a receipt beside its record in a collector's directory", (*app).receiptFile},
		{"speed-server", "[--listen ADDRESS] …", "serve speed tests of gateways over HTTP", (*app).speedServer},
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
			fmt.Fprintln(a.err, "ontctl:", err) // with what was wrapped around it
		}
		return exit.Code
	case ctx.Err() != nil:
		fmt.Fprintln(a.err, "ontctl: interrupted")
		return cli.Inconclusive
	}
	fmt.Fprintln(a.err, "ontctl:", err)
	return cli.Usage
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		a.usage()
		if len(args) == 0 {
			return cli.Exit(cli.Usage, "no command given")
		}
		return nil
	}
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == c.name {
			return c.run(a, ctx, args[len(words):])
		}
	}
	var group []string
	for _, c := range commands() {
		if strings.HasPrefix(c.name, args[0]+" ") {
			group = append(group, "ontctl "+c.name)
		}
	}
	if len(group) > 0 {
		return cli.Exit(cli.Usage, "%s is not complete: there is %s", args[0], strings.Join(group, ", "))
	}
	return cli.Exit(cli.Usage, "unknown command %q; `ontctl help` lists them", args[0])
}

func (a *app) usage() {
	fmt.Fprintln(a.out, "ontctl: work orders, visits and records for gateways that run ontagent")
	fmt.Fprintln(a.out, "\nCommands (each has --help):")
	for _, c := range commands() {
		fmt.Fprintf(a.out, "  %-18s %s\n", c.name, c.help)
		if c.args != "" {
			fmt.Fprintf(a.out, "  %-18s   %s\n", "", c.args)
		}
	}
	fmt.Fprintln(a.out, "\n"+cli.Codes)
}

// flags makes the flag set of a command. What it would print by itself is left
// out: an error is told once, by run; help goes to out, by parse.
func (a *app) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads flags and files in any order: `record show FILE --lang en` is how
// people type.
func (a *app) parse(fs *flag.FlagSet, args []string, minArgs, maxArgs int) error {
	var files []string
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			a.help(fs)
			return err
		}
		if err != nil {
			return cli.Exit(cli.Usage, "%s: %w; `ontctl %s --help` lists the flags", fs.Name(), err, fs.Name())
		}
		rest := fs.Args()
		if len(rest) == 0 {
			break
		}
		if taken := len(args) - len(rest); taken > 0 && args[taken-1] == "--" {
			files = append(files, rest...)
			break
		}
		files, args = append(files, rest[0]), rest[1:]
	}
	if err := fs.Parse(append([]string{"--"}, files...)); err != nil {
		return cli.Exit(cli.Usage, "%s: %w", fs.Name(), err)
	}
	if n := len(files); n < minArgs || (maxArgs >= 0 && n > maxArgs) {
		return cli.Exit(cli.Usage, "%s takes %s, got %d", fs.Name(), argCount(maxArgs), n)
	}
	return nil
}

// help prints what a command does and takes.
func (a *app) help(fs *flag.FlagSet) {
	for _, c := range commands() {
		if c.name == fs.Name() {
			fmt.Fprintf(a.out, "ontctl %s %s\n  %s\n\n", c.name, c.args, c.help)
		}
	}
	var text strings.Builder
	fs.SetOutput(&text)
	fs.PrintDefaults()
	fmt.Fprint(a.out, strings.ReplaceAll("\n"+text.String(), "\n  -", "\n  --")[1:])
}

func argCount(maxArgs int) string {
	switch {
	case maxArgs < 0:
		return "one file or more"
	case maxArgs == 0:
		return "nothing beside its flags"
	case maxArgs == 2:
		return "two files"
	}
	return "one file"
}

func (a *app) version(context.Context, []string) error {
	fmt.Fprintln(a.out, "ontctl", version)
	return nil
}
