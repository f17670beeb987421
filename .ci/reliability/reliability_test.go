package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLine(t *testing.T) {
	at := "    power_test.go:12: "
	for _, c := range []struct {
		text string
		want line
		ok   bool
		err  string // part of it
	}{
		{
			at + "reliability: power-cut | sector model | 10000 | acknowledged loss 0 of 51 233; 812 drops, all in gaps | ok\n",
			line{"power-cut", "sector model", "10000", "acknowledged loss 0 of 51 233; 812 drops, all in gaps", "ok"},
			true, "",
		},
		{"reliability: clock | steps | 10 000 | a | b | FAIL\r\n", line{"clock", "steps", "10000", "a | b", "FAIL"}, true, ""},
		{at + "reliability: storm | paho | 1,000_000 | never | peer", line{"storm", "paho", "1000000", "never", "peer"}, true, ""},
		{"=== RUN   TestReliabilityClock\n", line{}, false, ""},
		{at + "see reliability: nothing\n", line{}, false, ""},
		{at + "reliability: clock | steps | 12 | good\n", line{}, true, "4 fields"},
		{at + "reliability: colour | steps | 12 | good | ok\n", line{}, true, "no property"},
		{at + "reliability: clock | steps | many | good | ok\n", line{}, true, "no number of trials"},
		{at + "reliability: clock | steps | 12 | good | OK\n", line{}, true, "no verdict"},
		{at + "reliability: clock | steps | 12 |  | ok\n", line{}, true, "no result"},
		{at + "reliability: ", line{}, true, "1 fields"},
	} {
		got, ok, err := parseLine(c.text)
		if ok != c.ok || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v, %v", c.text, ok, err)
		}
		if err == nil && got != c.want {
			t.Errorf("%q: got %+v", c.text, got)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("    a_test.go:1: reliability: clock | steps | 12 | good | ok\n")
	f.Add("reliability: clock | | 1 |")
	f.Fuzz(func(t *testing.T, text string) {
		if l, ok, err := parseLine(text); ok && err == nil && (l.trials == "" || l.result == "" || strings.Trim(l.trials, "0123456789") != "") {
			t.Errorf("%q: accepted as %+v", text, l)
		}
	})
}

// said makes the events of a go test.
type said struct{ b strings.Builder }

func (s *said) event(pkg, test, action, output string) {
	text, _ := json.Marshal(map[string]string{"Action": action, "Package": pkg, "Test": test, "Output": output})
	s.b.Write(append(text, '\n'))
}

func (s *said) test(pkg, test, action string, outputs ...string) {
	s.event(pkg, test, "run", "")
	for _, o := range outputs {
		s.event(pkg, test, "output", "    x_test.go:1: "+o+"\n")
	}
	if action != "" {
		s.event(pkg, test, action, "")
	}
}

func (s *said) pkg(pkg, action string) {
	s.event(pkg, "", "output", strings.ToUpper(action)+"\t"+pkg+"\t1s\n")
	s.event(pkg, "", action, "")
}

// table collects and prints.
func (s *said) table(t *testing.T) (out, progress string, failed bool) {
	t.Helper()
	var p, o strings.Builder
	r, err := collect(strings.NewReader(s.b.String()), &p)
	if err != nil {
		t.Fatal(err)
	}
	failed = r.print(&o)
	return o.String(), p.String(), failed
}

// allGood says that every property holds, but for those named.
func (s *said) allGood(but ...string) {
	for _, p := range properties {
		if !strings.Contains(strings.Join(but, " "), p) {
			s.test("a", "TestReliability"+strings.ReplaceAll(strings.Title(p), "-", ""), "pass", "reliability: "+p+" | v | 5 | fine | ok") //nolint:staticcheck // names of properties are ASCII
		}
	}
}

func TestTableOfGoodRun(t *testing.T) {
	var s said
	s.allGood("power-cut", "storm")
	s.test("b", "TestReliabilityPowerCut", "pass",
		"reliability: power-cut | model | 10000 | lost 0 | ok",
		"reliability: power-cut | bbolt NoSync, model | 100 | lost 13 % | peer",
		"reliability: power-cut | ext4 | 200 | lost 0 | ok")
	s.test("b", "TestReliabilityPowerCutUBIFS", "pass", "reliability: power-cut | UBIFS | 50 | lost 0 | ok")
	s.test("b", "TestReliabilityStorm", "", "reliability: storm | real | 5000 | peak 1.1 | ok")
	s.test("b", "TestReliabilityStorm/sub", "pass")
	s.event("b", "TestReliabilityStorm", "pass", "")
	s.test("b", "TestReliabilityStormPeer", "skip", "no such program here")
	s.pkg("a", "pass")
	s.pkg("b", "pass")
	out, _, failed := s.table(t)
	want := `power-cut     10000 + 200 + 50  3 of 3 variants hold  ok
corruption    5  fine  ok
file-faults   5  fine  ok
link-kill     5  fine  ok
black-hole    5  fine  ok
duplicates    5  fine  ok
clock         5  fine  ok
flash-writes  5  fine  ok
memory        5  fine  ok
storm         5000  peak 1.1  ok

Variant by variant:
      power-cut     10000  model: lost 0  ok
      power-cut     200  ext4: lost 0  ok
      power-cut     50  UBIFS: lost 0  ok
      corruption    5  v: fine  ok
      file-faults   5  v: fine  ok
      link-kill     5  v: fine  ok
      black-hole    5  v: fine  ok
      duplicates    5  v: fine  ok
      clock         5  v: fine  ok
      flash-writes  5  v: fine  ok
      memory        5  v: fine  ok
      storm         5000  real: peak 1.1  ok

The same done to others:
peer  power-cut     100  bbolt NoSync, model: lost 13 %
peer  storm         0  TestReliabilityStormPeer: not run: was skipped: no such program here

10 passed, 0 failed, 0 skipped
`
	if diff := cmp.Diff(want, out); diff != "" || failed {
		t.Errorf("failed %v, (-want +got)\n%s", failed, diff)
	}
}

func TestTroubleIsAFail(t *testing.T) {
	const clock = "reliability: clock | v | 5 | fine | ok"
	for name, c := range map[string]struct {
		play func(s *said)
		want string // a line of the table, or part of it
		also string // what the progress shows
	}{
		"no line": {func(s *said) { s.pkg("a", "pass") }, "clock         0  no test tells of it  FAIL\n", ""},
		"passed, said nothing": {func(s *said) {
			s.test("a", "TestReliabilityClockSteps", "pass")
			s.pkg("a", "pass")
		}, "clock         0  no test tells of it  FAIL\n", ""},
		"peers alone": {func(s *said) {
			s.test("a", "TestReliabilityClockPeer", "pass", "reliability: clock | other | 5 | fine | peer")
			s.pkg("a", "pass")
		}, "clock         0  no test tells of it  FAIL\n", ""},
		"line says so": {func(s *said) {
			s.test("a", "TestReliabilityClock", "pass", clock, "reliability: clock | w | 6 | bad | FAIL")
			s.pkg("a", "pass")
		}, "clock         5 + 6  FAIL: w: bad; 1 of 2 variants hold  FAIL\n", ""},
		"test failed": {func(s *said) {
			s.test("a", "TestReliabilityClock", "fail", clock, "why it failed")
			s.pkg("a", "fail")
		}, "clock         5  TestReliabilityClock failed; fine  FAIL\n", "why it failed"},
		"test of another name failed": {func(s *said) {
			s.test("a", "TestReliabilitySteps", "fail", clock)
			s.pkg("a", "fail")
		}, "clock         5  TestReliabilitySteps failed; fine  FAIL\n", ""},
		"test of no property failed": {func(s *said) {
			s.test("a", "TestReliabilityClock", "pass", clock)
			s.test("a", "TestReliabilityElse", "fail")
			s.pkg("a", "fail")
		}, "FAIL: TestReliabilityElse failed\n", ""},
		"skipped": {func(s *said) {
			s.test("a", "TestReliabilityClock", "skip", "no machine for it")
			s.pkg("a", "pass")
		}, "clock         0  TestReliabilityClock was skipped: no machine for it  FAIL\n", ""},
		"subtest skipped": {func(s *said) {
			s.test("a", "TestReliabilityClock", "", clock)
			s.test("a", "TestReliabilityClock/back", "skip", "no machine for it")
			s.event("a", "TestReliabilityClock", "pass", "")
			s.pkg("a", "pass")
		}, "clock         5  TestReliabilityClock was skipped: no machine for it; fine  FAIL\n", ""},
		"crashed": {func(s *said) {
			s.test("a", "TestReliabilityClock", "", clock, "panic: boom")
			s.pkg("a", "fail")
		}, "clock         5  TestReliabilityClock did not end; fine  FAIL\n", "panic: boom"},
		"peer crashed": {func(s *said) {
			s.test("a", "TestReliabilityClock", "pass", clock)
			s.test("a", "TestReliabilityClockPeer", "", "panic: boom")
			s.pkg("a", "fail")
		}, "TestReliabilityClockPeer did not end; fine  FAIL\n", ""},
		"malformed": {func(s *said) {
			s.test("a", "TestReliabilityClock", "pass", clock, "reliability: clock | w | fine | ok")
			s.pkg("a", "pass")
		}, "clock         5  TestReliabilityClock says what can't be read: 4 fields", ""},
		"does not build": {func(s *said) {
			s.test("a", "TestReliabilityClock", "pass", clock)
			s.pkg("a", "pass")
			s.event("b", "", "build-output", "undefined: x\n")
			s.pkg("b", "fail")
		}, "FAIL: b failed outside its tests\n", "undefined: x"},
	} {
		t.Run(name, func(t *testing.T) {
			var s said
			s.allGood("clock")
			c.play(&s)
			out, progress, failed := s.table(t)
			if !failed || !strings.Contains(out, c.want) || !strings.Contains(progress, c.also) ||
				!strings.Contains(out, "\n9 passed, 1 failed, 0 skipped\n") && !strings.Contains(out, "\n10 passed, 1 failed, 0 skipped\n") {
				t.Errorf("failed %v, want %q and %q in\n%s\n%s", failed, c.want, c.also, out, progress)
			}
			if n := strings.Count("\n"+out, "\nclock "); n != 1 {
				t.Errorf("%d lines of clock in\n%s", n, out)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	var s said
	s.allGood("clock")
	s.test("a", "TestReliabilityClock", "pass", "reliability: clock | v | 5 | a | b | ok", "reliability: clock | w | 6 | c | ok", "reliability: clock | o | 5 | bad | peer")
	r, err := collect(strings.NewReader(s.b.String()), &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	table := r.markdown("long")
	for _, want := range []string{"\n| clock | 2 of 2 variants hold | ok |\n", "\n| clock | v | 5 | a \\| b |\n", "\n| clock | o | 5 | bad |\n", "`make reliability LONG=1`"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	page := filepath.Join(t.TempDir(), "page.md")
	if err := update(page, table); err == nil {
		t.Error("updated a page that isn't there")
	}
	for content, ok := range map[string]bool{
		"# A\n" + tableBegin + "old\n" + tableEnd + "# B\n": true, "# A\n" + tableBegin + "old\n": false, "# A\n": false,
	} {
		if err := os.WriteFile(page, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := update(page, table); (err == nil) != ok {
			t.Errorf("%q: %v", content, err)
		}
		got, err := os.ReadFile(page)
		want := content
		if ok {
			want = "# A\n" + tableBegin + table + tableEnd + "# B\n"
		}
		if err != nil || string(got) != want {
			t.Errorf("%q became %q, %v", content, got, err)
		}
	}
}

func TestSum(t *testing.T) {
	for want, trials := range map[string]string{
		"": "", "5": "5", "5 + 5": "5 5", "3 × 5": "5 5 5", "10000 + 200 + 4 × 50 + 7": "10000 200 50 50 50 50 7", "1 + 3 × 2 + 1": "1 2 2 2 1",
	} {
		if got := sum(strings.Fields(trials)); got != want {
			t.Errorf("%s: got %q, want %q", trials, got, want)
		}
	}
}

func TestPackagesWithTests(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"a/x_test.go": "package a\n\nfunc TestReliabilityClock(t *testing.T) {}\n", "a/y_test.go": "package a\n\nfunc TestReliabilityStorm(t *testing.T) {}\n",
		"b/x_test.go": "package b\n\n// func TestReliability\n", "c/x.go": "package c\n\nfunc TestReliability() {}\n", ".d/x_test.go": "func TestReliability",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	got, err := packagesWithTests(".")
	if diff := cmp.Diff([]string{"./a"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	t.Chdir(t.TempDir())
	if got, err := packagesWithTests("."); err == nil {
		t.Errorf("found %v where nothing is", got)
	}
}
