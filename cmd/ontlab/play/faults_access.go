package play

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/scenario"
)

// millis is a parameter in milliseconds.
func millis(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

// applyBRAS makes the access concentrator what the settings say.
func (l *Lab) applyBRAS(ctx context.Context, fault string) error {
	p, on := l.latest(fault)
	b := l.brasd
	switch {
	case fault == "no_pado" && l.rogueAC != nil:
		l.rogueAC.Silence(on)
	case fault == "second_ac":
		return l.secondAC(ctx, on, p.ACName)
	}
	if b == nil {
		if fault == "no_pado" { // there is none that could answer
			return nil
		}
		return errNotHere("access concentrator")
	}
	switch fault {
	case "no_pado":
		b.Silence(on)
	case "slow_pado":
		b.DelayPADO(l.offersLate())
	case "mac_blocked":
		var mac net.HardwareAddr
		if on {
			var err error
			if mac, err = net.ParseMAC(l.sc.Gateway.MAC); err != nil {
				return fmt.Errorf("cannot read gateway.mac: %w", err)
			}
		}
		b.BlockMAC(mac)
	case "pads_error":
		if !on {
			b.PADSError(nil)
			return nil
		}
		tag := map[string]isp.DiscoveryErrorTag{
			"service_name": isp.ServiceNameError, "ac_system": isp.ACSystemError, "generic": isp.GenericError,
		}[p.Tag]
		if tag == 0 {
			return fmt.Errorf("there is no tag %q", p.Tag)
		}
		b.PADSError(&isp.DiscoveryError{Tag: tag, Text: p.Text})
	case "lcp_silent":
		return b.LCPSilent(on)
	case "auth_only_pap", "auth_only_chap", "ipcp_refused":
		return b.Negotiate(l.negotiation())
	case "echo_loss":
		b.EchoLoss(on)
		return b.DropEchoes(ctx, on)
	case "session_drop":
		b.DropSessions()
	}
	return nil
}

// offersLate is how long a PADI is left without an answer.
func (l *Lab) offersLate() time.Duration {
	if p, on := l.latest("slow_pado"); on {
		return millis(p.DelayMS)
	}
	return millis(float64(l.sc.Network.BRAS.PADIAnswerDelayMS))
}

// negotiation is what the concentrator insists on. Of two faults that exclude
// one another the later one counts.
func (l *Lab) negotiation() isp.Negotiation {
	n := isp.Negotiation{NoIP: l.on("ipcp_refused")}
	for _, s := range l.settings {
		switch s.fault {
		case "auth_only_pap":
			n.Auth = []string{"pap"}
		case "auth_only_chap":
			n.Auth = []string{"chap"}
		}
	}
	return n
}

// brasAuth is what the concentrator asks for by itself. pppd, of two, asks for
// CHAP, and never for the other one if that is refused; so where PAP is liked
// best it is asked for alone, unless the gateway takes CHAP only.
func (l *Lab) brasAuth() []string {
	auth := l.sc.Network.BRAS.Auth
	if len(auth) == 2 && auth[0] == "pap" {
		if l.sc.Gateway.Internet.Auth == "chap" {
			return []string{"chap"}
		}
		return []string{"pap"}
	}
	return slices.Clone(auth)
}

// secondAC lets another concentrator answer, or none.
func (l *Lab) secondAC(ctx context.Context, on bool, name string) error {
	if l.rogueAC != nil {
		if err := l.rogueAC.Stop(); err != nil {
			return err
		}
		l.rogueAC = nil
	}
	if !on {
		return nil
	}
	if err := l.rogueJoins(scenario.Internet); err != nil {
		return err
	}
	ac, err := isp.StartRogueAC(ctx, l.rogue, roguePort(scenario.Internet), name)
	if err != nil {
		return err
	}
	ac.Silence(l.on("no_pado"))
	l.rogueAC = ac
	return nil
}

// roguePort is the rogue's interface to a service.
func roguePort(kind string) string { return "to-" + kind[:min(len(kind), 9)] }

// rogueUplink is olt's end of that cable.
func rogueUplink(kind string) string { return "rg-" + kind[:min(len(kind), 9)] }

// rogueJoins connects a host that nobody ordered to a service's VLAN.
func (l *Lab) rogueJoins(kind string) error {
	if l.rogue == nil {
		host, err := l.box.Host("rogue")
		if err != nil {
			return err
		}
		l.rogue, l.rogueIn = host, map[string]bool{}
	}
	port := rogueUplink(kind)
	if !l.rogueIn[kind] {
		if err := l.cable(l.olt, port, l.rogue, roguePort(kind), ""); err != nil {
			return err
		}
		l.rogueIn[kind] = true
	}
	return l.join(port, kind)
}

// applyAAA makes the AAA what the settings say.
func (l *Lab) applyAAA(ctx context.Context) error {
	r := l.radius
	if r == nil {
		return errNotHere("RADIUS server")
	}
	r.Silence(l.on("aaa_down"))
	slow, _ := l.latest("aaa_slow")
	r.Delay(seconds(slow.DelayS))
	book, occupied := l.book()
	if key := fmt.Sprint(book); key != l.bookNow {
		if err := r.SetBook(ctx, book.accounts, book.sessionLimit); err != nil {
			return err
		}
		l.bookNow = key
	}
	var problems []error
	for account, n := range occupied {
		problems = append(problems, r.Occupy(ctx, account, n))
	}
	return errors.Join(problems...)
}

// book is what the AAA goes by.
type book struct {
	accounts     []isp.Account
	sessionLimit string // what it says of one session too many
}

// book is the AAA's book, and how many sessions each account has elsewhere.
func (l *Lab) book() (book, map[string]int) {
	b := book{sessionLimit: l.sc.Network.AAA.SessionLimit}
	occupied := map[string]int{}
	for _, a := range l.sc.Network.Accounts {
		entry := isp.Account{
			Name: a.Account, Password: a.Password, SessionLimit: a.Sessions, DownMbps: a.DownMbps, UpMbps: a.UpMbps,
			FramedIP: framedIP(a.FramedIP),
		}
		if a.State != "ok" {
			entry.Rejected, entry.Reject = true, a.Reply
		}
		occupied[a.Account] = a.InUse
		b.accounts = append(b.accounts, entry)
	}
	if p, on := l.latest("session_limit"); on {
		inet, _ := l.sc.Service(scenario.Internet)
		b.sessionLimit = p.Reply
		for i := range b.accounts {
			if a := &b.accounts[i]; a.Name == inet.Account {
				a.SessionLimit = max(a.SessionLimit, 1)
				occupied[a.Name] = max(occupied[a.Name], a.SessionLimit)
			}
		}
	}
	for _, p := range l.all("account_reject") {
		i := slices.IndexFunc(b.accounts, func(a isp.Account) bool { return a.Name == p.Account })
		if i < 0 {
			b.accounts = append(b.accounts, isp.Account{Name: p.Account})
			i = len(b.accounts) - 1
		}
		b.accounts[i].Rejected, b.accounts[i].Reject = true, p.Reply
	}
	return b, occupied
}
