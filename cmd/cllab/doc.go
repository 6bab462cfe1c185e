// Command cllab runs a whole cluster on one Linux machine: every node with processes, mounts, network and host name of its
// own, on bridged networks, with a shared directory, a watchdog and a power switch. It is for demonstrations, tests,
// benchmarks and training, and needs no other program.
//
// A lab's nodes share one kernel: they fail alone as processes, links and power do, never as kernels do. Page cache and disks
// are the machine's, so a crashed node loses no write that its kernel had taken. Nodes are no security boundary.
package main
