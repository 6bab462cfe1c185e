package cluster

import "time"

// A Definition is the whole cluster as the administrator wrote it: what exists and by which policies it is governed. It is
// replicated as one value; a change replaces it as one log entry. Slices keep the order of the file, which is the order of
// every listing. The zero value is an empty cluster, which Validate refuses.
type Definition struct {
	Name                   string                  `json:"name"`
	Nodes                  []Node                  `json:"nodes"`
	Networks               []Network               `json:"networks,omitempty"`
	ServiceIPs             []ServiceIP             `json:"service_ips,omitempty"`
	PersistentIPs          []PersistentIP          `json:"persistent_ips,omitempty"`
	VolumeGroups           []VolumeGroup           `json:"volume_groups,omitempty"`
	FileSystems            []FileSystem            `json:"file_systems,omitempty"`
	NFSExports             []NFSExport             `json:"nfs_exports,omitempty"`
	ApplicationControllers []ApplicationController `json:"application_controllers,omitempty"`
	ApplicationMonitors    []ApplicationMonitor    `json:"application_monitors,omitempty"`
	FenceDevices           []FenceDevice           `json:"fence_devices,omitempty"`
	Repositories           []Repository            `json:"repositories,omitempty"`
	ResourceGroups         []ResourceGroup         `json:"resource_groups,omitempty"`
	Dependencies           []Dependency            `json:"dependencies,omitempty"`
	FallbackTimers         []FallbackTimer         `json:"fallback_timers,omitempty"`
	Methods                []Method                `json:"methods,omitempty"`
	Events                 []EventCommands         `json:"events,omitempty"`
	Waivers                []Waiver                `json:"waivers,omitempty"`
	FileCollections        []FileCollection        `json:"file_collections,omitempty"`
	Settings               Settings                `json:"settings"`
}

// A Node is a member machine.
type Node struct {
	Name string `json:"name"`
	Site string `json:"site,omitempty"`
	// Addresses maps a network's name to the node's own (boot) address on it, with or without a prefix length. A node
	// without an entry for a network has no interface there. Agents reach each other on these addresses.
	Addresses map[string]string `json:"addresses,omitempty"`
	// Interfaces lists, for a network, the node's interfaces on it by name, the preferred one first. Service and persistent IPs
	// of the network may be on any of them, and move from one that fails to one that is well. Without an entry for a network
	// they are found: the one that carries the node's address, and those with an address of their own in the same subnet.
	Interfaces map[string][]string `json:"interfaces,omitempty"`
	// Capacity limits the sum of the weights of the groups that the node takes; 0 is no limit.
	Capacity int `json:"capacity,omitempty"`
	// StartOnBoot says whether cluster services that were running when the node went away start again by themselves when
	// its daemon comes back. Nil means yes. PowerHA's default is no.
	StartOnBoot *bool `json:"start_on_boot,omitempty"`
	// PlatformRestart says that the platform may start a second copy of this node elsewhere (HA restart of a virtual
	// machine); a boot proof then counts only after expiry (attack A6).
	PlatformRestart bool `json:"platform_restart,omitempty"`
}

// A Network is a cluster network: heartbeats run over it, and service IPs may live on it.
type Network struct {
	Name string `json:"name"`
	// Prefix is the prefix length of service IPs on this network that do not give their own; 0 means that of the node's
	// own interface there.
	Prefix int `json:"prefix,omitempty"`
	// Distribution is the preference by which a service IP chooses its interface among several: AC (the default), C, CPL
	// or ACPL; see PlaceAddress.
	Distribution string `json:"distribution,omitempty"`
	// Private networks carry heartbeats only.
	Private bool `json:"private,omitempty"`
	// ProbeTargets are addresses in the network's subnet, of routers for example, that are asked when it is in doubt whether
	// an interface works (the habit of netmon.cf). The other members' addresses are asked in any case.
	ProbeTargets []string `json:"probe_targets,omitempty"`
}

// A ServiceIP is an address that clients use and that moves with its group.
type ServiceIP struct {
	Name    string `json:"name"`
	Address string `json:"address"` // an IPv4 or IPv6 address, with no prefix length
	Network string `json:"network"`
	Prefix  int    `json:"prefix,omitempty"` // 0: the network's
	// Interface forces the interface by name; empty: chosen by the network's distribution preference.
	Interface string `json:"interface,omitempty"`
}

