package pppd

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of RADIUS servers at the servers' loopback.
const (
	deadRADIUS   = 1899 // nobody is there
	liveRADIUS   = 1812
	radiusSecret = "testing123"
)

// arrears is the Reply-Message for poor@isp.
const arrears = "691: account suspended"

const dictionary = `ATTRIBUTE User-Name 1 string
ATTRIBUTE Password 2 string
ATTRIBUTE CHAP-Password 3 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE NAS-Port-Id 5 integer
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Framed-Protocol 7 integer
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE Session-Timeout 27 integer
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Acct-Authentic 45 integer
ATTRIBUTE NAS-Port-Type 61 integer
ATTRIBUTE Connect-Info 77 string
`

// writeRADIUS writes the configuration of pppd's plugin.
func writeRADIUS(dir string) error {
	for name, content := range map[string]string{"dictionary": dictionary, "map": "", "clients": "localhost " + radiusSecret + "\n127.0.0.1 " + radiusSecret + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	for _, port := range []int{deadRADIUS, liveRADIUS} {
		// No one is asked twice within the ten seconds of the slow one.
		timeout, retries := 2, 1
		if port == liveRADIUS {
			timeout = 15
		}
		conf := fmt.Sprintf("auth_order radius\nlogin_tries 1\nlogin_timeout 60\nnologin /etc/nologin\nissue %[1]s/issue\nauthserver 127.0.0.1:%[2]d\nacctserver 127.0.0.1:%[3]d\n"+
			"servers %[1]s/clients\ndictionary %[1]s/dictionary\nlogin_radius /usr/sbin/login.radius\nseqfile %[1]s/seq\nmapfile %[1]s/map\ndefault_realm\nradius_timeout %[4]d\nradius_retries %[5]d\nlogin_local /bin/login\n",
			dir, port, port+1, timeout, retries)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("radius-%d.conf", port)), []byte(conf), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// serveRADIUS answers in the named network namespace until ctx ends: yes, no
// with a reason to poor@isp, yes after ten seconds to slow@isp.
func serveRADIUS(ctx context.Context, namespace string) error {
	opened := make(chan error, 1)
	var conns [2]net.PacketConn
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		f, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		for i := range conns {
			if err == nil {
				conns[i], err = new(net.ListenConfig).ListenPacket(ctx, "udp4", fmt.Sprintf("127.0.0.1:%d", liveRADIUS+i))
			}
		}
		opened <- err
	}()
	if err := <-opened; err != nil {
		return err
	}
	for i, conn := range conns {
		go func() {
			b := make([]byte, 4096)
			for {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				answer, delay := answerRADIUS(b[:n], i == 1)
				time.AfterFunc(delay, func() { conn.WriteTo(answer, from) })
			}
		}()
	}
	return nil
}

// answerRADIUS makes the answer to a request (RFC 2865, 3).
func answerRADIUS(request []byte, accounting bool) (answer []byte, delay time.Duration) {
	if len(request) < 20 {
		return nil, 0
	}
	name := ""
	for rest := request[20:]; len(rest) >= 2 && int(rest[1]) >= 2 && int(rest[1]) <= len(rest); rest = rest[rest[1]:] {
		if rest[0] == 1 {
			name = string(rest[2:rest[1]])
		}
	}
	answer = append([]byte{2, request[1], 0, 0}, request[4:20]...)
	switch {
	case accounting:
		answer[0] = 5
	case name == "poor@isp":
		answer[0] = 3
		answer = append(append(answer, 18, byte(2+len(arrears))), arrears...)
	case name == "slow@isp":
		delay = 10 * time.Second
	}
	binary.BigEndian.PutUint16(answer[2:], uint16(len(answer)))
	sum := md5.Sum(append(append([]byte{}, answer...), radiusSecret...))
	copy(answer[4:], sum[:])
	return answer, delay
}
