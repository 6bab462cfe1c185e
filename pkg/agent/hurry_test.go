package agent

import (
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
)

// Whoever led, the voters that are left stand one after another, the first without delay, and no two at once.
func TestStagger(t *testing.T) {
	servers := []consensus.Server{{ID: "a-1", Voter: true}, {ID: "b-1", Voter: true}, {ID: "c-1", Voter: true},
		{ID: "d-1"}}
	for leader, want := range map[string]map[string]time.Duration{
		"a": {"b": 60 * time.Millisecond, "c": 180 * time.Millisecond},
		"b": {"a": 60 * time.Millisecond, "c": 180 * time.Millisecond},
		"c": {"a": 60 * time.Millisecond, "b": 180 * time.Millisecond},
	} {
		for own, w := range want {
			if got := stagger(servers, leader, own); got != w {
				t.Errorf("%s led: %s waits %v, want %v", leader, own, got, w)
			}
		}
	}
}