// A PersistentIP is an alias that stays on one node while the node's daemon runs, whatever groups are there.
type PersistentIP struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Node    string `json:"node"`
	Network string `json:"network"`
	Prefix  int    `json:"prefix,omitempty"`
}

// A VolumeGroup is varied on (activated) where its group runs, and nowhere else.
type VolumeGroup struct {
	Name string `json:"name"` // the volume group's own name, the same on every node
	// PhysicalVolumes are the identifiers of its disks, which are the same on every node: PVIDs on AIX. They are needed to
	// import it on a node that does not know it; a system that finds its volume groups by itself (LVM) needs none.
	PhysicalVolumes []string `json:"physical_volumes,omitempty"`
	// Mode is "exclusive" (the default: plain varyonvg; the lease and the fence keep the other nodes away) or "enhanced"
	// (AIX: enhanced concurrent, active here and passive elsewhere, which needs RSCT group services).
	Mode string `json:"mode,omitempty"`
	// MajorNumber is what the import gives it, so that file handles of NFS clients outlive a move; 0: any that is free.
	MajorNumber int `json:"major_number,omitempty"`
}

// An NFSExport is a directory of the group that clients mount, exported where the group runs.
type NFSExport struct {
	Name      string   `json:"name"`
	Directory string   `json:"directory"`         // absolute
	Clients   []string `json:"clients,omitempty"` // hosts or networks that may mount it; none: everybody
	Options   string   `json:"options,omitempty"` // as exportfs -o takes them, without the clients
}

// A FileSystem is mounted where its group runs, and nowhere else.
type FileSystem struct {
	Name       string `json:"name"`
	Device     string `json:"device"`      // block device, image file (with the option "loop"), directory (with type "bind"), or UUID=, LABEL=
	MountPoint string `json:"mount_point"` // absolute
	Type       string `json:"type,omitempty"`
	Options    string `json:"options,omitempty"` // as mount -o takes them
	// Check says whether the file system is checked (fsck in preen mode) before it is mounted: "fsck" (the default) or
	// "none".
	Check string `json:"check,omitempty"`
	// StopTimeout bounds the orderly part of the unmount, before the processes that hold the mount are killed; default 10 s.
	StopTimeout time.Duration `json:"stop_timeout,omitempty"`
}

// An ApplicationController says how an application is started and stopped: by two scripts, or by an agent.
type ApplicationController struct {
	Name string `json:"name"`
	// Agent starts, stops and watches the application instead of scripts: see ParseAgent. Its timeouts, where none are set
	// here, are its own.
	Agent string `json:"agent,omitempty"`
	// Params are the agent's parameters. Values of those that Secret names are never printed.
	Params      map[string]string `json:"params,omitempty"`
	StartScript string            `json:"start_script,omitempty"` // absolute path; arguments, if any, follow in StartArgs
	StopScript  string            `json:"stop_script,omitempty"`
	StartArgs   []string          `json:"start_args,omitempty"`
	StopArgs    []string          `json:"stop_args,omitempty"`
	// StartupMode is "foreground" (the default: the group is online when the script has ended with 0) or "background".
	StartupMode  string        `json:"startup_mode,omitempty"`
	StartTimeout time.Duration `json:"start_timeout,omitempty"` // default 60 s; of an agent: what it asks for itself
	StopTimeout  time.Duration `json:"stop_timeout,omitempty"`  // likewise
	Monitors     []string      `json:"monitors,omitempty"`
}

