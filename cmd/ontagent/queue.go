package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"ontagent/agent/control"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/durable"
	"ontagent/transport/spool"
)

// queueStatus is what `ontagent queue` shows.
type queueStatus struct {
	Dir     string       `json:"dir,omitempty"` // empty: in RAM only
	Confirm string       `json:"confirm"`       // signature, broker
	Online  bool         `json:"online"`
	Health  spool.Health `json:"health"`
	Classes []queueClass `json:"classes"`
}

type queueClass struct {
	transport.ClassStats
	OldestS float64 `json:"oldest_s"`
}

func (d *daemon) opQueue(_ context.Context, _ json.RawMessage, send control.Send) error {
	st := queueStatus{Confirm: d.c.Spool.Confirm, Health: d.queue.Health()}
	if d.onFlash() {
		st.Dir = d.c.Spool.Dir
	}
	if d.mqtt != nil {
		st.Online = d.mqtt.Status().Connected
	}
	for _, s := range d.queue.Stats() {
		st.Classes = append(st.Classes, queueClass{s, s.Oldest.Seconds()})
	}
	return send(control.KindQueue, st)
}

// queue shows what waits for the broker, or checks a spool that nobody writes.
func (a *app) queue(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "check" {
		return a.queueCheck(args[1:])
	}
	if _, err := a.parse("queue", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	err = ask(ctx, c, control.OpQueue, nil, func(_ string, data json.RawMessage) error {
		if a.json {
			_, err := fmt.Fprintf(a.out, "%s\n", data)
			return err
		}
		var st queueStatus
		if err := json.Unmarshal(data, &st); err != nil {
			return fmt.Errorf("cannot read queue: %w", err)
		}
		a.printQueue(st)
		return nil
	})
	if errors.Is(err, control.ErrUnreachable) {
		return fmt.Errorf("%w; `ontagent queue check %s` looks at what is on flash", err, c.Spool.Dir)
	}
	return err
}

func (a *app) printQueue(st queueStatus) {
	where := "in RAM only: a restart loses what waits"
	if st.Dir != "" {
		where = "in " + st.Dir
	}
	line := "offline"
	if st.Online {
		line = "online"
	}
	fmt.Fprintf(a.out, "%s, %s; records and events are let go by the %s\n", where, line,
		map[string]string{"signature": "collector's signature", "broker": "broker's PUBACK"}[st.Confirm])
	if h := st.Health; h.Degraded {
		fmt.Fprintf(a.out, "in RAM for %s where flash should hold it (%s), tried again every 10 min and on SIGPWR: %s\n", age(h.ForS), strings.Join(h.Classes, ", "), h.Reason)
	}
	fmt.Fprintf(a.out, "%-10s %7s %9s %9s %12s %8s %6s %6s %9s\n", "class", "depth", "bytes", "oldest", "unconfirmed", "dropped", "gaps", "files", "on flash")
	for _, c := range st.Classes {
		oldest := "-"
		if c.OldestS > 0 {
			oldest = age(c.OldestS)
		}
		fmt.Fprintf(a.out, "%-10s %7d %9d %9s %12d %8d %6d %6d %9d\n",
			c.Class, c.Depth, c.Bytes, oldest, c.Unconfirmed, c.Dropped, c.Gaps, c.Files, c.FlashBytes)
	}
	h := st.Health
	fmt.Fprintf(a.out, "written to flash since the start: %d bytes, %d syncs; damaged: %d bytes; ack version %d\n",
		h.FlashWritten, h.Syncs, h.Damaged, h.AckVersion)
}

// queueCheck looks at a spool without changing it. Exit code 1: it is damaged.
func (a *app) queueCheck(args []string) error {
	dirs, err := a.parse("queue check", args, 1)
	if err != nil {
		if len(args) == 0 {
			return cli.Exit(cli.Usage, "queue check takes the directory of a spool")
		}
		return err
	}
	report, err := spool.Check(durable.OS{}, dirs[0])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cli.Exit(cli.Usage, "%w", err)
	case err != nil:
		return cli.Exit(cli.Inconclusive, "%w", err)
	}
	if !report.Spool() {
		return cli.Exit(cli.Usage, "%s holds no spool", dirs[0])
	}
	if a.json {
		data, err := json.Marshal(report)
		if err != nil {
			return fmt.Errorf("cannot encode report: %w", err)
		}
		fmt.Fprintf(a.out, "%s\n", data)
	} else {
		fmt.Fprint(a.out, report)
	}
	if report.Damaged > 0 {
		return cli.Silent(cli.Fail)
	}
	return nil
}
