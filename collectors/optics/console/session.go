package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// readSlice bounds one Read, and with it how long a cancelled context can go
// unnoticed.
const readSlice = 100 * time.Millisecond

// tellBefore is how long before its caller's deadline a console that does not
// fall silent is given up at the latest, so that the caller hears of it.
const tellBefore = 500 * time.Millisecond

// maxScreen bounds the text kept of one answer.
const maxScreen = 128 << 10

// loginsOnScreen is how many login prompts, printed without our doing, count
// as a prompt that repeats by itself.
const loginsOnScreen = 3

// session is one conversation, from the first byte to the last. It belongs to
// one goroutine.
type session struct {
	port  Port
	d     *driver
	opts  *Options
	clean cleaner
	buf   []byte

	at      kind   // where we are; kindNone: not known
	entered bool   // we got to where the commands are understood
	own     []kind // tiers we got into by ourselves, so they are ours to leave
	refused bool   // an optional step is not for us: do not try it again
	odd     bool   // the screen told of an odd model
	woken   bool   // a carriage return was sent to wake the prompt
	asked   bool   // the questions asked once were
	began   time.Time

	lastByte time.Time
	bytes    int // since the last send
}

// errTimeout: what was awaited did not come.
var errTimeout = errors.New("timeout")

func newSession(port Port, d *driver, opts *Options) *session {
	return &session{
		port: port, d: d, opts: opts,
		clean:    cleaner{keepKernel: d.keepKernel},
		buf:      make([]byte, 1024),
		began:    time.Now(),
		lastByte: time.Now(),
	}
}

// kind classifies the end of the screen.
func (s *session) kind() kind {
	if s.clean.inKernel {
		return kindOther
	}
	return s.d.classify(s.clean.tail())
}

