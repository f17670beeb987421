package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ontagent/agent/control"
	"ontagent/cmd/cli"
)

// home writes a configuration into a directory of its own. The directory's
// name is short: a socket's path may not be long.
func home(t *testing.T) (dir, config string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ontagent") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config = filepath.Join(dir, "conf")
	text := "config main\n\toption device 'HWTC12345678'\n\toption state_dir '" + dir + "/state'\n\toption run_dir '" + dir + "/run'\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, config
}

func ontagent(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs}
	code = a.run(t.Context(), args)
	return code, out.String(), errs.String()
}

func TestSecondDaemonLeavesStateAlone(t *testing.T) {
	dir, config := home(t)
	first, err := control.ListenUnix(t.Context(), filepath.Join(dir, "run", "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	code, _, errs := ontagent(t, "run", "--config", config)
	if code != cli.Fail || !strings.Contains(errs, "running already") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); !os.IsNotExist(err) {
		t.Errorf("the second daemon touched the state directory: %v", err)
	}
}

func TestExitCodesAndMessages(t *testing.T) {
	dir, config := home(t)
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("config main\n\toption fool '1'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args string
		code int
		says string // on standard error; "" for silence
	}{
		"nothing":              {"", cli.Usage, "no verb given"},
		"unknown verb":         {"bogus", cli.Usage, `unknown verb "bogus"`},
		"help":                 {"help", cli.OK, ""},
		"help of a verb":       {"accept --help", cli.OK, ""},
		"unknown flag":         {"status --bogus", cli.Usage, "status: flag provided but not defined"},
		"stray argument":       {"status stray", cli.Usage, "takes nothing beside its flags"},
		"accept, no request":   {"accept --config @", cli.Usage, "takes one file"},
		"language":             {"identity --config @ --lang de", cli.Usage, `--lang "de"`},
		"no configuration":     {"status --config /nope", cli.Usage, "cannot read configuration"},
		"bad configuration":    {"config check --config " + bad, cli.Usage, "bad:2:"},
		"status, no daemon":    {"status --config @", cli.Unreachable, "does not answer"},
		"diagnose, no daemon":  {"diagnose --config @", cli.Unreachable, "does not answer"},
		"optics, none":         {"optics --config @", cli.Inconclusive, "no source gave a reading"},
		"warned of":            {"config check --config @", cli.OK, "warning:"},
		"not warned of":        {"identity --config @", cli.OK, ""},
		"keys that are broken": {"identity --config @broken", cli.Fail, "cannot read device keys"},
	} {
		t.Run(name, func(t *testing.T) {
			args := tc.args
			if strings.HasSuffix(args, "@broken") {
				broken, config := home(t)
				if err := os.MkdirAll(filepath.Join(broken, "state"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(broken, "state", "device.keys"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
				args = strings.ReplaceAll(args, "@broken", config)
			}
			code, _, errs := ontagent(t, strings.Fields(strings.ReplaceAll(args, "@", config))...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d: %s", code, tc.code, errs)
			}
			if !strings.Contains(errs, tc.says) || tc.says == "" && errs != "" {
				t.Errorf("says %q, want %q", errs, tc.says)
			}
			if strings.Count(errs, "\n") > 1 {
				t.Errorf("says it more than once: %s", errs)
			}
		})
	}
}
