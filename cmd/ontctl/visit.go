package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
)

// visitFlags are what every command to a gateway takes.
type visitFlags struct {
	broker    brokerFlags
	gateway   string
	orderFile string
	keyFile   string
	trustFile string
	extract   string
	timeKey   string
	root      string
	record    string
	lang      string
	json      bool
	request   string
	nonce     string
	wait      time.Duration
	target    string
	action    string
	standing  bool
	nocDevice string
	nocTenant string
}

func (v *visitFlags) register(f *flag.FlagSet) {
	v.broker.register(f)
	f.StringVar(&v.gateway, "gateway", "", "`HOST:PORT` of the gateway's LAN listener, instead of a broker")
	f.StringVar(&v.orderFile, "order", "", "signed work order `FILE`")
	f.StringVar(&v.keyFile, "key", "", "technician's secret key `FILE`")
	f.StringVar(&v.trustFile, "trust", "", "trust list `FILE` to hand over, for a gateway with an older one")
	f.StringVar(&v.extract, "extract", "", "signed AAA extract `FILE` for the order's account: what the rung account compares with")
	f.StringVar(&v.timeKey, "time-key", "", "time key `FILE`, to answer a gateway that does not trust its clock")
	f.StringVar(&v.root, "root", "", "operator's root key (.pub `FILE`): needed with --gateway; the record is checked against it")
	f.StringVar(&v.lang, "lang", defaultLang(), "zh-CN or en")
	f.StringVar(&v.request, "request", "", "send nothing: write the signed request to `FILE`, for `ontagent accept` on the gateway itself")
	f.StringVar(&v.nonce, "nonce", "", "with --request and --time-key: answer the challenge `NONCE` that the gateway gave to the request in FILE")
	f.BoolVar(&v.json, "json", false, "print every status as one JSON line")
	f.DurationVar(&v.wait, "wait", time.Minute, "how long to wait for the gateway's first answer")
}

func (a *app) accept(ctx context.Context, args []string) error {
	v := &visitFlags{}
	f := a.flags("accept")
	v.register(f)
	f.StringVar(&v.record, "record", "", "file the signed record as `FILE`")
	return a.visit(ctx, f, v, args, order.Command{Type: order.Accept})
}

func (a *app) diagnose(ctx context.Context, args []string) error {
	v := &visitFlags{}
	f := a.flags("diagnose")
	v.register(f)
	f.StringVar(&v.nocDevice, "device", "", "without --order: `ID` of the gateway; --key is then a NOC key")
	f.StringVar(&v.nocTenant, "tenant", "default", "without --order: tenant `NAME` of the gateway")
	return a.visit(ctx, f, v, args, order.Command{Type: order.Diagnose})
}

func (a *app) inspect(ctx context.Context, args []string) error {
	v := &visitFlags{}
	f := a.flags("inspect")
	v.register(f)
	f.StringVar(&v.record, "record", "", "file the signed record as `FILE`")
	return a.visit(ctx, f, v, args, order.Command{Type: order.Inspection})
}

func (a *app) repair(ctx context.Context, args []string) error {
	v := &visitFlags{}
	f := a.flags("repair")
	v.register(f)
	f.StringVar(&v.record, "record", "", "file the signed record as `FILE`")
	f.StringVar(&v.action, "action", "", "`ACTION`: redial, renew, restart_interface or reread_module; what the diagnosis advises if none is given")
	f.BoolVar(&v.standing, "standing", false, "the gateway keeps the order, and heals itself under it while it is valid")
	return a.visit(ctx, f, v, args, order.Command{Type: order.RepairCmd})
}

func (a *app) cancelJob(ctx context.Context, args []string) error {
	v := &visitFlags{}
	f := a.flags("cancel")
	v.register(f)
	f.StringVar(&v.target, "job", "", "`ID` of the job to stop")
	return a.visit(ctx, f, v, args, order.Command{Type: order.Cancel})
}

func (a *app) closeOrder(ctx context.Context, args []string) error {
	v := &visitFlags{}
	f := a.flags("close")
	v.register(f)
	return a.visit(ctx, f, v, args, order.Command{Type: order.Close})
}

