package isp

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// radiusConfig is what one FreeRADIUS is started with.
type radiusConfig struct {
	options            RADIUSOptions
	accounts           []Account
	dir, state         string // its own files, and those that outlive it
	authPort, acctPort uint16
	accounting         string // the file for records
}

// radiusDictionaries are those of FreeRADIUS's that the configuration uses.
// Reading all 200 takes as long as everything else.
const radiusDictionaries = "rfc2865 rfc2866 rfc2867 rfc2868 rfc2869 rfc3162 rfc3576 rfc5176 rfc6929 wispr freeradius freeradius.internal"

// files are the configuration by name.
func (c radiusConfig) files() (map[string]string, error) {
	users, err := c.users()
	if err != nil {
		return nil, err
	}
	var dictionary strings.Builder
	for name := range strings.FieldsSeq(radiusDictionaries) {
		fmt.Fprintf(&dictionary, "$INCLUDE /usr/share/freeradius/dictionary.%s\n", name)
	}
	main, err := c.main()
	if err != nil {
		return nil, err
	}
	return map[string]string{"radiusd.conf": main, "users": users, "dictionary": dictionary.String()}, nil
}

// main is radiusd.conf: two sockets, and only the modules that are used.
//
// No user is set, so that the server stays who it is. check_with_nas is off: the
// state of sessions comes from accounting alone, as there is nobody to ask.
func (c radiusConfig) main() (string, error) {
	reject := c.rejectReply("&control:Cleartext-Password", c.options.WrongPasswordReply)
	secret, err := radiusQuote(c.options.Secret)
	if err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	for _, text := range []string{c.options.UnknownReply, c.options.WrongPasswordReply, c.options.SessionLimitReply} {
		if err := radiusText(text); err != nil {
			return "", fmt.Errorf("reply %q: %w", text, err)
		}
	}
	const denied = "You are already logged in - access denied" // FreeRADIUS's own
	return fmt.Sprintf(`libdir = /usr/lib/freeradius
logdir = %[1]s
run_dir = %[1]s
confdir = %[1]s
max_request_time = 5
cleanup_delay = 1
hostname_lookups = no
proxy_requests = no
log {
	destination = stdout
	auth = yes
	msg_denied = "%[9]s"
}
security {
	allow_core_dumps = no
	reject_delay = 0
	status_server = yes
}
client any {
	ipaddr = 0.0.0.0/0
	secret = %[2]s
	nas_type = other
}
thread pool {
	start_servers = 1
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 2
}
modules {
	files {
		filename = %[1]s/users
	}
	pap {
	}
	chap {
	}
	radutmp {
		filename = %[3]s/radutmp
		username = %%{User-Name}
		check_with_nas = no
		permissions = 0600
	}
	linelog {
		filename = %[4]s
		permissions = 0600
		format = "%%{Acct-Status-Type}|%%{Acct-Session-Id}|%%{Framed-IP-Address}|%%{Calling-Station-Id}|%%{User-Name}"
	}
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[5]d
	}
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = %[6]d
	}
	authorize {
		files
		chap
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
		Auth-Type CHAP {
			chap
		}
	}
	session {
		radutmp
	}
	post-auth {
		Post-Auth-Type REJECT {
%[8]s%[7]s		}
	}
	accounting {
		radutmp
		linelog
	}
}
`, c.dir, secret, c.state, c.accounting, c.authPort, c.acctPort, c.limitReply(denied), reject, denied), nil
}

// rejectReply adds a message to a rejection that has none.
func (c radiusConfig) rejectReply(condition, text string) string {
	if text == "" {
		return ""
	}
	quoted, err := radiusQuote(text)
	if err != nil {
		return "" // main has looked at it
	}
	return fmt.Sprintf("\t\t\tif (!&reply:Reply-Message && %s) {\n\t\t\t\tupdate reply {\n\t\t\t\t\tReply-Message := %s\n\t\t\t\t}\n\t\t\t}\n", condition, quoted)
}

// limitReply replaces FreeRADIUS's own message, which it wraps in line ends.
func (c radiusConfig) limitReply(denied string) string {
	switch {
	case c.options.SessionLimitSilent:
		return fmt.Sprintf("\t\t\tif (&reply:Reply-Message =~ /%s/) {\n\t\t\t\tupdate reply {\n\t\t\t\t\tReply-Message !* ANY\n\t\t\t\t}\n\t\t\t}\n", denied)
	case c.options.SessionLimitReply == "":
		return ""
	}
	quoted, err := radiusQuote(c.options.SessionLimitReply)
	if err != nil {
		return "" // main has looked at it
	}
	return fmt.Sprintf("\t\t\tif (&reply:Reply-Message =~ /%s/) {\n\t\t\t\tupdate reply {\n\t\t\t\t\tReply-Message := %s\n\t\t\t\t}\n\t\t\t}\n", denied, quoted)
}

