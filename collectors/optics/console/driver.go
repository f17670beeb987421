package console

import (
	"slices"
	"strings"
)

// incomparable, in a structure, spares the code that compares it and every
// length of array of it: 20 KiB on MIPS that nothing here calls.
type incomparable [0]func()

// driver describes a family of consoles: data, and as little code as can be.
// All commands it will ever send are in it; nothing else is sent.
type driver struct {
	name string
	// keepKernel: answers come through the kernel log.
	keepKernel bool
	// logins is how many times in a row a name and password may be asked for.
	logins int
	// prompts that the family is known to show, besides the login prompts
	// that all share.
	prompts []prompt
	// enter lists the commands that lead from tier to tier to where the
	// queries are understood.
	enter []step
	// leave lists how to get back, innermost tier first.
	leave []step
	// queries, in the order in which they are asked.
	queries []query

	errorPrefixes []string // a line that begins so is a refusal
	values        []valueRule
	states        []stateRule
	signs         []signRule
	flags         []flagRule
	counters      []counterRule
	tables        []tableRule
	// serial finds the GPON serial number in a line of an answer.
	serial func(line string) (string, bool)
	// oddities are texts that tell of a model on which state rules with a
	// doubtful code do not hold.
	oddities []string
	// extra reads a line that no rule describes; it reports whether it did.
	extra func(s *scan, line string, ended bool) bool
}

// prompt is one form of a prompt. In pattern, %d stands for digits, %w for a
// word of letters, digits, dot, dash and underscore, %p for a possibly empty
// path ([A-Za-z0-9_@:~/.-]); trailing blanks do not matter.
type prompt struct {
	_ incomparable

	kind    kind
	pattern string
	// anywhere: the prompt may follow an answer that did not end its line.
	anywhere bool
}

// step is one command between tiers.
type step struct {
	_ incomparable

	from    kind
	command string
	to      kind
	// optional (way in): where it is refused, the queries are asked at from.
	// If it asks for a password, the configured one is tried, once and for
	// all.
	optional bool
	// always (way out): also where the session was found there, and did not
	// get there by itself.
	always bool
}

// query is one question.
type query struct {
	_ incomparable

	command string
	at      kind // the tier that understands it
	or      kind // another one, if not kindNone
	// fields are what its answer may tell; anything else in it is not for us.
	fields field
	// once: asked when a session begins or something fresh is wanted, not at
	// every poll.
	once bool
	// spare: asked only if no query before it has told its fields.
	spare bool
	// heard: known from captures, and never sent.
	heard bool
	// alarm is the one alarm that the answer is about.
	alarm string
}

// field is a set of facts.
type field uint

const (
	fieldRx field = 1 << iota
	fieldTx
	fieldBias
	fieldTemperature
	fieldVoltage
	fieldOpticFlags
	fieldState
	fieldPONAlarms
	fieldCounters
	fieldFlows
	fieldSerial

	fieldOptics = fieldRx | fieldTx | fieldBias | fieldTemperature | fieldVoltage
)

// Labels are patterns of how a line begins: capitals do not matter, ^ stands
// for any blanks, * for a text in brackets, if there is one, and ~ for the gap
// between two columns: blanks, with or without a colon.

// valueRule finds "<label><number> <unit>".
type valueRule struct {
	field field
	label string
	// gap is what stands between label and number.
	gap   gap
	units []unit
	// tail says what may follow the unit.
	tail tail
	// wrap is added to values above wrapAbove; 0 means no wrap.
	wrapAbove, wrap float64
	// least and most bound what the quantity can be.
	least, most float64
}

// gap is what stands before a number. Where it is known, a blank too many is
// not overlooked: it was a digit.
type gap int

const (
	anyGap gap = iota
	oneGap     // one blank, or tabs alone
	noGap
)

// unit converts to the unit of the reading: value * factor + offset.
type unit struct {
	_ incomparable

	name           string // "" if none is printed
	factor, offset float64
	// milliwatts converts a power instead: 10*log10(value * milliwatts) dBm.
	milliwatts float64
	// form is the number that takes the unit.
	form form
}

