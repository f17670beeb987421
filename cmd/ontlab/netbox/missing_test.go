package netbox_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
)

// What Missing names is what fails, and the rest works.
func TestMissingIsWhatFails(t *testing.T) {
	b := newBox(t)
	a, z := newHost(t, b, "a"), newHost(t, b, "z")
	must(t, b.Cable(a, "eth0", z, "eth0", netbox.CableOptions{}))
	missing := netbox.Missing(t.Context())
	t.Logf("missing: %v", missing)
	for name, err := range map[string]error{
		netbox.NeedNamespaces: nil, netbox.NeedVeth: nil, // there they are
		netbox.NeedBridge: a.Bridge("br0", netbox.BridgeOptions{}),
		netbox.NeedVLAN:   a.VLAN("eth0", 41, "eth0.41"),
		netbox.NeedTBF:    a.Impair("eth0", netbox.Impairment{RateMbps: 1}),
		netbox.NeedNetem:  a.Impair("eth0", netbox.Impairment{Delay: time.Millisecond}),
	} {
		if failed := err != nil; failed != slices.Contains(missing, name) {
			t.Errorf("%s: error %v, missing are %v", name, err, missing)
		}
		if err != nil && !errors.Is(err, netbox.ErrNoKernel) {
			t.Errorf("%s: %v is not ErrNoKernel", name, err)
		}
	}
	// Where half of a line can't be had, there is none.
	if slices.Contains(missing, netbox.NeedNetem) || slices.Contains(missing, netbox.NeedTBF) {
		if err := a.Impair("eth0", netbox.Impairment{RateMbps: 1, Delay: time.Millisecond}); !errors.Is(err, netbox.ErrNoKernel) {
			t.Errorf("error %v", err)
		}
		out, err := a.Run(t.Context(), "tc", "qdisc", "show", "dev", "eth0")
		if err != nil || !strings.HasPrefix(string(out), "qdisc noqueue") {
			t.Errorf("queue %q: %v", out, err)
		}
	}
	must(t, a.Impair("eth0", netbox.Impairment{}))
}

// A user who is not root asks a child.
func TestMissingByAnotherProcess(t *testing.T) {
	needBox(t)
	self, err := os.Executable()
	must(t, err)
	result, err := command.New(command.Options{}).Run(t.Context(), command.Spec{Path: self, Args: []string{netbox.MissingVerb}})
	must(t, err)
	if got, want := strings.Fields(string(result.Stdout)), netbox.Missing(t.Context()); !slices.Equal(got, want) {
		t.Errorf("the child says %v, we %v", got, want)
	}
}