// An ApplicationMonitor watches an application.
type ApplicationMonitor struct {
	Name string `json:"name"`
	Type string `json:"type"` // "process", "custom", or "agent": the application's agent is asked
	Mode string `json:"mode"` // "longrunning" (default), "startup" or "both"

	Processes     []string `json:"processes,omitempty"`      // process monitor: command names, as `ps -e -o comm` or argv[0] shows them
	PIDFile       string   `json:"pid_file,omitempty"`       // process monitor: the file that holds the main process's id
	Owner         string   `json:"owner,omitempty"`          // process monitor: user name
	InstanceCount int      `json:"instance_count,omitempty"` // default 1

	MonitorMethod   string        `json:"monitor_method,omitempty"`   // custom monitor: absolute path, exit 0 = healthy
	MonitorInterval time.Duration `json:"monitor_interval,omitempty"` // custom monitor: how often, and how long it may take; default 60 s
	HungSignal      int           `json:"hung_signal,omitempty"`      // default 9
	// Depth is how thoroughly an agent looks (OCF_CHECK_LEVEL): 0 (the default), 10, 20, ... as its documentation says.
	Depth int `json:"depth,omitempty"`

	// Stabilization is what the application gets until it is first seen well: default 10 s (process), 60 s (custom).
	Stabilization time.Duration `json:"stabilization,omitempty"`
	RestartCount  *int          `json:"restart_count,omitempty"` // default 3
	// RestartInterval without a failure gives the restarts back; default a tenth more than all of them may take.
	RestartInterval time.Duration `json:"restart_interval,omitempty"`
	FailureAction   string        `json:"failure_action,omitempty"` // "notify" (default) or "fallover"
	NotifyMethod    string        `json:"notify_method,omitempty"`
	CleanupMethod   string        `json:"cleanup_method,omitempty"` // default: the stop script
	RestartMethod   string        `json:"restart_method,omitempty"` // default: the start script
}

// A FenceDevice switches nodes off, and says whether they are off.
type FenceDevice struct {
	Name  string   `json:"name"`
	Agent string   `json:"agent"` // absolute path of an agent with the public fence-agents stdin interface
	Nodes []string `json:"nodes"` // the nodes it can switch
	// Params are written to the agent's standard input as name=value lines.
	Params map[string]string `json:"params,omitempty"`
	// Plugs maps a node's name to the agent's "plug" (port) parameter; default: the node's name.
	Plugs   map[string]string `json:"plugs,omitempty"`
	Timeout time.Duration     `json:"timeout,omitempty"` // for one call of the agent; default 20 s
	// Levels are the fence levels in which the device takes part. The levels of a node are tried in their order, and in one level
	// all its devices must say that the node is off: [1] on one device and [2] on two power supplies means the one, else both of
	// the others. A device without levels comes after those with some, by itself.
	Levels []int `json:"levels,omitempty"`
}

// A Method is a program of the administrator's own that the cluster calls. Type "verify": a verification runs it on each node;
// 0 means well, anything else is a finding, and its output says which.
type Method struct {
	Name        string        `json:"name"`
	Type        string        `json:"type"` // "verify"
	File        string        `json:"file"` // absolute path
	Description string        `json:"description,omitempty"`
	Nodes       []string      `json:"nodes,omitempty"`   // empty: all
	Timeout     time.Duration `json:"timeout,omitempty"` // default 30 s
}

// A Waiver says that a finding of the verification is known and accepted until a day. What is waived is still shown, with the
// reason; after the day it counts again.
type Waiver struct {
	Name   string `json:"name"`
	Check  string `json:"check"`            // its number, as V0408
	Node   string `json:"node,omitempty"`   // empty: on any node
	Object string `json:"object,omitempty"` // as the finding shows it; empty: any
	Reason string `json:"reason"`
	// Expires is the last day, as 2027-01-31 (UTC); empty: it does not end.
	Expires string `json:"expires,omitempty"`
}

// A FileCollection is a list of files that are to be the same on its nodes. Whose copy wins is said by the operator, and never
// guessed from a time stamp: by Source, or with the command that brings the nodes into step.
type FileCollection struct {
	Name        string   `json:"name"`
	Files       []string `json:"files"` // absolute paths
	Description string   `json:"description,omitempty"`
	Nodes       []string `json:"nodes,omitempty"` // empty: all
	// Source is the node whose copy wins. What is done without an operator (the next two) needs it.
	Source string `json:"source,omitempty"`
	// SyncWithCluster: with each clmgr sync cluster. SyncWhenChanged: the cluster looks every CollectionInterval for a
	// difference and removes it.
	SyncWithCluster bool `json:"sync_with_cluster,omitempty"`
	SyncWhenChanged bool `json:"sync_when_changed,omitempty"`
}

