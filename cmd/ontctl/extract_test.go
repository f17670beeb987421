package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	run "ontagent/agent/command"
	"ontagent/agent/order"
	"ontagent/cmd/cli"
)

func (d *desk) extract(change func(*order.Extract)) string {
	d.t.Helper()
	text := `{"v":1,"order":"WO-7","device":"` + device + `","taken":"` + time.Now().UTC().Format(time.RFC3339) + `",` +
		`"account":"05*****@isp","state":"active","down_mbps":500,"up_mbps":50,"vlan":41,` +
		`"session":{"online":true,"framed_ipv4":"203.0.113.7","mac":"02:00:00:00:00:01"}}`
	e, err := parseExtract([]byte(text))
	if err != nil {
		d.t.Fatal(err)
	}
	change(&e)
	app := &app{}
	if err := app.writeJSON(d.path("extract"), e); err != nil {
		d.t.Fatal(err)
	}
	return d.read("extract")
}

func TestExtractIsSignedShownAndSent(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.extract(func(*order.Extract) {})
	d.do("extract", "sign", "--key", "@operator.key", "--out", "@extract.signed", "@extract")
	shown := d.do("extract", "show", "--trust", "@trust", "--root", "@root.pub", "@extract.signed")
	for _, want := range []string{"signed by an operator key", "05*****@isp active", "500/50 Mbit/s", "address 203.0.113.7", "vlan         41"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
	if shown := d.do("extract", "show", "@extract"); !strings.Contains(shown, "unsigned") {
		t.Errorf("%s", shown)
	}
	d.do("accept", "--order", "@signed", "--extract", "@extract.signed", "--key", "@technician.key", "--request", "@request")
	req, err := order.ParseRequest([]byte(d.read("request")))
	if err != nil {
		t.Fatal(err)
	}
	if req.Extract == nil || order.Digest(*req.Extract) != order.Digest(d.envelope("extract.signed")) {
		t.Error("the extract is not in the request as it was signed")
	}
	d.do("diagnose", "--order", "@signed", "--extract", "@extract.signed", "--key", "@technician.key", "--request", "@request2")
}

func TestExtractThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	good := d.extract(func(*order.Extract) {})
	for name, tc := range map[string]struct{ text, says string }{
		"account in full":   {strings.Replace(good, "05*****@isp", "05121234567@isp", 1), "not masked"},
		"a password":        {strings.Replace(good, `"v":1`, `"v":1,"password":"x"`, 1), "unknown field"},
		"newer version":     {strings.Replace(good, `"v":1`, `"v":2`, 1), "version 2 is not known"},
		"unknown state":     {strings.Replace(good, `"active"`, `"paused"`, 1), `state "paused" is not known`},
		"two documents":     {good + good, "more than one document"},
		"no document":       {"", "cannot read extract"},
		"negative rate":     {strings.Replace(good, `"up_mbps":50`, `"up_mbps":-1`, 1), "out of range"},
		"rate in words":     {strings.Replace(good, `"up_mbps":50`, `"up_mbps":"50M"`, 1), "cannot read extract"},
		"no address":        {strings.Replace(good, "203.0.113.7", "203.0.113", 1), "cannot read extract"},
		"VLAN out of range": {strings.Replace(good, `"vlan":41`, `"vlan":4095`, 1), "vlan is out of range"},
	} {
		d.write("bad", tc.text)
		code, _, errs := d.ontctl("extract", "sign", "--key", "@operator.key", "@bad")
		if code != cli.Usage || !strings.Contains(errs, tc.says) {
			t.Errorf("%s: %d, %s", name, code, errs)
		}
		if strings.Contains(errs, "05121234567") {
			t.Errorf("%s: the account is in %s", name, errs)
		}
	}
	d.extract(func(e *order.Extract) { e.Taken = time.Time{} })
	if code, _, errs := d.ontctl("extract", "sign", "--key", "@operator.key", "@extract"); code != cli.Usage || !strings.Contains(errs, "taken is missing") {
		t.Errorf("no date: %d, %s", code, errs)
	}
	d.extract(func(e *order.Extract) { e.Taken = time.Now().Add(48 * time.Hour) })
	if code, _, errs := d.ontctl("extract", "sign", "--key", "@operator.key", "@extract"); code != cli.Usage || !strings.Contains(errs, "in the future") {
		t.Errorf("a date to come: %d, %s", code, errs)
	}

	// What a gateway would refuse is not sent.
	d.extract(func(*order.Extract) {})
	d.do("extract", "sign", "--key", "@stranger.key", "--out", "@of-stranger", "@extract")
	if code, _, errs := d.ontctl("extract", "show", "--trust", "@trust", "--root", "@root.pub", "@of-stranger"); code != cli.Refused {
		t.Errorf("a stranger's: %d, %s", code, errs)
	}
	if code, _, errs := d.ontctl("extract", "show", "--trust", "@trust", "--root", "@root.pub", "@extract"); code != cli.Refused || !strings.Contains(errs, "not signed") {
		t.Errorf("unsigned: %d, %s", code, errs)
	}
	if code, _, errs := d.ontctl("extract", "show", "@signed"); code != cli.Usage {
		t.Errorf("an order: %d, %s", code, errs)
	}
	d.extract(func(e *order.Extract) { e.Order = "WO-8" })
	d.do("extract", "sign", "--key", "@operator.key", "--out", "@other", "@extract")
	for name, file := range map[string]string{"another order's": "@other", "an order": "@signed", "unsigned": "@extract", "garbage": "@operator.pub", "none": "@gone"} {
		code, _, errs := d.ontctl("accept", "--order", "@signed", "--extract", file, "--key", "@technician.key", "--request", "@request")
		if code != cli.Usage || !strings.Contains(errs, "--extract") {
			t.Errorf("%s: %d, %s", name, code, errs)
		}
	}
	if code, _, errs := d.ontctl("diagnose", "--device", device, "--extract", "@other", "--key", "@technician.key", "--request", "@request"); code != cli.Usage || !strings.Contains(errs, "needs --order") {
		t.Errorf("without an order: %d, %s", code, errs)
	}
}

