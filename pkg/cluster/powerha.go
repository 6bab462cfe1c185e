package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// A Foreign is an attribute of PowerHA that means nothing here, or means something else. It is either taken, with a notice and
// without effect, because a script that says it asks for nothing that would be missed; or it is refused, with what to do instead.
// Nothing is ever taken in silence, and nothing is taken whose absence could surprise: a policy, a limit, a disk.
type Foreign struct {
	Scopes []string // classes, or actions (online, offline, ...); none: wherever it is typed
	Name   string
	// Taken says that it is taken without effect; with Values only one of these, in any case.
	Taken  bool
	Values []string
	Why    string // a clause that stands after a colon
	// Not has reasons of their own for values that are refused: pairs of value and clause.
	Not [][2]string
}

const (
	byProfile  = "timings come as one checked set, by PROFILE"
	noSites    = "sites are not managed yet"
	noCSPOC    = "the product makes no volume groups and file systems yet: make it with the system's own commands, and name it here"
	byMetrics  = "processor use is read from /metrics"
	byProof    = "a majority decides, with two nodes the repository volume breaks the tie, and only a proof frees what the other side held"
	noNotice   = "nobody is asked at a split: a majority decides, and the operator's word is clmgr confirm node_down"
	noNFS      = "a file on NFS is no tie-breaker by itself: on a hard mount it can be a repository volume (clmgr add repository)"
	noCloud    = "there is no tie-breaker in a cloud: use a third node, or a repository volume"
	noReserve  = "disks are not reserved yet: a node is cut off by its deadman, or switched off by a fence_device"
	byExport   = "add an nfs_export, and name it in NFS_EXPORT"
	alwaysThat = "it is always so here"
)

