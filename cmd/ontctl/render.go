package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
)

// defaultLang follows the environment; technicians who set none are Chinese.
func defaultLang() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" && v != "C" && v != "POSIX" && !strings.HasPrefix(v, "C.") {
			lang, _ := diagnosis.ParseLang(v)
			return string(lang)
		}
	}
	return string(diagnosis.Chinese)
}

func checkLang(f *flag.FlagSet, lang string) error {
	if lang == string(diagnosis.Chinese) || lang == string(diagnosis.English) {
		return nil
	}
	return cli.Exit(cli.Usage, "%s: --lang %q is neither zh-CN nor en", f.Name(), lang)
}

// phrases are the catalogue's words in one language.
type phrases struct{ lang diagnosis.Lang }

func words(lang string) phrases {
	l, _ := diagnosis.ParseLang(lang)
	return phrases{l}
}

func (p phrases) label(key string) string  { return diagnosis.Text(p.lang, diagnosis.KeyLabel+key) }
func (p phrases) altered() string          { return p.label("altered") }
func (p phrases) rung(r string) string     { return diagnosis.Text(p.lang, diagnosis.KeyRung+r) }
func (p phrases) verdict(v string) string  { return diagnosis.Text(p.lang, diagnosis.KeyVerdict+v) }
func (p phrases) state(s job.State) string { return diagnosis.Text(p.lang, diagnosis.KeyJob+string(s)) }

func (p phrases) refusal(r order.Reason) string {
	return diagnosis.Text(p.lang, diagnosis.KeyReject+string(r))
}

func (p phrases) record(s record.Status) string {
	return diagnosis.Text(p.lang, diagnosis.KeyRecord+string(s))
}

func (p phrases) action(t order.CommandType) string {
	return diagnosis.Text(p.lang, diagnosis.KeyAction+string(t))
}

func (p phrases) chain(n int) string {
	if p.lang == diagnosis.Chinese {
		return fmt.Sprintf("%d 份记录首尾相连，中间没有缺失", n)
	}
	return fmt.Sprintf("chain of %d records: intact", n)
}

// pad fills s up to a number of columns; a Chinese character takes two.
func pad(s string, columns int) string {
	for _, r := range s {
		columns--
		if r >= 0x1100 {
			columns--
		}
	}
	return s + strings.Repeat(" ", max(columns, 0))
}

// textPrinter shows a conversation to a technician.
type textPrinter struct {
	out  io.Writer
	lang string
	last string // the line printed last, so that a repeated status prints once
}

func (p *textPrinter) sent(cmd order.Command) {
	what := words(p.lang).action(cmd.Type)
	if cmd.Order != "" { // a NOC looks without one
		what += " " + cmd.Order
	}
	fmt.Fprintf(p.out, "%s → %s (%s)\n", what, cmd.Device, cmd.ID)
}

func (p *textPrinter) filed(path string, status record.Status) {
	w := words(p.lang)
	if status == record.Valid {
		fmt.Fprintf(p.out, "%s: %s\n", w.label("record"), w.record(status))
	}
	if path != "" {
		fmt.Fprintf(p.out, "%s %s\n", w.label("filed"), path)
	}
}

func (p *textPrinter) status(st job.Status) {
	w := words(p.lang)
	line := fmt.Sprintf("[%3.0f %%] %s", 100*st.Progress, w.state(st.State))
	switch {
	case st.State == job.Running && st.Step != "" && st.StepVerdict == "":
		return // its result follows
	case st.State == job.Running && st.Step != "":
		line = fmt.Sprintf("[%3.0f %%] %s: %s", 100*st.Progress, w.rung(st.Step), w.verdict(st.StepVerdict))
		if st.StepVerdict != string(acceptance.Pass) {
			line += stepDetail(st, w)
		}
		if st.EtaS >= 1 {
			line += fmt.Sprintf(" (%s)", fmt.Sprintf(w.label("seconds_left"), st.EtaS))
		}
	case st.State == job.Rejected:
		line += fmt.Sprintf(": %s [%s] %s", w.refusal(st.Reason), st.Reason, clean(st.Detail))
	case st.Detail != "":
		line += ": " + clean(st.Detail)
	}
	if line != p.last {
		fmt.Fprintln(p.out, line)
		p.last = line
	}
	if st.State.Terminal() && st.Verdict != "" {
		p.verdict(st, w)
	}
}

// stepDetail says why a rung did not pass: the cause in the technician's
// language, and to English readers also the step's own words.
func stepDetail(st job.Status, w phrases) string {
	var parts []string
	if st.StepCause != "" {
		parts = append(parts, diagnosis.Title(w.lang, diagnosis.Code(st.StepCause)))
	}
	if st.StepReason != "" && (w.lang == diagnosis.English || len(parts) == 0) {
		parts = append(parts, clean(st.StepReason))
	}
	if len(parts) == 0 {
		return ""
	}
	return " — " + strings.Join(parts, ": ")
}

func (p *textPrinter) verdict(st job.Status, w phrases) {
	fmt.Fprintf(p.out, "\n%s: %s\n", w.label("verdict"), w.verdict(st.Verdict))
	for _, r := range st.Summary {
		if !r.Required {
			continue
		}
		fmt.Fprintf(p.out, "  %s: %s\n", w.rung(r.Rung), w.verdict(r.Verdict))
	}
	if st.FirstCause == "" {
		return
	}
	code := diagnosis.Code(st.FirstCause)
	fmt.Fprintf(p.out, "%s: %s [%s]\n", w.label("cause"), diagnosis.Title(w.lang, code), code)
	if cause, known := diagnosis.Lookup(code); known {
		fmt.Fprintf(p.out, "%s: %s\n", w.label("side"), render.In(w.lang).Sides(cause.Side, cause.OrSide))
	}
	if action := diagnosis.Action(w.lang, code); action != "" {
		fmt.Fprintf(p.out, "%s: %s\n", w.label("action"), action)
	}
}
