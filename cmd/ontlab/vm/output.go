package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// tailInterval is how often the job's output is looked at.
const tailInterval = 100 * time.Millisecond

// tail passes on what the guest appends to the files stdout and stderr of dir.
// The returned function passes on the rest and ends it.
func tail(dir string, job Job) (stop func() error) {
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var from [2]int64
		pass := func() error {
			return errors.Join(
				copyFrom(filepath.Join(dir, "stdout"), &from[0], job.Stdout),
				copyFrom(filepath.Join(dir, "stderr"), &from[1], job.Stderr),
			)
		}
		ticker := time.NewTicker(tailInterval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				done <- pass()
				return
			case <-ticker.C:
				if err := pass(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	return func() error {
		close(quit)
		return <-done
	}
}

func copyFrom(path string, from *int64, to io.Writer) error {
	if to == nil {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot read output: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	n, err := io.Copy(to, io.NewSectionReader(f, *from, 1<<62))
	*from += n
	return err
}

// console makes what came over the serial line fit to read.
func console(raw []byte) string {
	// SeaBIOS clears the screen.
	raw = regexp.MustCompile("\x1b(?:\\[[0-9;?=]*[a-zA-Z]|c)").ReplaceAll(raw, nil)
	raw = bytes.ReplaceAll(raw, []byte("\r"), nil)
	return strings.TrimSpace(strings.ToValidUTF8(string(raw), "?"))
}

// lastWords is the end of a console for the text of an error.
func lastWords(console string) string {
	lines := strings.Split(console, "\n")
	if console == "" {
		return ""
	}
	return ": the guest's last words: " + strings.Join(lines[max(0, len(lines)-5):], " | ")
}
