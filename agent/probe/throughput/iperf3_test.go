package throughput

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// iperf3Fake is a server whose words a test chooses.
type iperf3Fake struct {
	l       *net.TCPListener
	control *net.TCPConn
	streams []*net.TCPConn
	ended   chan struct{}
	// cut is how many bytes are said until it falls silent for good by closing
	// the control connection; -1: it never does.
	cut int
}

// fakeIperf3 starts a server that does what script says, on a goroutine of its
// own. An error of its connections ends it: the script panics with errFakeEnd.
func fakeIperf3(t *testing.T, script func(f *iperf3Fake)) *iperf3Fake {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f := &iperf3Fake{l: l, ended: make(chan struct{}), cut: -1}
	go func() {
		defer close(f.ended)
		defer func() {
			f.shut()
			r := recover()
			if err, ok := r.(error); r != nil && (!ok || !errors.Is(err, errFakeEnd)) {
				panic(r)
			}
		}()
		script(f)
	}()
	t.Cleanup(f.stop)
	return f
}

var errFakeEnd = errors.New("the client is gone")

func (f *iperf3Fake) stop() {
	_ = f.l.Close()
	<-f.ended
}

func (f *iperf3Fake) shut() {
	for _, c := range append(f.streams, f.control) {
		if c != nil {
			_ = c.Close()
		}
	}
	f.streams, f.control = nil, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(errFakeEnd)
	}
	return v
}

func (f *iperf3Fake) accept() *net.TCPConn {
	c := must(f.l.AcceptTCP())
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	must(io.ReadFull(c, make([]byte, iperf3CookieBytes)))
	return c
}

// say sends states, or anything else.
func (f *iperf3Fake) say(states ...iperf3State) {
	for _, s := range states {
		f.write([]byte{byte(s)})
	}
}

func (f *iperf3Fake) write(b []byte) {
	if f.cut < 0 || f.cut >= len(b) {
		must(f.control.Write(b))
		f.cut = max(f.cut-len(b), min(f.cut, 0))
		return
	}
	must(f.control.Write(b[:f.cut]))
	panic(errFakeEnd)
}

// hear reads a state, and ends if it is another one.
func (f *iperf3Fake) hear(want iperf3State) {
	var b [1]byte
	must(io.ReadFull(f.control, b[:]))
	if iperf3State(b[0]) != want {
		panic(fmt.Sprintf("the client says %v, not %v", iperf3State(b[0]), want))
	}
}

func (f *iperf3Fake) hearJSON() []byte { return must(readIperf3JSON(f.control)) }

func (f *iperf3Fake) sayJSON(text string) {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	f.write(append(b, text...))
}

// sayError says SERVER_ERROR with its two numbers.
func (f *iperf3Fake) sayError(number, errno uint32) {
	f.say(iperf3ServerError)
	b := binary.BigEndian.AppendUint32(nil, number)
	must(f.control.Write(binary.BigEndian.AppendUint32(b, errno)))
}

// rest waits for the client to close the control connection.
func (f *iperf3Fake) rest() { _, _ = io.Copy(io.Discard, f.control) }

func (f *iperf3Fake) reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// These lead to where their name says.

func (f *iperf3Fake) toParams() { f.control = f.accept() }

func (f *iperf3Fake) toCreate() {
	f.toParams()
	f.say(iperf3ParamExchange)
	f.hearJSON()
}

func (f *iperf3Fake) toStart() {
	f.toCreate()
	f.say(iperf3CreateStreams)
	f.streams = []*net.TCPConn{f.accept(), f.accept()}
}

func (f *iperf3Fake) toRunning() {
	f.toStart()
	f.say(iperf3TestStart, iperf3TestRunning)
}

func (f *iperf3Fake) toEnd() {
	f.toRunning()
	f.hear(iperf3TestEnd)
}

func (f *iperf3Fake) toResults() {
	f.toEnd()
	f.say(iperf3ExchangeResults)
	f.hearJSON()
}

// iperf3Good is what a server counts; the text of the second stream is as cJSON
// writes large numbers.
const iperf3Good = `{"cpu_util_total":1.5,"cpu_util_user":1,"cpu_util_system":0.5,"sender_has_retransmits":-1,"congestion_used":"server's",` +
	`"streams":[{"id":1,"bytes":1000,"retransmits":-1,"jitter":0,"errors":0,"packets":0,"start_time":0,"end_time":1.000088},{"id":3,"bytes":1.2e+10}]}`

func (f *iperf3Fake) toDisplay() {
	f.toResults()
	f.sayJSON(iperf3Good)
}

func (f *iperf3Fake) good() {
	f.toDisplay()
	f.say(iperf3DisplayResults)
	f.hear(iperf3Done)
}

