// Command reliability runs the tests that show what is promised, and adds up
// what they say.
//
// The tests are those named TestReliability…. Each prints lines of the form
//
//	reliability: PROPERTY | VARIANT | TRIALS | RESULT | ok
//
// the last word being ok, FAIL, or peer for what another library did in the
// same test. This program prints one line per property – name, trials, result,
// ok or FAIL – then the peers' lines, and last "N passed, M failed, 0 skipped",
// counting properties. A property that no line tells of, or whose test failed,
// was skipped or did not end, is FAIL. The exit code is 1 on any FAIL. What
// failed is printed whole on standard error.
//
// Usage: reliability [--markdown FILE] [package ...]; without packages, all
// that have such tests. With --markdown the table in FILE is replaced as well.
// LONG=1 in the environment makes the tests run their long forms.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "reliability:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("reliability", flag.ContinueOnError)
	flags.SetOutput(stderr)
	markdown := flags.String("markdown", "", "replace the table in this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	packages := flags.Args()
	if len(packages) == 0 {
		var err error
		if packages, err = packagesWithTests("."); err != nil {
			return err
		}
	}
	form, timeout := "short", "20m"
	if os.Getenv("LONG") == "1" {
		form, timeout = "long", "12h"
	}
	// One package at a time: they measure, and would disturb one another.
	cmd := exec.Command("go", append([]string{"test", "-json", "-count=1", "-p=1", "-timeout=" + timeout, "-run=^TestReliability"}, packages...)...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot read from go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start go test: %w", err)
	}
	r, readErr := collect(out, stderr)
	_, _ = io.Copy(io.Discard, out) // else go test could block for ever
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || readErr != nil {
			return fmt.Errorf("cannot run the tests: %w", err)
		}
		if r.clean() {
			r.problem("go test: " + err.Error())
		}
	}
	failed := r.print(stdout)
	if *markdown != "" {
		if err := update(*markdown, r.markdown(form)); err != nil {
			return err
		}
	}
	if failed {
		return errors.New("not everything that is promised was shown")
	}
	return nil
}

// packagesWithTests finds the packages below root that have tests of ours.
func packagesWithTests(root string) ([]string, error) {
	test := regexp.MustCompile(`(?m)^func TestReliability`)
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (name[0] == '.' || name == "testdata" || name == "bin" || name == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		dir := "./" + filepath.ToSlash(filepath.Dir(path))
		if err == nil && test.Match(source) && !slices.Contains(found, dir) {
			found = append(found, dir)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot look for tests: %w", err)
	}
	if len(found) == 0 {
		return nil, errors.New("cannot find any test named TestReliability…: run this in the root of the module")
	}
	return found, nil
}

// The table stands in a page between these.
const (
	tableBegin = "<!-- figures: make reliability MARKDOWN=docs/reliability.md -->\n"
	tableEnd   = "<!-- end of figures -->\n"
)

// update replaces the table in a page.
func update(file, table string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot update table: %w", err)
	}
	before, rest, ok := bytes.Cut(page, []byte(tableBegin))
	_, after, ended := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ended {
		return fmt.Errorf("cannot update table: %s has no lines %q and %q", file, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	page = slices.Concat(before, []byte(tableBegin+table+tableEnd), after)
	if err := os.WriteFile(file, page, 0o644); err != nil { //nolint:gosec // a page of the documentation
		return fmt.Errorf("cannot update table: %w", err)
	}
	return nil
}
