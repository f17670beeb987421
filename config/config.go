// Package config reads the gateway's configuration: a file in UCI syntax
// (/etc/config/ontagent), decoded strictly into typed values.
//
// Defaults are values (Default); what the file doesn't mention keeps them.
// Whatever can't be meant is refused with file and line: an unknown section or
// option, one given twice, a wrong type, values that contradict one another.
// Secrets have a type of their own that never prints them.
//
// The package knows the file, not the parts it configures; only the commands
// import it and hand every part its options. It writes nothing to disk.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultPath is where the configuration is on a gateway.
const DefaultPath = "/etc/config/ontagent"

// maxSize bounds a configuration file, in bytes.
const maxSize = 256 << 10

// Config is the whole configuration. Empty strings and nil lists mean "not
// given" unless a field says otherwise.
type Config struct {
	// Path is the file that was read.
	Path string

	Main       Main
	Authority  Authority
	MQTT       MQTT
	Spool      Spool
	Control    Control
	Console    Console
	Module     Module
	WAN        WAN
	IPTV       IPTV
	Voice      Voice
	Management Management
	Throughput Throughput
	Repair     Repair
	Inspect    Inspect
	Collectors Collectors
	// Thresholds hold the limits that the file overrides, by the name that the
	// norms give them (optical.rx_min_dbm), in the norms' unit.
	Thresholds map[string]float64
	Clock      Clock

	// lines tell where an option stands, by "section.option".
	lines map[string]int
}

// Main says who this gateway is and where it keeps its state.
type Main struct {
	Device   string // 8 to 23 letters and digits
	Tenant   string // a topic level
	StateDir string // on flash
	RunDir   string // in RAM
	LogLevel string // debug, info, warn, error
	Language string // zh-CN, en
}

// Authority says who may give orders.
type Authority struct {
	RootKey     string // base64 of the 32 bytes of an Ed25519 public key
	RootKeyFile string // a file that holds the same; only one of the two is given
	TrustList   string // file
	Statement   string // file
	NOCDiagnose bool   // NOC keys may diagnose without an order
}

// MQTT is the connection to the broker.
type MQTT struct {
	Enabled       bool
	Broker        string // URL, without user and path
	ServerName    string // empty: the broker's host
	CAFile        string
	CertFile      string
	KeyFile       string
	Username      string
	Password      Secret
	Keepalive     time.Duration
	Spread        time.Duration // 0: no wait
	BackoffCap    time.Duration
	BindInterface string
	SourceAddress string // empty: as the kernel chooses
	Session       string // clean, persistent
}

// Spool is the queue on flash.
type Spool struct {
	Enabled bool   // else what waits is in RAM only
	Dir     string // on flash
	Confirm string // who confirms records and events: signature, broker
	// RecordKiB, EventKiB and TelemetryKiB bound what the classes take on flash.
	RecordKiB, EventKiB, TelemetryKiB int
	// BackfillBytesPerS paces telemetry that had to wait.
	BackfillBytesPerS int
}

// Control is how orders reach the daemon other than by the broker.
type Control struct {
	Socket    string // of the local verbs
	LANListen string // host:port for the technician on site; empty: off
}

// Console is the serial console of the optical chip.
type Console struct {
	Enabled  bool
	Port     string
	Baud     int
	Driver   string
	Username string
	Password Secret
}

// Module is the optical module, where there is one in a cage.
type Module struct {
	Interface string // whose EEPROM is read
	Hwmon     string // name of a hwmon chip
}

// WAN names what the line is judged by.
type WAN struct {
	Interface    string   // empty: that of the default route
	Device       string   // carries the service VLANs; empty: not known
	VLAN         int      // of the internet service where no order names it; 0: untagged
	LANPort      string   // judged by the rung lan_cabling
	OpticsClass  string   // optical class of the line: "B+"; empty: unknown
	Resolvers    []string // addresses, instead of those of the system
	ProbeTargets []string // addresses or host names
	DNSNames     []string
	CheckURL     string // a page that tells whether a portal stands before the internet; empty: not tried
}

// IPTV is what television is tried by.
type IPTV struct {
	Group  string // multicast address; empty: not tried
	Port   int
	Source string // sender, for source-specific multicast; empty: any
}

// Voice is what telephony is tried by.
type Voice struct {
	Registrar string // host or host:port; empty: not tried
	Domain    string // empty: the registrar's host
}

// Management is what the operator's management of this gateway is tried by.
type Management struct {
	ACS string // http or https URL of the TR-069 server; empty: not tried
}

// Throughput is what the line's speed is measured by.
type Throughput struct {
	URL          string // http://HOST[:PORT]/PATH or iperf3://HOST[:PORT]; empty: not measured
	UploadURL    string // empty: as URL
	UploadMethod string // POST, PUT
	SecondURL    string // of another server, for a second opinion; empty: none
	Connections  int    // at once
	Window       time.Duration
}

