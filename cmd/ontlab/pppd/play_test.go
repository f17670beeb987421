package pppd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ontagent/agent/probe/pppoe"
)

const (
	user     = "u1@isp"
	password = "p1"
	// leastCases is how many lines a whole run prints at least.
	leastCases = 18
)

// server is a pppoe-server at the far end of a cable of its own.
type server struct {
	name    string   // of the cable, too: cNAME and sNAME
	options []string // of its pppds
	args    []string // of its own
	mtu     int      // of the cable; 0: 1500
	vlan    int      // the server sits on that VLAN's device
}

// kase is one comparison.
type kase struct {
	name     string
	server   string
	user     string // user if empty
	password string // password if empty
	pppd     []string
	ours     pppoe.Options // interface, user and password are filled in
	device   string        // pppd's interface, if not the cable
	same     bool          // ours uses it, too
	// The outcomes that mean the same.
	exit    int
	instead int // another exit code that may come; 0: none
	outcome pppoe.Outcome
	hold    bool // a session of pppd's is up meanwhile
	mtu     int  // that both must come to, once up
	within  time.Duration
	check   func(pppd string, r pppoe.Result) error
}

func servers(dir string) []server {
	pap := []string{"require-pap"}
	radius := func(port int) []string {
		return []string{"require-pap", "plugin radius.so", "radius-config-file " + filepath.Join(dir, fmt.Sprintf("radius-%d.conf", port))}
	}
	return []server{
		{name: "pap", options: pap},
		{name: "chap", options: []string{"require-chap"}},
		{name: "vlan", options: pap, vlan: 41},
		{name: "big", options: []string{"require-pap", "mtu 1500", "mru 1500"}, mtu: 1508},
		{name: "one", options: pap, args: []string{"-N", "1"}},
		{name: "mac", options: pap, args: []string{"-x", "1"}},
		{name: "stop", options: []string{"require-pap", "ipparam stop"}},
		{name: "down", options: radius(deadRADIUS)},
		{name: "aaa", options: radius(liveRADIUS)},
		{name: "ms", options: []string{"require-mschap-v2"}},
	}
}

// sameText wants a text of the server's in both.
func sameText(want string) func(string, pppoe.Result) error {
	return func(pppd string, r pppoe.Result) error {
		// The plugin puts a line feed behind it.
		if !strings.Contains(pppd, want) || strings.TrimSpace(r.Auth.ServerMessage) != want {
			return fmt.Errorf("the text isn't %q for both", want)
		}
		return nil
	}
}

// sameError wants the text of an error tag in both.
func sameError(pppd string, r pppoe.Result) error {
	if len(r.Errors) != 1 || r.Errors[0].Text == "" || !strings.Contains(pppd, r.Errors[0].Text) {
		return errors.New("the error tag isn't the same")
	}
	return nil
}

