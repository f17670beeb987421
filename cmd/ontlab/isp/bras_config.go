package isp

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// brasFile is a file of a BRAS's configuration.
type brasFile struct {
	path string
	text string
	perm fs.FileMode
}

// files are the configuration of a BRAS whose directory is dir.
func (o *BRASOptions) files(dir string) ([]brasFile, error) {
	files := []brasFile{
		{filepath.Join(dir, "options"), o.pppdOptions(dir), 0o600},
		{filepath.Join(dir, "ip-pre-up"), brasRates, 0o700},
		{filepath.Join(dir, "ip-up"), brasEvent("up", "$4", "$5", "$PEERNAME"), 0o700},
		{filepath.Join(dir, "ipv6-up"), brasEvent("up6", "$4", "$5"), 0o700},
		{filepath.Join(dir, "ip-down"), brasEvent("down") + brasDown, 0o700},
		// It is read in any case.
		{"/etc/ppp/options", "", 0o600},
	}
	// pppd has one script of each kind per machine; which BRAS's it is, is said
	// by ipparam.
	for _, name := range []string{"ip-pre-up", "ip-up", "ipv6-up", "ip-down"} {
		script := "#!/bin/sh\n[ ! -x \"$6/" + name + "\" ] || exec \"$6/" + name + "\" \"$@\"\n"
		files = append(files, brasFile{"/etc/ppp/" + name, script, 0o700})
	}
	if o.RADIUS != nil {
		return append(files, o.radiusClientFiles(dir)...), nil
	}
	secrets, err := pppSecrets(o.Secrets)
	if err != nil {
		return nil, err
	}
	return append(files, brasFile{"/etc/ppp/pap-secrets", secrets, 0o600}, brasFile{"/etc/ppp/chap-secrets", secrets, 0o600}), nil
}

// pppdOptions is pppd's file of options.
//
// silent: the client begins, when it knows of its session.
func (o *BRASOptions) pppdOptions(dir string) string {
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	add("name %s", pppWord(o.ACName))
	add("ipparam %s", pppWord(dir))
	for _, a := range o.Auth {
		add("require-%s", a)
	}
	if o.RADIUS != nil {
		add("plugin radius.so\nradius-config-file %s", pppWord(filepath.Join(dir, "radius.conf")))
		add("plugin radattr.so")
	}
	add("lcp-echo-interval %d", max(0, (o.EchoInterval+time.Second-1)/time.Second))
	add("lcp-echo-failure %d", o.EchoFailures)
	dns := 0
	for _, a := range o.DNS {
		if a.Is4() && dns < 2 {
			add("ms-dns %s", a)
			dns++
		}
	}
	if o.MTU < 1492 {
		add("mtu %[1]d\nmru %[1]d", o.MTU)
	}
	if o.IPv6 != nil {
		add("+ipv6")
	} else {
		add("noipv6")
	}
	add("silent\nnodefaultroute\nnoproxyarp\nnoccp\nnovj\ndebug\nhide-password\nlogfile %s", pppWord(filepath.Join(dir, "pppd.log")))
	return b.String()
}

// pppWord quotes a word for pppd's files.
func pppWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// pppSecrets is a file of secrets.
func pppSecrets(accounts []Account) (string, error) {
	var b strings.Builder
	for _, a := range accounts {
		if err := errors.Join(radiusText(a.Name), radiusText(a.Password)); err != nil {
			return "", fmt.Errorf("account %q: %w", a.Name, err)
		}
		if a.Reject != "" || a.Rejected || a.SessionLimit != 0 || a.DownMbps != 0 || a.UpMbps != 0 || a.SessionTimeout != 0 {
			return "", fmt.Errorf("account %q: needs an AAA", a.Name)
		}
		address := "*"
		if a.FramedIP.IsValid() {
			address = a.FramedIP.String()
		}
		fmt.Fprintf(&b, "%s * %s %s\n", pppWord(a.Name), pppWord(a.Password), address)
	}
	return b.String(), nil
}

// radiusClientFiles are what pppd's radius.so reads.
func (o *BRASOptions) radiusClientFiles(dir string) []brasFile {
	in := func(name string) string { return filepath.Join(dir, name) }
	conf := fmt.Sprintf(`auth_order radius
login_tries 1
login_timeout 60
nologin %[1]s/nologin
issue %[1]s/issue
authserver %[2]s:%[3]d
acctserver %[2]s:%[4]d
servers %[1]s/servers
dictionary %[1]s/dictionary
login_radius /bin/false
login_local /bin/false
seqfile %[1]s/sequence
mapfile %[1]s/ports
default_realm
radius_timeout %[5]d
radius_retries %[6]d
`, dir, o.RADIUS.Server.Addr(), o.RADIUS.Server.Port(), o.RADIUS.Server.Port()+1,
		(o.RADIUS.Timeout+time.Second-1)/time.Second, o.RADIUS.Retries)
	return []brasFile{
		{in("radius.conf"), conf, 0o600},
		{in("servers"), fmt.Sprintf("%s %s\n", o.RADIUS.Server.Addr(), o.RADIUS.Secret), 0o600},
		{in("dictionary"), radiusClientDictionary, 0o600},
		{in("ports"), "", 0o600},
	}
}

