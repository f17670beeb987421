package transport_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"ontagent/transport"
)

var update = flag.Bool("update", false, "write the golden payloads")

const (
	docs   = "../docs/mqtt-api"
	device = "HWTC12345678"
)

type fixedClock struct{}

func (fixedClock) Wall() (int64, string) { return 1700000000123, transport.ClockNTP }
func (fixedClock) Uptime() time.Duration { return 86400123 * time.Millisecond }

// envelope is a signed document as it travels; the signature here is none.
func envelope(payloadType, payload string) string {
	return `{"payloadType":"` + payloadType + `","payload":"` + base64.StdEncoding.EncodeToString([]byte(payload)) +
		`","signatures":[{"keyid":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","sig":"` + strings.Repeat("QUJD", 21) + `QQ=="}]}`
}

// What is inside the envelopes of cfg and ack.
const (
	cfgPayload = `{"v":1,"tenant":"isp","device":"","version":8,"settings":{"spread_s":60,"backoff_cap_s":120,"keepalive_s":120,"backfill_bytes_per_s":16384}}`
	ackPayload = `{"v":1,"tenant":"isp","device":"` + device + `","version":1700000000123,"points":[{"class":"event","epoch":17,"seq":812}],` +
		`"stored":[{"class":"record","epoch":17,"seq":4,"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}]}`
)

type golden struct {
	name   string // of the file, less .golden.json
	schema string
	class  transport.Class // empty: a message to the device, without header
	body   string
	fields []transport.Field // instead of body
}

