package linux

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// proc makes a system with processes: "NAME ARGUMENTS" by pid.
func proc(t *testing.T, processes map[int]string, more map[string]string) string {
	t.Helper()
	files := map[string]string{"proc/version": "Linux\n"}
	for pid, line := range processes {
		name, _, _ := strings.Cut(line, " ")
		files[fmt.Sprintf("proc/%d/comm", pid)] = name + "\n"
		files[fmt.Sprintf("proc/%d/cmdline", pid)] = strings.ReplaceAll(line, " ", "\x00") + "\x00"
	}
	maps.Copy(files, more)
	return tree(t, files)
}

func TestFindPPPD(t *testing.T) {
	for name, tc := range map[string]struct {
		processes map[int]string
		files     map[string]string
		want      int
	}{
		"none":               {map[int]string{9: "sh -c pppd"}, nil, 0},
		"the only one":       {map[int]string{9: "pppd call isp", 10: "dropbear"}, nil, 9},
		"by its pid file":    {map[int]string{9: "pppd a", 10: "pppd b"}, map[string]string{"run/ppp0.pid": "10\n"}, 10},
		"by the link's name": {map[int]string{9: "pppd a", 10: "pppd b"}, map[string]string{"var/run/ppp-wan.pid": "9\nppp0\n"}, 9},
		"by its arguments":   {map[int]string{9: "pppd ifname ppp1", 10: "pppd nodetach ifname ppp0"}, nil, 10},
		"of two that say nothing none": {
			map[int]string{9: "pppd a", 10: "pppd b"}, nil, 0,
		},
		"a pid file that names another program": {
			map[int]string{9: "pppd a", 10: "pppd b", 11: "mosquitto"}, map[string]string{"run/ppp0.pid": "11\n"}, 0,
		},
		"the only one, of another interface": {
			map[int]string{9: "pppd nodetach ifname ppp1"}, nil, 0,
		},
		"the only one, whose pid file names another interface": {
			map[int]string{9: "pppd call isp"}, map[string]string{"run/ppp1.pid": "9\n", "sys/class/net/ppp1/type": "512\n"}, 0,
		},
		"the only one, with a stale pid file": {
			map[int]string{9: "pppd call isp"}, map[string]string{"run/ppp1.pid": "9\n", "sys/class/net/ppp0/type": "512\n"}, 9,
		},
		"the only one, of an interface that is none of PPP's": {
			map[int]string{9: "pppd call isp"}, map[string]string{"sys/class/net/ppp0/type": "1\n"}, 0,
		},
		"the only one, over that interface": {
			map[int]string{9: "pppd plugin rp-pppoe.so nic-ppp0 ifname pppoe-wan"}, map[string]string{"sys/class/net/ppp0/type": "1\n"}, 9,
		},
		"the only one, by a program over that interface": {
			map[int]string{9: "pppd pty -I\tppp0"}, map[string]string{"sys/class/net/ppp0/type": "1\n"}, 9,
		},
		"hostile pid files": {
			map[int]string{9: "pppd a", 10: "pppd b"},
			map[string]string{"run/ppp0.pid": "-1\n", "run/ppp-x.pid": "1\nppp0\n", "run/ppp-y.pid": "10", "run/ppp-z.pid": "\x00"},
			0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := FindPPPD(proc(t, tc.processes, tc.files), "ppp0")
			if c.PID != tc.want || (err != nil) != (tc.want == 0) || err != nil && !errors.Is(err, ErrNoClient) {
				t.Errorf("%+v, %v; want %d", c, err, tc.want)
			}
		})
	}
}

