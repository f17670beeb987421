package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/transport/durable"
)

const device = "HWTC12345678"

// desk is where an operator works: a directory of keys and documents.
type desk struct {
	t   *testing.T
	dir string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	return &desk{t, t.TempDir()}
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

// ontctl runs the program; an argument "@name" is a file on the desk.
func (d *desk) ontctl(args ...string) (code int, stdout, stderr string) {
	d.t.Helper()
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, "@", d.dir+"/")
	}
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs}
	code = a.run(d.t.Context(), args)
	return code, out.String(), errs.String()
}

// do runs what must succeed.
func (d *desk) do(args ...string) string {
	d.t.Helper()
	code, out, errs := d.ontctl(args...)
	if code != cli.OK {
		d.t.Fatalf("ontctl %s ended with %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func (d *desk) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) read(name string) string {
	d.t.Helper()
	data, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}

func (d *desk) key(name string) ed25519.PrivateKey {
	d.t.Helper()
	key, err := readKey(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return key
}

func (d *desk) envelope(name string) order.Envelope {
	d.t.Helper()
	env, err := order.ParseEnvelope([]byte(d.read(name)))
	if err != nil {
		d.t.Fatal(err)
	}
	return env
}

// boxPrivate and boxPublic are a Curve25519 pair made for this test alone.
var (
	boxPrivate = [32]byte{31: 0x40}
	boxPublic  = order.X25519Key{ // boxPrivate times the base point
		0x2f, 0xe5, 0x7d, 0xa3, 0x47, 0xcd, 0x62, 0x43, 0x15, 0x28, 0xda, 0xac, 0x5f, 0xbb, 0x29, 0x07,
		0x30, 0xff, 0xf6, 0x84, 0xaf, 0xc4, 0xcf, 0xc2, 0xed, 0x90, 0x99, 0x5f, 0x58, 0xcb, 0x3b, 0x74,
	}
)

// furnish makes keys, trust list, statement and a signed order.
func (d *desk) furnish() {
	d.t.Helper()
	for _, name := range []string{"root", "operator", "operator2", "technician", "gateway", "stranger"} {
		d.do("keygen", "--out", "@"+name)
	}
	d.do("trust", "--root", "@root.key", "--version", "3", "--tenant", "lab",
		"--add", "operator:op-1:@operator.pub,operator:op-2:@operator2.pub", "--out", "@trust")
	box, err := boxPublic.MarshalText()
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("bundle", `{"device":"`+device+`","ed25519":"`+strings.TrimSpace(d.read("gateway.pub"))+`","x25519":"`+
		string(box)+`","tls_spki":"`+strings.Repeat("ab", 32)+`"}`)
	d.do("device", "statement", "--operator", "@operator.key", "--bundle", "@bundle", "--out", "@statement")
	d.do("order", "new", "--order", "WO-7", "--tenant", "lab", "--device", device, "--technician", "T-1024:@technician.pub",
		"--sn", device, "--service", "internet:pppoe:41:500/50", "--threshold", "cpu.max=0.8", "--consent", "disturb", "--out", "@order")
	d.do("order", "sign", "--operator", "@operator.key", "--out", "@signed", "@order")
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.write("half.pub", "")
	d.write("garbage", "garbage")
	for name, tc := range map[string]struct {
		args string
		code int
		says string
	}{
		"nothing":                 {"", cli.Usage, "no command given"},
		"unknown command":         {"bogus", cli.Usage, `unknown command "bogus"`},
		"half a command":          {"order", cli.Usage, "ontctl order sign"},
		"unknown flag":            {"trust --bogus", cli.Usage, "trust: flag provided but not defined: -bogus"},
		"bad number":              {"trust --version x", cli.Usage, "trust: invalid value"},
		"stray argument":          {"trust stray", cli.Usage, "takes nothing beside its flags, got 1"},
		"no file":                 {"order sign --operator @operator.key", cli.Usage, "order sign takes one file, got 0"},
		"no files":                {"record verify --lang en", cli.Usage, "takes one file or more"},
		"keygen without name":     {"keygen", cli.Usage, "--out is missing"},
		"keygen over a key":       {"keygen --out @root", cli.Usage, "root.key: it exists already"},
		"keygen, half there":      {"keygen --out @half", cli.Usage, "half.pub: it exists already"},
		"keygen nowhere":          {"keygen --out @no/where", cli.Usage, "no such file"},
		"trust without root":      {"trust --version 1", cli.Usage, "--root: it is missing"},
		"trust with public key":   {"trust --root @root.pub --version 1", cli.Usage, "not a secret key"},
		"trust without version":   {"trust --root @root.key", cli.Usage, "no version"},
		"trust, secret as public": {"trust --root @root.key --version 1 --add operator:o:@operator.key", cli.Usage, "is a secret key: name its .pub file"},
		"trust, unknown role":     {"trust --root @root.key --version 1 --add boss:o:@operator.pub", cli.Usage, `role "boss" is not known`},
		"trust, two parts":        {"trust --root @root.key --version 1 --add operator", cli.Usage, "is not ROLE:ID:PUB"},
		"statement, no bundle":    {"device statement --operator @operator.key", cli.Usage, "--bundle: it is missing"},
		"statement, not a bundle": {"device statement --operator @operator.key --bundle @trust", cli.Usage, "not what `ontagent identity` prints"},
		"order, no device":        {"order new", cli.Usage, `device ""`},
		"order, no technician":    {"order new --device " + device, cli.Usage, "no technician"},
		"order, unknown rung":     {"order new --device " + device + " --technician T:@technician.pub --require light", cli.Usage, `rung "light" is not known`},
		"order, bad threshold":    {"order new --device " + device + " --technician T:@technician.pub --threshold optical.rx_min_dbm=x", cli.Usage, "is not NAME=VALUE"},
		"order, no such limit":    {"order new --device " + device + " --technician T:@technician.pub --threshold optical.x=1", cli.Usage, "no such threshold"},
		"order, unknown type":     {"order new --device " + device + " --technician T:@technician.pub --type repairs", cli.Usage, `type "repairs"`},
		"order, unknown action":   {"order new --device " + device + " --technician T:@technician.pub --allow shell", cli.Usage, `action "shell"`},
		"order, VLAN":             {"order new --device " + device + " --technician T:@technician.pub --service internet:pppoe:70000", cli.Usage, "VLAN"},
		"order, rates":            {"order new --device " + device + " --technician T:@technician.pub --service internet:pppoe:41:500", cli.Usage, "DOWN/UP"},
		"sign, no key":            {"order sign @order", cli.Usage, "--operator: it is missing"},
		"sign, signed already":    {"order sign --operator @operator.key @signed", cli.Usage, "cannot read order"},
		"sign, not there":         {"order sign --operator @operator.key @nope", cli.Usage, "no such file"},
		"show, garbage":           {"order show @garbage", cli.Usage, "neither an order"},
		"show, a trust list":      {"order show @trust", cli.Usage, "payload type"},
		"show, trust, no root":    {"order show --trust @trust @signed", cli.Usage, "--root: it is missing"},
		"show, wrong root":        {"order show --trust @trust --root @operator.pub @signed", cli.Refused, "unknown key"},
		"show, unsigned, checked": {"order show --trust @trust --root @root.pub @order", cli.Refused, "is not signed"},
		"accept, no way":          {"accept", cli.Usage, "accept: give one of --broker, --gateway and --request"},
		"accept, two ways":        {"accept --broker tcp://h:1 --gateway h:1", cli.Usage, "give one of"},
		"accept, no order":        {"accept --broker tcp://h:1", cli.Usage, "no work without a work order"},
		"accept, unsigned order":  {"accept --broker tcp://h:1 --order @order", cli.Usage, "malformed envelope"},
		"accept, another paper":   {"accept --broker tcp://h:1 --order @statement", cli.Usage, "payload type"},
		"accept, no key":          {"accept --broker tcp://h:1 --order @signed", cli.Usage, "--key: it is missing"},
		"accept, public key":      {"accept --broker tcp://h:1 --order @signed --key @technician.pub", cli.Usage, "not a secret key"},
		"accept, language":        {"accept --broker tcp://h:1 --lang fr", cli.Usage, `--lang "fr"`},
		"accept, record there":    {"accept --broker tcp://h:1 --order @signed --key @technician.key --record @order", cli.Usage, "exists already"},
		"accept, record nowhere":  {"accept --broker tcp://h:1 --order @signed --key @technician.key --record @no/where", cli.Usage, "no such file"},
		"accept, http":            {"accept --broker http://h:1 --order @signed --key @technician.key", cli.Usage, "scheme"},
		"accept, no port":         {"accept --gateway h --root @root.pub --order @signed --key @technician.key", cli.Usage, "is not HOST:PORT"},
		"accept, no root":         {"accept --gateway h:1 --order @signed --key @technician.key", cli.Usage, "--root: it is missing"},
		"accept, nobody there":    {"accept --gateway 127.0.0.1:1 --root @root.pub --order @signed --key @technician.key --record @new", cli.Unreachable, "connection refused"},
		"accept, no broker":       {"accept --broker tcp://127.0.0.1:1 --order @signed --key @technician.key --record @new", cli.Unreachable, "connection refused"},
		"cancel, no job":          {"cancel --broker tcp://h:1 --order @signed --key @technician.key", cli.Usage, "--job is missing"},
		"watch, no broker":        {"watch", cli.Usage, "--broker is missing"},
		"watch, nobody there":     {"watch --broker tcp://127.0.0.1:1", cli.Unreachable, "connection refused"},
		"verify, language":        {"record verify --lang de @signed", cli.Usage, `--lang "de"`},
		"verify, trust, no root":  {"record verify --trust @trust @signed", cli.Usage, "--trust needs --root"},
		"verify, an order":        {"record verify --root @root.pub --lang en @signed", cli.Usage, ""},
		"show, an order":          {"record show --lang en @signed", cli.Usage, "not a record's"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := d.ontctl(strings.Fields(tc.args)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d; %s", code, tc.code, errs)
			}
			if !strings.Contains(errs, tc.says) {
				t.Errorf("says %q, not %q", errs, tc.says)
			}
			if n := strings.Count(errs, "\n"); n > 1 {
				t.Errorf("an error takes %d lines: %s", n, errs)
			}
			d.keepsSecrets(out + errs)
		})
	}
	for _, name := range []string{"half.key", "new"} {
		if _, err := os.Stat(d.path(name)); err == nil {
			t.Errorf("%s was left behind", name)
		}
	}
}

// keepsSecrets fails if text has any of the secret keys on the desk.
func (d *desk) keepsSecrets(text string) {
	d.t.Helper()
	files, err := filepath.Glob(d.path("*.key"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, file := range files {
		block, _ := pem.Decode([]byte(d.read(filepath.Base(file))))
		if block == nil {
			d.t.Fatalf("%s is not a key", file)
		}
		lines := strings.Split(string(pem.EncodeToMemory(block)), "\n")
		if strings.Contains(text, lines[1]) {
			d.t.Errorf("the secret of %s is printed", filepath.Base(file))
		}
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	overview := d.do("help")
	for _, c := range commands() {
		if !strings.Contains(overview, c.name) {
			t.Errorf("help leaves out %s", c.name)
		}
		if c.name == "version" {
			continue
		}
		code, out, errs := d.ontctl(append(strings.Fields(c.name), "--help")...)
		if code != cli.OK || errs != "" || !strings.HasPrefix(out, "ontctl "+c.name) || !strings.Contains(out, "\n  --") {
			t.Errorf("%s --help: %d %q %q", c.name, code, out, errs)
		}
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()

	shown := d.do("order", "show", "@signed", "--trust", "@trust", "--root", "@root.pub")
	for _, part := range []string{
		"WO-7 rev 1 (repair), signed by an operator key of the trust list", device + ", tenant lab", "T-1024",
		"internet pppoe, vlan 41, 500/50 Mbit/s", "threshold    cpu.max 0.8", "accept, diagnose, close", "disturb",
	} {
		if !strings.Contains(shown, part) {
			t.Errorf("order show leaves out %q:\n%s", part, shown)
		}
	}
	payload, err := base64.StdEncoding.DecodeString(d.envelope("signed").Payload)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(payload), `"v":1,`, `"v":2,"order_rooms":[],`, 1)
	env, err := order.Sign(order.TypeOrder, []byte(newer), d.key("operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	d.sealed("newer", env)
	d.write("newer.json", newer)
	for _, name := range []string{"@newer", "@newer.json"} {
		code, out, errs := d.ontctl("order", "show", name)
		if code != cli.Inconclusive || out != "" || !strings.Contains(errs, "order version 2 is not known to this program") {
			t.Errorf("a newer order, %s: %d\n%s%s", name, code, out, errs)
		}
	}
	if shown := d.do("order", "show", "@order"); !strings.Contains(shown, "unsigned") {
		t.Errorf("an unsigned order is shown as:\n%s", shown)
	}
	var o order.Order
	if err := json.Unmarshal([]byte(d.do("order", "show", "--json", "@signed")), &o); err != nil || o.Order != "WO-7" || o.MaxRuns != 5 {
		t.Errorf("order show --json: %+v, %v", o, err)
	}

	d.do("order", "sign", "--operator", "@stranger.key", "--out", "@forged", "@order")
	if code, _, errs := d.ontctl("order", "show", "--trust", "@trust", "--root", "@root.pub", "@forged"); code != cli.Refused {
		t.Errorf("an order of a stranger: exit code %d, %s", code, errs)
	}
	for name, mode := range map[string]os.FileMode{"root.key": 0o600, "root.pub": 0o644} {
		info, err := os.Stat(d.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if code, _, errs := d.ontctl("order", "new", "--device", device, "--technician", "T:@technician.pub", "--out", "@bare"); code != cli.OK ||
		!strings.Contains(errs, "identity") {
		t.Errorf("an order without resources: %d, %q", code, errs)
	}
}

func TestSecretsAreSealedToVouchedKeysOnly(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	const password, account = "correct-horse", "ad12345678@163.gd"
	d.write("secrets", `{"account":"`+account+`","password":"`+password+`"}`)
	d.write("typo", `{"pasword":"`+password+`"}`)
	d.do("device", "statement", "--operator", "@stranger.key", "--bundle", "@bundle", "--out", "@forged")

	sign := func(args ...string) (int, string) {
		t.Helper()
		code, out, errs := d.ontctl(append([]string{"order", "sign", "--out", "@sealed", "@order"}, args...)...)
		for _, text := range []string{out, errs} {
			if strings.Contains(text, password) || strings.Contains(text, account) {
				t.Errorf("a secret is printed: %q", text)
			}
		}
		return code, errs
	}
	for name, tc := range map[string]struct {
		args string
		code int
	}{
		"no statement":         {"--operator @operator.key --secrets @secrets", cli.Usage},
		"not a statement":      {"--operator @operator.key --secrets @secrets --statement @trust", cli.Usage},
		"unknown secret":       {"--operator @operator.key --secrets @typo --statement @statement", cli.Usage},
		"a stranger's word":    {"--operator @operator.key --secrets @secrets --statement @forged", cli.Refused},
		"... with trust list":  {"--operator @operator.key --secrets @secrets --statement @forged --trust @trust --root @root.pub", cli.Refused},
		"another operator's":   {"--operator @operator2.key --secrets @secrets --statement @statement", cli.Refused},
		"... with trust list ": {"--operator @operator2.key --secrets @secrets --statement @statement --trust @trust --root @root.pub", cli.OK},
		"our own":              {"--operator @operator.key --secrets @secrets --statement @statement", cli.OK},
	} {
		if code, errs := sign(strings.Fields(tc.args)...); code != tc.code {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, tc.code, errs)
		}
	}

	signed := d.read("sealed")
	env := d.envelope("sealed")
	var o order.Order
	if err := peek(env, order.TypeOrder, &o); err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(signed+string(content), password) || strings.Contains(string(content), account) {
		t.Error("a secret stands in the signed order")
	}
	if o.Services[0].Account != "ad*****@163.gd" {
		t.Errorf("account is shown as %q", o.Services[0].Account)
	}
	secrets, err := o.Sealed.Unseal(boxPublic, boxPrivate)
	if err != nil || secrets.Password != password || secrets.Account != account {
		t.Errorf("the gateway cannot open what was sealed to it: %v", err)
	}
}

// visitRecords are records as a gateway closes them.
func (d *desk) visitRecords(verdicts ...acceptance.Verdict) []string {
	d.t.Helper()
	log, err := record.OpenLog(record.LogOptions{FS: durable.OS{}, Dir: d.path("records"), Key: d.key("gateway.key")})
	if err != nil {
		d.t.Fatal(err)
	}
	names := make([]string, 0, len(verdicts))
	for i, verdict := range verdicts {
		name := "record" + string(rune('1'+i))
		cmd := order.Command{
			V: 1, ID: name, Order: "WO-7", Rev: 1, Device: device, Type: order.Accept,
			Counter: uint64(time.Now().UnixMilli()) + uint64(i),
		}
		env, err := cmd.Sign(d.key("technician.key"))
		if err != nil {
			d.t.Fatal(err)
		}
		rx := -19.2
		if verdict == acceptance.Fail {
			rx = -27.4
		}
		ladder, err := json.Marshal(acceptance.Report{Verdict: verdict, Results: []acceptance.Result{{
			Rung: acceptance.Optical, Verdict: verdict, Required: true,
			Measurements: []acceptance.Measurement{{Name: "rx_power_dbm", Value: rx, Source: "console:rtl960x"}},
		}}})
		if err != nil {
			d.t.Fatal(err)
		}
		causes, err := json.Marshal(diagnosis.Diagnosis{})
		if err != nil {
			d.t.Fatal(err)
		}
		_, data, err := log.Close(record.Record{
			Device: device, Tenant: "lab", Job: name, Technician: "T-1024",
			Trust: d.envelope("trust"), Statement: d.envelope("statement"), Order: d.envelope("signed"), Command: env,
			Verdict: string(verdict), Ladder: ladder, Diagnosis: causes,
		})
		if err != nil {
			d.t.Fatal(err)
		}
		d.write(name, string(data))
		names = append(names, "@"+name)
	}
	return names
}

func TestRecords(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass, acceptance.Fail)
	whole := d.read("record2")
	d.write("cut", whole[:len(whole)/2])
	d.write("empty", "")
	flip := strings.Index(whole, `"payload":"`) + len(`"payload":"`) + 40
	other := "A"
	if whole[flip] == 'A' {
		other = "B"
	}
	d.write("flipped", whole[:flip]+other+whole[flip+1:])
	d.write("spaced", strings.Replace(whole, ":", ": ", 1))
	d.do("trust", "--root", "@root.key", "--version", "4", "--tenant", "lab", "--add", "operator:op-1:@operator.pub",
		"--revoke-order", "WO-7", "--out", "@revoked")

	for name, tc := range map[string]struct {
		args string
		code int
		says string
	}{
		"genuine":            {"--root @root.pub @record2", cli.OK, "valid"},
		"a chain":            {"--root @root.pub @record1 @record2", cli.OK, "chain of 2 records: intact"},
		"the wrong way":      {"--root @root.pub @record2 @record1", cli.Fail, "oldest first"},
		"no root":            {"@record1", cli.Inconclusive, "signer unknown"},
		"another root":       {"--root @stranger.pub @record1", cli.Inconclusive, "signer unknown"},
		"revoked since":      {"--root @root.pub --trust @revoked @record1", cli.Inconclusive, "order WO-7 is revoked"},
		"trust of a forger":  {"--root @root.pub --trust @signed @record1", cli.Refused, "payload type"},
		"a flipped bit":      {"--root @root.pub @flipped", cli.Fail, "altered"},
		"reformatted":        {"--root @root.pub @spaced", cli.Fail, "altered"},
		"cut off":            {"--root @root.pub @cut", cli.Usage, "unreadable"},
		"empty":              {"--root @root.pub @empty", cli.Usage, "the file is empty"},
		"not there":          {"--root @root.pub @nope", cli.Usage, "no such file"},
		"one of two is cut":  {"--root @root.pub @record1 @cut", cli.Usage, "the chain was not checked"},
		"the rest is told":   {"--root @root.pub @nope @record1", cli.Usage, "#1"},
		"flags after files":  {"@record1 --root @root.pub", cli.OK, "valid"},
		"root as it is sent": {"@record1 --root " + strings.TrimSpace(d.read("root.pub")), cli.OK, "valid"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := d.ontctl(append([]string{"record", "verify", "--lang", "en"}, strings.Fields(tc.args)...)...)
			if code != tc.code || !strings.Contains(out+errs, tc.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", code, tc.code, tc.says, out, errs)
			}
		})
	}

	var v struct {
		Status  string
		N       int
		Verdict string
	}
	if err := json.Unmarshal([]byte(d.do("record", "verify", "--json", "--root", "@root.pub", "@record2")), &v); err != nil ||
		v.Status != "valid" || v.N != 2 || v.Verdict != "fail" {
		t.Errorf("record verify --json: %+v, %v", v, err)
	}
	shown := d.do("record", "show", "--lang", "en", "--root", "@root.pub", "@record2")
	for _, part := range []string{"no. 2", "WO-7 rev 1", "repair", "T-1024", "verdict: fail", "received optical power: -27.4 dBm  [console:rtl960x]"} {
		if !strings.Contains(shown, part) {
			t.Errorf("record show leaves out %q:\n%s", part, shown)
		}
	}
	if shown := d.do("record", "show", "--lang", "zh-CN", "--root", "@root.pub", "@record2"); !strings.Contains(shown, "结论: 不通过") {
		t.Errorf("record show in Chinese:\n%s", shown)
	}
	if code, _, _ := d.ontctl("record", "show", "--root", "@root.pub", "@flipped"); code == cli.OK {
		t.Error("an altered record is shown as if nothing were wrong")
	}
}

// A verdict that its own results contradict is an alteration, whoever signed.
func TestRecordMustAddUp(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Fail)
	env := d.envelope("record1")
	var rec record.Record
	if err := peek(env, order.TypeRecord, &rec); err != nil {
		t.Fatal(err)
	}
	log, err := record.OpenLog(record.LogOptions{FS: durable.OS{}, Dir: d.path("lies"), Key: d.key("gateway.key")})
	if err != nil {
		t.Fatal(err)
	}
	rec.Verdict = string(acceptance.Pass)
	_, data, err := log.Close(rec)
	if err != nil {
		t.Fatal(err)
	}
	d.write("lie", string(data))
	code, out, _ := d.ontctl("record", "verify", "--lang", "en", "--root", "@root.pub", "@lie")
	if code != cli.Fail || !strings.Contains(out, "its results add up to fail") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestCounterRises(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "t.key")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var last uint64
	for i, at := range []time.Time{now, now, now.Add(-24 * time.Hour), time.Unix(0, 0), now.Add(time.Second)} {
		n, err := nextCounter(key, at)
		if err != nil {
			t.Fatal(err)
		}
		if n <= last {
			t.Errorf("step %d: counter %d is not above %d", i, n, last)
		}
		last = n
	}
	if last != uint64(now.Add(time.Second).UnixMilli()) {
		t.Errorf("counter %d does not follow the clock", last)
	}
	if err := os.WriteFile(key+".counter", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nextCounter(key, now); err == nil {
		t.Error("a damaged counter was taken")
	}
}
