// Package cluster holds the tests of whole clusters: real agents, with their log on the disk, TLS between them and gossip, in one
// process and in fake time (testing/synctest), on a LAN in memory, each before the rules of the real deadman.
//
// What a kernel or a device alone can show (a process stopped between two instructions, a mount that cannot be undone) is not
// shown here but in test/e2e. Fake time makes faults cheap, not orderly: goroutines still run in any order, so a seed fixes the
// faults and when they happen, not each step of a run.
package cluster