// visit sends one command and follows it to its end.
func (a *app) visit(ctx context.Context, f *flag.FlagSet, v *visitFlags, args []string, cmd order.Command) error {
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	if ways := oneIf(v.broker.url != "") + oneIf(v.gateway != "") + oneIf(v.request != ""); ways != 1 {
		return cli.Exit(cli.Usage, "%s: give one of --broker, --gateway and --request", f.Name())
	}
	if err := checkLang(f, v.lang); err != nil {
		return err
	}
	if cmd.Type == order.Cancel && v.target == "" {
		return cli.Exit(cli.Usage, "cancel: --job is missing")
	}
	c, err := a.newConversation(v, cmd)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if v.request != "" {
		return c.writeRequest()
	}
	if v.record != "" {
		// Before anything runs: a visit whose record has no place is wasted.
		if c.recordFile, err = createRecord(v.record); err != nil {
			return cli.Exit(cli.Usage, "%s: --record: %w", f.Name(), err)
		}
		defer c.discardRecord()
	}
	if v.root != "" || v.gateway != "" {
		if c.root, err = readPublic(v.root); err != nil {
			return fmt.Errorf("%s: --root: %w", f.Name(), err)
		}
	}
	if v.gateway != "" {
		if c.link, err = dialGateway(ctx, v.gateway, c.root, c.order); err != nil {
			return err
		}
	} else if c.link, err = dialBroker(ctx, &v.broker, c.order, c.cmd.ID); err != nil {
		return err
	}
	defer c.link.close()
	return c.follow(ctx)
}

// writeRequest signs the command into a file. With a nonce it signs the command
// that the file holds once more, as the answer to the gateway's challenge.
func (c *conversation) writeRequest() error {
	if c.flags.nonce == "" {
		req, err := c.request(nil)
		if err != nil {
			return err
		}
		return c.app.writeJSON(c.flags.request, req)
	}
	data, err := c.app.readFile(c.flags.request)
	if err != nil {
		return fmt.Errorf("--request: %w", err)
	}
	asked, err := order.ParseRequest(data)
	if err != nil {
		return cli.Exit(cli.Usage, "--request: %s: %w", c.flags.request, err)
	}
	if err := peek(*asked.Command, order.TypeCommand, &c.cmd); err != nil {
		return fmt.Errorf("--request: %w", err)
	}
	req, err := c.answer(job.Status{Nonce: c.flags.nonce})
	if err != nil {
		return err
	}
	return c.app.writeJSON(c.flags.request, req)
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// conversation is one command and what comes of it.
type conversation struct {
	app     *app
	flags   *visitFlags
	key     ed25519.PrivateKey
	timeKey ed25519.PrivateKey // nil: cannot answer a challenge
	order   order.Order        // zero but for tenant and device where there is none
	envs    order.Request      // order and trust list
	cmd     order.Command
	link    link
	screen  printer
	// recordFile is where the record goes; nil: nowhere, or it is there already.
	recordFile *os.File
	root       order.PublicKey // nil: nothing can be checked
	// checked is this job's record, if it came and, where there is a root key,
	// holds; unfit says why one that came does not.
	checked *record.Verification
	unfit   string
	proofs  int // of the time, given so far
}

// maxProofs bounds how often the time is signed for one command: whoever can
// publish as the gateway could ask for ever.
const maxProofs = 5

// createRecord makes the file of a record. Never over an existing one: it would
// be the evidence of another visit.
func createRecord(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists already", path)
	}
	return f, err
}

// discardRecord removes the file of a record that did not come.
func (c *conversation) discardRecord() {
	if c.recordFile == nil {
		return
	}
	_ = c.recordFile.Close()
	_ = os.Remove(c.recordFile.Name())
}