// session returns one with two streams to the server, that waits no longer than
// so long.
func (f *iperf3Fake) session(dir Direction, wait time.Duration) *iperf3 {
	to, _ := netip.ParseAddrPort(f.l.Addr().String())
	s := newIperf3(&Options{Connections: 2, WarmUp: 4 * time.Second, Window: 10 * time.Second}, dir, iperf3Dial(to))
	s.wait, s.pause, s.parting = wait, time.Millisecond, wait
	return s
}

// iperf3Open is how many descriptors and goroutines there are.
func iperf3Open(t *testing.T) [2]int {
	t.Helper()
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err != nil { // the first one opens the poller
		t.Fatal(err)
	} else if err = l.Close(); err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return [2]int{len(fds), runtime.NumGoroutine()}
}

// iperf3NothingLeft fails if there are more of them than before. What was ended
// may need a moment.
func iperf3NothingLeft(t *testing.T, before [2]int) {
	t.Helper()
	var now [2]int
	for range 200 {
		if now = iperf3Open(t); now[0] <= before[0] && now[1] <= before[1] {
			return
		}
		time.Sleep(5 * time.Millisecond) // the runtime says nothing
	}
	t.Errorf("%d descriptors and %d goroutines before, %d and %d after", before[0], before[1], now[0], now[1])
}

