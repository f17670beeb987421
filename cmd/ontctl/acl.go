package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport"
)

// technicianReads are the kinds of message that a technician may hear of the
// devices of their orders. Records are for the collector.
func technicianReads() []transport.Kind {
	return []transport.Kind{
		transport.KindEvent, transport.KindInfo, transport.KindPending,
		transport.KindState, transport.KindStatus, transport.KindTelemetry,
	}
}

// technicianWrites are those that they may send.
func technicianWrites() []transport.Kind { return []transport.Kind{transport.KindCommand} }

func (a *app) aclMosquitto(_ context.Context, args []string) error {
	f := a.flags("acl mosquitto")
	trustFile := f.String("trust", "", "trust list `FILE`: whose orders count")
	root := f.String("root", "", "operator's root key (.pub `FILE`) that signed the trust list")
	at := f.String("at", "", "`TIME` (RFC 3339) at which an order must be valid (default: now)")
	out := f.String("out", "-", "write the section to `FILE`")
	if err := a.parse(f, args, 0, -1); err != nil {
		return err
	}
	now := time.Now()
	if *at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, *at); err != nil {
			return cli.Exit(cli.Usage, "acl mosquitto: --at: %w", err)
		}
	}
	trust, err := a.readTrust(*trustFile, *root)
	if err != nil {
		return fmt.Errorf("acl mosquitto: %w", err)
	}
	var orders []order.Order
	var refused int
	for _, path := range f.Args() {
		o, err := a.readOrder(path, trust)
		if exit := (*cli.Error)(nil); errors.As(err, &exit) && exit.Code == cli.Refused {
			// Rights must shrink where a key was revoked, so the others are
			// written all the same.
			fmt.Fprintln(a.err, "ontctl: left out:", err)
			refused++
			continue
		}
		if err != nil {
			return fmt.Errorf("acl mosquitto: %w", err)
		}
		orders = append(orders, o)
	}
	rights, leftOut := technicianRights(orders, trust, now)
	for _, why := range leftOut {
		fmt.Fprintln(a.err, "ontctl: left out:", why)
	}
	var text strings.Builder
	if err := writeMosquitto(&text, trust, rights); err != nil {
		return fmt.Errorf("acl mosquitto: %w", err)
	}
	if *out == "-" {
		_, err = io.WriteString(a.out, text.String())
	} else {
		err = os.WriteFile(*out, []byte(text.String()), 0o644) //nolint:gosec // the broker reads it as its own user
	}
	if err != nil {
		return fmt.Errorf("acl mosquitto: cannot write: %w", err)
	}
	if refused > 0 {
		return cli.Exit(cli.Refused, "acl mosquitto: %d of %d orders are not signed for %s by an operator of the trust list", refused, f.NArg(), trust.Tenant)
	}
	return nil
}

// readOrder reads a signed order of the trust list's tenant.
func (a *app) readOrder(path string, trust order.TrustList) (order.Order, error) {
	env, err := a.readEnvelope(path)
	if err != nil {
		return order.Order{}, err
	}
	o, err := order.OpenOrder(env, trust)
	if err == nil && o.Tenant != trust.Tenant {
		err = fmt.Errorf("order %s is for tenant %s", o.Order, o.Tenant)
	}
	if err != nil {
		return order.Order{}, cli.Exit(cli.Refused, "%s: %w", path, err)
	}
	return o, nil
}

// right is that a technician may work on a device, and why.
type right struct {
	technician string // also the common name of the certificate
	order      order.Order
}

// technicianRights returns what the orders allow at a time, sorted by
// technician, device and order, and for people what they don't allow any more
// or not yet. Of an order given in several revisions only the highest counts.
func technicianRights(orders []order.Order, trust order.TrustList, now time.Time) (rights []right, leftOut []string) {
	newest := map[string]order.Order{}
	for _, o := range orders {
		if n, ok := newest[o.Order]; !ok || o.Rev > n.Rev || o.Rev == n.Rev && o.NotAfter.Before(n.NotAfter) {
			newest[o.Order] = o
		}
	}
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		o := newest[id]
		switch {
		case trust.OrderRevoked(id):
			leftOut = append(leftOut, fmt.Sprintf("order %s is revoked", id))
			continue
		case now.After(o.NotAfter):
			leftOut = append(leftOut, fmt.Sprintf("order %s ended at %s", id, o.NotAfter.UTC().Format(time.RFC3339)))
			continue
		case now.Before(o.NotBefore):
			leftOut = append(leftOut, fmt.Sprintf("order %s begins at %s", id, o.NotBefore.UTC().Format(time.RFC3339)))
			continue
		}
		for _, t := range o.Technicians {
			if trust.KeyRevoked(t.Key.ID()) {
				leftOut = append(leftOut, fmt.Sprintf("order %s: the key of %s is revoked", id, t.ID))
				continue
			}
			rights = append(rights, right{t.ID, o})
		}
	}
	slices.SortFunc(rights, func(a, b right) int {
		return cmp.Or(cmp.Compare(a.technician, b.technician),
			cmp.Compare(a.order.Device, b.order.Device), cmp.Compare(a.order.Order, b.order.Order))
	})
	return rights, leftOut
}

// writeMosquitto writes sorted rights as a section of mosquitto's acl_file. The
// same rights give the same text.
func writeMosquitto(w *strings.Builder, trust order.TrustList, rights []right) error {
	fmt.Fprintf(w, "# Technicians of %s, by ontctl acl mosquitto, from signed orders and trust list %d.\n", trust.Tenant, trust.Version)
	for i, r := range rights {
		if i == 0 || rights[i-1].technician != r.technician {
			fmt.Fprintf(w, "\nuser %s\n", r.technician)
		}
		fmt.Fprintf(w, "# order %s rev %d: %s until %s\n",
			r.order.Order, r.order.Rev, r.order.Device, r.order.NotAfter.UTC().Format(time.RFC3339))
		if i+1 < len(rights) && rights[i+1].technician == r.technician && rights[i+1].order.Device == r.order.Device {
			continue // one more order for the same device: its comment first
		}
		for _, part := range []struct {
			access string
			kinds  []transport.Kind
		}{{"read", technicianReads()}, {"write", technicianWrites()}} {
			for _, kind := range part.kinds {
				filter, err := transport.Filter(trust.Tenant, r.order.Device, kind, "+")
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "topic %s %s\n", part.access, filter)
			}
		}
	}
	return nil
}