// Inspect is when the line is inspected without a command.
type Inspect struct {
	Enabled      bool // else only by command
	IntervalDays int  // at least 1
	Hour         int  // of the day, in UTC, from which a fleet is inspected
}

// Repair is what this gateway may do to itself to bring a line back, and how
// often.
type Repair struct {
	Enabled   bool
	Interface string // that is restarted; empty: none is
	Session   string // that is redialled or whose lease is renewed; empty: the WAN's
	PerHour   int
	PerDay    int           // not below PerHour
	Wait      time.Duration // for an action to show
	Grace     time.Duration // that a fault must last before the gateway heals itself
}

// Collectors hold a schedule each.
type Collectors struct {
	Link, Host, WAN, Optics, PON Collector
}

// Collector is the schedule of one collector.
type Collector struct {
	Enabled  bool
	Interval time.Duration
	Timeout  time.Duration // below Interval
	// Include and Exclude are shell patterns of subjects (interfaces); what
	// matches one of Include, or any if that is empty, and none of Exclude is
	// read.
	Include, Exclude []string
}

// Clock says how far the system's clock is believed.
type Clock struct {
	TrustSystem string // auto, never
}

// Default returns the configuration of an empty file. It isn't valid: the
// device has no name.
func Default() Config {
	c := Config{
		Path: DefaultPath,
		Main: Main{
			Tenant:   "default",
			StateDir: "/etc/ontagent",
			RunDir:   "/var/run/ontagent",
			LogLevel: "info",
			Language: "zh-CN",
		},
		MQTT: MQTT{
			Keepalive:  120 * time.Second,
			Spread:     30 * time.Second,
			BackoffCap: 120 * time.Second,
			Session:    "clean",
		},
		Spool: Spool{
			Enabled: true, Confirm: "signature",
			RecordKiB: 1024, EventKiB: 512, TelemetryKiB: 2048,
			BackfillBytesPerS: 16384,
		},
		Console: Console{Baud: 115200, Driver: "rtl960x"},
		WAN: WAN{
			ProbeTargets: []string{"223.5.5.5", "119.29.29.29"},
			DNSNames:     []string{"www.baidu.com", "www.qq.com"},
		},
		IPTV:       IPTV{Port: 5000},
		Throughput: Throughput{UploadMethod: "POST", Connections: 4, Window: 10 * time.Second},
		Inspect:    Inspect{Enabled: true, IntervalDays: 60, Hour: 19},
		Repair:     Repair{Enabled: true, PerHour: 2, PerDay: 6, Wait: 30 * time.Second, Grace: 60 * time.Second},
		Collectors: Collectors{
			Link:   Collector{Enabled: true, Interval: 30 * time.Second, Timeout: 5 * time.Second},
			Host:   Collector{Enabled: true, Interval: 60 * time.Second, Timeout: 5 * time.Second},
			WAN:    Collector{Enabled: true, Interval: 60 * time.Second, Timeout: 5 * time.Second},
			Optics: Collector{Enabled: true, Interval: 60 * time.Second, Timeout: 20 * time.Second},
			PON:    Collector{Enabled: true, Interval: 60 * time.Second, Timeout: 20 * time.Second},
		},
		Clock: Clock{TrustSystem: "auto"},
	}
	c.derive()
	return c
}

// derived is a path whose default lies in a directory that the file names.
type derived struct {
	to        *string
	dir, name string
}

func (c *Config) derived() []derived {
	return []derived{
		{&c.Authority.TrustList, c.Main.StateDir, "trust.json"},
		{&c.Authority.Statement, c.Main.StateDir, "statement.json"},
		{&c.Spool.Dir, c.Main.StateDir, "spool"},
		{&c.Control.Socket, c.Main.RunDir, "control.sock"},
	}
}

// derive fills in the defaults that depend on other values.
func (c *Config) derive() {
	for _, d := range c.derived() {
		if *d.to == "" {
			*d.to = filepath.Join(d.dir, d.name)
		}
	}
	for _, n := range c.Collectors.all() {
		if _, given := c.lines[n.key()+".timeout"]; !given {
			n.c.Timeout = min(n.c.Timeout, n.c.Interval)
		}
	}
}

// Warning is something in a file that is valid and yet unwise.
type Warning struct {
	File string
	Line int // 0: the whole file
	Text string
}

// String returns "FILE:LINE: TEXT".
func (w Warning) String() string { return at(w.File, w.Line) + ": " + w.Text }

// Error is something in a file that is refused.
type Error struct {
	File string
	Line int // 0: the whole file
	Text string
	// Err is the cause, where there is one beside the text.
	Err error
}

// Error returns "FILE:LINE: TEXT".
func (e *Error) Error() string {
	text := at(e.File, e.Line) + ": " + e.Text
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// clip bounds a text that may quote a whole file.
func clip(text string) string {
	const limit = 300
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line)
}

