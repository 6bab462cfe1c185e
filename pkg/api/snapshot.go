package api

import "time"

// A Snapshot is a definition that was kept, on every node that answered.
type Snapshot struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Cluster     string    `json:"cluster,omitempty"`
	Version     uint64    `json:"version,omitempty"` // of the definition
	Taken       time.Time `json:"taken,omitzero"`
	By          string    `json:"by,omitempty"`
	// Auto says that the cluster took it by itself, before the definition was changed; only the newest of them are kept.
	Auto  bool     `json:"auto,omitempty"`
	Nodes []string `json:"nodes"` // that have it
	// Damaged says why it cannot be used, on the nodes named in it.
	Damaged string `json:"damaged,omitempty"`
}

// A SnapshotList has all that any node has.
type SnapshotList struct {
	Snapshots []Snapshot `json:"snapshots"`
	// Silent are nodes that could not be asked, with the reason.
	Silent map[string]string `json:"silent,omitempty"`
}

// A SnapshotText is a snapshot with its file: a heading of comments and a cluster file.
type SnapshotText struct {
	Snapshot
	YAML string `json:"yaml"`
}

// A NewSnapshot keeps the active definition, or a text, under a name that is not taken.
type NewSnapshot struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	YAML        string `json:"yaml,omitempty"`
}

// A SnapshotReply says on which nodes something was done with a snapshot.
type SnapshotReply struct {
	Nodes  []string          `json:"nodes"`
	Failed map[string]string `json:"failed,omitempty"` // by node
}