func goldens() []golden {
	f := func(kv ...any) []transport.Field {
		var out []transport.Field
		for i := 0; i < len(kv); i += 2 {
			key, _ := kv[i].(string)
			out = append(out, transport.Field{Key: key, Value: kv[i+1]})
		}
		return out
	}
	const sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	return []golden{
		{name: "state-online", schema: "state", class: "session", fields: f("state", "online", "session", 3)},
		{name: "state-offline", schema: "state", class: "session", fields: f("state", "offline", "session", 3)},
		{name: "pending", schema: "pending", class: "session", fields: f("session", 3)},
		{name: "info", schema: "info", class: "session", body: `{"actions":["accept","diagnose","cancel","close","repair"],"agent_version":"0.1.0",
			"collectors":["host","link","optics","pon","wan"],"console_driver":"rtl960x",
			"ed25519":"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=","kernel":"5.10.176","model":"HG6145D","os":"OpenWrt 23.05.5",
			"rungs":["identity","optical","dns"],"session_nonce":"b7e151628aed2a6abf7158809cf4f3c7",
			"tls_spki":"` + sha + `","trust_version":4,"x25519":"ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="}`},
		{name: "telemetry-link", schema: "telemetry-link", class: "telemetry", fields: f(
			"subject", "eth0.2", "ifindex", 4, "oper_state", "up", "admin_up", true, "carrier", true, "carrier_changes", uint64(3),
			"mtu", 1500, "speed_mbps", 1000, "duplex", "full", "rx_bytes", uint64(1<<53+1), "tx_bytes", uint64(12345678),
			"rx_packets", uint64(987654), "tx_packets", uint64(54321), "rx_errors", uint64(0), "tx_errors", uint64(0), "rx_dropped", uint64(2),
			"tx_dropped", uint64(0), "rx_crc_errors", uint64(0), "multicast", uint64(17), "collisions", uint64(0),
			"rx_bps", uint64(93_400_000), "tx_bps", uint64(1_200_000), "rx_pps", 8123.4, "tx_pps", 310.0,
			"offload", "hw_tc", "counters_blind", true)},
		{name: "telemetry-host", schema: "telemetry-host", class: "telemetry", fields: f(
			"cpu_busy_ratio", 0.0431, "cpu_max_core_busy_ratio", 0.11, "load1", 0.2, "load5", 0.1, "load15", 0.05,
			"mem_total_bytes", uint64(64<<20), "mem_available_bytes", uint64(21<<20), "mem_used_ratio", 0.6719,
			"disk_total_bytes", uint64(8<<20), "disk_free_bytes", uint64(3<<20), "disk_used_ratio", 0.625,
			"temperature_celsius", 51.5, "temperature_zone", "thermal_zone0:cpu",
			"rss_bytes", uint64(9<<20), "cpu_seconds_total", 12.345, "goroutines", 31, "open_fds", 14)},
		{name: "telemetry-wan", schema: "telemetry-wan", class: "telemetry", fields: f(
			"interface", "pppoe-wan", "present", true, "up", true, "mtu", 1492, "ipv4_address", "203.0.113.7/32",
			"ipv4_default", true, "ipv4_default_interface", "pppoe-wan", "ipv4_default_metric", uint64(0),
			"ipv6_default", false, "resolvers", 2, "resolver1", "192.0.2.53", "resolver2", "2001:db8::53")},
		{name: "telemetry-optics", schema: "telemetry-optics", class: "telemetry", fields: f(
			"rx_power_dbm", -22.924298, "rx_power_status", "ok", "rx_power_source", "console:rtl960x", "rx_power_raw", "-22.924298  dBm",
			"tx_power_dbm", 2.3, "tx_power_status", "ok", "tx_power_source", "console:rtl960x",
			"bias_ma", 11.2, "bias_status", "ok", "temperature_status", "unsupported", "voltage_v", 3.27, "voltage_status", "ok",
			"alarms", "", "rx_alarm_low_dbm", -30.0)},
		{name: "telemetry-optics-dark", schema: "telemetry-optics", class: "telemetry", fields: f(
			"rx_power_status", "no_light", "rx_power_source", "console:rtl960x", "rx_power_raw", "-inf  dBm",
			"tx_power_status", "error", "alarms", "rx_low,optical_los")},
		{name: "telemetry-pon", schema: "telemetry-pon", class: "telemetry", fields: f(
			"state", "operational", "state_raw", "O5", "serial", "HWTC12345678", "omci_provisioned", "yes", "gem_ports", 4, "tconts", 1,
			"alarms", "", "alarms_known", "los,lof", "bip", uint64(12), "bip_per_s", 0.1, "source", "console:rtl960x")},
		{name: "telemetry-collector", schema: "telemetry-collector", class: "telemetry", fields: f(
			"subject", "optics", "age_s", 31.5, "duration_ms", 412, "runs", uint64(288), "failures", uint64(2), "panics", uint64(0),
			"stuck", false, "no_data", false, "error", "cannot read optics: no answer within 3 s")},
		{name: "telemetry-heartbeat", schema: "telemetry-heartbeat", class: "telemetry", fields: f(
			"spool_degraded", false, "queue_record", 3, "queue_event", 12, "queue_telemetry", 0, "queue_debug", 0, "unconfirmed", 9,
			"dropped_total", uint64(232), "gaps_total", uint64(2), "spool_flash_bytes", int64(131072),
			"audit_n", uint64(41), "audit_sha256", sha, "record_n", uint64(7), "record_sha256", sha,
			"mqtt_sessions", uint64(3), "cert_days_left", 41)},
		{name: "backfill-rollup", schema: "backfill-rollup", class: "telemetry", fields: f(
			"subject", "eth0.2", "cpu_busy_ratio", 0.0431, "cpu_busy_ratio_min", 0.01, "cpu_busy_ratio_max", 0.31,
			"oper_state", "up", "samples", 30, "window_s", uint64(300))},
		{name: "telemetry-other", schema: "telemetry", class: "telemetry", fields: f("subject", "x0", "depth", 3)},
		{name: "event-link", schema: "event", class: "event", fields: f(
			"subject", "eth1", "what", "oper_state", "before", "up", "after", "down", "ifindex", 5, "carrier", false)},
		{name: "event-optics", schema: "event", class: "event", fields: f(
			"what", "rx_power", "before", "-22.9 dBm", "after", "-27.4 dBm", "change_db", -4.5, "source", "console:rtl960x")},
		{name: "event-gap", schema: "event-gap", class: "event", fields: f(
			"gap_class", "telemetry", "gap_epoch", 17, "from_seq", 812, "to_seq", 1043, "count", 232, "reason", "class_full")},
		{name: "event-gap-restart", schema: "event-gap", class: "event", fields: f(
			"gap_class", "telemetry", "gap_from_epoch", 15, "gap_epoch", 16, "from_seq", 1, "reason", "restart")},
		{name: "event-sync", schema: "event-sync", class: "event", fields: f("what", "stepped", "before", "", "after", "", "step_s", 1767225600.5)},
		{name: "event-audit", schema: "event-audit", class: "record", fields: f(
			"audit_n", uint64(41), "audit_line", `{"n":41,"prev":"`+sha+`","epoch":17,"uptime_s":86400.1,"utc":"2026-01-01T00:00:00Z","clock":"ntp","event":"granted"}`)},
		{name: "event-spool", schema: "event-spool", class: "event", fields: f(
			"subject", "record", "what", "degraded", "before", "flash", "after", "memory", "reason", "no space left on device")},
		{name: "event-certificate", schema: "event-certificate", class: "event", fields: f(
			"subject", device, "what", "expiring", "before", "", "after", "", "not_before", int64(1767225600), "not_after", int64(1798761600), "days_left", 14)},
		{name: "event-repair", schema: "event-repair", class: "event", fields: f(
			"subject", "udhcpc[812]", "what", "helped", "before", "fail", "after", "pass", "order", "WO-2026-0001", "action", "renew",
			"cause", "addr.none", "reason", "the line is fine now", "undone", "", "took_s", 21.4, "cause_after", "")},
		{name: "event-fault", schema: "event-fault", class: "event", fields: f(
			"subject", "pon.los", "what", "state", "before", "", "after", "opened", "id", "17-3", "state", "opened", "code", "pon.los",
			"fault_class", "line", "side", "drop", "or_side", "odn", "severity", "critical", "source", "telemetry",
			"opened_clock", "ntp", "opened_boot", "0c4b8d1e-6f0e-4e4b-9d0c-6b1d3d2f7a55", "opened_uptime_s", 86385.0,
			"respond_by_uptime_s", 87285.0, "due_uptime_s", 172785.0,
			"opened_utc", "2023-11-14T22:13:05Z", "respond_by_utc", "2023-11-14T22:28:05Z", "due_utc", "2023-11-15T22:13:05Z",
			"recurrence", 2, "flaps", 0)},
		{name: "event-fault-undated", schema: "event-fault", class: "event", fields: f(
			"subject", "dial.dropped", "what", "state", "before", "opened", "after", "cleared", "id", "17-4", "state", "cleared", "code", "dial.dropped",
			"fault_class", "network", "side", "bras_aaa", "severity", "critical", "source", "telemetry",
			"opened_clock", "none", "opened_boot", "0c4b8d1e-6f0e-4e4b-9d0c-6b1d3d2f7a55", "opened_uptime_s", 120.5,
			"respond_by_uptime_s", 1020.5, "due_uptime_s", 129720.5, "recurrence", 0, "flaps", 31, "cleared_clock", "none", "lasted_s", 3600.5)},
		{name: "event-inventory", schema: "event-inventory", class: "event", fields: f(
			"what", "module", "before", "HUAWEI HPSP-SFP 1234", "after", "SOURCEPHOTONICS SPS-34 5678")},
		{name: "event-inspection", schema: "event-inspection", class: "event", body: `{"id":"17-1","why":"schedule",
			"started":{"utc":"2026-02-04T19:50:00Z","clock":"ntp","uptime_s":3455400.5},"duration_s":31.4,"verdict":"fail","first_cause":"host.traffic",
			"rungs":[{"rung":"optical","verdict":"pass"},{"rung":"host","verdict":"fail","cause":"host.traffic"}],
			"compared":[{"name":"rx_power_dbm","baseline":-20.1,"now":-20.6,"limit":-25,"op":">","ok":true,"source":"record:7"},
			{"name":"utilisation_down_ratio","now":0.83,"limit":0.7,"op":"<","ok":false,"source":"busiest hour of 1440h0m0s, against the contract"},
			{"name":"utilisation_up_ratio","limit":0.7,"op":"<","source":"not one hour was watched"}]}`},
		{name: "event-inspection-undated", schema: "event-inspection", class: "event", body: `{"id":"18-1","why":"command","job":"c-20260101-9",
			"started":{"clock":"none","uptime_s":455.5},"duration_s":0,"verdict":"inconclusive","rungs":[],"compared":[],"problem":"no ladder"}`},
		{name: "status-diagnosed", schema: "status", class: "record", body: `{"id":"c-20260101-8","order":"WO-2026-0001","command_type":"diagnose",
			"state":"SUCCEEDED","progress":1,"verdict":"pass","summary":[{"rung":"optical","verdict":"pass","required":true}],
			"recent":[{"code":"dial.dropped","kind":"warning","side":"bras_aaa","confidence":0.8}]}`},
		{name: "status-rejected", schema: "status", class: "record", body: `{"id":"c-20260101-7","order":"WO-2026-0001","command_type":"accept",
			"state":"REJECTED","reason":"wrong_device","detail":"the order names HWTC87654321","progress":0}`},
		{name: "status-challenge", schema: "status", class: "record", body: `{"id":"c-20260101-7","order":"WO-2026-0001","command_type":"accept",
			"state":"CHALLENGE","nonce":"8f14e45fceea167a5a36dedd4bea2543","progress":0}`},
		{name: "status-running", schema: "status", class: "record", body: `{"id":"c-20260101-7","order":"WO-2026-0001","command_type":"accept",
			"state":"RUNNING","step":"optical","step_verdict":"fail","step_reason":"received power is -27.4 dBm, limit above -25 dBm","progress":0.25}`},
		{name: "status-succeeded", schema: "status", class: "record", body: `{"id":"c-20260101-7","order":"WO-2026-0001","command_type":"accept",
			"state":"SUCCEEDED","progress":1,"verdict":"fail","first_cause":"optical.rx_low",
			"summary":[{"rung":"identity","verdict":"pass","required":true},{"rung":"optical","verdict":"fail","required":true,"cause":"optical.rx_low"}],
			"record_sha256":"` + sha + `"}`},
		{name: "record", schema: "record", class: "record", body: `{"order":"WO-2026-0001","record":` +
			envelope("application/vnd.ontagent.record+json", `{"v":1}`) + `}`},
		{name: "cmd", schema: "cmd", body: `{"v":1,"order":` + envelope("application/vnd.ontagent.order+json", `{"v":1}`) +
			`,"command":` + envelope("application/vnd.ontagent.command+json", `{"v":1}`) + `}`},
		{name: "cmd-answer", schema: "cmd", body: `{"v":1,"command":` + envelope("application/vnd.ontagent.command+json", `{"v":1}`) +
			`,"trust":` + envelope("application/vnd.ontagent.trust+json", `{"v":1}`) +
			`,"time":` + envelope("application/vnd.ontagent.time+json", `{"v":1}`) + `}`},
		{name: "cfg", schema: "cfg", body: envelope("application/vnd.ontagent.cfg+json", cfgPayload)},
		{name: "ack", schema: "ack", body: envelope("application/vnd.ontagent.ack+json", ackPayload)},
		{name: "cfg-payload", schema: "cfg-payload", body: cfgPayload},
		{name: "ack-payload", schema: "ack-payload", body: ackPayload},
	}
}

