package steps

import (
	"context"
	"fmt"
	"net/netip"

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

// path adds what large packets and a web page show. Only a certain fault counts:
// a server that does not answer says nothing about the line.
func (s *Reachability) path(ctx context.Context, out *acceptance.Outcome, best netip.Addr, note func(string)) {
	if s.o.Path.MTU != nil {
		r, err := s.o.Path.MTU(ctx, mtu.Options{Target: best})
		if ctx.Err() != nil {
			return
		}
		s.judgeMTU(out, r, err, note)
	}
	if s.o.Path.Check != nil && s.o.Path.Page.URL != "" {
		r, err := s.o.Path.Check(ctx, s.o.Path.Page)
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

func (s *Reachability) judgeMTU(out *acceptance.Outcome, r mtu.Result, err error, note func(string)) {
	source := "mtu:" + r.Target.String()
	if err != nil {
		note(err.Error())
		out.Measurements = append(out.Measurements, missing("path_mtu_bytes", collectors.StatusError, source, err.Error()))
		return
	}
	note(fmt.Sprintf("path MTU to %s: %d of %d bytes, %s", r.Target, r.PathMTU, r.ExpectedMTU, r.Outcome))
	m := value("path_mtu_bytes", r.PathMTU, source, string(r.Outcome))
	if r.ToldMTU != 0 {
		m.Note += fmt.Sprintf(", told %d by %s", r.ToldMTU, r.ToldBy)
	}
	out.Measurements = append(out.Measurements, m)
	if r.Outcome == mtu.BlackHole || r.Outcome == mtu.MSSBlackHole {
		spoil(out, fmt.Sprintf("packets above %d of %d bytes vanish on the way to %s", r.PathMTU, r.ExpectedMTU, r.Target), diagnosis.ReachMTUBlackHole)
	}
}

func (s *Reachability) judgePage(out *acceptance.Outcome, r http.Result, err error, note func(string)) {
	source := "http:" + s.o.Path.Page.URL
	if err != nil {
		note(err.Error())
		out.Measurements = append(out.Measurements, missing("page_outcome", collectors.StatusError, source, err.Error()))
		return
	}
	note(fmt.Sprintf("%s: %s %d %s", s.o.Path.Page.URL, r.Outcome, r.Status, r.Location))
	out.Measurements = append(out.Measurements, value("page_outcome", string(r.Outcome), source, r.Error))
	switch r.Outcome {
	case http.Redirected:
		out.Measurements = append(out.Measurements, value("page_redirect", r.Location, source, fmt.Sprintf("status %d", r.Status)))
		spoil(out, fmt.Sprintf("pages are redirected to %q", r.Location), diagnosis.DialWalledGarden)
	case http.Altered:
		m := value("page_status", r.Status, source, "another page than the one asked for")
		m.Raw = r.Text
		out.Measurements = append(out.Measurements, m)
		spoil(out, "another page comes than the one asked for", diagnosis.DialWalledGarden)
	case http.OK, http.ErrorStatus, http.NameFailed, http.Refused, http.Unreachable, http.Reset, http.Closed, http.Timeout, http.Malformed:
	default:
	}
}