// foreign is the table. Attributes of classes that do not exist here have no line: their class is refused.
var foreign = []Foreign{
	{Scopes: []string{"cluster"}, Name: "HEARTBEAT_TYPE", Taken: true, Values: []string{"unicast"}, Why: "heartbeats are unicast"},
	{Scopes: []string{"cluster"}, Name: "CLUSTER_IP", Taken: true, Why: "heartbeats are unicast, there is no group address"},
	{Scopes: []string{"cluster"}, Name: "HEARTBEAT_FREQUENCY", Why: byProfile},
	{Scopes: []string{"cluster"}, Name: "GRACE_PERIOD", Why: byProfile},
	{Scopes: []string{"cluster"}, Name: "NETWORK_FAILURE_DETECTION_TIME", Why: byProfile},
	{Scopes: []string{"cluster"}, Name: "HEARTBEAT_FREQUENCY_DURING_LPM", Why: byProfile},
	{Scopes: []string{"cluster"}, Name: "SITE_HEARTBEAT_CYCLE", Why: noSites},
	{Scopes: []string{"cluster"}, Name: "SITE_GRACE_PERIOD", Why: noSites},
	{Scopes: []string{"cluster"}, Name: "SITE_POLICY_FAILURE_ACTION", Why: noSites},
	{Scopes: []string{"cluster"}, Name: "SITE_POLICY_NOTIFY_METHOD", Why: noSites},
	{Scopes: []string{"cluster"}, Name: "DEFAULT_SURVIVING_SITE", Why: noSites},
	{Scopes: []string{"cluster"}, Name: "APPLY_TO_PPRC_TAKEOVER", Why: noSites},
	{Scopes: []string{"cluster"}, Name: "SPLIT_POLICY", Taken: true, Values: []string{"majority", "tiebreaker"}, Why: byProof, Not: [][2]string{
		{"none", "with it both halves go on, and each takes over what the other runs: two nodes would write to one file system"},
		{"manual", "the half without a majority has no lease, and no word can give it one, because nobody there knows that the other half stands still; the half with one " +
			"needs no word, only the proof, and where there is none it waits for clmgr confirm node_down"},
		{"nfs", noNFS},
		{"cloud", noCloud}}},
	{Scopes: []string{"cluster"}, Name: "MERGE_POLICY", Taken: true, Values: []string{"majority", "tiebreaker"}, Why: "the half that lost holds nothing when it is heard " +
		"again: it takes the newest state and goes on, and nobody is reset for a merge", Not: [][2]string{
		{"none", "halves that are not brought together would stay two clusters: the one that lost always takes the state of the other"},
		{"manual", "there is nothing to choose between: one half has decided, the other has let go of everything before"},
		{"nfs", noNFS},
		{"cloud", noCloud}}},
	{Scopes: []string{"cluster"}, Name: "TIEBREAKER", Why: "the repository volume is the tie-breaker of two nodes"},
	{Scopes: []string{"cluster"}, Name: "NFS_QUORUM_SERVER", Why: "the repository volume is the tie-breaker of two nodes"},
	{Scopes: []string{"cluster"}, Name: "LOCAL_QUORUM_DIRECTORY", Why: "the repository volume is the tie-breaker of two nodes"},
	{Scopes: []string{"cluster"}, Name: "REMOTE_QUORUM_DIRECTORY", Why: "the repository volume is the tie-breaker of two nodes"},
	{Scopes: []string{"cluster"}, Name: "NOTIFY_METHOD", Why: noNotice},
	{Scopes: []string{"cluster"}, Name: "NOTIFY_INTERVAL", Why: noNotice},
	{Scopes: []string{"cluster"}, Name: "MAXIMUM_NOTIFICATIONS", Why: noNotice},
	{Scopes: []string{"cluster"}, Name: "QUARANTINE_POLICY", Taken: true, Values: []string{"node_halt"}, Why: "a node that the others do not hear is reset by its own deadman before " +
		"anything of it starts elsewhere, for every group", Not: [][2]string{
		{"disable", "that a node without a lease stops cannot be switched off; DEADMAN_MODE=event asks a human instead of resetting, and then silence proves nothing"},
		{"fencing", noReserve},
		{"halt_with_fencing", noReserve}}},
	{Scopes: []string{"cluster"}, Name: "CRITICAL_RG", Why: "every group is protected by the node's lease; PRIORITY orders them"},
	{Scopes: []string{"cluster"}, Name: "TEMP_HOSTNAME", Taken: true, Why: "a node is known by its name in the definition, whatever hostname says"},
	{Scopes: []string{"cluster"}, Name: "LPM_POLICY", Why: "live migration is not handled yet: suspend the groups, or move them away"},
	{Scopes: []string{"cluster"}, Name: "CAA_AUTO_START_DR", Taken: true, Why: "there is no CAA to start"},
	{Scopes: []string{"cluster"}, Name: "CAA_CONFIG_TIMEOUT", Taken: true, Why: "there is no CAA to configure"},
	{Scopes: []string{"cluster"}, Name: "CAA_REPOS_MODE", Taken: true, Values: []string{"event"}, Why: "loss of the repository never stops a node"},
	{Scopes: []string{"cluster"}, Name: "CAA_PVM_WATCHDOG_TIMER", Why: "the deadman's backend is set in each node's own file"},
	{Scopes: []string{"cluster"}, Name: "CRIT_DAEMON_RESTART_GRACE_PERIOD", Why: "the deadman bounds how long a daemon may be away, by PROFILE"},
	{Scopes: []string{"cluster"}, Name: "SKIP_EVENT_PROCESSING_MANAGE_NODE", Taken: true, Values: []string{"true", "yes"}, Why: "a node that is managed again adopts what runs"},
	{Scopes: []string{"cluster"}, Name: "RG_DIST_POLICY", Taken: true, Values: []string{"node"}, Why: "OUDP spreads groups over nodes"},
	{Scopes: []string{"cluster"}, Name: "VERIFICATION_NODE", Taken: true, Why: "the leader verifies, whichever node that is"},
	{Scopes: []string{"cluster"}, Name: "VERIFICATION_DEBUGGING", Taken: true, Why: "each report is in clverify.log"},
	{Scopes: []string{"cluster"}, Name: "REPOSITORIES", Why: "clmgr add repository NAME DEVICE=..., then clmgr format repository NAME"},
	{Scopes: []string{"cluster"}, Name: "SITES", Why: noSites},
	{Scopes: []string{"cluster", "volume_group"}, Name: "LVM_PREFERRED_READ", Why: noCSPOC},

	{Scopes: []string{"node"}, Name: "RUN_DISCOVERY", Taken: true, Why: "nothing has to be discovered"},
	{Scopes: []string{"node"}, Name: "PERSISTENT_IP", Why: "add a persistent_ip with NODE="},
	{Scopes: []string{"node"}, Name: "NETWORK", Why: "write the network in ADDRESSES=network:address/prefix"},
	{Scopes: []string{"node"}, Name: "NETMASK", Why: "write the prefix length in ADDRESSES=network:address/prefix"},
	{Scopes: []string{"node"}, Name: "PREFIX", Why: "write the prefix length in ADDRESSES=network:address/prefix"},
	{Scopes: []string{"node"}, Name: "BROADCAST_ON_START", Taken: true, Why: "nothing is broadcast to terminals"},
	{Scopes: []string{"node"}, Name: "CLINFO_ON_START", Taken: true, Why: "the status API is part of the daemon"},
	{Scopes: []string{"node"}, Name: "VERIFY_ON_START", Taken: true, Why: "the cluster looks for changes every VERIFICATION_INTERVAL, and daily"},

	{Scopes: []string{"network"}, Name: "IPALIASING", Taken: true, Values: []string{"true", "yes", "enabled"}, Why: "service IPs are aliases"},
	{Scopes: []string{"network"}, Name: "SOURCE_IP", Why: "the source address of outgoing connections is left to the system"},
	{Scopes: []string{"service_ip"}, Name: "HWADDR", Why: "the address moves with gratuitous ARP, hardware addresses stay"},
	{Scopes: []string{"service_ip", "persistent_ip", "repository"}, Name: "SITE", Why: noSites},

	{Scopes: []string{"resource_group"}, Name: "SITE_POLICY", Taken: true, Values: []string{"ignore"}, Why: noSites},
	{Scopes: []string{"resource_group"}, Name: "SECONDARYNODES", Why: noSites},
	{Scopes: []string{"resource_group"}, Name: "DISK", Why: "a raw disk cannot be a resource yet: use a resource type of your own (AGENT=user:TYPE)"},
	{Scopes: []string{"resource_group"}, Name: "RAW_DISK", Why: "a raw disk cannot be a resource yet: use a resource type of your own (AGENT=user:TYPE)"},
	{Scopes: []string{"resource_group"}, Name: "SHARED_TAPE_RESOURCES", Why: "tapes are no resource here"},
	{Scopes: []string{"resource_group"}, Name: "EXPORT_FILESYSTEM", Why: byExport},
	{Scopes: []string{"resource_group"}, Name: "EXPORT_FILESYSTEM_V4", Why: byExport},
	{Scopes: []string{"resource_group"}, Name: "STABLE_STORAGE_PATH", Why: byExport},
	{Scopes: []string{"resource_group"}, Name: "MOUNT_FILESYSTEM", Why: "a cross mount is the client's: mount it from the service IP"},
	{Scopes: []string{"resource_group"}, Name: "NFS_NETWORK", Why: "NFS goes over the network of the group's service IP"},
	{Scopes: []string{"resource_group"}, Name: "WPAR_NAME", Why: "workload partitions are no resource here"},
	{Scopes: []string{"resource_group"}, Name: "MIRROR_GROUP", Why: "storage replication is not driven yet"},
	{Scopes: []string{"resource_group"}, Name: "USERDEFINED_RESOURCES", Why: "a resource type of your own is run by an application controller with AGENT=user:TYPE"},
	{Scopes: []string{"resource_group"}, Name: "DISK_FENCING", Taken: true, Values: []string{"false", "no"}, Why: "disks are not reserved"},
	{Scopes: []string{"resource_group"}, Name: "FSCHECK_TOOL", Why: "it is the file system's: clmgr modify file_system NAME CHECK=fsck"},
	{Scopes: []string{"resource_group"}, Name: "MISC_DATA", Why: "give it to the scripts as arguments (STARTSCRIPT='/ha/start text'), or to an agent as PARAMS"},

	{Scopes: []string{"application_controller"}, Name: "CPU_USAGE_MONITOR", Taken: true, Values: []string{"no", "false"}, Why: byMetrics},
	{Scopes: []string{"application_controller"}, Name: "PROCESS_TO_MONITOR_CPU_USAGE", Why: byMetrics},
	{Scopes: []string{"application_controller"}, Name: "CPU_USAGE_MONITOR_INTERVAL", Why: byMetrics},
	{Scopes: []string{"application_monitor"}, Name: "MONITOR_RETRY_COUNT", Taken: true, Values: []string{"0"}, Why: "the first failure counts; RESTARTCOUNT is what follows"},

	{Scopes: []string{"volume_group"}, Name: "NODES", Why: "it is used where its group runs: the group's NODES"},
	{Scopes: []string{"volume_group"}, Name: "RESOURCE_GROUP", Why: "name it in the group: clmgr modify resource_group NAME VOLUME_GROUP=..."},
	{Scopes: []string{"volume_group"}, Name: "TYPE", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "PPART_SIZE", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "ACTIVATE_ON_RESTART", Taken: true, Values: []string{"false", "no"}, Why: "a volume group of the cluster is never varied on at boot"},
	{Scopes: []string{"volume_group"}, Name: "QUORUM_NEEDED", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "LTG_SIZE", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "MIGRATE_FAILED_DISKS", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "MAX_PHYSICAL_PARTITIONS", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "MAX_LOGICAL_VOLUMES", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "STRICT_MIRROR_POOLS", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "MIRROR_POOL_NAME", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "ENABLE_LV_ENCRYPTION", Why: noCSPOC},
	{Scopes: []string{"volume_group"}, Name: "CRITICAL", Why: "the loss of a volume group is not an event of the cluster yet"},
	{Scopes: []string{"volume_group"}, Name: "FAILUREACTION", Why: "the loss of a volume group is not an event of the cluster yet"},
	{Scopes: []string{"volume_group"}, Name: "NOTIFYMETHOD", Why: "the loss of a volume group is not an event of the cluster yet"},
	{Scopes: []string{"file_system"}, Name: "VOLUME_GROUP", Why: "write its device: DEVICE=/dev/LV; the volume group is the resource group's"},
	{Scopes: []string{"file_system"}, Name: "LOGICAL_VOLUME", Why: "write its device: DEVICE=/dev/LV"},
	{Scopes: []string{"file_system"}, Name: "UNITS", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "SIZE_PER_UNIT", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "PERMISSIONS", Why: "write rw or ro in OPTIONS"},
	{Scopes: []string{"file_system"}, Name: "BLOCK_SIZE", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "LV_FOR_LOG", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "EXT_ATTR_FORMAT", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "QUOTA", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "EFS", Why: noCSPOC},
	{Scopes: []string{"file_system"}, Name: "DISK_ACCOUNTING", Why: noCSPOC},
	{Scopes: []string{"method"}, Name: "EVENTS", Why: "methods that are told of events are not there yet: clmgr add event NAME NOTIFY=/path runs a command"},
	{Scopes: []string{"method"}, Name: "CONTACT", Why: "methods that are told of events are not there yet: clmgr add event NAME NOTIFY=/path runs a command"},
	{Scopes: []string{"method"}, Name: "TEXT", Why: "methods that are told of events are not there yet: clmgr add event NAME NOTIFY=/path runs a command"},
	{Scopes: []string{"method"}, Name: "RETRY", Why: "methods that are told of events are not there yet: clmgr add event NAME NOTIFY=/path runs a command"},

	{Scopes: []string{"online", "offline"}, Name: "BROADCAST", Taken: true, Why: "nothing is broadcast to terminals"},
	{Scopes: []string{"online"}, Name: "CLINFO", Taken: true, Why: "the status API is part of the daemon"},
	{Scopes: []string{"online"}, Name: "START_CAA", Taken: true, Values: []string{"yes", "no", "true", "false"}, Why: "there is no CAA to start"},
	{Scopes: []string{"online"}, Name: "FORCE", Taken: true, Why: "a start verifies nothing, so there is nothing to ignore"},
	{Scopes: []string{"online"}, Name: "FIX", Taken: true, Values: []string{"no", "false"}, Why: "clmgr verify cluster FIX=yes repairs"},
	{Scopes: []string{"offline"}, Name: "STOP_CAA", Taken: true, Values: []string{"no", "false"}, Why: "the daemon stays a member: stop its unit to end it"},
	{Scopes: []string{"move", "online", "offline"}, Name: "SITE", Why: noSites},
	{Scopes: []string{"move", "online", "offline"}, Name: "SECONDARY", Why: noSites},
	{Scopes: []string{"move"}, Name: "STATE", Taken: true, Values: []string{"online"}, Why: alwaysThat},
	{Scopes: []string{"delete"}, Name: "NODES", Why: "a cluster ends node by node: clmgr delete cluster on each, with -f on the last"},
	{Scopes: []string{"event_command"}, Name: "COMMAND", Why: "the work of an event is the cluster's own and cannot be replaced; PRECOMMAND and POSTCOMMAND run around it"},
	{Scopes: []string{"event_command"}, Name: "FILE", Why: "a command is given by its path: PRECOMMAND=/path, and so on"},
	{Scopes: []string{"snapshot"}, Name: "METHODS", Why: "methods of snapshots are not there yet"},
}

