package transport

// EventGap is the event type that reports dropped messages: the name of a
// KindEvent whose body is a Gap.
const EventGap = "gap"

// Why messages were dropped, in Gap.Reason.
const (
	GapClassFull = "class_full" // their class had no room for a newer one
	GapQueueFull = "queue_full" // the queue had no room for a worthier one
	GapDiskFull  = "disk_full"  // the flash had no room for a worthier one
	GapCorrupt   = "corrupt"    // what was on flash does not hold
	GapThinned   = "thinned"    // rolled up: what stayed carries min, avg and max
	GapRestart   = "restart"    // in memory when the power was cut or the daemon died
)

// Gap is the body of an EventGap: all sequence numbers of a class in
// [FromSeq, ToSeq] of Epoch that never arrive were dropped by the device.
// Numbers in the range that do arrive were not.
//
// For GapRestart nobody knows how far the numbers went: ToSeq and Count are 0
// and left out, the range is open, and where FromEpoch is given, it covers all
// numbers of the epochs from FromEpoch to before Epoch as well.
type Gap struct {
	Class     Class  `json:"gap_class"`
	FromEpoch uint64 `json:"gap_from_epoch,omitempty"`
	Epoch     uint64 `json:"gap_epoch"`
	FromSeq   uint64 `json:"from_seq"`
	ToSeq     uint64 `json:"to_seq,omitempty"`
	Count     uint64 `json:"count,omitempty"`
	Reason    string `json:"reason"`
}
