package api

import "time"

// An AuditRecord is one attempted write: who asked where for what, and what became of it.
type AuditRecord struct {
	Time   time.Time `json:"time"` // of the node's clock
	Node   string    `json:"node"` // at whose door it was asked
	User   string    `json:"user"` // with "via NODE" for a call that a member passed on
	UID    int       `json:"uid"`
	Role   Role      `json:"role"`
	Call   string    `json:"call"`   // method and path
	What   string    `json:"what"`   // in words, secrets left out
	Result string    `json:"result"` // done, refused, or the code of the error
	Detail string    `json:"detail,omitempty"`
	// Index is the log index at which it was applied; 0: nothing was applied, or the call is not one of the log.
	Index uint64 `json:"index,omitempty"`
}

// An AuditList is the newest records of all nodes, oldest first.
type AuditList struct {
	Records []AuditRecord     `json:"records"`
	Silent  map[string]string `json:"silent,omitempty"` // nodes that could not be asked
}

// MaxAudit is how many records one answer holds.
const MaxAudit = 2000
