package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/pon"
)

// PONReader is the source of the registration state. If it also has a method
// ReadPONFresh of the same kind, that one is used.
type PONReader interface {
	Name() string
	ReadPON(ctx context.Context) (pon.Status, error)
}

// RegistrationOptions configure the registration rung.
type RegistrationOptions struct {
	Reader PONReader // nil: nothing to read
	// Light are sources of optical readings, most trusted first: of an ONU that
	// is not registered they tell whether it has light, and gives any.
	Light    []OpticsReader
	Poll     time.Duration // between reads; 1 s if zero
	Reads    int           // at most; 12 if zero
	Deadline time.Duration // 45 s if zero
}

const (
	// provenReads is how often in a row the ONU must be seen registered and
	// provisioned to pass, or stopped to fail.
	provenReads = 2
	// deafTime is after how long without a word from the source there is no
	// hope: a console that is dead takes seconds for each read.
	deafTime = 12 * time.Second
	// fakeReads is how often in a row it must be seen operational and not
	// provisioned: the OLT takes a few seconds after O5.
	fakeReads = 6
)

// Registration judges whether the ONU is registered at its OLT: operational,
// provisioned by OMCI, LOID not rejected. O5 alone proves nothing.
type Registration struct{ o RegistrationOptions }

var _ acceptance.Step = (*Registration)(nil)

// NewRegistration returns the registration rung.
func NewRegistration(o RegistrationOptions) *Registration {
	o.Poll = orDefault(o.Poll, time.Second)
	o.Reads = max(orDefault(o.Reads, 12), provenReads)
	o.Deadline = orDefault(o.Deadline, 45*time.Second)
	return &Registration{o: o}
}

// Rung implements acceptance.Step.
func (*Registration) Rung() acceptance.Rung { return acceptance.Registration }

// Needs implements acceptance.Step.
func (*Registration) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Optical} }

// Deadline implements acceptance.Step.
func (s *Registration) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (s *Registration) Estimate() time.Duration { return provenReads * (s.o.Poll + time.Second) }

// Run reads the state until it is proven one way, or Reads are used up.
//
//   - Two reads in a row operational, provisioned, LOID not rejected: pass.
//     An interruption seen before is a warning.
//   - Two in a row stopped: fail. Two in a row with the LOID rejected: fail.
//   - Six in a row operational but not provisioned: fail, a fake O5. What is
//     above can still be measured.
//   - Operational, and nothing tells whether provisioned: inconclusive.
//   - Not operational to the end: fail, by the furthest state that was seen, and
//     whether there is light.
//   - The laser stays on outside its time slots: fail.
//   - Most reads failed or said nothing: inconclusive.
//
// Errors on the fibre that grow meanwhile are a warning.
func (s *Registration) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	if s.o.Reader == nil {
		decide(&out, acceptance.Inconclusive, "no source of the registration state", diagnosis.PONUnreadable)
		return out
	}
	read := s.o.Reader.ReadPON
	if fresh, ok := s.o.Reader.(interface {
		ReadPONFresh(ctx context.Context) (pon.Status, error)
	}); ok {
		read = fresh.ReadPONFresh
	}

	w := watch{reader: s.o.Reader.Name()}
	began := time.Now()
	// What a source does not say in time is a verdict, not an overrun.
	reading, cancel := context.WithTimeout(ctx, s.o.Deadline*4/5)
	defer cancel()
	for w.reads < s.o.Reads && !w.proven() && (!w.deaf() || time.Since(began) < deafTime) {
		if w.reads > 0 && pause(reading, s.o.Poll) != nil {
			break
		}
		st, err := read(reading)
		if reading.Err() != nil {
			break
		}
		if st.Source == "" {
			st.Source = w.reader
		}
		if st.State == "" {
			st.State = pon.Normalise(st.Raw)
		}
		if err != nil {
			note(fmt.Sprintf("%s: %v", w.reader, err))
		}
		note(fmt.Sprintf("state %q (%s) omci %q loid %q alarms %s", st.Raw, st.State, st.OMCIProvisioned, st.LOIDStatus, strings.Join(st.Alarms, ",")))
		w.add(st, err)
		if errors.Is(err, collectors.ErrNoData) {
			break
		}
	}
	w.measurements(&out)
	if ctx.Err() != nil && !w.proven() {
		stopped(ctx, &out)
		return out
	}
	w.verdict(&out)
	if out.Verdict == acceptance.Fail && !operational(w.lastTold()) {
		s.light(ctx, &out, w.lastTold(), note)
	}
	w.errors(&out)
	return out
}

