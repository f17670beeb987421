package cable_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ontagent/agent/probe/cable"
)

// data reads a file of testdata in this machine's byte order.
func data(tb testing.TB, name string) []byte {
	tb.Helper()
	order := "le"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = "be"
	}
	b, err := os.ReadFile("testdata/constructed-" + name + "." + order + ".bin")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestNotifications(t *testing.T) {
	for name, want := range map[string][]cable.Pair{
		"started":   nil,
		"ok":        {{Name: "A", Code: cable.CodeOK}, {Name: "B", Code: cable.CodeOK}, {Name: "C", Code: cable.CodeOK}, {Name: "D", Code: cable.CodeOK}},
		"two-pairs": {{Name: "A", Code: cable.CodeOK}, {Name: "B", Code: cable.CodeOK}},
		"open": {
			{Name: "A", Code: cable.CodeOK},
			{Name: "B", Code: cable.CodeOK},
			{Name: "C", Code: cable.CodeOpen, FaultM: new(12.4)},
			{Name: "D", Code: cable.CodeOpen, FaultM: new(12.3)},
		},
		"short": {
			{Name: "A", Code: cable.CodeSameShort, FaultM: new(0.8)},
			{Name: "B", Code: cable.CodeCrossShort, FaultM: new(0.8)},
			{Name: "C", Code: cable.CodeOpen, FaultM: new(12.4)},
			{Name: "D", Code: cable.CodeOK},
		},
		"mismatch": {
			{Name: "A", Code: cable.CodeMismatch, FaultM: new(33.0)},
			{Name: "B", Code: cable.CodeNoise},
			{Name: "C", Code: cable.CodeUnresolved},
			{Name: "D", Code: cable.CodeUnknown},
		},
	} {
		b := data(t, name)
		iface, completed, got, err := cable.ParseNotification(b)
		if err != nil || iface != "lan1" || completed != (name != "started") {
			t.Errorf("%s: %q, %v, %v", name, iface, completed, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		// Cut anywhere but between two attributes, it is damaged.
		for n := range b {
			_, _, pairs, err := cable.ParseNotification(b[:n])
			if err == nil && len(pairs) > 0 {
				t.Errorf("%s cut to %d: %v", name, n, pairs)
			}
		}
	}
	// A pair that no cable has, and lengths of a wrong size.
	bad := data(t, "open")
	if i := strings.Index(string(bad), "\x02\x00\x00\x00"); i > 0 {
		bad[i] = 9
	}
	if _, _, _, err := cable.ParseNotification(bad); err != nil {
		t.Error(err)
	}
}

func FuzzNotification(f *testing.F) {
	for _, name := range []string{"started", "ok", "open", "short", "mismatch"} {
		f.Add(data(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		name, _, pairs, err := cable.ParseNotification(b)
		if err == nil && (len(name) > 15 || len(pairs) > 4) {
			t.Errorf("%q, %v", name, pairs)
		}
	})
}

func TestSettings(t *testing.T) {
	for name, want := range map[string]string{
		"gigabit":      "1000 full true 1000 1000",
		"downgraded":   "100 full true 1000 1000",
		"peer-100":     "100 full true 1000 100",
		"half":         "100 half true 1000 100",
		"peer-unknown": "100 full true 1000 0",
		"2500":         "2500 full true 2500 2500",
		"port-100":     "100 full true 100 1000",
		"fixed":        "100 full false 1000 0",
		"unknown":      "0  false 0 0",
	} {
		b := data(t, "settings-"+name)
		megabits, duplex, autoneg, local, peer := cable.Settings(b)
		if got := fmt.Sprint(megabits, " ", duplex, " ", autoneg, " ", local, " ", peer); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		for n := range b {
			if _, _, _, local, peer := cable.Settings(b[:n]); local+peer > 0 {
				t.Errorf("%s cut to %d offers %d and %d", name, n, local, peer)
			}
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(data(f, "settings-gigabit"))
	f.Add(data(f, "settings-half"))
	f.Fuzz(func(t *testing.T, b []byte) {
		megabits, duplex, _, local, peer := cable.Settings(b)
		if megabits < 0 || megabits > 1_600_000 || megabits == 0 && duplex != "" || local > 10_000 || peer > 10_000 {
			t.Errorf("%d %q %d %d", megabits, duplex, local, peer)
		}
	})
}

// machine has a port lan1.
type machine struct {
	t   *testing.T
	sys string
	// settings is the name of the driver's answer in testdata.
	mu       sync.Mutex
	settings string
	fails    error
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, sys: t.TempDir(), settings: "gigabit"}
	if err := os.MkdirAll(filepath.Join(m.port(), "statistics"), 0o700); err != nil {
		t.Fatal(err)
	}
	m.set("carrier", "1")
	m.set("carrier_changes", "3")
	m.set("statistics/rx_crc_errors", "17")
	return m
}

func (m *machine) port() string { return filepath.Join(m.sys, "class/net/lan1") }

func (m *machine) set(file, text string) {
	if err := os.WriteFile(filepath.Join(m.port(), file), []byte(text+"\n"), 0o600); err != nil {
		m.t.Error(err)
	}
}

func (m *machine) driver(string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails != nil {
		return nil, m.fails
	}
	return data(m.t, "settings-"+m.settings), nil
}

func (m *machine) answer(settings string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settings = settings
}

// run watches for two seconds; meanwhile, at the first, f happens.
func (m *machine) run(o cable.Options, s *cable.Socket, f func()) (res cable.Result, took time.Duration, err error) {
	o.Interface = "lan1"
	synctest.Test(m.t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		if f != nil {
			wg.Go(func() {
				time.Sleep(time.Second)
				f()
			})
		}
		begin := time.Now()
		res, err = cable.RunOn(t.Context(), m.sys, m.driver, s, o)
		if took = time.Since(begin); took > o.Duration() {
			t.Errorf("took %v, more than %v", took, o.Duration())
		}
	})
	return res, took, err
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings string
		before   func(m *machine)
		meantime func(m *machine)
		want     cable.Outcome
	}{
		{"gigabit", "gigabit", nil, nil, cable.OK},
		{"2.5 gigabit", "2500", nil, nil, cable.OK},
		{"both could do more", "downgraded", nil, nil, cable.Downgraded},
		{"the other end can't", "peer-100", nil, nil, cable.OK},
		{"the port can't", "port-100", nil, nil, cable.OK},
		{"nobody says what the other end can", "peer-unknown", nil, nil, cable.Unsupported},
		{"fixed to less", "fixed", nil, nil, cable.Unsupported},
		{"half duplex", "half", nil, nil, cable.HalfDuplex},
		{"the driver knows nothing", "unknown", nil, nil, cable.Unsupported},
		{"the driver says nothing", "", func(m *machine) { m.fails = syscall.EOPNOTSUPP }, nil, cable.Unsupported},
		{"no link", "downgraded", func(m *machine) { m.set("carrier", "0") }, nil, cable.NoLink},
		{"errors", "gigabit", nil, func(m *machine) { m.set("statistics/rx_crc_errors", "20") }, cable.CRCErrors},
		{"errors reset", "gigabit", nil, func(m *machine) { m.set("statistics/rx_crc_errors", "0") }, cable.OK},
		{"link lost", "gigabit", nil, func(m *machine) { m.set("carrier", "0") }, cable.Unsteady},
		{"flap", "gigabit", nil, func(m *machine) { m.set("carrier_changes", "5") }, cable.Unsteady},
		{"speed changed", "gigabit", nil, func(m *machine) { m.answer("downgraded") }, cable.Unsteady},
		{
			"no counters", "gigabit", func(m *machine) {
				_ = os.Remove(filepath.Join(m.port(), "carrier_changes"))
				_ = os.Remove(filepath.Join(m.port(), "statistics/rx_crc_errors"))
			}, nil, cable.OK,
		},
	} {
		m := newMachine(t)
		m.settings = tt.settings
		if tt.before != nil {
			tt.before(m)
		}
		var f func()
		if tt.meantime != nil {
			f = func() { tt.meantime(m) }
		}
		res, took, err := m.run(cable.Options{}, nil, f)
		if err != nil || res.Outcome != tt.want || res.Test != cable.TestNotAsked || res.WatchedS != 2 || took != 2*time.Second {
			t.Errorf("%s: %+v after %v, %v", tt.name, res, took, err)
		}
		switch tt.name {
		case "errors":
			if res.CRCErrors == nil || *res.CRCErrors != 3 || *res.CRCErrorsTotal != 20 {
				t.Errorf("%+v", res)
			}
		case "errors reset":
			if res.CRCErrors != nil || *res.CRCErrorsTotal != 0 {
				t.Errorf("%+v", res)
			}
		case "flap":
			if *res.CarrierChanges != 2 || *res.CarrierChangesTotal != 5 {
				t.Errorf("%+v", res)
			}
		case "no counters":
			if res.CRCErrorsTotal != nil || res.CarrierChangesTotal != nil {
				t.Errorf("%+v", res)
			}
		case "no link":
			if res.SpeedMbps != 0 || res.Duplex != "" || res.LocalMaxMbps != 1000 {
				t.Errorf("%+v", res)
			}
		}
	}
}

const ethtool = 21 // the family's number

// kernel answers a cable test with notifications, the i-th after i+1 seconds;
// nil of them is silence.
type kernel struct {
	cable.Socket
	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{}
	answers  [][]byte
	asked    []genetlink.Message
	joined   uint32
	closed   int
	begin    time.Time
}

func newKernel(answers ...[]byte) *kernel {
	k := &kernel{answers: answers}
	k.Family = func() (genetlink.Family, error) {
		return genetlink.Family{ID: ethtool, Name: "ethtool", Groups: []genetlink.MulticastGroup{{ID: 7, Name: "monitor"}}}, nil
	}
	k.Join = func(group uint32) error {
		k.joined = group
		return nil
	}
	k.Asked = func(m genetlink.Message, family uint16, flags netlink.HeaderFlags) error {
		if family != ethtool || flags != netlink.Request|netlink.Acknowledge || k.joined != 7 {
			return fmt.Errorf("asked %d with %v", family, flags)
		}
		k.asked, k.begin = append(k.asked, m), time.Now()
		return nil
	}
	k.Deadline = func(t time.Time) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.deadline = t
		if k.changed == nil {
			k.changed = make(chan struct{}, 1)
		}
		select {
		case k.changed <- struct{}{}:
		default:
		}
		return nil
	}
	k.Closed = func() { k.closed++ }
	n := 0
	k.Next = func() ([]genetlink.Message, []netlink.Message, error) {
		if n == 0 { // the acknowledgement
			n++
			return []genetlink.Message{{}}, []netlink.Message{{Header: netlink.Header{Type: netlink.Error}}}, nil
		}
		for {
			k.mu.Lock()
			left := time.Until(k.deadline)
			k.mu.Unlock()
			if left <= 0 {
				return nil, nil, os.ErrDeadlineExceeded
			}
			var next <-chan time.Time
			if n <= len(k.answers) {
				next = time.After(time.Until(k.begin.Add(time.Duration(n) * time.Second)))
			}
			select {
			case <-next:
				b := k.answers[n-1]
				n++
				return []genetlink.Message{{Header: genetlink.Header{Command: unix.ETHTOOL_MSG_CABLE_TEST_NTF}, Data: b}},
					[]netlink.Message{{Header: netlink.Header{Type: ethtool}}}, nil
			case <-k.changed:
			case <-time.After(left):
			}
		}
	}
	return k
}

func TestCableTest(t *testing.T) {
	for _, tt := range []struct {
		answer   string
		settings string
		want     cable.Outcome
		pairs    int
	}{
		{"ok", "gigabit", cable.OK, 4},
		{"ok", "downgraded", cable.Downgraded, 4},
		{"open", "downgraded", cable.Open, 4},
		{"short", "downgraded", cable.Short, 4},
		{"mismatch", "gigabit", cable.Mismatch, 4},
		{"two-pairs", "port-100", cable.OK, 2},
	} {
		m := newMachine(t)
		m.settings = tt.settings
		others := strings.Replace(string(data(t, "short")), "lan1", "lan2", 1)
		k := newKernel(data(t, "started"), []byte(others), data(t, tt.answer))
		res, took, err := m.run(cable.Options{Disturb: true}, &k.Socket, nil)
		if err != nil || res.Outcome != tt.want || res.Test != cable.TestDone || len(res.Pairs) != tt.pairs || res.LinkBackMs == nil {
			t.Errorf("%s: %+v, %v", tt.answer, res, err)
		}
		if took != 5*time.Second || k.closed != 1 || len(k.asked) != 1 || k.asked[0].Header.Command != unix.ETHTOOL_MSG_CABLE_TEST_ACT || !strings.Contains(string(k.asked[0].Data), "lan1\x00") {
			t.Errorf("%s: after %v, asked %v", tt.answer, took, k.asked)
		}
	}
}

func TestCableTestIsNotDoneUnasked(t *testing.T) {
	m, k := newMachine(t), newKernel(data(t, "short"))
	res, _, err := m.run(cable.Options{}, &k.Socket, nil)
	if err != nil || res.Test != cable.TestNotAsked || len(k.asked) > 0 || k.joined != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestCableTestFails(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(k *kernel)
		want  error
		test  cable.Test
	}{
		"no ethtool netlink": {func(k *kernel) {
			k.Family = func() (genetlink.Family, error) { return genetlink.Family{}, fs.ErrNotExist }
		}, nil, cable.TestUnsupported},
		"no such group": {func(k *kernel) {
			k.Family = func() (genetlink.Family, error) { return genetlink.Family{ID: ethtool}, nil }
		}, nil, cable.TestUnsupported},
		"no such PHY": {func(k *kernel) { k.Next = refuse(syscall.EOPNOTSUPP) }, nil, cable.TestUnsupported},
		"not root":    {func(k *kernel) { k.Next = refuse(syscall.EPERM) }, cable.ErrNotPermitted, cable.TestNotAsked},
		"gone":        {func(k *kernel) { k.Next = refuse(syscall.ENODEV) }, cable.ErrNoInterface, cable.TestNotAsked},
		"off":         {func(k *kernel) { k.Next = refuse(syscall.ENETDOWN) }, cable.ErrInterfaceDown, cable.TestNotAsked},
		"busy":        {func(k *kernel) { k.Next = refuse(syscall.EBUSY) }, syscall.EBUSY, cable.TestNotAsked},
		"no lookup": {func(k *kernel) {
			k.Family = func() (genetlink.Family, error) { return genetlink.Family{}, syscall.EIO }
		}, syscall.EIO, cable.TestNotAsked},
		"no group": {func(k *kernel) { k.Join = func(uint32) error { return syscall.EIO } }, syscall.EIO, cable.TestNotAsked},
		"nothing sent": {func(k *kernel) {
			k.Asked = func(genetlink.Message, uint16, netlink.HeaderFlags) error { return syscall.EIO }
		}, syscall.EIO, cable.TestNotAsked},
		"never ends": {func(k *kernel) { k.answers = k.answers[:1] }, cable.ErrTestTimeout, cable.TestNotAsked},
		"damaged":    {func(k *kernel) { k.answers[1] = k.answers[1][:50] }, nil, cable.TestNotAsked},
		"no result":  {func(k *kernel) { k.answers[1] = k.answers[1][:32] }, nil, cable.TestNotAsked},
	} {
		m, k := newMachine(t), newKernel(data(t, "started"), data(t, "ok"))
		tt.spoil(k)
		res, _, err := m.run(cable.Options{Disturb: true}, &k.Socket, nil)
		switch {
		case name == "damaged", name == "no result":
			if err == nil {
				t.Errorf("%s: %+v", name, res)
			}
		case !errors.Is(err, tt.want), res.Test != tt.test, res.Outcome != cable.OK, k.closed != 1:
			t.Errorf("%s: %+v, %v, closed %d", name, res, err, k.closed)
		}
	}
}

func refuse(errno syscall.Errno) func() ([]genetlink.Message, []netlink.Message, error) {
	return func() ([]genetlink.Message, []netlink.Message, error) {
		return nil, nil, &netlink.OpError{Op: "receive", Err: os.NewSyscallError("netlink receive", errno)}
	}
}

func TestPortGoes(t *testing.T) {
	for at := 500 * time.Millisecond; at < 8*time.Second; at += 1100 * time.Millisecond {
		m, k := newMachine(t), newKernel(data(t, "started"))
		var gone time.Time
		var ended time.Time
		synctest.Test(t, func(t *testing.T) {
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				time.Sleep(at)
				gone = time.Now()
				_ = os.RemoveAll(m.port())
			})
			_, err := cable.RunOn(t.Context(), m.sys, m.driver, &k.Socket, cable.Options{Interface: "lan1", Disturb: true})
			if ended = time.Now(); !errors.Is(err, cable.ErrNoInterface) || ended.Sub(gone) > time.Second {
				t.Errorf("at %v: %v after %v", at, err, ended.Sub(gone))
			}
		})
	}
	m := newMachine(t)
	for _, name := range []string{"", ".", "..", "lan2", "../lan1", "a-name-of-sixteen"} {
		if _, err := cable.RunOn(t.Context(), m.sys, m.driver, nil, cable.Options{Interface: name}); !errors.Is(err, cable.ErrNoInterface) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestContextEndsTheRun(t *testing.T) {
	for at := time.Duration(0); at < 12*time.Second; at += 700 * time.Millisecond {
		m, k := newMachine(t), newKernel(data(t, "started"))
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), at)
			defer cancel()
			begin := time.Now()
			_, err := cable.RunOn(ctx, m.sys, m.driver, &k.Socket, cable.Options{Interface: "lan1", Disturb: true})
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != at {
				t.Errorf("%v after %v, want %v", err, took, at)
			}
		})
		if at > 2*time.Second && k.closed != 1 {
			t.Errorf("at %v: closed %d times", at, k.closed)
		}
	}
}

