package isp

import (
	"context"
	"fmt"
	"strings"
)

// DropEchoes makes the LCP echoes of all sessions, those of both sides and their
// answers, get lost, or ends that. Together with EchoLoss, which keeps the
// server from noticing, nothing is heard of it from the moment a session is up.
// It needs nft, and hooks for ingress and egress in nf_tables.
func (b *BRAS) DropEchoes(ctx context.Context, on bool) error {
	const table = "ontlab_echoes"
	var text strings.Builder
	text.WriteString("add table netdev " + table + "\ndelete table netdev " + table + "\n")
	if on {
		text.WriteString("table netdev " + table + " {\n")
		for _, hook := range []string{"ingress", "egress"} {
			// PPPoE's header has six bytes; then comes the protocol, then LCP's
			// code.
			fmt.Fprintf(&text, "chain %[1]s {\ntype filter hook %[1]s device %[2]q priority 0;\n"+
				"ether type 0x8864 @nh,48,16 0xc021 @nh,64,8 { 9, 10 } drop\n}\n", hook, b.options.Interface)
		}
		text.WriteString("}\n")
	}
	if err := setRules(ctx, b.host, "echoes", text.String()); err != nil {
		return fmt.Errorf("cannot drop echoes of %s: %w", b.options.Name, err)
	}
	return nil
}
