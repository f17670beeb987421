package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/audit"
	"ontagent/agent/clock"
	"ontagent/agent/control"
	"ontagent/agent/identity"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/platform/linux"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/collectors"
	"ontagent/collectors/wan"
	"ontagent/config"
	"ontagent/transport"
	"ontagent/transport/durable"
	"ontagent/transport/mqtt"
	"ontagent/transport/spool"
)

const (
	// The collector's pace on a machine of 64 MB: collect earlier than Go does
	// by itself, and much earlier near the limit of a visit.
	gcPercent   = 40
	memoryLimit = 18 << 20

	jobTimeout  = 5 * time.Minute
	maxDocument = 64 << 10 // trust list, statement
)

func (a *app) daemon(ctx context.Context, args []string) error {
	if _, err := a.parse("run", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	log := newLogger(a.err, c.Main.LogLevel)
	if err := noCoreDumps(); err != nil {
		log.Warn("core dumps may hold secrets", "error", err)
	}
	// First of all: a second daemon must not touch the state of the first.
	local, err := control.ListenUnix(ctx, c.Control.Socket)
	if err != nil {
		return cli.Exit(cli.Fail, "cannot start: %w", err)
	}
	d, err := newDaemon(c, log)
	if err != nil {
		return cli.Exit(cli.Fail, "cannot start: %w", errors.Join(err, local.Close()))
	}
	log.Info("started", "version", version, "device", c.Main.Device, "epoch", d.epoch)
	err = d.serve(ctx, local)
	log.Info("stopped")
	if err != nil {
		return cli.Exit(cli.Fail, "%w", err)
	}
	return nil
}

func newLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
}

// daemon is everything wired together.
type daemon struct {
	c        config.Config
	log      *slog.Logger
	fs       durable.FS
	epoch    uint64
	nonce    string // of this session, in the birth
	keys     identity.Keys
	clock    *clock.Clock
	sources  *sources
	registry *collectors.Registry
	lock     *os.File // of the state directory
	// refusing says why every command is refused: then authority and what hangs
	// on it are nil, and the gateway only streams.
	refusing  *order.RefusalError
	authority *order.Authority
	records   *record.Log
	trail     *audit.Log
	jobs      *job.Manager
	visits    *agent.Visits
	healing   *healing
	line      chan struct{} // holds a token while somebody works on the line
	watching  *watching
	queue     *spool.Queue
	stamper   *transport.Stamper
	reporter  *agent.Reporter
	mqtt      *mqtt.Device // nil: switched off
	started   time.Time
	looking   chan struct{} // holds a token while local root looks

	settingsMu sync.Mutex
	settings   settings // guarded by settingsMu
}

func newDaemon(c config.Config, log *slog.Logger) (*daemon, error) {
	d := &daemon{c: c, log: log, fs: durable.OS{}, started: time.Now(), looking: make(chan struct{}, 1), line: make(chan struct{}, 1)}
	if err := durable.MkdirAll(d.fs, "state.dir", c.Main.StateDir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = lockState(c.Main.StateDir); err != nil {
		return nil, err
	}
	if d.epoch, err = durable.NextEpoch(d.fs, filepath.Join(c.Main.StateDir, "epoch")); err != nil {
		if d.epoch == 0 {
			return nil, err
		}
		log.Warn("epoch counter was damaged", "epoch", d.epoch, "error", err)
	}
	if d.keys, err = identity.Open(d.fs, c.Main.StateDir, c.Main.Device); err != nil {
		d.refuse(order.ReasonInternal, err)
	}
	d.clock, err = clock.New(clock.Options{
		System: clock.Kernel{}, Store: floorFile{d.fs, filepath.Join(c.Main.StateDir, "clock.floor")},
		Build: buildTime(), NeverTrustSystem: c.Clock.TrustSystem == "never",
	})
	if err != nil {
		return nil, err
	}
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("cannot make session nonce: %w", err)
	}
	d.nonce = hex.EncodeToString(nonce[:])
	if d.stamper, err = transport.NewStamper(c.Main.Device, d.epoch, d.clock); err != nil {
		return nil, err
	}
	if err := d.openQueue(); err != nil {
		return nil, err
	}
	d.reporter = &agent.Reporter{Queue: d.queue, Log: log}
	if d.sources, err = openSources(c, log); err != nil {
		return nil, err
	}
	d.sources.optics.Keep(baselineFile{d.fs, filepath.Join(c.Main.StateDir, "optics.json")})
	d.registry = d.sources.registry(c, log)
	if err := d.openVisits(); err != nil {
		return nil, err
	}
	if err := d.openRepair(); err != nil {
		return nil, err
	}
	d.openWatching()
	root, err := c.RootPublicKey()
	switch {
	case err != nil:
		return nil, err
	case root == nil:
		d.refuse(order.ReasonNotEnrolled, errors.New("no root key is configured on this gateway"))
	case d.refusing == nil:
		if err := d.openAuthority(ed25519.PublicKey(root)); err != nil {
			d.authority, d.records, d.trail, d.jobs = nil, nil, nil, nil
			d.refuse(order.ReasonInternal, err)
		}
	}
	return d, d.openMQTT()
}

