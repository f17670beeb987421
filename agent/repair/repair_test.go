package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/transport/durable"
)

// line is a line that the tests break and mend.
type line struct {
	views    []View // of the looks, in turn; the last one stays
	looks    int
	lookErr  error
	acted    []order.RepairAction
	actErr   error
	undo     func(context.Context) (string, error)
	settled  func(context.Context) bool
	access   string
	traffic  bool
	trafErr  error
	told     []string
	watched  int
	finished [][]byte
}

func good() View { return View{Verdict: "pass", Rungs: rungs("optical=pass addressing=pass dns=pass")} }

// bad is a line that failed at the last of its rungs for a cause.
func bad(cause diagnosis.Code, text string) View {
	return View{Verdict: "fail", Rungs: rungs(text), Diagnosis: diagnosis.Diagnosis{Causes: []diagnosis.Ranked{{Code: cause, Kind: diagnosis.KindFault}}}}
}

func noAddress() View {
	return bad(diagnosis.AddrNone, "optical=pass addressing=fail dns=skipped")
}

func rungs(text string) (all []Rung) {
	for word := range strings.FieldsSeq(text) {
		name, verdict, _ := strings.Cut(word, "=")
		all = append(all, Rung{name, verdict})
	}
	return all
}

func (l *line) look(context.Context) (View, error) {
	v := l.views[min(l.looks, len(l.views)-1)]
	l.looks++
	if l.lookErr != nil && l.looks > 1 {
		return View{}, l.lookErr
	}
	return v, nil
}

