package spool_test

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable/faultfs"
	"ontagent/transport/spool"
)

// sample is one thing that the collectors say again and again.
type sample struct {
	group string
	every time.Duration
	body  map[string]any
	copy  int // of several that differ in their subject
}

// schedule is the default schedule of the collectors, with the bodies of the
// golden messages: link every 30 s for four interfaces, the others every 60 s.
func schedule(t *testing.T) []sample {
	t.Helper()
	var all []sample
	for group, every := range map[string]time.Duration{
		"link": 30 * time.Second, "host": time.Minute, "wan": time.Minute, "optics": time.Minute, "pon": time.Minute,
	} {
		payload, err := os.ReadFile(filepath.Join("..", "testdata", "telemetry-"+group+".golden.json"))
		if err != nil {
			t.Fatal(err)
		}
		_, body, err := transport.Decode(payload)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(body, &fields); err != nil {
			t.Fatal(err)
		}
		copies := 1
		if group == "link" {
			copies = 4
		}
		for i := range copies {
			all = append(all, sample{group, every, fields, i})
		}
	}
	slices.SortFunc(all, func(a, b sample) int { return strings.Compare(a.group, b.group)*10 + a.copy - b.copy })
	return all
}

// at is the sample's body the n-th time: what moves on real gateways moves.
func (s sample) at(t *testing.T, n int) []byte {
	t.Helper()
	fields := maps.Clone(s.body)
	for key, v := range fields {
		if v, number := v.(float64); number {
			switch {
			case strings.HasSuffix(key, "_bytes"), strings.HasSuffix(key, "_packets"):
				fields[key] = math.Floor(v/1000) + float64(n*1237)
			case moves(key):
				fields[key] = math.Round(100*(v+float64(n*n%17)/10)) / 100
			}
		}
	}
	if s.group == "link" {
		fields["subject"] = "eth0." + strconv.Itoa(s.copy)
	}
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// moves reports whether a number goes up and down.
func moves(key string) bool {
	for _, part := range []string{"_bps", "_pps", "_dbm", "_celsius", "_percent", "_volts", "_milliamps", "load", "available", "free", "latency", "uptime"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

// load is what a day or more of the schedule brings.
type load struct {
	messages        int
	bodies, payload int64
}

// play lets the collectors work for a while, second by second, calling each
// after every second. What is sent is sent at once if deliver is set.
func (w *world) play(t *testing.T, plan []sample, d time.Duration, deliver bool, each func(second int)) load {
	t.Helper()
	var l load
	for second := range int(d / time.Second) {
		for _, s := range plan {
			if second%int(s.every/time.Second) != 0 {
				continue
			}
			body := s.at(t, second/int(s.every/time.Second))
			m := transport.Message{Class: transport.ClassTelemetry, Kind: transport.KindTelemetry, Name: s.group, Body: body}
			if err := w.q.Put(context.Background(), m); err != nil {
				t.Fatal(err)
			}
			h := transport.Header{
				V: transport.Version, Device: testDevice, Epoch: w.epoch, Class: m.Class, Seq: uint64(l.messages + 1),
				UptimeS: w.clock.Uptime().Seconds(), TimeMS: w.clock.now.UnixMilli(), Clock: transport.ClockNTP,
			}
			payload, err := transport.Encode(h, body)
			if err != nil {
				t.Fatal(err)
			}
			l.messages++
			l.bodies += int64(len(body))
			l.payload += int64(len(payload))
		}
		for deliver {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			e, err := w.q.Next(ctx)
			if err != nil {
				break
			}
			w.q.Done(e)
		}
		w.q.Maintain()
		w.clock.now = w.clock.now.Add(time.Second)
		if each != nil {
			each(second)
		}
	}
	return l
}

// TestReliabilityFlashWrites counts what a day writes.
func TestReliabilityFlashWrites(t *testing.T) {
	plan := schedule(t)
	day := time.Duration(size(2, 24, 7*24)) * time.Hour

	w := newWorld(faultfs.Ext4, 1)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	w.q.Online(true)
	w.disk.ResetCounts()
	l := w.play(t, plan, day, true, nil)
	n := w.disk.Count("")
	reliability(t, "flash-writes", day.String()+" online, default schedule", l.messages, n.Bytes == 0 && n.Syncs+n.DirSyncs+n.Creates+n.Renames == 0,
		"%d bytes written, cursor included, %d syncs, for %d bytes of payload", n.Bytes, n.Syncs+n.DirSyncs, l.payload)

	// Short interruptions are what lines have; they must not reach the flash.
	w.disk.ResetCounts()
	l = w.play(t, plan, day, true, func(second int) {
		switch second % 3600 {
		case 1000:
			w.q.Online(false)
		case 1020:
			w.q.Online(true)
		}
	})
	n = w.disk.Count("")
	reliability(t, "flash-writes", day.String()+" online, 20 s without a session every hour", l.messages, n.Bytes == 0,
		"%d bytes written, %d syncs", n.Bytes, n.Syncs+n.DirSyncs)

	for _, hours := range []int{1, 4, 24, 72} {
		if time.Duration(hours)*time.Hour > max(day, 4*time.Hour) && os.Getenv("LONG") == "" {
			continue
		}
		w := newWorld(faultfs.Ext4, 1)
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.disk.ResetCounts()
		l := w.play(t, plan, time.Duration(hours)*time.Hour, false, nil)
		if err := w.q.Flush(); err != nil {
			t.Fatal(err)
		}
		n := w.disk.Count("")
		ratio := float64(n.Bytes) / float64(l.payload)
		reliability(t, "flash-writes", (time.Duration(hours)*time.Hour).String()+" offline, default schedule", l.messages, ratio <= 1.3,
			"%.2f × payload (%d of %d bytes), %.2f × bodies; per day %d KiB, %d syncs of files and %d of directories",
			ratio, n.Bytes, l.payload, float64(n.Bytes)/float64(l.bodies), n.Bytes/1024*24/int64(hours), n.Syncs*24/hours, n.DirSyncs*24/hours)
	}

	// What must be durable at once costs a sync each, and is told apart.
	w = newWorld(faultfs.Ext4, 1)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	w.q.Online(true)
	w.disk.ResetCounts()
	const events = 200
	for range events {
		w.add(transport.ClassEvent)
		w.clock.now = w.clock.now.Add(7 * time.Minute)
		w.q.Maintain()
	}
	n = w.disk.Count("")
	body := int64(0)
	for _, s := range w.put {
		body += int64(len(s.body))
	}
	reliability(t, "flash-writes", "events, a day of 200, online, not signed for", events, len(w.problems) == 0 && n.Bytes < 4*body,
		"%.2f × bodies, %d bytes and %.2f syncs each", float64(n.Bytes)/float64(body), n.Bytes/events, float64(n.Syncs+n.DirSyncs)/events)
}

// heap returns the bytes that are reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestReliabilityMemoryThreeDaysOffline: the queue stays small, its files stay
// within their bounds, and the shape of all three days is kept.
func TestReliabilityMemoryThreeDaysOffline(t *testing.T) {
	plan := schedule(t)
	days := time.Duration(size(6, 72, 72)) * time.Hour
	w := newWorld(faultfs.Ext4, 1)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	began := w.clock.now
	peakFlash, peakFiles := int64(0), 0
	l := w.play(t, plan, days, false, func(second int) {
		if second%600 != 0 {
			return
		}
		for _, s := range w.q.Stats() {
			peakFlash, peakFiles = max(peakFlash, s.FlashBytes), max(peakFiles, s.Files)
		}
	})
	with := heap()
	runtime.KeepAlive(w.q)
	w.q = nil
	size := with - heap()
	reliability(t, "memory", days.String()+" offline, time compressed, of a queue that was open all the time", l.messages, size <= 2<<20,
		"heap of the queue %d KiB (limit 2048); at most %d files, %d KiB on flash", size>>10, peakFiles, peakFlash>>10)

	// What a power cut leaves, read by the next start.
	w.disk.PowerOn()
	without := heap()
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	size = heap() - without
	opened := size

	w.q.Online(true)
	at := w.clock.boot
	covered := map[string]map[int]int{} // by group and hour: samples that the delivered stand for
	raw, rolled, bytes := 0, 0, int64(0)
	start := time.Now()
	for {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e, err := w.q.Next(ctx)
		if err != nil {
			break
		}
		w.q.Done(e)
		bytes += int64(len(e.Message.Body))
		if e.Header.Class != transport.ClassTelemetry {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(e.Message.Body, &fields); err != nil {
			t.Fatal(err)
		}
		samples := 1
		if n, ok := fields["samples"].(float64); ok && fields["window_s"] != nil {
			samples = int(n)
			rolled++
			least, _ := fields["samples"].(float64)
			if !hasRange(fields) || least < 1 {
				t.Errorf("rollup without a range: %s", e.Message.Body)
			}
		} else {
			raw++
		}
		hour := int(at.Add(time.Duration(e.Header.UptimeS*float64(time.Second))).Sub(began) / time.Hour)
		if covered[e.Message.Name] == nil {
			covered[e.Message.Name] = map[int]int{}
		}
		covered[e.Message.Name][hour] += samples
	}
	took := time.Since(start)
	missing := 0
	for _, s := range plan {
		if s.copy > 0 {
			continue
		}
		for hour := range int(days / time.Hour) {
			if covered[s.group][hour] == 0 {
				missing++
			}
		}
	}
	reliability(t, "memory", "the same after a power cut, opened again", raw+rolled, opened <= 2<<20 && missing == 0 && raw+rolled > 0,
		"heap of the queue %d KiB; shape of %d hours kept by %d samples and %d rollups with minimum and maximum, of a group an hour each %d without anything",
		opened>>10, int(days/time.Hour), raw, rolled, missing)
	reliability(t, "memory", "drained without pacing", raw+rolled, took < time.Minute,
		"%d messages/s, %d KiB/s", int(float64(raw+rolled)/took.Seconds()), int64(float64(bytes)/took.Seconds())>>10)
}

// hasRange reports whether the numbers of a rollup that moved have their minimum
// and maximum, and lie between them.
func hasRange(fields map[string]any) bool {
	for key, v := range fields {
		n, number := v.(float64)
		if !number || key == "samples" || key == "window_s" || strings.HasSuffix(key, "_min") || strings.HasSuffix(key, "_max") {
			continue
		}
		low, ok1 := fields[key+"_min"].(float64)
		high, ok2 := fields[key+"_max"].(float64)
		const digits = 1e-9 // of a mean that are kept
		if !ok1 && !ok2 {
			continue // it did not move
		}
		if slack := math.Abs(n)*digits + digits; !ok1 || !ok2 || low > n+slack || n > high+slack {
			return false
		}
	}
	return true
}

// TestReliabilityClock lets the time of day jump: nothing changes but the times
// that messages carry.
func TestReliabilityClock(t *testing.T) {
	type arrived struct {
		key  key
		body string
	}
	run := func(seed uint64, boot time.Duration, jumps map[int]time.Duration) ([]arrived, []string) {
		w := newWorld(faultfs.Like(seed%2), seed)
		w.limits = small()
		w.clock.wall = boot
		var all []arrived
		for range 3 {
			if err := w.start(); err != nil {
				t.Fatal(err)
			}
			for i := range 120 {
				w.clock.wall += jumps[i]
				w.step()
			}
			w.end("close")
		}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.clock.wall += jumps[0]
		w.drain()
		for _, k := range w.col.order {
			all = append(all, arrived{k, w.col.got[k]})
		}
		return all, w.problems
	}
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		name  string
		boot  time.Duration
		jumps map[int]time.Duration
	}{
		{"boot in 1970, then 56 years forward", -54 * year, map[int]time.Duration{40: 56 * year}},
		{"an hour back", 0, map[int]time.Duration{30: -time.Hour, 90: -time.Hour}},
		{"forward and back at every step", 0, map[int]time.Duration{10: year, 11: -2 * year, 50: 56 * year, 51: -56 * year, 100: -time.Hour}},
	} {
		trials, differ := 0, 0
		for seed := range uint64(size(3, 100, 3000)) {
			want, problems := run(seed, 0, nil)
			got, jumped := run(seed, c.boot, c.jumps)
			trials++
			if len(problems)+len(jumped) > 0 || !slices.Equal(want, got) {
				differ++
				t.Errorf("%s, seed %d: %d messages, %d without jumps; %q", c.name, seed, len(got), len(want), append(problems, jumped...))
			}
		}
		reliability(t, "clock", "spool: "+c.name, trials, differ == 0, "order, numbers and content as without jumps, in %d of %d schedules", trials-differ, trials)
	}
}

var _ transport.Queue = (*spool.Queue)(nil)
