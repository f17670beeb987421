package throughput

import "context"

// settle judges what was measured, and measures again where that may decide. The
// error is ctx's.
func (r *runner) settle(ctx context.Context, rate *Rate, from string, dir Direction) error {
	q := question{
		contractMbps: rate.ContractMbps, minRatio: r.o.MinRatio, layer: r.o.Layer, dir: dir,
		windowS: r.o.Window.Seconds(),
	}
	runs := []Measurement{rate.Measurement}
	chosen := 0
	if got := runs[0].mbps(q.layer); got != nil && runs[0].Error == "" && q.contractMbps > 0 && borderline(*got, q.contractMbps*q.minRatio) {
		r.o.Note(string(dir) + ": so near to what is asked for, the median of three counts")
		for len(runs) < repeats {
			m, err := r.once(ctx, from, dir, r.o.Window)
			if err != nil {
				return err
			}
			if runs = append(runs, m); m.Error != "" {
				break // what keeps one from measuring does so again
			}
		}
		chosen = max(medianRun(runs, q), 0)
		q.second = lowestRun(runs, chosen, q)
	}
	judged := func() {
		rate.Measurement = runs[chosen]
		rate.Verdict, rate.LimitedBy, rate.Reason = judge(runs[chosen], q)
	}
	judged()
	if again := r.secondOf(rate, from, q.second != nil); again != "" {
		r.o.Note(string(dir) + ": below the contract; once again, from " + again)
		window := min(r.o.Window, secondWindow)
		m, err := r.once(ctx, again, dir, window)
		if err != nil {
			return err
		}
		runs = append(runs, m)
		q.second, q.windowS = &m, window.Seconds()
		judged()
	}
	if len(runs) > 1 {
		rate.Runs = runs
	}
	return nil
}

// secondOf is the URL that may confirm that a rate is below the contract; "" if
// nothing is to be confirmed.
func (r *runner) secondOf(rate *Rate, from string, repeated bool) string {
	open := rate.Verdict == Fail || rate.Verdict == Inconclusive && (rate.LimitedBy == LimitLine || repeated && rate.LimitedBy == LimitServer)
	switch {
	case !open || rate.Error != "":
		return ""
	case r.o.SecondURL != "":
		return r.o.SecondURL
	case repeated:
		return ""
	}
	return from
}
