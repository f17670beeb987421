package render_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/ontctl/render"
	"ontagent/transport/durable"
)

const device = "HWTC12345678"

// key makes a key pair of the one letter, for these tests alone.
func key(letter byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{letter}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) order.PublicKey {
	pub, _ := k.Public().(ed25519.PublicKey)
	return order.PublicKey(pub)
}

func root() ed25519.PublicKey { return ed25519.PublicKey(public(key('r'))) }

// visit is a record before it is closed. The tests change it.
type visit struct {
	report    acceptance.Report
	diagnosis diagnosis.Diagnosis
	order     order.Order
	extract   *order.Extract
	record    record.Record
}

func at(minute int) time.Time { return time.Date(2026, 11, 22, 6, minute, 30, 0, time.UTC) }

func ok(name string, v any, source, raw, note string) acceptance.Measurement {
	return acceptance.Measurement{Name: name, Value: v, Status: "ok", Source: source, Raw: raw, Note: note}
}

func limit(name string) acceptance.Limit { return acceptance.Norms().Limit(name) }

func module(name string, v float64, op string) acceptance.Limit {
	return acceptance.Limit{Name: name, Value: v, Op: op, Origin: acceptance.OriginModule}
}

// installation is a visit in which nearly everything was looked at: the upload
// is too slow, and the light weaker than the module likes.
func installation() visit {
	const console, url = "console:rtl960x", "throughput:http://speed.example/test"
	optical := acceptance.Result{
		Rung: acceptance.Optical, Required: true, Verdict: acceptance.Pass, Warnings: []string{"optical.rx_weak_margin"},
		StartS: 2.1, DurationS: 2.3,
		Limits: []acceptance.Limit{
			limit(acceptance.OpticalRxMinDBm), limit(acceptance.OpticalRxMaxDBm),
			module("optical.module_rx_alarm_low_dbm", -28.5, ">="), module("optical.module_rx_warn_low_dbm", -24.1, ">="),
			module("optical.module_rx_warn_high_dbm", -9, "<="), module("optical.module_rx_alarm_high_dbm", -7, "<="),
		},
		Conditions: map[string]string{"reads": "3", "accuracy_db": "+-3 (SFF-8472); typical receivers are better"},
		Measurements: []acceptance.Measurement{
			ok("rx_power_dbm", -24.3, console, "-24.300000  dBm", "median of 3 reads"),
			ok("tx_power_dbm", 2.287339, console, "2.287339  dBm", ""),
			ok("bias_ma", 14.35, console, "", ""),
			{Name: "module_temperature_celsius", Status: "unsupported", Source: console},
			ok("rx_power_other_dbm", -23.9, "module:sff8472", "0x00cb", "median of 3 reads"),
			ok("rx_power_sample_dbm", -24.5, console, "-24.500000  dBm", "read 1"),
			ok("rx_power_sample_dbm", -24.3, console, "-24.300000  dBm", "read 2"),
			ok("rx_power_sample_dbm", -24.1, console, "-24.100000  dBm", "read 3"),
			ok("rx_power_sample_dbm", -23.9, "module:sff8472", "0x00cb", "read 1"),
			ok("rx_power_sample_dbm", -23.9, "module:sff8472", "0x00cb", "read 2"),
			ok("rx_power_sample_dbm", -23.8, "module:sff8472", "0x00d0", "read 3"),
			ok("margin_db", 0.6999999999999993, console, "", "received power above the lower limit"),
		},
		Log: []string{console + `: rx ok "-24.300000  dBm"`},
	}
	speed := acceptance.Result{
		Rung: acceptance.Throughput, Required: true, Verdict: acceptance.Fail, Causes: []string{"throughput.upload_only"},
		Reason: "up: 41.93 Mbit/s are 83.86 % of 50 Mbit/s", StartS: 9, DurationS: 26.4,
		Limits:     []acceptance.Limit{limit(acceptance.ThroughputMinRatio)},
		Conditions: map[string]string{"layer": "tcp", "connections": "4", "server": "203.0.113.9:8080 speed.example", "test_bytes": "712345678"},
		Measurements: []acceptance.Measurement{
			ok("throughput_down_mbps", 519.1860065538211, url, "519.82 520.05 517.68 518.00 521.11 519.90 516.42 520.70 519.01 518.92", "tcp, in 10.00 s"),
			ok("throughput_down_ratio", 1.0383720131076422, url, "", "of 500 Mbit/s"),
			ok("throughput_down_limited_by", "line", url, "", ""),
			ok("throughput_up_mbps", 41.93, url, "47.51 46.79 45.27 44.01 42.80 41.20 39.90 38.70 37.20 35.92", "tcp, in 10.00 s"),
			ok("throughput_up_ratio", 0.8386, url, "", "of 50 Mbit/s"),
			ok("throughput_up_limited_by", "line", url, "", ""),
		},
	}
	v := visit{
		report: acceptance.Report{Verdict: acceptance.Fail, DurationS: 47.5, Results: []acceptance.Result{
			{
				Rung: acceptance.Identity, Required: true, Verdict: acceptance.Pass, DurationS: 2.072,
				Measurements: []acceptance.Measurement{
					ok("sn", device, console, device, "ordered: "+device),
					ok("mac", "02:00:00:64:00:02", "interface:wan0", "", "ordered: 02:00:00:64:00:02"),
				},
			},
			optical,
			{
				Rung: acceptance.Registration, Required: true, Verdict: acceptance.Pass, DurationS: 1.4,
				Measurements: []acceptance.Measurement{ok("onu_state", "operational", console, "O5", "read 1: omci yes"), ok("gem_ports", 3.0, console, "", "")},
			},
			{
				Rung: acceptance.Reachability, Required: true, Verdict: acceptance.Pass, DurationS: 1.9,
				Limits:       []acceptance.Limit{limit(acceptance.ReachLossMaxRatio), limit(acceptance.ReachRTTMaxMs)},
				Measurements: []acceptance.Measurement{ok("loss_ratio", 0.0, "ping:203.0.113.1", "", ""), ok("rtt_ms", 3.26, "ping:203.0.113.1", "", "")},
			},
			{
				Rung: acceptance.Account, Required: true, Verdict: acceptance.Pass, DurationS: 0.1,
				Measurements: []acceptance.Measurement{ok("some_newer_figure_mbps", 500.0, "extract", "", "")},
			},
			speed,
			{
				Rung: acceptance.IPTV, Verdict: acceptance.Skipped, SkippedFor: acceptance.Throughput,
			},
			{
				Rung: acceptance.Host, Verdict: acceptance.Inconclusive, Reason: "no load is readable", DurationS: 2.5,
				Measurements: []acceptance.Measurement{{Name: "cpu_busy_ratio", Status: "error", Source: "proc:stat"}},
			},
		}},
		order: order.Order{
			V: 1, Order: "WO-20261122-017", Rev: 2, Type: order.Install, Tenant: "lab", Device: device,
			Technicians: []order.Technician{{ID: "T-1024", Key: public(key('t'))}},
			Resources:   order.Resources{SN: device, MAC: "02:00:00:64:00:02", PONPort: "0/3/7", SplitterPort: "FXX-12/08", LANPort: "lan0"},
			Services: []order.Service{
				{Kind: "internet", Access: "pppoe", VLAN: 41, DownMbps: 500, UpMbps: 50, Account: "ad*****@163.gd"},
				{Kind: "iptv", Access: "ipoe", VLAN: 45},
			},
			Thresholds: map[string]float64{"cpu.max": 0.8}, Allow: []order.CommandType{order.Accept}, Consents: []string{order.ConsentDisturb},
			NotBefore: at(0), NotAfter: at(0).Add(24 * time.Hour), MaxRuns: 5, MaxBytes: 2_000_000_000,
		},
		extract: &order.Extract{
			V: 1, Order: "WO-20261122-017", Device: device, Taken: at(5), Account: "ad*****@163.gd", State: order.AccountActive,
			DownMbps: 500, UpMbps: 50, Template: "FTTH-500M", Pools: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
			Session: &order.ExtractSession{Online: true, V4: netip.MustParseAddr("203.0.113.77"), NAS: "BRAS-1", NASPort: "slot=1;port=3"},
		},
		record: record.Record{
			Device: device, Tenant: "lab", Technician: "T-1024", Agent: record.Agent{Version: "v1.6.0", Epoch: 12},
			Time: record.Moment{UptimeS: 93784, UTC: "2026-11-22T06:12:08Z", Clock: "ntp"}, Verdict: "fail",
			Baseline: map[string]float64{"rx_power_dbm": -24.3, "tx_power_dbm": 2.287339},
			Line: &record.Line{
				N: 4, SHA256: strings.Repeat("5e", 32), Closed: "2026-09-20T03:00:00Z", Clock: "ntp",
				Readings: map[string]float64{"rx_power_dbm": -20.1, "tx_power_dbm": 2.3},
			},
		},
	}
	v.diagnosis = diagnosis.Diagnosis{
		Causes: []diagnosis.Ranked{
			{
				Code: diagnosis.ThroughputUploadOnly, Side: diagnosis.SideOLT, OrSide: diagnosis.SideODN, Severity: diagnosis.Major,
				Kind: diagnosis.KindFault, Confidence: 0.85,
				For: []diagnosis.Ref{
					{Rung: "throughput", What: "cause", Value: "throughput.upload_only"},
					{Rung: "throughput", What: "throughput_up_mbps", Value: "41.93"},
				},
				Against: []diagnosis.Ref{{Rung: "registration", What: "verdict", Value: "pass"}},
			},
			{
				Code: diagnosis.OpticalRxWeakMargin, Side: diagnosis.SideDrop, Severity: diagnosis.Minor, Kind: diagnosis.KindWarning, Confidence: 0.6,
				For: []diagnosis.Ref{{Rung: "optical", What: "rx_power_dbm", Value: "-24.3"}},
			},
		},
		Consequences: []diagnosis.Consequence{{Rung: "iptv", By: diagnosis.ThroughputUploadOnly}},
	}
	return v
}

