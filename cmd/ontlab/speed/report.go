package speed

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/probe/throughput"
)

// report is the page.
type report struct {
	o     Options
	found findings
	took  time.Duration
	bars  []bar
	w     io.Writer
}

func newReport(o Options, found findings, took time.Duration) *report {
	return &report{o: o, found: found, took: took, bars: bars(o.Parts, found)}
}

func (r *report) met() bool {
	return len(r.bars) > 0 && !slices.ContainsFunc(r.bars, func(b bar) bool { return !b.met })
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

// table writes a table; rows hold as many cells as there are heads.
func (r *report) table(title string, heads []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	r.line("\n### %s\n\n| %s |\n|%s", title, strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
	for _, row := range rows {
		r.line("| %s |", strings.Join(row, " | "))
	}
}

func (r *report) write(w io.Writer) {
	r.w = w
	r.line("Machine: %s. Took %v. Congestion control of both ends: %s.", machine(), r.took.Round(time.Second), r.o.Congestion)
	var rows [][]string
	for _, b := range r.bars {
		word := "**not met**"
		if b.met {
			word = "met"
		}
		rows = append(rows, []string{b.what, b.limit, b.value, word})
	}
	r.table("What was promised", []string{"what", "limit", "measured", ""}, rows)
	for _, text := range r.found.Missing {
		r.line("\nNot measured: %s", text)
	}
	r.accuracy("Error on the host, without delay", false)
	r.rates()
	for _, d := range directions() {
		r.costs(d)
	}
	r.memory()
	r.quota()
	r.mips()
	r.accuracy("Error in the guest, with delay", true)
	r.lossy()
}

func (r *report) accuracy(title string, guest bool) {
	var rows [][]string
	for _, a := range r.found.Accuracy {
		if a.Guest != guest {
			continue
		}
		rate := fmt.Sprintf("%.0f", a.RateMbps)
		if guest {
			rate += fmt.Sprintf(", %.0f ms", a.DelayMS)
		}
		rows = append(rows, []string{
			rate, string(a.Direction), number(a.TruthMbps), number(a.Mbps), fmt.Sprintf("%+.2f", a.offPercent()), fmt.Sprintf("%+.2f", a.offPassedPercent()),
			fmt.Sprintf("%.1f", a.TookS), yes(a.Stable), a.CountedBy, orDash(a.Told), string(orNone(a.LimitedBy)), orDash(a.Reason),
		})
	}
	r.table(title, []string{
		"line, Mbit/s of frames", "direction", "truth, Mbit/s", "measured", "off the truth, %", "off what passed, %", "took, s", "stable", "counted by", "sender's congestion control, as told", "limited by", "why",
	}, rows)
}

// rates are what each client says of each line: medians.
func (r *report) rates() {
	type key struct {
		guest    bool
		d        direction
		rate, ms float64
	}
	var keys []key
	says := map[key]map[string][]float64{}
	var clients []string
	note := func(k key, client string, mbps float64) {
		if says[k] == nil {
			says[k] = map[string][]float64{}
			keys = append(keys, k)
		}
		if !slices.Contains(clients, client) {
			clients = append(clients, client)
		}
		says[k][client] = append(says[k][client], mbps)
	}
	for _, a := range r.found.Accuracy {
		note(key{guest: a.Guest, d: a.Direction, rate: a.RateMbps, ms: a.DelayMS}, oursName, a.Mbps)
	}
	for _, o := range r.found.Rates {
		note(key{guest: o.Guest, d: o.Direction, rate: o.RateMbps, ms: o.DelayMS}, o.Client, o.Mbps)
	}
	for _, c := range r.found.Cost {
		if c.Client == oursName || c.Client == oursOneName {
			continue
		}
		for _, s := range c.Samples {
			note(key{d: c.Direction, rate: costRate}, c.Client, s.Mbps)
		}
	}
	var rows [][]string
	for _, k := range keys {
		if len(says[k]) < 2 {
			continue
		}
		line := fmt.Sprintf("%.0f", k.rate)
		if k.guest {
			line += fmt.Sprintf(", %.0f ms, guest", k.ms)
		}
		row := []string{line, string(k.d), number(truth(k.rate))}
		for _, client := range clients {
			cell := "–"
			if all := says[k][client]; len(all) > 0 {
				cell = fmt.Sprintf("%s (%+.1f %%)", number(median(all)), 100*(median(all)/truth(k.rate)-1))
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	r.table("What each client says of the same line, Mbit/s of payload (off the truth)", append([]string{"line", "direction", "truth"}, clients...), rows)
}

func (r *report) costs(d direction) {
	var rows [][]string
	for _, c := range r.found.Cost {
		if c.Direction != d || len(c.Samples) == 0 {
			continue
		}
		var per, rate, peak []float64
		for _, s := range c.Samples {
			per, rate, peak = append(per, s.CPUPerGbit), append(rate, s.Mbps), append(peak, float64(s.Memory.PeakKiB)/1024)
		}
		ratio := "–"
		mine := c.Client == oursName || c.Client == oursOneName
		if all := ratios(r.found.Cost, d, c.Client); !mine && len(all) > 0 {
			ratio = fmt.Sprintf("%.2f (%.2f to %.2f)", median(all), slices.Min(all), slices.Max(all))
		}
		rows = append(rows, []string{
			c.Client, number(median(rate)), fmt.Sprintf("%.4f", median(per)), fmt.Sprintf("%.4f to %.4f", slices.Min(per), slices.Max(per)), ratio, fmt.Sprintf("%.1f", median(peak)),
		})
	}
	what := "receive"
	if d == throughput.Up {
		what = "send"
	}
	r.table(fmt.Sprintf("What it costs to %s, at %d Mbit/s of frames: %d rounds in alternation", what, costRate, r.o.Rounds),
		[]string{"client", "Mbit/s", "user and system time, s/Gbit: median", "lowest to highest", "ours over this, round by round, with as many connections", "peak memory, MiB"}, rows)
}

func (r *report) memory() {
	m := r.found.Memory
	if m == nil {
		return
	}
	row := func(name string, of memory) []string {
		return []string{
			name, mebi(of.PeakKiB), mebi(of.AnonKiB), mebi(of.PeakKiB - m.Idle.PeakKiB), mebi(of.AnonKiB - m.Idle.AnonKiB),
		}
	}
	r.table(fmt.Sprintf("Memory at %d Mbit/s, MiB", costRate), []string{"", "peak resident", "of it anonymous", "above idle", "anonymous above idle"}, [][]string{
		row("idle: waits for pings", m.Idle), row("down", m.Down), row("up", m.Up),
	})
}

func (r *report) quota() {
	var rows [][]string
	for i, h := range append(r.control(), r.found.Quota...) {
		part, seen := "all of it", "–"
		if h.Percent > 0 {
			part, seen = fmt.Sprintf("%g %%", h.Percent), yes(h.Visible)
		}
		if len(r.found.Quota) > 20 && i > 0 {
			break // the bar has the sum
		}
		rows = append(rows, []string{
			part, seen, string(h.Direction), fmt.Sprintf("%.0f", truth(h.RateMbps)), number(h.Mbps), string(h.Verdict), string(orNone(h.LimitedBy)), orDash(h.Reason), fmt.Sprintf("%.0f", h.TookS),
		})
	}
	by := ""
	if r.found.QuotaBy != "" {
		by = " (" + r.found.QuotaBy + ")"
	}
	r.table(fmt.Sprintf("Held to a part of a core%s, contract %d Mbit/s", by, quotaContract),
		[]string{"of a core", "sees its cgroup", "direction", "truth, Mbit/s", "measured", "verdict", "limited by", "why", "took, s"}, rows)
}

func (r *report) control() []held {
	if r.found.Control == nil {
		return nil
	}
	return []held{*r.found.Control}
}

func (r *report) mips() {
	var rows [][]string
	for _, e := range r.found.MIPS {
		rows = append(rows, []string{
			string(e.Direction), number(truth(e.RateMbps)), number(e.Native), number(e.MIPS), fmt.Sprintf("%+.2f", e.offPercent()),
			string(e.NativeSays), string(e.MIPSSays), e.CountedBy, fmt.Sprintf("%.1f", e.TookS), orDash(e.MIPSReason),
		})
	}
	r.table(fmt.Sprintf("mipsle under qemu-user, on a line of %d Mbit/s, contract %d", mipsRate, mipsContract),
		[]string{"direction", "truth, Mbit/s", "native", "mipsle", "difference, %", "native says", "mipsle says", "counted by", "took, s", "why"}, rows)
}

func (r *report) lossy() {
	var rows [][]string
	for _, l := range r.found.Lossy {
		rows = append(rows, []string{
			fmt.Sprintf("%.0f, %.0f ms, %g %% lost", l.RateMbps, l.DelayMS, l.LossPercent), string(l.Direction), number(truth(l.RateMbps)), number(l.Mbps),
			fmt.Sprintf("%.0f", l.ContractMbps), string(l.Verdict), string(orNone(l.LimitedBy)), orDash(l.Reason),
		})
	}
	r.table("A line that loses packets by chance, in the guest", []string{"line", "direction", "truth without loss", "measured", "contract", "verdict", "limited by", "why"}, rows)
}

func number(f float64) string { return fmt.Sprintf("%.2f", f) }
func mebi(kib int64) string   { return fmt.Sprintf("%.2f", float64(kib)/1024) }
func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}

func orNone(l throughput.Limit) throughput.Limit {
	if l == throughput.LimitNone {
		return "–"
	}
	return l
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

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
	release := ""
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		text, _, _ := bytes.Cut(uts.Release[:], []byte{0})
		parts := strings.SplitN(string(text), ".", 3)
		release = " " + strings.Join(parts[:min(2, len(parts))], ".")
	}
	return fmt.Sprintf("%s, %d cores, Linux%s, %s", model, runtime.NumCPU(), release, runtime.Version())
}
