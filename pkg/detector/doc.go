// Package detector fuses what one node hears of the others, on several paths, into one verdict per node.
//
// It is pure: no I/O, no clock, no goroutine, no log; every moment comes in, and the same calls give the same answers. A
// Detector belongs to one loop and is not safe for concurrent use.
//
// A verdict frees nothing. Lost means that it is time to look for a proof (expiry of the lease, fencing, ...); a false Lost
// costs an application's restart at worst, if a fence device is at hand, and a late one costs time. So the rules:
//
//   - Lease requests and disk heartbeats count. A node that has sent neither for Silence is Lost, or Isolated while its disk
//     heartbeat alone goes on.
//   - Raft and peer traffic, answered and even refused probes show that the node or its kernel runs. They hold Lost back, at
//     most until Patience after the last lease request: a daemon that is being restarted is given the time that its lease
//     gives it, and one whose loop hangs does not live on by its other goroutines.
//   - Gossip, and by it the other nodes' opinions, only hurries the look: a node that gossip calls down on all its networks is
//     Suspect at once, and the caller probes it. That never shortens Silence. (Shortening it to 60 % on the word of gossip and two
//     probes without answer was tried in simulation: it gains nothing in the profiles default and fast, where gossip speaks
//     later than Silence, 0.4 s in careful, and there it calls living nodes lost that stood still for a second.)
//   - The observer's own stalls count for nobody's silence. When the loop did not run for more than Silence/3, that time is
//     taken out of all silences (with both cores saturated the messages are in the socket, not missing).
package detector
