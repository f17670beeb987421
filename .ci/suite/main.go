// Command suite runs the test suite, phase by phase, and adds it up.
//
// Each phase is one `go test -json`: natively with the race detector and
// everything switched on, but for the tests that try everything one thing after
// the other, which follow without it; then the unit tests (-short) on 32-bit and
// big-endian machines under qemu-user. It prints go test's own line for every
// package, the whole output of what failed, the reason of what was skipped,
// and at the end "N passed, M failed, K skipped". Its exit code is 1 if
// anything failed or nothing ran.
//
// Usage: suite [phase ...], the phases being native, exhaustive, labs, shaped,
// 386, mipsle, mips, arm and arm64. Without arguments: native exhaustive labs
// shaped 386 mipsle mips.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

// A phase is one run of go test.
type phase struct {
	title string
	env   []string
	args  []string
	// leaveOut names packages that need not run on such a machine; "x/..."
	// means x and what is below.
	leaveOut []string
	// in, if set, names the packages that are run, as leaveOut does.
	in []string
	// only, if set, takes the packages alone whose test files hold this text.
	only string
}

// exhaustive are the tests of properties that take turns by the ten thousand
// in one goroutine: the race detector finds nothing there, and takes minutes.
const exhaustive = "^TestReliability(Clock|Corruption|Duplicates|FileFaults|FlashWrites|Memory|PowerCut)"

// shaped are the tests that measure rates on shaped lines: what else runs on the
// machine would be measured as well, and so would the race detector.
const shaped = "^TestShaped"

// labs are the packages whose tests build whole networks, most of them in an
// emulated guest with as many processors as this machine has: one after the
// other, so that none waits for another's.
func labs() []string {
	return []string{
		"ontagent/cmd/ontlab/play", "ontagent/cmd/ontlab/pppd", "ontagent/cmd/ontlab/isp/accesstest", "ontagent/cmd/ontlab/netbox/inguest",
	}
}

// crossed is the phase that runs the unit tests for a foreign machine.
func crossed(title, qemu string, env ...string) phase {
	p := phase{
		title: title,
		env:   append([]string{"CGO_ENABLED=0"}, env...),
		args:  []string{"-short", "-vet=off", "-timeout=10m"},
		// Programs for workstations and servers, and tests of the repository.
		leaveOut: []string{"ontagent/cmd/ontlab/...", "ontagent/cmd/ontctl/...", "ontagent/cmd"},
	}
	if qemu != "" {
		p.args = append(p.args, "-exec="+qemu)
		// qemu-user can't do all that a kernel can: there, a test may be skipped
		// in CI, too. The native run has it.
		p.env = append(p.env, "CI=")
	}
	return p
}

func phaseFor(name string) (phase, error) {
	switch name {
	case "native":
		// Three packages at a time: most of them wait rather than compute.
		return phase{
			title:    runtime.GOARCH + ", race detector, all tests but the exhaustive and the shaped",
			env:      []string{"CGO_ENABLED=1"},
			args:     []string{"-race", "-p=3", "-timeout=10m", "-skip=" + exhaustive + "|" + shaped},
			leaveOut: labs(),
		}, nil
	case "labs":
		return phase{
			title: runtime.GOARCH + ", labs and guests",
			args:  []string{"-p=1", "-timeout=15m", "-vet=off"},
			in:    labs(),
		}, nil
	case "shaped":
		return phase{
			title: runtime.GOARCH + ", speed tests on shaped lines",
			args:  []string{"-p=1", "-timeout=10m", "-vet=off", "-run=" + shaped},
			only:  "func TestShaped",
		}, nil
	case "exhaustive":
		return phase{
			title: runtime.GOARCH + ", exhaustive tests",
			args:  []string{"-timeout=10m", "-vet=off", "-run=" + exhaustive},
			only:  "func TestReliability",
		}, nil
	case "386":
		qemu := ""
		if runtime.GOARCH != "amd64" {
			qemu = "qemu-i386-static"
		}
		return crossed("386, unit tests", qemu, "GOARCH=386"), nil
	case "mipsle":
		p := crossed("mipsle softfloat, unit tests", "qemu-mipsel-static", "GOARCH=mipsle", "GOMIPS=softfloat")
		// mips runs the same instructions, 386 has the same byte order and width:
		// what could go wrong only with both is what talks to the kernel, and what
		// lays out bytes. LONG=1 runs the rest, too.
		if os.Getenv("LONG") == "" {
			p.in = []string{
				"ontagent/agent/probe/...", "ontagent/agent/platform/...", "ontagent/agent/order", "ontagent/collectors",
				"ontagent/collectors/link", "ontagent/collectors/wan", "ontagent/collectors/host", "ontagent/collectors/rtnl",
				"ontagent/collectors/optics/module", "ontagent/collectors/optics/hwmon", "ontagent/transport/spool", "ontagent/transport/durable",
			}
		}
		return p, nil
	case "mips":
		p := crossed("mips softfloat (big-endian), unit tests", "qemu-mips-static", "GOARCH=mips", "GOMIPS=softfloat")
		// What waits and parses text does so on 386 as well.
		if os.Getenv("LONG") == "" {
			p.leaveOut = append(p.leaveOut, "ontagent/collectors/optics/console", "ontagent/transport/mqtt", "ontagent/agent/job", "ontagent/cmd/ontagent")
		}
		return p, nil
	case "arm":
		return crossed("arm v5, unit tests", "qemu-arm-static", "GOARCH=arm", "GOARM=5"), nil
	case "arm64":
		return crossed("arm64, unit tests", "qemu-aarch64-static", "GOARCH=arm64"), nil
	}
	return phase{}, fmt.Errorf("unknown phase %q", name)
}

