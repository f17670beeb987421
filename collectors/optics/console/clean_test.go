package console

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCleaner(t *testing.T) {
	tests := []struct {
		name, in string
		lines    []string
		tail     string
	}{
		{"LF", "a\nb", []string{"a"}, "b"},
		{"CR LF", "a\r\nb", []string{"a"}, "b"},
		{"LF CR", "a\n\rb", []string{"a"}, "b"},
		{"two CR LF", "a\r\r\nb", []string{"a"}, "b"},
		{"CR alone", "a\rb", []string{"a"}, "b"},
		{"literal ^M", "a^M\nb", []string{"a"}, "b"},
		{"NUL", "\x00a\x00b\n", []string{"ab"}, ""},
		{"NUL in a number", "1\x002\n", []string{"1\x1a2"}, ""},
		{"NUL after a number", "12\x00\n", []string{"12\x1a"}, ""},
		{"backspace at the start", "\bchip", nil, "chip"},
		{"rubbed out", "ab\b \bc", nil, "ac"},
		{"number rubbed out", "12\b \b3", nil, "1\x1a"},
		{"ANSI", "\x1b[1;32ma\x1b[0m\x1b]0;title\ab\x1b[K", nil, "ab"},
		{"ANSI cut off", "a\x1b[1", nil, "a"},
		{"kernel line", "[   12.345678] eth0 up\r\na", nil, "a"},
		{"kernel text in a line", "Rx Pow[   12.345678] eth0 up\r\ner: 1", nil, "Rx Power: 1"},
		{"kernel text behind a prompt", "RTK.0> [12.345678] eth0 up\r\n", nil, "RTK.0> "},
		{"brackets that are no stamp", "[12.34] a [x]\n", []string{"[12.34] a [x]"}, ""},
		{"control character", "a\x01b", nil, "a\x1ab"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c cleaner
			_, _ = c.Write([]byte(tt.in))
			if d := cmp.Diff(tt.lines, c.lines); d != "" {
				t.Errorf("lines (-want +got):\n%s", d)
			}
			if c.tail() != tt.tail {
				t.Errorf("tail %q, want %q", c.tail(), tt.tail)
			}
		})
	}
}

// FuzzCleaner: how the bytes were cut into reads does not matter, and what
// comes out is bounded and free of control characters.
func FuzzCleaner(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint(len(b)/2))
	}
	f.Add([]byte("a\x1b[1;32mb\r\n[  1.000000] x\r\nc\b \b"), uint(3))
	f.Fuzz(func(t *testing.T, b []byte, at uint) {
		var whole, parts, bytewise cleaner
		_, _ = whole.Write(b)
		n := int(at % uint(len(b)+1))
		_, _ = parts.Write(b[:n])
		_, _ = parts.Write(b[n:])
		for i := range b {
			_, _ = bytewise.Write(b[i : i+1])
		}
		for _, c := range []*cleaner{&parts, &bytewise} {
			if d := cmp.Diff(whole.lines, c.lines); d != "" {
				t.Errorf("lines differ:\n%s", d)
			}
			if whole.tail() != c.tail() {
				t.Errorf("tail %q and %q", whole.tail(), c.tail())
			}
		}
		for _, line := range append(whole.lines, whole.tail()) {
			if len(line) > maxLine {
				t.Errorf("line of %d bytes", len(line))
			}
			for i := range len(line) {
				if c := line[i]; c < 0x20 && c != sub && c != '\t' || c == 0x7f {
					t.Fatalf("control character %#x in %q", c, line)
				}
			}
		}
	})
}

func TestAllowListDeniesByDefault(t *testing.T) {
	for _, d := range drivers() {
		for _, command := range []string{
			"", " ", "flash all", "mib show", "gpon get pps-cnt", "gpon show counter global ds-eth",
			"omcicli mib get all", "omcicli", "reboot", "ps ", " ps", "ps\r", "ps; reboot", "diag\nreboot",
			"pon get transceiver rx-power\rflash all", "pon get transceiver", "PS", "echo Phy_Rogue_PRBS 1",
			"echo Phy_Rogue_PRBS 1 >/proc/pon_phy/debug", "cat /proc/kmsg &", "clear pon statistics", `eqsn set "X"`, "set", "hal",
			"optic --version", "show gpon", "laser power", "tcapi get Info_PonPhy RxPower", "sendcmd 132 omcidebug showmedata 131",
			"omcicmd mib show meid 131 instid 0", "fw_setenv", "linuxshell\rreboot", "su;reboot", "pon psg;reboot",
		} {
			if d.allows(command) {
				t.Errorf("driver %s allows %q", d.name, command)
			}
			s := &session{d: d}
			if err := s.send(command); err == nil {
				t.Errorf("driver %s would send %q", d.name, command)
			}
		}
		for _, q := range d.queries {
			if d.allows(q.command) == q.heard {
				t.Errorf("driver %s: %q is allowed: %v", d.name, q.command, !q.heard)
			}
		}
	}
}

func TestClassify(t *testing.T) {
	d := rtl960x()
	for tail, want := range map[string]kind{
		"":                               kindNone,
		"  ":                             kindNone,
		"# ":                             kindShell,
		"#":                              kindShell,
		"~ # ":                           kindShell,
		"/ # ":                           kindShell,
		"/var/tmp # ":                    kindShell,
		"root@ONU:~# ":                   kindShell,
		"admin@SFP:/tmp# ":               kindShell,
		"RTK.0> ":                        kindCLI,
		"RTK.0>":                         kindCLI,
		"RTK.12> command:":               kindCLI,
		"Rx Power: -1  dBmRTK.0> ":       kindCLI,
		"login: ":                        kindLogin,
		"ONU login: ":                    kindLogin,
		"Username:":                      kindLogin,
		"Password: ":                     kindPassword,
		"=> ":                            kindBoot,
		"FALCON => ":                     kindBoot,
		"CFE> ":                          kindBoot,
		"<RealTek>":                      kindBoot,
		"9602C# ":                        kindOther, // U-Boot of the family: never a shell
		"rtl# ":                          kindOther,
		"#######":                        kindOther,
		"ZXHN> ":                         kindOther,
		"WAP>":                           kindOther,
		"RTK.x> ":                        kindOther,
		"Last login:":                    kindOther,
		"Please enter the user name:":    kindOther,
		"Hit any key to stop autoboot:3": kindOther,
	} {
		if got := d.classify(tail); got != want {
			t.Errorf("%q: got %v, want %v", tail, got, want)
		}
	}
}
