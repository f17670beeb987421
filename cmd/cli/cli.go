// Package cli is what the programs share as programs: how they end. Exit codes
// are part of the interface; scripts of technicians and of the NOC go by them.
package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	OK           = 0 // pass, or done
	Fail         = 1
	Usage        = 2 // bad input or usage
	Inconclusive = 3
	Refused      = 4
	Unreachable  = 5
)

// Codes says in one line what the exit codes mean.
const Codes = "Exit codes: 0 pass or done, 1 fail, 2 bad input or usage, 3 inconclusive, 4 refused, 5 unreachable"

// Error ends a program with a code of its own.
type Error struct {
	Code int
	Err  error // nil: what there was to say was said
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Exit makes an Error with a text.
func Exit(code int, format string, args ...any) error {
	return Because(code, fmt.Errorf(format, args...))
}

// Because makes an Error of err.
func Because(code int, err error) error { return &Error{Code: code, Err: err} }

// Silent makes an Error that prints nothing: all was said.
func Silent(code int) error { return &Error{Code: code} }

// Main runs a program until it ends or is told to, and returns its exit code.
func Main(run func(ctx context.Context, args []string) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:])
}
