package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"time"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport"
)

// cfg signs remote settings, and publishes them to stay.
func (a *app) cfg(ctx context.Context, args []string) error {
	f := a.flags("cfg")
	var b brokerFlags
	b.register(f)
	keyFile := f.String("key", "", "sign with this operator or NOC `KEY` file")
	tenant := f.String("tenant", "default", "tenant `NAME`")
	device := f.String("device", "", "for the gateway `ID` alone (default: for every one of the tenant that it is sent to, see --publish-to)")
	var to list
	f.Var(&to, "publish-to", "publish on the topic of the gateway `ID`, may be repeated; default: that of --device")
	version := f.Uint64("version", 0, "version `N`; must rise with every issue to a gateway, its own or everyone's")
	spread := f.Duration("spread", 0, "first delay of reconnecting is random up to `TIME`")
	backoffCap := f.Duration("backoff-cap", 0, "longest delay of reconnecting, a `TIME`")
	keepalive := f.Duration("keepalive", 0, "MQTT keepalive, a `TIME`")
	backfill := f.Uint("backfill", 0, "`BYTES` a second at which is sent what had to wait")
	trustFile := f.String("trust", "", "trust list `FILE` to be taken first")
	out := f.String("out", "", "write the signed settings to `FILE` instead; - for standard output")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	key, err := readKey(*keyFile)
	if err != nil {
		return fmt.Errorf("cfg: --key: %w", err)
	}
	c := order.Config{V: 1, Tenant: *tenant, Device: *device, Version: *version}
	var problem error
	f.Visit(func(given *flag.Flag) {
		switch given.Name {
		case "spread":
			c.Settings.SpreadS, problem = wholeSeconds(given.Name, *spread, problem)
		case "backoff-cap":
			c.Settings.BackoffCapS, problem = wholeSeconds(given.Name, *backoffCap, problem)
		case "keepalive":
			c.Settings.KeepaliveS, problem = wholeSeconds(given.Name, *keepalive, problem)
		case "backfill":
			n := uint32(min(*backfill, 1<<31))
			c.Settings.BackfillBytesPerS = &n
		}
	})
	if problem != nil {
		return problem
	}
	if *trustFile != "" {
		env, err := a.readEnvelope(*trustFile)
		if err != nil {
			return fmt.Errorf("cfg: --trust: %w", err)
		}
		c.Trust = &env
	}
	if *device != "" && len(to) == 0 {
		to = list{*device}
	}
	switch {
	case (b.url == "") == (*out == ""):
		return cli.Exit(cli.Usage, "cfg: give either --broker or --out")
	case b.url != "" && len(to) == 0:
		return cli.Exit(cli.Usage, "cfg: gateways read settings on their own topics: give --device, or --publish-to for each")
	}
	if err := c.Validate(); err != nil {
		return cli.Exit(cli.Usage, "cfg: %w", err)
	}
	env, err := c.Sign(key)
	if err != nil {
		return err
	}
	if *out != "" {
		return a.writeJSON(*out, env)
	}
	payload, err := json.Marshal(env)
	if err != nil {
		return fmt.Errorf("cannot encode settings: %w", err)
	}
	var topics []string
	for _, id := range to {
		topic, err := transport.Topic(*tenant, id, transport.KindConfig, "")
		if err != nil {
			return cli.Exit(cli.Usage, "cfg: %w", err)
		}
		topics = append(topics, topic)
	}
	conn, err := b.dial(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	for _, topic := range topics {
		if err := conn.Publish(ctx, topic, 1, true, payload); err != nil {
			return cli.Exit(cli.Unreachable, "cannot publish on %s: %w", topic, err)
		}
		fmt.Fprintf(a.out, "%s version %d\n", topic, c.Version)
	}
	return nil
}

func wholeSeconds(name string, d time.Duration, before error) (*uint32, error) {
	if d < 0 || d%time.Second != 0 || d > 1<<31*time.Second {
		return nil, cli.Exit(cli.Usage, "cfg: --%s %v is not whole seconds", name, d)
	}
	n := uint32(d / time.Second)
	return &n, before
}