// Settings are the cluster-wide attributes.
type Settings struct {
	SettlingTime time.Duration `json:"settling_time,omitempty"` // for OFAN groups; default 0
	// Profile names the timing profile: "default", "fast" or "careful".
	Profile string `json:"profile,omitempty"`
	// Timings override single values of the profile; nil: the profile's. Decoded by package config and checked by
	// package lease: the key is the parameter's name (watchdog_timeout, l_hard, l_soft, ...).
	Timings map[string]time.Duration `json:"timings,omitempty"`
	// DeadmanMode is "a" (reset the node; the default) or "e" (raise an event for a human).
	DeadmanMode string `json:"deadman_mode,omitempty"`
	// FailureWindow is how long an application's failure marks a node for a group; default 1 h.
	FailureWindow time.Duration `json:"failure_window,omitempty"`
	// MaxEventTime is the base after which config_too_long is raised; default 180 s. MaxGroupTime is added for steps
	// that handle groups; default 180 s.
	MaxEventTime time.Duration `json:"max_event_time,omitempty"`
	MaxGroupTime time.Duration `json:"max_group_time,omitempty"`
	// LastStanding lets the last of three nodes run on alone, acknowledging what it alone has stored.
	LastStanding bool `json:"last_standing,omitempty"`
	// WaiveTimeProof lets class "process" deadmans give proof by time; printed with the guarantees.
	WaiveTimeProof bool `json:"waive_time_proof,omitempty"`
	// The cluster verifies itself each day at VerificationHour (UTC), unless NoDailyVerification says that it does not.
	// In between it looks every VerificationInterval (default 10 min) for what has changed.
	VerificationHour     int           `json:"verification_hour,omitempty"`
	NoDailyVerification  bool          `json:"no_daily_verification,omitempty"`
	VerificationInterval time.Duration `json:"verification_interval,omitempty"`
	// Changes says when a change of the definition by clmgr counts: "live" (the default: at once, as one log entry) or "staged"
	// (with clmgr sync cluster, as in PowerHA).
	Changes string `json:"changes,omitempty"`
	// ActionPlan says what becomes of a node that was taken for dead, when it is back: "reboot" (the default: its cluster services start
	// again, if they ran), "disable_rgs_autostart" (they start, and it acquires nothing by itself), or
	// "disable_cluster_services_autostart".
	ActionPlan string `json:"action_plan,omitempty"`
	// NoRepositoryReplacement keeps the cluster from putting a backup in the place of a repository volume that is lost: an operator
	// does it then (clmgr replace repository). RepositoryLossTime is how long no node may be able to use the volume before it is
	// taken for lost; default 60 s. See repository.go.
	NoRepositoryReplacement bool          `json:"no_repository_replacement,omitempty"`
	RepositoryLossTime      time.Duration `json:"repository_loss_time,omitempty"`
	// FreeCommands lets those who have the right to it (access.command of a node's own file) run commands of their choice on all
	// nodes. Off by default.
	FreeCommands bool `json:"free_commands,omitempty"`
	// CollectionInterval is how often file collections that are to be kept in step by themselves are compared; default 10 min.
	CollectionInterval time.Duration `json:"collection_interval,omitempty"`
}

// A Repository is a repository volume: one file on a file system that all nodes share, or one raw device that all see. The first of
// the list that is formatted and not lost is the one in use; the others that are formatted and not lost are its backups, in their order.
// The volume in use carries the third vote of a cluster in which two nodes vote.
type Repository struct {
	Name   string `json:"name"`
	Device string `json:"device"` // absolute path, the same on all nodes
	// UUID is that of the volume's format, as `clmgr format repository` writes it here; empty: not formatted yet.
	UUID string `json:"uuid,omitempty"`
	// Lost says that the cluster has put a backup in this volume's place because no node could use it. It is not used again before
	// an operator says so: clmgr format repository, or clmgr replace repository with its name.
	Lost bool `json:"lost,omitempty"`
}

// RepositoryVoter is what the repository voter is called where it stands beside nodes. No node may be called so, nor as a repository
// voter's server id, under which it speaks to the nodes: repository- and the volume's id.
const RepositoryVoter = "repository-voter"

// Undecided reports whether this is a cluster of two nodes without a repository volume.
func (d *Definition) Undecided() bool { return len(d.Nodes) == 2 && len(d.Repositories) == 0 }
