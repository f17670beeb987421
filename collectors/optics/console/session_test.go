package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
)

// scriptPort is a port on which answer says what comes back for each line.
// Time passes only in a synctest bubble.
type scriptPort struct {
	pending []byte        // what the console has yet to say
	chunk   int           // bytes a Read returns at most
	pause   time.Duration // before each chunk
	answer  func(line string) string
	end     error // once pending is empty; nil means silence
	timeout time.Duration

	written []string
	line    []byte
	closed  bool
}

func (p *scriptPort) SetReadTimeout(d time.Duration) error { p.timeout = d; return nil }

func (p *scriptPort) Read(b []byte) (int, error) {
	if len(p.pending) == 0 {
		if p.end != nil {
			return 0, p.end
		}
		time.Sleep(p.timeout)
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(p.pause)
	n := len(p.pending)
	if p.chunk > 0 {
		n = min(n, p.chunk)
	}
	n = copy(b, p.pending[:n])
	p.pending = p.pending[n:]
	return n, nil
}

func (p *scriptPort) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\r' {
			p.line = append(p.line, c)
			continue
		}
		line := string(p.line)
		p.line = nil
		p.written = append(p.written, line)
		if p.answer != nil {
			p.pending = append(p.pending, p.answer(line)...)
		}
	}
	return len(b), nil
}

func (p *scriptPort) Close() error { p.closed = true; return nil }

// healthy answers as an ONT does, with echo.
func healthy() func(string) string {
	diag := false
	return func(line string) string {
		prompt := func() string {
			if diag {
				return "RTK.0> "
			}
			return "# "
		}
		out := ""
		switch line {
		case "diag":
			diag = true
		case "exit":
			diag = false
		case "pon get transceiver rx-power":
			out = "Rx Power: -22.924298  dBm\r\n"
		case "gpon get onu-state":
			out = "ONU state: Operation State(O5) \r\n\r"
		}
		return line + "\r\n" + out + prompt()
	}
}

// talk holds one conversation over the port in a bubble.
func talk(t *testing.T, p *scriptPort, change ...func(*Options)) (reading collectors.Reading, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts := Options{
			Port: "fake", Driver: "rtl960x", Linger: -1, Username: "admin", Password: "secret",
			Open: func(string, int) (Port, error) { return p, nil },
		}
		for _, f := range change {
			f(&opts)
		}
		c, e := New(opts)
		if e != nil {
			t.Fatal(e)
		}
		r, e := c.ReadOptics(t.Context())
		reading, err = r.RxPower, e
		if e := c.Close(); e != nil {
			t.Error(e)
		}
	})
	if !p.closed {
		t.Error("the port was left open")
	}
	return reading, err
}

// However the bytes are cut into reads, and however slowly they come.
func TestSessionByteByByte(t *testing.T) {
	for _, p := range []*scriptPort{
		{chunk: 1, pause: 90 * time.Microsecond}, // 115200 baud
		{chunk: 1, pause: time.Millisecond},      // 9600
		{chunk: 7, pause: 16 * time.Millisecond}, // a USB adapter
		{chunk: 3},
	} {
		p.answer = healthy()
		r, err := talk(t, p)
		if err != nil || !r.OK() || r.Value != -22.924298 {
			t.Errorf("chunks of %d: %+v, %v", p.chunk, r, err)
		}
	}
}

