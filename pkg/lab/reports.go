package lab

import "time"

// A ProbeReport is what a probing client saw.
type ProbeReport struct {
	Target   string        `json:"target"`
	Protocol string        `json:"protocol"` // tcp or udp
	Begin    time.Time     `json:"begin"`
	End      time.Time     `json:"end"`
	Interval time.Duration `json:"interval"` // between attempts: the resolution of all times here
	// WorstGap is the longest time in which the client itself began no attempt. Outages are known no better than that.
	WorstGap time.Duration `json:"worst_gap"`
	// Threshold is how long a time without answers must be to count as an outage, apart from the client's longest own pause in it.
	Threshold time.Duration `json:"threshold"`
	Attempts  int           `json:"attempts"`
	Answers   int           `json:"answers"`
	Failed    int           `json:"failed"`  // attempts that were refused, reset or not answered in time
	Pending   int           `json:"pending"` // attempts not decided when the probe ended
	Outages   []Outage      `json:"outages"`
	// First and Last are who answered first and last; empty when nobody did.
	First Answerer `json:"first"`
	Last  Answerer `json:"last"`
}

// An Answerer is who answered, as far as the answer tells (that of `cllab app` does).
type Answerer struct {
	Node  string `json:"node,omitempty"`
	PID   int    `json:"pid,omitempty"`
	Count int64  `json:"count,omitempty"` // of the application's counter
}

// An Outage is a time without answers.
type Outage struct {
	Begin  time.Time     `json:"begin"` // the last answer before
	End    time.Time     `json:"end"`   // the first answer after; the probe's end when there was none
	Length time.Duration `json:"length"`
	Open   bool          `json:"open,omitempty"` // it lasted when the probe ended
	Before Answerer      `json:"before"`
	After  Answerer      `json:"after"`
	Asked  int           `json:"asked"` // attempts that began within it
	// ClientGap is the longest time within the outage in which the client began no attempt.
	ClientGap time.Duration `json:"client_gap"`
}

// Longest is the length of the longest outage, 0 when there was none.
func (r *ProbeReport) Longest() time.Duration {
	var d time.Duration
	for _, o := range r.Outages {
		d = max(d, o.Length)
	}
	return d
}

// A ProbeEvent is one line of `cllab probe -o jsonl`.
type ProbeEvent struct {
	Event  string       `json:"event"` // "answer" (the first, and each from another process), "silent", "outage" (one has ended), "report"
	Time   time.Time    `json:"time"`
	From   *Answerer    `json:"from,omitempty"`
	Outage *Outage      `json:"outage,omitempty"`
	Report *ProbeReport `json:"report,omitempty"`
}

// A Holding is something that at most one node may have: an address, a mount point, a disk, a lock.
type Holding struct {
	Kind string `json:"kind"` // "address", "mount", "disk", "lock"
	What string `json:"what"`
}

// An Overlap is a time in which several nodes had one thing. It is proven: one of the nodes was seen to have it both before
// and after the other was.
type Overlap struct {
	Holding
	Nodes []string      `json:"nodes"`
	Begin time.Time     `json:"begin"` // first seen
	Last  time.Time     `json:"last"`  // last seen
	Seen  int           `json:"seen"`  // samples that showed it
	Took  time.Duration `json:"took"`
}

// A WatchEvent is one line of `cllab watch -o jsonl`.
type WatchEvent struct {
	Event   string       `json:"event"` // "begin", "gained", "lost", "overlap", "overlap_end", "node", "report"
	Time    time.Time    `json:"time"`
	Node    string       `json:"node,omitempty"`
	Holding *Holding     `json:"holding,omitempty"`
	Detail  string       `json:"detail,omitempty"`
	Overlap *Overlap     `json:"overlap,omitempty"`
	Report  *WatchReport `json:"report,omitempty"`
}

// A WatchReport is what a watcher saw in all.
type WatchReport struct {
	Begin    time.Time            `json:"begin"`
	End      time.Time            `json:"end"`
	Samples  int                  `json:"samples"`
	WorstGap time.Duration        `json:"worst_gap"` // longest time between two samples: shorter overlaps may have been missed
	Overlaps []Overlap            `json:"overlaps"`
	Held     map[string][]Holding `json:"held"` // at the end, by node
}
