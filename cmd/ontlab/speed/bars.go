package speed

import (
	"fmt"
	"math"
	"slices"

	"ontagent/agent/probe/throughput"
)

// What is promised.
const (
	barOffPercent   = 0.5
	barDownIperf    = 1.0 / 2
	barDownNethttp  = 1.0 / 3
	barUpIperf      = 1.0
	barSeconds      = 15
	barMemoryKiB    = 4 << 10
	barMIPSPercent  = 0.5
	accuracyRates   = 4 // on the host, in each direction
	accuracyDelayed = 4 // in the guest
)

// bar is something promised, and whether it is so.
type bar struct {
	what, limit, value string
	met                bool
}

// unmeasured is the value of a bar that nothing was measured for.
const unmeasured = "not measured"

// bars holds what was found against what was promised, as far as its part was
// asked for.
func bars(parts []string, f findings) []bar {
	var all []bar
	add := func(part string, more ...bar) {
		if slices.Contains(parts, part) {
			all = append(all, more...)
		}
	}
	add(partAccuracy,
		accuracyBar("error against the shaper's rate: undelayed, 100 to 1000 Mbit/s, both directions", f.Accuracy, false, 2*accuracyRates, accuracy.offPercent),
		accuracyBar("error against what the shaper let through meanwhile", f.Accuracy, false, 2*accuracyRates, accuracy.offPassedPercent),
		secondsBar("longest run of one direction", f.Accuracy, false))
	add(partCost,
		ratioBar(f.Cost, throughput.Down, iperfP4Name, barDownIperf),
		ratioBar(f.Cost, throughput.Down, iperfName, barDownIperf),
		ratioBar(f.Cost, throughput.Down, nethttpName, barDownNethttp),
		ratioBar(f.Cost, throughput.Up, iperfP4Name, barUpIperf),
		ratioBar(f.Cost, throughput.Up, iperfName, barUpIperf))
	add(partMemory, memoryBar(f.Memory))
	add(partQuota, quotaBar(f.Quota), controlBar(f.Control))
	add(partMIPS, mipsBar(f.MIPS))
	add(partGuest,
		accuracyBar("error against the shaper's rate: 10 and 40 ms, 50 and 100 Mbit/s, both directions, in the guest", f.Accuracy, true, 2*accuracyDelayed, accuracy.offPercent),
		accuracyBar("error against what the shaper let through meanwhile, in the guest", f.Accuracy, true, 2*accuracyDelayed, accuracy.offPassedPercent),
		secondsBar("longest run of one direction, in the guest", f.Accuracy, true), lossBar(f.Lossy))
	return all
}

// accuracyBar is of the error that off tells; least is how many runs there
// must be.
func accuracyBar(what string, runs []accuracy, guest bool, least int, off func(accuracy) float64) bar {
	b := bar{what: what, limit: fmt.Sprintf("≤ %g %%", barOffPercent), value: unmeasured}
	n, met := 0, 0
	var worst accuracy
	for _, a := range runs {
		if a.Guest != guest {
			continue
		}
		if n == 0 || !(math.Abs(off(a)) <= math.Abs(off(worst))) {
			worst = a
		}
		n++
		if math.Abs(off(a)) <= barOffPercent {
			met++
		}
	}
	if n < least {
		return b
	}
	b.value = fmt.Sprintf("%d of %d runs; worst: %+.2f %% (%s, %.0f Mbit/s)", met, n, off(worst), worst.Direction, worst.RateMbps)
	b.met = met == n
	return b
}

func secondsBar(what string, runs []accuracy, guest bool) bar {
	b := bar{what: what, limit: fmt.Sprintf("≤ %d s", barSeconds), value: unmeasured}
	longest := 0.0
	for _, a := range runs {
		if a.Guest == guest {
			longest = max(longest, a.TookS)
		}
	}
	if longest > 0 {
		b.value, b.met = fmt.Sprintf("%.1f s", longest), longest <= barSeconds
	}
	return b
}

// asMany is ours with as many connections as another client has.
func asMany(client string) string {
	if client == iperfName || client == iperfZName {
		return oursOneName
	}
	return oursName
}

