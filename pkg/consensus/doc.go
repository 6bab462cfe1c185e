// Package consensus keeps one replicated log among the cluster's nodes: it wraps hashicorp/raft and its stores, and is the
// only package that imports them. It gives the agent leadership as a context, proposals whose outcome is told honestly, the
// confirmation of a leader's term by a majority of the voters, and the choice of who votes.
//
// It promises that a Lead is delivered only after an entry of its own term was committed and applied here; that a round of
// term confirmation serves only requests which arrived before the round's first message left; that a voter never confirms a
// term after it has taken part in a newer one; that the process ends when a call of its store hangs or fails.
//
// It does not promise that a Lead is still the leader while its context lives: a deposed leader learns that late. Whoever
// needs to know asks Lead.Confirm. It knows nothing of what the log says; it opens no sockets of its own (streams and the
// messages of a round are the caller's) and authenticates nobody. A bit that rots in the newest meta page of the store's
// file makes that file's last transaction vanish, which nothing here can see; Identity says what is done about
// restored disks.
//
// Goroutines of its own, all ended by Close: one drains raft's notices of leadership; one forwards messages to raft; while
// this server leads, one delivers the Lead, one beats, one writes when nothing else is committed, one per follower sends
// notices of commit, and one per round and voter asks. A proposal has one while it waits. A store call has a timer.
//
// Everything exported is safe for use by several goroutines, unless it says otherwise.
package consensus
