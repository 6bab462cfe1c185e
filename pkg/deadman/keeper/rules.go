package keeper

// A Rule is one of the keeper's defences. All of them hold always; the tests of this package take single ones away to see that
// their checks notice.
type Rule uint16

// The rules.
const (
	RuleAge     Rule = 1 << iota // a grant older than A is thrown away (A3)
	RuleLate                     // no pet, and no going on, after the kill time (A3)
	RuleVoid                     // a new agent connection voids the open requests
	RuleArm                      // arming voids the open requests (A5)
	RuleHard                     // L_hard resets
	RuleSuspend                  // BOOTTIME against MONOTONIC (B3)
	RuleLeader                   // the leader's clock against ours (B3)
	RuleTaken                    // a descriptor that was taken over counts as armed (A2)
	RuleHolding                  // who took over must assume that the node runs something (A2)
)

// rules holds those that were taken away.
type rules struct{ without Rule }

func (r rules) has(x Rule) bool { return r.without&x == 0 }