func TestIperf3OpenRefused(t *testing.T) {
	const long = time.Minute // never waited for
	silent := func(due iperf3State) string {
		return fmt.Sprintf("the server said nothing for 30ms, where %v was due", due)
	}
	for _, c := range []struct {
		name   string
		wait   time.Duration
		script func(f *iperf3Fake)
		want   string
	}{
		{"params: silent", 0, func(f *iperf3Fake) { f.toParams(); f.rest() }, silent(iperf3ParamExchange)},
		{"params: closed", long, func(f *iperf3Fake) {
			for {
				f.toParams()
				_ = f.control.Close()
			}
		}, "the server closed the control connection, where PARAM_EXCHANGE was due"},
		{"params: reset", long, func(f *iperf3Fake) {
			for {
				f.toParams()
				f.reset(f.control)
			}
		}, "the control connection was reset, where PARAM_EXCHANGE was due"},
		{"params: busy", long, func(f *iperf3Fake) {
			for {
				f.toParams()
				f.say(iperf3AccessDenied)
				_ = f.control.Close()
			}
		}, "the server is busy running a test"},
		{"params: SSH", long, func(f *iperf3Fake) {
			f.toParams()
			must(f.control.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")))
			f.rest()
		}, "no iperf3 server: it answers with byte 0x53"},
		{"params: HTTP", long, func(f *iperf3Fake) {
			f.toParams()
			must(f.control.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")))
			f.rest()
		}, "no iperf3 server: it answers with byte 0x48"},
		{"params: stopped", long, func(f *iperf3Fake) { f.toParams(); f.say(iperf3ServerTerminate); f.rest() }, "the server was stopped"},

		{"create: silent", 0, func(f *iperf3Fake) { f.toCreate(); f.rest() }, silent(iperf3CreateStreams)},
		{"create: closed", long, func(f *iperf3Fake) { f.toCreate() }, "the server closed the control connection, where CREATE_STREAMS was due"},
		{"create: reset", long, func(f *iperf3Fake) { f.toCreate(); f.reset(f.control) }, "the control connection was reset, where CREATE_STREAMS was due"},
		{"create: denied", long, func(f *iperf3Fake) { f.toCreate(); f.say(iperf3AccessDenied); f.rest() }, "the server denied access"},
		{"create: auth", long, func(f *iperf3Fake) { f.toCreate(); f.sayError(142, 0); f.rest() }, "the server wants a user and a password"},
		{"create: auth, without errno", long, func(f *iperf3Fake) {
			f.toCreate()
			f.say(iperf3ServerError)
			must(f.control.Write([]byte{0, 0, 0, 142}))
			f.rest()
		}, "the server wants a user and a password"},
		{"create: rate", long, func(f *iperf3Fake) { f.toCreate(); f.sayError(27, 0); f.rest() }, "the server limits the rate, and a test without a limit is above it"},
		{"create: time", long, func(f *iperf3Fake) { f.toCreate(); f.sayError(37, 0); f.rest() }, "the server allows no test as long as 19 s"},
		{"create: error", long, func(f *iperf3Fake) { f.toCreate(); f.sayError(202, 98); f.rest() }, "the server reports its error 202, errno 98"},
		{"create: error, cut", long, func(f *iperf3Fake) {
			f.toCreate()
			f.say(iperf3ServerError)
			must(f.control.Write([]byte{0, 0, 0, 202, 0}))
		}, "the server reports its error 202"},
		{"create: error, and not which", long, func(f *iperf3Fake) {
			f.toCreate()
			f.say(iperf3ServerError)
			must(f.control.Write([]byte{0, 0, 0}))
		}, "the server reports an error, and not which"},
		{"create: error, silent", 0, func(f *iperf3Fake) { f.toCreate(); f.say(iperf3ServerError); f.rest() }, "the server reports an error, and not which"},
		{"create: another state", long, func(f *iperf3Fake) { f.toCreate(); f.say(iperf3TestRunning); f.rest() }, "the server said TEST_RUNNING where CREATE_STREAMS was due"},
		{"create: an unknown state", long, func(f *iperf3Fake) { f.toCreate(); f.say(99); f.rest() }, "the server said state 99 where CREATE_STREAMS was due"},

		{"start: gone", long, func(f *iperf3Fake) {
			f.toCreate()
			_ = f.l.Close()
			f.say(iperf3CreateStreams)
			f.rest()
		}, "stream 1 of 2: cannot connect to ADDRESS: connect: connection refused"},
		{"start: silent", 0, func(f *iperf3Fake) { f.toStart(); f.rest() }, silent(iperf3TestStart)},
		{"start: closed", long, func(f *iperf3Fake) { f.toStart() }, "the server closed the control connection, where TEST_START was due"},
		{"start: reset", long, func(f *iperf3Fake) { f.toStart(); f.reset(f.control) }, "the control connection was reset, where TEST_START was due"},
		{"start: stopped", long, func(f *iperf3Fake) { f.toStart(); f.say(iperf3ServerTerminate); f.rest() }, "the server was stopped"},
		{"start: another server for a stream", 0, func(f *iperf3Fake) {
			f.toStart()
			must(f.streams[1].Write([]byte{byte(iperf3ParamExchange)}))
			f.rest()
		}, "a stream reached another server than the control connection: it says PARAM_EXCHANGE"},
		{"start: stream denied", 0, func(f *iperf3Fake) {
			f.toStart()
			must(f.streams[0].Write([]byte{0xff}))
			_ = f.streams[0].Close()
			f.rest()
		}, "a stream reached another server than the control connection: it says ACCESS_DENIED"},

		{"running: silent", 0, func(f *iperf3Fake) { f.toStart(); f.say(iperf3TestStart); f.rest() }, silent(iperf3TestRunning)},
		{"running: closed", long, func(f *iperf3Fake) { f.toStart(); f.say(iperf3TestStart) }, "the server closed the control connection, where TEST_RUNNING was due"},
		{"running: reset", long, func(f *iperf3Fake) {
			f.toStart()
			f.say(iperf3TestStart)
			f.reset(f.control)
		}, "the control connection was reset, where TEST_RUNNING was due"},
		{"running: error", long, func(f *iperf3Fake) { f.toStart(); f.say(iperf3TestStart); f.sayError(400, 11); f.rest() }, "the server reports its error 400, errno 11"},
		{"running: started twice", long, func(f *iperf3Fake) { f.toStart(); f.say(iperf3TestStart, iperf3TestStart); f.rest() }, "the server said TEST_START where TEST_RUNNING was due"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := iperf3Open(t)
			f := fakeIperf3(t, c.script)
			if c.wait == 0 {
				c.wait = 30 * time.Millisecond
			}
			s := f.session(Up, c.wait)
			streams, err := s.open(t.Context())
			want := "cannot begin a test with iperf3: " + strings.ReplaceAll(c.want, "ADDRESS", f.l.Addr().String())
			if strings.HasSuffix(want, "refused") && foreignErrno(t) {
				want, _, _ = strings.Cut(want, "connection refused")
				want += "errno 111"
			}
			if err == nil || err.Error() != want || streams != nil {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if count := s.close(t.Context()); count != nil {
				t.Errorf("counted %+v", count)
			}
			f.stop()
			iperf3NothingLeft(t, before)
		})
	}
}

// foreignErrno reports whether a failed connection is told by the number that
// another kind of processor has for it: so does an emulation of MIPS.
func foreignErrno(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, err = net.Dial("tcp", l.Addr().String())
	return errors.Is(err, syscall.Errno(111)) && syscall.ECONNREFUSED != 111
}

func TestIperf3Refused(t *testing.T) {
	if foreignErrno(t) {
		t.Skip("a refusal is not told as one")
	}
	f := fakeIperf3(t, func(*iperf3Fake) {})
	f.stop()
	s := f.session(Down, time.Second)
	dials := 0
	dial := s.dial
	s.dial = func(ctx context.Context) (*stream, error) {
		dials++
		return dial(ctx)
	}
	_, err := s.open(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "connection refused") || dials != iperf3Tries {
		t.Errorf("%v after %d tries", err, dials)
	}
	both := iperf3Dial(netip.MustParseAddrPort(f.l.Addr().String()))
	s.dial = func(ctx context.Context) (*stream, error) { // a name with two addresses
		dials++
		_, a := both(ctx)
		_, b := both(ctx)
		return nil, joined([]error{a, b})
	}
	dials = 0
	if _, err = s.open(t.Context()); err == nil || dials != iperf3Tries {
		t.Errorf("%v after %d tries", err, dials)
	}
	s.dial = func(context.Context) (*stream, error) {
		dials++
		return nil, os.ErrPermission
	}
	dials = 0
	if _, err = s.open(t.Context()); !errors.Is(err, os.ErrPermission) || dials != 1 {
		t.Errorf("%v after %d tries", err, dials)
	}
}

// A server that has just ended another test refuses, resets or is busy.
func TestIperf3ComesBack(t *testing.T) {
	f := fakeIperf3(t, func(f *iperf3Fake) {
		f.toParams()
		f.say(iperf3AccessDenied)
		_ = f.control.Close()
		f.toParams()
		f.reset(f.control)
		f.good()
	})
	s := f.session(Up, time.Second)
	if _, err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if count := s.close(t.Context()); count == nil || s.problem != nil {
		t.Errorf("%+v, %v", count, s.problem)
	}
}

func TestIperf3Conversation(t *testing.T) {
	for _, dir := range []Direction{Down, Up} {
		t.Run(string(dir), func(t *testing.T) {
			before := iperf3Open(t)
			var params, results []byte
			cookies := make([][]byte, 3)
			f := fakeIperf3(t, func(f *iperf3Fake) {
				for i := range cookies {
					c := must(f.l.AcceptTCP())
					_ = c.SetDeadline(time.Now().Add(10 * time.Second))
					cookies[i] = make([]byte, iperf3CookieBytes)
					must(io.ReadFull(c, cookies[i]))
					if i > 0 {
						f.streams = append(f.streams, c)
						continue
					}
					f.control = c
					f.say(iperf3ParamExchange)
					params = f.hearJSON()
					f.say(iperf3CreateStreams)
				}
				f.say(iperf3TestStart, iperf3TestRunning)
				for i, c := range f.streams {
					if dir == Down {
						must(c.Write(make([]byte, 1000*(i+1))))
					} else {
						must(io.ReadFull(c, make([]byte, 1000*(i+1))))
					}
				}
				f.hear(iperf3TestEnd)
				f.say(iperf3ExchangeResults)
				results = f.hearJSON()
				f.sayJSON(iperf3Good)
				f.say(iperf3DisplayResults)
				f.hear(iperf3Done)
			})
			s := f.session(dir, 5*time.Second)
			streams, err := s.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, st := range streams {
				if dir == Down {
					_, err = io.ReadFull(st.conn, make([]byte, 1000*(i+1)))
				} else {
					_, err = st.conn.Write(make([]byte, 1000*(i+1)))
				}
				if err != nil {
					t.Fatal(err)
				}
				if st.raw == nil || st.limit != 0 || st.early != 0 || st.next != nil || st.requested.Before(st.connected) {
					t.Errorf("%+v", st)
				}
			}
			counts := kernelCounts(streams[0])
			for st := streams[1]; dir == Up && counts && st.moved(false) < 2000; { // until it is acknowledged
				runtime.Gosched()
			}
			sender := "server's"
			if dir == Up {
				sender = congestionControl(streams[0])
			}
			start := time.Now()
			count := s.close(t.Context())
			if s.problem != nil || count == nil || *count != (serverCount{bytes: 12000001000, congestionControl: sender}) {
				t.Errorf("%+v, %v", count, s.problem)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("the end took %v", took)
			}
			f.stop()
			iperf3NothingLeft(t, before)

			if !bytes.Equal(cookies[0], cookies[1]) || !bytes.Equal(cookies[0], cookies[2]) || bytes.IndexByte(cookies[0], 0) != 36 {
				t.Errorf("cookies %q", cookies)
			}
			want := `{"tcp":true,"omit":0,"time":19,"num":0,"blockcount":0,"parallel":2,"reverse":true,"len":131072,"pacing_timer":1000,"client_version":"3.12"}`
			if dir == Up {
				want = strings.Replace(want, `"reverse":true,`, "", 1)
			}
			if diff := cmp.Diff(want, string(params)); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
			var got struct {
				CPU     *float64 `json:"cpu_util_total"`
				User    *float64 `json:"cpu_util_user"`
				System  *float64 `json:"cpu_util_system"`
				Has     *int     `json:"sender_has_retransmits"`
				Streams []map[string]float64
			}
			if err := json.Unmarshal(results, &got); err != nil {
				t.Fatalf("%v: %s", err, results)
			}
			if got.CPU == nil || got.User == nil || got.System == nil || got.Has == nil || len(got.Streams) != 2 {
				t.Fatalf("results: %s", results)
			}
			for i, st := range got.Streams {
				if st["end_time"] <= 0 {
					t.Errorf("results: %s", results)
				}
				delete(st, "end_time")
				want := map[string]float64{
					"id": float64(1 + 2*i), "bytes": float64(1000 * (i + 1)), "retransmits": -1, "jitter": 0, "errors": 0, "packets": 0, "start_time": 0,
				}
				if !counts {
					want["bytes"] = 0
				}
				if diff := cmp.Diff(want, st); diff != "" {
					t.Errorf("results of stream %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// kernelCounts reports whether the kernel counts a connection's bytes. An
// emulated one may not.
func kernelCounts(s *stream) (ok bool) {
	_ = s.raw.Control(func(fd uintptr) {
		var t tcpInfo
		readInfo(fd, &t)
		_, ok = t.u64(infoReceived)
	})
	return ok
}

func TestIperf3Cookies(t *testing.T) {
	a, b := newIperf3Cookie(), newIperf3Cookie()
	if a == b || slices.ContainsFunc(a[:36], func(c byte) bool { return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", rune(c)) }) {
		t.Errorf("%q, %q", a, b)
	}
}

func TestIperf3StreamIDs(t *testing.T) {
	b := iperf3Count(true, []uint64{7, 8, 9, 10}, time.Second)
	var got []string
	for _, part := range strings.Split(string(b), `{"id":`)[1:] {
		id, _, _ := strings.Cut(part, ",")
		got = append(got, id)
	}
	if diff := cmp.Diff([]string{"1", "3", "4", "5"}, got); diff != "" {
		t.Error(diff)
	}
	if n := binary.BigEndian.Uint32(b); int(n) != len(b)-4 {
		t.Errorf("length %d of %d", n, len(b)-4)
	}
}

// A server that is sending while it should listen is heard out.
func TestIperf3DrainsAtTheEnd(t *testing.T) {
	const more = 24 << 20 // more than buffers hold
	f := fakeIperf3(t, func(f *iperf3Fake) {
		f.toEnd()
		for _, c := range f.streams {
			must(c.Write(make([]byte, more)))
		}
		f.say(iperf3ExchangeResults)
		f.hearJSON()
		f.sayJSON(iperf3Good)
		f.say(iperf3DisplayResults)
		f.hear(iperf3Done)
	})
	s := f.session(Down, 5*time.Second)
	streams, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range streams { // as a pump may leave them
		_ = st.conn.SetReadDeadline(time.Unix(1, 0))
	}
	if count := s.close(t.Context()); count == nil || s.problem != nil {
		t.Errorf("%+v, %v", count, s.problem)
	}
}

// What the server says, or doesn't, while the test runs ends the streams at
// once, and has a name.
func TestIperf3LostWhileRunning(t *testing.T) {
	for _, c := range []struct {
		name   string
		script func(f *iperf3Fake)
		want   string
	}{
		{"closed", func(f *iperf3Fake) { _ = f.control.CloseWrite(); f.rest() }, "the server closed the control connection"},
		{"reset", func(f *iperf3Fake) { f.reset(f.control) }, "the control connection was reset"},
		{"stopped", func(f *iperf3Fake) { f.say(iperf3ServerTerminate); f.rest() }, "the server was stopped"},
		{"stopped, newly", func(f *iperf3Fake) { f.sayError(120, 0); f.rest() }, "the server was stopped"},
		{"error", func(f *iperf3Fake) { f.sayError(206, 104); f.rest() }, "the server reports its error 206, errno 104"},
		{"rate", func(f *iperf3Fake) { f.sayError(27, 0); f.rest() }, "the server limits the rate, and a test without a limit is above it"},
		{"time", func(f *iperf3Fake) { f.sayError(160, 0); f.rest() }, "the server's time for a test is over"},
		{"error, cut", func(f *iperf3Fake) { f.say(iperf3ServerError) }, "the server reports an error, and not which"},
		{"another state", func(f *iperf3Fake) { f.say(iperf3ExchangeResults); f.rest() }, "the server said EXCHANGE_RESULTS where TEST_END was due"},
		{"denied", func(f *iperf3Fake) { f.say(iperf3AccessDenied); f.rest() }, "the server denied access"},
	} {
		for _, dir := range []Direction{Down, Up} {
			t.Run(c.name+", "+string(dir), func(t *testing.T) {
				before := iperf3Open(t)
				f := fakeIperf3(t, func(f *iperf3Fake) {
					f.toRunning()
					streams := f.streams
					f.streams = nil // they stay open
					c.script(f)
					f.streams = streams
					for _, st := range streams {
						_, _ = io.Copy(io.Discard, st)
					}
				})
				s := f.session(dir, 5*time.Second)
				streams, err := s.open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, st := range streams {
					_ = st.conn.SetDeadline(time.Now().Add(3 * time.Second))
					if dir == Down {
						_, err = st.conn.Read(make([]byte, 1))
					} else {
						for err == nil {
							_, err = st.conn.Write(make([]byte, 100))
						}
					}
					if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("a stream goes on: %v", err)
					}
				}
				if count := s.close(t.Context()); count != nil || s.trouble() == nil || s.trouble().Error() != c.want {
					t.Errorf("%+v\ngot  %v\nwant %s", count, s.trouble(), c.want)
				}
				f.stop()
				iperf3NothingLeft(t, before)
			})
		}
	}
}

func TestIperf3BadEnd(t *testing.T) {
	const long = time.Minute
	results := func(text string) func(f *iperf3Fake) {
		return func(f *iperf3Fake) { f.toResults(); f.sayJSON(text); f.rest() }
	}
	for _, c := range []struct {
		name   string
		wait   time.Duration
		script func(f *iperf3Fake)
		count  bool
		want   string
	}{
		{"end: silent", 0, func(f *iperf3Fake) { f.toEnd(); f.rest() }, false, "the server said nothing for 30ms, where EXCHANGE_RESULTS was due"},
		{"end: closed", long, func(f *iperf3Fake) { f.toEnd() }, false, "the server closed the control connection"},
		{"end: reset", long, func(f *iperf3Fake) { f.toEnd(); f.reset(f.control) }, false, "the control connection was reset"},
		{"end: another state", long, func(f *iperf3Fake) { f.toEnd(); f.say(iperf3DisplayResults); f.rest() }, false, "the server said DISPLAY_RESULTS where EXCHANGE_RESULTS was due"},
		{"end: error", long, func(f *iperf3Fake) { f.toEnd(); f.sayError(117, 0); f.rest() }, false, "the server reports its error 117"},

		{"results: silent", 0, func(f *iperf3Fake) { f.toResults(); f.rest() }, false, "the server said nothing for 30ms, where its results were due"},
		{"results: part of a length", 0, func(f *iperf3Fake) {
			f.toResults()
			must(f.control.Write([]byte{0, 0}))
			f.rest()
		}, false, "the server said nothing for 30ms, where its results were due"},
		{"results: closed", long, func(f *iperf3Fake) { f.toResults() }, false, "the server closed the control connection, where its results were due"},
		{"results: cut", long, func(f *iperf3Fake) {
			f.toResults()
			must(f.control.Write([]byte{0, 0, 1, 0, '{', '"'}))
		}, false, "the server closed the control connection, where its results were due"},
		{"results: too long", long, func(f *iperf3Fake) {
			f.toResults()
			must(f.control.Write([]byte{0xff, 0xff, 0xff, 0xff, '{'}))
			f.rest()
		}, false, "the server's results cannot be used: 4294967295 bytes, at most 65536 are read, where its results were due"},
		{"results: none", long, results(""), false, "the server's results cannot be used: unexpected end..."},
		{"results: malformed", long, results(`{"streams":[}`), false, "the server's results cannot be used: invalid character '}'..."},
		{"results: deep", long, results(strings.Repeat("[", 60000)), false, "the server's results cannot be used: invalid character '[' exceeded..."},
		{"results: of another kind", long, results(`{"streams":{}}`), false, "the server's results cannot be used: json: cannot unmarshal object..."},
		{"results: without streams", long, results(`{}`), false, "the server's results cannot be used: of 0 streams, not 2"},
		{"results: of other streams", long, results(`{"streams":[{"bytes":1}]}`), false, "the server's results cannot be used: of 1 streams, not 2"},
		{"results: without bytes", long, results(`{"streams":[{"bytes":1},{"id":3}]}`), false, "the server's results cannot be used: no bytes of stream 2"},
		{"results: negative", long, results(`{"streams":[{"bytes":-1},{"bytes":1}]}`), false, "the server's results cannot be used: -1 bytes of stream 1"},
		{"results: a part of a byte", long, results(`{"streams":[{"bytes":1.5},{"bytes":1}]}`), false, "the server's results cannot be used: 1.5 bytes of stream 1"},
		{"results: absurd", long, results(`{"streams":[{"bytes":1},{"bytes":1e300}]}`), false, "the server's results cannot be used: 1e+300 bytes of stream 2"},

		{"display: silent", 0, func(f *iperf3Fake) { f.toDisplay(); f.rest() }, true, "the server said nothing for 30ms, where DISPLAY_RESULTS was due"},
		{"display: closed", long, func(f *iperf3Fake) { f.toDisplay() }, true, "the server closed the control connection, where DISPLAY_RESULTS was due"},
		{"done: never closed", 0, func(f *iperf3Fake) { f.good(); f.rest() }, true, ""},
		{"done: reset", long, func(f *iperf3Fake) { f.good(); f.reset(f.control) }, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := iperf3Open(t)
			f := fakeIperf3(t, c.script)
			s := f.session(Down, long)
			if _, err := s.open(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.wait == 0 {
				c.wait = 30 * time.Millisecond
				s.wait, s.parting = c.wait, c.wait
			}
			count := s.close(t.Context())
			got := ""
			if s.problem != nil {
				got = s.problem.Error()
			}
			// What the decoder says may change.
			if start, cut := strings.CutSuffix(c.want, "..."); cut && strings.HasPrefix(got, start) {
				got = c.want
			}
			if got != c.want || (count != nil) != c.count {
				t.Errorf("%+v\ngot  %s\nwant %s", count, got, c.want)
			}
			// Whoever pumped the streams wants to know what ended them, not more.
			if ended := strings.HasPrefix(c.name, "end:") && c.wait != 30*time.Millisecond; (s.trouble() != nil) != ended {
				t.Errorf("trouble: %v", s.trouble())
			}
			f.stop()
			iperf3NothingLeft(t, before)
		})
	}
}

// Whatever a session waits for, it ends when its context does: that of open,
// or of close.
func TestIperf3Cancelled(t *testing.T) {
	for _, of := range []string{"open", "close"} {
		t.Run(of, func(t *testing.T) { testIperf3Cancelled(t, of == "open") })
	}
}

func testIperf3Cancelled(t *testing.T, ofOpen bool) {
	t.Helper()
	for _, c := range []struct {
		name   string
		script func(f *iperf3Fake)
		opens  bool
	}{
		{"params", (*iperf3Fake).toParams, false},
		{"create", (*iperf3Fake).toCreate, false},
		{"start", (*iperf3Fake).toStart, false},
		{"running", func(f *iperf3Fake) { f.toStart(); f.say(iperf3TestStart) }, false},
		{"part of an error", func(f *iperf3Fake) { f.toCreate(); f.say(iperf3ServerError) }, false},
		{"end", (*iperf3Fake).toEnd, true},
		{"results", (*iperf3Fake).toResults, true},
		{"display", (*iperf3Fake).toDisplay, true},
		{"done", (*iperf3Fake).good, true},
		{"part of an error at the end", func(f *iperf3Fake) { f.toEnd(); f.say(iperf3ServerError) }, true},
		{"lost, with part of an error", func(f *iperf3Fake) { f.toRunning(); f.say(iperf3ServerError) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := iperf3Open(t)
			// A machine that has other things to do may be slow once.
			took := time.Hour
			for try := 0; try < 3 && took > 100*time.Millisecond; try++ {
				took = min(took, cancelIperf3(t, c.script, c.opens, ofOpen))
			}
			if took > 100*time.Millisecond {
				t.Errorf("took %v", took)
			}
			iperf3NothingLeft(t, before)
		})
	}
}

// cancelIperf3 cancels a session where the script has led it, and returns how
// long it goes on.
func cancelIperf3(t *testing.T, script func(*iperf3Fake), opens, ofOpen bool) time.Duration {
	t.Helper()
	there := make(chan struct{})
	f := fakeIperf3(t, func(f *iperf3Fake) {
		script(f)
		close(there)
		f.rest()
	})
	defer f.stop()
	s := f.session(Down, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opening, closing := ctx, t.Context()
	if opens && !ofOpen {
		opening, closing = closing, opening
	}
	cancelled := make(chan time.Time, 1)
	go func() {
		<-there
		time.Sleep(10 * time.Millisecond) // so that it waits
		cancelled <- time.Now()
		cancel()
	}()
	_, err := s.open(opening)
	switch {
	case opens && err != nil, !opens && err == nil:
		t.Fatal(err)
	case opens:
		s.close(closing)
	case !errors.Is(err, context.Canceled):
		t.Error(err)
	}
	took := time.Since(<-cancelled)
	s.close(closing)
	return took
}

func TestIperf3CancelledBetweenTries(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := fakeIperf3(t, func(f *iperf3Fake) {
		f.toParams()
		f.say(iperf3AccessDenied)
		_ = f.control.Close()
		cancel()
	})
	s := f.session(Up, time.Minute)
	s.pause = time.Minute
	if _, err := s.open(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A test that is cancelled while it runs is ended in the protocol's way.
func TestIperf3CancelledSaysSo(t *testing.T) {
	heard := make(chan byte, 1)
	f := fakeIperf3(t, func(f *iperf3Fake) {
		f.toRunning()
		var b [1]byte
		must(io.ReadFull(f.control, b[:]))
		heard <- b[0]
	})
	s := f.session(Up, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	streams, err := s.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if count := s.close(t.Context()); count != nil {
		t.Errorf("%+v", count)
	}
	if b := <-heard; iperf3State(b) != iperf3ClientTerminate {
		t.Errorf("heard %v", iperf3State(b))
	}
	if _, err = streams[0].conn.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a stream is open: %v", err)
	}
}

func TestIperf3Truncated(t *testing.T) {
	const words = 5 + 4 + len(iperf3Good) + 1 // in a good test
	before := iperf3Open(t)
	for n := 0; n <= words; n++ {
		if testing.Short() && n > 12 && n < words-3 && n%29 != 0 {
			continue
		}
		f := fakeIperf3(t, func(f *iperf3Fake) {
			if f.cut = n; n == 0 {
				_ = f.l.SetDeadline(time.Now().Add(time.Second))
				for range iperf3Tries {
					_ = f.accept().Close()
				}
			}
			f.good()
		})
		s := f.session(Up, time.Minute)
		_, err := s.open(t.Context())
		if (err == nil) != (n >= 4) {
			t.Errorf("%d bytes: opened with %v", n, err)
		}
		count := s.close(t.Context())
		if (count != nil) != (n >= words-1) {
			t.Errorf("%d bytes: counted %+v", n, count)
		}
		if err == nil && (s.problem == nil) != (n == words) {
			t.Errorf("%d bytes: trouble %v", n, s.problem)
		}
		f.stop()
	}
	iperf3NothingLeft(t, before)
}

// speak is a server that says words whatever it hears, and then ends.
func (f *iperf3Fake) speak(words []byte) {
	f.control = f.accept()
	must(f.control.Write(words))
	_ = f.control.CloseWrite()
	for range 2 {
		f.streams = append(f.streams, f.accept())
	}
	f.rest()
}

func FuzzIperf3Server(f *testing.F) {
	f.Add([]byte{9, 10, 1, 2})
	f.Add([]byte{9, 10, 1, 2, 13})
	f.Add([]byte{9, 0xfe, 0, 0, 0, 142})
	f.Add([]byte{9, 10, 1, 2, 0xfe, 0, 0, 0, 27, 0, 0, 0, 0})
	f.Add([]byte{0xff})
	f.Add([]byte{9, 10, 1, 2, 13, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, words []byte) {
		fake := fakeIperf3(t, func(f *iperf3Fake) {
			defer f.l.Close()
			f.speak(words)
		})
		s := fake.session(Down, time.Second)
		start := time.Now()
		streams, err := s.open(t.Context())
		if (err == nil) != (len(streams) == 2) {
			t.Errorf("%d streams, %v", len(streams), err)
		}
		count := s.close(t.Context())
		if count != nil && (err != nil || len(count.congestionControl) > 15) {
			t.Errorf("%v, %+v", err, count)
		}
		for _, st := range streams {
			if _, err := st.conn.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a stream is open: %v", err)
			}
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		fake.stop()
	})
}

func FuzzIperf3Results(f *testing.F) {
	f.Add([]byte(iperf3Good), 2)
	f.Add([]byte(`{"streams":[{"bytes":1e15}]}`), 1)
	f.Add([]byte(`{"congestion_used":"bbr\n","streams":[]}`), 0)
	f.Fuzz(func(t *testing.T, b []byte, streams int) {
		framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
		got, err := readIperf3JSON(bytes.NewReader(framed))
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%q: %q, %v", b, got, err)
		}
		c, err := parseIperf3Results(b, streams)
		switch {
		case err != nil && (c != nil || !errors.Is(err, errIperf3Result)):
			t.Errorf("%+v, %v", c, err)
		case err == nil && c.bytes > uint64(streams)<<53:
			t.Errorf("%d bytes in %d streams", c.bytes, streams)
		case err == nil && strings.ContainsFunc(c.congestionControl, func(r rune) bool { return r < '!' || r > '~' }):
			t.Errorf("congestion control %q", c.congestionControl)
		}
	})
}