func cases() []kase {
	vlan := pppoe.Options{VLAN: 41}
	return []kase{
		{
			name: "PAP", server: "pap", ours: pppoe.Options{IPv6: true}, exit: 0, outcome: pppoe.OK, mtu: 1492, within: 3 * time.Second,
			check: func(output string, r pppoe.Result) error {
				if !strings.Contains(output, "local  LL address") || r.IPv6.Result != "up" {
					return fmt.Errorf("IPv6CP isn't up for both, but %s for ours", r.IPv6.Result)
				}
				return nil
			},
		},
		{name: "CHAP", server: "chap", exit: 0, outcome: pppoe.OK, mtu: 1492, within: 3 * time.Second},
		{name: "wrong password, PAP", server: "pap", password: "no", exit: 19, outcome: pppoe.AuthRejected, within: 5 * time.Second},
		{name: "wrong password, CHAP", server: "chap", password: "no", exit: 19, outcome: pppoe.AuthRejected, within: 5 * time.Second},
		{name: "unknown user, PAP", server: "pap", user: "u2@isp", exit: 19, outcome: pppoe.AuthRejected, within: 5 * time.Second},
		{name: "unknown user, CHAP", server: "chap", user: "u2@isp", exit: 19, outcome: pppoe.AuthRejected, within: 5 * time.Second},
		{name: "AAA down", server: "down", exit: 19, outcome: pppoe.AuthRejected, within: 25 * time.Second},
		{name: "AAA says why not", server: "aaa", user: "poor@isp", exit: 19, outcome: pppoe.AuthRejected, check: sameText(arrears)},
		{
			name: "AAA is slow", server: "aaa", user: "slow@isp", exit: 0, outcome: pppoe.OK,
			// Meanwhile the server's pppd answers no echoes.
			pppd: []string{"lcp-echo-interval", "0"},
		},
		{name: "MS-CHAPv2 only, ours can't", server: "ms", exit: 0, outcome: pppoe.AuthUnsupported},
		{name: "VLAN in the frame", server: "vlan", ours: vlan, device: "cvlan.41", exit: 0, outcome: pppoe.OK, mtu: 1492, within: 3 * time.Second},
		{name: "VLAN's device", server: "vlan", device: "cvlan.41", same: true, exit: 0, outcome: pppoe.OK, mtu: 1492, within: 3 * time.Second},
		{name: "VLAN, wrong", server: "pap", ours: vlan, device: "cpap.41", exit: 8, outcome: pppoe.NoPADO, within: 6 * time.Second},
		{name: "VLAN, none", server: "vlan", exit: 8, outcome: pppoe.NoPADO, within: 6 * time.Second},
		{name: "MTU 1500 (RFC 4638)", server: "big", pppd: []string{"mtu", "1500", "mru", "1500"}, ours: pppoe.Options{MaxPayload: 1500}, exit: 0, outcome: pppoe.OK},
		{name: "sessions at their limit", server: "one", hold: true, exit: 8, outcome: pppoe.PADSError, check: sameError},
		{name: "sessions of a MAC at their limit", server: "mac", hold: true, exit: 8, outcome: pppoe.NoPADO},
		{
			name: "echo loss", server: "stop", pppd: []string{"nodetach"}, outcome: pppoe.EchoLost,
			// The hang-up that pppd makes of it hides the 15.
			exit: 15, instead: 16,
			check: func(output string, _ pppoe.Result) error {
				if !strings.Contains(output, "No response to 3 echo-requests") {
					return errors.New("pppd ended for another reason")
				}
				return nil
			},
			ours: pppoe.Options{Echoes: 10, EchoInterval: 300 * time.Millisecond},
		},
	}
}

