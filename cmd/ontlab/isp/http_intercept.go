package isp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
)

// interceptTable is the table of the host's firewall that is ours.
const interceptTable = "ontlab_intercept"

// Intercept lets a host that forwards, such as the BRAS, lead every connection
// to port 80 beyond it to a portal, as an operator does with the customers who
// have not paid; or no longer. Connections to the portal itself, and those of
// the other family, are left alone. It needs nft, and a kernel with NAT in
// nf_tables (modules nf_tables and nft_chain_nat); the answers have to come
// back through the same host. The error is compatible with netbox.ErrNoKernel
// where the kernel can't.
func Intercept(ctx context.Context, host *netbox.Host, on bool, portal netip.AddrPort) error {
	family := "ip"
	if portal.Addr().Is6() {
		family = "ip6"
	}
	// To add a table that is there does nothing; so it can be deleted always.
	text := fmt.Sprintf("add table %[1]s %[2]s\ndelete table %[1]s %[2]s\n", family, interceptTable)
	if on {
		text += fmt.Sprintf(`table %[1]s %[2]s {
	chain customers {
		type nat hook prerouting priority dstnat;
		tcp dport 80 %[1]s daddr != %[3]s fib daddr type != local dnat to %[4]s
	}
}
`, family, interceptTable, portal.Addr(), portal)
	}
	file := "intercept-" + family + ".nft"
	if err := host.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot intercept on %s: %w", host.Name(), err)
	}
	if _, err := host.Run(ctx, "nft", "-f", file); err != nil {
		var failed *command.Error
		if errors.As(err, &failed) && (strings.Contains(failed.Output, "not supported") || strings.Contains(failed.Output, "No such file")) {
			err = fmt.Errorf("%w: %w", netbox.ErrNoKernel, err)
		}
		return fmt.Errorf("cannot intercept on %s: %w", host.Name(), err)
	}
	return nil
}