// The kernel's own answers, as far as a virtual cable gives any.
func TestKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: namespaces are left out with -short")
	}
	switch runtime.GOARCH {
	case "amd64", "386", "arm64":
	default:
		t.Skip("needs a kernel of its own kind")
	}
	unable := t.Skipf
	if os.Getenv("CI") == "true" {
		unable = t.Fatalf
	}
	if _, err := exec.LookPath("ip"); err != nil {
		unable("needs the ip tool: %v", err)
	}
	problem := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("sysfs", "/sys", "sysfs", 0, "")
		}
		if err != nil {
			problem <- err
			return
		}
		defer close(problem)
		ip := func(args string) {
			if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", args, err, out)
			}
		}
		o := cable.Options{Interface: "lan1", Watch: 300 * time.Millisecond, Disturb: true}
		if _, err := cable.Run(t.Context(), o); !errors.Is(err, cable.ErrNoInterface) {
			t.Errorf("none: %v", err)
		}
		ip("link add lan1 type veth peer name far")
		if _, err := cable.Run(t.Context(), o); !errors.Is(err, cable.ErrInterfaceDown) {
			t.Errorf("off: %v", err)
		}
		ip("link set lan1 up")
		if res, err := cable.Run(t.Context(), o); err != nil || res.Outcome != cable.NoLink || res.Test != cable.TestUnsupported {
			t.Errorf("%+v, %v", res, err)
		}
		ip("link set far up")
		res, err := cable.Run(t.Context(), o)
		if err != nil || res.Outcome != cable.OK || res.SpeedMbps != 10_000 || res.Duplex != "full" || !res.Carrier || res.CRCErrorsTotal == nil || res.CarrierChangesTotal == nil || res.Test != cable.TestUnsupported {
			t.Errorf("%+v, %v", res, err)
		}
	}()
	if err := <-problem; err != nil {
		unable("needs root: cannot make namespaces: %v", err)
	}
}
