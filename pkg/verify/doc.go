// Package verify judges whether a cluster is what its definition says and would do what its administrator expects: numbered
// checks over the definition and over what each node has seen of itself.
//
// It decides and does nothing else: what the nodes saw comes in as Facts (package collect looks), what is found goes out as
// findings, each with what was seen where, why it matters, and what to do. The order of the findings is fixed, so that two
// reports can be compared.
//
// It promises that a finding is true of what was seen. It does not promise that what is not found is well: what was not looked
// at is listed as such, and a node that gave no answer is an error of its own, never a node without findings.
package verify
