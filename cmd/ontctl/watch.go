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
	"ontagent/transport/consumer"
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
	raw := f.Bool("raw", false, "show also what comes again")
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
		w = &lineWatcher{out: a.out, lang: *lang}
	default:
		w = &tableWatcher{out: a.out, lang: *lang, rows: map[string]*row{}}
	}
	return watchLoop(ctx, conn, &follower{raw: *raw, w: w, devices: map[string]*consumer.Tracker{}})
}

// shown is a message to show.
type shown struct {
	addr    transport.Address
	h       transport.Header
	body    map[string]any
	packet  mqtt.Packet
	dated   consumer.Dated
	outcome consumer.Outcome
	totals  consumer.Totals // of the gateway
}

// watcher shows messages.
type watcher interface {
	message(m shown)
	// missing says that numbers are, after all there was time for: they may
	// still come.
	missing(device string, h consumer.Hole)
	tick(now time.Time, dropped uint64)
}

// maxWatched bounds the gateways whose numbers are followed.
const maxWatched = 100000

// follower stands between the stream and who shows it: what comes again is
// left out, what is missing is noticed, what had no clock is dated.
type follower struct {
	raw     bool
	w       watcher
	devices map[string]*consumer.Tracker
	absent  map[string]time.Time // since when numbers of a gateway are missing
	told    map[string]bool
}

func watchLoop(ctx context.Context, conn *mqtt.Conn, f *follower) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Lost():
			return cli.Exit(cli.Unreachable, "lost the broker: %w", conn.Err())
		case now := <-ticker.C:
			f.look(now)
			f.w.tick(now, conn.Dropped())
		case p := <-conn.Inbound():
			p.Ack()
			f.take(time.Now(), p)
		}
	}
}

func (f *follower) take(now time.Time, p mqtt.Packet) {
	addr, err := transport.ParseTopic(p.Topic)
	if err != nil {
		return // not of this contract
	}
	h, raw, err := transport.Decode(p.Payload)
	m := shown{addr: addr, h: h, packet: p}
	if err != nil || h.Device != addr.Device || json.Unmarshal(raw, &m.body) != nil {
		return // anyone may publish; only gateways speak this
	}
	t := f.devices[addr.Device]
	if t == nil {
		t = consumer.NewTracker(addr.Device, consumer.Options{Epochs: 32, Ranges: 512, Waiting: 1})
		if len(f.devices) < maxWatched {
			f.devices[addr.Device] = t
		}
	}
	if m.outcome = t.Observe(now, h, addr.Kind, addr.Name, p.Payload); m.outcome.Verdict == consumer.Duplicate && !f.raw {
		return
	}
	m.dated, m.totals = t.DateOf(h), t.Totals()
	f.w.message(m)
}

// look tells what has been missing for a while: what comes live overtakes what
// had to wait.
func (f *follower) look(now time.Time) {
	if f.absent == nil {
		f.absent, f.told = map[string]time.Time{}, map[string]bool{}
	}
	for id, t := range f.devices {
		since, waiting := f.absent[id]
		switch none := t.Totals().Missing == 0; {
		case none:
			delete(f.absent, id)
			delete(f.told, id)
		case !waiting:
			f.absent[id] = now
		case !f.told[id] && now.Sub(since) >= missingAfter:
			f.told[id] = true
			for _, h := range t.Missing(8) {
				f.w.missing(id, h)
			}
		}
	}
}

type jsonWatcher struct{ out io.Writer }

func (w *jsonWatcher) tick(time.Time, uint64) {}

func (w *jsonWatcher) missing(device string, h consumer.Hole) {
	w.line(struct {
		Device  string        `json:"device"`
		Missing consumer.Hole `json:"missing"`
	}{device, h})
}

func (w *jsonWatcher) message(m shown) {
	out := struct {
		Topic    string           `json:"topic"`
		Retained bool             `json:"retained,omitempty"`
		Verdict  string           `json:"verdict,omitempty"` // absent: new
		Time     *time.Time       `json:"time,omitempty"`
		Quality  consumer.Quality `json:"time_quality"`
		Payload  json.RawMessage  `json:"payload"`
	}{Topic: m.packet.Topic, Retained: m.packet.Retained, Quality: m.dated.Quality, Payload: m.packet.Payload}
	if m.dated.Quality != consumer.QualityNone {
		out.Time = &m.dated.Time
	}
	switch m.outcome.Verdict {
	case consumer.New, consumer.Untracked:
	case consumer.Duplicate, consumer.Late, consumer.Implausible, consumer.Conflict:
		out.Verdict = m.outcome.Verdict.String()
	}
	w.line(out)
}