// play runs all cases and prints a line for each.
func play(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "pppd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	if err := prepare(ctx, dir); err != nil {
		return fmt.Errorf("cannot prepare: %w", err)
	}
	// What waits for time-outs needs no processor: the servers are played side
	// by side, the cases of one after the other.
	var each []string
	queues := map[string][]kase{}
	for _, k := range cases() {
		if queues[k.server] == nil {
			each = append(each, k.server)
		}
		queues[k.server] = append(queues[k.server], k)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var problems []error
	slots := make(chan struct{}, 3)
	for _, name := range each {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for _, k := range queues[name] {
				line, problem := k.play(ctx)
				mu.Lock()
				fmt.Fprintln(out, line)
				if problem != nil {
					problems = append(problems, fmt.Errorf("%s: %w\n%s", k.name, problem, tail(filepath.Join(dir, name+".log"))))
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if err := noneLeft(ctx); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// noneLeft waits until the servers have no session any more: pppoe-server runs
// a pppoe for each.
func noneLeft(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		var left []string
		names, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			text := strings.ReplaceAll(string(b), "\x00", " ")
			// Those of the stopped pppds can't end.
			if err == nil && strings.HasPrefix(text, "/usr/sbin/pppoe -n") && !strings.Contains(text, " sstop ") {
				left = append(left, text)
			}
		}
		switch {
		case len(left) == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("sessions stay at the servers:\n%s", strings.Join(left, "\n"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func tail(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-3000):])
}

func run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), nil
}

// prepare makes the cables and starts the servers, in a network namespace of
// their own.
func prepare(ctx context.Context, dir string) error {
	// The plugin for RADIUS looks its own name up.
	if err := syscall.Sethostname([]byte("localhost")); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/etc/ppp", "tmpfs", 0, ""); err != nil {
		return err
	}
	secrets := fmt.Sprintf("%q * %q *\n", user, password)
	ipUp := "#!/bin/sh\n[ \"$6\" = stop ] && kill -STOP $PPPD_PID\nexit 0\n"
	for name, content := range map[string]string{
		"options": "", "pap-secrets": secrets, "chap-secrets": secrets, "ip-up": ipUp, "pppoe-server-options": "",
	} {
		mode := os.FileMode(0o600)
		if name == "ip-up" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join("/etc/ppp", name), []byte(content), mode); err != nil {
			return err
		}
	}
	if err := writeRADIUS(dir); err != nil {
		return err
	}
	commands := []string{"netns add bras", "-n bras link set lo up"}
	for i, s := range servers(dir) {
		c, z := "c"+s.name, "s"+s.name
		mtu := strconv.Itoa(max(s.mtu, 1500))
		commands = append(commands,
			fmt.Sprintf("link add %s mtu %s type veth peer name %s mtu %s netns bras", c, mtu, z, mtu),
			"link set "+c+" up", "-n bras link set "+z+" up")
		device := z
		if s.vlan != 0 {
			device = fmt.Sprintf("%s.%d", z, s.vlan)
			commands = append(commands, fmt.Sprintf("-n bras link add link %s name %s type vlan id %d", z, device, s.vlan), "-n bras link set "+device+" up")
		}
		options := append(slices.Clone(s.options), "auth", "ms-dns 10.64.0.53", "ms-dns 10.64.0.54", "debug", "logfile "+filepath.Join(dir, s.name+".log"))
		if s.mtu == 0 {
			options = append(options, "mtu 1492", "mru 1492")
		}
		file := filepath.Join(dir, s.name+".options")
		if err := os.WriteFile(file, []byte(strings.Join(options, "\n")+"\n"), 0o600); err != nil {
			return err
		}
		for _, command := range commands {
			if _, err := run(ctx, append([]string{"ip"}, strings.Fields(command)...)...); err != nil {
				return err
			}
		}
		commands = nil
		args := append([]string{
			"netns", "exec", "bras", "pppoe-server", "-F", "-I", device, "-C", "AC-" + s.name, "-O", file,
			"-L", fmt.Sprintf("10.64.%d.1", i), "-R", fmt.Sprintf("10.64.%d.10", i), "-o", strconv.Itoa(i * 100),
		}, s.args...)
		cmd := exec.CommandContext(ctx, "ip", args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
	}
	for _, parent := range []string{"cvlan", "cpap"} {
		for _, command := range []string{
			fmt.Sprintf("link add link %s name %s.41 type vlan id 41", parent, parent), fmt.Sprintf("link set %s.41 up", parent),
		} {
			if _, err := run(ctx, append([]string{"ip"}, strings.Fields(command)...)...); err != nil {
				return err
			}
		}
	}
	if err := serveRADIUS(ctx, "bras"); err != nil {
		return err
	}
	return waitServers(ctx)
}

// waitServers waits until all servers answer a PADI.
func waitServers(ctx context.Context) error {
	for _, s := range servers("") {
		r, err := pppoe.Dial(ctx, pppoe.Options{Interface: "c" + s.name, VLAN: uint16(s.vlan), DiscoveryOnly: true})
		if err != nil || r.Outcome != pppoe.Offered {
			return fmt.Errorf("%s doesn't answer: %s, %w", s.name, r.Outcome, err)
		}
	}
	return nil
}

// dialled is what pppd concluded.
type dialled struct {
	exit   int
	output string
	mtu    int // of its interface, where it came up
	took   time.Duration
}

// text returns the line of pppd's that says most.
func (d dialled) text() string {
	best := ""
	for line := range strings.Lines(d.output) {
		line = strings.TrimSpace(line)
		for _, telling := range []string{"-Error:", "Remote message:", "authentication failed:", "authentication failed", "Timeout waiting", "error", "No response to", "local  IP", "Error"} {
			if strings.Contains(line, telling) && (best == "" || !strings.HasPrefix(best, "Remote") && !strings.Contains(best, "-Error:") || strings.HasPrefix(line, "No response")) {
				best = line
			}
		}
	}
	return best
}

// pppd dials with pppd, and hangs up where it comes up, unless it is to stay.
func (k *kase) dialPPPD(ctx context.Context, link string, stay bool) (dialled, error) {
	device := k.device
	if device == "" {
		device = "c" + k.server
	}
	args := []string{
		"plugin", "pppoe.so", "pppoe-padi-timeout", "2", "pppoe-padi-attempts", "1", "nic-" + device,
		"user", k.user, "password", k.password, "noauth", "updetach", "maxfail", "1", "noipdefault", "nodefaultroute", "ipparam", "client",
		"mtu", "1492", "mru", "1492", "lcp-echo-interval", "1", "lcp-echo-failure", "3", "lcp-max-terminate", "1", "usepeerdns", "linkname", link,
	}
	began := time.Now()
	output, err := run(ctx, append(append([]string{"pppd"}, args...), k.pppd...)...)
	d := dialled{output: output, took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		d.exit = exit.ExitCode()
		return d, nil
	case err != nil:
		return d, err
	case stay:
		return d, nil
	}
	d.mtu, err = hangUp(ctx, link)
	return d, err
}

// hangUp ends a pppd that detached, and returns the MTU of its interface.
func hangUp(ctx context.Context, link string) (int, error) {
	text, err := os.ReadFile("/var/run/ppp-" + link + ".pid")
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(text)) // the process, and the interface
	if len(words) < 2 {
		return 0, fmt.Errorf("pppd wrote %q", text)
	}
	pid, err := strconv.Atoi(words[0])
	if err != nil {
		return 0, err
	}
	ifi, err := net.InterfaceByName(words[1])
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return 0, err
	}
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return ifi.MTU, nil
}

