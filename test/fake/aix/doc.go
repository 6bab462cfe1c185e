// Package aix plays the commands of AIX that the executors of package executor/aix call: one program that does as each of them
// does when it is called by its name. It keeps what nodes share (disks, volume groups, what is in their file systems) in one
// directory and what is a node's own (interfaces, mounts, ODM, subsystems) in others, and answers in the formats, with the
// message ids and exit statuses that are published for AIX.
//
// It is a stand-in, written without an AIX machine: it shows that the executors do what they mean to do with such answers, not
// that AIX gives them. Where the sources disagree or say nothing, it takes the less friendly reading: nothing in it keeps two
// nodes from varying on one volume group, and a double mount is noted, not prevented, unless mount guard is on.
package aix
