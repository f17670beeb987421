package repair

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/transport/durable"
)

// patient is a healer with a line to heal. Its tests run in bubbles, where time
// passes only when all sleep.
type patient struct {
	l        line
	journal  *Journal
	standing *Standing
	healer   *Healer
	judge    func(order.Request) (order.Verified, error)
	turn     sync.Mutex
	start    time.Time

	mu       sync.Mutex // for the race detector, to which a bubble's order is none
	granted  []order.RepairAction
	grantErr error
	reports  []string
	at       []time.Duration // of the reports
}

func newPatient(t *testing.T, views ...View) *patient {
	t.Helper()
	p := &patient{l: line{views: views, access: AccessDHCP}, journal: journal(t, t.TempDir(), 1, nil), start: time.Now()}
	var err error
	if p.standing, err = OpenStanding(durable.OS{}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := p.standing.Keep(signedRequest(t)); err != nil {
		t.Fatal(err)
	}
	p.judge = func(order.Request) (order.Verified, error) {
		return order.Verified{Order: order.Order{Order: "WO-1"}}, nil
	}
	p.healer = NewHealer(HealerOptions{
		Repairer: p.l.repairer(t, p.journal), Standing: p.standing, Journal: p.journal,
		Judge: func(r order.Request) (order.Verified, error) { return p.judge(r) },
		Grant: func(v order.Verified, a order.RepairAction) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if v.Order.Order != "WO-1" || p.l.acted != nil && len(p.l.acted) > len(p.granted) {
				t.Errorf("%v is granted under %q, after %v", a, v.Order.Order, p.l.acted)
			}
			p.granted = append(p.granted, a)
			return p.grantErr
		},
		Look: func(ctx context.Context, _ order.Order) (View, error) { return p.l.look(ctx) },
		Turn: func(context.Context) (func(), error) {
			p.turn.Lock()
			return p.turn.Unlock, nil
		},
		Grace: time.Minute,
		Report: func(r Result, _ order.Order, err error) {
			what := r.Outcome
			if refused := (*RefusedError)(nil); errors.As(err, &refused) {
				what = refused.Why
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.reports = append(p.reports, what)
			p.at = append(p.at, time.Since(p.start))
		},
		Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.healer.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
	return p
}

// grants says what comes of a grant from now on.
func (p *patient) grants(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grantErr = err
}

func (p *patient) expect(t *testing.T, reports ...string) {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if diff := cmp.Diff(reports, p.reports); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
}

func TestHealer(t *testing.T) {
	t.Run("heals a fault that lasts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress(), good())
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(59 * time.Second)
			p.expect(t)
			time.Sleep(2 * time.Second)
			p.expect(t, Helped)
			time.Sleep(24 * time.Hour)
			p.expect(t, Helped)
		})
	})
	t.Run("leaves alone what mended itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, good())
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(24 * time.Hour)
			p.expect(t, NotNeeded)
			if p.l.acted != nil {
				t.Errorf("did %v", p.l.acted)
			}
		})
	})
	t.Run("many faults are one repair", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress(), good())
			for range 50 {
				p.healer.Opened(diagnosis.AddrNone)
				p.healer.Opened(diagnosis.DNSNoResolver)
				time.Sleep(time.Second)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if p.reports[0] != Helped || len(p.l.acted) != 1 {
				t.Errorf("%v: %v", p.l.acted, p.reports)
			}
		})
	})
	t.Run("backs off, and keeps to the limits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress())
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			var useless []time.Duration
			for i, r := range p.reports {
				if r == Useless {
					useless = append(useless, p.at[i].Round(time.Minute))
				}
			}
			// After 1 min; 5 min later; then, as two in an hour are all, after that.
			if diff := cmp.Diff([]time.Duration{time.Minute, 6 * time.Minute}, useless[:2]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(useless) != 3 || useless[2] < time.Hour {
				t.Errorf("useless repairs at %v, of three a day", useless)
			}
			if len(p.reports) > 6 || p.l.looks > 20 {
				t.Errorf("%d looks, and told %v", p.l.looks, p.reports)
			}
		})
	})
	t.Run("without a standing order nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress())
			req, _ := p.standing.Request()
			if err := p.standing.Drop(req); err != nil {
				t.Fatal(err)
			}
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(time.Hour)
			p.expect(t)
			if p.l.looks != 0 {
				t.Error("it looked")
			}
		})
	})
	t.Run("without consent not while there is traffic", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress())
			p.l.traffic = true
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(2 * time.Minute)
			p.expect(t, NoConsent)
			if p.l.acted != nil {
				t.Errorf("did %v", p.l.acted)
			}
		})
	})
	t.Run("waits for a visit to end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress(), good())
			p.turn.Lock()
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(time.Minute - time.Second)
			synctest.Wait()
			go func() { // a mutex does not let a bubble's time pass
				time.Sleep(time.Second / 2)
				p.turn.Unlock()
			}()
			time.Sleep(time.Minute)
			p.expect(t, Helped)
		})
	})
	for _, tc := range []struct {
		reason order.Reason
		kept   bool
	}{
		{order.ReasonOrderClosed, false},
		{order.ReasonOrderRevoked, false},
		{order.ReasonExpired, false},
		{order.ReasonRevoked, false},
		{order.ReasonClockUntrusted, true},
		{order.ReasonNotYetValid, true},
	} {
		t.Run("refused: "+string(tc.reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPatient(t, noAddress())
				p.judge = func(order.Request) (order.Verified, error) {
					return order.Verified{}, &order.RefusalError{Reason: tc.reason}
				}
				p.healer.Opened(diagnosis.AddrNone)
				time.Sleep(2 * time.Minute)
				p.expect(t)
				if _, kept := p.standing.Request(); kept != tc.kept || p.l.acted != nil {
					t.Errorf("kept = %v, did %v", kept, p.l.acted)
				}
			})
		})
	}
	t.Run("not under an order that was closed during the look", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress())
			p.judge = func(order.Request) (order.Verified, error) {
				if p.l.looks > 0 {
					return order.Verified{}, &order.RefusalError{Reason: order.ReasonOrderClosed}
				}
				return order.Verified{Order: order.Order{Order: "WO-1"}}, nil
			}
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(24 * time.Hour)
			p.expect(t)
			if _, kept := p.standing.Request(); kept || p.l.acted != nil || p.granted != nil || p.l.looks != 1 {
				t.Errorf("kept = %v, granted %v and did %v", kept, p.granted, p.l.acted)
			}
		})
	})
	t.Run("not what cannot be audited", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress(), noAddress(), good())
			p.grants(errors.New("no space"))
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(2 * time.Minute)
			p.expect(t, "")
			if p.l.acted != nil || p.journal.Since(time.Hour) != 0 || len(p.granted) != 1 {
				t.Errorf("did %v, of %v", p.l.acted, p.granted)
			}
			p.grants(nil)
			time.Sleep(10 * time.Minute)
			p.expect(t, "", Helped)
			if len(p.l.acted) != 1 || len(p.granted) != 2 {
				t.Errorf("did %v, of %v", p.l.acted, p.granted)
			}
		})
	})
	t.Run("does only what the order names", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(t, noAddress(), good())
			p.judge = func(order.Request) (order.Verified, error) {
				return order.Verified{Order: order.Order{Order: "WO-1"}, Command: order.Command{Args: order.Args{Action: order.ActionReread}}}, nil
			}
			p.healer.Opened(diagnosis.AddrNone)
			time.Sleep(2 * time.Minute)
			p.expect(t, Helped)
			if diff := cmp.Diff([]order.RepairAction{order.ActionReread}, p.l.acted); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	})
}
