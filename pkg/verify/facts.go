package verify

import "time"

// Facts are what one node has seen of itself for one verification.
type Facts struct {
	Node    string        `json:"node"`
	Time    time.Time     `json:"time"` // its wall clock when it began to look
	Took    time.Duration `json:"took"`
	Version string        `json:"version"`
	Format  int           `json:"format"` // the newest format of the replicated state that its daemon understands
	// Definition is the version of the definition that is in force there.
	Definition uint64 `json:"definition"`

	System     System               `json:"system"`
	Interfaces []Interface          `json:"interfaces,omitempty"`
	Reach      []Reach              `json:"reach,omitempty"`
	Names      map[string]Name      `json:"names,omitempty"` // what labels and node names resolve to there
	Files      map[string]File      `json:"files,omitempty"` // by path
	Devices    map[string]Device    `json:"devices,omitempty"`
	Mounts     []Mount              `json:"mounts,omitempty"`
	Boot       []Mount              `json:"boot,omitempty"` // what the system would mount by itself at boot: fstab or /etc/filesystems
	Space      map[string]Space     `json:"space,omitempty"`
	Users      map[string]string    `json:"users,omitempty"` // user names to numbers; empty: unknown there
	Programs   map[string]string    `json:"programs,omitempty"`
	Settings   map[string]string    `json:"settings,omitempty"` // kernel settings, as net.ipv4.conf.all.rp_filter
	Units      map[string]Unit      `json:"units,omitempty"`
	Certs      []Cert               `json:"certs,omitempty"`
	CA         string               `json:"ca,omitempty"` // fingerprint
	Deadman    Deadman              `json:"deadman"`
	Daemon     Daemon               `json:"daemon"`
	Power      map[string]Power     `json:"power,omitempty"`   // by "device/node": what fence devices answered
	Methods    map[string]MethodRun `json:"methods,omitempty"` // by the method's name

	// Missed says what could not be looked at, by subject; the checks that need it say so instead of passing.
	Missed map[string]string `json:"missed,omitempty"`

	// Skew is how far the node's wall clock is from the asking node's, known within Uncertain. The asking node fills both in.
	Skew      time.Duration `json:"skew"`
	Uncertain time.Duration `json:"uncertain"`
}

// A System is the machine and its operating system.
type System struct {
	OS, Arch, Kernel string
	Hostname         string
	TimeZone         string
	CPUs             int
	MemoryMiB        int64
	// Virtual names the hypervisor; empty: bare metal, or not known.
	Virtual string
	// ClockSynchronised: nil where the system does not say.
	ClockSynchronised *bool
	UID               int
	// Contained says that the machine is a namespace of another (a laboratory): some of what it shows is not its own.
	Contained bool
}

// An Interface is one of the node's network interfaces.
type Interface struct {
	Name      string
	Up        bool
	Carrier   string // operational state, as up, down, unknown
	MTU       int
	Loopback  bool
	MAC       string
	Addresses []string // with prefix lengths
}

// A Reach is one attempt to reach another member on a network.
type Reach struct {
	Node, Network, Address string
	Error                  string // empty: it answered
	Took                   time.Duration
}

// A Name is what a name resolves to.
type Name struct {
	Addresses []string
	Error     string
}

// A File is one path that the definition names.
type File struct {
	Exists  bool
	Kind    string // file, directory, device, symlink to nothing, other
	Mode    uint32 // permission bits
	UID     int
	Size    int64
	Digest  string // SHA-256 of a regular file, hexadecimal; empty where it is no regular file or too large
	Unsafe  string // why it may not be run with the daemon's rights; empty: it may
	Script  string // the interpreter of a #! line
	Runner  bool   // that interpreter is there and executable
	NoHead  bool   // no #! line and no binary
	CRLF    bool   // the #! line ends in a carriage return
	Empty   bool   // a directory without entries
	Mounted bool   // something is mounted on it
	Error   string // it could not be looked at
}

// A Device is what a file system's device is on this node.
type Device struct {
	Exists bool
	Kind   string // block, file, directory, other
	UUID   string // of the file system on it, where it can be read
	Type   string // ext, xfs, btrfs, swap, lvm; empty: not known
	Size   int64
	Error  string
}

// A Mount is one mounted file system, or one entry of the system's own table.
type Mount struct {
	Source, Point, Type string
	Auto                bool // an entry that the system mounts at boot
	Line                int
}

// Space is what is left on the file system that holds a path.
type Space struct {
	FreeMiB, TotalMiB   int64
	FreeInodes, Inodes  int64
	ReadOnly            bool
	NetworkFileSystem   string
	SameDeviceAsRoot    bool
	Error               string
	Purpose             string // as "the daemon's state"
	NeedMiB             int64
	TemporaryFileSystem bool
}

// A Unit is a service of the system's manager.
type Unit struct {
	Exists, Enabled bool
}

// A Cert is a certificate of this node's identity.
type Cert struct {
	What                string // "the node's certificate", "the cluster's CA"
	NotBefore, NotAfter time.Time
}

// A Deadman is what stands behind the node's lease.
type Deadman struct {
	Connected   bool
	Class       string
	Backend     string
	Device      string
	Mode        string
	Armed       bool
	Watchdog    time.Duration // in force at the device
	Counted     time.Duration // what the proof counts with: doubled where nobody else holds the device
	Held        bool
	NoWayOut    bool
	TakenOver   bool
	Warnings    []string
	WorstMargin time.Duration // the smallest margin of a pet before its kill timer; 0: none yet
}

// A Daemon is how the node's daemon is set up.
type Daemon struct {
	Port, GossipPort int
	Metrics          string
	Files            map[string]File // its own directories and keys, by purpose
	Running          []string        // groups that it holds, as far as it knows
}

// A Power is what a fence device said.
type Power struct {
	State string // on, off
	Error string
}

// A MethodRun is how a custom method ended on this node.
type MethodRun struct {
	Exit   int
	Output string // bounded
	Error  string // it could not be run, or did not end
	Took   time.Duration
}