// Units that drivers share.
var (
	dBm        = []unit{{name: "dBm", factor: 1}}
	lightUnits = []unit{{name: "dBm", factor: 1}, {name: "uW", milliwatts: 1e-3}, {name: "mW", milliwatts: 1}, {name: "nW", milliwatts: 1e-6}}
	lightCount = []unit{{milliwatts: 1e-4, form: whole}} // of 0.1 uW
	bare       = []unit{{factor: 1}}                     // the label names the unit
)

// kelvin is zero kelvin in degrees Celsius.
const kelvin = -273.15

// form is a way to write a number.
type form int

const (
	anyForm  form = iota
	whole         // no fraction
	fraction      // with a fraction
)

// tail is what may stand behind the unit of a value.
type tail int

const (
	noTail      tail = iota
	pairTail         // the same power in dBm, which is the one to take
	slashTail        // "/", and another quantity
	columnTail       // other columns
	nextDBmTail      // nothing, but the next line is "= <number> dBm"
)

// stateRule finds the state behind a label: an O name, an O name in brackets
// with words before it, or a code.
type stateRule struct {
	label string
	// anywhere: the label may follow a blank within the line.
	anywhere bool
	// names maps the words, in lower case, to the O name that belongs to
	// them; a pair that does not match is no state.
	names map[string]string
	// words: the words alone are a state of their own.
	words bool
	// codes maps numbers to O names: no other form is read.
	codes map[string]string
	// doubtful is the code that proves nothing on an odd model.
	doubtful string
}

// signRule finds a word behind a label that tells light from dark.
type signRule struct {
	_ incomparable

	label string
	// light and dark list the words, in lower case.
	light, dark string
	// alarm is the alarm of the PON MAC that it is; "" if it is none.
	alarm string
}

// flagRule finds "<prefix><name>, status: <word>"; any word but clear is
// active.
type flagRule struct {
	field  field
	prefix string
	names  map[string]string // as printed, to ours
	set    flagSet
}

// flagSet says which list a flag goes to.
type flagSet int

const (
	opticAlarms flagSet = iota
	opticWarnings
	ponAlarms
	opticExtra // an optical alarm that is not one of the complete set
)

// counterRule finds "<label><number>", with the line's end behind it, or,
// anywhere in a line, a blank.
type counterRule struct {
	_ incomparable

	label, name string
	anywhere    bool
}

// tableRule counts upstream flows: a header, then rows of columns, then a
// closing line. Only a complete table counts.
type tableRule struct {
	header  []string // the columns
	closing string   // how the closing line begins
	user    string   // the value of column Type that carries user traffic
}

// kind classifies what stands at the end of the screen.
type kind int

const (
	kindNone     kind = iota // nothing: the cursor is at the start of a line
	kindOther                // text we do not know
	kindLogin                // asks for a name
	kindPassword             // asks for a password
	kindShell                // ready, at the outer tier
	kindCLI                  // ready, where the queries are understood
	kindIdle                 // a prompt of the family where nothing is asked
	kindBoot                 // a boot loader
)

// String names the kind for error texts.
func (k kind) String() string {
	switch k {
	case kindNone:
		return "nothing"
	case kindLogin:
		return "login prompt"
	case kindPassword:
		return "password prompt"
	case kindShell:
		return "shell prompt"
	case kindCLI:
		return "command prompt"
	case kindIdle:
		return "prompt where nothing may be asked"
	case kindBoot:
		return "boot loader prompt"
	case kindOther:
	}
	return "unknown text"
}

// families are the drivers there are, by name. To add one, write it beside
// rtl960x.go and list it here.
var families = [...]struct {
	name string
	make func() *driver
}{
	{"rtl960x", rtl960x},
	{"falcon", falcon},
	{"prx126", prx126},
	{"cig", cig},
	{"huawei", huawei},
	{"zte", zte},
	{"broadcom", broadcom},
	{"econet", econet},
}

