// Package monitor watches applications: their processes, by the kernel's event of a death, and their health, by a method of
// the administrator. It restarts an application that failed as often as its monitor allows, and then says that it has failed.
//
// It decides nothing about resource groups: it reports, and whoever started it moves the group. It does not promise to see a
// process that ended and was replaced by another of the same name in between.
package monitor
