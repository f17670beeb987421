package throughput

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// iperf3State is what is said in a byte on the control connection.
type iperf3State int8

// The states of iperf3's protocol that concern TCP.
const (
	iperf3TestStart       iperf3State = 1
	iperf3TestRunning     iperf3State = 2
	iperf3TestEnd         iperf3State = 4
	iperf3ParamExchange   iperf3State = 9
	iperf3CreateStreams   iperf3State = 10
	iperf3ServerTerminate iperf3State = 11
	iperf3ClientTerminate iperf3State = 12
	iperf3ExchangeResults iperf3State = 13
	iperf3DisplayResults  iperf3State = 14
	iperf3Done            iperf3State = 16
	iperf3AccessDenied    iperf3State = -1
	iperf3ServerError     iperf3State = -2
)

// String is the state's name in the protocol.
func (s iperf3State) String() string {
	switch s {
	case iperf3TestStart:
		return "TEST_START"
	case iperf3TestRunning:
		return "TEST_RUNNING"
	case iperf3TestEnd:
		return "TEST_END"
	case iperf3ParamExchange:
		return "PARAM_EXCHANGE"
	case iperf3CreateStreams:
		return "CREATE_STREAMS"
	case iperf3ServerTerminate:
		return "SERVER_TERMINATE"
	case iperf3ClientTerminate:
		return "CLIENT_TERMINATE"
	case iperf3ExchangeResults:
		return "EXCHANGE_RESULTS"
	case iperf3DisplayResults:
		return "DISPLAY_RESULTS"
	case iperf3Done:
		return "IPERF_DONE"
	case iperf3AccessDenied:
		return "ACCESS_DENIED"
	case iperf3ServerError:
		return "SERVER_ERROR"
	default:
		return "state " + strconv.Itoa(int(s))
	}
}

const (
	// iperf3CookieBytes is the length of a cookie: 36 characters and a NUL.
	iperf3CookieBytes = 37
	// iperf3MaxJSON bounds what a server may send at once. 16 streams' results
	// take 3 KiB.
	iperf3MaxJSON = 64 << 10
	// iperf3Block is how much a server is asked to read or write at once.
	iperf3Block = 128 << 10
	// iperf3AuthFailed is the number of the error of who isn't allowed.
	iperf3AuthFailed = 142
)

// Errors of servers that a user can do something about.
var (
	errIperf3Busy   = errors.New("the server is busy running a test")
	errIperf3Denied = errors.New("the server denied access")
	errIperf3Auth   = errors.New("the server wants a user and a password")
	errIperf3Ended  = errors.New("the server was stopped")
	errIperf3Other  = errors.New("no iperf3 server")
	errIperf3Closed = errors.New("the server closed the control connection")
	errIperf3Reset  = errors.New("the control connection was reset")
	errIperf3Silent = errors.New("the server said nothing")
	errIperf3Routed = errors.New("a stream reached another server than the control connection")
	errIperf3Result = errors.New("the server's results cannot be used")
)

// iperf3ServerFailure is the reason that a server gives with SERVER_ERROR: its
// own number, and the one of its system.
func iperf3ServerFailure(number, errno uint32, seconds int) error {
	switch number {
	case 27:
		return errors.New("the server limits the rate, and a test without a limit is above it")
	case 37:
		return fmt.Errorf("the server allows no test as long as %d s", seconds)
	case 120:
		return errIperf3Ended
	case iperf3AuthFailed:
		return errIperf3Auth
	case 160:
		return errors.New("the server's time for a test is over")
	}
	text := "the server reports its error " + strconv.FormatUint(uint64(number), 10)
	if errno != 0 {
		text += ", errno " + strconv.FormatUint(uint64(errno), 10)
	}
	return errors.New(text)
}