// light looks whether an ONU that is not registered has light, and gives any
// when it is asked to, and names the cause anew if that is why.
func (s *Registration) light(ctx context.Context, out *acceptance.Outcome, last pon.Status, note func(string)) {
	asked := last.State == pon.StateSerial || last.State == pon.StateRanging
	if last.State != pon.StateLOS && !asked {
		return
	}
	for _, reader := range s.o.Light {
		// Bursts are short and rare: one look may miss them.
		off, looks := 0, 1
		if asked {
			looks = 3
		}
		var r optics.Reading
		for i := range looks {
			if i > 0 && pause(ctx, s.o.Poll) != nil {
				return
			}
			var err error
			if r, err = fresh(reader)(ctx); err != nil {
				note(fmt.Sprintf("%s: %v", reader.Name(), err))
			}
			if r.TxPower.Status == collectors.StatusNoLight {
				off++
			}
		}
		if !r.RxPower.OK() {
			continue
		}
		switch {
		case asked && off == looks:
			put(out, reading("tx_power_dbm", r.TxPower, "the OLT has asked it to transmit"))
			decide(out, acceptance.Fail, "the OLT waits for an answer, and the laser gives no light", diagnosis.OpticalTxFault)
		case !asked && !slices.Contains(last.Alarms, "los"):
			decide(out, acceptance.Fail, fmt.Sprintf("there is light (%.2f dBm), and the ONU finds no signal in it", r.RxPower.Value), diagnosis.PONNoSync)
		}
		return
	}
}

// watch is the history of one run.
type watch struct {
	reader  string
	reads   int
	known   []pon.Status // reads that told a state, in order
	lastErr error
}

func (w *watch) add(st pon.Status, err error) {
	w.reads++
	if err != nil {
		w.lastErr = err
	}
	if st.State != "" && st.State != pon.StateUnknown {
		w.known = append(w.known, st)
		return
	}
	// A gap: what was seen before and after it is not in a row.
	w.known = append(w.known, pon.Status{State: pon.StateUnknown, Raw: st.Raw, Source: st.Source})
}

// deaf reports whether nothing was told from the start on.
func (w *watch) deaf() bool {
	return w.lastErr != nil && w.inARow(unnamed) == w.reads
}

// grown is how much a counter grew from the first read that has it to the last,
// and in how many seconds; 0 if it was reset.
func (w *watch) grown(name string) (n uint64, seconds float64) {
	var first, last *pon.Status
	for i := range w.known {
		if _, ok := w.known[i].Counters[name]; ok {
			if last = &w.known[i]; first == nil {
				first = last
			}
		}
	}
	if first == last || last.Counters[name] < first.Counters[name] {
		return 0, 0
	}
	return last.Counters[name] - first.Counters[name], last.At.Sub(first.At).Seconds()
}

// bipRate is how many BIP errors a second are too many: at 2.5 Gbit/s it is a
// bit error ratio of 4e-9, where GPON asks for 1e-10 (G.984.2). Below it a
// second tells little.
const bipRate = 10

