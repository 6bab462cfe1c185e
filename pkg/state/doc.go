// Package state is the replicated state of a cluster and the one function that changes it.
//
// Apply is pure: it knows no clock, does no I/O, starts no goroutine, and gives every replica the same answer for the same
// entry. It never decides where a group should run - that is package scheduler's - but it refuses whatever would break a
// promise: it is the gate between a decision and its effect.
//
// # Why Apply never lets two nodes hold one exclusive group
//
// Call an instance of a group *held* when its node may have resources of the group, or may still start them (Instance.Held).
// For an exclusive group at most one instance is held, in every state that Apply can reach from an empty one:
//
//   - Only Acquire sets Held, and it refuses while another instance of an exclusive group is held, or when the subject
//     (node, incarnation) is not the newest, is dead, or is silent. (NodeServices start and Manage keep what is held; they set
//     nothing.) SetDefinition refuses to make a group exclusive, to drop a group, or to drop a node, while that would hide or
//     double something held.
//   - Held is cleared by exactly two things. One is a report of the holder itself - released, acquire failed, found stopped -
//     whose node, incarnation, group and generation are all those of the instance; the node has by then probed the group stopped
//     and written a tombstone, so it will never start that generation again. The other is the death of the incarnation, by a
//     Proof whose arithmetic Apply repeats (time), whose premise it checks (never armed, clean stop, boot), or which somebody
//     answers for (fence device, operator). An UNMANAGED instance lies outside every lease, so time and the absence of an
//     Armed fact never free it.
//   - A generation is given out once in the life of a cluster, by Acquire, from one counter for all groups whose high 24 bits
//     are the epoch. So a late, repeated or foreign report names a generation that no instance has any more, and changes nothing.
//   - After a death Apply refuses every later fact of that incarnation, Armed above all, and an Acquire for it. A node acts only
//     under a committed Armed and a grant that lists (group, generation); grants are made from State.Holds.
//
// The proof rests on what the state cannot see: that a node keeps the deadman's timings that it committed in Armed, writes
// tombstones before it reports, and that clocks run at rates that differ by less than lease.Rho. It promises nothing about
// availability: a planner that decides badly can leave a group down, and no more.
package state
