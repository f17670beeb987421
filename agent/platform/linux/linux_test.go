package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadBoard(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  Board
	}{
		"nothing": {nil, Board{}},
		"OpenWrt": {map[string]string{
			"tmp/sysinfo/model":         "Huawei MA5671A\n",
			"proc/device-tree/model":    "other\x00",
			"etc/os-release":            "NAME=\"OpenWrt\"\nPRETTY_NAME=\"OpenWrt 24.10.0\"\n",
			"proc/sys/kernel/osrelease": "6.6.73\n",
		}, Board{"Huawei MA5671A", "OpenWrt 24.10.0", "6.6.73"}},
		"device tree": {map[string]string{"proc/device-tree/model": "Vendor Board\x00"}, Board{Model: "Vendor Board"}},
		"no text":     {map[string]string{"tmp/sysinfo/model": "a\xff" + strings.Repeat("x", 500)}, Board{Model: "a?" + strings.Repeat("x", 118)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ReadBoard(tree(t, tc.files)); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
