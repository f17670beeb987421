package steps

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/http"
	"ontagent/agent/probe/mtu"
	"ontagent/collectors"
)

// PathOptions are what reachability looks at beyond small packets.
type PathOptions struct {
	// MTU measures the path MTU to the best address; nil: not measured.
	MTU func(ctx context.Context, o mtu.Options) (mtu.Result, error)
	// Check asks for Page, which shows whether a portal stands before the
	// internet; nil, or a Page without a URL: not tried.
	Check func(ctx context.Context, o http.Options) (http.Result, error)
	Page  http.Options
}

// pathReserve is what the deadline of the step must leave after all of this:
// what was found before is not lost because a page took long.
const pathReserve = 2 * time.Second

// path adds what large packets and a web page show. best is the address that
// shows the line at its best, if any answers. Only a certain fault counts: a
// server that does not answer says nothing about the line.
func (s *Reachability) path(ctx context.Context, out *acceptance.Outcome, best hop, answers bool, note func(string)) {
	limited := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		limited, cancel = context.WithDeadline(ctx, end.Add(-pathReserve))
		defer cancel()
	}
	if s.o.Path.MTU != nil {
		if answers {
			r, err := s.o.Path.MTU(limited, mtu.Options{Target: best.addr})
			if ctx.Err() != nil {
				return
			}
			s.judgeMTU(out, best, r, err, note)
		} else {
			put(out, missing("path_mtu_bytes", collectors.StatusUnsupported, "mtu", "no address answers by which to measure it"))
		}
	}
	if s.o.Path.Check != nil && s.o.Path.Page.URL != "" {
		r, err := s.o.Path.Check(limited, s.o.Path.Page)
		if ctx.Err() != nil {
			return
		}
		s.judgePage(out, r, err, note)
	}
}

// spoil makes a fault of what was good so far.
func spoil(out *acceptance.Outcome, reason string, code diagnosis.Code) {
	if out.Verdict == acceptance.Fail {
		out.Reason += ", " + reason
		out.Causes = append(out.Causes, string(code))
		return
	}
	decide(out, acceptance.Fail, reason, code)
}

func (s *Reachability) judgeMTU(out *acceptance.Outcome, best hop, r mtu.Result, err error, note func(string)) {
	source := "mtu:" + best.addr.String()
	if err == nil && r.PathMTU == 0 {
		err = fmt.Errorf("nothing came back: %s %s", r.Outcome, r.Error)
	}
	if err != nil {
		note(err.Error())
		put(out, missing("path_mtu_bytes", collectors.StatusError, source, err.Error()))
		return
	}
	note(fmt.Sprintf("path MTU to %s: %d of %d bytes, %s", best.addr, r.PathMTU, r.ExpectedMTU, r.Outcome))
	m := value("path_mtu_bytes", r.PathMTU, source, fmt.Sprintf("%s; %d expected, %d of the interface", r.Outcome, r.ExpectedMTU, r.InterfaceMTU))
	if r.ToldMTU != 0 {
		m.Note += fmt.Sprintf(", told %d by %s", r.ToldMTU, r.ToldBy)
	}
	put(out, m)
	switch {
	case best.loss() > lossyRatio:
		// What is lost may be large by chance.
	case r.Outcome == mtu.BlackHole:
		spoil(out, fmt.Sprintf("packets above %d of %d bytes vanish on the way to %s", r.PathMTU, r.ExpectedMTU, best.addr), diagnosis.ReachMTUBlackHole)
	case r.Outcome == mtu.MSSBlackHole:
		spoil(out, fmt.Sprintf("full segments from %s never arrive", best.addr), diagnosis.ReachMTUBlackHole)
	}
	// Where less passes and somebody says so, both ends adapt: no fault.
}

// lossyRatio is the loss above which silence of large packets is no evidence.
const lossyRatio = 0.1

func (s *Reachability) judgePage(out *acceptance.Outcome, r http.Result, err error, note func(string)) {
	source := "http:" + s.o.Path.Page.URL
	if err != nil {
		note(err.Error())
		put(out, missing("page_outcome", collectors.StatusError, source, err.Error()))
		return
	}
	// What is behind the path may name the customer.
	location := r.Location
	if i := strings.IndexAny(location, "?#;"); i >= 0 {
		location = location[:i]
	}
	note(fmt.Sprintf("%s: %s %d %q", s.o.Path.Page.URL, r.Outcome, r.Status, location))
	m := value("page_outcome", string(r.Outcome), source, r.Error)
	if r.Address.IsValid() {
		m.Note = strings.TrimSpace(fmt.Sprintf("%s, status %d %s", r.Address, r.Status, r.Error))
	}
	put(out, m)
	if r.Status != 0 && slices.Contains(out.Causes, string(diagnosis.ReachNoReply)) {
		// Something does reply, if not to pings.
		decide(out, acceptance.Fail, "no address answers pings", diagnosis.ReachTargetSilent)
	}
	switch r.Outcome {
	case http.Redirected:
		measured(out, "page_redirect", location, source, fmt.Sprintf("status %d", r.Status))
		if s.secured(r) {
			break
		}
		spoil(out, fmt.Sprintf("pages are redirected to %q", location), diagnosis.DialWalledGarden)
	case http.Altered:
		m := value("page_status", r.Status, source, "another page than the one asked for")
		m.Raw = r.Text
		put(out, m)
		spoil(out, "another page comes than the one asked for", diagnosis.DialWalledGarden)
	case http.OK:
		if slices.Contains(out.Causes, string(diagnosis.ReachTargetSilent)) {
			decide(out, acceptance.Inconclusive, "pages come, and no address answers pings: loss cannot be measured", diagnosis.ReachTargetSilent)
		}
	case http.ErrorStatus, http.NameFailed, http.Refused, http.Unreachable, http.Reset, http.Closed, http.Timeout, http.Malformed:
		// A server's own fault, or that of names, which have a rung of their own.
	default:
	}
}

// secured reports whether a redirect leads to the same host by https, where no
// portal could answer for it.
func (s *Reachability) secured(r http.Result) bool {
	asked, err := url.Parse(s.o.Path.Page.URL)
	return err == nil && len(r.Location) > 8 && strings.EqualFold(r.Location[:8], "https://") && strings.EqualFold(asked.Hostname(), r.LocationHost)
}