// errors judges what the ONU counts of errors, and of its own laser.
func (w *watch) errors(out *acceptance.Outcome) {
	last := w.lastTold()
	if unnamed(last) || last.State == pon.StateLOS {
		return // of no signal there are errors without end
	}
	has := func(alarm string) bool { return slices.Contains(last.Alarms, alarm) }
	uncorrected, _ := w.grown(pon.FECUncorrected)
	bip, seconds := w.grown(pon.BIP)
	bad := uncorrected > 0 || bip > 0 && seconds > 0 && float64(bip)/seconds >= bipRate
	if bad {
		measured(out, "fec_uncorrected", uncorrected, last.Source, "grew meanwhile; codewords")
		measured(out, "bip", bip, last.Source, fmt.Sprintf("grew in %.1f s", seconds))
	}
	if bad || operational(last) && (has("sd") || has("sf")) {
		warn(out, diagnosis.OpticalBitErrors)
	}
	tooLong, _ := w.grown(pon.SDTooLong)
	mismatch, _ := w.grown(pon.SDMismatch)
	if tooLong > 0 || mismatch > 0 || has("tx_too_long") || has("laser_forced_on") {
		if out.Verdict == acceptance.Fail {
			out.Causes = append(out.Causes, string(diagnosis.OpticalLaserStuckOn))
			return
		}
		decide(out, acceptance.Fail, fmt.Sprintf("the laser stays on outside its time slots: %d times meanwhile, alarms %q", tooLong+mismatch, strings.Join(last.Alarms, " ")), diagnosis.OpticalLaserStuckOn)
	}
}

// inARow counts the last reads for which is holds.
func (w *watch) inARow(is func(pon.Status) bool) int {
	n := 0
	for _, st := range slices.Backward(w.known) {
		if !is(st) {
			break
		}
		n++
	}
	return n
}

func operational(st pon.Status) bool { return st.State == pon.StateOperational }
func registered(st pon.Status) bool {
	return operational(st) && st.OMCIProvisioned == pon.Yes && !rejected(st)
}
func fake(st pon.Status) bool    { return operational(st) && st.OMCIProvisioned == pon.No }
func halted(st pon.Status) bool  { return st.State == pon.StateStopped }
func unnamed(st pon.Status) bool { return st.State == pon.StateUnknown }
func rejected(st pon.Status) bool {
	_, no := loid(st.LOIDStatus)
	return no
}

func (w *watch) proven() bool {
	return w.inARow(registered) >= provenReads || w.inARow(halted) >= provenReads ||
		w.inARow(rejected) >= provenReads || w.inARow(fake) >= fakeReads
}

func (w *watch) verdict(out *acceptance.Outcome) {
	told := 0
	for _, st := range w.known {
		if !unnamed(st) {
			told++
		}
	}
	switch {
	case told == 0, 2*told <= w.reads, told < provenReads:
		reason := fmt.Sprintf("%s told the state in %d of %d reads", w.reader, told, w.reads)
		if w.lastErr != nil {
			reason += fmt.Sprintf(", last error: %v", w.lastErr)
		}
		decide(out, acceptance.Inconclusive, reason, diagnosis.PONUnreadable)
		return
	case w.inARow(unnamed) >= provenReads:
		decide(out, acceptance.Inconclusive, w.reader+" stopped telling the state", diagnosis.PONUnreadable)
		return
	}
	last := w.lastTold()
	out.Passable = operational(last)
	code, no := loid(last.LOIDStatus)
	switch {
	case w.inARow(registered) >= provenReads:
		decide(out, acceptance.Pass, "")
		if slices.ContainsFunc(w.known, func(st pon.Status) bool { return !unnamed(st) && !operational(st) }) {
			warn(out, diagnosis.PONPopup)
		}
	case no && w.inARow(rejected) >= provenReads:
		decide(out, acceptance.Fail, fmt.Sprintf("the LOID is rejected: %q", last.LOIDStatus), code)
	case w.inARow(fake) >= fakeReads:
		decide(out, acceptance.Fail, "operational, but the OLT has provisioned nothing by OMCI", diagnosis.PONFakeO5)
	case operational(last):
		w.undecided(out, last)
	default:
		decide(out, acceptance.Fail, fmt.Sprintf("not registered: state %s (%s)", last.State, last.Raw), w.furthest(last))
	}
}

