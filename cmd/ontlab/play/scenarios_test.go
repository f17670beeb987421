package play_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ontagent/cmd/ontlab/scenario"
	"ontagent/cmd/ontlab/vm"
)

// inShort are the scenarios that stand for all where there is little time: each
// way of access and each side of a line, lines that are well and lines with two
// faults, and a speed test. What this kernel cannot do they do in one guest.
func inShort() []string {
	return []string{
		// Here, unless a kernel lacks even cables: DHCP without a tag, and single services.
		"dns-servfail", "fake-o5", "iptv-lossy", "management-refused", "mtu-black-hole-line", "repair-no-internet",
		"throughput-met-ipoe", "voice-unknown-user", "walled-garden-ipoe",
		// In a guest: PPPoE, VLANs.
		"healthy-bridged", "healthy-pppoe-triple-play", "no-pado", "pppoe-wrong-password", "two-faults-light-and-voice",
	}
}

// TestScenarios plays scenarios as a user does, by ontlab run: on this kernel
// what it can do, the rest in a guest. With LONG=1 it plays all of them, as
// make lab does.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: it takes minutes")
	}
	files, err := filepath.Glob("../scenarios/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	if os.Getenv("LONG") != "1" {
		files = slices.DeleteFunc(files, func(file string) bool {
			return !slices.Contains(inShort(), strings.TrimSuffix(filepath.Base(file), ".yaml"))
		})
		if len(files) != len(inShort()) {
			t.Fatalf("of %v there are only %v", inShort(), files)
		}
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "../../...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	var stderr bytes.Buffer
	run := exec.CommandContext(t.Context(), filepath.Join(bin, "ontlab"), append([]string{"run", "--json", "--jobs", "3", "--guest-jobs", "2"}, files...)...)
	run.Stderr = &stderr
	out, runErr := run.Output()
	played := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var r scenario.Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("no result: %q: %v", lines.Text(), err)
		}
		t.Run(r.Scenario, func(t *testing.T) {
			played[r.Scenario] = true
			if strings.Contains(r.Error, vm.ErrUnavailable.Error()) && os.Getenv("CI") != "true" {
				t.Skip(r.Error)
			}
			if !r.OK {
				t.Errorf("%s\n%v %s", lines.Text(), r.Mismatches, r.Error)
			}
			t.Logf("%s %s in %.1f s, on the %s", r.Verdict, r.FirstCause, r.DurationS, r.Where)
		})
	}
	if len(played) != len(files) || runErr != nil && stderr.Len() > 0 {
		t.Errorf("%d of %d scenarios were played, %v\n%s", len(played), len(files), runErr, stderr.String())
	}
}