func (a *app) newConversation(v *visitFlags, cmd order.Command) (*conversation, error) {
	c := &conversation{app: a, flags: v, envs: order.Request{V: 1}}
	if v.orderFile == "" && v.nocDevice == "" {
		return nil, cli.Exit(cli.Usage, "--order is missing: no work without a work order")
	}
	if v.orderFile == "" {
		c.order.Device, c.order.Tenant = v.nocDevice, v.nocTenant
	} else {
		env, err := a.readEnvelope(v.orderFile)
		if err != nil {
			return nil, fmt.Errorf("--order: %w", err)
		}
		if err := peek(env, order.TypeOrder, &c.order); err != nil {
			return nil, fmt.Errorf("--order: %w", err)
		}
		c.envs.Order = &env
	}
	var err error
	if c.key, err = readKey(v.keyFile); err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	if v.timeKey != "" {
		if c.timeKey, err = readKey(v.timeKey); err != nil {
			return nil, fmt.Errorf("--time-key: %w", err)
		}
	}
	if v.trustFile != "" {
		env, err := a.readEnvelope(v.trustFile)
		if err != nil {
			return nil, fmt.Errorf("--trust: %w", err)
		}
		c.envs.Trust = &env
	}
	if v.extract != "" {
		if v.orderFile == "" {
			return nil, cli.Exit(cli.Usage, "--extract needs --order: it is the account of an order")
		}
		if c.envs.Extract, err = a.readExtract(v.extract, c.order); err != nil {
			return nil, cli.Exit(cli.Usage, "--extract: %w", err)
		}
	}
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("cannot make a command id: %w", err)
	}
	counter, err := nextCounter(v.keyFile, time.Now())
	if err != nil {
		return nil, err
	}
	cmd.V, cmd.ID, cmd.Counter = 1, hex.EncodeToString(id[:]), counter
	cmd.Order, cmd.Rev, cmd.Device = c.order.Order, c.order.Rev, c.order.Device
	cmd.Args = order.Args{Target: v.target, Action: order.RepairAction(v.action), Standing: v.standing}
	if err := cmd.Validate(); err != nil {
		return nil, cli.Exit(cli.Usage, "%w", err)
	}
	c.cmd = cmd
	if v.json {
		c.screen = &jsonPrinter{out: a.out}
	} else {
		c.screen = &textPrinter{out: a.out, lang: v.lang}
	}
	return c, nil
}

// request signs the command as it stands now; signedTime may be nil.
func (c *conversation) request(signedTime *order.Envelope) (order.Request, error) {
	env, err := c.cmd.Sign(c.key)
	if err != nil {
		return order.Request{}, err
	}
	req := c.envs
	req.Command, req.Time = &env, signedTime
	return req, nil
}

// recordGrace is how long the record may take after the job's end; it is a
// message of its own.
const recordGrace = 10 * time.Second

// follow sends the command and waits for its end. The command goes again
// whenever the gateway says that it came back, until it has answered.
func (c *conversation) follow(ctx context.Context) error {
	req, err := c.request(nil)
	if err != nil {
		return err
	}
	c.screen.sent(c.cmd)
	if err := c.link.send(ctx, c.cmd.ID, req); err != nil {
		return err
	}
	var (
		answered bool
		end      *job.Status
		first    = time.NewTimer(c.flags.wait)
		late     <-chan time.Time
	)
	defer first.Stop()
	for {
		select {
		case <-ctx.Done():
			return cli.Exit(cli.Inconclusive, "interrupted; the job goes on at the gateway (ontctl cancel --job %s stops it)", c.cmd.ID)
		case <-first.C:
			if !answered {
				return cli.Exit(cli.Unreachable, "gateway %s did not answer within %v", c.order.Device, c.flags.wait)
			}
		case <-late:
			return c.missing()
		case r := <-c.link.replies():
			switch {
			case r.err != nil && end == nil:
				return r.err
			case r.err != nil:
				return c.missing()
			case r.pending && !answered:
				if err := c.link.send(ctx, c.cmd.ID, req); err != nil {
					return err
				}
			case r.record != nil:
				if err := c.file(r.record); err != nil {
					return err
				}
			case r.status != nil:
				answered = true
				c.screen.status(*r.status)
				if r.status.State == job.Challenge {
					if req, err = c.answer(*r.status); err != nil {
						return err
					}
					if err := c.link.send(ctx, c.cmd.ID, req); err != nil {
						return err
					}
				}
				if r.status.State.Terminal() {
					end = r.status
					late = time.After(recordGrace)
				}
			}
			if end != nil && (c.checked != nil || !c.needsRecord(*end)) {
				return c.finish(*end)
			}
		}
	}
}

