// Package collect looks at one node for a verification: files, devices, interfaces, names, space, settings. It judges nothing,
// and changes nothing but what Repair is told to, which looks again before it does.
//
// A look is bounded: what does not answer in time (a dead NFS server behind a path, a name server) is noted as not looked at, and
// a look that still hangs is not begun a second time. Nothing of a file's content leaves the node but its digest and its first
// line's interpreter.
package collect
