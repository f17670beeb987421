package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/cmd/cli"
)

// script is a link that says what it was told to.
type script struct{ out chan reply }

func (s script) send(context.Context, string, order.Request) error { return nil }
func (s script) replies() <-chan reply                             { return s.out }
func (s script) close()                                            {}

// TestVerdictComesFromTheRecord follows jobs over a broker that lies: with a
// root key at hand, only a genuine record makes a pass.
func TestVerdictComesFromTheRecord(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	names := d.visitRecords(acceptance.Pass, acceptance.Fail)
	root, err := readPublic(d.path("root.pub"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := readPublic(d.path("stranger.pub"))
	if err != nil {
		t.Fatal(err)
	}
	passed, failed := d.read(names[0][1:]), d.read(names[1][1:])
	sha := func(data string) string {
		env, err := order.ParseEnvelope([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return order.Digest(env)
	}
	end := func(id, verdict, sha string) reply {
		return reply{status: &job.Status{ID: id, State: job.Succeeded, Verdict: verdict, RecordSHA: sha, Progress: 1}}
	}
	lost := reply{err: cli.Exit(cli.Unreachable, "gone")}
	for name, tc := range map[string]struct {
		id      string
		root    order.PublicKey
		replies []reply
		code    int
	}{
		"honest pass":                     {"record1", root, []reply{end("record1", "pass", sha(passed)), {record: []byte(passed)}}, cli.OK},
		"record first":                    {"record1", root, []reply{{record: []byte(passed)}, end("record1", "pass", sha(passed))}, cli.OK},
		"honest fail":                     {"record2", root, []reply{end("record2", "fail", sha(failed)), {record: []byte(failed)}}, cli.Fail},
		"a pass, says the broker":         {"record2", root, []reply{end("record2", "pass", sha(failed)), {record: []byte(failed)}}, cli.Fail},
		"record of another job":           {"record2", root, []reply{end("record2", "pass", sha(passed)), {record: []byte(passed)}, lost}, cli.Inconclusive},
		"a pass without a record":         {"record2", root, []reply{end("record2", "pass", ""), lost}, cli.Inconclusive},
		"record of another operator":      {"record1", stranger, []reply{end("record1", "pass", sha(passed)), {record: []byte(passed)}, lost}, cli.Fail},
		"nothing to check against":        {"record1", nil, []reply{end("record1", "pass", sha(passed))}, cli.OK},
		"lost before the end":             {"record1", root, []reply{lost}, cli.Unreachable},
		"rejected needs no record":        {"record1", root, []reply{{status: &job.Status{ID: "record1", State: job.Rejected, Reason: "expired"}}}, cli.Refused},
		"interrupted is no verdict":       {"record1", root, []reply{{status: &job.Status{ID: "record1", State: job.Interrupted}}}, cli.Inconclusive},
		"challenge without a time key":    {"record1", root, []reply{{status: &job.Status{ID: "record1", State: job.Challenge, Nonce: "n"}}}, cli.Refused},
		"status twice, record in between": {"record1", root, []reply{end("record1", "pass", sha(passed)), {record: []byte(passed)}, {record: []byte(passed)}}, cli.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link := script{make(chan reply, len(tc.replies))}
			for _, r := range tc.replies {
				link.out <- r
			}
			c := &conversation{
				app: &app{}, flags: &visitFlags{wait: time.Minute}, key: d.key("technician.key"), root: tc.root, link: link,
				cmd:    order.Command{V: 1, ID: tc.id, Order: "WO-7", Rev: 1, Device: device, Type: order.Accept, Counter: 1},
				screen: &textPrinter{out: io.Discard, lang: "en"},
			}
			err := c.follow(t.Context())
			code := cli.OK
			if exit, ok := errors.AsType[*cli.Error](err); ok {
				code = exit.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tc.code {
				t.Errorf("exit code %d (%v), want %d", code, err, tc.code)
			}
		})
	}
}

// TestRequestFileAnswersAChallenge signs the command of a request file anew:
// the same command, with the nonce and a signed time for it.
func TestRequestFileAnswersAChallenge(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	commandOf := func() (order.Request, order.Command) {
		req, err := order.ParseRequest([]byte(d.read("request")))
		if err != nil {
			t.Fatal(err)
		}
		var cmd order.Command
		if err := peek(*req.Command, order.TypeCommand, &cmd); err != nil {
			t.Fatal(err)
		}
		return req, cmd
	}
	d.do("accept", "--order", "@signed", "--key", "@technician.key", "--request", "@request")
	_, before := commandOf()
	d.do("accept", "--order", "@signed", "--key", "@technician.key", "--time-key", "@stranger.key", "--request", "@request", "--nonce", "abc")
	req, after := commandOf()
	want := before
	want.Nonce = "abc"
	if after != want || req.Time == nil {
		t.Errorf("answer is %+v with time %v, want %+v", after, req.Time, want)
	}
	if code, _, _ := d.ontctl("accept", "--order", "@signed", "--key", "@technician.key", "--request", "@order", "--nonce", "abc", "--time-key", "@stranger.key"); code != 2 {
		t.Errorf("a file that is no request: exit code %d", code)
	}
}