// drivers returns every driver there is.
func drivers() []*driver {
	var all []*driver
	for _, f := range families {
		all = append(all, f.make())
	}
	return all
}

// lookup finds a driver by name.
func lookup(name string) (*driver, bool) {
	for _, f := range families {
		if f.name == name {
			return f.make(), true
		}
	}
	return nil, false
}

// Drivers returns the names of the drivers there are.
func Drivers() []string {
	var names []string
	for _, f := range families {
		names = append(names, f.name)
	}
	return names
}

// allows reports whether the driver may ever send the command. Everything
// that is not one of its own commands is denied.
func (d *driver) allows(command string) bool {
	for _, q := range d.queries {
		if q.command == command && !q.heard {
			return true
		}
	}
	for _, steps := range [][]step{d.enter, d.leave} {
		for _, s := range steps {
			if s.command == command {
				return true
			}
		}
	}
	return false
}

// answers reports whether there is something to ask, at every poll, at a tier.
func (d *driver) answers(at kind) bool {
	return slices.ContainsFunc(d.queries, func(q query) bool { return q.is(at) && !q.once && !q.heard })
}

// is reports whether the tier understands the query.
func (q *query) is(at kind) bool { return at != kindNone && (q.at == at || q.or == at) }

// query returns the query with the given command, nil if there is none.
func (d *driver) query(command string) *query {
	for i := range d.queries {
		if d.queries[i].command == command {
			return &d.queries[i]
		}
	}
	return nil
}

// classify says what the last line of the screen is.
func (d *driver) classify(tail string) kind {
	tail = strings.TrimRight(tail, " \t")
	if strings.TrimSpace(tail) == "" {
		return kindNone
	}
	if p, _ := d.promptAt(tail); p != nil {
		return p.kind
	}
	switch {
	case isLogin(tail):
		return kindLogin
	case isPassword(tail):
		return kindPassword
	case isBootPrompt(tail):
		return kindBoot
	}
	return kindOther
}

// suffix reports whether line, without trailing blanks, ends in the prompt
// (is the prompt, unless it may stand anywhere), and what stands before it.
func (p prompt) suffix(line string) (before string, ok bool) {
	if n, ok := match(p.pattern, line); ok && n == len(line) {
		return "", true
	}
	if !p.anywhere {
		return "", false
	}
	literal, _, _ := strings.Cut(p.pattern, "%")
	for end := len(line); literal != ""; {
		at := strings.LastIndex(line[:end], literal)
		if at < 0 {
			return "", false
		}
		if n, ok := match(p.pattern, line[at:]); ok && at+n == len(line) {
			return line[:at], true
		}
		end = at
	}
	return "", false
}

// promptAt returns the longest prompt that the line ends in, nil if none, and
// what stands before it.
func (d *driver) promptAt(line string) (best *prompt, before string) {
	// What was lost before the digits of a prompt does not matter.
	line = strings.TrimLeft(strings.TrimRight(line, " \t"), string(rune(sub)))
	for i := range d.prompts {
		if b, ok := d.prompts[i].suffix(line); ok && (best == nil || len(b) < len(before)) {
			best, before = &d.prompts[i], b
		}
	}
	return best, before
}

// cutPrompt removes a prompt from the start of a line and reports whether
// there was one. A prompt in the line must be followed by a blank or end it.
func (d *driver) cutPrompt(line string) (rest string, ok bool) {
	best := 0
	for _, p := range d.prompts {
		n, ok := match(p.pattern, line)
		if ok && n > best && (n == len(line) || line[n] == ' ' || p.anywhere) {
			best = n
		}
	}
	if best == 0 {
		return line, false
	}
	return strings.TrimLeft(line[best:], " "), true
}

// match matches the pattern at the start of s and returns how much it took.
func match(pattern, s string) (n int, ok bool) {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' || i+1 == len(pattern) {
			if n == len(s) || s[n] != pattern[i] {
				return 0, false
			}
			n++
			continue
		}
		i++
		start := n
		for n < len(s) && inClass(pattern[i], s[n]) {
			n++
		}
		if n == start && pattern[i] != 'p' {
			return 0, false
		}
	}
	return n, true
}

