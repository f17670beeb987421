package isp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// BRASSession is a session of PPP that is up, or comes up.
type BRASSession struct {
	PID       int    // of its pppd
	ID        uint16 // of its PPPoE session
	MAC       string // the client's
	Began     time.Time
	Interface string // empty until it has one
	User      string // empty until it is up
	IP        netip.Addr
	// DownMbps and UpMbps are the rates that are enforced; 0 means none.
	DownMbps, UpMbps float64
	// PeerLinkLocal is the client's link-local address, if it speaks IPv6.
	PeerLinkLocal netip.Addr
}

// Up says whether the session has an IPv4 address.
func (s BRASSession) Up() bool { return s.IP.IsValid() }

// Sessions are those whose pppd lives, the eldest first.
func (b *BRAS) Sessions() []BRASSession {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []BRASSession
	for pid, s := range b.sessions {
		if !isPPPD(pid) {
			delete(b.sessions, pid)
			continue
		}
		all = append(all, *s)
	}
	slices.SortFunc(all, func(x, y BRASSession) int { return x.Began.Compare(y.Began) })
	return all
}

// isPPPD says whether a process is a pppd, or will be one.
func isPPPD(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.HasPrefix(string(name), "pppd")
}

// signalPPPD sends a signal to a session's process, if it is still that.
func signalPPPD(pid int, s syscall.Signal) {
	if isPPPD(pid) {
		_ = syscall.Kill(pid, s) // it ends just now
	}
}

// follow reads what pppd's scripts tell, until the pipe is closed.
func (b *BRAS) follow(ctx context.Context, events *os.File) {
	for lines := bufio.NewScanner(events); lines.Scan(); {
		e, err := parseBRASEvent(lines.Text())
		if err == nil {
			err = b.handle(ctx, e)
		}
		if err != nil && ctx.Err() == nil {
			b.fail(err)
		}
	}
}

// brasEventLine is a line of the pipe.
type brasEventLine struct {
	kind   string
	pid    int
	fields []string
}

// parseBRASEvent takes a line apart: kind, process, and what there is to say.
func parseBRASEvent(line string) (brasEventLine, error) {
	fields := strings.Split(line, "\t")
	wanted := map[string]int{"start": 3, "rate": 5, "up": 6, "up6": 5, "down": 3, "problem": 4}[fields[0]]
	if wanted == 0 || len(fields) < wanted {
		return brasEventLine{}, fmt.Errorf("cannot understand event %q", line)
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		return brasEventLine{}, fmt.Errorf("cannot understand event %q: %w", line, err)
	}
	return brasEventLine{kind: fields[0], pid: pid, fields: fields[2:]}, nil
}

func (b *BRAS) handle(ctx context.Context, e brasEventLine) error {
	b.mu.Lock()
	s := b.sessions[e.pid]
	if s == nil {
		s = &BRASSession{PID: e.pid, Began: time.Now()}
		b.sessions[e.pid] = s
	}
	frozen := b.frozen
	var err error
	switch e.kind {
	case "start":
		*s = BRASSession{PID: e.pid, Began: time.Now()}
		id, mac, _ := strings.Cut(e.fields[0], ":")
		n, _ := strconv.ParseUint(id, 10, 16)
		s.ID, s.MAC = uint16(n), mac
	case "rate":
		s.Interface, s.DownMbps, s.UpMbps = e.fields[0], megabits(e.fields[1]), megabits(e.fields[2])
	case "up":
		s.Interface, s.User = e.fields[0], e.fields[3]
		s.IP, err = netip.ParseAddr(e.fields[2])
	case "up6":
		s.Interface = e.fields[0]
		s.PeerLinkLocal, err = netip.ParseAddr(e.fields[2])
	case "down":
		s.IP = netip.Addr{}
	case "problem":
		err = errors.New(e.fields[1])
	}
	session := *s
	b.mu.Unlock()
	if err != nil {
		return err
	}
	switch {
	case e.kind == "up6" && b.options.IPv6 != nil:
		return b.sessionIPv6(ctx, session, e.fields[1])
	case e.kind == "up" && frozen:
		b.freezeSoon(ctx, e.pid)
	}
	return nil
}

// freezeSoon stops a pppd once it has had the time to finish.
func (b *BRAS) freezeSoon(ctx context.Context, pid int) {
	b.running.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.frozen {
			signalPPPD(pid, syscall.SIGSTOP)
		}
	})
}

// megabits reads a rate in bit/s; what is none is 0.
func megabits(text string) float64 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return float64(n) / 1e6
}

// sessionsBegin is how long a session may take to come up.
const sessionsBegin = time.Minute

// reap ends sessions whose client went away before it said a word: pppd waits
// for that for ever, and a slot is taken.
func (b *BRAS) reap(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, s := range b.Sessions() {
			if !s.Up() && s.Interface == "" && time.Since(s.Began) > sessionsBegin {
				signalPPPD(s.PID, syscall.SIGTERM)
			}
		}
	}
}
