package state

import "time"

// An Event is one line of the cluster's history. Names are PowerHA's where it has one.
type Event struct {
	ID       uint64    `json:"id"` // rises by one; never reused
	Index    uint64    `json:"index"`
	At       time.Time `json:"at"`
	Name     string    `json:"name"`
	Node     string    `json:"node,omitempty"`
	Group    string    `json:"group,omitempty"`
	Sentence string    `json:"sentence"`
}

// The events that Apply itself makes. Notes bring others.
const (
	EventNodeUp                     = "node_up"
	EventNodeUpComplete             = "node_up_complete"
	EventNodeDown                   = "node_down"
	EventNodeDownComplete           = "node_down_complete"
	EventNodeBoot                   = "node_boot"
	EventNodeLost                   = "node_lost"
	EventNodeFound                  = "node_found"
	EventNodeDead                   = "node_dead" // the proof of death is named here
	EventNodeFence                  = "node_fence"
	EventNodeFenceFailed            = "node_fence_failed"
	EventNodeReset                  = "node_reset"
	EventNodeQuarantined            = "node_quarantined"
	EventNodeCleared                = "node_cleared"
	EventNodeArmed                  = "node_armed"
	EventNodeDisarmed               = "node_disarmed"
	EventNetworkUp                  = "network_up"
	EventNetworkDown                = "network_down"
	EventFailInterface              = "fail_interface"        // one of several interfaces of a node on a network
	EventJoinInterface              = "join_interface"        // it works again
	EventSwapAdapter                = "swap_adapter"          // an address goes to another interface of its node
	EventSwapAdapterComplete        = "swap_adapter_complete" // it is there
	EventGroupMove                  = "rg_move"               // a decision to release, with the reason
	EventGroupAcquire               = "rg_move_acquire"       // a decision to acquire, with the reason
	EventGroupRelease               = "rg_move_release"       // an instance was released
	EventGroupMoveComplete          = "rg_move_complete"      // an instance is online
	EventGroupAcquireFailed         = "rg_acquire_failed"
	EventGroupReleaseFailed         = "rg_release_failed"
	EventGroupError                 = "rg_error"
	EventGroupFreed                 = "rg_freed" // a death freed it
	EventServerDown                 = "server_down"
	EventExternalStateChange        = "external_resource_state_change" // the operator asked
	EventConfiguration              = "reconfig_configuration_complete"
	EventTimer                      = "fallback_timer"
	EventMember                     = "member"
	EventEpoch                      = "forced_configuration"
	EventConfigTooLong              = "config_too_long"
	EventForeignResource            = "foreign_resource" // found running where the log gives it to another node
	EventStaged                     = "reconfig_staged"
	EventVerification               = "verification"        // what a verification by the cluster itself found or lost
	EventActionPlan                 = "action_plan"         // a node that was taken for dead is back, and not all of it starts again
	EventRepositoryReplaced         = "repository_replaced" // a backup takes the place of the volume that is lost
	EventLock                       = "lock"                // an operator took one, or a node's sessions ended with it
	EventCertificate                = "certificate"         // a rotation begins, or a node uses its new one
	EventGossipKey                  = "gossip_key"          // a step of its rotation
	EventRemote                     = "cspoc"               // an operation on several nodes has ended
	maxEvents                       = 1024
	maxAppliedIDs                   = 512
	maxOldBoots                     = 64
	maxOldArmings                   = 32
	maxSentence                     = 512
	generationBits                  = 40
	maxEpoch                 uint64 = 1<<24 - 1
)

// Events lists the history, oldest first, from the given event id on. The history is bounded: what is older than its
// newest 1024 events or so is gone.
func (s *State) Events(from uint64) []Event {
	var out []Event
	s.events.each(func(e *Event) {
		if e.ID >= from {
			out = append(out, *e)
		}
	})
	return out
}

// LastEvent is the id of the newest event, 0 for none.
func (s *State) LastEvent() uint64 {
	if e := s.events.last(); e != nil {
		return e.ID
	}
	return 0
}

// ring is a bounded list that shares its blocks between versions: push copies at most one block and the list of blocks.
type ring[T any] struct {
	blocks []*[ringBlock]T // full ones, oldest first
	tail   []T             // shorter than ringBlock
}

const ringBlock = 32

// push returns the list with v added, and with its oldest block dropped when at least limit entries are left without it.
func (r ring[T]) push(v T, limit int) ring[T] {
	tail := make([]T, len(r.tail)+1, ringBlock)
	copy(tail, r.tail)
	tail[len(r.tail)] = v
	if len(tail) < ringBlock {
		return ring[T]{blocks: r.blocks, tail: tail}
	}
	from := 0
	if (len(r.blocks)+1)*ringBlock > limit {
		from = 1
	}
	blocks := make([]*[ringBlock]T, 0, len(r.blocks)+1-from)
	blocks = append(blocks, r.blocks[from:]...)
	return ring[T]{blocks: append(blocks, (*[ringBlock]T)(tail))}
}

func (r ring[T]) each(f func(*T)) {
	for _, b := range r.blocks {
		for i := range b {
			f(&b[i])
		}
	}
	for i := range r.tail {
		f(&r.tail[i])
	}
}

func (r ring[T]) last() *T {
	if n := len(r.tail); n > 0 {
		return &r.tail[n-1]
	}
	if n := len(r.blocks); n > 0 {
		return &r.blocks[n-1][ringBlock-1]
	}
	return nil
}

func (r ring[T]) list() []T {
	out := make([]T, 0, len(r.blocks)*ringBlock+len(r.tail))
	r.each(func(v *T) { out = append(out, *v) })
	return out
}

func ringOf[T any](list []T, limit int) ring[T] {
	var r ring[T]
	for _, v := range list {
		r = r.push(v, limit)
	}
	return r
}