// iperf3Unexpected is the error for a state that is not due.
func iperf3Unexpected(got, due iperf3State) error {
	switch {
	case got == iperf3AccessDenied && due == iperf3ParamExchange:
		return errIperf3Busy
	case got == iperf3AccessDenied:
		return errIperf3Denied
	case got == iperf3ServerTerminate:
		return errIperf3Ended
	case due == iperf3ParamExchange:
		return fmt.Errorf("%w: it answers with byte 0x%02x", errIperf3Other, byte(got))
	}
	return fmt.Errorf("the server said %v where %v was due", got, due)
}

// iperf3Parameters is what is asked for, with its length.
func iperf3Parameters(down bool, streams, seconds int) []byte {
	text := `{"tcp":true,"omit":0,"time":` + strconv.Itoa(seconds) + `,"num":0,"blockcount":0,"parallel":` + strconv.Itoa(streams)
	if down { // its presence counts, not its value
		text += `,"reverse":true`
	}
	return iperf3JSON(text + `,"len":` + strconv.Itoa(iperf3Block) + `,"pacing_timer":1000,"client_version":"3.12"}`)
}

// iperf3Count is what this side counted, with its length. Of what it leaves at
// 0 or -1 (unknown) a server demands the presence.
func iperf3Count(down bool, bytes []uint64, took time.Duration) []byte {
	text := `{"cpu_util_total":0,"cpu_util_user":0,"cpu_util_system":0,"sender_has_retransmits":`
	if down {
		text += `-1,"streams":[`
	} else {
		text += `0,"streams":[`
	}
	streams := make([]string, len(bytes))
	for i, n := range bytes {
		streams[i] = `{"id":` + strconv.Itoa(iperf3StreamID(i)) + `,"bytes":` + strconv.FormatUint(n, 10) +
			`,"retransmits":-1,"jitter":0,"errors":0,"packets":0,"start_time":0,"end_time":` +
			strconv.FormatFloat(took.Seconds(), 'f', 6, 64) + "}"
	}
	return iperf3JSON(text + strings.Join(streams, ",") + "]}")
}

// iperf3StreamID is the number of the i-th stream, on which both sides agree
// without a word: 1, 3, 4, 5 and so on.
func iperf3StreamID(i int) int {
	if i == 0 {
		return 1
	}
	return i + 2
}

func iperf3JSON(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

// iperf3Results is what is used of a server's results.
type iperf3Results struct {
	CongestionUsed string         `json:"congestion_used"`
	Streams        []iperf3Stream `json:"streams"`
}

type iperf3Stream struct {
	// Bytes is a float, for that is how servers may write it.
	Bytes *float64 `json:"bytes"`
}

// readIperf3JSON reads a message and its length.
func readIperf3JSON(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > iperf3MaxJSON {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", errIperf3Result, n, iperf3MaxJSON)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

// parseIperf3Results returns what a server counted in so many streams. Its
// errors are compatible with errIperf3Result.
func parseIperf3Results(b []byte, streams int) (*serverCount, error) {
	var r iperf3Results
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errIperf3Result, err)
	}
	if len(r.Streams) != streams {
		return nil, fmt.Errorf("%w: of %d streams, not %d", errIperf3Result, len(r.Streams), streams)
	}
	c := &serverCount{congestionControl: iperf3Name(r.CongestionUsed)}
	for i, s := range r.Streams {
		switch n := s.Bytes; {
		case n == nil:
			return nil, fmt.Errorf("%w: no bytes of stream %d", errIperf3Result, i+1)
		case *n < 0 || *n >= 1<<53 || *n != math.Trunc(*n):
			return nil, fmt.Errorf("%w: %g bytes of stream %d", errIperf3Result, *n, i+1)
		default:
			c.bytes += uint64(*n)
		}
	}
	return c, nil
}

// iperf3Name returns the name of a congestion control, or "" if it can't be one.
func iperf3Name(s string) string {
	const longest = 15 // TCP_CA_NAME_MAX, less its NUL
	if len(s) > longest || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return s
}