// read takes what comes within d, at most one buffer.
func (s *session) read(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.port.SetReadTimeout(max(min(d, readSlice), time.Millisecond)); err != nil {
		return mapIOError(err)
	}
	n, err := s.port.Read(s.buf)
	if n > 0 {
		s.lastByte = time.Now()
		s.bytes += n
		_, _ = s.clean.Write(s.buf[:n])
		if s.bytes > maxScreen {
			return fmt.Errorf("%w: %d bytes without a prompt", ErrBabble, s.bytes)
		}
	}
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// await reads until settle accepts what stands at the end of the screen and
// the line has been quiet for as long as settle says. It returns errTimeout
// after limit; what is accepted by then may still settle.
func (s *session) await(ctx context.Context, limit time.Duration, settle func(kind) (quiet time.Duration, ok bool)) (kind, error) {
	deadline := time.Now().Add(limit)
	for {
		k := s.kind()
		wait := time.Until(deadline)
		if quiet, ok := settle(k); ok {
			left := quiet - time.Since(s.lastByte)
			if left <= 0 {
				return k, nil
			}
			wait = min(left, wait+quiet)
		}
		if wait <= 0 {
			return k, errTimeout
		}
		if err := s.read(ctx, wait); err != nil {
			return k, err
		}
	}
}

// send types one of the driver's commands. Everything else is refused.
func (s *session) send(command string) error {
	if !s.d.allows(command) {
		return fmt.Errorf("cannot send %q: %w", command, errNotAllowed)
	}
	return s.typeLine(command)
}

// typeLine types text and a carriage return, and forgets the screen: what
// comes is echo and answer. Only send, wake and login call it.
func (s *session) typeLine(text string) error {
	for _, line := range s.clean.lines {
		s.odd = s.odd || s.d.odd(line)
	}
	s.odd = s.odd || s.d.odd(s.clean.tail())
	s.clean.reset()
	s.bytes = 0
	b := append([]byte(text), '\r')
	for len(b) > 0 {
		n, err := s.port.Write(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	s.lastByte = time.Now()
	return nil
}

// start finds out where the console is and goes to where the driver's
// commands are understood. once answers the questions that are asked on the
// way, if it is not nil.
func (s *session) start(ctx context.Context, once *scan) error {
	k, err := s.listen(ctx)
	if err != nil {
		return err
	}
	if k == kindLogin {
		if k, err = s.login(ctx); err != nil {
			return err
		}
	}
	s.at = k
	for _, step := range s.d.enter {
		if s.at != step.from || step.optional && s.refused {
			continue
		}
		if err := s.askOnce(ctx, once); err != nil {
			return err
		}
		if err := s.step(ctx, step); err != nil {
			return err
		}
	}
	if !s.d.answers(s.at) {
		return fmt.Errorf("%w: stuck at a %s", ErrWrongFamily, s.at)
	}
	s.entered = true
	return s.askOnce(ctx, once)
}

// askOnce puts the questions asked once at the tier where we are; to nobody if
// out is nil.
func (s *session) askOnce(ctx context.Context, out *scan) error {
	if out == nil {
		return nil
	}
	s.asked = true
	return s.askAll(ctx, out, true)
}

// step goes from one tier to the next. Where an optional one is refused, we
// stay where we were.
func (s *session) step(ctx context.Context, step step) error {
	if err := s.send(step.command); err != nil {
		return err
	}
	s.at = kindNone
	k, err := s.await(ctx, s.opts.Timeouts.Answer, s.atPrompt)
	if err == nil && k == kindPassword && step.optional {
		s.refused = true // unless the password fits
		if err = s.typeLine(s.opts.Password); err != nil {
			return err
		}
		k, err = s.await(ctx, s.opts.Timeouts.Login, s.atPrompt)
		s.refused = k != step.to
	}
	if err != nil {
		return s.explain(err, k)
	}
	s.at = k
	switch {
	case k == step.to:
		s.own = append(s.own, k)
	case k == step.from && step.optional:
	default:
		return fmt.Errorf("%w: %q led to a %s%s", ErrWrongFamily, step.command, k, s.said())
	}
	return nil
}

// said quotes the last line of an answer, for an error text. Only answers to
// our own commands are quoted, never the screen as it was found.
func (s *session) said() string {
	for _, line := range slices.Backward(s.clean.lines) {
		line = strings.TrimSpace(line)
		if line != "" && !s.d.allows(line) {
			return fmt.Sprintf(" (%q)", bounded(line))
		}
	}
	return ""
}

// atPrompt accepts the prompts that lead on, or tell that nothing does.
func (s *session) atPrompt(k kind) (time.Duration, bool) {
	switch k {
	case kindShell, kindCLI, kindIdle, kindLogin, kindPassword, kindBoot:
		return s.opts.Timeouts.Settle, true
	case kindNone, kindOther:
	}
	return 0, false
}

// listen waits for quiet and says what stands on the screen; if that is
// nothing, it wakes the prompt. It returns only kinds that lead on.
func (s *session) listen(ctx context.Context) (kind, error) {
	t := &s.opts.Timeouts
	limit := t.Listen
	if deadline, ok := ctx.Deadline(); ok {
		// A caller with less time than that would learn only that its time is
		// up, so it is told earlier what there was to hear.
		if left := time.Until(deadline) - t.Quiet - tellBefore; left > t.Quiet {
			limit = min(limit, left)
		}
	}
	k, err := s.await(ctx, limit, func(kind) (time.Duration, bool) { return t.Quiet, true })
	if errors.Is(err, errTimeout) || errors.Is(err, ErrBabble) {
		screen := s.screen()
		switch {
		case screen.boot:
			return k, fmt.Errorf("%w: it is starting%s", ErrBootLoader, s.typed())
		case screen.logins >= loginsOnScreen:
			return k, fmt.Errorf("%w: %d times%s", ErrLoginLoop, screen.logins, s.typed())
		case errors.Is(err, ErrBabble):
			return k, err
		}
		return k, fmt.Errorf("%w: not quiet for %v within %v", ErrBabble, t.Quiet, limit.Round(time.Second))
	}
	if err != nil {
		return k, err
	}
	if k == kindNone {
		if k, err = s.wake(ctx); err != nil {
			return k, err
		}
	}
	if k == kindNone {
		// A login prompt came, and other text buried it: no boot loader.
		if k, err = s.wake(ctx); err != nil {
			return k, err
		}
	}
	return k, s.judge(k)
}

// judge says whether a screen leads on.
func (s *session) judge(k kind) error {
	screen := s.screen()
	switch k {
	case kindShell, kindCLI:
		return nil
	case kindLogin:
		if screen.logins >= loginsOnScreen {
			return fmt.Errorf("%w: %d times%s", ErrLoginLoop, screen.logins, s.typed())
		}
		if screen.locked {
			return fmt.Errorf("%w: the screen says it is locked%s", ErrLoginRefused, s.typed())
		}
		return nil
	case kindPassword:
		return fmt.Errorf("%w: it asks for a password, but not after a name of ours%s", ErrUnknownPrompt, s.typed())
	case kindBoot:
		return fmt.Errorf("%w: %q%s", ErrBootLoader, bounded(strings.TrimSpace(s.clean.tail())), s.typed())
	case kindIdle:
		return fmt.Errorf("%w: %q is known, but nothing may be asked there%s", ErrUnknownPrompt, bounded(strings.TrimSpace(s.clean.tail())), s.typed())
	case kindNone, kindOther:
	}
	if screen.boot {
		return fmt.Errorf("%w: it is starting%s", ErrBootLoader, s.typed())
	}
	return fmt.Errorf("%w: %q%s", ErrUnknownPrompt, bounded(strings.TrimSpace(s.clean.tail())), s.typed())
}

// typed says, for an error text, what was sent before it was known where the
// console is.
func (s *session) typed() string {
	if s.woken {
		return "; only a carriage return was sent"
	}
	return "; nothing was sent"
}

// wake sends a carriage return without a prompt: once, and once more if a login
// prompt came and was buried by other text. It returns kindNone in that case.
func (s *session) wake(ctx context.Context) (kind, error) {
	screen := s.screen()
	switch {
	case screen.boot:
		return kindNone, fmt.Errorf("%w: it is starting%s", ErrBootLoader, s.typed())
	case screen.locked:
		return kindNone, fmt.Errorf("%w: the screen says it is locked%s", ErrLoginRefused, s.typed())
	case screen.logins >= loginsOnScreen:
		return kindNone, fmt.Errorf("%w: %d times%s", ErrLoginLoop, screen.logins, s.typed())
	case s.opts.NoWake:
		return kindNone, fmt.Errorf("%w: no prompt on the screen, and waking it is forbidden", ErrNoAnswer)
	}
	s.woken = true
	if err := s.typeLine(""); err != nil {
		return kindNone, err
	}
	t := &s.opts.Timeouts
	k, err := s.await(ctx, t.Answer, func(k kind) (time.Duration, bool) {
		if k == kindOther || k == kindNone && s.screen().logins > 0 {
			return t.Quiet, true // perhaps it is still being printed
		}
		return s.atPrompt(k)
	})
	if errors.Is(err, errTimeout) {
		if s.bytes > 0 && k == kindOther {
			return k, fmt.Errorf("%w: not quiet within %v", ErrBabble, t.Answer)
		}
		if s.screen().boot {
			return k, fmt.Errorf("%w: it is starting%s", ErrBootLoader, s.typed())
		}
		return k, fmt.Errorf("%w: silent for %v after a carriage return", ErrNoAnswer, t.Answer)
	}
	return k, err
}

// screen is what the text so far says of the machine.
type screen struct {
	boot   bool // in its boot loader, or starting
	locked bool // a login that must not be tried
	logins int  // login prompts
}

func (s *session) screen() screen {
	var (
		out  screen
		boot bootText
	)
	line := func(text string) {
		boot.line(text)
		head, _, _ := strings.Cut(text, ":")
		if isLogin(head + ":") {
			out.logins++
		}
		t := strings.ToLower(text)
		for _, sign := range []string{"locked", "too many", "try again", "incorrect", "login failed", "maximum number of tries"} {
			out.locked = out.locked || strings.Contains(t, sign)
		}
	}
	for _, text := range s.clean.lines {
		line(text)
	}
	if tail := s.clean.tail(); tail != "" {
		line(tail)
	}
	out.boot = bool(boot)
	return out
}

// login answers login prompts, as many tiers as the driver knows, each once.
func (s *session) login(ctx context.Context) (kind, error) {
	t := &s.opts.Timeouts
	for range s.d.logins {
		if s.opts.Username == "" {
			return kindLogin, ErrNoCredentials
		}
		if err := s.typeLine(s.opts.Username); err != nil {
			return kindLogin, err
		}
		k, err := s.await(ctx, t.Login, s.atPrompt)
		if err != nil {
			return k, s.explain(err, k)
		}
		if k == kindPassword {
			if err := s.typeLine(s.opts.Password); err != nil {
				return k, err
			}
			if k, err = s.await(ctx, t.Login, s.atPrompt); err != nil {
				return k, s.explain(err, k)
			}
		}
		switch k {
		case kindShell, kindCLI, kindIdle:
			s.own = append(s.own, k)
			return k, nil
		case kindBoot:
			return k, ErrBootLoader
		case kindLogin:
			if s.screen().locked {
				return k, ErrLoginRefused
			}
		case kindNone, kindOther, kindPassword:
			return k, ErrLoginRefused
		}
	}
	return kindLogin, ErrLoginRefused
}

// explain makes a timeout within a session speak.
func (s *session) explain(err error, k kind) error {
	if !errors.Is(err, errTimeout) {
		return err
	}
	if s.clean.empty() {
		return fmt.Errorf("%w: silent in the middle of a session", ErrNoAnswer)
	}
	return fmt.Errorf("%w: no prompt, but %s", ErrNoAnswer, k)
}

// askAll puts the driver's questions for the tier where we are: those asked
// once, or the others.
func (s *session) askAll(ctx context.Context, out *scan, once bool) error {
	for i := range s.d.queries {
		q := &s.d.queries[i]
		if !q.is(s.at) || q.once != once || q.heard || q.spare && out.has(q.fields) {
			continue
		}
		out.odd = out.odd || s.odd
		if err := s.ask(ctx, out, q); err != nil {
			return fmt.Errorf("cannot ask %q: %w", q.command, err)
		}
	}
	return nil
}

// ask puts one question. Where an answer came but the prompt got lost in other
// text, it is called for once more by a carriage return: the session is ours
// and the machine has just answered, so it is not in its boot loader.
func (s *session) ask(ctx context.Context, out *scan, q *query) error {
	if err := s.send(q.command); err != nil {
		return err
	}
	at := s.at
	same := func(k kind) (time.Duration, bool) {
		if k != at {
			return 0, false
		}
		return s.opts.Timeouts.Settle, true
	}
	k, err := s.await(ctx, s.opts.Timeouts.Answer, same)
	lines := s.clean.lines
	if errors.Is(err, errTimeout) && s.screen().boot {
		s.at = kindNone
		return fmt.Errorf("%w: it restarted", ErrBootLoader)
	}
	if errors.Is(err, errTimeout) && len(lines) > 1 && time.Since(s.lastByte) >= s.opts.Timeouts.Quiet {
		// Text has buried the prompt: "# service … enabled".
		if tail := s.clean.tail(); tail != "" {
			lines = append(lines, tail)
		}
		if err = s.typeLine(""); err != nil {
			return err
		}
		k, err = s.await(ctx, s.opts.Timeouts.Answer, same)
	}
	if err != nil {
		s.at = kindNone
		return s.explain(err, k)
	}
	out.begin(q)
	for _, line := range lines {
		out.line(line, true)
	}
	// An answer that does not end its line has the prompt behind it.
	if p, before := s.d.promptAt(s.clean.tail()); p != nil && before != "" {
		out.line(before, true)
	}
	out.end()
	return nil
}

// leave goes back to where the session began, as far as it can be done in
// short order, and reports whether it got there. The port is left open.
func (s *session) leave(ctx context.Context) bool {
	if s.at == kindNone && s.entered {
		// Cut short in the middle of an answer: let it end.
		if k, err := s.await(ctx, s.opts.Timeouts.Answer, s.atPrompt); err == nil {
			s.at = k
		}
	}
	if s.at != kindShell && s.at != kindCLI {
		return false
	}
	for _, step := range s.d.leave {
		if s.at != step.from || !step.always && !slices.Contains(s.own, s.at) {
			continue
		}
		if err := s.send(step.command); err != nil {
			return false
		}
		s.at = kindNone
		k, err := s.await(ctx, s.opts.Timeouts.Answer, s.atPrompt)
		if err != nil {
			return false
		}
		s.at = k
	}
	return true
}
