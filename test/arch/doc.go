// Package arch holds the house's building rules as a test: which package may import which, which library has which single
// importer, and what the pure core may not touch. It reads the sources of all systems, not only of the one it runs on.
package arch