// play dials with both, compares, and returns the line to print.
func (k kase) play(ctx context.Context) (line string, problem error) {
	if k.user == "" {
		k.user = user
	}
	if k.password == "" {
		k.password = password
	}
	if k.hold {
		held, err := k.dialPPPD(ctx, "held-"+k.server, true)
		if err != nil || held.exit != 0 {
			return "", fmt.Errorf("the session to be held: exit %d, %w: %s", held.exit, err, held.output)
		}
		defer func() {
			// It must have survived what was done beside it.
			if _, err := hangUp(ctx, "held-"+k.server); err != nil && problem == nil {
				problem = fmt.Errorf("the session beside: %w", err)
			}
		}()
	}
	theirs, err := k.dialPPPD(ctx, "case-"+k.server, false)
	if err != nil {
		return "", err
	}
	o := k.ours
	o.Interface, o.Username, o.Password = "c"+k.server, k.user, pppoe.Password(k.password)
	if k.same {
		o.Interface = k.device
	}
	began := time.Now()
	r, err := pppoe.Dial(ctx, o)
	took := time.Since(began)
	if err != nil {
		return "", err
	}
	if k.within != 0 && took > k.within && r.Outcome == k.outcome {
		// An emulated processor that others want too: the best of three counts.
		for range 2 {
			began = time.Now()
			if r, err = pppoe.Dial(ctx, o); err != nil {
				return "", err
			}
			took = min(took, time.Since(began))
		}
	}

	switch {
	case theirs.exit != k.exit && (k.instead == 0 || theirs.exit != k.instead) || r.Outcome != k.outcome:
		problem = fmt.Errorf("pppd exit %d, ours %s; expected %d and %s", theirs.exit, r.Outcome, k.exit, k.outcome)
	case k.mtu != 0 && (theirs.mtu != k.mtu || int(r.MTU) != k.mtu):
		problem = fmt.Errorf("MTU: pppd %d, ours %d; expected %d", theirs.mtu, r.MTU, k.mtu)
	case theirs.mtu != 0 && r.MTU != 0 && theirs.mtu != int(r.MTU):
		problem = fmt.Errorf("MTU: pppd %d, ours %d", theirs.mtu, r.MTU)
	// Where pppd takes longer still, the machine has other things to do.
	case k.within != 0 && took > max(k.within, theirs.took):
		problem = fmt.Errorf("took %v, allowed are %v", took, k.within)
	case r.Auth.Attempts > 1 || r.Auth.Sends > 2:
		problem = fmt.Errorf("%d authentications, %d messages", r.Auth.Attempts, r.Auth.Sends)
	case k.check != nil:
		problem = k.check(theirs.output, r)
	}
	if problem == nil && r.Auth.ServerMessage != "" && !strings.Contains(theirs.output, strings.TrimSpace(r.Auth.ServerMessage)) {
		problem = fmt.Errorf("pppd doesn't print the server's %q", r.Auth.ServerMessage)
	}
	agree := "agree"
	if problem != nil {
		agree = "DISAGREE"
		problem = fmt.Errorf("%w\npppd:\n%s\nours: %+v", problem, theirs.output, r)
	}
	return fmt.Sprintf("pppd: %s | pppd exit %d %q | ours %s %q | %.1f s and %.1f s | %s",
		k.name, theirs.exit, theirs.text(), r.Outcome, ourText(r), theirs.took.Seconds(), took.Seconds(), agree), problem
}

// ourText is what we have that a person would read.
func ourText(r pppoe.Result) string {
	if r.Address.IsValid() {
		return fmt.Sprintf("%s of %s, DNS %s, MTU %d, echo %d/%d", r.Address, r.Peer, r.DNS1, r.MTU, r.Echo.Received, r.Echo.Sent)
	}
	for _, e := range r.Errors {
		return e.Text
	}
	for _, s := range []string{r.Auth.ServerMessage, r.TerminateReason} {
		if s != "" {
			return s
		}
	}
	return string(r.Stage)
}
