package fault_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
	"ontagent/agent/fault"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

const file = "/state/faults.json"

// store keeps what a Tracker saves on a disk that may fail.
type store struct {
	fs    *faultfs.FS
	aside []string
	saves int
}

func (s *store) Load(v any, check func() error) bool {
	data, err := s.bytes()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		s.aside = append(s.aside, err.Error())
	}
	return err == nil
}

func (s *store) bytes() ([]byte, error) {
	return durable.ReadFile(s.fs, "fault.read", file, fault.MaxState)
}

func (s *store) Save(v any) error {
	s.saves++
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.fs, "fault.write", file, data, 0o600)
}

// world is a gateway: its clocks, its disk, its queue.
type world struct {
	uptime time.Duration
	utc    time.Time // zero: nobody knows
	boot   string
	epoch  uint64
	store  *store
	events []fault.Event
	opened []diagnosis.Code
	log    bytes.Buffer
}

func newWorld() *world {
	disk := faultfs.New(faultfs.Ext4, 1)
	w := &world{utc: time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC), boot: "b1", epoch: 1, store: &store{fs: disk}}
	if err := durable.MkdirAll(disk, "dir", "/state", 0o700); err != nil {
		panic(err)
	}
	return w
}

func (w *world) pass(d time.Duration) {
	w.uptime += d
	if !w.utc.IsZero() {
		w.utc = w.utc.Add(d)
	}
}

