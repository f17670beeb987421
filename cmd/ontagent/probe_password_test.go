package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/cli"
)

const testSecret = "s3cret-Pass word"

func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPasswordFile(t *testing.T) {
	for _, tc := range []struct {
		content, want string
		good          bool
	}{
		{testSecret + "\n", testSecret, true},
		{testSecret, testSecret, true},
		{testSecret + "\r\n", testSecret, true},
		{testSecret + "\nand more\n", testSecret, true},
		{strings.Repeat("x", maxPassword) + "\n", strings.Repeat("x", maxPassword), true},
		{"  spaces  \n", "  spaces  ", true},
		{"", "", false},
		{"\n", "", false},
		{"\r\n", "", false},
		{strings.Repeat("x", maxPassword+1), "", false},
		{strings.Repeat("x", maxPassword+1) + "\n", "", false},
		{strings.Repeat("x", 1<<20), "", false},
	} {
		p := newProbing(t, "pppoe", &bytes.Buffer{})
		p.secret = secretFile(t, tc.content)
		got, err := p.password(t.Context())
		if got != tc.want || (err == nil) != tc.good {
			t.Errorf("%.30q: %q, %v", tc.content, got, err)
		}
		// The same from standard input, in two parts.
		r, w, pipeErr := os.Pipe()
		if pipeErr != nil {
			t.Fatal(pipeErr)
		}
		go func() {
			half := len(tc.content) / 2
			_, _ = w.WriteString(tc.content[:half])
			time.Sleep(time.Millisecond)
			_, _ = w.WriteString(tc.content[half:])
			_ = w.Close()
		}()
		p.secret, p.in = "-", r
		got, err = p.password(t.Context())
		if got != tc.want || (err == nil) != tc.good {
			t.Errorf("%.30q by standard input: %q, %v", tc.content, got, err)
		}
		_ = r.Close()
	}
	for _, path := range []string{"/nope", t.TempDir(), "-"} {
		p := newProbing(t, "pppoe", &bytes.Buffer{})
		p.secret = path
		_, err := p.password(t.Context())
		if exit, ok := errors.AsType[*cli.Error](err); !ok || exit.Code != cli.Usage || !strings.Contains(err.Error(), "--password-file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Nobody types, nobody writes: an interrupt ends the waiting all the same.
func TestPasswordInterrupted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"-", fifo} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		p := newProbing(t, "pppoe", &bytes.Buffer{})
		p.secret, p.in = secret, r
		begin := time.Now()
		if _, err := p.password(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Second {
			t.Errorf("%s: %v after %v", secret, err, time.Since(begin))
		}
		cancel()
	}
}

// A terminal does not show what is typed, and does again afterwards.
func TestPasswordOnTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	echo := func() bool {
		s, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return s.Lflag&unix.ECHO != 0
	}
	if !echo() {
		t.Fatal("this terminal shows nothing anyway")
	}
	p := newProbing(t, "pppoe", &bytes.Buffer{})
	p.secret, p.in = "-", terminal
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := p.password(t.Context())
		answered <- answer{text, err}
	}()
	for i := 0; echo(); i++ {
		if i == 2000 {
			t.Fatal("what is typed is shown")
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := master.WriteString(testSecret + "\n"); err != nil {
		t.Fatal(err)
	}
	if a := <-answered; a.text != testSecret || a.err != nil {
		t.Errorf("read %q, %v", a.text, a.err)
	}
	if !echo() {
		t.Error("the terminal stays mute")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, _ := unix.Read(fd, b); n > 0 && strings.Contains(string(b[:n]), testSecret) {
		t.Errorf("the terminal showed %q", b[:n])
	}
}

// A password among the arguments is refused, and said nowhere.
func TestPasswordAsArgument(t *testing.T) {
	for _, args := range [][]string{
		{"probe", "pppoe", "--password", testSecret},
		{"probe", "pppoe", "--password=" + testSecret},
		{"probe", "pppoe", "-password=" + testSecret},
		{"probe", "sip", "--server", "192.0.2.1", "--user", "u", "--password=" + testSecret},
		{"probe", "sip", "--password=" + testSecret, "--help"},
	} {
		code, out, errs := ontagent(t, args...)
		if code != cli.Usage || !strings.Contains(errs, "--password-file") || strings.Contains(out+errs, testSecret) {
			t.Errorf("%v: exit code %d, %q, %q", args[:3], code, out, errs)
		}
	}
	// Beside the flags it is not repeated either.
	code, out, errs := ontagent(t, "probe", "pppoe", "--interface", "x0", testSecret)
	if code != cli.Usage || strings.Contains(out+errs, testSecret) {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

func TestPasswordIsNowhere(t *testing.T) {
	path := secretFile(t, testSecret+"\n")
	for _, args := range [][]string{
		{"probe", "pppoe", "--interface", "lo", "--user", "u", "--password-file", path},
		{"probe", "pppoe", "--interface", "lo", "--user", "u", "--password-file", path, "--json", "--force"},
		{"probe", "sip", "--server", "127.0.0.1:9", "--user", "u", "--method", "fetch", "--wait", "0.1", "--password-file", path, "--json"},
	} {
		if _, out, errs := ontagent(t, args...); strings.Contains(out+errs, testSecret) || strings.Contains(out+errs, "s3cret") {
			t.Errorf("%v prints the password: %s%s", args[:2], out, errs)
		}
	}
}
