package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/cmd/cli"
)

// list is a flag that may be given several times, or once with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *list) Set(v string) error {
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

func (a *app) trust(_ context.Context, args []string) error {
	f := a.flags("trust")
	root := f.String("root", "", "sign with this root `KEY` file")
	version := f.Uint64("version", 0, "version `N` of the list; must rise with every issue")
	tenant := f.String("tenant", "default", "tenant the list is for: a `NAME`")
	out := f.String("out", "-", "write the signed list to `FILE`")
	var add, revokeKeys, revokeOrders list
	f.Var(&add, "add", "`ROLE:ID:PUB` with ROLE operator, noc, collector or time; PUB is a .pub file or a key")
	f.Var(&revokeKeys, "revoke-key", "key `ID` that counts no more")
	f.Var(&revokeOrders, "revoke-order", "`ORDER` that counts no more")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	key, err := readKey(*root)
	if err != nil {
		return fmt.Errorf("trust: --root: %w", err)
	}
	t := order.TrustList{V: 1, Version: *version, Tenant: *tenant, RevokedKeys: revokeKeys, RevokedOrders: revokeOrders}
	for _, s := range add {
		role, rest, _ := strings.Cut(s, ":")
		id, pub, ok := strings.Cut(rest, ":")
		if !ok {
			return cli.Exit(cli.Usage, "trust: --add %q is not ROLE:ID:PUB", s)
		}
		k, err := readPublic(pub)
		if err != nil {
			return fmt.Errorf("trust: --add %s: %w", s, err)
		}
		t.Keys = append(t.Keys, order.TrustKey{ID: id, Role: order.Role(role), Key: k})
	}
	env, err := t.Sign(key)
	if err != nil {
		return err
	}
	return a.writeJSON(*out, env)
}

func (a *app) deviceStatement(_ context.Context, args []string) error {
	f := a.flags("device statement")
	operator := f.String("operator", "", "sign with this operator `KEY` file")
	bundle := f.String("bundle", "", "`FILE` printed by `ontagent identity` on the gateway; - for standard input")
	out := f.String("out", "-", "write the statement to `FILE`")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	key, err := readKey(*operator)
	if err != nil {
		return fmt.Errorf("device statement: --operator: %w", err)
	}
	data, err := a.readFile(*bundle)
	if err != nil {
		return fmt.Errorf("device statement: --bundle: %w", err)
	}
	s := order.Statement{V: 1}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return fmt.Errorf("device statement: %s is not what `ontagent identity` prints: %w", *bundle, err)
	}
	env, err := s.Sign(key)
	if err != nil {
		return err
	}
	return a.writeJSON(*out, env)
}

func (a *app) orderNew(_ context.Context, args []string) error {
	f := a.flags("order new")
	o := order.Order{V: 1}
	id := f.String("order", "", "order number `ID`: letters, digits, - and _ (default: WO- and the time)")
	typ := f.String("type", "repair", "`TYPE`: install, move, repair, inspect or other")
	f.StringVar(&o.Device, "device", "", "`ID` of the gateway the order is for")
	f.StringVar(&o.Tenant, "tenant", "default", "tenant `NAME` of the gateway")
	f.Uint64Var(&o.Rev, "rev", 1, "revision `N`; a higher one replaces a lower one")
	f.StringVar(&o.Resources.SN, "sn", "", "PON serial number `SN` in the books")
	f.StringVar(&o.Resources.MAC, "mac", "", "`MAC` address in the books")
	f.StringVar(&o.Resources.PONPort, "pon-port", "", "PON `PORT` in the books")
	f.StringVar(&o.Resources.SplitterPort, "splitter-port", "", "splitter `PORT` in the books")
	f.StringVar(&o.Resources.LANPort, "lan-port", "", "LAN `INTERFACE` the customer's cable is on")
	hours := f.Float64("valid-hours", 24, "validity from now, in `HOURS`")
	runs := f.Uint("max-runs", 5, "`N` acceptance runs in all")
	f.Uint64Var(&o.MaxBytes, "max-bytes", 0, "test traffic in all, in `BYTES`")
	out := f.String("out", "-", "write the order to `FILE`")
	var technicians, require, allow, consents, services, thresholds list
	f.Var(&technicians, "technician", "`ID:PUB` of a technician who may work on it; PUB is a .pub file or a key")
	f.Var(&require, "require", "`RUNGS` that decide (default: by type): "+rungNames())
	f.Var(&allow, "allow", "`ACTIONS` (default: accept,diagnose,close)")
	f.Var(&consents, "consent", "`CONSENT` of the customer: disturb, customer_settings or sn_change")
	f.Var(&services, "service", "`KIND[:ACCESS[:VLAN[:DOWN/UP]]]`, e.g. internet:pppoe:41:500/50")
	f.Var(&thresholds, "threshold", "`NAME=VALUE`, e.g. optical.rx_min_dbm=-24")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	o.Order, o.Type = *id, order.Type(*typ)
	if o.Order == "" {
		o.Order = "WO-" + now.Format("20060102-150405")
	}
	o.NotBefore = now.Add(-5 * time.Minute) // clocks of workstation and gateway differ a little
	o.NotAfter = now.Add(time.Duration(*hours * float64(time.Hour)))
	o.MaxRuns = uint32(min(*runs, 1000))
	o.Require, o.Consents = require, consents
	if len(allow) == 0 {
		allow = list{"accept", "diagnose", "close"}
	}
	for _, c := range allow {
		o.Allow = append(o.Allow, order.CommandType(c))
	}
	for _, s := range technicians {
		id, pub, ok := strings.Cut(s, ":")
		if !ok {
			return cli.Exit(cli.Usage, "order new: --technician %q is not ID:PUB", s)
		}
		key, err := readPublic(pub)
		if err != nil {
			return fmt.Errorf("order new: --technician %s: %w", id, err)
		}
		o.Technicians = append(o.Technicians, order.Technician{ID: id, Key: key})
	}
	for _, s := range services {
		svc, err := parseService(s)
		if err != nil {
			return cli.Exit(cli.Usage, "order new: --service %q: %w", s, err)
		}
		o.Services = append(o.Services, svc)
	}
	for _, s := range thresholds {
		name, value, ok := strings.Cut(s, "=")
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			return cli.Exit(cli.Usage, "order new: --threshold %q is not NAME=VALUE", s)
		}
		if o.Thresholds == nil {
			o.Thresholds = map[string]float64{}
		}
		o.Thresholds[name] = v
	}
	if err := checkOrder(o); err != nil {
		return cli.Exit(cli.Usage, "order new: %w", err)
	}
	if o.Resources == (order.Resources{}) && slices.Contains(required(o), acceptance.Identity) {
		fmt.Fprintln(a.err, "ontctl: warning: the order names no SN, MAC or LAN port: identity (资源准确) will be inconclusive, and so will the visit")
	}
	return a.writeJSON(*out, o)
}

