package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/throughput"
	"ontagent/cmd/cli"
	"ontagent/collectors/wan"
	"ontagent/config"
)

// speedTest is one run of the speed test by itself.
type speedTest struct {
	probing
	o       throughput.Options
	verbose bool
	// What the flags say, as it is written there.
	direction, layer, contract, ratio, maxBytes, encapsulation string

	measure func(context.Context, throughput.Options) (throughput.Result, error)
}

// throughput measures the line's speed, for who is logged in.
func (a *app) throughput(ctx context.Context, args []string) error {
	t := &speedTest{probing: probing{app: a, name: a.verb}, measure: runSpeedTest}
	return t.run(ctx, args)
}

func (t *speedTest) run(ctx context.Context, args []string) error {
	// The configuration has the defaults of the flags, one of which says where
	// it is.
	t.conf = config.Default()
	if err := t.parse(args); err != nil {
		return err
	}
	if err := t.load(); err != nil {
		return err
	}
	if t.lang == "" {
		t.lang = t.conf.Main.Language
	}
	t.o, t.flags = throughput.Options{}, nil
	if err := t.parse(args); err != nil {
		return err
	}
	if err := t.options(ctx); err != nil {
		return err
	}
	result, err := t.measure(ctx, t.o)
	if errors.Is(err, throughput.ErrOptions) {
		return cli.Exit(cli.Usage, "throughput: %w", err)
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	if err != nil {
		result.URL, result.Verdict, result.Reason = t.o.URL, throughput.Inconclusive, err.Error()
	}
	return t.tell(result)
}

// parse reads the flags.
func (t *speedTest) parse(args []string) error {
	c := &t.conf.Throughput
	t.o.URL, t.o.UploadURL, t.o.SecondURL, t.o.UploadMethod = c.URL, c.UploadURL, c.SecondURL, c.UploadMethod
	t.o.Connections, t.o.Window = c.Connections, c.Window
	t.direction, t.layer, t.ratio, t.maxBytes = "both", "tcp", "0.9", "0"
	if ratio, ok := t.conf.Thresholds["throughput.min_ratio"]; ok {
		t.ratio = strconv.FormatFloat(ratio, 'g', -1, 64)
	}
	t.bind(throughputFlags, "", &t.o.URL, &t.o.UploadURL, &t.o.SecondURL, &t.direction, &t.contract, &t.layer, &t.ratio,
		&t.o.Connections, &t.o.Window, &t.maxBytes, &t.o.UploadMethod, &t.o.Interface, &t.encapsulation,
		&t.o.MayDisturb, &t.conf.WAN.Resolvers, &t.verbose, &t.config, &t.lang, &t.json)
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	for _, v := range t.flags {
		f.Var(v, v.name, "")
	}
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(t.out, throughputHelp+throughputFlags+throughputCodes)
		return err
	case err != nil:
		return wrongSpeedTest(err.Error() + "; `ontagent throughput --help` lists the flags")
	case f.NArg() != 0:
		return wrongSpeedTest("there is something beside the flags")
	}
	return nil
}

func wrongSpeedTest(text string) error { return cli.Exit(cli.Usage, "throughput: %s", text) }

// options makes what the flags say into what is asked for.
func (t *speedTest) options(ctx context.Context) error {
	wrong := func(name, value, must string) error {
		return wrongSpeedTest("invalid value " + strconv.Quote(value) + " for flag -" + name + ": must be " + must)
	}
	o := &t.o
	if o.URL == "" && (t.direction != string(throughput.Up) || o.UploadURL == "") {
		return wrongSpeedTest("--url is needed; `ontagent throughput --help` says what it may be")
	}
	if _, known := diagnosis.ParseLang(t.lang); !known {
		return wrong("lang", t.lang, "zh-CN or en")
	}
	o.Direction, o.Layer = throughput.Direction(t.direction), throughput.Layer(t.layer)
	if o.Window < time.Second || o.Window > time.Minute {
		return wrong("window", strconv.FormatFloat(o.Window.Seconds(), 'g', -1, 64), "1 to 60 seconds")
	}
	var ok bool
	if o.ContractDownMbps, o.ContractUpMbps, ok = parseContract(t.contract); !ok {
		return wrong("contract", t.contract, "a rate in Mbit/s like 500, or two like 500/50")
	}
	if o.MinRatio, ok = parseNumber(t.ratio, 1); !ok || o.MinRatio == 0 {
		return wrong("ratio", t.ratio, "above 0 to 1")
	}
	most, ok := parseNumber(t.maxBytes, 1e15)
	if !ok {
		return wrong("max-bytes", t.maxBytes, "a number of bytes to 1e15, or 0")
	}
	o.MaxBytes = uint64(most)

	line := newLineReader(t.conf)
	o.Line, o.Resolve = line.read, t.lookup()
	if t.encapsulation == "" {
		name := o.Interface
		if name == "" {
			// What can't be read adds nothing: the ceiling is only too high then.
			w, _ := wan.New(wan.Options{Interface: t.conf.WAN.Interface}).Read(ctx)
			name = w.Interface
		}
		o.Encapsulation, _ = line.encapsulation(ctx, name)
	} else if o.Encapsulation, ok = parseEncapsulation(t.encapsulation); !ok {
		return wrong("encapsulation", t.encapsulation, "ipoe or pppoe, vlan or qinq, ds-lite, with commas between them")
	}
	if t.verbose || isTerminal(t.err) {
		o.Note = func(text string) { fmt.Fprintln(t.err, "ontagent:", printable(text)) }
	}
	return nil
}

// parseNumber reads a number from 0 to most.
func parseNumber(s string, most float64) (float64, bool) {
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && n >= 0 && n <= most // what is no number is not within bounds either
}

// parseContract reads one rate for both directions or down/up, of which one may
// be 0; empty is none.
func parseContract(s string) (down, up float64, ok bool) {
	if s == "" {
		return 0, 0, true
	}
	const fastest = 1e6 // Mbit/s
	first, second, two := strings.Cut(s, "/")
	down, ok = parseNumber(first, fastest)
	up = down
	if two && ok {
		up, ok = parseNumber(second, fastest)
	}
	return down, up, ok && down+up > 0
}

func parseEncapsulation(s string) (e throughput.Encapsulation, ok bool) {
	for kind := range strings.SplitSeq(s, ",") {
		switch kind {
		case "ipoe":
		case "pppoe":
			e.PPPoE = true
		case "vlan":
			e.VLANTags = 1
		case "qinq":
			e.VLANTags = 2
		case "ds-lite":
			e.TunnelBytes = 40 // the header of IPv6
		default:
			return e, false
		}
	}
	return e, true
}

// isTerminal reports whether people read what is written to w as it comes.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// tell prints the result and returns how the program ends.
func (t *speedTest) tell(r throughput.Result) error {
	var out bytes.Buffer
	if t.json {
		data, err := json.Marshal(r)
		if err != nil {
			return cli.Exit(cli.Inconclusive, "throughput: cannot encode result: %w", err)
		}
		escape(&out, string(data))
	} else {
		lang, _ := diagnosis.ParseLang(t.lang)
		speedReport{&out, lang, r}.write()
	}
	if _, err := t.out.Write(out.Bytes()); err != nil {
		return cli.Because(cli.Inconclusive, err)
	}
	switch r.Verdict {
	case throughput.Pass, throughput.Measured:
		return nil
	case throughput.Fail:
		return cli.Silent(cli.Fail)
	case throughput.Inconclusive:
	}
	return cli.Silent(cli.Inconclusive)
}

// round1 rounds to a tenth.
func round1(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }
