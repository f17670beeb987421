package inguest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/collectors/link"
)

// playFlowtable asks a kernel that forwards past VLANs which of its counters are
// blind. Hardware that takes flows is not to be had here.
func playFlowtable(ctx context.Context, b *netbox.Box, out io.Writer) error {
	a, _, err := pair(b, "flowtable")
	if err != nil {
		return err
	}
	if err := a.VLAN("eth0", 41, "eth0.41"); err != nil {
		return err
	}
	for _, state := range []struct {
		rule string
		want map[string]string
	}{
		{"add table inet t", map[string]string{"eth0": link.OffloadUnknown, "eth0.41": link.OffloadUnknown}},
		{
			"add flowtable inet t f { hook ingress priority 0; devices = { eth0 }; }",
			map[string]string{"eth0": link.OffloadUnknown, "eth0.41": link.OffloadFlowtable},
		},
		{"delete flowtable inet t f", map[string]string{"eth0": link.OffloadUnknown, "eth0.41": link.OffloadUnknown}},
	} {
		if _, err := a.Run(ctx, "nft", state.rule); err != nil {
			return err
		}
		var links []link.Link
		if err := a.Do(func() (err error) {
			links, err = link.New(link.Options{}).Links(ctx)
			return err
		}); err != nil {
			return err
		}
		for name, want := range state.want {
			i := slices.IndexFunc(links, func(l link.Link) bool { return l.Name == name })
			if i < 0 {
				return errors.New("there is no " + name)
			}
			if l := links[i]; l.Offload != want || l.Blind != (want != link.OffloadUnknown) {
				return fmt.Errorf("after %q: %s: %q, blind %v", state.rule, name, l.Offload, l.Blind)
			}
		}
	}
	fmt.Fprintln(out, "flowtable: the VLAN above its port is blind")
	return nil
}