func run(names []string, stdout, stderr io.Writer) error {
	if len(names) == 0 {
		names = []string{"native", "exhaustive", "labs", "shaped", "386", "mipsle", "mips"}
	}
	var sum tally
	var broken []string
	for _, name := range names {
		p, err := phaseFor(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "== %s\n", p.title)
		began := time.Now()
		t, err := p.run(stdout, stderr)
		fmt.Fprintf(stdout, "== %s: %s in %s\n\n", p.title, t, time.Since(began).Round(time.Second))
		sum.add(t)
		if err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", name, err))
		}
	}
	fmt.Fprintln(stdout, sum)
	switch {
	case len(broken) > 0:
		return errors.New(strings.Join(broken, "; "))
	case sum.failed > 0:
		return errors.New("tests failed")
	case sum.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}

func (p phase) run(stdout, stderr io.Writer) (tally, error) {
	packages, err := p.packages()
	if err != nil {
		return tally{}, err
	}
	args := append([]string{"test", "-json"}, p.args...)
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, fmt.Errorf("cannot read from go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return tally{}, fmt.Errorf("cannot start go test: %w", err)
	}
	t, readErr := count(out, stdout)
	// Read to the end, else go test could block for ever.
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return t, fmt.Errorf("go test: %w", err)
	}
	return t, readErr
}

func (p phase) packages() ([]string, error) {
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Dir}}", "./...")
	cmd.Env = append(os.Environ(), p.env...)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list packages: %w: %s", err, problem.String())
	}
	var kept []string
	for line := range strings.Lines(string(out)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		named := func(l string) bool {
			below, tree := strings.CutSuffix(l, "/...")
			return pkg == l || tree && (pkg == below || strings.HasPrefix(pkg, below+"/"))
		}
		left := slices.ContainsFunc(p.leaveOut, named) || p.in != nil && !slices.ContainsFunc(p.in, named)
		has, err := p.has(dir)
		if err != nil {
			return nil, err
		}
		if has && !left {
			kept = append(kept, pkg)
		}
	}
	return kept, nil
}

// has reports whether the tests in dir are among those of only.
func (p phase) has(dir string) (bool, error) {
	if p.only == "" {
		return true, nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return false, fmt.Errorf("cannot list tests: %w", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return false, fmt.Errorf("cannot read tests: %w", err)
		}
		if bytes.Contains(data, []byte(p.only)) {
			return true, nil
		}
	}
	return false, nil
}

// tally counts tests, subtests included.
type tally struct{ passed, failed, skipped int }

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed += o.failed
	t.skipped += o.skipped
}

func (t tally) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
}

// event is a line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// count reads the events of one go test, prints what a reader wants to see and
// counts the tests. A package that failed with no failed test in it (it doesn't
// build, it panicked, it ran out of time) counts as one failure.
func count(in io.Reader, out io.Writer) (tally, error) {
	var t tally
	output := map[string][]string{} // by package and test
	failedIn := map[string]bool{}
	skipped := []string{}
	lines := bufio.NewReader(in)
	for {
		line, readErr := lines.ReadBytes('\n')
		if readErr != nil && len(line) == 0 {
			if errors.Is(readErr, io.EOF) {
				break
			}
			return t, fmt.Errorf("cannot read test events: %w", readErr)
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			// go test prints some troubles plainly.
			_, _ = out.Write(line)
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "output":
			output[key] = append(output[key], e.Output)
		case "pass":
			if e.Test == "" {
				printPackageLine(out, output[key])
			} else {
				t.passed++
			}
			delete(output, key)
		case "skip":
			if e.Test != "" { // else: a package without tests
				t.skipped++
				skipped = append(skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(output[key])))
			}
			delete(output, key)
		case "fail":
			if e.Test != "" {
				t.failed++
				failedIn[e.Package] = true
			} else if !failedIn[e.Package] {
				t.failed++
				// What ran when the package died has no event of its own.
				for k, o := range output {
					if k != key && strings.HasPrefix(k, e.Package+" ") {
						fmt.Fprint(out, strings.Join(o, ""))
					}
				}
			}
			fmt.Fprint(out, strings.Join(output[key], ""))
			delete(output, key)
		}
	}
	for _, s := range skipped {
		fmt.Fprintln(out, "skipped:", s)
	}
	return t, nil
}

// printPackageLine prints go test's verdict on a package ("ok …"), which is
// the last line of its output.
func printPackageLine(out io.Writer, lines []string) {
	for _, l := range lines {
		if strings.HasPrefix(l, "ok ") {
			fmt.Fprint(out, l)
		}
	}
}

// reason is what a skipped test said: the line "    file.go:12: why".
func reason(lines []string) string {
	for _, l := range lines {
		if _, why, ok := strings.Cut(strings.TrimSpace(l), ".go:"); ok {
			if _, text, ok := strings.Cut(why, ": "); ok {
				return text
			}
		}
	}
	return "no reason given"
}
