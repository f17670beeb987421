package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/audit"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/repair"
	"ontagent/collectors"
	"ontagent/collectors/wan"
	"ontagent/config"
	"ontagent/transport/durable"
)

func testHands(t *testing.T, c config.Config) *hands {
	t.Helper()
	j, err := repair.OpenJournal(repair.JournalOptions{
		FS: durable.OS{}, Dir: t.TempDir(), Start: 1, Now: time.Now, Wall: func() (time.Time, bool) { return time.Time{}, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &hands{
		c: c, journal: j, log: slog.New(slog.DiscardHandler),
		read:   func(context.Context) (wan.Facts, error) { return wan.Facts{}, nil },
		reread: (&sources{}).rereadModule,
	}
}

func TestWhatThisSystemCannotDoIsNotDone(t *testing.T) {
	gone := config.Default()
	gone.Repair.Interface, gone.Repair.Session = "no-such-port", "no-such-wan"
	for name, tc := range map[string]struct {
		c      config.Config
		action order.RepairAction
	}{
		"no interface is named":      {config.Default(), order.ActionRestart},
		"the interface is not there": {gone, order.ActionRestart},
		"no pppd":                    {gone, order.ActionRedial},
		"no udhcpc":                  {gone, order.ActionRenew},
		"no optical source":          {gone, order.ActionReread},
		"an action of later times":   {gone, "reboot"},
	} {
		t.Run(name, func(t *testing.T) {
			h := testHands(t, tc.c)
			if done, err := h.act(t.Context(), tc.action); err == nil {
				t.Errorf("%+v was done", done)
			}
			if intent := h.journal.Intent(); intent != nil {
				t.Errorf("left %s", intent)
			}
		})
	}
}

func TestALineWithoutInterfacesIsNotBusy(t *testing.T) {
	c := config.Default()
	c.Repair.Session = "no-such-wan"
	if busy, seen, err := testHands(t, c).busy(t.Context(), order.ActionRedial); busy || err != nil {
		t.Errorf("busy by %s, %v", seen, err)
	}
	c.Repair.Session = "../../etc"
	if busy, _, err := testHands(t, c).busy(t.Context(), order.ActionRedial); !busy || err == nil {
		t.Errorf("a line that cannot be counted is not busy: %v", err)
	}
}

func TestARepairUnderAStandingOrderIsGrantedOnTheTrail(t *testing.T) {
	_, c := gateway(t)
	d := start(t, c)
	before := d.trail.Head().N
	v := order.Verified{Order: order.Order{Order: "WO-1", Rev: 2}, Command: order.Command{ID: "c-1"}}
	if err := d.grantHealing(v, order.ActionRedial); err != nil || d.trail.Head().N != before+1 {
		t.Errorf("%v, head %+v after %d", err, d.trail.Head(), before)
	}
	v.Order.Order = strings.Repeat("x", audit.MaxLine)
	if err := d.grantHealing(v, order.ActionRedial); err == nil || d.trail.Head().N != before+1 {
		t.Errorf("what cannot be audited is granted: %v", err)
	}
}

func TestAFaultThatIsStillOpenIsToldAfterAStart(t *testing.T) {
	_, c := gateway(t)
	d := start(t, c)
	d.watching.heard(collectors.Event{Type: "pon", What: "state", Before: "operational", After: "los"})
	d.watching.faults.Inspected(diagnosis.FromHappenings(d.watching.history.Recent()), nil)
	if len(d.watching.faults.Faults()) != 1 {
		t.Fatal("no fault opened")
	}
	var log safeLog
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	d.openHealer()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.healing.healer.Serve(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); !log.has("a fault opened"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("the healer was not told")
			break
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// What fails after a restart does not make it one that was not done.
func TestARestartThatCannotBeForgottenWasDone(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes as long as an interface is kept down")
	}
	ended := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its network
		why := ""
		defer func() { ended <- why }()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			why = err.Error()
			return
		}
		for _, line := range []string{"link add wan0 type veth peer name far0", "link set wan0 up"} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				why = string(out)
				return
			}
		}
		c := config.Default()
		c.Repair.Interface = "wan0"
		h := testHands(t, c)
		dir := t.TempDir()
		j, err := repair.OpenJournal(repair.JournalOptions{
			FS: durable.OS{}, Dir: dir, Start: 1, Now: time.Now, Wall: func() (time.Time, bool) { return time.Time{}, false },
		})
		if err != nil {
			t.Error(err)
			return
		}
		h.journal = j
		full := time.AfterFunc(downFor/2, func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		defer full.Stop()
		if done, err := h.restart(t.Context()); err != nil || done.Subject != "wan0" {
			t.Errorf("%+v, %v", done, err)
		}
		if j.Intent() == nil {
			t.Error("the journal could be written")
		}
		if ifi, err := net.InterfaceByName("wan0"); err != nil || ifi.Flags&net.FlagUp == 0 {
			t.Errorf("it is not up: %v", err)
		}
	}()
	if why := <-ended; why != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network of its own: %s", why)
		}
		t.Skipf("needs root: no network of its own: %s", why)
	}
}

// safeLog is a log that a test reads while it is written.
type safeLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *safeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *safeLog) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// An intent of an earlier boot, or one that nobody can read, is told of and
// forgotten: it would be tried for ever.
func TestAnIntentOfAnEarlierBootIsForgotten(t *testing.T) {
	for _, intent := range []string{`{"boot":"of long ago","interface":"lo","index":1,"was_up":false}`, `{}`, `[]`} {
		h := testHands(t, config.Default())
		if err := h.journal.Keep([]byte(intent)); err != nil {
			t.Fatal(err)
		}
		if err := h.finish([]byte(intent)); err == nil {
			t.Errorf("%s was undone", intent)
		}
		if left := h.journal.Intent(); left != nil {
			t.Errorf("still kept: %s", left)
		}
	}
}

func TestNoRepairWhereItIsSwitchedOff(t *testing.T) {
	d := &daemon{c: config.Default(), healing: &healing{}}
	d.c.Repair.Enabled = false
	for _, a := range d.actions() {
		if a == string(order.RepairCmd) {
			t.Error("it is offered")
		}
	}
	d.faultOpened("addr.none") // and nobody heals
}

func TestWhatHasNoNameToWatchIsBusy(t *testing.T) {
	for _, a := range []order.RepairAction{order.ActionRedial, order.ActionRenew, order.ActionRestart} {
		if busy, seen, err := testHands(t, config.Default()).busy(t.Context(), a); !busy || err == nil {
			t.Errorf("%s: busy = %v by %q, %v", a, busy, seen, err)
		}
	}
}