// ratios are, round by round, our processor time over another's, with as many
// connections.
func ratios(all []cost, d direction, client string) []float64 {
	var a, z []sample
	for _, c := range all {
		switch {
		case c.Direction != d:
		case c.Client == asMany(client):
			a = c.Samples
		case c.Client == client:
			z = c.Samples
		}
	}
	var out []float64
	for i := range min(len(a), len(z)) {
		// Nothing moved is no small cost.
		if a[i].Gbit > 0 && z[i].CPUPerGbit > 0 {
			out = append(out, a[i].CPUPerGbit/z[i].CPUPerGbit)
		}
	}
	if len(out) < max(len(a), len(z)) {
		return nil
	}
	return out
}

func ratioBar(all []cost, d direction, client string, limit float64) bar {
	b := bar{what: fmt.Sprintf("processor time per Gbit, %s: %s, over %s", d, asMany(client), client), limit: fmt.Sprintf("≤ %.2f", limit), value: unmeasured}
	if r := ratios(all, d, client); len(r) > 0 {
		b.value = fmt.Sprintf("%.2f (%.2f to %.2f)", median(r), slices.Min(r), slices.Max(r))
		b.met = median(r) <= limit
	}
	return b
}

func memoryBar(m *memoryCost) bar {
	b := bar{what: "memory above idle", limit: "≤ 4 MiB", value: unmeasured}
	if m == nil || m.Idle.PeakKiB == 0 || m.Down.PeakKiB == 0 || m.Up.PeakKiB == 0 {
		return b
	}
	more := max(m.Down.PeakKiB, m.Up.PeakKiB) - m.Idle.PeakKiB
	b.value, b.met = fmt.Sprintf("%.2f MiB", float64(more)/1024), more <= barMemoryKiB
	return b
}

func quotaBar(runs []held) bar {
	b := bar{what: "false fails, held to a part of a core", limit: "0", value: unmeasured}
	if len(runs) == 0 {
		return b
	}
	n := map[throughput.Verdict]int{}
	for _, h := range runs {
		n[h.Verdict]++
	}
	b.value = fmt.Sprintf("%d in %d runs (%d pass, %d inconclusive)", n[throughput.Fail], len(runs), n[throughput.Pass], n[throughput.Inconclusive])
	b.met = n[throughput.Fail] == 0 && n[throughput.Pass]+n[throughput.Inconclusive] == len(runs)
	return b
}

func controlBar(h *held) bar {
	b := bar{what: "a line that is too slow, the process not held", limit: "fail", value: unmeasured}
	if h != nil {
		b.value = fmt.Sprintf("%s, %.0f of %.0f Mbit/s", h.Verdict, h.Mbps, h.ContractMbps)
		b.met = h.Verdict == throughput.Fail
	}
	return b
}

func mipsBar(runs []emulated) bar {
	b := bar{what: "mipsle under qemu-user, same line", limit: fmt.Sprintf("same verdict, rate within %g %%", barMIPSPercent), value: unmeasured}
	if len(runs) < 2 {
		return b
	}
	b.value, b.met = "", true
	for i, e := range runs {
		if i > 0 {
			b.value += "; "
		}
		b.value += fmt.Sprintf("%s %s and %s, %+.2f %%", e.Direction, e.NativeSays, e.MIPSSays, e.offPercent())
		b.met = b.met && e.MIPS > 0 && e.NativeSays == e.MIPSSays && math.Abs(e.offPercent()) <= barMIPSPercent
	}
	return b
}

// offPercent is how far the emulated program is off the native one.
func (e emulated) offPercent() float64 { return 100 * (e.MIPS/e.Native - 1) }

func lossBar(runs []lossy) bar {
	b := bar{what: "loss keeps TCP below the contract", limit: "never fail", value: unmeasured}
	if len(runs) < 2 {
		return b
	}
	b.value, b.met = "", true
	for i, l := range runs {
		if i > 0 {
			b.value += "; "
		}
		b.value += fmt.Sprintf("%s %s (%s), %.0f Mbit/s", l.Direction, l.Verdict, l.LimitedBy, l.Mbps)
		b.met = b.met && l.Verdict == throughput.Inconclusive
	}
	return b
}

// median of what is not empty.
func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
