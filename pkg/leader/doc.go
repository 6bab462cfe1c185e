// Package leader decides what a leader proposes: which nodes are silent or heard again, which incarnations it can prove dead, at which it
// shoots, and when it plans anew. It is pure: it does no I/O, has no clock, starts nothing, and depends on no order of a map. The agent
// and the simulation (test/sim) call it alike, so that what the simulation attacks is what runs.
//
// It promises that a proof of death is made in the same step as the doom of its subject in the book of grants: as long as the caller
// holds one lock over Findings and over each grant, no grant is given to an incarnation after a proof against it was made (attack A9). A
// doom is taken back only by Answered, when the log has refused the proof: then nothing was freed by it.
//
// It does not promise that a proof holds. state.Apply repeats the arithmetic of each and refuses what does not prove, so that a mistake
// here costs an outage, or a proposal in vain, never a second owner.
package leader