// radiusClientDictionary names the attributes that radius.so sends, and those
// that it is to understand, by its own names: RFC 2865, 2866, 2869; WISPr's.
const radiusClientDictionary = `ATTRIBUTE User-Name 1 string
ATTRIBUTE Password 2 string
ATTRIBUTE CHAP-Password 3 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE NAS-Port-Id 5 integer
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Framed-Protocol 7 integer
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Framed-IP-Netmask 9 ipaddr
ATTRIBUTE Filter-Id 11 string
ATTRIBUTE Framed-MTU 12 integer
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE State 24 string
ATTRIBUTE Class 25 string
ATTRIBUTE Session-Timeout 27 integer
ATTRIBUTE Idle-Timeout 28 integer
ATTRIBUTE Called-Station-Id 30 string
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Delay-Time 41 integer
ATTRIBUTE Acct-Input-Octets 42 integer
ATTRIBUTE Acct-Output-Octets 43 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Acct-Authentic 45 integer
ATTRIBUTE Acct-Session-Time 46 integer
ATTRIBUTE Acct-Input-Packets 47 integer
ATTRIBUTE Acct-Output-Packets 48 integer
ATTRIBUTE Acct-Terminate-Cause 49 integer
ATTRIBUTE Chap-Challenge 60 string
ATTRIBUTE NAS-Port-Type 61 integer
ATTRIBUTE Connect-Info 77 string
ATTRIBUTE Acct-Interim-Interval 85 integer
VENDOR WISPr 14122
ATTRIBUTE WISPr-Bandwidth-Max-Up 7 integer WISPr
ATTRIBUTE WISPr-Bandwidth-Max-Down 8 integer WISPr
`

// pppdWrapper is what pppoe-server starts as its pppd. Debian's can't start one
// in the kernel's PPPoE by itself, which is an order of magnitude faster than
// the pppoe program; but the arguments say all that is needed:
//
//	pty "/usr/sbin/pppoe -n -I IF -e SESSION:MAC -S 'SERVICE'" file …
//
// The session is on device, not on IF, which leads to the front.
func (o *BRASOptions) pppdWrapper(dir, device string) string {
	return fmt.Sprintf(`#!/bin/sh
set -f
session= before=
for word in $2; do
	[ "$before" != -e ] || session=${session:-$word}
	before=$word
done
shift 2
printf 'start\t%%s\t%%s\n' $$ "$session" >'%[1]s/events'
[ ! -e '%[1]s/lcp-silent' ] || exec sleep 3600
exec /usr/sbin/pppd plugin pppoe.so 'nic-%[2]s' pppoe-sess "$session" "$@"
`, dir, device)
}

// brasEvent is a script of pppd's that tells the BRAS what has happened.
func brasEvent(kind string, words ...string) string {
	words = append([]string{"$PPPD_PID", "$1"}, words...)
	format := kind + strings.Repeat(`\t%s`, len(words)) + `\n`
	return "#!/bin/sh\nprintf '" + format + `' "` + strings.Join(words, `" "`) + "\" >\"$6/events\"\n"
}

// brasRates is the script that pppd waits for before a session's interface is
// up: it shapes what goes to the subscriber there, and what comes on an interface
// of its own, pppN-up. A policer would need no such thing, but lets TCP have
// half of the rate only. A burst is 10 ms of the rate, which is what a timer of
// an emulated processor may be late.
const brasRates = `#!/bin/sh
down= up=
[ ! -r "/var/run/radattr.$1" ] || while read -r name value; do
	case $name in
	WISPr-Bandwidth-Max-Down) down=$value ;;
	WISPr-Bandwidth-Max-Up) up=$value ;;
	esac
done <"/var/run/radattr.$1"
shape() {
	burst=$(($2 / 800))
	[ "$burst" -ge 8000 ] || burst=8000
	tc qdisc replace dev "$1" root tbf rate "${2}bit" burst "$burst" latency 100ms
}
problem=$({
	[ ! -e "/sys/class/net/$1-up" ] || ip link del "$1-up" # of one who died
	[ -z "$down" ] || shape "$1" "$down"
	[ -z "$up" ] || {
		ip link add "$1-up" type ifb && ip link set dev "$1-up" up && shape "$1-up" "$up" &&
			tc qdisc add dev "$1" handle ffff: ingress &&
			tc filter add dev "$1" parent ffff: protocol all prio 1 u32 match u32 0 0 \
				action mirred egress redirect dev "$1-up"
	}
} 2>&1 | tr '\n\t' '  ')
if [ -n "$problem" ]; then
	printf 'problem\t%s\t%s\t%s\n' "$PPPD_PID" "$1" "cannot set rate: $problem"
else
	printf 'rate\t%s\t%s\t%s\t%s\n' "$PPPD_PID" "$1" "$down" "$up"
fi >"$6/events"
`

// brasDown is what a session leaves to be removed, at the end of the script of
// its end.
const brasDown = `[ ! -e "/sys/class/net/$1-up" ] || ip link del "$1-up"
`
