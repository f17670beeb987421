package isp

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"ontagent/cmd/ontlab/netbox"
)

// responderLog is the log of one of our own servers: a file beside those of
// the programs of its host.
type responderLog struct {
	*slog.Logger
	file *os.File
}

func openResponderLog(host *netbox.Host, name string) (*responderLog, error) {
	file, err := os.OpenFile(filepath.Join(host.Dir(), name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open log of %s: %w", name, err)
	}
	return &responderLog{Logger: slog.New(slog.NewTextHandler(file, nil)), file: file}, nil
}

// Close ends the log. What is written afterwards is dropped.
func (l *responderLog) Close() error { return l.file.Close() }