func (l *line) repairer(t *testing.T, j *Journal) *Repairer {
	t.Helper()
	return New(Options{
		Act: func(_ context.Context, a order.RepairAction) (Done, error) {
			l.acted = append(l.acted, a)
			return Done{Subject: "eth1", Undo: l.undo, Settled: l.settled}, l.actErr
		},
		Access: func(context.Context) string { return l.access },
		Busy: func(context.Context, order.RepairAction) (bool, string, error) {
			l.watched++
			return l.traffic, "eth1: 99 packets", l.trafErr
		},
		Finish: func(intent []byte) error {
			l.finished = append(l.finished, intent)
			return j.Keep(nil)
		},
		Journal: j, PerHour: 2, PerDay: 3, Wait: 10 * time.Second, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

func (l *line) task() Task {
	return Task{Look: l.look, Tell: func(s string) { l.told = append(l.told, s) }}
}

// start is one start of a daemon whose journal is in dir.
func journal(t *testing.T, dir string, start uint64, wall func() (time.Time, bool)) *Journal {
	t.Helper()
	if wall == nil {
		wall = func() (time.Time, bool) { return time.Time{}, false }
	}
	j, err := OpenJournal(JournalOptions{FS: durable.OS{}, Dir: dir, Start: start, Now: time.Now, Wall: wall})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestRepair(t *testing.T) {
	consent := []string{order.ConsentDisturb}
	lost := bad(diagnosis.OpticalNoLight, "optical=fail addressing=skipped")
	unread := View{Verdict: "inconclusive", Rungs: rungs("optical=inconclusive"), Diagnosis: diagnosis.Diagnosis{
		Causes: []diagnosis.Ranked{{Code: diagnosis.OpticalUnreadable, Kind: diagnosis.KindUnknown}},
	}}
	for name, tc := range map[string]struct {
		line    line
		action  order.RepairAction
		consent []string
		undo    bool

		acted   []order.RepairAction
		outcome string
		verdict string
		refused string
		undone  bool
	}{
		"a fine line is left alone": {
			line: line{views: []View{good()}}, outcome: NotNeeded, verdict: "pass",
		},
		"a fine line is left alone whatever is asked": {
			line: line{views: []View{good()}}, action: order.ActionRestart, consent: consent, outcome: NotNeeded, verdict: "pass",
		},
		"DHCP: renewed": {
			line: line{views: []View{noAddress(), good()}, access: AccessDHCP}, undo: true,
			acted: []order.RepairAction{order.ActionRenew}, outcome: Helped, verdict: "pass",
		},
		"PPPoE: redialled": {
			line:  line{views: []View{noAddress(), good()}, access: AccessPPPoE},
			acted: []order.RepairAction{order.ActionRedial}, outcome: Helped, verdict: "pass",
		},
		"neither": {
			line: line{views: []View{noAddress()}}, outcome: NoAction, verdict: "fail",
		},
		"useless, so undone": {
			line: line{views: []View{noAddress()}}, action: order.ActionRestart, undo: true,
			acted: []order.RepairAction{order.ActionRestart}, outcome: Useless, verdict: "fail", undone: true,
		},
		"worse, so undone": {
			line: line{views: []View{noAddress(), lost}}, action: order.ActionRestart, undo: true,
			acted: []order.RepairAction{order.ActionRestart}, outcome: Worse, verdict: "fail", undone: true,
		},
		"the second look fails": {
			line: line{views: []View{noAddress()}, lookErr: errors.New("stuck")}, action: order.ActionRestart, undo: true,
			acted: []order.RepairAction{order.ActionRestart}, outcome: Unclear, verdict: "inconclusive", undone: true,
		},
		"the cause is elsewhere": {
			line: line{views: []View{lost}, access: AccessPPPoE}, outcome: NoAction, verdict: "fail",
		},
		"reading again disturbs nobody": {
			line: line{views: []View{unread, good()}, traffic: true}, acted: []order.RepairAction{order.ActionReread}, outcome: Helped, verdict: "pass",
		},
		"traffic without consent": {
			line: line{views: []View{noAddress()}, traffic: true}, action: order.ActionRedial, refused: NoConsent,
		},
		"traffic that cannot be told, without consent": {
			line: line{views: []View{noAddress()}, trafErr: errors.New("no counters")}, action: order.ActionRedial, refused: NoConsent,
		},
		"another consent is none": {
			line: line{views: []View{noAddress()}, traffic: true}, action: order.ActionRedial,
			consent: []string{order.ConsentCustomerSettings}, refused: NoConsent,
		},
		"traffic with consent": {
			line: line{views: []View{noAddress(), good()}, traffic: true}, action: order.ActionRedial, consent: consent,
			acted: []order.RepairAction{order.ActionRedial}, outcome: Helped, verdict: "pass",
		},
		"not supported": {
			line: line{views: []View{noAddress()}, actErr: fmt.Errorf("no pppd: %w", ErrUnsupported)}, action: order.ActionRedial,
			acted: []order.RepairAction{order.ActionRedial}, outcome: NotDone, verdict: "fail",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, undone := tc.line, 0
				if tc.undo {
					l.undo = func(ctx context.Context) (string, error) {
						undone++
						return "eth1 is down again", ctx.Err()
					}
				}
				task := l.task()
				task.Action, task.Consents = tc.action, tc.consent
				res, err := l.repairer(t, journal(t, t.TempDir(), 1, nil)).Repair(t.Context(), task)
				if diff := cmp.Diff(tc.acted, l.acted); diff != "" {
					t.Errorf("actions (-want +got):\n%s", diff)
				}
				if refused := (*RefusedError)(nil); errors.As(err, &refused) {
					if refused.Why != tc.refused {
						t.Errorf("refused: %v, want %q", err, tc.refused)
					}
					return
				}
				if err != nil || tc.refused != "" {
					t.Fatalf("err = %v, want refused %q", err, tc.refused)
				}
				if res.Outcome != tc.outcome || res.Verdict() != tc.verdict || (res.Undone != "") != tc.undone || (undone == 1) != tc.undone {
					t.Errorf("result = %+v (undone %d times)", res, undone)
				}
				if (res.After != nil) != (len(tc.acted) > 0 && tc.outcome != NotDone && tc.outcome != Unclear) {
					t.Errorf("after = %+v", res.After)
				}
			})
		})
	}
}

func TestRepairWaitsUntilTheLineSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := line{views: []View{noAddress(), good()}, access: AccessDHCP}
		l.settled = func(context.Context) bool { return time.Since(start) > 5*time.Second }
		res, err := l.repairer(t, journal(t, t.TempDir(), 1, nil)).Repair(t.Context(), l.task())
		if took := time.Since(start); err != nil || res.Outcome != Helped || took < 5*time.Second || took > 7*time.Second {
			t.Errorf("%+v, %v after %v", res, err, took)
		}
		if diff := cmp.Diff([]string{"look", "renew", "look_again"}, l.told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestRepairDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := line{views: []View{noAddress()}, access: AccessDHCP, settled: func(context.Context) bool { return false }}
		res, err := l.repairer(t, journal(t, t.TempDir(), 1, nil)).Repair(t.Context(), l.task())
		if took := time.Since(start); err != nil || res.Outcome != Useless || took != 10*time.Second {
			t.Errorf("%+v, %v after %v", res, err, took)
		}
	})
}

func TestRepairStoppedIsUndoneAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := line{views: []View{noAddress()}}
		var undoErr error
		l.settled = func(context.Context) bool { cancel(); return false }
		undone := false
		l.undo = func(ctx context.Context) (string, error) {
			undone, undoErr = true, ctx.Err()
			return "put back", nil
		}
		l.lookErr = context.Canceled
		task := l.task()
		task.Action = order.ActionRestart
		if _, err := l.repairer(t, journal(t, t.TempDir(), 1, nil)).Repair(ctx, task); err != nil {
			t.Fatal(err)
		}
		if !undone || undoErr != nil {
			t.Errorf("undone = %v, with %v", undone, undoErr)
		}
	})
}