func inClass(class, b byte) bool {
	word := isDigit(b) || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_' || b == '.' || b == '-'
	switch class {
	case 'd':
		return isDigit(b)
	case 'w':
		return word
	case 'p':
		return word || b == '@' || b == ':' || b == '~' || b == '/'
	}
	return false
}

// after matches a label at the start of line and returns what follows it;
// anywhere, also behind a blank.
func after(line, label string, anywhere bool) (rest string, ok bool) {
	for start := 0; ; {
		if n, ok := matchLabel(label, line[start:]); ok {
			return line[start+n:], true
		}
		next := strings.IndexByte(line[start:], ' ')
		if !anywhere || next < 0 {
			return "", false
		}
		start += next + 1
	}
}

// matchLabel matches a label at the start of s and returns how much it took.
func matchLabel(label, s string) (n int, ok bool) {
	blanks := func() {
		for n < len(s) && (s[n] == ' ' || s[n] == '\t') {
			n++
		}
	}
	for i := range len(label) {
		switch label[i] {
		case '^':
			blanks()
		case '*':
			if n == len(s) || s[n] != '(' {
				continue
			}
			for depth := 0; ; n++ {
				if n == len(s) {
					return 0, false
				}
				switch s[n] {
				case '(':
					depth++
				case ')':
					depth--
				}
				if depth == 0 {
					n++
					break
				}
			}
		case '~':
			start := n
			blanks()
			if n < len(s) && s[n] == ':' {
				n++
				blanks()
			}
			if n == start {
				return 0, false
			}
		default:
			if n == len(s) || lower(s[n]) != lower(label[i]) {
				return 0, false
			}
			n++
		}
	}
	return n, true
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}

// isLogin recognises "login:", "host login:", "Username:", "User Name:".
func isLogin(tail string) bool {
	t := strings.ToLower(strings.TrimSpace(tail))
	words := strings.Fields(t)
	if len(words) == 0 || len(words) > 2 || words[0] == "last" {
		return false
	}
	switch words[len(words)-1] {
	case "login:", "username:":
		return true
	case "name:":
		return len(words) == 2 && words[0] == "user"
	}
	return false
}

// isPassword recognises "Password:", "admin's password:".
func isPassword(tail string) bool {
	words := strings.Fields(strings.ToLower(tail))
	return len(words) > 0 && len(words) <= 2 && words[len(words)-1] == "password:"
}

// isBootPrompt recognises the prompts of U-Boot, CFE and the like.
func isBootPrompt(tail string) bool {
	t := strings.TrimSpace(tail)
	for _, pattern := range []string{"=>", "%w =>", "CFE>", "U-Boot>", "uboot>", "<RealTek>", "MT%d #", "bldr>", "FALCON =>"} {
		if n, ok := match(pattern, t); ok && n == len(t) {
			return true
		}
	}
	return false
}

// bootSigns are words, in lower case, that boot loaders print; bootedSigns
// are words that say they are done.
var (
	bootSigns = [...]string{
		"u-boot", "autoboot", "cfe version", "cfe boot", "boot strap register", "bootrom", "btrm",
		"any key to stop", "nvram memcfg", "dram:", "hit esc", "xmodem",
	}
	bootedSigns = [...]string{"linux version", "busybox", "starting pid", "init system", "press enter to activate"}
)

// bootText follows the lines of a screen and knows whether the last thing
// that is known of the machine is that it was in its boot loader.
type bootText bool

func (b *bootText) line(text string) {
	t := strings.ToLower(text)
	for _, s := range bootSigns {
		if strings.Contains(t, s) {
			*b = true
		}
	}
	for _, s := range bootedSigns {
		if strings.Contains(t, s) {
			*b = false
		}
	}
}

// boot reports whether the text so far ends in a boot loader.
func (c *cleaner) boot() bool {
	var boot bootText
	for _, line := range c.lines {
		boot.line(line)
	}
	boot.line(c.tail())
	return bool(boot)
}
