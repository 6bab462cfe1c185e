// Package linux holds the executors for Linux: service and persistent addresses by netlink, file systems by mount(8), and a
// watcher of the network interfaces.
//
// The executors act on the network and mount namespace of the calling process. They promise what executor.Executor says; they
// do not promise that an address is reachable from elsewhere, nor that a file system is mounted on no other machine: that is
// the lease's.
package linux