func TestRepairOneAtATime(t *testing.T) {
	l := line{views: []View{noAddress(), good()}}
	r := l.repairer(t, journal(t, t.TempDir(), 1, nil))
	var second error
	task := l.task()
	task.Action = order.ActionReread
	task.Tell = func(step string) {
		if step == "look_again" {
			_, second = r.Repair(t.Context(), l.task())
		}
	}
	if _, err := r.Repair(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if refused := (*RefusedError)(nil); !errors.As(second, &refused) || refused.Why != Busy {
		t.Errorf("the second got %v", second)
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var start uint64
		// try repairs with a new start of the daemon each time.
		try := func() string {
			start++
			l := line{views: []View{noAddress()}}
			task := l.task()
			task.Action = order.ActionReread
			_, err := l.repairer(t, journal(t, dir, start, nil)).Repair(t.Context(), task)
			if refused := (*RefusedError)(nil); errors.As(err, &refused) {
				if l.looks != 0 {
					t.Error("looked before refusing")
				}
				return refused.Why
			}
			if err != nil {
				t.Fatal(err)
			}
			return "done"
		}
		got := []string{try(), try(), try()}
		// Two within this hour. A restart gives no more, and without a clock only
		// running time counts: what another start did was never an hour ago.
		if diff := cmp.Diff([]string{"done", "done", Limited}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		time.Sleep(25 * time.Hour)
		if got := try(); got != Limited {
			t.Errorf("a start without a clock, that cannot know what time has passed: %s", got)
		}
	})
}

func TestLimitsPassWithTime(t *testing.T) {
	for name, wall := range map[string]func() (time.Time, bool){
		"running on":           nil,
		"by a clock it trusts": func() (time.Time, bool) { return time.Now(), true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				j := journal(t, dir, 1, wall)
				var start uint64 = 1
				try := func() string {
					if wall != nil { // it restarts all the time
						start++
						j = journal(t, dir, start, wall)
					}
					l := line{views: []View{noAddress()}}
					task := l.task()
					task.Action = order.ActionReread
					_, err := l.repairer(t, j).Repair(t.Context(), task)
					if err != nil {
						return "refused"
					}
					return "done"
				}
				var got []string
				for _, wait := range []time.Duration{0, 0, 0, time.Hour, 0, 2 * time.Hour, 24 * time.Hour} {
					time.Sleep(wait)
					got = append(got, try())
				}
				// Two an hour, three a day.
				want := []string{"done", "done", "refused", "done", "refused", "refused", "done"}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestFinishUndoesWhatWasCutShort(t *testing.T) {
	dir := t.TempDir()
	if err := journal(t, dir, 1, nil).Keep([]byte(`{"interface":"eth1"}`)); err != nil {
		t.Fatal(err)
	}
	var l line
	r := l.repairer(t, journal(t, dir, 2, nil))
	r.Finish()
	r.Finish()
	if len(l.finished) != 1 || string(l.finished[0]) != `{"interface":"eth1"}` {
		t.Errorf("finished %q", l.finished)
	}
	if left := journal(t, dir, 3, nil).Intent(); left != nil {
		t.Errorf("still kept: %s", left)
	}
}

func TestJudge(t *testing.T) {
	view := func(verdict, text string) View { return View{Verdict: verdict, Rungs: rungs(text)} }
	before := view("fail", "optical=pass addressing=fail dns=skipped")
	for name, tc := range map[string]struct {
		before, after View
		want          string
	}{
		"all is fine":             {before, view("pass", "optical=pass addressing=pass dns=pass"), Helped},
		"one step further":        {before, view("fail", "optical=pass addressing=pass dns=fail"), Helped},
		"the same":                {before, before, Useless},
		"further down":            {before, view("fail", "optical=fail addressing=skipped dns=skipped"), Worse},
		"cannot tell any more":    {before, view("inconclusive", "optical=inconclusive addressing=skipped dns=skipped"), Unclear},
		"unknown before and bad":  {view("inconclusive", "optical=inconclusive"), view("fail", "optical=fail"), Worse},
		"unknown before and fine": {view("inconclusive", "optical=inconclusive"), view("pass", "optical=pass"), Helped},
		"nothing at all":          {View{}, View{}, Unclear},
	} {
		if got, why := Judge(tc.before, tc.after); got != tc.want || why == "" {
			t.Errorf("%s: %s (%s), want %s", name, got, why, tc.want)
		}
	}
}

// Whoever is not at fault is not repaired: no action for any cause that the
// catalogue lays at somebody else's door, but for those of a session that the
// gateway shares with its BRAS.
func TestAdvise(t *testing.T) {
	shared := map[diagnosis.Code]bool{}
	for _, c := range session {
		shared[c] = true
	}
	for _, c := range diagnosis.Catalogue() {
		action, why := Advise(c.Code, AccessPPPoE)
		if (action == "") == (why == "") {
			t.Errorf("%s: action %q, why none %q", c.Code, action, why)
		}
		if action != "" && c.Side != diagnosis.SideDevice && !shared[c.Code] {
			t.Errorf("%s is on the side of %s, and gets %s", c.Code, c.Side, action)
		}
		if action == order.ActionRestart {
			t.Errorf("%s restarts an interface by itself", c.Code)
		}
	}
	if _, why := Advise("no.such.cause", ""); !strings.Contains(why, "not known") {
		t.Errorf("an unknown cause: %s", why)
	}
}
