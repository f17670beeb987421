// Package lab builds a small access network on this machine, out of real parts
// in network namespaces: an operator's side with broker, DNS and addresses, and
// a gateway with a WAN, a LAN port and a simulated ONT's console.
//
// It needs no root where the kernel lets users make namespaces of their own.
// Everything it makes belongs to namespaces and processes that end with it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"ontagent/agent/command"
)

// insideEnv tells a process that it runs in the lab's own namespaces.
const insideEnv = "ONTLAB_INSIDE"

// Inside reports whether this process runs in namespaces that Enter made.
func Inside() bool { return os.Getenv(insideEnv) == "1" }

// ErrNoNamespaces means that this user may not make network namespaces here.
var ErrNoNamespaces = errors.New("this kernel does not let this user make network namespaces")

// Enter runs this same program again, with args, in new namespaces, and returns
// its exit code.
func Enter(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("cannot find this program: %w", err)
	}
	result, err := command.New(command.Options{}).Run(ctx, command.Spec{
		Path: self, Args: args, Env: append(os.Environ(), insideEnv+"=1"), Stdout: stdout, Stderr: stderr,
		SysProcAttr: namespaces,
	})
	var failed *command.Error
	if errors.As(err, &failed) && failed.ExitCode < 0 && forbidsNamespaces(err) {
		return 0, noNamespaces(err)
	}
	if errors.As(err, &failed) && failed.ExitCode > 0 {
		return failed.ExitCode, nil
	}
	return result.ExitCode, err
}

// forbidsNamespaces tells the errors of clone(2) by which a kernel says that it
// makes no namespaces, for this user or at all: not allowed, a limit of none,
// not built in, or not known to an emulator.
func forbidsNamespaces(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func noNamespaces(err error) error {
	return fmt.Errorf("%w: %w (run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1)", ErrNoNamespaces, err)
}

// namespaces gives a child a network of its own; for a user who is not root
// also a user namespace in which it is.
func namespaces(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGKILL
	attr.Cloneflags = syscall.CLONE_NEWNET
	if uid := os.Getuid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// gatewayNamespace gives the gateway a network beside the operator's. It is
// owned by the same user namespace, so that the operator can hand it cables.
func gatewayNamespace(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGKILL
	attr.Cloneflags = syscall.CLONE_NEWNET
}