func (w *world) start() *fault.Tracker {
	return fault.Open(fault.Options{
		Store: w.store, Epoch: w.epoch,
		Publish: func(e fault.Event) {
			if !w.store.fs.IsCut() { // the queue is on the same flash
				w.events = append(w.events, e)
			}
		},
		Opened: func(c diagnosis.Code) { w.opened = append(w.opened, c) },
		Moment: func() fault.Moment {
			m := fault.Moment{Uptime: w.uptime, UTC: w.utc, Clock: fault.ClockNTP, Boot: w.boot}
			if w.utc.IsZero() {
				m.Clock = fault.ClockNone
			}
			return m
		},
		Limits: fault.Limits{Respond: 15 * time.Minute, Line: 24 * time.Hour, Network: 36 * time.Hour},
		Standing: func(int) []diagnosis.Happening {
			return []diagnosis.Happening{{Group: "pon", Name: "state", After: "los"}}
		},
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
}

// restart is a stop of the daemon, reboot one of the machine.
func (w *world) restart() *fault.Tracker {
	w.epoch++
	return w.start()
}

func (w *world) reboot(off time.Duration, clock bool) *fault.Tracker {
	w.uptime, w.boot = 0, w.boot+"'"
	if !clock {
		w.utc = time.Time{}
	} else if !w.utc.IsZero() {
		w.utc = w.utc.Add(off)
	}
	return w.restart()
}

// told are the events so far, each with the fields asked for.
func (w *world) told(keys ...string) []string {
	out := []string{}
	for _, e := range w.events {
		line := e.Subject + " " + e.What + " " + e.After
		for _, k := range keys {
			line += " " + k + "=" + get(e, k)
		}
		out = append(out, line)
	}
	return out
}

func get(e fault.Event, key string) string {
	data, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		panic(err)
	}
	if v, ok := fields[key]; ok {
		return fmt.Sprint(v)
	}
	return "-"
}

func (w *world) expect(t *testing.T, keys []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), w.told(keys...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// causes is a diagnosis of faults with these codes.
func causes(codes ...diagnosis.Code) diagnosis.Diagnosis {
	var d diagnosis.Diagnosis
	for _, code := range codes {
		c, _ := diagnosis.Lookup(code)
		d.Causes = append(d.Causes, diagnosis.Ranked{
			Code: code, Side: c.Side, Severity: c.Severity, Kind: diagnosis.KindFault, Confidence: 0.9,
			For: []diagnosis.Ref{{Rung: "optical", What: "cause", Value: string(code)}},
		})
	}
	return d
}

// observe shows a diagnosis every 5 s for a time.
func (w *world) observe(tr *fault.Tracker, d diagnosis.Diagnosis, long time.Duration) {
	for until := w.uptime + long; w.uptime < until; {
		w.pass(5 * time.Second)
		tr.Observe(d)
	}
}

func TestACauseThatLastsOpensAndClearsOneFault(t *testing.T) {
	w := newWorld()
	tr := w.start()
	w.observe(tr, causes(), time.Minute)
	w.observe(tr, causes(diagnosis.PONLOS), 30*time.Second)
	w.expect(t, nil) // it may be over in a moment
	w.observe(tr, causes(diagnosis.PONLOS), 10*time.Second)
	w.expect(
		t, []string{"id", "state", "fault_class", "side", "severity", "source", "opened_utc", "opened_clock", "respond_by_utc", "due_utc", "due_uptime_s", "recurrence"},
		"pon.los state opened id=1-1 state=opened fault_class=line side=drop severity=critical source=telemetry opened_utc=2026-03-29T00:31:35Z"+
			" opened_clock=ntp respond_by_utc=2026-03-29T00:46:35Z due_utc=2026-03-30T00:31:35Z due_uptime_s=86495 recurrence=0",
	)
	if diff := cmp.Diff([]diagnosis.Code{diagnosis.PONLOS}, w.opened); diff != "" {
		t.Errorf("told to repair (-want +got):\n%s", diff)
	}
	w.observe(tr, causes(diagnosis.PONLOS), 10*time.Hour)
	w.observe(tr, causes(), 4*time.Minute)
	if len(w.events) != 1 {
		t.Errorf("%q", w.told())
	}
	w.observe(tr, causes(), 2*time.Minute)
	if got, want := w.told("id", "lasted_s", "cleared_utc")[1], "pon.los state cleared id=1-1 lasted_s=36310 cleared_utc=2026-03-29T10:36:45Z"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(tr.Faults()) != 0 {
		t.Errorf("%+v is open", tr.Faults())
	}
}

func TestNetworkFaultsHaveLonger(t *testing.T) {
	for side, want := range map[diagnosis.Side]fault.Class{
		diagnosis.SideCustomer: fault.Line, diagnosis.SideDrop: fault.Line, diagnosis.SideODN: fault.Line,
		diagnosis.SideDevice: fault.Line, diagnosis.SideUnknown: fault.Line,
		diagnosis.SideOLT: fault.Network, diagnosis.SideBRAS: fault.Network, diagnosis.SidePlatform: fault.Network,
	} {
		if got := fault.ClassOf(side); got != want {
			t.Errorf("%s: %s, want %s", side, got, want)
		}
	}
	w := newWorld()
	tr := w.start()
	w.observe(tr, causes(diagnosis.DialNoPADO), time.Minute)
	c, _ := diagnosis.Lookup(diagnosis.DialNoPADO)
	if c.Side != diagnosis.SideBRAS && c.Side != diagnosis.SideOLT {
		t.Fatalf("%s is of side %s: this test needs another cause", diagnosis.DialNoPADO, c.Side)
	}
	w.expect(t, []string{"opened_utc", "due_utc"}, "dial.no_pado state opened opened_utc=2026-03-29T00:30:35Z due_utc=2026-03-30T12:30:35Z")
}

func TestWhatIsNoFaultOpensNone(t *testing.T) {
	w := newWorld()
	tr := w.start()
	d := causes(diagnosis.PONLOS, diagnosis.HostCPU, diagnosis.OpticalUnreadable, diagnosis.DialNoPADO)
	d.Causes[0].Kind = diagnosis.KindWarning // it is over
	d.Causes[3].Confidence, d.Causes[3].Against = 0.2, []diagnosis.Ref{{Rung: "dial", What: "verdict", Value: "pass"}}
	w.observe(tr, d, time.Hour)
	w.expect(t, nil)
	if w.store.saves != 0 {
		t.Errorf("written %d times", w.store.saves)
	}
}

func TestAFlappingLineIsOneFault(t *testing.T) {
	w := newWorld()
	tr := w.start()
	for range 1000 { // 10 s there, 10 s gone, for hours
		w.observe(tr, causes(diagnosis.OpticalNoLight), 10*time.Second)
		w.observe(tr, causes(), 10*time.Second)
	}
	w.expect(t, []string{"flaps"}, "optical.no_light state opened flaps=0")
	writes := w.store.saves
	w.observe(tr, causes(), time.Hour)
	w.expect(t, []string{"flaps"}, "optical.no_light state opened flaps=0", "optical.no_light state cleared flaps=997")
	if writes > 2 {
		t.Errorf("flapping wrote %d times", writes)
	}
}

func TestALineThatComesBackAgainAndAgainIsGivenLonger(t *testing.T) {
	w := newWorld()
	tr := w.start()
	for range 24 * 4 { // a minute of fault, 14 without, all day
		w.observe(tr, causes(diagnosis.OpticalNoLight), time.Minute)
		w.observe(tr, causes(), 14*time.Minute)
	}
	if n := len(w.events); n > 6 {
		t.Errorf("%d events in a day: %q", n, w.told("recurrence"))
	}
}

func TestAStormOfCausesIsBounded(t *testing.T) {
	w := newWorld()
	tr := w.start()
	var all []diagnosis.Code
	for _, c := range diagnosis.Catalogue() {
		if c.Severity == diagnosis.Critical || c.Severity == diagnosis.Major {
			all = append(all, c.Code)
		}
	}
	for i := range 60 {
		w.observe(tr, causes(all[i%len(all):]...), 40*time.Second)
		w.observe(tr, causes(), 20*time.Second)
	}
	if n := len(w.events); n > 24 || n < 12 {
		t.Errorf("%d events in an hour", n)
	}
	if n := strings.Count(w.log.String(), "too many faults"); n == 0 || n > 3 {
		t.Errorf("held back %d times", n)
	}
	if data, _ := w.store.bytes(); len(data) > fault.MaxState {
		t.Errorf("%d bytes on flash", len(data))
	}
}

func TestRecurrenceIsCountedForThirtyDays(t *testing.T) {
	w := newWorld()
	tr := w.start()
	once := func() string {
		w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
		w.observe(tr, causes(), 2*time.Hour)
		return get(w.events[len(w.events)-2], "recurrence")
	}
	var got []string
	for i := range 6 {
		got = append(got, once())
		if i == 3 {
			tr = w.reboot(time.Hour, true)
		}
		w.pass(9 * 24 * time.Hour)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3", "3", "3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.observe(tr, causes(diagnosis.DialNoPADO), time.Minute)
	if n := get(w.events[len(w.events)-1], "recurrence"); n != "0" {
		t.Errorf("another fault recurred %s times", n)
	}
}

func TestRecurrenceWithoutAClock(t *testing.T) {
	w := newWorld()
	w.utc = time.Time{}
	tr := w.start()
	for range 3 {
		w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
		w.observe(tr, causes(), 2*time.Hour)
		tr = w.reboot(0, false)
	}
	if got := get(w.events[4], "recurrence"); got != "2" {
		t.Errorf("recurred %s times", got)
	}
	// From when a clock is known they age like others.
	w.utc = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	w.observe(tr, causes(), 2*time.Hour)
	w.pass(31 * 24 * time.Hour)
	w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	if a, b := get(w.events[6], "recurrence"), get(w.events[8], "recurrence"); a != "3" || b != "0" {
		t.Errorf("recurred %s, then %s times", a, b)
	}
}

func TestWithoutAClockThereIsNoDate(t *testing.T) {
	w := newWorld()
	w.utc = time.Time{}
	tr := w.start()
	w.pass(time.Hour)
	w.observe(tr, causes(diagnosis.PONLOS), 35*time.Second)
	keys := []string{"opened_clock", "opened_utc", "opened_uptime_s", "respond_by_utc", "respond_by_uptime_s", "due_utc", "due_uptime_s"}
	undated := "pon.los state opened opened_clock=none opened_utc=- opened_uptime_s=3635 respond_by_utc=- respond_by_uptime_s=4535 due_utc=- due_uptime_s=90035"
	w.expect(t, keys, undated)
	tr.ClockSet() // of no use yet
	w.expect(t, keys, undated)

	w.pass(time.Hour)
	w.utc = time.Date(2026, 10, 25, 2, 0, 35, 0, time.UTC)
	tr.ClockSet()
	dated := "pon.los dated opened opened_clock=ntp opened_utc=2026-10-25T01:00:35Z opened_uptime_s=3635" +
		" respond_by_utc=2026-10-25T01:15:35Z respond_by_uptime_s=4535 due_utc=2026-10-26T01:00:35Z due_uptime_s=90035"
	w.expect(t, keys, undated, dated)
	tr.ClockSet()
	w.pass(time.Second)
	w.utc = w.utc.Add(30 * time.Second) // it drifts
	tr.ClockSet()
	w.expect(t, keys, undated, dated)

	w.utc = w.utc.Add(24 * time.Hour) // it was wrong
	tr.ClockSet()
	if got := w.told("opened_utc")[2]; got != "pon.los dated opened opened_utc=2026-10-26T01:01:05Z" {
		t.Error(got)
	}
	tr = w.restart() // and that is kept
	if f := tr.Faults()[0]; time.Unix(f.Opened.Unix, 0).UTC().Format(time.RFC3339) != "2026-10-26T01:01:05Z" {
		t.Errorf("%+v", f.Opened)
	}
}

func TestHowLongItLastedIsNeverInvented(t *testing.T) {
	keys := []string{"lasted_s", "lasted_min_s", "cleared_utc"}
	last := func(w *world) string { return w.told(keys...)[len(w.events)-1] }
	t.Run("restart", func(t *testing.T) {
		w := newWorld()
		w.utc = time.Time{}
		tr := w.start()
		w.observe(tr, causes(diagnosis.PONLOS), 35*time.Second)
		w.pass(time.Hour)
		tr = w.restart()
		w.observe(tr, causes(), 6*time.Minute)
		if got := last(w); got != "pon.los state cleared lasted_s=3905 lasted_min_s=- cleared_utc=-" {
			t.Error(got)
		}
	})
	t.Run("reboot with a clock", func(t *testing.T) {
		w := newWorld()
		tr := w.start()
		w.observe(tr, causes(diagnosis.PONLOS), 35*time.Second)
		tr = w.reboot(10*time.Hour, true)
		w.observe(tr, causes(), 6*time.Minute)
		if got := last(w); got != "pon.los state cleared lasted_s=36305 lasted_min_s=- cleared_utc=2026-03-29T10:35:40Z" {
			t.Error(got)
		}
	})
	t.Run("reboot without", func(t *testing.T) {
		w := newWorld()
		tr := w.start()
		w.observe(tr, causes(diagnosis.PONLOS), 35*time.Second)
		tr = w.reboot(10*time.Hour, false)
		w.observe(tr, causes(), 6*time.Minute)
		if got := last(w); got != "pon.los state cleared lasted_s=- lasted_min_s=305 cleared_utc=-" {
			t.Error(got)
		}
	})
	t.Run("clock went back", func(t *testing.T) {
		w := newWorld()
		tr := w.start()
		w.observe(tr, causes(diagnosis.PONLOS), 35*time.Second)
		tr = w.reboot(-10*time.Hour, true)
		w.observe(tr, causes(), 6*time.Minute)
		if got := last(w); !strings.Contains(got, "lasted_s=- lasted_min_s=305") {
			t.Error(got)
		}
	})
}

func TestARestartNeitherRepeatsNorForgets(t *testing.T) {
	w := newWorld()
	tr := w.start()
	w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	for range 5 {
		tr = w.restart()
		w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	}
	w.expect(t, []string{"id"}, "pon.los state opened id=1-1")
	if got := tr.Standing(); len(got) != 1 || got[0].After != "los" {
		t.Errorf("remembered %+v", got)
	}
	tr = w.restart()
	w.observe(tr, causes(), 10*time.Minute) // it went while the daemon was down
	w.expect(t, []string{"id"}, "pon.los state opened id=1-1", "pon.los state cleared id=1-1")
	if tr = w.restart(); len(tr.Faults()) != 0 || len(tr.Standing()) != 0 {
		t.Errorf("%+v", tr.Faults())
	}
}

// TestAPowerCutAtEveryFileOperation cuts the power at each call to the disk, in
// a life in which faults open and clear, and looks at what is told altogether.
func TestAPowerCutAtEveryFileOperation(t *testing.T) {
	life := func(w *world, tr *fault.Tracker) {
		w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
		w.observe(tr, causes(diagnosis.PONLOS, diagnosis.DialNoPADO), time.Minute)
		w.observe(tr, causes(diagnosis.DialNoPADO), 6*time.Minute)
	}
	whole := newWorld()
	life(whole, whole.start())
	calls := whole.store.fs.Calls()
	if calls < 30 {
		t.Fatalf("only %d calls", calls)
	}
	for n := range calls + 2 {
		for seed := range uint64(3) {
			w := newWorld()
			w.store.fs = w.store.fs.Clone(seed)
			tr := w.start()
			w.store.fs.CutIn(n + 1)
			life(w, tr)
			// What is told while the power is gone is told to nobody.
			heard := w.events
			w.store.fs.PowerOn()
			w.events = nil
			tr = w.reboot(time.Minute, true)
			w.observe(tr, causes(), 20*time.Minute)
			heard = append(heard, w.events...)
			if len(w.store.aside) > 0 {
				t.Fatalf("cut at %d: %q", n, w.store.aside)
			}
			if len(tr.Faults()) != 0 {
				t.Fatalf("cut at %d: %+v is open for ever", n, tr.Faults())
			}
			// Of each id: opened before cleared, nothing told in between but
			// the same again.
			state := map[string]string{}
			for _, e := range heard {
				id := get(e, "id")
				if e.After == "cleared" && state[id] == "" {
					t.Fatalf("cut at %d: %s was cleared and never opened", n, id)
				}
				if e.After == "opened" && state[id] == "cleared" {
					t.Fatalf("cut at %d: %s was opened after it was cleared", n, id)
				}
				state[id] = e.After
			}
			for id, s := range state {
				if s != "cleared" {
					t.Fatalf("cut at %d: %s was opened and never cleared", n, id)
				}
			}
		}
	}
}

func TestADamagedFileIsPutAside(t *testing.T) {
	good := newWorld()
	good.observe(good.start(), causes(diagnosis.PONLOS), time.Minute)
	data, _ := good.store.bytes()
	damage := map[string][]byte{
		"cut":      data[:len(data)/2],
		"version":  bytes.Replace(data, []byte(`"v":1`), []byte(`"v":2`), 1),
		"phase":    bytes.Replace(data, []byte(`"phase":"open"`), []byte(`"phase":"ajar"`), 1),
		"no id":    bytes.Replace(data, []byte(`"id":"1-1"`), []byte(`"id":""`), 1),
		"clearing": bytes.Replace(data, []byte(`"phase":"open"`), []byte(`"phase":"clearing"`), 1),
		"zeros":    make([]byte, 512),
		"large":    bytes.Repeat([]byte(" "), fault.MaxState+1),
	}
	for name, bad := range damage {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(bad, data) {
				t.Fatal("not damaged")
			}
			w := newWorld()
			w.store.fs.Put(file, bad)
			tr := w.start()
			if len(w.store.aside) != 1 || len(tr.Faults()) != 0 || len(w.events) != 0 {
				t.Errorf("set aside %q, open %+v, told %q", w.store.aside, tr.Faults(), w.told())
			}
			w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
			w.expect(t, nil, "pon.los state opened")
		})
	}
}

func TestFaultsAreToldWhileFlashTakesNothing(t *testing.T) {
	w := newWorld()
	tr := w.start()
	w.store.fs.Inject(faultfs.Fault{Op: "fault.write", Forever: true, Err: syscall.ENOSPC})
	w.observe(tr, causes(diagnosis.PONLOS), 10*time.Minute)
	w.expect(t, nil, "pon.los state opened")
	if n := w.store.saves; n > 14 {
		t.Errorf("tried %d times", n)
	}
	w.store.fs.Heal()
	w.observe(tr, causes(diagnosis.PONLOS), 2*time.Minute)
	if tr = w.restart(); len(tr.Faults()) != 1 {
		t.Error("it was not kept when flash took it again")
	}
	w.expect(t, nil, "pon.los state opened")
}

func TestAnInspectionOpensAndClears(t *testing.T) {
	w := newWorld()
	tr := w.start()
	tr.Inspected(causes(diagnosis.OpticalRxTooWeak), []string{"registration"})
	w.expect(t, []string{"source"}, "optical.rx_too_weak state opened source=inspection")
	if !tr.Waiting() {
		t.Error("nothing waits for the next inspection")
	}
	w.observe(tr, causes(), 5*time.Hour) // telemetry does not know
	tr = w.restart()
	w.observe(tr, causes(), 5*time.Hour)
	tr.Inspected(causes(), []string{"registration"}) // nor does a ladder without the rung
	tr.Inspected(diagnosis.Diagnosis{Consequences: []diagnosis.Consequence{{Code: diagnosis.OpticalRxTooWeak}}}, []string{"optical"})
	if len(w.events) != 1 {
		t.Errorf("%q", w.told())
	}
	tr.Inspected(causes(), []string{"optical"})
	w.expect(t, []string{"lasted_s"}, "optical.rx_too_weak state opened lasted_s=-", "optical.rx_too_weak state cleared lasted_s=36000")
	if tr.Waiting() {
		t.Error("something still waits")
	}
}

func TestANewLineBeginsAnew(t *testing.T) {
	w := newWorld()
	tr := w.start()
	w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	tr.NewLine()
	w.expect(t, []string{"reason"}, "pon.los state opened reason=-", "pon.los state cleared reason=new_line")
	w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	if got := get(w.events[2], "recurrence"); got != "0" {
		t.Errorf("recurred %s times on a new line", got)
	}
}

func TestWhatIsFoundBehindKeepsAFaultOpen(t *testing.T) {
	w := newWorld()
	tr := w.start()
	w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
	d := causes(diagnosis.OpticalNoLight)
	d.Consequences = []diagnosis.Consequence{{Code: diagnosis.PONLOS, Rung: "pon", By: diagnosis.OpticalNoLight}}
	w.observe(tr, d, time.Hour)
	w.expect(t, nil, "pon.los state opened", "optical.no_light state opened")
	codes := []diagnosis.Code{}
	for _, f := range tr.Faults() {
		codes = append(codes, f.Code)
	}
	if !slices.Equal(codes, []diagnosis.Code{diagnosis.PONLOS, diagnosis.OpticalNoLight}) {
		t.Error(codes)
	}
}

func FuzzOpen(f *testing.F) {
	w := newWorld()
	w.observe(w.start(), causes(diagnosis.PONLOS, diagnosis.DialNoPADO), time.Minute)
	data, _ := w.store.bytes()
	f.Add(data)
	f.Add([]byte(`{"v":1,"open":[{"id":"1-1","code":"pon.los","phase":"clearing","cleared":{"utc":-9223372036854775808,"uptime_s":1e300}}],"past":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld()
		w.store.fs.Put(file, data)
		tr := w.start()
		w.observe(tr, causes(diagnosis.PONLOS), time.Minute)
		w.observe(tr, causes(), 2*time.Hour)
		tr.ClockSet()
		tr.NewLine()
		if n := len(tr.Faults()); n != 0 {
			t.Errorf("%d faults are open", n)
		}
	})
}
