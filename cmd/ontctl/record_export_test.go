package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ontagent/agent/acceptance"
	"ontagent/cmd/cli"
)

func TestExportIsAsDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.FromSlash("../../docs/records-export.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "\n## A row per record\n")
	perRecord, perRung, ok := strings.Cut(rest, "\n## A row per rung, measurement and limit\n")
	if !ok {
		t.Fatal("the page lacks its sections")
	}
	for _, tc := range []struct {
		text    string
		columns []column
	}{{perRecord, recordColumns()}, {perRung, rungColumns()}} {
		var told []column
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(tc.text, -1) {
			told = append(told, column{m[1], m[2]})
		}
		if len(told) != len(tc.columns) {
			t.Errorf("%d fields are documented of %d", len(told), len(tc.columns))
		}
		for i := range min(len(told), len(tc.columns)) {
			if told[i] != tc.columns[i] {
				t.Errorf("field %d is %v, documented is %v", i, tc.columns[i], told[i])
				break
			}
		}
	}
}

func TestRecordExport(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass, acceptance.Fail)
	if err := os.MkdirAll(d.path("dir/sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	whole := d.read("record2")
	sig := strings.Index(whole, `"sig":"`) + len(`"sig":"`)
	altered := whole[:sig] + "QQQQ" + whole[sig+4:]
	d.receiptFor("record1", "receipt1", picture(t))
	d.write("dir/1.record", d.read("record1"))
	d.write("dir/1.receipt", d.read("receipt1"))
	d.write("dir/sub/2.record", whole)
	d.write("dir/copy.record", whole)
	d.write("dir/notes.txt", "not looked at")
	d.write("altered", altered)
	d.write("cut", whole[:len(whole)/2])
	d.write("empty", "")
	for name, tc := range map[string]struct {
		args string
		code int
		rows int
		err  string
	}{
		"a directory":     {"--root @root.pub --dir @dir", cli.OK, 2, "exported once"},
		"files":           {"@record1 @record2", cli.OK, 2, ""},
		"with a receipt":  {"--root @root.pub @record1 @receipt1", cli.OK, 1, ""},
		"altered":         {"--root @root.pub @record1 @altered", cli.Fail, 1, "altered"},
		"altered, wanted": {"--any --root @root.pub @record1 @altered", cli.Fail, 2, "altered"},
		"another root":    {"--root @stranger.pub @record1", cli.Inconclusive, 0, "not vouched for"},
		"bad ones":        {"@empty @cut @record1 @nope @signed @dir", cli.Usage, 1, "the file is empty"},
		"empty directory": {"--dir @records-none", cli.Usage, -1, "no such file"},
		"nothing":         {"", cli.Usage, -1, "give files, or --dir"},
		"bom of json":     {"--bom @record1", cli.Usage, -1, "--bom goes with"},
		"another format":  {"--format xml @record1", cli.Usage, -1, `--format "xml"`},
		"over itself":     {"-o @record1 @record1", cli.Usage, -1, "would overwrite"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := d.ontctl(append([]string{"record", "export"}, strings.Fields(tc.args)...)...)
			if code != tc.code || !strings.Contains(errs, tc.err) {
				t.Fatalf("ended with %d, not %d: %s%s", code, tc.code, errs, out)
			}
			if tc.rows < 0 {
				return
			}
			var rows []map[string]any
			if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != tc.rows {
				t.Fatalf("%d rows, not %d, %v: %s", len(rows), tc.rows, err, out)
			}
			for _, r := range rows {
				if len(r) != len(recordColumns()) || r["device"] != device || r["account"] == "" {
					t.Errorf("a row of %d: %v", len(r), r)
				}
			}
			if name == "with a receipt" && (rows[0]["receipt_status"] != "valid" || rows[0]["attachments"] != 1.0 || rows[0]["signed"] != "no") {
				t.Errorf("the receipt is missing: %v", rows[0])
			}
		})
	}
	if code, _, errs := d.ontctl("record", "export", "@empty", "@cut", "@record1", "@nope", "@signed", "@dir"); code != cli.Usage ||
		strings.Count(errs, "\n") != 5 {
		t.Errorf("not every bad file is told: %s", errs)
	}
	lines := strings.Split(strings.TrimSpace(d.do("record", "export", "--format", "jsonl", "--rungs", "@record1", "@record2")), "\n")
	if len(lines) != 4 || !json.Valid([]byte(lines[3])) || !strings.Contains(lines[3], `"kind":"measurement","name":"rx_power_dbm","number":-27.4,"text":null,"unit":"dBm"`) {
		t.Errorf("rungs: %s", lines)
	}
	table := d.do("record", "export", "--format", "csv", "--bom", "@record1", "@record2")
	if !strings.HasPrefix(table, "\ufeffschema,sha256,") || strings.Count(table, "\r\n") != 3 || strings.Count(table, "\n") != 3 {
		t.Errorf("csv: %q", table)
	}
	d.do("record", "export", "--format", "csv", "-o", "@out.csv", "@record1")
	if !strings.HasPrefix(d.read("out.csv"), "schema,") {
		t.Errorf("out.csv: %q", d.read("out.csv"))
	}
}

func TestExportCoversTheLadder(t *testing.T) {
	t.Parallel()
	columns := map[string]bool{}
	for _, c := range recordColumns() {
		if columns[c.name] {
			t.Errorf("%s stands twice", c.name)
		}
		columns[c.name] = true
	}
	for name := range recordRow(exported{doc: seen{closed: "x"}.document(1)}) {
		if !columns[name] {
			t.Errorf("%s is filled in, and no column", name)
		}
	}
	for _, row := range rungRows(exported{doc: seen{optical: rx(-20, "x"), limits: acceptance.Norms().All()}.document(1)}) {
		for name := range row {
			found := false
			for _, c := range rungColumns() {
				found = found || c.name == name
			}
			if !found {
				t.Errorf("%s is filled in, and no column", name)
			}
		}
	}
}

func TestCellsAreNoFormulas(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "plain": "plain", "-27.4": "-27.4", "+1": "+1", "1e-3": "1e-3", "-1.5e+3": "-1.5e+3",
		"=1+1": "'=1+1", "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0", "-2+3": "'-2+3", "@SUM(A1)": "'@SUM(A1)", "-27.4 dBm": "'-27.4 dBm",
		"＝1": "'＝1", "  =1": "'  =1", "\t=1": "' =1", "\r=1": "·=1", "-Inf": "'-Inf", "-0x1p4": "'-0x1p4", "-": "'-", "a=1": "a=1",
	} {
		if got := cell(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}

func FuzzCSV(f *testing.F) {
	f.Add("=cmd", "a\"b\r\n,c", -1.5)
	f.Fuzz(func(t *testing.T, a, b string, v float64) {
		var out bytes.Buffer
		columns := []column{{"a", kindText}, {"b", kindText}, {"v", kindNumber}}
		rows := newCSVRows(&out, columns)
		rows.row(fields{"a": a, "b": b, "v": v})
		if err := rows.end(); err != nil {
			t.Fatal(err)
		}
		records, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(records) != 2 || len(records[1]) != 3 {
			t.Fatalf("%q, %v", records, err)
		}
		for _, c := range records[1][:2] {
			if c != "" && strings.ContainsRune("=+-@", rune(c[0])) && !isNumber(c) {
				t.Errorf("%q is a formula", c)
			}
		}
	})
}
