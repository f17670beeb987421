package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"ontagent/cmd/cli"
	"ontagent/cmd/ontlab/vm"
)

// vm runs a command in a guest and returns the command's exit code.
func (a *app) vm(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("vm", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	modules := flags.String("modules", "", "kernel modules, separated by commas; parameters are set by a modprobe of the command's own")
	memory := flags.Int("memory", vm.DefaultMemoryMiB, "memory of the guest in MiB")
	timeout := flags.Duration("timeout", vm.DefaultTimeout, "how long the guest may live")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		a.usage()
		return cli.OK
	case err != nil:
		return a.exit(fmt.Errorf("%w: vm: %w", errUsage, err))
	case flags.NArg() == 0:
		return a.exit(fmt.Errorf("%w: vm: no command given", errUsage))
	case *memory < 128:
		return a.exit(fmt.Errorf("%w: vm: a guest needs 128 MiB of memory", errUsage))
	}
	result, err := vm.Run(ctx, vm.Options{
		Modules:   strings.FieldsFunc(*modules, func(r rune) bool { return r == ',' }),
		MemoryMiB: *memory,
		Log:       slog.New(slog.NewTextHandler(a.err, nil)),
	}, vm.Job{Args: flags.Args(), Timeout: *timeout, Stdout: a.out, Stderr: a.err})
	if errors.Is(err, vm.ErrUnavailable) {
		fmt.Fprintln(a.err, "ontlab:", err)
		return cli.Usage
	}
	if err != nil {
		return a.exit(err)
	}
	return result.ExitCode
}
