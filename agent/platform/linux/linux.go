// Package linux tells what machine this is, on any Linux and on OpenWrt.
package linux

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// Board is the machine's own description. A field nobody fills is empty.
type Board struct {
	Model  string // "HUAWEI Technologies Co. MA5671A"
	OS     string // "OpenWrt 24.10.0"
	Kernel string // "6.6.73"
}

// ReadBoard reads the description below root, "/" on a real machine.
func ReadBoard(root string) Board {
	b := Board{Kernel: firstLine(root, "proc/sys/kernel/osrelease")}
	for _, path := range []string{"tmp/sysinfo/model", "proc/device-tree/model", "sys/class/dmi/id/product_name"} {
		if b.Model = firstLine(root, path); b.Model != "" {
			break
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "etc/os-release"))
	if err != nil {
		return b
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			b.OS = bounded(strings.Trim(value, `"'`))
		}
	}
	return b
}

func firstLine(root, path string) string {
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(bytes.TrimRight(data, "\x00")), "\n")
	return bounded(strings.TrimSpace(line))
}

// bounded keeps what a vendor wrote to a size and a form that fits a message.
func bounded(s string) string {
	const limit = 120
	s = strings.ToValidUTF8(s, "?")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
