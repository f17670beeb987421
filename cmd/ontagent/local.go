package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/control"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/config"
)

// ask runs one operation on the daemon.
func ask(ctx context.Context, c config.Config, op string, args any, on func(kind string, data json.RawMessage) error) error {
	client, err := control.DialUnix(ctx, c.Control.Socket)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // the answer is complete
	err = client.Call(ctx, op, args, on)
	if _, ok := errors.AsType[*control.RemoteError](err); ok {
		return cli.Exit(cli.Inconclusive, "%w", err)
	}
	return err
}

func (a *app) status(ctx context.Context, args []string) error {
	if _, err := a.parse("status", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	return ask(ctx, c, control.OpStatus, nil, func(_ string, data json.RawMessage) error {
		if a.json {
			_, err := fmt.Fprintf(a.out, "%s\n", data)
			return err
		}
		var st agentStatus
		if err := json.Unmarshal(data, &st); err != nil {
			return fmt.Errorf("cannot read status: %w", err)
		}
		a.printStatus(st)
		return nil
	})
}

func (a *app) printStatus(st agentStatus) {
	p := func(name, format string, args ...any) {
		fmt.Fprintf(a.out, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	p("device", "%s, tenant %s, agent %s, running %s (epoch %d)", st.Device, st.Tenant, st.Version, age(st.RunningS), st.Epoch)
	p("clock", "%s, %s", st.Time, st.Clock)
	trust := fmt.Sprintf("trust list version %d", st.TrustVersion)
	if st.TrustVersion == 0 {
		trust = "no trust list: every command is refused"
	}
	if !st.Statement {
		trust += "; no device statement: no acceptance can be recorded"
	}
	if st.Refusing != "" {
		trust = "every command is refused: " + st.Refusing
	}
	p("authority", "%s; %d records closed", trust, st.Records)
	switch {
	case st.MQTT == nil:
		p("mqtt", "switched off")
	case st.MQTT.Connected:
		p("mqtt", "connected for %s, %d messages published", age(st.MQTT.ForS), st.MQTT.Published)
	default:
		p("mqtt", "not connected for %s, %d attempts: %s", age(st.MQTT.ForS), st.MQTT.Attempts, st.MQTT.LastError)
	}
	if s := st.Settings; s.Version > 0 {
		origin := "in force"
		if !s.Remote {
			origin = "not in force: whoever signed it is trusted no more"
		}
		p("settings", "cfg version %d, %s: spread %.0f s, back-off up to %.0f s, keepalive %.0f s, backfill %d bytes/s",
			s.Version, origin, s.SpreadS, s.BackoffCapS, s.KeepaliveS, s.BackfillBytesPerS)
	}
	if st.MQTT != nil && st.MQTT.Certificate != nil {
		c := st.MQTT.Certificate
		line := fmt.Sprintf("%s, %s, %d days left", c.Subject, c.State, c.DaysLeft)
		if c.Error != "" {
			line += "; the files: " + c.Error
		}
		p("certificate", "%s", line)
	}
	for _, q := range st.Queue {
		if q.Depth > 0 || q.Dropped > 0 {
			p("queue", "%s: %d waiting, %d of them for the collector's word, %d bytes, %d dropped", q.Class, q.Depth, q.Unconfirmed, q.Bytes, q.Dropped)
		}
	}
	if st.Spool.Degraded {
		p("spool", "in RAM where flash should hold it: %s", st.Spool.Reason)
	}
	if st.Job != nil {
		p("job", "%s %s %s %.0f %%", st.Job.ID, st.Job.State, st.Job.Step, 100*st.Job.Progress)
	}
	for _, c := range st.Collectors {
		switch {
		case c.NoData:
			p("collector", "%s: nothing to read here", c.Name)
		case c.Stuck:
			p("collector", "%s: stuck", c.Name)
		case c.LastError != "" && c.Failures == c.Runs:
			p("collector", "%s: %s (never good so far)", c.Name, c.LastError)
		case c.LastError != "":
			p("collector", "%s: %s (last good %s ago)", c.Name, c.LastError, age(c.AgeS))
		default:
			p("collector", "%s: good, %s ago", c.Name, age(c.AgeS))
		}
	}
}

func age(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// withSources asks the daemon, or reads by itself where none runs.
func (a *app) withSources(ctx context.Context, c config.Config, op string, alone func(*sources) any) (json.RawMessage, error) {
	var answer json.RawMessage
	err := ask(ctx, c, op, nil, func(_ string, data json.RawMessage) error {
		answer = data
		return nil
	})
	if !errors.Is(err, control.ErrUnreachable) || ctx.Err() != nil {
		return answer, err
	}
	s, err := openSources(c, newLogger(a.err, "warn"))
	if err != nil {
		return nil, cli.Because(cli.Usage, err)
	}
	data, err := json.Marshal(alone(s))
	return data, errors.Join(err, s.close())
}

func (a *app) collect(ctx context.Context, args []string) error {
	if _, err := a.parse("collect", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	data, err := a.withSources(ctx, c, control.OpCollect, func(s *sources) any {
		return collectedOf(collectOnce(ctx, s.registry(c, slog.New(slog.DiscardHandler))))
	})
	if err != nil {
		return err
	}
	if a.json {
		_, err := fmt.Fprintf(a.out, "%s\n", data)
		return err
	}
	var results []collected
	if err := json.Unmarshal(data, &results); err != nil {
		return fmt.Errorf("cannot read answer: %w", err)
	}
	for _, r := range results {
		fmt.Fprintf(a.out, "%s (%.3f s)", r.Collector, r.DurationS)
		if r.Error != "" {
			fmt.Fprintf(a.out, ": %s", r.Error)
		}
		fmt.Fprintln(a.out)
		for _, s := range r.Samples {
			fmt.Fprintf(a.out, "  %s\n", s)
		}
	}
	return nil
}

// identity prints the public halves of the gateway's keys.
func (a *app) identity(_ context.Context, args []string) error {
	if _, err := a.parse("identity", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	keys, err := openKeys(c)
	if err != nil {
		return cli.Exit(cli.Fail, "%w", err)
	}
	data, err := json.Marshal(keys.Bundle())
	if err != nil {
		return fmt.Errorf("cannot encode: %w", err)
	}
	fmt.Fprintf(a.out, "%s\n", data)
	return nil
}

// accept hands a signed request to the daemon and follows the job.
func (a *app) accept(ctx context.Context, args []string) error {
	files, err := a.parse("accept", args, 1)
	if err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	request, err := os.ReadFile(files[0])
	if err != nil {
		return fmt.Errorf("cannot read request: %w", err)
	}
	if !json.Valid(request) || len(request) > order.MaxRequest {
		return cli.Exit(cli.Usage, "%s is not a request", files[0])
	}
	lang, _ := diagnosis.ParseLang(a.lang)
	var last job.Status
	err = ask(ctx, c, control.OpSubmit, json.RawMessage(request), func(kind string, data json.RawMessage) error {
		if kind != control.KindStatus {
			return nil
		}
		if err := json.Unmarshal(data, &last); err != nil {
			return fmt.Errorf("cannot read job status: %w", err)
		}
		if a.json {
			_, err := fmt.Fprintf(a.out, "%s\n", data)
			return err
		}
		fmt.Fprintln(a.out, statusLine(last, lang))
		return nil
	})
	if err != nil {
		return err
	}
	return jobExit(last)
}

func statusLine(st job.Status, lang diagnosis.Lang) string {
	line := fmt.Sprintf("[%3.0f %%] %s", 100*st.Progress, diagnosis.Text(lang, diagnosis.KeyJob+string(st.State)))
	switch {
	case st.State == job.Rejected:
		line += ": " + diagnosis.Text(lang, diagnosis.KeyReject+string(st.Reason)) + " (" + st.Detail + ")"
	case st.State == job.Challenge:
		line += ": ontctl " + string(st.CommandType) + " --time-key KEY --nonce " + st.Nonce
	case st.Step != "":
		line += ": " + diagnosis.Text(lang, diagnosis.KeyRung+st.Step)
		if st.StepVerdict != "" {
			line += " " + diagnosis.Text(lang, diagnosis.KeyVerdict+st.StepVerdict)
		}
	case st.Verdict != "":
		line += ": " + diagnosis.Text(lang, diagnosis.KeyVerdict+st.Verdict)
	}
	return line
}

func jobExit(st job.Status) error {
	switch st.State {
	case job.Rejected, job.Challenge:
		return cli.Silent(cli.Refused)
	case job.Succeeded:
		return verdictExit(acceptance.Verdict(st.Verdict))
	case job.Received, job.Accepted, job.Running, job.Failed, job.TimedOut, job.Cancelled, job.Interrupted:
	}
	return cli.Exit(cli.Inconclusive, "the job did not run to its end: %s %s", st.State, st.Detail)
}

func verdictExit(v acceptance.Verdict) error {
	switch v {
	case acceptance.Pass, "":
		return nil
	case acceptance.Fail:
		return cli.Silent(cli.Fail)
	case acceptance.Inconclusive, acceptance.Skipped:
	}
	return cli.Silent(cli.Inconclusive)
}
