// Package aix holds the executors for AIX: addresses by ifconfig, volume groups by the LVM's commands, JFS2 file systems, NFS
// exports, subsystems of the System Resource Controller, and a watcher of the network interfaces.
//
// It does everything by the system's commands, which are looked up in configurable directories, so that it can be built and
// tested on other systems. It has been run against an emulator of those commands (test/fake/aix) and never on AIX: what it
// takes their answers to be comes from published texts. It matches message ids, not words, and what it cannot read is Unknown.
//
// It promises what executor.Executor says. It does not promise that a disk or a file system is in use on no other machine: that
// is the lease's and the fence's. Mount guard, where it is on, is a second lock that it respects.
package aix
