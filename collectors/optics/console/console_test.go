package console_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ontagent/collectors"
	"ontagent/collectors/optics/console"
)

// Conversations over a real pseudo-terminal are tested with the simulator, in
// cmd/ontlab/ontsim.

func TestConsolePortErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, port string
		want       []error
	}{
		{"absent", filepath.Join(dir, "ttyS9"), []error{console.ErrNoPort, fs.ErrNotExist}},
		{"a file", file, []error{console.ErrNotSerial}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := console.New(console.Options{Port: tt.port, Driver: "rtl960x", Linger: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.ReadOptics(t.Context())
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			if errors.Is(err, collectors.ErrNoData) {
				t.Error("a configured port that is missing is a failure, not an absence")
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, opts := range map[string]console.Options{
		"no port":        {Driver: "rtl960x"},
		"no driver":      {Port: "/dev/ttyS0"},
		"unknown driver": {Port: "/dev/ttyS0", Driver: "toaster"},
		"baud":           {Port: "/dev/ttyS0", Driver: "rtl960x", Baud: -1},
		"user name":      {Port: "/dev/ttyS0", Driver: "rtl960x", Username: "root\rreboot"},
		"password":       {Port: "/dev/ttyS0", Driver: "rtl960x", Username: "root", Password: "s3cret\nreboot"},
	} {
		c, err := console.New(opts)
		if err == nil {
			_ = c.Close()
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error holds the password", name)
		}
	}
}
