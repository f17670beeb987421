package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/diagnosis"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/mqtt"
)

func (a *app) watch(ctx context.Context, args []string) error {
	f := a.flags("watch")
	var b brokerFlags
	b.register(f)
	tenant := f.String("tenant", "+", "tenant `NAME`; + for all")
	device := f.String("device", "+", "gateway `ID`; + for all")
	asJSON := f.Bool("json", false, "print every message as one JSON line: topic and payload")
	lines := f.Bool("lines", false, "print one line per message, also on a terminal")
	lang := f.String("lang", defaultLang(), "zh-CN or en")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	if err := checkLang(f, *lang); err != nil {
		return err
	}
	if b.url == "" {
		return cli.Exit(cli.Usage, "watch: --broker is missing")
	}
	conn, err := b.dial(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	var filters []string
	for _, kind := range []transport.Kind{
		transport.KindState, transport.KindInfo, transport.KindTelemetry, transport.KindEvent,
		transport.KindBackfill, transport.KindStatus, transport.KindRecord,
	} {
		filter, err := transport.Filter(*tenant, *device, kind, "+")
		if err != nil {
			return cli.Exit(cli.Usage, "watch: %w", err)
		}
		filters = append(filters, filter)
	}
	if err := conn.Subscribe(ctx, filters...); err != nil {
		return cli.Exit(cli.Refused, "cannot follow the streams: %w", err)
	}
	var w watcher
	switch {
	case *asJSON:
		w = &jsonWatcher{out: a.out}
	case *lines || !isTerminal(a.out):
		w = &lineWatcher{out: a.out}
	default:
		w = &tableWatcher{out: a.out, lang: *lang, rows: map[string]*row{}}
	}
	return watchLoop(ctx, conn, w)
}

// watcher shows messages.
type watcher interface {
	message(addr transport.Address, h transport.Header, body map[string]any, p mqtt.Packet)
	tick(now time.Time, dropped uint64)
}

func watchLoop(ctx context.Context, conn *mqtt.Conn, w watcher) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Lost():
			return cli.Exit(cli.Unreachable, "lost the broker: %w", conn.Err())
		case now := <-ticker.C:
			w.tick(now, conn.Dropped())
		case p := <-conn.Inbound():
			addr, err := transport.ParseTopic(p.Topic)
			if err != nil {
				continue // not of this contract
			}
			h, raw, err := transport.Decode(p.Payload)
			var body map[string]any
			if err != nil || json.Unmarshal(raw, &body) != nil {
				continue // anyone may publish; only gateways speak this
			}
			w.message(addr, h, body, p)
		}
	}
}

type jsonWatcher struct{ out io.Writer }

func (w *jsonWatcher) tick(time.Time, uint64) {}

func (w *jsonWatcher) message(_ transport.Address, _ transport.Header, _ map[string]any, p mqtt.Packet) {
	line, err := json.Marshal(struct {
		Topic    string          `json:"topic"`
		Retained bool            `json:"retained,omitempty"`
		Payload  json.RawMessage `json:"payload"`
	}{p.Topic, p.Retained, p.Payload})
	if err == nil {
		_, _ = w.out.Write(append(line, '\n'))
	}
}

type lineWatcher struct{ out io.Writer }

func (w *lineWatcher) tick(time.Time, uint64) {}

func (w *lineWatcher) message(addr transport.Address, h transport.Header, body map[string]any, _ mqtt.Packet) {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(body)) {
		switch v := body[key].(type) {
		case map[string]any, []any:
			parts = append(parts, key+"=…")
		default:
			parts = append(parts, fmt.Sprintf("%s=%v", key, v))
		}
	}
	name := string(addr.Kind)
	if addr.Name != "" {
		name += "/" + addr.Name
	}
	fmt.Fprintf(w.out, "%s %s %d.%d %s %s\n", clean(addr.Device), clean(name), h.Epoch, h.Seq, h.Clock, clean(strings.Join(parts, " ")))
}

// row is what the table shows of one gateway.
type row struct {
	state, rx, pon, wan, job, event string
	seen                            time.Time
}

type tableWatcher struct {
	out  io.Writer
	lang string
	rows map[string]*row
}

func (w *tableWatcher) message(addr transport.Address, _ transport.Header, body map[string]any, p mqtt.Packet) {
	r := w.rows[addr.Device]
	if r == nil {
		r = &row{state: "?"}
		w.rows[addr.Device] = r
	}
	if !p.Retained {
		r.seen = time.Now()
	}
	text := func(key string) string {
		if v, ok := body[key]; ok {
			return clean(fmt.Sprint(v))
		}
		return ""
	}
	switch addr.Kind {
	case transport.KindState:
		r.state = text("state")
	case transport.KindTelemetry:
		switch addr.Name {
		case "optics":
			r.rx = text("rx_power_dbm")
			if v, ok := body["rx_power_dbm"].(float64); ok {
				r.rx = fmt.Sprintf("%.2f dBm", v)
			} else if r.rx == "" {
				r.rx = text("rx_power_status")
			}
		case "pon":
			r.pon = text("state")
			if r.pon == "" {
				r.pon = text("pon_state")
			}
		case "wan":
			r.wan = text("interface")
		}
	case transport.KindEvent:
		r.event = fmt.Sprintf("%s %s %s → %s", addr.Name, text("subject"), text("before"), text("after"))
	case transport.KindStatus:
		r.job = strings.TrimSpace(fmt.Sprintf("%s %s %s", text("state"), text("step"), text("verdict")))
	default:
	}
}

func (w *tableWatcher) tick(now time.Time, dropped uint64) {
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[2J")
	heads := [...]string{"DEVICE", "STATE", "RX", "PON", "WAN", "JOB", "AGE", "LAST EVENT"}
	if w.lang == string(diagnosis.Chinese) {
		heads = [...]string{"设备", "状态", "收光", "注册", "WAN", "任务", "时效", "最近事件"}
	}
	line := func(columns [len(heads)]string) {
		widths := [...]int{24, 8, 12, 12, 8, 24, 5}
		for i, width := range widths {
			b.WriteString(pad(columns[i], width) + " ")
		}
		b.WriteString(columns[len(widths)] + "\n")
	}
	line(heads)
	for _, device := range slices.SortedFunc(maps.Keys(w.rows), cmp.Compare[string]) {
		r := w.rows[device]
		age := "-"
		if !r.seen.IsZero() {
			age = fmt.Sprintf("%ds", int(now.Sub(r.seen).Seconds()))
		}
		line([...]string{device, r.state, r.rx, r.pon, r.wan, r.job, age, r.event})
	}
	if dropped > 0 {
		fmt.Fprintf(&b, "\n%d messages were dropped: this terminal is slower than the stream\n", dropped)
	}
	_, _ = io.WriteString(w.out, b.String())
}

// clean keeps control characters of strangers off the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '·'
		}
		return r
	}, s)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
