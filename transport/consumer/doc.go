// Package consumer is the collecting side's memory of one gateway: which
// messages it has, which are missing, which the gateway itself gave up, when
// what had no clock happened, and up to where everything is stored.
//
// It does no I/O and keeps no time: whoever stores the messages tells a Tracker
// of each (Observe) and, once they are on disk, asks what is to be acknowledged:
// events by a Checkpoint, what is Stored of class record message by message.
// `ontctl collect` and `ontctl watch` use it.
//
// # Numbers
//
// A message is named by (device, epoch, class, seq). Numbers are kept as ranges
// per epoch and class: received, told as dropped by an event/gap, unknown, given
// up. What lies between ranges is missing; holes stay open until they are filled
// or told, also after newer epochs came.
//
// A new Tracker meets most gateways in the middle of an epoch. What lies below
// the first number it sees of that epoch, and below the first it sees of any
// older one, is unknown: it may have been acknowledged to somebody else, or wait
// on the gateway to be sent again. It is not counted as missing, and holds up
// the checkpoint – an acknowledgement would make the gateway forget it – until
// it came, was told as dropped, or the gateway was heard for Options.Grace
// without sending any of it. Epochs that begin later are expected from number 1.
//
// # Content
//
// Messages are not signed, and neither are gap events. Who can forge them, the
// broker first of all, can make a Tracker believe that a number was dropped, or
// give it another content. So class record – records, job states, audit entries
// – is acknowledged by the digest of what was received: the gateway forgets only
// what is stored here byte for byte. A number says nothing then. What comes with
// a number that was seen is stored, unless that very content is (Late where the
// digest is forgotten, Conflict where it was another), and acknowledged for what
// it is; what comes again is acknowledged again. Gaps of class record count in
// the account, and acknowledge nothing.
//
// # Bounds
//
// Anyone who may publish in a gateway's name decides what a Tracker is told. Its
// memory is bounded: over Options.Ranges, the oldest holes of the class with
// most ranges are given up; over Options.Epochs, the epoch that has been quiet
// for longest. Both are reported. A number that was given up and comes after all
// is Late: it may have come before. Numbers and epochs that leap by more than
// Options.Jump and Options.EpochJump are Implausible and not accounted.
//
// Of class record, the digests of Options.Digests messages are remembered, and
// Options.Waiting wait to be acknowledged; what finds no room is stored, and
// acknowledged when the gateway sends it again.
//
// A checkpoint never passes a hole that was given up, and never exceeds the
// highest number received. It believes gap events: who can forge messages of a
// gateway can have it forget events that it still holds.
package consumer
