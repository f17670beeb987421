package play

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/command"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/record"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// visit has the technician, who is at home behind the gateway, run the order,
// and reads the record that comes of it.
func (l *Lab) visit(ctx context.Context) scenario.Observed {
	ctx, cancel := context.WithTimeoutCause(ctx, seconds(l.sc.Measure.LimitS), errors.New("the visit took longer than measure.limit_s"))
	defer cancel()
	began := time.Now()
	var status job.Status
	timeline := l.startTimeline(ctx)
	file := l.office.Path("1.record")
	err := l.accept(ctx, file, func(st job.Status) {
		status = st
		timeline.reached(acceptance.Rung(st.Step))
	})
	took := time.Since(began)
	timelineErr := timeline.stop()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err = errors.Join(err, timelineErr); err != nil {
		return scenario.Observed{Err: fmt.Errorf("%w%s", err, l.lastLines()), Duration: took}
	}
	o := scenario.Observed{Verdict: acceptance.Verdict(status.Verdict), Duration: took}
	if err := l.readRecord(file, &o); err != nil {
		o.Err = fmt.Errorf("%w%s", err, l.lastLines())
	}
	return o
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// accept runs ontctl on the home's PC and tells what the gateway says.
func (l *Lab) accept(ctx context.Context, record string, tell func(job.Status)) error {
	args := []string{
		"accept", "--gateway", lanListen, "--json", "--order", l.office.Path(orderName + ".signed"),
		"--key", l.office.Path("technician.key"), "--time-key", l.office.Path("time.key"),
		"--root", l.office.Path("root.pub"), "--record", record,
	}
	if l.sc.Order.Extract.Given {
		args = append(args, "--extract", l.extractPath())
	}
	p, err := l.home.Start(ctx, netbox.Service{Name: "ontctl", Path: l.office.Ctl, Args: args})
	if err != nil {
		return err
	}
	lines := follow(ctx, filepath.Join(l.home.Dir(), "ontctl.log"), p.Done())
	for line := range lines {
		var st job.Status
		if json.Unmarshal(line, &st) == nil && st.State != "" {
			tell(st)
		}
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.Stop())
	}
	// The exit code is the verdict's; a record tells more.
	var failed *command.Error
	if err := p.Err(); err != nil && !errors.As(err, &failed) {
		return err
	}
	if _, err := os.Stat(record); err != nil {
		return fmt.Errorf("the visit left no record: ontctl said %s", bytes.TrimSpace(p.Log()))
	}
	return nil
}

// follow yields the lines of a file that grows, until done is closed and all
// was read.
func follow(ctx context.Context, path string, done <-chan struct{}) <-chan []byte {
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		file, err := os.Open(path)
		if err != nil {
			return
		}
		defer func() { _ = file.Close() }() // it was only read
		reader := bufio.NewReader(file)
		var line []byte
		for last := false; ; {
			part, err := reader.ReadBytes('\n')
			line = append(line, part...)
			switch {
			case err == nil:
				select {
				case lines <- line:
				case <-ctx.Done():
					return
				}
				line = nil
				continue
			case last:
				return
			}
			select {
			case <-done:
				last = true
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return lines
}

// readRecord takes rungs and causes from the signed record.
func (l *Lab) readRecord(file string, o *scenario.Observed) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the record: %w", err)
	}
	v := record.Verify(data, record.VerifyOptions{})
	if v.Record == nil || v.Status == record.Altered || v.Status == record.Unreadable {
		return fmt.Errorf("the record is %s: %s", v.Status, v.Problem)
	}
	var report acceptance.Report
	var d diagnosis.Diagnosis
	if err := errors.Join(json.Unmarshal(v.Record.Ladder, &report), json.Unmarshal(v.Record.Diagnosis, &d)); err != nil {
		return fmt.Errorf("cannot read the record: %w", err)
	}
	o.Verdict = report.Verdict
	for _, r := range report.Results {
		o.Rungs = append(o.Rungs, scenario.RungVerdict{Rung: r.Rung, Verdict: r.Verdict})
	}
	o.Causes = d.Causes
	return nil
}
