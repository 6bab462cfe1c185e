// Package e2e tests the product as an administrator would: real daemons in the lab's namespaces, the real commands, a client
// on the network that never stops asking, and an independent watcher that looks many times a second who holds which address,
// mount and lock, and fails a test on any overlap.
//
// The tests assert safety and outcomes, never speed: speed is printed. With -short a quick selection runs; without it all do
// that need no flag of their own. What a flag asks for is said in its help (go test ./test/e2e -args -h).
//
// The lab shares one kernel, one clock and one disk. Clock steps, skew between nodes, a disk that hangs below one node only,
// and pauses of a whole machine are out of its reach; packages consensus, deadman and lease test those in fake time.
package e2e