// Foreigners lists the attributes of PowerHA that mean nothing here, in the order of the table. The result must not be changed.
func Foreigners() []Foreign { return foreign }

// FindForeign finds an attribute of PowerHA that was typed in one of the scopes (the class, the action); nil: it is no such.
func FindForeign(name string, scopes ...string) *Foreign {
	for i := range foreign {
		f := &foreign[i]
		if !strings.EqualFold(f.Name, name) {
			continue
		}
		if slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(f.Scopes, s) }) {
			return f
		}
	}
	return nil
}

// Takes says whether the value is taken without effect.
func (f *Foreign) Takes(value string) bool {
	return f.Taken && (len(f.Values) == 0 || slices.ContainsFunc(f.Values, func(v string) bool { return strings.EqualFold(v, strings.TrimSpace(value)) }))
}

// Refusal is the sentence by which the value is refused: "IPALIASING is PowerHA's, and only IPALIASING=true is taken: ...".
func (f *Foreign) Refusal(value string) string {
	for _, n := range f.Not {
		if strings.EqualFold(n[0], strings.TrimSpace(value)) {
			return fmt.Sprintf("%s=%s cannot be had here: %s", f.Name, n[0], n[1])
		}
	}
	if f.Taken && len(f.Values) > 0 {
		return fmt.Sprintf("%s is PowerHA's, and only %s=%s is taken: %s", f.Name, f.Name, strings.Join(f.Values, " or "+f.Name+"="), f.Why)
	}
	return fmt.Sprintf("%s is PowerHA's: %s", f.Name, f.Why)
}
