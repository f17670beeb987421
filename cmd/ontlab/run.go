package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/play"
	"ontagent/cmd/ontlab/scenario"
	"ontagent/cmd/ontlab/scratch"
	"ontagent/cmd/ontlab/vm"
)

// playVerb is the hidden verb that plays one scenario, in namespaces of its
// own.
const playVerb = "play"

// guestModules are what the lab needs of a kernel beyond what is built in.
func guestModules() []string {
	return []string{
		"veth", "bridge", "8021q", "pppoe", "ppp_async", "ppp_synctty", "sch_netem", "sch_tbf", "tun", "dummy", "macvlan",
		"nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_redir", "nft_ct", "nft_reject_inet", "nft_reject_bridge", "nft_numgen", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fwd_netdev",
		"cls_u32", "act_police", "ifb numifbs=0", "cls_matchall", "act_mirred", "sch_ingress",
	}
}

const (
	guestMemoryMiB = 1536
	// What a scenario takes besides its visit: building, settling, events.
	overhead = 5 * time.Minute
)

// runner plays scenarios.
type runner struct {
	*app
	json  bool
	where string // host, guest, or auto
	jobs  int
	// guestJobs is how many are played at once in a guest, whose processors are
	// emulated; 0: as jobs.
	guestJobs int
	keep      string
	// report is the file that gets how often the agent was right; "": none.
	report string
	log    *slog.Logger
	noise  io.Writer // where what labs say besides goes
}

// scenarios plays files and prints what came of them.
func (a *app) scenarios(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab run", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	r := runner{app: a}
	f.BoolVar(&r.json, "json", false, "print one JSON line per scenario instead of a table")
	f.StringVar(&r.where, "where", "auto", "host, guest, or auto: in a guest where this kernel lacks what a scenario needs, or who runs it is not root")
	f.IntVar(&r.jobs, "jobs", 2, "how many are played at once")
	f.IntVar(&r.guestJobs, "guest-jobs", 0, "how many are played at once in a guest; 0: as --jobs")
	f.StringVar(&r.report, "report", "", "write how often the agent was right to `FILE`, and end with 1 only below the bars")
	f.StringVar(&r.keep, "keep", "", "leave each lab's files in a directory below `DIR`")
	verbose := f.Bool("verbose", false, "tell what is done")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(a.out, "ontlab run [flags] FILE...")
			f.SetOutput(a.out)
			f.PrintDefaults()
			return err
		}
		return fmt.Errorf("%w: run: %w", errUsage, err)
	}
	switch {
	case f.NArg() == 0:
		return fmt.Errorf("%w: run: no scenario file is given", errUsage)
	case r.jobs < 1 || r.jobs > 16 || r.guestJobs < 0 || r.guestJobs > 16:
		return fmt.Errorf("%w: run: --jobs is 1 to 16, --guest-jobs 0 to 16", errUsage)
	case !slices.Contains([]string{"auto", scenario.WhereHost, scenario.WhereGuest}, r.where):
		return fmt.Errorf("%w: run: --where is host, guest or auto", errUsage)
	}
	r.log, r.noise = slog.New(slog.DiscardHandler), io.Discard
	if *verbose {
		r.log, r.noise = slog.New(slog.NewTextHandler(a.err, nil)), a.err
	}
	var todo []scenario.Scenario
	var problems []error
	for _, file := range f.Args() {
		s, err := scenario.Load(file)
		todo, problems = append(todo, s), append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return r.run(ctx, todo)
}

