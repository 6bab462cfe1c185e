// Package lab is the client side of cllab, the lab that runs a whole cluster on one Linux machine: the words of the protocol
// between the command and a lab's supervisor, a client for that protocol, and the Lab type by which Go tests start a lab,
// break it on purpose and look at it.
//
// It promises nothing about the cluster inside: a lab only gives nodes, networks, power and a watchdog, and tells what it saw.
// All state lives in the supervisor; a Lab value may be used by several goroutines, and a lost Lab value loses nothing.
package lab
