package mqtt

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDialSocketOptions(t *testing.T) {
	noLeaks(t)
	t.Setenv("all_proxy", "socks5://127.0.0.1:1") // must be ignored
	t.Setenv("ALL_PROXY", "socks5://127.0.0.1:1")
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(nil)
	})
	o := testOptions(s.url)
	o.Interface = "lo"
	c := mustDial(t, o)
	tcp, ok := c.guard.Conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("connection is a %T", c.guard.Conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var timeout, keepalive int
	var device string
	var errs [3]error
	err = raw.Control(func(fd uintptr) {
		timeout, errs[0] = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		keepalive, errs[1] = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		device, errs[2] = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	})
	if err != nil {
		t.Fatal(err)
	}
	if errs[0] == nil && timeout != 30000 || errs[1] != nil || keepalive != 0 || errs[2] == nil && device != "lo" {
		t.Errorf("user timeout %d ms, keepalive %d, device %q, %v", timeout, keepalive, device, errs)
	}

	o.Interface = "nosuch0"
	if _, err := Dial(testContext(t), o); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("bound to an interface that is not there: %v", err)
	}
}