func (r *runner) run(ctx context.Context, todo []scenario.Scenario) error {
	here, guest := r.sort(ctx, todo)
	results := make([]scenario.Result, len(todo))
	var printing sync.Mutex
	var printErr error
	var played atomic.Int32
	done := func(i int, result scenario.Result) {
		printing.Lock()
		defer printing.Unlock()
		results[i] = result
		if r.report != "" && !r.json {
			fmt.Fprintf(r.err, "%d of %d: %s %s %s\n", played.Add(1), len(todo), result.Scenario, result.Verdict, result.FirstCause)
		}
		if r.json {
			printErr = errors.Join(printErr, scenario.WriteJSON(r.out, result))
		}
	}
	together, alone := apart(todo, here)
	// A guest uses up the processors, and most labs here wait: so both at once.
	var playing sync.WaitGroup
	playing.Go(func() { r.guest(ctx, todo, guest, done) })
	r.several(ctx, todo, together, r.jobs, done)
	playing.Wait()
	r.several(ctx, todo, alone, 1, done)
	if !r.json {
		printErr = scenario.WriteTable(r.out, results)
	}
	if printErr != nil {
		return printErr
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.report != "" {
		return r.writeReport(todo, results)
	}
	if slices.ContainsFunc(results, func(r scenario.Result) bool { return !r.OK }) {
		return errNotAsExpected
	}
	return nil
}

// writeReport writes how often the agent was right. Only that decides then.
func (r *runner) writeReport(todo []scenario.Scenario, results []scenario.Result) error {
	var page bytes.Buffer
	if err := scenario.WriteAccuracy(&page, todo, results, machine()); err != nil {
		return err
	}
	if err := os.WriteFile(r.report, page.Bytes(), 0o644); err != nil { //nolint:gosec // the user says where; nothing secret
		return fmt.Errorf("cannot write report: %w", err)
	}
	if !scenario.MeasureAccuracy(results).OK() {
		return errNotAsExpected
	}
	return nil
}

// errNotAsExpected ends with exit code 1; what was not is printed already.
var errNotAsExpected = errors.New("not all was as expected")

// sort tells which are played here and which in a guest.
func (r *runner) sort(ctx context.Context, todo []scenario.Scenario) (here, guest []int) {
	var missing []string
	if r.where == "auto" {
		missing = netbox.Missing(ctx)
	}
	for i, s := range todo {
		lacking := func(need string) bool { return slices.Contains(missing, need) }
		switch {
		// The operator's servers change users, which takes a real root.
		case r.where == scenario.WhereGuest, r.where == "auto" && (os.Getuid() != 0 || slices.ContainsFunc(play.Needs(s), lacking)):
			guest = append(guest, i)
		default:
			here = append(here, i)
		}
	}
	return here, guest
}

// apart tells which of the scenarios that are played here can be played beside
// others, and which have a speed test, which is played alone: beside another
// lab it would measure the machine, and say so.
func apart(todo []scenario.Scenario, which []int) (together, alone []int) {
	for _, i := range which {
		if slices.Contains(todo[i].Order.Require, acceptance.Throughput) {
			alone = append(alone, i)
		} else {
			together = append(together, i)
		}
	}
	return together, alone
}

// several plays so many at once, on the running kernel, each in namespaces of
// its own.
func (r *runner) several(ctx context.Context, todo []scenario.Scenario, which []int, jobs int, done func(int, scenario.Result)) {
	slots := make(chan struct{}, jobs)
	var running sync.WaitGroup
	for _, i := range which {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			var result scenario.Result
			for plays := 1; ; plays++ {
				var err error
				if result, err = r.one(ctx, todo[i]); err != nil {
					result = scenario.Unplayed(todo[i].File, err)
				}
				if plays > 1 {
					result.Plays = plays
				}
				if plays == mostPlays || !spoiled(result) {
					break
				}
				r.log.Info("the machine was busy: played again", "scenario", todo[i].Name)
			}
			done(i, result)
		})
	}
	running.Wait()
}

// mostPlays is how often a scenario is played whose speed test the machine
// spoiled.
const mostPlays = 3

// spoiled reports whether a scenario did not come out because something else
// on this machine took its processor from the speed test.
func spoiled(r scenario.Result) bool {
	return !r.OK && slices.Contains(r.Causes, string(diagnosis.ThroughputDeviceCPU))
}

// one plays one scenario.
func (r *runner) one(ctx context.Context, s scenario.Scenario) (scenario.Result, error) {
	keep := ""
	if r.keep != "" {
		keep = filepath.Join(r.keep, s.Name)
	}
	limit := time.Duration(s.Measure.LimitS*float64(time.Second)) + overhead
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not played within %v", limit))
	defer cancel()
	var out, errs bytes.Buffer
	code, err := netbox.Enter(ctx, nil, &out, io.MultiWriter(&errs, r.noise), playVerb, "--keep", keep, s.File)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return scenario.Result{}, err
	}
	result, err := lastResult(out.Bytes())
	if err != nil {
		return result, fmt.Errorf("the lab ended with exit code %d: %s", code, strings.TrimSpace(errs.String()))
	}
	return result, nil
}

func lastResult(out []byte) (scenario.Result, error) {
	var result scenario.Result
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &result); err != nil {
		return scenario.Result{}, fmt.Errorf("cannot read the lab's result: %w", err)
	}
	return result, nil
}