// without skips a test that a machine lacks something for; where all is to be
// tested, it fails.
func without(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" && !testing.Short() {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// TestExtractFromFreeRADIUS runs the query of docs/aaa-extract.md against the
// schema that Debian ships.
func TestExtractFromFreeRADIUS(t *testing.T) {
	t.Parallel()
	const schema = "/etc/freeradius/3.0/mods-config/sql/main/sqlite/schema.sql"
	tables, err := os.ReadFile(schema)
	if err != nil {
		without(t, "freeradius-config is not installed", err)
	}
	sqlite := func(input string, args ...string) []byte {
		t.Helper()
		r, err := run.New(run.Options{}).Run(t.Context(), run.Spec{Path: "sqlite3", Args: args, Stdin: strings.NewReader(input)})
		if errors.Is(err, run.ErrNotFound) {
			without(t, "sqlite3 is not installed", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r.Stdout
	}
	page, err := os.ReadFile("../../docs/aaa-extract.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(page, []byte("```sql\n"))
	query, _, ok := bytes.Cut(after, []byte("```\n"))
	if !ok {
		t.Fatal("the page has no query")
	}
	db := t.TempDir() + "/radius.db"
	sqlite(string(tables)+`
INSERT INTO radcheck(username, attribute, op, value) VALUES
 ('05121234567@isp.example', 'Cleartext-Password', ':=', 'secret'), ('05121234567@isp.example', 'Simultaneous-Use', ':=', '1'),
 ('u2@isp.example', 'Cleartext-Password', ':=', 'secret'), ('u2@isp.example', 'Auth-Type', ':=', 'Reject'),
 ('u3@isp.example', 'Cleartext-Password', ':=', 'secret'), ('7', 'Cleartext-Password', ':=', 'secret');
INSERT INTO radusergroup(username, groupname, priority) VALUES
 ('05121234567@isp.example', 'plan-500', 1), ('05121234567@isp.example', 'everybody', 9), ('u2@isp.example', 'plan-50', 1),
 ('u3@isp.example', 'unpaid', 0), ('u3@isp.example', 'plan-50', 1);
INSERT INTO radgroupreply(groupname, attribute, op, value) VALUES
 ('plan-500', 'WISPr-Bandwidth-Max-Down', ':=', '500000000'), ('plan-500', 'WISPr-Bandwidth-Max-Up', ':=', '50500000'),
 ('everybody', 'WISPr-Bandwidth-Max-Down', ':=', '1000000'),
 ('everybody', 'MS-Primary-DNS-Server', ':=', '192.0.2.53'), ('everybody', 'Framed-MTU', ':=', '1492'), ('everybody', 'Framed-Pool', ':=', 'home-1');
INSERT INTO radgroupcheck(groupname, attribute, op, value) VALUES ('unpaid', 'Auth-Type', ':=', 'Reject');
INSERT INTO radreply(username, attribute, op, value) VALUES ('05121234567@isp.example', 'Framed-MTU', ':=', '1480');
INSERT INTO radacct(acctuniqueid, username, nasipaddress, nasportid, acctstarttime, acctstoptime, callingstationid, framedipaddress, delegatedipv6prefix) VALUES
 ('a', '05121234567@isp.example', '10.0.0.1', 'eth 1/2:41', '2026-05-04 08:00:00', '2026-05-04 09:00:00', '02:00:00:00:00:01', '203.0.113.9', ''),
 ('b', '05121234567@isp.example', '10.0.0.1', 'eth 1/2:41', '2026-05-04 09:00:05', NULL, '02:00:00:00:00:01', '203.0.113.7', '2001:db8:f00::/56');
`, db)
	ask := func(account string) order.Extract {
		t.Helper()
		out := sqlite(string(query), db, "-cmd", ".parameter init", "-cmd", `.parameter set :account "'`+account+`'"`,
			"-cmd", ".parameter set :order WO-7", "-cmd", ".parameter set :device "+device)
		if bytes.Contains(out, []byte(account)) && strings.Contains(account, "@") || bytes.Contains(out, []byte("secret")) {
			t.Errorf("the account in full, or its password, is in %s", out)
		}
		e, err := parseExtract(out)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return e
	}
	e := ask("05121234567@isp.example")
	if e.Account != order.MaskAccount("05121234567@isp.example") || e.State != order.AccountActive || e.DownMbps != 500 || e.UpMbps != 50.5 ||
		e.Template != "plan-500" || e.MTU != 1480 || e.MaxSessions != 1 || len(e.Pools) != 2 || len(e.DNS) != 1 || time.Since(e.Taken) > time.Hour {
		t.Errorf("%+v", e)
	}
	if n := e.Session; n == nil || !n.Online || n.V4.String() != "203.0.113.7" || n.PD.String() != "2001:db8:f00::/56" || n.NASPort != "eth 1/2:41" ||
		!n.Since.Equal(time.Date(2026, 5, 4, 9, 0, 5, 0, time.UTC)) || n.V6.IsValid() {
		t.Errorf("%+v", n)
	}
	if e := ask("u2@isp.example"); e.State != order.AccountSuspended || e.Session == nil || e.Session.Online || e.DownMbps != 0 || e.Account != "u*****@isp.example" {
		t.Errorf("%+v", e)
	}
	if e := ask("u3@isp.example"); e.State != order.AccountSuspended {
		t.Errorf("suspended by a group: %+v", e)
	}
	if e := ask("u9@isp.example"); e.State != order.AccountMissing {
		t.Errorf("%+v", e)
	}
	if e := ask("7"); e.Account != order.MaskAccount("7") || e.State != order.AccountActive {
		t.Errorf("%+v", e)
	}
}