func parseService(s string) (order.Service, error) {
	parts := strings.Split(s, ":")
	svc := order.Service{Kind: parts[0]}
	if len(parts) > 4 {
		return svc, errors.New("too many parts")
	}
	if len(parts) > 1 {
		svc.Access = parts[1]
	}
	if len(parts) > 2 && parts[2] != "" {
		vlan, err := strconv.ParseUint(parts[2], 10, 16)
		if err != nil {
			return svc, fmt.Errorf("VLAN: %w", err)
		}
		svc.VLAN = uint16(vlan)
	}
	if len(parts) > 3 {
		down, up, ok := strings.Cut(parts[3], "/")
		var errDown, errUp error
		svc.DownMbps, errDown = strconv.ParseFloat(down, 64)
		svc.UpMbps, errUp = strconv.ParseFloat(up, 64)
		if !ok || errDown != nil || errUp != nil {
			return svc, errors.New("rates are not DOWN/UP in Mbit/s")
		}
	}
	return svc, nil
}

// checkOrder finds what the gateway would refuse, before it is signed.
func checkOrder(o order.Order) error {
	if err := o.Validate(); err != nil {
		return err
	}
	for _, name := range o.Require {
		if !knownRung(name) {
			return fmt.Errorf("require: rung %q is not known: one of %s", name, rungNames())
		}
	}
	if _, err := acceptance.Norms().With(acceptance.OriginOrder, o.Thresholds); err != nil {
		return fmt.Errorf("thresholds: %w", err)
	}
	return nil
}

// required returns the rungs that will decide.
func required(o order.Order) []acceptance.Rung {
	if len(o.Require) == 0 {
		var kinds []string
		for _, s := range o.Services {
			kinds = append(kinds, s.Kind)
		}
		return acceptance.DefaultRequire(string(o.Type), kinds)
	}
	rungs := make([]acceptance.Rung, 0, len(o.Require))
	for _, name := range o.Require {
		rungs = append(rungs, acceptance.Rung(name))
	}
	return rungs
}

func knownRung(name string) bool {
	for _, r := range acceptance.Ladder() {
		if string(r) == name {
			return true
		}
	}
	return false
}

func rungNames() string {
	var names []string
	for _, r := range acceptance.Ladder() {
		names = append(names, string(r))
	}
	return strings.Join(names, ",")
}

func (a *app) orderSign(_ context.Context, args []string) error {
	f := a.flags("order sign")
	operator := f.String("operator", "", "sign with this operator `KEY` file")
	secretsFile := f.String("secrets", "", "`FILE` of {account, password, loid, loid_password, ploam_password, voice_user, voice_password}, sealed to the gateway")
	statement := f.String("statement", "", "the gateway's device statement `FILE`: needed with --secrets")
	trustFile := f.String("trust", "", "trust list `FILE`: needed if another operator key signed the statement")
	root := f.String("root", "", "operator's root key (.pub `FILE`): needed with --trust")
	out := f.String("out", "-", "write the signed order to `FILE`")
	if err := a.parse(f, args, 1, 1); err != nil {
		return err
	}
	key, err := readKey(*operator)
	if err != nil {
		return fmt.Errorf("order sign: --operator: %w", err)
	}
	data, err := a.readFile(f.Arg(0))
	if err != nil {
		return fmt.Errorf("order sign: %w", err)
	}
	o, err := order.ParseOrder(data)
	if err != nil {
		return fmt.Errorf("order sign: %s: %w", f.Arg(0), err)
	}
	if *secretsFile != "" {
		// Secrets go to a key that an operator vouched for, or nowhere.
		vouching, err := a.operatorKeys(key, *trustFile, *root)
		if err != nil {
			return fmt.Errorf("order sign: %w", err)
		}
		if err := sealSecrets(&o, *secretsFile, *statement, vouching); err != nil {
			return fmt.Errorf("order sign: %w", err)
		}
	}
	if err := checkOrder(o); err != nil {
		return cli.Exit(cli.Usage, "order sign: %s: %w", f.Arg(0), err)
	}
	env, err := o.Sign(key)
	if err != nil {
		return err
	}
	return a.writeJSON(*out, env)
}