func TestSessionScreens(t *testing.T) {
	ask := func(prompts ...string) func(string) string {
		return func(line string) string {
			if len(prompts) == 0 {
				return ""
			}
			next := prompts[0]
			prompts = prompts[1:]
			return line + "\r\n" + next
		}
	}
	tests := []struct {
		name   string
		screen string
		answer func(string) string
		end    error
		want   error
		sent   []string
	}{
		{"U-Boot prompt", "U-Boot 2011.12\r\n=> ", nil, nil, ErrBootLoader, nil},
		{"U-Boot of the family", "U-Boot 2011.12\r\n9602C# ", nil, nil, ErrBootLoader, nil},
		{"falcon", "FALCON => ", nil, nil, ErrBootLoader, nil},
		{"CFE", "CFE> ", nil, nil, ErrBootLoader, nil},
		{"countdown that stands still", "U-Boot 2011.12\r\nHit any key to stop autoboot:  1 ", nil, nil, ErrBootLoader, nil},
		{"boot text that ends its line", "U-Boot 2011.12 (lab)\r\nDRAM:  64 MB\r\n", nil, nil, ErrBootLoader, nil},
		{"U-Boot behind the carriage return", "", ask("=> "), nil, ErrBootLoader, []string{""}},
		{"another's prompt", "WAP>", nil, nil, ErrUnknownPrompt, nil},
		{"another's command line", "# reboot", nil, nil, ErrUnknownPrompt, nil},
		{"a password, out of the blue", "Password: ", nil, nil, ErrUnknownPrompt, nil},
		{"a login that repeats", strings.Repeat("\r\nlogin: ", 3), nil, nil, ErrLoginLoop, nil},
		{"a login that repeats, then nothing", strings.Repeat("login: \r\n", 3), nil, nil, ErrLoginLoop, nil},
		{"a locked login", "Login incorrect\r\nlogin: ", nil, nil, ErrLoginRefused, nil},
		{"a locked login, then nothing", "Account locked, try again later\r\n", nil, nil, ErrLoginRefused, nil},
		{"silence", "", nil, nil, ErrNoAnswer, []string{""}},
		{"a login that asks again", "login: ", ask("Password: ", "login: "), nil, ErrLoginRefused, []string{"admin", "secret"}},
		{"a password that asks again", "login: ", ask("Password: ", "Password: "), nil, ErrLoginRefused, []string{"admin", "secret"}},
		{"a name is refused", "login: ", ask("login: "), nil, ErrLoginRefused, []string{"admin"}},
		{"silence after the name", "login: ", nil, nil, ErrNoAnswer, []string{"admin"}},
		{"boot loader after the name", "login: ", ask("=> "), nil, ErrBootLoader, []string{"admin"}},
		{"no diag", "# ", ask("# ", "sh: diag: not found\r\n# "), nil, ErrWrongFamily, []string{"ps", "diag"}},
		{"logged out by diag", "# ", ask("# ", "login: "), nil, ErrWrongFamily, []string{"ps", "diag"}},
		{
			"restarts in the middle", "# ", ask("# ", "RTK.0> ", "\r\nU-Boot 2011.12\r\nHit any key to stop autoboot:  3 "), nil, ErrBootLoader,
			[]string{"ps", "diag", "pon get transceiver rx-power"},
		},
		{"falls silent in the middle", "# ", ask("# ", "RTK.0> "), nil, ErrNoAnswer, []string{"ps", "diag", "pon get transceiver rx-power"}},
		{"vanishes", "", nil, ErrGone, ErrGone, nil},
		{"end of file", "", nil, io.EOF, ErrGone, nil},
		{"vanishes in the middle", "# ", ask("# ", "RTK.0> "), ErrGone, ErrGone, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &scriptPort{pending: []byte(tt.screen), answer: tt.answer, end: tt.end}
			r, err := talk(t, p)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if r.Status != collectors.StatusError || r.Value != 0 {
				t.Errorf("reading %+v", r)
			}
			if tt.end == nil && !slices.Equal(p.written, tt.sent) {
				t.Errorf("sent %q, want %q", p.written, tt.sent)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestSessionBabble(t *testing.T) {
	for name, text := range map[string]string{
		"noise":   strings.Repeat("x", 1<<20),
		"lines":   strings.Repeat("eth0: link up\r\n", 1<<16),
		"prompts": strings.Repeat("RTK.0> ", 1<<17),
		"NULs":    strings.Repeat("\x00", 1<<20),
		"escapes": strings.Repeat("\x1b[", 1<<19),
	} {
		p := &scriptPort{pending: []byte(text), chunk: 512, pause: time.Millisecond}
		if _, err := talk(t, p); !errors.Is(err, ErrBabble) {
			t.Errorf("%s: %v", name, err)
		}
		if len(p.written) != 0 {
			t.Errorf("%s: sent %q", name, p.written)
		}
		if len(p.pending) < len(text)-(maxScreen+1024) {
			t.Errorf("%s: read %d bytes", name, len(text)-len(p.pending))
		}
	}
}

// A caller that has no more time than a console is listened to is still told
// what is wrong with the console, not that its time is up.
func TestSessionSpeaksBeforeItsCallerGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"login loop", strings.Repeat("\r\nlogin: ", 1<<12), ErrLoginLoop},
		{"chatter", strings.Repeat("eth0: link up\r\n", 1<<12), ErrBabble},
	} {
		for _, limit := range []time.Duration{20 * time.Second, 8 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				p := &scriptPort{pending: []byte(tt.text), chunk: 9, pause: 50 * time.Millisecond}
				c, err := New(Options{Port: "fake", Driver: "rtl960x", Open: func(string, int) (Port, error) { return p, nil }})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				if _, err := c.ReadOptics(ctx); !errors.Is(err, tt.want) {
					t.Errorf("%s within %v: %v", tt.name, limit, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Text of a daemon that buries a prompt costs one carriage return, not the
// reading.
func TestSessionBuriedPrompt(t *testing.T) {
	base := healthy()
	buried := false
	p := &scriptPort{answer: func(line string) string {
		out := base(line)
		if line == "pon get transceiver rx-power" && !buried {
			buried = true
			out += "udhcpd: started\r\n"
		}
		return out
	}}
	r, err := talk(t, p)
	if err != nil || !r.OK() || r.Value != -22.924298 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// The answer to another command is nobody's value.
func TestSessionAnswerToAnotherCommand(t *testing.T) {
	base := healthy()
	p := &scriptPort{answer: func(line string) string {
		switch line {
		case "pon get transceiver rx-power":
			return line + "\r\nTx Power: 2.287339  dBm\r\nRTK.0> "
		case "pon get transceiver tx-power":
			return line + "\r\nRx Power: -3.000000  dBm\r\nRTK.0> "
		case "pon get transceiver voltage":
			return line + "\r\nRTK.0> pon get transceiver rx-power\r\nRx Power: -3.000000  dBm\r\nRTK.0> "
		}
		return base(line)
	}}
	r, err := talk(t, p)
	if err != nil || r.Status != collectors.StatusError || r.Value != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A failure is returned again, without another try, until its time is up.
func TestConsoleRetryTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c, err := New(Options{Port: "fake", Driver: "rtl960x", MaxAge: -1, Open: func(string, int) (Port, error) {
			tries++
			return nil, fmt.Errorf("%w: %w", ErrNoPort, os.ErrNotExist)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		at := func(want int) {
			t.Helper()
			if _, err := c.ReadOptics(t.Context()); !errors.Is(err, ErrNoPort) || !errors.Is(err, os.ErrNotExist) {
				t.Errorf("got %v", err)
			}
			if tries != want {
				t.Errorf("%d tries, want %d", tries, want)
			}
		}
		at(1)
		at(1)
		time.Sleep(2 * time.Second)
		at(2)
		time.Sleep(2 * time.Second)
		at(2)
		time.Sleep(2 * time.Second)
		at(3)
		if _, err := c.ReadOpticsFresh(t.Context()); !errors.Is(err, ErrNoPort) || tries != 4 {
			t.Errorf("fresh: %v after %d tries", err, tries)
		}
		for range 20 {
			time.Sleep(time.Minute)
			_, _ = c.ReadOptics(t.Context())
		}
		if tries != 24 {
			t.Errorf("%d tries in 20 minutes, want one a minute", tries-4)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		err  error
		n    int
		want time.Duration
	}{
		{ErrLoginRefused, 1, 10 * time.Minute},
		{ErrLoginRefused, 99, time.Hour},
		{ErrNoCredentials, 1, 10 * time.Minute},
		{ErrBootLoader, 5, time.Minute},
		{ErrUnknownPrompt, 1, 15 * time.Second},
		{ErrUnknownPrompt, 99, 5 * time.Minute},
		{ErrNoPort, 1, 2 * time.Second},
		{ErrNoPort, 1 << 30, time.Minute},
	} {
		if got := retryAfter(tt.err, tt.n); got != tt.want {
			t.Errorf("%v, %d: %v, want %v", tt.err, tt.n, got, tt.want)
		}
	}
}

// FuzzSession: whatever a console says, and to whatever it says it, nothing
// but the driver's commands is typed, the name and password only where they
// are asked for, and the conversation ends.
func FuzzSession(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for i, d := range drivers() {
			if d.name == filepath.Base(filepath.Dir(name)) {
				f.Add(uint8(i), []byte(""), b)
				f.Add(uint8(i), b, []byte("\r\n# |\r\nRTK.0> "))
			}
		}
	}
	for i := range drivers() {
		f.Add(uint8(i), []byte("Login: "), []byte("Password: |Login: |Password: |WAP>|Password: |WAP>|x\r\nWAP>"))
		f.Add(uint8(i), []byte("ZYXEL#"), []byte("root@SFP:~#|errorcode=0\r\nroot@SFP:~# "))
		f.Add(uint8(i), []byte("2000/> "), []byte("[[3,32]]\r\n2000/> "))
	}
	f.Add(uint8(0), []byte("login: "), []byte("Password: |\r\n# |ps\r\n# |RTK.0> "))
	f.Add(uint8(0), []byte(""), []byte("=> "))
	f.Add(uint8(0), []byte("U-Boot\r\nHit any key to stop autoboot: 3"), []byte("\b\b2"))
	f.Add(uint8(0), []byte(""), []byte("\r\nlogin: |Password: |Login incorrect\r\nlogin: "))
	f.Fuzz(func(t *testing.T, driver uint8, screen, answers []byte) {
		parts := strings.Split(string(answers), "|")
		d := drivers()[int(driver)%len(drivers())]
		shown := cleaner{keepKernel: d.keepKernel}
		_, _ = shown.Write(screen)
		i := 0
		p := &scriptPort{pending: slices.Clone(screen)}
		p.answer = func(line string) string {
			tail := d.classify(shown.tail())
			switch {
			case line == "admin" && tail != kindLogin:
				t.Errorf("the name was sent to a %v", tail)
			case line == "secret" && tail != kindPassword:
				t.Errorf("the password was sent to a %v", tail)
			case line != "" && line != "admin" && line != "secret" && !d.allows(line):
				t.Errorf("sent %q", line)
			case tail == kindBoot, tail == kindOther && line != "", tail == kindIdle:
				t.Errorf("sent %q to a %v", line, tail)
			}
			out := parts[i%len(parts)]
			i++
			shown.reset()
			_, _ = shown.Write([]byte(out))
			return out
		}
		_, _ = talk(t, p, func(o *Options) { o.Driver = d.name })
		if len(p.written) > 200 {
			t.Errorf("%d lines sent", len(p.written))
		}
	})
}

func TestLockFile(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, "LCK..ttyS7")
	owner := func(text string) (int, bool) {
		t.Helper()
		if err := os.WriteFile(lock, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return lockFileOwner("/dev/ttyS7", dir)
	}
	if _, ok := lockFileOwner("/dev/ttyS7", dir); ok {
		t.Error("no lock file, and yet an owner")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot start a process: %v", err)
	}
	pid := cmd.Process.Pid
	if got, ok := owner(fmt.Sprintf("%10d picocom root\n", pid)); !ok || got != pid {
		t.Errorf("living process: %d, %v", got, ok)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, ok := owner(fmt.Sprintf("%10d\n", pid)); ok {
		t.Error("a process that ended still owns the port")
	}
	if _, ok := owner(strconv.Itoa(os.Getpid())); ok {
		t.Error("we stand in our own way")
	}
	for _, text := range []string{"", "nobody", "-1", "0"} {
		if _, ok := owner(text); ok {
			t.Errorf("%q names an owner", text)
		}
	}
}

func TestMapErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want []error
	}{
		{mapErrno(unix.ENOENT), []error{ErrNoPort, os.ErrNotExist}},
		{mapErrno(unix.ENXIO), []error{ErrNoPort, os.ErrNotExist}},
		{mapErrno(unix.EACCES), []error{ErrDenied, os.ErrPermission}},
		{mapErrno(unix.EBUSY), []error{ErrBusy}},
		{mapErrno(unix.ENOTTY), []error{ErrNotSerial}},
		{mapErrno(unix.EIO), []error{ErrGone}},
		{mapOpenError(unix.ENOENT), []error{ErrNoPort}},
		{mapIOError(unix.EIO), []error{ErrGone}},
		{mapIOError(&serial.PortError{}), nil},
	} {
		for _, want := range tt.want {
			if !errors.Is(tt.err, want) {
				t.Errorf("%v is not %v", tt.err, want)
			}
		}
	}
}

func TestReadsEndWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scriptPort{}
		c, err := New(Options{Port: "fake", Driver: "rtl960x", Open: func(string, int) (Port, error) { return p, nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := c.ReadPON(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d > time.Second+readSlice {
			t.Errorf("ended %v after it began", d)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
