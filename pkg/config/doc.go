// Package config reads and writes the files that people write: the cluster file, a node's own file, and scenarios.
//
// Decoding is strict. A key that does not exist, a value of the wrong type, a name that is not defined and a policy that
// does not fit are faults, each with its file, line, column, the key's path and what would be right; all of a file's faults
// are reported at once. What was decoded without a fault has passed cluster.Validate and has every default filled in.
//
// The package reads untrusted input: size, nesting, the number of values and what aliases expand to are bounded, and nothing
// makes it panic. It does not look at the machine: whether a script or an interface exists is found out elsewhere.
//
// It is the only package that imports the YAML library.
package config
