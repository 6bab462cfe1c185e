package repository

// A Beat is what a node says of itself in its heartbeat on the volume.
type Beat struct {
	Incarnation uint64 `json:"incarnation,omitempty"` // as the replicated log numbers its boots; 0: not known yet
}
