package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/command"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontlab/lab"
)

// benchOneVerb is the hidden verb that measures one program, in namespaces of
// its own, and prints a measurement as JSON.
const benchOneVerb = "bench-one"

// benchStagger keeps the parts that load the machine – flapping links, an
// acceptance – of two programs apart.
const benchStagger = 45 * time.Second

// bench measures every build of ontagent that this machine can run natively and
// prints the table of docs/benchmarks.md.
func (a *app) bench(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab bench", flag.ContinueOnError)
	f.SetOutput(a.err)
	minutes := f.Float64("minutes", 10, "how long to watch memory and processor time")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.NArg() > 0 || !(*minutes > 0 && *minutes <= 24*60) {
		return fmt.Errorf("%w: bench takes --minutes, above 0 and up to a day", errUsage)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	root := filepath.Dir(filepath.Dir(self)) // beside bin/
	programs := []string{filepath.Join(filepath.Dir(self), "ontagent")}
	if file := filepath.Join(root, "dist/linux-386/ontagent"); runtime.GOARCH == "amd64" && isFile(file) {
		programs = append(programs, file)
	}
	fmt.Fprintf(a.err, "ontlab: measuring %d program(s) for %g minutes each, side by side\n", len(programs), *minutes)
	results := make([]measurement, len(programs))
	errs := make([]error, len(programs))
	done := make(chan struct{})
	for i, program := range programs {
		go func() {
			defer func() { done <- struct{}{} }()
			delay := time.Duration(i) * benchStagger
			results[i], errs[i] = a.benchOne(ctx, program, *minutes, delay)
		}()
	}
	for range programs {
		<-done
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	report(a.out, *minutes, results, sizes(ctx, filepath.Join(root, "dist")))
	return nil
}

// benchOne measures one program in a lab of its own.
func (a *app) benchOne(ctx context.Context, program string, minutes float64, delay time.Duration) (measurement, error) {
	select {
	case <-ctx.Done():
		return measurement{}, ctx.Err()
	case <-time.After(delay):
	}
	var out bytes.Buffer
	code, err := lab.Enter(ctx, &out, a.err, benchOneVerb, program, strconv.FormatFloat(minutes, 'g', -1, 64))
	if err == nil && code != cli.OK {
		err = fmt.Errorf("exit code %d", code)
	}
	var m measurement
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &m)
	}
	if err != nil {
		return measurement{}, fmt.Errorf("cannot measure %s: %w", program, err)
	}
	return m, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// size is what one released program takes, in bytes; Packed is 0 where there is
// no xz.
type size struct {
	Platform      string
	Plain, Packed int64
}

// sizes looks at what `make build-all` has left.
func sizes(ctx context.Context, dist string) []size {
	files, _ := filepath.Glob(filepath.Join(dist, "*/ontagent")) // the pattern is well-formed
	var out []size
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		s := size{Platform: filepath.Base(filepath.Dir(file)), Plain: info.Size()}
		var packed counter
		spec := command.Spec{Path: "xz", Args: []string{"-9", "--stdout", file}, Stdout: &packed}
		if _, err := command.New(command.Options{}).Run(ctx, spec); err == nil {
			s.Packed = int64(packed)
		}
		out = append(out, s)
	}
	return out
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// report prints everything in Markdown.
func report(w io.Writer, minutes float64, results []measurement, sizes []size) {
	fmt.Fprintf(w, "Command: `ontlab bench --minutes %g`\n\nMachine: %s\n\n", minutes, machine())
	if len(sizes) > 0 {
		fmt.Fprint(w, "### Size\n\n| platform | stripped, MiB | xz -9, MiB |\n|---|---|---|\n")
		for _, s := range sizes {
			packed := "no xz here"
			if s.Packed > 0 {
				packed = mebi(s.Packed)
			}
			fmt.Fprintf(w, "| %s | %s | %s |\n", s.Platform, mebi(s.Plain), packed)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "### Running\n\n")
	row := func(name string, value func(m measurement) string) {
		fmt.Fprintf(w, "| %s |", name)
		for _, m := range results {
			fmt.Fprintf(w, " %s |", value(m))
		}
		fmt.Fprintln(w)
	}
	row("", func(m measurement) string { return m.Program })
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(results)+1))
	text := func(format string, values ...func(m measurement) any) func(m measurement) string {
		return func(m measurement) string {
			args := make([]any, len(values))
			for i, v := range values {
				args[i] = v(m)
			}
			return fmt.Sprintf(format, args...)
		}
	}
	row("broker", func(m measurement) string { return m.Broker })
	row(fmt.Sprintf("resident after %g min, MiB (of it anonymous)", minutes), func(m measurement) string {
		return fmt.Sprintf("%s (%s)", mebi(m.Steady.RSS), mebi(m.Steady.Anon))
	})
	row("highest until then, MiB", func(m measurement) string { return mebi(m.Steady.High) })
	row("threads", text("%d", func(m measurement) any { return m.Steady.Threads }))
	row("processor, % of one core", text("%.3f", func(m measurement) any { return m.CPUPercent }))
	row("processor time per collection, ms", text("%.2f", func(m measurement) any { return m.CPUPerRunMS }))
	row("collections in that time", text("%d", func(m measurement) any { return m.Runs }))
	row("sent per hour, KiB", text("%.0f", func(m measurement) any { return m.SentPerHourKiB }))
	row("link event, cable to subscriber: median / p99 / longest, ms", text("%.2f / %.2f / %.2f",
		func(m measurement) any { return m.Events.MedianMS },
		func(m measurement) any { return m.Events.P99MS },
		func(m measurement) any { return m.Events.LongestMS }))
	row("events measured", text("%d", func(m measurement) any { return m.Events.Count }))
	row("acceptance of 8 rungs, s (verdict)", text("%.1f (%s)",
		func(m measurement) any { return m.Visit.Seconds }, func(m measurement) any { return m.Visit.Verdict }))
	row("highest resident during it, MiB (of it anonymous)", func(m measurement) string {
		return fmt.Sprintf("%s (%s)", mebi(m.Visit.RSS), mebi(m.Visit.Anon))
	})
	row("processor time for it, ms", text("%.0f", func(m measurement) any { return m.Visit.CPUMS }))
}

func mebi(bytes int64) string { return fmt.Sprintf("%.2f", float64(bytes)/(1<<20)) }

// machine describes where this was measured.
func machine() string {
	model := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown kernel"
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		release, _, _ := bytes.Cut(uts.Release[:], []byte{0})
		kernel = "Linux " + string(release)
	}
	return fmt.Sprintf("%s, %d cores, %s, %s", model, runtime.NumCPU(), kernel, runtime.Version())
}

// describe names a program by its platform.
func describe(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return filepath.Base(path)
	}
	arch := ""
	for _, s := range info.Settings {
		if s.Key == "GOARCH" {
			arch = s.Value
		}
	}
	return "linux-" + arch
}