// play plays one scenario in the namespaces that Enter made, and prints its
// result.
func (a *app) play(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ontlab play", flag.ContinueOnError)
	f.SetOutput(a.err)
	keep := f.String("keep", "", "where to leave the lab's files")
	where := f.String("where", scenario.WhereHost, "")
	if err := f.Parse(args); err != nil || f.NArg() != 1 {
		return fmt.Errorf("%w: play FILE", errUsage)
	}
	s, err := scenario.Load(f.Arg(0))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if os.Getenv(inGuestEnv) != "" {
		*where = scenario.WhereGuest
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	dir, err := scratch.New("run")
	if err != nil {
		return err
	}
	defer dir.Remove() //nolint:errcheck // a temporary directory
	log := slog.New(slog.NewTextHandler(a.err, nil)).With("scenario", s.Name)
	observed := play.Play(ctx, s, play.Options{Dir: dir.Path, BinDir: filepath.Dir(self), Log: log})
	observed.Where = *where
	if *keep != "" {
		if err := copyFiles(*keep, dir.Path); err != nil {
			log.Warn("the lab's files cannot be kept", "error", err)
		}
	}
	return scenario.WriteJSON(a.out, scenario.Compare(s, observed))
}

// longestKept bounds the files of a lab that are kept, in bytes.
const longestKept = 8 << 20

// copyFiles copies what are files: a lab's directory has sockets and pipes as
// well, and not every file system that a lab's files are kept on can have those.
func copyFiles(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if info, err := d.Info(); err != nil || info.Size() > longestKept {
			return err // the web server's files are of a gigabyte, and empty
		}
		data, err := os.ReadFile(path) //nolint:gosec // our own directory
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600) //nolint:gosec // the user says where
	})
}

// inGuestEnv tells a lab that it is in a guest.
const inGuestEnv = "ONTLAB_GUEST"

// guest plays in a QEMU guest, all in one boot.
func (r *runner) guest(ctx context.Context, todo []scenario.Scenario, which []int, done func(int, scenario.Result)) {
	if len(which) == 0 {
		return
	}
	left := map[string]int{}
	fail := func(err error) {
		for _, i := range left {
			done(i, scenario.Unplayed(todo[i].File, err))
		}
	}
	args := []string{"", "run", "--json", "--where", scenario.WhereHost, "--jobs", strconv.Itoa(cmp.Or(r.guestJobs, r.jobs))}
	if r.log.Enabled(ctx, slog.LevelInfo) {
		args = append(args, "--verbose")
	}
	results := ""
	if r.keep != "" {
		var err error
		if results, err = filepath.Abs(r.keep); err == nil {
			err = os.MkdirAll(results, 0o750)
		}
		if err != nil {
			r.log.Warn("the labs' files cannot be kept", "error", err)
			results = ""
		} else {
			args = append(args, "--keep", vm.ResultsDir)
		}
	}
	timeout := time.Minute
	for _, i := range which {
		file, err := filepath.Abs(todo[i].File)
		if err != nil {
			done(i, scenario.Unplayed(todo[i].File, err))
			continue
		}
		left[todo[i].Name] = i
		args = append(args, file)
		timeout += time.Duration(todo[i].Measure.LimitS*float64(time.Second)) + overhead
	}
	var err error
	if args[0], err = os.Executable(); err != nil {
		fail(err)
		return
	}
	out, in := io.Pipe()
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			var result scenario.Result
			if json.Unmarshal(line, &result) == nil {
				if i, ok := left[result.Scenario]; ok {
					delete(left, result.Scenario)
					done(i, result)
				}
			}
			if err != nil {
				return
			}
		}
	})
	var noise bytes.Buffer
	result, err := vm.Run(ctx, vm.Options{Modules: guestModules(), MemoryMiB: guestMemoryMiB, Log: r.log}, vm.Job{
		Args: args, Env: []string{inGuestEnv + "=1"}, Timeout: timeout, Stdout: in, Stderr: io.MultiWriter(&noise, r.noise), Results: results,
	})
	_ = in.Close() // of a pipe in memory
	reading.Wait()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("the guest's run ended with exit code %d: %s", result.ExitCode, strings.TrimSpace(noise.String()))
	}
	if err != nil {
		fail(err)
	}
}

// runExit is the exit code of run: 1 where not all was as expected, which is
// printed already.
func (a *app) runExit(err error) int {
	if errors.Is(err, errNotAsExpected) {
		return cli.Fail
	}
	return a.exit(err)
}