func (w *jsonWatcher) line(v any) {
	if line, err := json.Marshal(v); err == nil {
		_, _ = w.out.Write(append(line, '\n'))
	}
}

type lineWatcher struct {
	out  io.Writer
	lang string
}

func (w *lineWatcher) tick(time.Time, uint64) {}

func (w *lineWatcher) missing(device string, h consumer.Hole) {
	fmt.Fprintf(w.out, "%s missing %s %d.%d–%d\n", clean(device), h.Class, h.Epoch, h.From, h.To)
}

func (w *lineWatcher) message(m shown) {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m.body)) {
		switch v := m.body[key].(type) {
		case map[string]any, []any:
			parts = append(parts, key+"=…")
		default:
			parts = append(parts, fmt.Sprintf("%s=%v", key, v))
		}
	}
	name := string(m.addr.Kind)
	if m.addr.Name != "" {
		name += "/" + m.addr.Name
	}
	when := "undated"
	switch m.dated.Quality {
	case consumer.QualityNTP:
		when = m.dated.Time.Local().Format("15:04:05")
	case consumer.QualityDerived:
		when = "~" + m.dated.Time.Local().Format("2006-01-02T15:04:05")
	case consumer.QualityNone:
	}
	mark := ""
	switch v := m.outcome.Verdict; v {
	case consumer.New, consumer.Untracked:
	case consumer.Duplicate, consumer.Late, consumer.Implausible, consumer.Conflict:
		mark = " " + v.String()
	}
	if m.outcome.Gap != nil {
		mark += " gap"
	}
	if m.outcome.Ignored != "" {
		mark += " gap ignored (" + m.outcome.Ignored + ")"
	}
	fmt.Fprintf(w.out, "%s %s %s %d.%d %s%s %s\n", when, clean(m.addr.Device), clean(name), m.h.Epoch, m.h.Seq, m.h.Clock, mark, clean(strings.Join(parts, " ")))
	if m.addr.Kind == transport.KindEvent {
		if text := eventText(w.lang, m.addr.Name, m.body); text != "" {
			fmt.Fprintf(w.out, "  %s\n", clean(text))
		}
	}
	if m.outcome.Dated && m.h.UptimeS > 0 {
		fmt.Fprintf(w.out, "%s epoch %d is dated: uptime 0 was ~%s\n", clean(m.addr.Device), m.h.Epoch,
			m.dated.Time.Add(-time.Duration(m.h.UptimeS*float64(time.Second))).Local().Format("2006-01-02T15:04:05"))
	}
}

// row is what the table shows of one gateway.
type row struct {
	state, rx, pon, wan, job, event, gaps string
	seen                                  time.Time
}

type tableWatcher struct {
	out  io.Writer
	lang string
	rows map[string]*row
}

func (w *tableWatcher) missing(string, consumer.Hole) {} // the column says so

func (w *tableWatcher) message(m shown) {
	addr, body, p := m.addr, m.body, m.packet
	r := w.rows[addr.Device]
	if r == nil {
		r = &row{state: "?"}
		w.rows[addr.Device] = r
	}
	if !p.Retained {
		r.seen = time.Now()
	}
	r.gaps = gaps(m.totals)
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
		switch {
		case eventText(w.lang, addr.Name, body) != "":
			r.event = clean(eventText(w.lang, addr.Name, body))
		case addr.Name == transport.EventGap:
			r.event = fmt.Sprintf("gap %s %s: %s", text("gap_class"), text("count"), text("reason"))
		case m.dated.Quality == consumer.QualityNone:
			r.event += " (undated)"
		}
	case transport.KindStatus:
		r.job = strings.TrimSpace(fmt.Sprintf("%s %s %s", text("state"), text("step"), text("verdict")))
	default:
	}
}

// gaps is what the column shows: numbers missing, and those the gateway itself
// told as dropped.
func gaps(t consumer.Totals) string {
	if t.Missing == 0 && t.Dropped == 0 {
		return "-"
	}
	return fmt.Sprintf("%d+%d", t.Missing, t.Dropped)
}

func (w *tableWatcher) tick(now time.Time, dropped uint64) {
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[2J")
	heads := [...]string{"DEVICE", "STATE", "RX", "PON", "WAN", "JOB", "AGE", "GAPS", "LAST EVENT"}
	if w.lang == string(diagnosis.Chinese) {
		heads = [...]string{"设备", "状态", "收光", "注册", "WAN", "任务", "时效", "缺失", "最近事件"}
	}
	line := func(columns [len(heads)]string) {
		widths := [...]int{24, 8, 12, 12, 8, 24, 5, 9}
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
		line([...]string{device, r.state, r.rx, r.pon, r.wan, r.job, age, r.gaps, r.event})
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