// close signs the record as a gateway does.
func (v visit) close(t *testing.T) []byte {
	t.Helper()
	r := v.record
	must := func(env order.Envelope, err error) order.Envelope {
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	trust := order.TrustList{V: 1, Version: 3, Tenant: "lab", Keys: []order.TrustKey{{ID: "op-1", Role: order.RoleOperator, Key: public(key('o'))}}}
	r.Trust = must(trust.Sign(key('r')))
	statement := order.Statement{V: 1, Device: device, Ed25519: public(key('g')), TLSSPKI: strings.Repeat("ab", 32)}
	statement.X25519[0] = 9
	r.Statement = must(statement.Sign(key('o')))
	r.Order = must(v.order.Sign(key('o')))
	cmd := order.Command{V: 1, ID: "visit-1", Order: v.order.Order, Rev: v.order.Rev, Device: device, Type: order.Accept, Counter: 7}
	r.Command, r.Job = must(cmd.Sign(key('t'))), cmd.ID
	if v.extract != nil {
		env := must(v.extract.Sign(key('o')))
		r.Extract = &env
	}
	var err error
	if r.Ladder, err = json.Marshal(v.report); err != nil {
		t.Fatal(err)
	}
	if r.Diagnosis, err = json.Marshal(v.diagnosis); err != nil {
		t.Fatal(err)
	}
	log, err := record.OpenLog(record.LogOptions{FS: durable.OS{}, Dir: t.TempDir(), Key: key('g')})
	if err != nil {
		t.Fatal(err)
	}
	_, data, err := log.Close(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// page renders a record as it was verified.
func page(t *testing.T, data []byte, o render.Options) *render.Page {
	t.Helper()
	v := record.Verify(data, record.VerifyOptions{Root: root()})
	d, err := render.Open(data, v)
	if err != nil {
		t.Fatal(err)
	}
	return render.NewPage(d, o)
}

func html(t *testing.T, p *render.Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func text(t *testing.T, p *render.Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Text(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// resign changes the payload of a record, and signs it again with a key of the
// letter; 0 leaves the old signature on the new content.
func resign(t *testing.T, data []byte, letter byte, change func(payload string) string) []byte {
	t.Helper()
	env, err := order.ParseEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		t.Fatal(err)
	}
	changed := change(string(payload))
	if changed == string(payload) {
		t.Fatal("nothing was changed")
	}
	env.Payload = base64.StdEncoding.EncodeToString([]byte(changed))
	if letter != 0 {
		if env, err = order.Sign(order.TypeRecord, []byte(changed), key(letter)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := record.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// receipt signs a receipt for a record.
func receipt(t *testing.T, data []byte, change func(r *record.Receipt)) *record.ReceiptVerification {
	t.Helper()
	v := record.Verify(data, record.VerifyOptions{Root: root()})
	splitter := record.JudgeSplitter(record.Splitter{RxPowerDBm: -18.6, Port: "FXX-12/08", Meter: "PM-2 0815"}, -20)
	r := record.Receipt{
		V: 1, RecordSHA256: v.Digest, Order: "WO-20261122-017", Job: "visit-1", Device: device, Technician: "T-1024", Made: at(20),
		Splitter: &splitter,
		Attachments: []record.Attachment{
			{Name: "signature.png", Kind: record.SignatureFile, MediaType: "image/png", Bytes: 2048, SHA256: strings.Repeat("01", 32)},
			{Name: "splitter.jpg", Kind: record.SplitterPhoto, MediaType: "image/jpeg", Bytes: 1 << 20, SHA256: strings.Repeat("02", 32)},
			{Name: "onu.jpg", Kind: record.ONUPhoto, MediaType: "image/jpeg", Bytes: 900, SHA256: strings.Repeat("03", 32)},
		},
		Customer: record.Customer{
			Signature: &record.Signature{Attachment: "signature.png", OnBehalf: true, Relation: record.Family},
			Ratings:   map[record.RatingItem]record.Rating{record.RateOverall: record.VerySatisfied, record.RateTidiness: record.Dissatisfied},
		},
		Remarks: "客户不在家，家属代签",
	}
	if change != nil {
		change(&r)
	}
	env, err := r.Sign(key('t'))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := record.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	rv := record.VerifyReceipt(signed, v)
	return &rv
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
