package speed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/vm"
)

// ErrUsage is found by errors.Is where the arguments are wrong.
var ErrUsage = errors.New("usage")

// The parts of a whole run, in their order. Guest is all of what needs delay.
const (
	partAccuracy = "accuracy"
	partCost     = "cost"
	partMemory   = "memory"
	partQuota    = "quota"
	partMIPS     = "mipsle"
	partGuest    = "guest"
)

func allParts() []string {
	return []string{partAccuracy, partCost, partMemory, partQuota, partMIPS, partGuest}
}

// The words by which the program runs itself again.
const (
	clientWord = "client" // as a client made of net/http
	playWord   = "play"   // as the lab, on the host or in the guest
)

// Options describe a run.
type Options struct {
	// Agent is the program measured; MIPS the same for mipsle, and empty where
	// there is none.
	Agent, MIPS string
	// Parts are what to measure; nil is everything.
	Parts []string
	// Rounds is how often each client takes its turn where costs are compared.
	Rounds int
	// QuotaRuns is how many runs are held to a fraction of a core.
	QuotaRuns int
	// Congestion is the congestion control of both ends.
	Congestion string
}

// args are what the program runs itself with, to come to the same Options.
func (o Options) args() []string {
	return []string{
		"--agent", o.Agent, "--mipsle", o.MIPS, "--only", strings.Join(o.Parts, ","),
		"--rounds", fmt.Sprint(o.Rounds), "--quota-runs", fmt.Sprint(o.QuotaRuns), "--congestion", o.Congestion,
	}
}

func parse(args []string, errOut io.Writer) (Options, error) {
	f := flag.NewFlagSet("bench-throughput", flag.ContinueOnError)
	f.SetOutput(errOut)
	var o Options
	f.StringVar(&o.Agent, "agent", "", "the ontagent to measure (default: beside this program)")
	f.StringVar(&o.MIPS, "mipsle", "", "the same for mipsle (default: dist/linux-mipsle/ontagent, if there)")
	only := f.String("only", "", "measure these `PARTS` alone: "+strings.Join(allParts(), ","))
	f.IntVar(&o.Rounds, "rounds", 3, "how often each client takes its turn, 1 to 20")
	f.IntVar(&o.QuotaRuns, "quota-runs", 5, "how many runs are held to a fraction of a core, 1 to 1000")
	f.StringVar(&o.Congestion, "congestion", "cubic", "congestion control of both ends")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	o.Parts = strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	if len(o.Parts) == 0 {
		o.Parts = allParts()
	}
	for _, p := range o.Parts {
		if !slices.Contains(allParts(), p) {
			return o, fmt.Errorf("%w: there is no part %q", ErrUsage, p)
		}
	}
	if f.NArg() > 0 || o.Rounds < 1 || o.Rounds > 20 || o.QuotaRuns < 1 || o.QuotaRuns > 1000 {
		return o, fmt.Errorf("%w: --rounds is 1 to 20, --quota-runs 1 to 1000, and nothing else is taken", ErrUsage)
	}
	self, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("cannot find this program: %w", err)
	}
	if o.Agent == "" {
		o.Agent = filepath.Join(filepath.Dir(self), "ontagent")
	}
	if mips := filepath.Join(filepath.Dir(self), "../dist/linux-mipsle/ontagent"); o.MIPS == "" && isFile(mips) {
		o.MIPS = mips
	}
	for _, path := range []*string{&o.Agent, &o.MIPS} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return o, fmt.Errorf("cannot find %s: %w", *path, err)
		}
		if !isFile(*path) {
			return o, fmt.Errorf("%w: there is no program %s", ErrUsage, *path)
		}
	}
	return o, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Bench is the program. Self are the arguments with which this program comes
// here again; what follows them is args.
type Bench struct {
	Self     []string
	Out, Err io.Writer
}

// Main measures and writes the page to Out: Markdown. It returns an exit code:
// 0 if every bar was met, 1 if one was not or could not be measured.
func (b *Bench) Main(ctx context.Context, args []string) (int, error) {
	switch {
	case len(args) > 0 && args[0] == clientWord:
		return 0, runHTTPClient(ctx, args[1:], b.Out)
	case len(args) > 0 && args[0] == playWord:
		return b.play(ctx, args)
	}
	o, err := parse(args, b.Err)
	if err != nil {
		return 0, err
	}
	return b.run(ctx, o)
}

// run has the lab played where it can be, and prints what came of it.
func (b *Bench) run(ctx context.Context, o Options) (int, error) {
	began := time.Now()
	var all findings
	if slices.ContainsFunc(o.Parts, func(p string) bool { return p != partGuest }) {
		var out bytes.Buffer
		code, err := netbox.Enter(ctx, nil, &out, b.Err, slices.Concat(b.Self, []string{playWord}, o.args())...)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d", code)
		}
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &all)
		}
		if err != nil {
			return 0, fmt.Errorf("cannot measure on this machine: %w", err)
		}
	}
	if slices.Contains(o.Parts, partGuest) {
		if err := b.guest(ctx, o, &all); err != nil {
			if ctx.Err() != nil {
				return 0, err
			}
			all.Missing = append(all.Missing, err.Error())
		}
	}
	report := newReport(o, all, time.Since(began))
	report.write(b.Out)
	if !report.met() {
		return 1, nil
	}
	return 0, nil
}

// guestEnv says that this is the guest.
const guestEnv = "ONTLAB_SPEED_GUEST"

// guest has the part with delay played in the guest.
func (b *Bench) guest(ctx context.Context, o Options, all *findings) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	o.Parts = []string{partGuest}
	fmt.Fprintln(b.Err, "speed: booting the guest")
	var out bytes.Buffer
	result, err := vm.Run(ctx, vm.Options{Modules: []string{"veth", "sch_tbf", "sch_netem"}, MemoryMiB: 1536}, vm.Job{
		Args: slices.Concat([]string{self}, b.Self, []string{playWord}, o.args()), Env: []string{guestEnv + "=1"}, Dir: "/",
		Timeout: 20 * time.Minute, Stdout: &out, Stderr: b.Err,
	})
	if err == nil && result.ExitCode != 0 {
		err = fmt.Errorf("exit code %d", result.ExitCode)
	}
	var found findings
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &found)
	}
	if err != nil {
		return fmt.Errorf("cannot measure in the guest: %w", err)
	}
	all.add(found)
	return nil
}

// play is the lab: args are playWord and the options.
func (b *Bench) play(ctx context.Context, args []string) (int, error) {
	if !netbox.Inside() {
		// Not there yet, or the first process there: see netbox.Enter.
		return netbox.Enter(ctx, nil, b.Out, b.Err, slices.Concat(b.Self, args)...)
	}
	o, err := parse(args[1:], b.Err)
	if err != nil {
		return 0, err
	}
	found, err := measure(ctx, o, b.Self, b.Err)
	if err != nil {
		return 0, err
	}
	if err := json.NewEncoder(b.Out).Encode(found); err != nil {
		return 0, fmt.Errorf("cannot write what was found: %w", err)
	}
	return 0, nil
}
