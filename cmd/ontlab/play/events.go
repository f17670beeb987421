package play

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
	"ontagent/transport"
)

// watchEvents follows what the gateway says to the broker, as the NOC does.
func (l *Lab) watchEvents(ctx context.Context) error {
	broker, host := l.brokerAddr()
	p, err := host.Start(ctx, netbox.Service{
		Name: "watch", Path: l.office.Ctl, Args: []string{"watch", "--json", "--broker", "tcp://" + broker.String()},
	})
	l.watch, l.watchLog = p, filepath.Join(host.Dir(), "watch.log")
	return err
}

// events are those that came so far. It waits a little for those that are
// expected: they were queued while the line was down, or are under way.
func (l *Lab) events(ctx context.Context) []string {
	const patience = 8 * time.Second
	for until := time.Now().Add(patience); ; {
		events := readEvents(l.watchLog)
		if l.sc.Expect.EventsCame(events) || time.Now().After(until) {
			return events
		}
		select {
		case <-ctx.Done():
			return events
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// readEvents takes the events out of what ontctl watch printed.
func readEvents(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var events []string
	for line := range bytes.Lines(data) {
		var m struct {
			Topic   string `json:"topic"`
			Payload struct {
				What  string `json:"what"`
				After any    `json:"after"`
			} `json:"payload"`
		}
		if json.Unmarshal(line, &m) != nil {
			continue
		}
		if a, err := transport.ParseTopic(m.Topic); err == nil && a.Kind == transport.KindEvent {
			after := ""
			if m.Payload.After != nil {
				after = fmt.Sprint(m.Payload.After)
			}
			events = append(events, scenario.EventName(a.Name, m.Payload.What, after))
		}
	}
	return events
}