// Load reads and decodes a file. The error joins everything that is wrong, an
// *Error each, and is compatible with errors.Is(err, fs.ErrNotExist) where
// there is no file. It doesn't look at the files that the configuration names:
// see Check.
func Load(path string) (Config, []Warning, error) {
	file, err := os.Open(path)
	if err != nil {
		return Config{}, nil, fmt.Errorf("cannot read configuration %s: %w", path, bare(err))
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return Config{}, nil, fmt.Errorf("cannot read configuration %s: %w", path, bare(err))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return Config{}, nil, fmt.Errorf("cannot read configuration %s: %w", path, bare(err))
	}
	c, warnings, err := Parse(path, data)
	if err != nil {
		return Config{}, nil, err
	}
	if mode := info.Mode().Perm(); mode&0o044 != 0 && c.hasSecrets() {
		warnings = append(warnings, Warning{File: path, Text: fmt.Sprintf("holds a password and can be read by others (mode %04o): chmod 600 %s", mode, path)})
	}
	return c, warnings, nil
}

// bare takes operation and path off an error of package os.
func bare(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// Parse decodes data as the content of a file of that name. Errors are those
// of Load.
func Parse(name string, data []byte) (Config, []Warning, error) {
	if len(data) > maxSize {
		return Config{}, nil, &Error{File: name, Text: fmt.Sprintf("is larger than %d KiB", maxSize>>10)}
	}
	blocks, err := parseUCI(name, data)
	if err != nil {
		return Config{}, nil, err
	}
	c := Default()
	c.Path = name
	for _, d := range c.derived() { // filled in when the directories are known
		*d.to = ""
	}
	c.lines = map[string]int{}
	if err := errors.Join(c.decode(blocks)...); err != nil {
		return Config{}, nil, err
	}
	c.derive()
	warnings, problems := c.examine()
	if err := errors.Join(problems...); err != nil {
		return Config{}, nil, err
	}
	return c, warnings, nil
}

// decode sets what the file says and returns all that it can't mean.
func (c *Config) decode(blocks []block) []error {
	var problems []error
	refuse := func(line int, format string, args ...any) {
		problems = append(problems, &Error{File: c.Path, Line: line, Text: clip(fmt.Sprintf(format, args...))})
	}
	known := c.sections()
	seen := map[string]int{}
	for _, b := range blocks {
		s := slices.IndexFunc(known, func(s section) bool { return s.matches(b) })
		if s < 0 {
			refuse(b.line, "%s", unknownSection(known, b))
			continue
		}
		sec := known[s]
		if first, ok := seen[sec.key()]; ok {
			refuse(b.line, "section %s: already given at line %d", sec.key(), first)
			continue
		}
		seen[sec.key()] = b.line
		c.lines[sec.key()] = b.line
		for _, e := range b.entries {
			o := slices.IndexFunc(sec.options, func(o *option) bool { return o.name == e.name })
			if o < 0 {
				refuse(e.line, "unknown option %q in section %s", e.name, sec.key())
				continue
			}
			opt, key := sec.options[o], sec.key()+"."+e.name
			first, again := c.lines[key]
			switch {
			case opt.list && !e.list:
				refuse(e.line, "option %s: may hold several values: write list %s", e.name, e.name)
			case !opt.list && e.list:
				refuse(e.line, "list %s: holds one value: write option %s", e.name, e.name)
			case again && !opt.list:
				refuse(e.line, "option %s: already given at line %d", e.name, first)
			default:
				if err := opt.set(e.value, !again); err != nil {
					refuse(e.line, "%s %s: %s", e.keyword(), e.name, err.Error())
				}
			}
			if !again {
				c.lines[key] = e.line
			}
		}
	}
	return problems
}

// At returns where an option stands, "FILE:LINE", or only the file if it
// isn't given there. Sections of a type of which there are several are named
// "collector link".
func (c *Config) At(section, option string) string {
	return at(c.Path, c.lines[section+"."+option])
}

// OptionError says that err comes from the value of an option: "FILE:LINE:
// option NAME: ERR". It is compatible with err.
func (c *Config) OptionError(section, option string, err error) error {
	line, ok := c.lines[section+"."+option]
	text := "option " + option
	if !ok {
		text = "option " + option + " (by default) in section " + section
	}
	return &Error{File: c.Path, Line: line, Text: text, Err: err}
}

func (c *Config) hasSecrets() bool {
	return c.MQTT.Password != "" || c.Console.Password != ""
}

// Redacted returns a copy in which every secret that is given is "***", even
// for who asks for it.
func (c *Config) Redacted() Config {
	r := *c
	for _, s := range []*Secret{&r.MQTT.Password, &r.Console.Password} {
		if *s != "" {
			*s = redacted
		}
	}
	r.Thresholds = maps.Clone(c.Thresholds)
	r.lines = maps.Clone(c.lines)
	return r
}