// answer proves the time to a gateway that cannot trust its own clock.
func (c *conversation) answer(st job.Status) (order.Request, error) {
	if c.timeKey == nil {
		return order.Request{}, cli.Exit(cli.Refused, "the gateway does not trust its clock and asks for a signed time: give --time-key")
	}
	if c.proofs++; c.proofs > maxProofs {
		return order.Request{}, cli.Exit(cli.Refused, "the gateway goes on asking for a signed time after %d answers", maxProofs)
	}
	ts := order.TimeStatement{Device: c.order.Device, Nonce: st.Nonce, UTC: time.Now().UTC()}
	env, err := ts.Sign(c.timeKey)
	if err != nil {
		return order.Request{}, err
	}
	c.cmd.Nonce = st.Nonce
	return c.request(&env)
}

// missing is the end of a visit whose record did not come.
func (c *conversation) missing() error {
	if c.unfit != "" {
		return cli.Exit(cli.Fail, "what came as the record of this job is none: %s", c.unfit)
	}
	return cli.Exit(cli.Inconclusive, "the job ended, but its record did not arrive within %v", recordGrace)
}

// makesRecord reports whether a command of this type ends in a record.
func makesRecord(t order.CommandType) bool {
	return t == order.Accept || t == order.Inspection || t == order.RepairCmd
}

// needsRecord reports whether the end of the job alone will not do. Statuses
// are not signed: with a root key at hand, only the record says what came out.
func (c *conversation) needsRecord(end job.Status) bool {
	if !makesRecord(c.cmd.Type) || end.State != job.Succeeded && end.RecordSHA == "" {
		return false
	}
	return c.root != nil || c.flags.record != "" && end.RecordSHA != ""
}

// file keeps the record if it is this job's and, as far as that can be checked,
// genuine; another run of the same order may be reported on the same topic, and
// whoever may publish there can send anything.
func (c *conversation) file(data []byte) error {
	v := verifyRecord(data, record.VerifyOptions{Root: ed25519.PublicKey(c.root)})
	if v.Record == nil || v.Record.Job != c.cmd.ID || c.checked != nil {
		return nil
	}
	if c.root != nil && v.Status != record.Valid {
		c.unfit = v.Problem
		return nil
	}
	c.checked = &v
	if c.recordFile == nil {
		return nil
	}
	_, err := c.recordFile.Write(data)
	if err := errors.Join(err, c.recordFile.Close()); err != nil {
		return fmt.Errorf("cannot file the record: %w", err)
	}
	c.recordFile = nil
	return nil
}

// finish prints the result and chooses the exit code.
func (c *conversation) finish(end job.Status) error {
	if c.checked != nil {
		c.screen.repaired(c.checked.Record.Work, c.cmd.Type)
		c.screen.filed(c.flags.record, c.checked.Status)
		if c.root != nil && (c.checked.Digest != end.RecordSHA || c.checked.Record.Verdict != end.Verdict) {
			return cli.Exit(cli.Fail, "the record says %s, what the broker delivered as the job's end says %q: trust the record",
				c.checked.Record.Verdict, end.Verdict)
		}
	}
	switch end.State {
	case job.Rejected:
		return cli.Silent(cli.Refused)
	case job.Failed, job.TimedOut, job.Cancelled, job.Interrupted:
		if why, ok := refusedRepair(end.Detail); ok {
			c.screen.refused(why)
			return cli.Silent(cli.Refused)
		}
		return cli.Silent(cli.Inconclusive)
	case job.Received, job.Accepted, job.Challenge, job.Running, job.Succeeded:
	}
	switch end.Verdict {
	case "fail":
		return cli.Silent(cli.Fail)
	case "inconclusive", "skipped":
		return cli.Silent(cli.Inconclusive)
	}
	return nil
}

// printer shows a conversation.
type printer interface {
	sent(cmd order.Command)
	status(st job.Status)
	// filed tells of the job's record: where it went, if anywhere, and whether
	// it holds.
	filed(path string, status record.Status)
	// repaired tells what the record of a repair says was done.
	repaired(work json.RawMessage, t order.CommandType)
	// refused tells why a repair was not done.
	refused(why string)
}

type jsonPrinter struct{ out io.Writer }

func (p *jsonPrinter) sent(order.Command)          {}
func (p *jsonPrinter) filed(string, record.Status) {}

func (p *jsonPrinter) repaired(json.RawMessage, order.CommandType) {}
func (p *jsonPrinter) refused(string)                              {}

func (p *jsonPrinter) status(st job.Status) {
	data, err := json.Marshal(st)
	if err != nil {
		return // a Status always encodes
	}
	_, _ = p.out.Write(append(data, '\n'))
}