func TestPPPDOfAnotherNetworkDoesNotCount(t *testing.T) {
	root := proc(t, map[int]string{9: "pppd server", 10: "pppd client"}, nil)
	for pid, ns := range map[string]string{"self": "net:[1]", "9": "net:[2]", "10": "net:[1]"} {
		dir := filepath.Join(root, "proc", pid, "ns")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(ns, filepath.Join(dir, "net"))); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := FindPPPD(root, "ppp0"); err != nil || c.PID != 10 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestPPPDComesBack(t *testing.T) {
	for name, tc := range map[string]struct {
		args  string
		files map[string]string
		want  bool
	}{
		"as netifd runs it":      {"pppd nodetach ipparam wan ifname pppoe-wan persist maxfail 1", nil, true},
		"by hand":                {"pppd pty pppoe", nil, false},
		"in its peer's file":     {"pppd call isp", map[string]string{"etc/ppp/peers/isp": "user x\npersist\n"}, true},
		"in a file it names":     {"pppd file /etc/isp.conf", map[string]string{"etc/isp.conf": "# persist\ndemand\n"}, true},
		"in everybody's options": {"pppd", map[string]string{"etc/ppp/options": "persist # always\n"}, true},
		"in a comment":           {"pppd call isp", map[string]string{"etc/ppp/peers/isp": "#persist\n"}, false},
		"a user of that name":    {"pppd user persist password demand", nil, false},
		"a peer out of its dir":  {"pppd call ../../isp", map[string]string{"isp": "persist"}, false},
	} {
		root := proc(t, map[int]string{9: tc.args}, tc.files)
		c, err := FindPPPD(root, "")
		if err != nil || c.Comes(root) != tc.want {
			t.Errorf("%s: comes = %v, %v", name, c.Comes(root), err)
		}
	}
}

func TestFindUDHCPC(t *testing.T) {
	for name, tc := range map[string]struct {
		processes map[int]string
		want      int
		why       string
	}{
		"as netifd runs it":   {map[int]string{9: "udhcpc -p /var/run/udhcpc-wan.pid -s x -f -t 0 -i eth1 -C"}, 9, ""},
		"joined":              {map[int]string{9: "udhcpc -ieth1"}, 9, ""},
		"in words":            {map[int]string{9: "udhcpc --interface=eth1"}, 9, ""},
		"in words, apart":     {map[int]string{9: "udhcpc --interface eth1"}, 9, ""},
		"as BusyBox":          {map[int]string{9: "busybox udhcpc -f -i eth1"}, 9, ""},
		"of the right one":    {map[int]string{9: "udhcpc -i eth0", 10: "udhcpc -i eth1"}, 10, ""},
		"only of another":     {map[int]string{9: "udhcpc -i eth0"}, 0, "no udhcpc"},
		"only another applet": {map[int]string{9: "busybox sh udhcpc -i eth1"}, 0, "no udhcpc"},
		"dhclient":            {map[int]string{9: "dhclient eth1"}, 0, "started anew"},
		"dhcpcd":              {map[int]string{9: "dhcpcd eth1"}, 0, "version"},
		"nothing":             {nil, 0, "no udhcpc"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := FindUDHCPC(proc(t, tc.processes, nil), "eth1")
			if c.PID != tc.want || (err != nil) != (tc.want == 0) {
				t.Errorf("%+v, %v; want %d", c, err, tc.want)
			}
			if err != nil && (!errors.Is(err, ErrNoClient) || !strings.Contains(err.Error(), tc.why)) {
				t.Errorf("why: %v", err)
			}
		})
	}
}

// startAs starts this test binary as a program of another name, which prints
// the signals that it gets.
func startAs(t *testing.T, name string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	if emulated() {
		t.Skip("under user-mode emulation a program has the emulator's name")
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(file, self)
	if err := errors.Join(err, file.Close(), self.Close()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "ONTAGENT_TEST_PROGRAM=signals")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd, lines
}

func signalsProgram() int {
	got := make(chan os.Signal, 4)
	signal.Notify(got, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	fmt.Fprintln(os.Stdout, "ready")
	for {
		select {
		case s := <-got:
			fmt.Fprintln(os.Stdout, s)
		case <-time.After(time.Minute):
			return 0 // whoever started it is gone
		}
	}
}

func TestSignal(t *testing.T) {
	cmd, lines := startAs(t, "pppd", "ifname", "ppp77", "nodetach")
	c, err := FindPPPD("/", "ppp77")
	if err != nil || c.PID != cmd.Process.Pid || c.Interface != "ppp77" || !c.Comes("/") {
		t.Fatalf("%+v, %v; want %d", c, err, cmd.Process.Pid)
	}
	if err := c.Signal("/", unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); line != "hangup\n" {
		t.Errorf("it got %q, %v", line, err)
	}
	// A number that is another program's by now.
	c.PID = os.Getpid()
	if err := c.Signal("/", unix.SIGKILL); !errors.Is(err, ErrNoClient) {
		t.Fatalf("signalled a stranger: %v", err)
	}
	c.PID = cmd.Process.Pid
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := c.Signal("/", unix.SIGHUP); err == nil {
		t.Error("signalled what is gone")
	}
}

func TestTraffic(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/class/net/wan0/statistics/rx_packets": "10\n", "sys/class/net/wan0/statistics/tx_packets": "10\n",
		"sys/class/net/wan0/statistics/rx_bytes": "junk\n",
	})
	if _, err := WatchTraffic(t.Context(), root, "wan0", 0); err == nil {
		t.Error("counted junk")
	}
	if got, err := WatchTraffic(t.Context(), root, "gone", 0); err != nil || got.Used() {
		t.Errorf("an interface that is not there: %+v, %v", got, err)
	}
	for _, name := range []string{"", "../wan0"} {
		if _, err := WatchTraffic(t.Context(), root, name, 0); err == nil {
			t.Errorf("%q was counted", name)
		}
	}
	for name, tc := range map[string]struct {
		t    Traffic
		want bool
	}{
		"a film":         {Traffic{RxPackets: 3000, TxPackets: 900, RxBytes: 4e6}, true},
		"keepalives":     {Traffic{RxPackets: 2, TxPackets: 2, RxBytes: 200}, false},
		"only noise":     {Traffic{RxPackets: 100, TxPackets: 0, RxBytes: 6000}, false},
		"no answers":     {Traffic{RxPackets: 0, TxPackets: 60}, false},
		"small and many": {Traffic{RxPackets: 20, TxPackets: 20, RxBytes: 1200}, false},
	} {
		if tc.t.Used() != tc.want {
			t.Errorf("%s: %v is used: %v", name, tc.t, tc.t.Used())
		}
	}
}
