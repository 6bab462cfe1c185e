// Package gossip runs one memberlist ring per cluster network and tells which member is reachable over which network. It is the
// only importer of memberlist.
//
// What it tells is a hint to look, never a verdict: gossip is encrypted with a key that all members share, so it proves that a
// member spoke, not which one, and old messages can be sent again. It decides nothing and carries no state of the cluster.
//
// The rings are tuned for few nodes and little CPU time. What a ring costs is waking up: a process that wakes for anything at
// all pays 0.1 to 0.2 ms on a virtual machine that was idle, and memberlist's own work is small beside that. In the default
// profile a member wakes about four times a second per network: for its own probe, the answer, somebody else's probe, and the
// broadcast tick.
//
// memberlist never heals a partition of two nodes by itself, nor one in which all members of the other side were declared dead
// long ago. So each ring asks every absent member to join, once a second, for ever.
//
// A second cluster on the same wire is kept apart by the label (the cluster's UUID) and the key; what it sends is counted and
// dropped. Names and addresses that are not the membership's are refused, even from one who has the key.
package gossip
