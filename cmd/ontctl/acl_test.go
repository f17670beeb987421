package main

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
)

// aclOrder signs an order and puts it on the desk.
func (d *desk) aclOrder(file, operator string, o order.Order, technicians ...string) {
	d.t.Helper()
	o.V, o.Type, o.Allow, o.MaxRuns = 1, order.Repair, []order.CommandType{order.Accept}, 1
	if o.Tenant == "" {
		o.Tenant = "lab"
	}
	if o.Rev == 0 {
		o.Rev = 1
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	for _, id := range technicians {
		pub, _ := d.key(id + ".key").Public().(ed25519.PublicKey)
		o.Technicians = append(o.Technicians, order.Technician{ID: id, Key: order.PublicKey(pub)})
	}
	env, err := o.Sign(d.key(operator))
	if err != nil {
		d.t.Fatal(err)
	}
	data, err := json.Marshal(env)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write(file, string(data))
}

func TestACLMosquitto(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, name := range []string{"root", "operator", "stranger", "T-1", "T-2", "T-3"} {
		d.do("keygen", "--out", "@"+name)
	}
	revoked, _ := d.key("T-3.key").Public().(ed25519.PublicKey)
	d.do("trust", "--root", "@root.key", "--version", "7", "--tenant", "lab", "--add", "operator:op:@operator.pub",
		"--revoke-order", "WO-revoked", "--revoke-key", order.PublicKey(revoked).ID(), "--out", "@trust")

	day := func(n int) time.Time { return time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC) }
	orders := []string{"@a", "@b", "@again", "@new", "@old", "@past", "@future", "@revoked"}
	d.aclOrder("a", "operator.key", order.Order{Order: "WO-a", Device: "HWTC00000001", NotAfter: day(9)}, "T-2", "T-1")
	d.aclOrder("b", "operator.key", order.Order{Order: "WO-b", Device: "HWTC00000002", NotAfter: day(9)}, "T-1", "T-3")
	d.aclOrder("again", "operator.key", order.Order{Order: "WO-again", Device: "HWTC00000001", NotAfter: day(8)}, "T-1")
	d.aclOrder("new", "operator.key", order.Order{Order: "WO-moved", Rev: 2, Device: "HWTC00000003", NotAfter: day(9)}, "T-2")
	d.aclOrder("old", "operator.key", order.Order{Order: "WO-moved", Rev: 1, Device: "HWTC00000004", NotAfter: day(9)}, "T-2")
	d.aclOrder("past", "operator.key", order.Order{Order: "WO-past", Device: "HWTC00000005", NotAfter: day(1)}, "T-1")
	d.aclOrder("future", "operator.key", order.Order{Order: "WO-future", Device: "HWTC00000006", NotBefore: day(3), NotAfter: day(9)}, "T-1")
	d.aclOrder("revoked", "operator.key", order.Order{Order: "WO-revoked", Device: "HWTC00000007", NotAfter: day(9)}, "T-1")

	run := func(at time.Time, files ...string) (code int, out, errs string) {
		args := []string{"acl", "mosquitto", "--trust", "@trust", "--root", "@root.pub", "--at", at.Format(time.RFC3339)}
		return d.ontctl(append(args, files...)...)
	}
	rights := func(device string) string {
		topic := " ont/1/lab/" + device + "/"
		return "topic read" + topic + "event/+\n" + "topic read" + topic + "info\n" + "topic read" + topic + "pending\n" +
			"topic read" + topic + "state\n" + "topic read" + topic + "status/+\n" + "topic read" + topic + "telemetry/+\n" +
			"topic write" + topic + "cmd/+\n"
	}
	code, out, errs := run(day(2), orders...)
	want := "# Technicians of lab, by ontctl acl mosquitto, from signed orders and trust list 7.\n" +
		"\nuser T-1\n" +
		"# order WO-a rev 1: HWTC00000001 until 2026-03-09T12:00:00Z\n" +
		"# order WO-again rev 1: HWTC00000001 until 2026-03-08T12:00:00Z\n" + rights("HWTC00000001") +
		"# order WO-b rev 1: HWTC00000002 until 2026-03-09T12:00:00Z\n" + rights("HWTC00000002") +
		"\nuser T-2\n" +
		"# order WO-a rev 1: HWTC00000001 until 2026-03-09T12:00:00Z\n" + rights("HWTC00000001") +
		"# order WO-moved rev 2: HWTC00000003 until 2026-03-09T12:00:00Z\n" + rights("HWTC00000003")
	if code != cli.OK {
		t.Errorf("ended with %d: %s", code, errs)
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
	for _, says := range []string{"order WO-past ended", "order WO-future begins", "order WO-revoked is revoked", "order WO-b: the key of T-3 is revoked"} {
		if !strings.Contains(errs, says) {
			t.Errorf("does not say %q:\n%s", says, errs)
		}
	}

	t.Run("any sequence of orders gives the same", func(t *testing.T) {
		turned := slices.Clone(orders)
		slices.Reverse(turned)
		if _, got, _ := run(day(2), turned...); got != want {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("at another time others are valid", func(t *testing.T) {
		_, got, _ := run(day(4), "@future", "@past")
		if !strings.Contains(got, "HWTC00000006") || strings.Contains(got, "HWTC00000005") {
			t.Errorf("got\n%s", got)
		}
		if _, got, _ = run(day(10), orders...); strings.Contains(got, "user") {
			t.Errorf("rights after all orders have ended:\n%s", got)
		}
	})
	t.Run("unsigned by an operator is left out and refused", func(t *testing.T) {
		d.aclOrder("forged", "stranger.key", order.Order{Order: "WO-forged", Device: "HWTC00000008", NotAfter: day(9)}, "T-1")
		d.aclOrder("foreign", "operator.key", order.Order{Order: "WO-foreign", Tenant: "other", Device: "HWTC00000009", NotAfter: day(9)}, "T-1")
		d.write("altered", strings.Replace(d.read("a"), `"sig":"`, `"sig":"AAAA`, 1))
		for _, file := range []string{"@forged", "@foreign"} {
			code, got, errs := run(day(2), append([]string{file}, orders...)...)
			if code != cli.Refused || got != want || !strings.Contains(errs, file[1:]) {
				t.Errorf("%s: ended with %d, same section: %v, said\n%s", file, code, got == want, errs)
			}
		}
		if code, got, _ := run(day(2), "@altered"); code == cli.OK || strings.Contains(got, "user") {
			t.Errorf("altered: ended with %d:\n%s", code, got)
		}
		if code, got, _ := d.ontctl("acl", "mosquitto", "--trust", "@trust", "--root", "@stranger.pub", "@a"); code != cli.Refused || got != "" {
			t.Errorf("trust list of another root: ended with %d:\n%s", code, got)
		}
	})
	t.Run("no order, to a file", func(t *testing.T) {
		d.do("acl", "mosquitto", "--trust", "@trust", "--root", "@root.pub", "--out", "@acl")
		if got := d.read("acl"); strings.Count(got, "\n") != 1 {
			t.Errorf("got\n%s", got)
		}
	})
	for _, args := range []string{"", "--trust @trust", "--trust @trust --root @root.pub --at noon", "--trust @trust --root @root.pub @nowhere"} {
		if code, _, _ := d.ontctl(append([]string{"acl", "mosquitto"}, strings.Fields(args)...)...); code != cli.Usage {
			t.Errorf("%q ended with %d, want %d", args, code, cli.Usage)
		}
	}
}
