// Package repair is the safe self-healing of a gateway (简单障碍修复): it looks
// at the line, does one thing that may bring it back, looks again and says what
// that was worth.
//
// It does nothing to a line that is fine, nothing that would interrupt a line
// which carries traffic unless the order has the customer's consent, nothing
// about causes that lie elsewhere, and no more of anything than its limits
// allow, which a restart does not reset. What helped nothing is put back as it
// was, as far as there is anything to put back: see Done.
//
// The package decides; what is done to this system, and how the line is looked
// at, is handed in. It runs nothing by itself: Repairer answers a command, and
// Healer acts under a standing order when it is told of a fault.
package repair
