// Package repository keeps the repository volume: one preallocated file on a shared file system, or one raw block device, that
// all nodes of a cluster see. On it lie a heartbeat and a mailbox of every node, and the store of the repository voter, the
// third vote of a cluster in which two nodes vote.
//
// What it promises, as long as the disk keeps its own promise (a write that was reported is durable and visible to every reader,
// and a read returns what was written last or an error):
//
//   - A record whose Append returned nil is in the records of every later claim, whoever makes it, however long any host was
//     paused at any point, without the help of any clock.
//   - A block that was torn, misdirected, damaged, forged, taken from another volume or brought back from an older copy of this
//     one is never believed; the caller gets an error that says which block and what is wrong with it.
//   - A call returns in time although the disk does not: with ErrHung, and nothing newer is written by this process until the
//     hung write has ended.
//
// What it does not promise: that the disk keeps its promise (docs/design/0003-repository-volume.md lists what is assumed and
// what is noticed); that a heartbeat is fresh (the reader judges that, by its own clock); secrecy (blocks are authenticated, not
// encrypted; only the keys are sealed).
//
// A node writes only its own blocks. The one exception is Format, which makes the volume and destroys what was there.
//
// The package knows nothing of the replicated log: its records are bytes. It decides nothing but whether a claim holds.
package repository