// operatorKeys are those whose word on a gateway's keys counts: the operator's
// own, or those of a trust list.
func (a *app) operatorKeys(own ed25519.PrivateKey, trustFile, root string) (order.TrustList, error) {
	if trustFile == "" {
		pub, _ := own.Public().(ed25519.PublicKey)
		return order.TrustList{Keys: []order.TrustKey{{Role: order.RoleOperator, Key: order.PublicKey(pub)}}}, nil
	}
	return a.readTrust(trustFile, root)
}

// readTrust reads a trust list and holds it to the root key.
func (a *app) readTrust(path, root string) (order.TrustList, error) {
	key, err := readPublic(root)
	if err != nil {
		return order.TrustList{}, fmt.Errorf("--root: %w", err)
	}
	env, err := a.readEnvelope(path)
	if err != nil {
		return order.TrustList{}, fmt.Errorf("--trust: %w", err)
	}
	list, err := order.OpenTrustList(env, ed25519.PublicKey(key))
	if err != nil {
		return order.TrustList{}, cli.Exit(cli.Refused, "--trust: %s: %w", path, err)
	}
	return list, nil
}

// sealSecrets boxes the secrets to the gateway that the statement names, and
// shows the account masked in the order itself.
func sealSecrets(o *order.Order, secretsFile, statementFile string, vouching order.TrustList) error {
	data, err := os.ReadFile(secretsFile)
	if err != nil {
		return fmt.Errorf("--secrets: %w", err)
	}
	var secrets order.Secrets
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&secrets); err != nil {
		// The decoder's text could quote what it read.
		return fmt.Errorf("--secrets: %s is not of the known form", secretsFile)
	}
	if statementFile == "" {
		return errors.New("--secrets needs --statement: secrets are sealed to one gateway's key")
	}
	stData, err := os.ReadFile(statementFile)
	if err != nil {
		return fmt.Errorf("--statement: %w", err)
	}
	env, err := order.ParseEnvelope(stData)
	if err != nil {
		return fmt.Errorf("--statement: %w", err)
	}
	st, err := order.OpenStatement(env, vouching)
	switch {
	case errors.Is(err, order.ErrUnknownKey):
		return cli.Exit(cli.Refused, "--statement: %s is not signed by an operator key known here (give --trust and --root for others): %w", statementFile, err)
	case errors.Is(err, order.ErrMalformed):
		return fmt.Errorf("--statement: %s: %w", statementFile, err)
	case err != nil:
		return cli.Exit(cli.Refused, "--statement: %s: %w", statementFile, err)
	}
	if st.Device != o.Device {
		return fmt.Errorf("--statement is of device %s, the order for %s", st.Device, o.Device)
	}
	if o.Sealed, err = secrets.Seal(st.X25519); err != nil {
		return err
	}
	for i := range o.Services {
		if o.Services[i].Kind == "internet" {
			o.Services[i].Account = order.MaskAccount(secrets.Account)
		}
	}
	return nil
}

// peek reads a payload without asking who signed it.
func peek(env order.Envelope, payloadType string, v any) error {
	if env.PayloadType != payloadType {
		return fmt.Errorf("payload type is %q, not %q", env.PayloadType, payloadType)
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		return fmt.Errorf("cannot read payload: %w", err)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("cannot read payload: %w", err)
	}
	return nil
}

func (a *app) readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, errMissing
	}
	in := os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("cannot read %s: larger than %d bytes", path, maxFile)
	}
	return data, err
}

// maxFile bounds what is read of any document, in bytes.
const maxFile = 1 << 20

// readEnvelope reads a signed document from a file.
func (a *app) readEnvelope(path string) (order.Envelope, error) {
	data, err := a.readFile(path)
	if err != nil {
		return order.Envelope{}, err
	}
	env, err := order.ParseEnvelope(data)
	if err != nil {
		return order.Envelope{}, fmt.Errorf("%s: %w", path, err)
	}
	return env, nil
}

// writeJSON writes v to a file, or to standard output for "-".
func (a *app) writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode: %w", err)
	}
	data = append(data, '\n')
	if path == "-" {
		_, err = a.out.Write(data)
	} else {
		err = os.WriteFile(path, data, 0o644) //nolint:gosec // signed documents are public
	}
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	return nil
}
