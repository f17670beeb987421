// Package spool is the queue that loses nothing: a transport.Queue on flash,
// for a machine that is unplugged without warning, whose flash is small and
// wears, and whose clock may start in 1970. It uses nothing but the standard
// library and package durable, through which tests fail any single operation.
// cmd hands it to the broker session, which takes from it by Next and tells it
// by Online when it comes and goes.
//
// # What is promised
//
//   - Put of a record or event returns nil once it is on flash for good. It
//     stays there until the collector has signed for it (Acknowledge), or with
//     ByBroker until the broker has it.
//   - Telemetry lives in memory and is written only when it can't be sent: in
//     batches, 30 s after the session has ended, when the ring is 3/4 full, and
//     by Flush and Close. Online, telemetry alone writes nothing at all.
//   - What is dropped is dropped by class and age, counted, and told as a gap
//     event, which is durable before what it reports is deleted. The exception
//     is a full flash (see below), where the gap follows.
//   - Whatever the flash answers, whatever stands in the files: no panic, no
//     error from Open. Trouble means messages in memory, ErrNotDurable, Health,
//     an event "spool", and another try every 10 minutes, or a minute after a
//     full flash has room again.
//
// Messages may be sent twice: (epoch, class, seq) tells.
//
// # Files
//
// Below Dir there is a directory for each of record, event and telemetry, with
// segments of up to 64 KiB (see format.go) named by epoch and first number. A
// larger message has one of its own. Segments only grow, in the life that made
// them, by one write and one fdatasync a batch; the first batch goes with the
// header in the write that makes the file, which then is synced before its
// directory. After an error nothing is ever appended to that file; what was to
// be written goes to another. A segment of which nothing is left is unlinked,
// without syncing the directory: if it comes back it is sent twice.
//
// Dir/cursor.0 and cursor.1 say in turns how far each class and epoch is gone.
// They are written when an acknowledgement released something, at Close, and
// else a minute after something on flash was sent or after 64 KiB of it: there
// is no other order between them and the segments, and to lose both costs
// duplicates and needless restart gaps, nothing else.
//
// # Recovery
//
// Open reads each segment once. What does not validate is passed over to the
// next record that does. Numbers that should be there and are not are told as
// GapCorrupt: those within and behind damage; those that the next segment's
// header says its forerunner held; and of records and events confirmed by
// signature, of which all are on flash and the cursor knows what was signed
// for, all that are missing. A rest that may be an unfinished write is not
// damage. A file that gives errors is tried again, six times, 10 minutes apart;
// until then nothing is told of its class.
//
// For each epoch since the last one told that Close did not end, gaps with
// reason restart are made durable, then the cursor says so. Of records and
// events they begin behind the last number known, so that they never cover
// what is still here – an acknowledgement beyond it would release it.
//
// # Bounds
//
// A class over its bytes or files on flash loses its oldest segment (of records
// and events first the oldest that the broker has). Telemetry is thinned
// before: the oldest segments as they came become rollups of 1 minute, then
// those of 5, then of 30 – per name and subject the mean of each number with KEY_min and
// KEY_max, the last of each other value, samples and window_s, under the header
// of the last original. Segments that would not shrink to 3/4 are left alone.
// What a dropped segment of events had to tell of gaps goes into new ones.
//
// On a flash that is full (ENOSPC) for a record or event, the oldest telemetry
// goes at once, and its gap with what is written next. Should the power fail
// in between, the restart gap of the next start covers the numbers of this
// epoch, and for earlier ones the cursor knows from where on they were there:
// a restart gap tells that too.
//
// # Locks
//
// io is held while files are written or removed, rd while bodies are read, mu
// for what is in memory and never while anything waits. So Next, Done, Stats
// and the Put of telemetry never wait for a slow sync; those of records and
// events do, and whoever gets io writes for all who wait.
package spool
