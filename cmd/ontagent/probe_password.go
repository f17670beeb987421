package main

import (
	"bytes"
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"ontagent/cmd/cli"
)

// maxPassword bounds a password, in bytes.
const maxPassword = 255

// password reads the password: the first line of the file. It is in no error.
func (p *probing) password(ctx context.Context) (string, error) {
	if err := p.need("password-file", p.secret != ""); err != nil {
		return "", err
	}
	// A pipe that nobody writes to must not hold up opening it.
	file, _ := p.in.(*os.File)
	var err error
	if p.secret != "-" {
		file, err = os.OpenFile(p.secret, os.O_RDONLY|unix.O_NONBLOCK, 0)
		defer func() { _ = file.Close() }() // it was only read
	}
	var line []byte
	if err == nil && file != nil {
		line, err = readLine(ctx, int(file.Fd()))
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil && (len(line) == 0 || len(line) > maxPassword):
		err = errors.New("a line of 1 to 255 bytes is wanted")
	}
	if err != nil {
		return "", cli.Exit(cli.Usage, "probe %s: cannot read --password-file: %w", p.name, err)
	}
	return string(line), nil
}

// readLine reads a line, or what comes until the end, or until ctx ends. A
// terminal doesn't show it meanwhile.
func readLine(ctx context.Context, fd int) ([]byte, error) {
	if shown, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		hidden := *shown
		hidden.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
			return nil, err
		}
		defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, shown) }() // as well as it can
	}
	const pause = 50 // ms: how long the end of ctx may go unnoticed
	var all, chunk []byte = nil, make([]byte, maxPassword+2)
	for len(all) < len(chunk) && ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, pause)
		if n == 1 && err == nil {
			n, err = unix.Read(fd, chunk)
			if err == nil && n == 0 {
				break
			}
		}
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, chunk[:n]...)
		if line, _, whole := bytes.Cut(all, []byte("\n")); whole {
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
	}
	return all, ctx.Err()
}
