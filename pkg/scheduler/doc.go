// Package scheduler is the product's mind: what goes where, when and why.
//
// Plan is a pure function of the committed state and the time. It is level-triggered: it sees only the state, so an event that
// is lost or comes twice costs a pass, not correctness; the plan of a settled state is empty. Every decision carries one
// sentence that says why, and so does every "cannot".
//
// All policies live here and nowhere else. The package promises usefulness, not safety: whatever it decides, state.Apply
// refuses a start whose proof is not in the log. It does no I/O, reads no clock, and gives the same answer for the same input,
// in the same order.
//
// Local is the same kind of function for one node: what the node must do about its own instances.
package scheduler