// refuse makes every command be refused from now on. A gateway whose state is
// damaged must not take orders, since it could not tell what was used up, but
// it need not fall silent.
func (d *daemon) refuse(reason order.Reason, why error) {
	d.refusing = &order.RefusalError{Reason: reason, Detail: why.Error()}
	d.log.Error("every command will be refused", "reason", reason, "error", why)
}

// openVisits makes what climbs ladders, with or without an order.
func (d *daemon) openVisits() error {
	limits, err := acceptance.Norms().With(acceptance.OriginConfig, d.c.Thresholds)
	if err != nil {
		return fmt.Errorf("%s: thresholds: %w", d.c.Path, err)
	}
	d.visits = &agent.Visits{
		Steps: d.sources.ladder(d.c, d.clock.Now), Limits: limits, Statement: d.statement,
		Frame: record.Record{
			Device: d.c.Main.Device, Tenant: d.c.Main.Tenant,
			Agent: record.Agent{Version: version, Epoch: d.epoch},
		},
		Moment: d.moment, Filed: d.filed, Recent: d.since, Now: time.Now, Log: d.log,
	}
	return nil
}

// openAuthority makes whatever carries out orders.
func (d *daemon) openAuthority(root ed25519.PublicKey) error {
	var err error
	d.authority, err = order.OpenAuthority(order.Options{
		Root: root, Tenant: d.c.Main.Tenant, Device: d.c.Main.Device,
		Store: stateFile{d.fs, filepath.Join(d.c.Main.StateDir, "authority.json")}, Clock: d.clock,
		X25519: d.keys.BoxPublic(), Private: d.keys.Box, NOCDiagnose: d.c.Authority.NOCDiagnose,
		KnownRung: knownRung, KnownThreshold: func(name string) bool { return acceptance.Unit(name) != "" },
		Monotonic: time.Now,
	})
	if err != nil {
		return err
	}
	d.adoptTrustFile()
	d.records, err = record.OpenLog(record.LogOptions{
		FS: d.fs, Dir: filepath.Join(d.c.Main.StateDir, "records"), Key: d.keys.Record,
	})
	if err != nil {
		return err
	}
	d.visits.Records = d.records
	jobs := filepath.Join(d.c.Main.StateDir, "jobs")
	d.visits.Open = &agent.OpenVisit{FS: d.fs, Path: filepath.Join(jobs, "visit.open")}
	store, err := job.OpenDir(d.fs, jobs)
	if err != nil {
		return err
	}
	d.trail, err = audit.Open(audit.Options{
		FS: d.fs, Dir: filepath.Join(d.c.Main.StateDir, "audit"), Stamp: d.stampAudit, Announce: d.reporter.Audit, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.openHealer()
	d.jobs, err = job.New(job.Options{
		Authority: d.authority, Store: store, Publish: d.jobChanged, Answer: d.jobAnswered,
		Audit: d.auditJob, Unended: d.trail.Unended, Recorded: d.recorded,
		Timeout: jobTimeout, Now: time.Now, Log: d.log,
		Handlers: d.handlers(),
	})
	if err == nil {
		d.recoverVisit("") // of a job that was found interrupted when flash took no record
	}
	return err
}

// handlers carry commands out, one by one with the repairs that the gateway does
// by itself.
func (d *daemon) handlers() map[order.CommandType]job.Handler {
	all := map[order.CommandType]job.Handler{
		order.Accept:   d.inTurn(d.visits.Accept),
		order.Diagnose: d.inTurn(d.diagnoseJob),

		order.Inspection: d.inTurn(d.watching.inspector.Inspect),
	}
	if d.c.Repair.Enabled {
		all[order.RepairCmd] = d.inTurn(d.repair)
	}
	return all
}

// jobChanged tells the NOC of every change of a job, and the log of those that
// whoever reads it asks for.
func (d *daemon) jobChanged(st job.Status) {
	if st.State == job.Accepted || st.State.Terminal() {
		d.log.Info("job", "id", st.ID, "order", st.Order, "command", st.CommandType, "state", st.State,
			"verdict", st.Verdict, "first_cause", st.FirstCause)
	}
	if st.State == job.Accepted {
		d.watching.inspections.Interrupt() // one of the schedule can wait
	}
	d.reporter.Status(st)
}

// recoverVisit closes the record of a visit that was cut short, and queues it unless
// somebody will who asks for the record of job.
func (d *daemon) recoverVisit(job string) {
	if c, ok := d.visits.Recover(); ok && c.Job != job {
		d.filed(c.Order, c.Record)
	}
}

// recorded finds the record of a job that was cut short, closed by itself or
// now, and queues it: nobody knows whether it was queued before.
func (d *daemon) recorded(st job.Status) (sha256 string, ok bool) {
	d.recoverVisit(st.ID)
	data, err := d.records.Find(st.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	var env order.Envelope
	if err == nil {
		env, err = order.ParseEnvelope(data)
	}
	if err != nil {
		d.log.Error("cannot send the record of an interrupted job", "job", st.ID, "error", err)
		return "", false
	}
	d.filed(st.Order, env)
	return order.Digest(env), true
}

// jobAnswered passes on an answer that changes nothing. Only refusals of what
// was signed for this gateway are worth a line: anyone can cause the others.
func (d *daemon) jobAnswered(st job.Status) {
	level := slog.LevelDebug
	if st.State == job.Rejected && st.CommandType != "" {
		level = slog.LevelInfo
	}
	d.log.Log(context.Background(), level, "command answered", "id", st.ID, "order", st.Order, "command", st.CommandType,
		"state", st.State, "reason", st.Reason, "detail", st.Detail)
	d.reporter.Answer(st)
}

// auditJob puts the grant or the end of a job on the trail.
func (d *daemon) auditJob(e job.AuditEvent) error {
	st := e.Status
	entry := audit.Entry{
		Event: audit.Ended, KeyID: e.By.KeyID, Technician: e.By.Technician, Order: st.Order, Rev: e.By.Rev,
		Command: st.ID, CommandType: string(st.CommandType), CommandSHA256: e.By.CommandSHA256,
		State: string(st.State), Verdict: st.Verdict, RecordSHA256: st.RecordSHA,
	}
	switch st.State {
	case job.Accepted:
		entry.Event, entry.State = audit.Granted, ""
	case job.Interrupted:
		entry.Event = audit.Interrupted
	default:
	}
	d.stampAudit(&entry)
	_, err := d.trail.Append(entry)
	return err
}

func (d *daemon) stampAudit(e *audit.Entry) {
	m := d.moment()
	e.Epoch, e.UptimeS, e.UTC, e.Clock = d.epoch, m.UptimeS, m.UTC, m.Clock
}

// statement returns the operator's word on this gateway's keys. One that would
// make a record unbelievable – of another device, of earlier keys, by a key
// that is not an operator's – is an error.
func (d *daemon) statement() (order.Envelope, error) {
	env, err := d.document(d.c.Authority.Statement)
	if err != nil {
		return order.Envelope{}, err
	}
	if d.authority == nil {
		return order.Envelope{}, d.refusing
	}
	trust, _, _ := d.authority.Trust()
	st, err := order.OpenStatement(env, trust)
	if err != nil {
		return order.Envelope{}, err
	}
	keys := d.keys.Bundle()
	if st.Device != keys.Device || st.Ed25519.String() != keys.Ed25519 || st.X25519 != d.keys.BoxPublic() || st.TLSSPKI != keys.TLSSPKI {
		return order.Envelope{}, fmt.Errorf("%s vouches for other keys than this gateway's", d.c.Authority.Statement)
	}
	return env, nil
}

func knownRung(name string) bool {
	for _, r := range acceptance.Ladder() {
		if string(r) == name {
			return true
		}
	}
	return false
}

// adoptTrustFile takes the trust list that came with the configuration, if it
// is newer than the one in force.
func (d *daemon) adoptTrustFile() {
	env, err := d.document(d.c.Authority.TrustList)
	if err == nil {
		err = d.authority.AdoptTrust(env)
	}
	var refusal *order.RefusalError
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case errors.As(err, &refusal) && refusal.Reason == order.ReasonTrustOutdated:
		d.log.Info("trust list file is not newer than the one in force", "file", d.c.Authority.TrustList)
	default:
		d.log.Warn("cannot use trust list file", "file", d.c.Authority.TrustList, "error", err)
	}
}

// document reads a signed document from a file.
func (d *daemon) document(path string) (order.Envelope, error) {
	data, err := durable.ReadFile(d.fs, "document.read", path, maxDocument)
	if err != nil {
		return order.Envelope{}, err
	}
	env, err := order.ParseEnvelope(data)
	if err != nil {
		return order.Envelope{}, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return env, nil
}

func (d *daemon) moment() record.Moment {
	t, quality := d.clock.Reading()
	return record.Moment{UptimeS: d.clock.Uptime().Seconds(), UTC: t.Format(time.RFC3339), Clock: string(quality)}
}

func (d *daemon) submit(id string, request []byte) job.Status {
	if d.jobs == nil {
		st := job.Status{ID: id, State: job.Rejected, Reason: d.refusing.Reason, Detail: d.refusing.Detail}
		d.reporter.Answer(st)
		return st
	}
	st := d.jobs.Submit(id, request)
	d.applySettings() // a trust list it brought may have revoked who set them
	return st
}

// birth is the body of the retained info message.
func (d *daemon) birth() json.RawMessage {
	board := linux.ReadBoard("/")
	info := map[string]any{
		"agent_version": version, "model": board.Model, "os": board.OS, "kernel": board.Kernel,
		"session_nonce": d.nonce,
		"actions":       d.actions(),
		"rungs":         d.rungs(),
		"collectors":    d.collectorNames(),
	}
	if d.keys.Made() {
		keys := d.keys.Bundle()
		info["ed25519"], info["x25519"], info["tls_spki"] = keys.Ed25519, keys.X25519, keys.TLSSPKI
	}
	if d.refusing != nil {
		info["actions"], info["refusing"] = []string{}, d.refusing.Reason
	}
	if d.c.Console.Enabled {
		info["console_driver"] = d.c.Console.Driver
	}
	if d.authority != nil {
		if trust, _, ok := d.authority.Trust(); ok {
			info["trust_version"] = trust.Version
		}
	}
	body, err := json.Marshal(info)
	if err != nil {
		d.log.Error("cannot encode birth", "error", err)
		return nil
	}
	return body
}

// actions are the commands that are carried out.
func (d *daemon) actions() []string {
	all := []string{"accept", "diagnose", "inspect", "cancel", "close"}
	if d.c.Repair.Enabled {
		all = append(all, "repair")
	}
	return all
}

// rungs are those that can be measured if all services are ordered, in climbing
// order.
func (d *daemon) rungs() []string {
	all := order.Order{Services: []order.Service{{Kind: "internet"}, {Kind: "iptv"}, {Kind: "voice"}, {Kind: "management"}}}
	built := d.visits.Steps(agent.Visit{Order: all, Limits: d.visits.Limits})
	names := []string{}
	for _, rung := range acceptance.Ladder() {
		if slices.ContainsFunc(built, func(s acceptance.Step) bool { return s.Rung() == rung }) {
			names = append(names, string(rung))
		}
	}
	return names
}

func (d *daemon) collectorNames() []string {
	names := []string{}
	for _, h := range d.registry.Health() {
		names = append(names, h.Name)
	}
	return names
}

// serve runs everything until ctx ends. What reports is stopped last, so that
// the others' last words are told.
func (d *daemon) serve(ctx context.Context, local net.Listener) error {
	sup := &agent.Supervisor{Log: d.log}
	sup.Add("spool", d.queue)
	if d.mqtt != nil {
		sup.Add("mqtt", d.mqtt)
	}
	sup.Add("collectors", agent.Func(func(ctx context.Context) error { return d.registry.Serve(ctx, sink{d.reporter, d.mqtt, d.watching}) }))
	sup.Add("pulse", agent.Func(d.pulse))
	sup.Add("clock", agent.Func(func(ctx context.Context) error { return d.clock.Watch(ctx, clockInterval, d.clockSet) }))
	sup.Add("faults", agent.Func(d.observe))
	sup.Add("inventory", agent.Func(d.takeStock))
	sup.Add("inspections", d.watching.inspections)
	if d.jobs != nil {
		sup.Add("repair", d.healing.healer)
		sup.Add("jobs", d.jobs)
	}
	if address := d.c.Control.LANListen; address != "" && d.keys.Made() {
		cert, err := d.keys.Certificate()
		if err != nil {
			return err
		}
		lan := d.lanServer()
		sup.Add("lan", agent.Func(func(ctx context.Context) error {
			l, err := control.ListenTLS(ctx, address, cert)
			if err != nil {
				return err
			}
			return lan.Serve(ctx, l)
		}))
	}
	server := d.localServer()
	sup.Add("control", agent.Func(func(ctx context.Context) error {
		if local == nil {
			l, err := control.ListenUnix(ctx, d.c.Control.Socket)
			if err != nil {
				return err
			}
			local = l
		}
		l := local
		local = nil // a second start needs a socket of its own
		return server.Serve(ctx, l)
	}))
	err := sup.Serve(ctx)
	if d.trail != nil {
		err = errors.Join(err, d.trail.Close())
	}
	return errors.Join(err, d.queue.Close(), d.sources.close())
}

// sink passes on what collectors say, and tells the transport when the way out
// has changed: a connection over one that is gone would hang for minutes, and
// while an order is open a new one is made at once.
type sink struct {
	*agent.Reporter
	mqtt     *mqtt.Device
	watching *watching
}

func (s sink) Samples(collector string, at time.Time, samples []collectors.Sample) {
	s.Reporter.Samples(collector, at, samples)
	s.watching.history.Samples(collector, samples)
	s.watching.meter.Samples(collector, samples)
}

func (s sink) Event(e collectors.Event) {
	s.Reporter.Event(e)
	s.watching.heard(e)
	if s.mqtt != nil && e.Type == wan.Name {
		s.mqtt.NetworkChanged()
	}
}

// stateFile keeps the authority's state.
type stateFile struct {
	fs   durable.FS
	path string
}

const maxState = 1 << 20

func (s stateFile) Load() ([]byte, error) {
	data, err := durable.ReadFile(s.fs, "authority.read", s.path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (s stateFile) Save(data []byte) error {
	return durable.WriteFile(s.fs, "authority.write", s.path, data, 0o600)
}

// floorFile keeps the clock's floor.
type floorFile struct {
	fs   durable.FS
	path string
}

func (f floorFile) Load() (time.Time, error) {
	data, err := durable.ReadFile(f.fs, "floor.read", f.path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	var t time.Time
	if err == nil {
		t, err = time.Parse(time.RFC3339, string(data))
	}
	if err != nil {
		// A lost floor costs one challenge more, no security: orders are still
		// judged by a signed or synchronised time.
		return time.Time{}, nil //nolint:nilerr // see above
	}
	return t, nil
}

func (f floorFile) Save(t time.Time) error {
	return durable.WriteFile(f.fs, "floor.write", f.path, []byte(t.UTC().Format(time.RFC3339)), 0o600)
}