// payload makes what travels.
func (g golden) payload(t *testing.T) []byte {
	t.Helper()
	body := json.RawMessage(g.body)
	if g.fields != nil {
		var err error
		if body, err = transport.EncodeFields(g.fields); err != nil {
			t.Fatal(err)
		}
	}
	if g.class == "" {
		var b bytes.Buffer
		if err := json.Compact(&b, body); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	stamper, err := transport.NewStamper(device, 17, fixedClock{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := transport.Encode(stamper.Stamp(g.class), body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertContent()
	s, err := c.Compile(filepath.Join(docs, "schema", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, payload []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestGoldenPayloads(t *testing.T) {
	covered := map[string]bool{"common": true}
	wanted := map[string]bool{}
	for _, g := range goldens() {
		covered[g.schema], wanted[g.name+".golden.json"] = true, true
		t.Run(g.name, func(t *testing.T) {
			payload := g.payload(t)
			file := filepath.Join("testdata", g.name+".golden.json")
			if *update {
				if err := os.WriteFile(file, append(payload, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(payload)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
			if err := validate(t, compile(t, g.schema), want); err != nil {
				t.Errorf("not by its schema: %v", err)
			}
			if g.class == transport.ClassTelemetry {
				if err := validate(t, compile(t, "telemetry"), want); err != nil {
					t.Errorf("not by the schema of telemetry at large: %v", err)
				}
			}
			if g.class != "" {
				if _, _, err := transport.Decode(want); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, name := range names(t, filepath.Join(docs, "schema")) {
		if !covered[strings.TrimSuffix(name, ".json")] {
			t.Errorf("no golden payload for schema %s", name)
		}
	}
	for _, name := range names(t, "testdata") {
		if strings.HasSuffix(name, ".golden.json") && !wanted[name] {
			t.Errorf("testdata/%s is no one's", name)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if !e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// TestSchemasRefuse holds the schemas to saying no.
func TestSchemasRefuse(t *testing.T) {
	payloads := map[string]golden{}
	for _, g := range goldens() {
		payloads[g.name] = g
	}
	tests := []struct{ golden, old, with string }{
		{"state-online", `"online"`, `"asleep"`},
		{"state-online", `"session":3`, `"session":3,"more":1`},
		{"state-online", `"class":"session"`, `"class":"event"`},
		{"state-online", `"v":1`, `"v":2`},
		{"state-online", `"clock":"ntp"`, `"clock":"good"`},
		{"state-online", `"seq":1`, `"seq":0`},
		{"state-online", device, "HWTC"},
		{"pending", `,"session":3`, ``},
		{"info", `"trust_version":4`, `"trust_version":"4"`},
		{"info", `"rungs":[`, `"rungs":["dns",`},
		{"telemetry-link", `"rx_bytes":9007199254740993`, `"rx_bytes":-1`},
		{"telemetry-link", `"subject":"eth0.2",`, ``},
		{"telemetry-link", `"mtu":1500`, `"mtu":{"a":1}`},
		{"telemetry-host", `"cpu_busy_ratio":0.0431`, `"cpu_busy_ratio":4.31`},
		{"telemetry-optics-dark", `"rx_power_status"`, `"rx_power_dbm":-40,"rx_power_status"`},
		{"telemetry-optics", `"rx_power_status":"ok"`, `"rx_power_status":"fine"`},
		{"telemetry-pon", `"operational"`, `"O5"`},
		{"telemetry-other", `"depth":3`, `"depth":null`},
		{"telemetry-other", `"depth":3`, `"depth":[3]`},
		{"event-link", `"what":"oper_state",`, ``},
		{"event-gap", `"count":232`, `"count":0`},
		{"event-gap", `"class_full"`, `"tired"`},
		{"telemetry-heartbeat", `"queue_record":3,`, ``},
		{"telemetry-heartbeat", `"audit_n":41,`, ``},
		{"telemetry-heartbeat", `"unconfirmed":9`, `"unconfirmed":-9`},
		{"telemetry-heartbeat", `"spool_degraded":false`, `"spool_degraded":"no"`},
		{"backfill-rollup", `"samples":30,`, ``},
		{"backfill-rollup", `"samples":30,`, `"samples":0,`},
		{"backfill-rollup", `"cpu_busy_ratio_min":0.01`, `"cpu_busy_ratio_min":"low"`},
		{"event-sync", `"clock":"ntp"`, `"clock":"floor"`},
		{"event-fault", `"due_utc":"2023-11-15T22:13:05Z",`, ``},
		{"event-fault", `"opened_clock":"ntp"`, `"opened_clock":"none"`},
		{"event-fault", `"opened_clock":"ntp"`, `"opened_clock":"floor"`},
		{"event-fault", `"recurrence":2`, `"recurrence":2,"lasted_s":3`},
		{"event-fault", `"fault_class":"line"`, `"fault_class":"odd"`},
		{"event-fault", `"state":"opened"`, `"state":"ajar"`},
		{"event-fault", `"id":"17-3"`, `"id":"x"`},
		{"event-fault", `"2023-11-15T22:13:05Z"`, `"2023-11-15 22:13"`},
		{"event-fault-undated", `"lasted_s":3600.5`, `"lasted_s":3600.5,"lasted_min_s":1`},
		{"event-fault-undated", `,"lasted_s":3600.5`, ``},
		{"event-fault-undated", `"what":"state"`, `"what":"dated"`},
		{"event-inventory", `"what":"module"`, `"what":"colour"`},
		{"event-inventory", `"before":"HUAWEI HPSP-SFP 1234"`, `"before":""`},
		{"event-inspection", `"why":"schedule"`, `"why":"schedule","job":"c-1"`},
		{"event-inspection", `"why":"schedule"`, `"why":"command"`},
		{"event-inspection", `"verdict":"fail","first_cause"`, `"verdict":"good","first_cause"`},
		{"event-inspection", `"ok":true`, `"ok":"yes"`},
		{"event-inspection", `"op":"<"`, `"op":"!="`},
		{"status-diagnosed", `"kind":"warning"`, `"kind":"odd"`},
		{"event-sync", `"stepped"`, `"jumped"`},
		{"event-sync", `,"step_s":1767225600.5`, ``},
		{"event-audit", `"class":"record"`, `"class":"event"`},
		{"event-audit", `"audit_n":41,`, ``},
		{"event-audit", `"audit_n":41,`, `"audit_n":41,"more":1,`},
		{"event-spool", `"subject":"record"`, `"subject":"session"`},
		{"event-spool", `,"reason":"no space left on device"`, ``},
		{"event-certificate", `"expiring"`, `"old"`},
		{"event-certificate", `"not_after":1798761600`, `"not_after":"soon"`},
		{"event-repair", `"what":"helped"`, `"what":"tried"`},
		{"event-repair", `"action":"renew"`, `"action":"reboot"`},
		{"event-repair", `"order":"WO-2026-0001",`, ``},
		{"ack-payload", `"class":"event"`, `"class":"telemetry"`},
		{"ack-payload", `"version":1700000000123`, `"version":0`},
		{"ack-payload", `"points":[`, `"more":1,"points":[`},
		{"ack-payload", `"seq":812`, `"seq":0`},
		{"cfg-payload", `"spread_s":60`, `"spread_s":6000`},
		{"cfg-payload", `"keepalive_s":120`, `"keepalive_s":1.5`},
		{"cfg-payload", `"spread_s":60`, `"shell":"rm"`},
		{"cfg-payload", `"device":""`, `"device":"x"`},
		{"cfg", `vnd.ontagent.cfg`, `vnd.ontagent.ack`},
		{"ack", `vnd.ontagent.ack`, `vnd.ontagent.cfg`},
		{"status-rejected", `"reason":"wrong_device",`, ``},
		{"status-challenge", `,"nonce":"8f14e45fceea167a5a36dedd4bea2543"`, ``},
		{"status-running", `"step":"optical"`, `"step":"lunch"`},
		{"status-running", `"progress":0.25`, `"progress":25`},
		{"status-running", `"RUNNING"`, `"WALKING"`},
		{"record", `"signatures":[{`, `"signatures":[{"x":1,`},
		{"record", `"order":"WO-2026-0001",`, ``},
		{"cmd", `"v":1,`, ``},
		{"cmd", `"v":1,`, `"v":1,"shell":"rm",`},
		{"cfg", `"payload":"`, `"payload":"*`},
		{"ack", `"payloadType"`, `"type"`},
	}
	for _, tt := range tests {
		payload := string(payloads[tt.golden].payload(t))
		bad := strings.Replace(payload, tt.old, tt.with, 1)
		if bad == payload {
			t.Errorf("%s: no %s", tt.golden, tt.old)
			continue
		}
		if err := validate(t, compile(t, payloads[tt.golden].schema), []byte(bad)); err == nil {
			t.Errorf("%s with %s instead of %s is accepted", tt.golden, tt.with, tt.old)
		}
	}
}

// TestAsyncAPI holds the description to the code: every reference leads
// somewhere, every kind is described with the address that Topic builds and in
// the direction in which it travels.
func TestAsyncAPI(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(docs, "asyncapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["asyncapi"] != "3.1.0" {
		t.Errorf("asyncapi %v", doc["asyncapi"])
	}
	used := map[string]bool{"common.json": true}
	walkRefs(doc, func(ref string) {
		file, pointer, _ := strings.Cut(ref, "#")
		if file != "" {
			used[filepath.Base(file)] = true
			if _, err := os.Stat(filepath.Join(docs, file)); err != nil {
				t.Errorf("%s: %v", ref, err)
			}
			return
		}
		if _, ok := at(doc, pointer); !ok {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	for _, name := range names(t, filepath.Join(docs, "schema")) {
		if !used[name] {
			t.Errorf("schema %s is not used", name)
		}
	}

	channels, _ := doc["channels"].(map[string]any)
	var described []string
	for kind := range channels {
		described = append(described, kind)
	}
	slices.Sort(described)
	var kinds []string
	up := []transport.Kind{
		transport.KindState, transport.KindInfo, transport.KindTelemetry, transport.KindEvent,
		transport.KindBackfill, transport.KindRecord, transport.KindPending, transport.KindStatus,
	}
	down := []transport.Kind{transport.KindCommand, transport.KindConfig, transport.KindAck}
	for _, kind := range slices.Concat(up, down) {
		kinds = append(kinds, string(kind))
		address, _ := at(doc, "/channels/"+string(kind)+"/address")
		parameters, _ := at(doc, "/channels/"+string(kind)+"/parameters")
		name := ""
		if p, _ := parameters.(map[string]any); p["name"] != nil {
			name = "x"
		}
		want, err := transport.Topic("isp", device, kind, name)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		text, _ := address.(string)
		if got := strings.NewReplacer("{tenant}", "isp", "{device}", device, "{name}", "x").Replace(text); got != want {
			t.Errorf("%s has address %q, Topic builds %q", kind, got, want)
		}
	}
	slices.Sort(kinds)
	if diff := cmp.Diff(kinds, described); diff != "" {
		t.Errorf("channels (-kinds +described):\n%s", diff)
	}

	operations, _ := doc["operations"].(map[string]any)
	actions := map[string]string{}
	for name, o := range operations {
		op, _ := o.(map[string]any)
		channel, _ := op["channel"].(map[string]any)
		ref, _ := channel["$ref"].(string)
		action, _ := op["action"].(string)
		kind := strings.TrimPrefix(ref, "#/channels/")
		if actions[kind] != "" {
			t.Errorf("%s: %s has two operations", name, kind)
		}
		actions[kind] = action
	}
	for _, kind := range up {
		if actions[string(kind)] != "send" {
			t.Errorf("%s is %q, want send", kind, actions[string(kind)])
		}
	}
	for _, kind := range down {
		if actions[string(kind)] != "receive" {
			t.Errorf("%s is %q, want receive", kind, actions[string(kind)])
		}
	}
	will, _ := at(doc, "/servers/broker/bindings/mqtt/lastWill/message")
	text, _ := will.(string)
	if err := validate(t, compile(t, "state"), []byte(text)); err != nil {
		t.Errorf("the example of a will: %v", err)
	}
}

func walkRefs(v any, f func(ref string)) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			f(ref)
		}
		for _, e := range v {
			walkRefs(e, f)
		}
	case []any:
		for _, e := range v {
			walkRefs(e, f)
		}
	}
}

// at follows a JSON pointer without escapes.
func at(v any, pointer string) (any, bool) {
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[part]; !ok {
			return nil, false
		}
	}
	return v, true
}
