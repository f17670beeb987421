package netbox

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
)

// Limits and defaults of Impairment.
const (
	// DefaultQueueMs is a usual depth of a shaper's queue.
	DefaultQueueMs = 100

	// frame is the longest Ethernet frame with a tag, in bytes.
	frame = 1518
	// burstTime is how late the kernel's timer may be without a loss of rate,
	// on an emulated processor too. A bucket of it adds 1 % to what is
	// measured over five seconds, and nothing where the start is left out.
	burstTime = 50 * time.Millisecond
	// delayedPackets is the most that are held in a delay without a rate.
	delayedPackets = 20_000
	// orderRate is faster than any cable here, in bytes per second; see netem.
	orderRate = 10_000_000_000 / 8
)

// Impairment is what a line does to what is sent on it. All of it is done on
// the sending side, the shaping last. Ratios are 0 to 1.
type Impairment struct {
	// RateMbps is the rate of Ethernet frames, with their headers and without
	// their check sums, in millions of bits per second. 0 means unlimited.
	RateMbps float64
	// Delay is added to each packet, give or take up to Jitter, evenly
	// spread. Packets stay in order.
	Delay, Jitter time.Duration
	// LossRatio and DuplicateRatio are of packets, each by chance of its own.
	LossRatio, DuplicateRatio float64
	// ReorderRatio of packets are sent without Delay, before those that wait.
	// It needs a Delay.
	ReorderRatio float64
	// BurstKiB is how much may be sent at once after a pause. 0 means what is
	// sent in 50 ms, at least two frames.
	BurstKiB int
	// QueueMs is how long the queue of the shaper can get; what comes then is
	// lost. It needs a RateMbps; 0 means DefaultQueueMs.
	QueueMs int
}

func (i Impairment) check() error {
	for _, ratio := range [...]float64{i.LossRatio, i.DuplicateRatio, i.ReorderRatio} {
		if !(ratio >= 0 && ratio <= 1) {
			return errors.New("a ratio is not between 0 and 1")
		}
	}
	switch {
	case !(i.RateMbps >= 0 && i.RateMbps <= 10_000) || i.RateMbps > 0 && i.RateMbps < 0.008:
		return errors.New("the rate is neither 0 nor between 0.008 and 10000 Mbit/s")
	case i.Delay < 0 || i.Delay > time.Minute || i.Jitter < 0 || i.Jitter > i.Delay:
		return errors.New("the delay is not between 0 and a minute, or the jitter longer than it")
	case i.ReorderRatio > 0 && i.Delay == 0:
		return errors.New("without a delay there is nothing to overtake")
	case i.BurstKiB < 0 || i.BurstKiB > 1<<20 || i.QueueMs < 0 || i.QueueMs > 60_000:
		return errors.New("burst or queue is out of range")
	}
	return nil
}

// bytesPerSecond is the rate as the kernel wants it.
func (i Impairment) bytesPerSecond() float64 { return i.RateMbps * 1e6 / 8 }

// burst is the size of the shaper's bucket in bytes. A frame that is longer
// than the bucket would never be sent.
func (i Impairment) burst() float64 {
	burst := float64(i.BurstKiB) * 1024
	if burst == 0 {
		burst = i.bytesPerSecond() * burstTime.Seconds()
	}
	return max(burst, 2*frame)
}

// queue is what the shaper's queue holds, in bytes.
func (i Impairment) queue() float64 {
	ms := i.QueueMs
	if ms == 0 {
		ms = DefaultQueueMs
	}
	return max(i.bytesPerSecond()*float64(ms)/1000, 4*frame)
}

func (i Impairment) shapes() bool { return i.RateMbps > 0 }

func (i Impairment) disturbs() bool {
	return i.Delay > 0 || i.LossRatio > 0 || i.DuplicateRatio > 0
}

// Impair makes a line of an interface: what the host sends there gets that
// rate, delay and loss, instead of what was set before. The zero Impairment
// takes all of it away. An error is compatible with ErrNoKernel where the
// kernel can't.
//
// Shaping is tbf: a bucket that fills at the rate; delay and the rest is
// netem, below it.
func (h *Host) Impair(ifname string, i Impairment) error {
	return h.change(ifname, "impair", func(l netlink.Link) error {
		if err := i.check(); err != nil {
			return err
		}
		index := l.Attrs().Index
		if err := h.removeQdisc(index); err != nil {
			return err
		}
		parent := uint32(netlink.HANDLE_ROOT)
		if i.shapes() {
			if err := h.nl.QdiscAdd(i.tbf(index, parent)); err != nil {
				return kernelError(err)
			}
			parent = netlink.MakeHandle(tbfMajor, 1)
		}
		if !i.disturbs() {
			return nil
		}
		if err := h.nl.QdiscAdd(i.netem(index, parent)); err != nil {
			// Half a line would be another one than asked for.
			return errors.Join(kernelError(err), h.removeQdisc(index))
		}
		return nil
	})
}

// Handles of the two queues.
const (
	tbfMajor   = 0x10
	netemMajor = 0x20
)

// removeQdisc takes away what Impair has set.
func (h *Host) removeQdisc(index int) error {
	qdiscs, err := h.nl.QdiscList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil {
		return fmt.Errorf("cannot list queues: %w", err)
	}
	for _, q := range qdiscs {
		attrs := q.Attrs()
		if attrs.LinkIndex != index || attrs.Parent != netlink.HANDLE_ROOT || attrs.Handle>>16 != tbfMajor && attrs.Handle>>16 != netemMajor {
			continue
		}
		if err := h.nl.QdiscDel(q); err != nil {
			return fmt.Errorf("cannot remove queue: %w", err)
		}
	}
	return nil
}

func (i Impairment) tbf(index int, parent uint32) netlink.Qdisc {
	rate := uint64(math.Round(i.bytesPerSecond()))
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: parent, Handle: netlink.MakeHandle(tbfMajor, 0)},
		Rate:       rate,
		Limit:      uint32(min(i.queue()+i.burst(), math.MaxInt32)),
		Buffer:     netlink.Xmittime(rate, uint32(i.burst())),
	}
}

func (i Impairment) netem(index int, parent uint32) netlink.Qdisc {
	attrs := netlink.NetemQdiscAttrs{
		Latency:     uint32(i.Delay.Microseconds()),
		Jitter:      uint32(i.Jitter.Microseconds()),
		Loss:        float32(100 * i.LossRatio),
		Duplicate:   float32(100 * i.DuplicateRatio),
		ReorderProb: float32(100 * i.ReorderRatio),
		Limit:       delayedPackets,
	}
	if i.shapes() {
		// Its queue is the shaper's queue too: what waits for the delay, and
		// then for its turn. It counts packets.
		attrs.Limit = uint32(min((i.bytesPerSecond()*(i.Delay+i.Jitter).Seconds()+i.queue())/frame+1, delayedPackets))
	}
	if i.Jitter > 0 && i.ReorderRatio == 0 {
		// With a rate of its own, however high, netem sends no packet before
		// one that came earlier.
		attrs.Rate64 = orderRate
	}
	return netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: index, Parent: parent, Handle: netlink.MakeHandle(netemMajor, 0)}, attrs)
}