// users is the file of that name: an entry for each account, and one for all
// others.
func (c radiusConfig) users() (string, error) {
	var b strings.Builder
	for _, a := range c.accounts {
		if err := a.writeTo(&b); err != nil {
			return "", fmt.Errorf("account %q: %w", a.Name, err)
		}
	}
	b.WriteString("DEFAULT Auth-Type := Reject\n")
	if c.options.UnknownReply != "" {
		quoted, err := radiusQuote(c.options.UnknownReply)
		if err != nil {
			return "", fmt.Errorf("reply to unknown users: %w", err)
		}
		b.WriteString("\tReply-Message := " + quoted + "\n")
	}
	return b.String(), nil
}

// writeTo adds the account's entry to a users file: a line that names it and
// what is checked, and indented ones of what is answered.
func (a Account) writeTo(b *strings.Builder) error {
	name, err := radiusUser(a.Name)
	if err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := radiusText(a.Reject); err != nil {
		return fmt.Errorf("reject: %w", err)
	}
	switch {
	case a.Reject != "":
		text, err := radiusQuote(a.Reject)
		if err != nil {
			return fmt.Errorf("reject: %w", err)
		}
		fmt.Fprintf(b, "%s Auth-Type := Reject\n\tReply-Message := %s\n\n", name, text)
		return nil
	case a.Rejected:
		fmt.Fprintf(b, "%s Auth-Type := Reject\n\n", name)
		return nil
	}
	password, err := radiusQuote(a.Password)
	if err != nil {
		return fmt.Errorf("password: %w", err)
	}
	fmt.Fprintf(b, "%s Cleartext-Password := %s", name, password)
	if a.SessionLimit > 0 {
		fmt.Fprintf(b, ", Simultaneous-Use := %d", a.SessionLimit)
	}
	items := []string{"Service-Type = Framed-User", "Framed-Protocol = PPP"}
	if a.FramedIP.IsValid() {
		if !a.FramedIP.Is4() {
			return errors.New("framed address: not of IPv4")
		}
		items = append(items, "Framed-IP-Address = "+a.FramedIP.String())
	}
	for _, rate := range []struct {
		name string
		mbps float64
	}{{"WISPr-Bandwidth-Max-Down", a.DownMbps}, {"WISPr-Bandwidth-Max-Up", a.UpMbps}} {
		if !(rate.mbps >= 0 && rate.mbps <= 4000) { // 32 bits of bit/s
			return fmt.Errorf("rate of %v Mbit/s: not from 0 to 4000", rate.mbps)
		}
		if rate.mbps > 0 {
			items = append(items, fmt.Sprintf("%s = %d", rate.name, uint64(math.Ceil(rate.mbps*1e6))))
		}
	}
	if a.SessionTimeout > 0 {
		items = append(items, fmt.Sprintf("Session-Timeout = %d", (a.SessionTimeout+time.Second-1)/time.Second))
	}
	b.WriteString("\n\t" + strings.Join(items, ",\n\t") + "\n\n")
	return nil
}

// radiusQuote makes text a word of FreeRADIUS's files. In single quotes nothing
// is expanded.
func radiusQuote(text string) (string, error) {
	if text == "" {
		return "", errors.New("empty")
	}
	if err := radiusText(text); err != nil {
		return "", err
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'", nil
}

// radiusUser makes name the first word of an entry in a users file, in which
// FreeRADIUS undoes the quoting of quotes, but not that of backslashes.
func radiusUser(name string) (string, error) {
	if _, err := radiusQuote(name); err != nil {
		return "", err
	}
	if strings.HasSuffix(name, `\`) || strings.Contains(name, `\'`) {
		return "", errors.New("has a backslash at its end or before a quote, which FreeRADIUS can't read")
	}
	return "'" + strings.ReplaceAll(name, "'", `\'`) + "'", nil
}

// radiusTextMax is how long a text may be, in bytes: an attribute holds 253, and
// pppd's buffers less with what else is in them.
const radiusTextMax = 200

// radiusText says whether text can be an attribute and a line's part.
func radiusText(text string) error {
	if len(text) > radiusTextMax {
		return fmt.Errorf("longer than %d bytes", radiusTextMax)
	}
	if !utf8.ValidString(text) {
		return errors.New("not UTF-8")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("has a control character")
	}
	return nil
}

// RADIUSSession is a session as the accounting knows it.
type RADIUSSession struct {
	ID   string // Acct-Session-Id
	User string
	IP   netip.Addr
	MAC  string // Calling-Station-Id, as the BRAS writes it
}

// radiusSessions are the sessions that records leave open.
func radiusSessions(records string) []RADIUSSession {
	var open []RADIUSSession
	for line := range strings.Lines(records) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 5)
		if len(f) != 5 {
			continue // being written
		}
		for i, s := range open {
			if s.ID == f[1] {
				open = append(open[:i], open[i+1:]...)
				break
			}
		}
		if f[0] == "Start" || f[0] == "Interim-Update" {
			ip, _ := netip.ParseAddr(f[2])
			open = append(open, RADIUSSession{ID: f[1], IP: ip, MAC: f[3], User: f[4]})
		}
	}
	return open
}