// undecided is the verdict for an ONU that is operational at the end but was
// not proven registered.
func (w *watch) undecided(out *acceptance.Outcome, last pon.Status) {
	switch {
	case last.OMCIProvisioned != pon.Yes && last.OMCIProvisioned != pon.No:
		decide(out, acceptance.Inconclusive, "operational, but nothing tells whether the OLT has provisioned it", diagnosis.PONOMCIUnknown)
	case slices.ContainsFunc(w.known, func(st pon.Status) bool { return !unnamed(st) && !operational(st) }):
		decide(out, acceptance.Inconclusive, "the state was not steady long enough to tell", diagnosis.PONPopup)
	default:
		decide(out, acceptance.Inconclusive, "what the source says of OMCI and LOID was not steady long enough to tell", diagnosis.PONOMCIUnknown)
	}
}

func (w *watch) lastTold() pon.Status {
	for _, st := range slices.Backward(w.known) {
		if !unnamed(st) {
			return st
		}
	}
	return pon.Status{State: pon.StateUnknown}
}

// furthest returns the cause for an ONU that did not get to operation, by how
// far it got.
func (w *watch) furthest(last pon.Status) diagnosis.Code {
	seen := func(state pon.State) bool {
		return slices.ContainsFunc(w.known, func(st pon.Status) bool { return st.State == state })
	}
	switch {
	case last.State == pon.StateStopped:
		return diagnosis.PONStoppedByOLT
	case seen(pon.StateOperational), seen(pon.StatePopup):
		return diagnosis.PONPopup // it came and went
	case seen(pon.StateRanging):
		return diagnosis.PONRangingFailed
	case seen(pon.StateSerial), seen(pon.StateSearching):
		return diagnosis.PONNotProvisionedSN
	case slices.Contains(last.AlarmsKnown, "los") && !slices.Contains(last.Alarms, "los"):
		return diagnosis.PONNoSync
	}
	return diagnosis.PONLOS
}

// loid reads what a chip says about authentication by LOID: the numbers of the
// CTC attribute (0 not yet, 1 success, 2 unknown LOID, 3 wrong password, 4
// duplicate), or the words of vendors' pages. It reports whether the LOID is
// rejected, and the cause. What it does not know is not rejected.
func loid(status string) (diagnosis.Code, bool) {
	word := strings.ToLower(strings.TrimSpace(status))
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(word, p) })
	}
	switch {
	case word == "", word == "0", word == "1", has("success", "init"):
		return "", false
	case word == "2", has("inexist", "not exist", "no_loid", "loid_not"):
		return diagnosis.PONLOIDUnknown, true
	case word == "3", has("password"):
		return diagnosis.PONLOIDPassword, true
	case word == "4", has("duplicat", "conflict"):
		return diagnosis.PONLOIDDuplicate, true
	case word == "fail", has("reject", "auth fail", "auth_fail"):
		return diagnosis.PONAuthRejected, true
	}
	return "", false
}

func (w *watch) measurements(out *acceptance.Outcome) {
	for i, st := range w.known {
		m := acceptance.Measurement{Name: "onu_state", Status: string(collectors.StatusOK), Value: st.State, Source: st.Source, Raw: st.Raw}
		if unnamed(st) {
			m.Value, m.Status = nil, string(collectors.StatusError)
		}
		m.Note = fmt.Sprintf("read %d: omci %s", i+1, or(st.OMCIProvisioned, pon.Unknown))
		put(out, m)
	}
	last := w.lastTold()
	if unnamed(last) {
		return
	}
	omci := value("omci_provisioned", or(last.OMCIProvisioned, pon.Unknown), last.Source, last.OMCIEvidence)
	if or(last.OMCIProvisioned, pon.Unknown) == pon.Unknown {
		omci.Value, omci.Status = nil, string(collectors.StatusUnsupported)
	}
	put(out, omci)
	if last.FlowsKnown {
		measured(out, "gem_ports", last.GEMPorts, last.Source, "")
		measured(out, "t_conts", last.TConts, last.Source, "")
	}
	if last.LOIDStatus != "" {
		measured(out, "loid_status", last.LOIDStatus, last.Source, "as the chip says")
	}
	if len(last.AlarmsKnown) > 0 {
		measured(out, "pon_alarms", strings.Join(last.Alarms, " "), last.Source, "read: "+strings.Join(last.AlarmsKnown, " "))
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
