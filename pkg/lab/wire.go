package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// MaxMessage bounds one message of the control protocol, in bytes. The kernel takes no larger packet with default settings.
const MaxMessage = 160 << 10

// The files of a lab, below its directory.
const (
	ControlSocket = "control.sock" // SOCK_SEQPACKET, one request per connection
	ConfigFile    = "lab.json"
	LogFile       = "lab.log"
	EventFile     = "events.jsonl"
	LockFile      = "lock" // held (flock) by the supervisor as long as the lab lives
	PIDFile       = "supervisor.pid"
	SharedDir     = "shared"
	NodesDir      = "nodes"
)

// ClientNode is the name under which Exec runs a command beside the nodes, in the namespace from which probes ask.
const ClientNode = "client"

// MaxNodes is the largest lab: the last addresses of each network belong to the client and to service addresses.
const MaxNodes = 64

// Config describes a lab. It is written once by `cllab up` and read by the supervisor.
type Config struct {
	Name        string        `json:"name"`
	Nodes       int           `json:"nodes"`
	Networks    int           `json:"networks"`
	Links       int           `json:"links,omitempty"` // interfaces of each node on each network; 0: 1
	Subnet      string        `json:"subnet"`          // first two octets, "10.77": network k is SUBNET.k.0/24
	Profile     string        `json:"profile"`         // timing profile of the cluster, "default" or "fast"
	Daemons     bool          `json:"daemons"`         // whether nodes run the product's daemons
	Fence       bool          `json:"fence"`           // whether the power switch can be reached from inside the nodes
	FenceDelay  time.Duration `json:"fence_delay"`     // how long the power switch takes for each order
	AutoBoot    bool          `json:"autoboot"`        // whether a node boots again after a watchdog reset
	RebootDelay time.Duration `json:"reboot_delay"`    // from such a reset to the boot
	BinDir      string        `json:"bin_dir"`         // where cllab and the product's daemons are
	TiePID      int           `json:"tie_pid"`         // the lab ends when this process ends; 0: it stays until `down`
	Rootless    bool          `json:"rootless"`
	// System and CommandDir go into the nodes' own files: whose executors the agents use, and where their commands are.
	System     string `json:"system,omitempty"`
	CommandDir string `json:"command_dir,omitempty"`
	CgroupRoot string `json:"cgroup_root"` // cgroup directory of the lab; empty: nodes have no cgroup of their own
}

var (
	labName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$`)
	subnet  = regexp.MustCompile(`^(\d{1,3})\.(\d{1,3})$`)
)

// Validate reports the first thing in c that cannot work.
func (c *Config) Validate() error {
	switch m := subnet.FindStringSubmatch(c.Subnet); {
	case !labName.MatchString(c.Name):
		return fmt.Errorf("lab name %q: want up to 32 letters, digits, '_', '.', '-', beginning with a letter or digit", c.Name)
	case c.Nodes < 1 || c.Nodes > MaxNodes:
		return fmt.Errorf("--nodes %d: want 1 to %d", c.Nodes, MaxNodes)
	case c.Networks < 1 || c.Networks > 8:
		return fmt.Errorf("--networks %d: want 1 to 8", c.Networks)
	case c.Links < 0 || c.Links > 4:
		return fmt.Errorf("--links %d: want 1 to 4", c.Links)
	case m == nil || octet(m[1]) > 223 || octet(m[1]) < 1 || octet(m[1]) == 127 || octet(m[2]) > 255:
		return fmt.Errorf("--subnet %q: want the first two numbers of an address, such as 10.77", c.Subnet)
	case c.Profile != "default" && c.Profile != "fast" && c.Profile != "careful":
		return fmt.Errorf("--profile %q: want default, fast or careful", c.Profile)
	case c.RebootDelay < 0 || c.FenceDelay < 0:
		return fmt.Errorf("delays must not be negative")
	}
	return nil
}

func octet(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// NodeNames lists the names of the lab's nodes in order: node1, node2, ...
func (c *Config) NodeNames() []string {
	names := make([]string, c.Nodes)
	for i := range names {
		names[i] = NodeName(i + 1)
	}
	return names
}

// NodeName is the name of the n-th node, counted from 1.
func NodeName(n int) string { return "node" + strconv.Itoa(n) }

// NetworkName is the name of the k-th network, counted from 1.
func NetworkName(k int) string { return "net" + strconv.Itoa(k) }

// Ports is how many interfaces each node has: one on each network, eth0, eth1, ..., then the second one on each, and so on.
func (c *Config) Ports() int { return c.Networks * max(c.Links, 1) }

// PortNetwork is the network (counted from 1) of a port (counted from 1).
func (c *Config) PortNetwork(port int) int { return (port-1)%c.Networks + 1 }

// InterfaceName is the name, inside a node, of the interface at a port (counted from 1).
func InterfaceName(port int) string { return "eth" + strconv.Itoa(port-1) }

// Address is the address of node n (counted from 1) on network k (counted from 1), without prefix length (which is 24).
func (c *Config) Address(n, k int) string { return fmt.Sprintf("%s.%d.%d", c.Subnet, k, n) }

// ClientAddress is the address of the probing client on network k.
func (c *Config) ClientAddress(k int) string { return c.Address(254, k) }

// BaseDir is the directory that holds the labs of this user: $HOLDFAST_LAB_DIR, else /tmp/holdfast-lab-UID.
func BaseDir() string {
	if d := os.Getenv("HOLDFAST_LAB_DIR"); d != "" {
		return d
	}
	return filepath.Join("/tmp", "holdfast-lab-"+strconv.Itoa(os.Getuid()))
}

// Dir is the directory of the lab called name.
func Dir(name string) string { return filepath.Join(BaseDir(), name) }

// ReadConfig reads the configuration of the lab in dir.
func ReadConfig(dir string) (*Config, error) {
	b, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, fmt.Errorf("read the lab's configuration: %w", err)
	}
	c := new(Config)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read the lab's configuration %s: %w", filepath.Join(dir, ConfigFile), err)
	}
	return c, c.Validate()
}

// The operations of the control protocol.
const (
	OpStatus = "status"
	OpDown   = "down"
	OpCrash  = "crash"
	OpBoot   = "boot"
	OpPause  = "pause"
	OpResume = "resume"
	OpCut    = "cut"
	OpUnplug = "unplug"
	OpHeal   = "heal"
	OpKill   = "kill"
	OpPower  = "power" // What: "on", "off"
	OpSwitch = "power-switch"
	OpExec   = "exec"   // with stdin, stdout, stderr as descriptors; the connection then belongs to the node
	OpEvents = "events" // the connection stays open and carries events
)

// A Request is the one message a client sends on a connection.
type Request struct {
	Op        string   `json:"op"`
	Node      string   `json:"node,omitempty"`
	Network   string   `json:"network,omitempty"`   // a network or an interface (eth0); empty: all
	Direction string   `json:"direction,omitempty"` // cut: "in", "out", empty for both
	What      string   `json:"what,omitempty"`
	Argv      []string `json:"argv,omitempty"`
	Env       []string `json:"env,omitempty"`
	Dir       string   `json:"dir,omitempty"`

	// OpSwitch: nil leaves a setting as it is.
	Unreachable *bool          `json:"unreachable,omitempty"`
	Delay       *time.Duration `json:"delay,omitempty"`
}

// A Reply is what comes back; Done marks the last one.
type Reply struct {
	Done   bool    `json:"done,omitempty"`
	Error  string  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
	Event  *Event  `json:"event,omitempty"`
	Exit   *int    `json:"exit,omitempty"` // OpExec: the command's exit status, 128+N when a signal ended it
}

// A Signal is what a client of OpExec may send while the command runs.
type Signal struct {
	Signal int `json:"signal"`
}

// The states of a node.
const (
	StateOff     = "off"     // the power is off
	StateDown    = "down"    // the power is on, nothing runs (it crashed and nobody booted it)
	StateBooting = "booting" //
	StateUp      = "up"
	StatePaused  = "paused"
)

// Status is a picture of a lab.
type Status struct {
	Lab        string       `json:"lab"`
	Dir        string       `json:"dir"`
	PID        int          `json:"pid"` // the supervisor
	Since      time.Time    `json:"since"`
	Config     Config       `json:"config"`
	Nodes      []NodeStatus `json:"nodes"`
	Client     string       `json:"client"` // address of the probing client on the first network
	Unreach    []string     `json:"power_unreachable,omitempty"`
	Scheduling string       `json:"scheduling"` // what priority the supervisor got
	Events     []Event      `json:"events"`     // the newest, oldest first
}

// NodeStatus is a picture of one node.
type NodeStatus struct {
	Name     string       `json:"name"`
	State    string       `json:"state"`
	PID      int          `json:"pid,omitempty"` // of its init, as seen outside
	Boots    int          `json:"boots"`
	BootID   string       `json:"boot_id,omitempty"`
	Since    time.Time    `json:"since"` // of this state
	Links    []LinkStatus `json:"links"`
	Agent    DaemonStatus `json:"agent"`
	Deadman  DaemonStatus `json:"deadman"`
	Watchdog WatchStatus  `json:"watchdog"`
}

// LinkStatus is a picture of a node's link to one network.
type LinkStatus struct {
	Network   string `json:"network"`
	Interface string `json:"interface"`
	Address   string `json:"address"` // with prefix length; empty: the interface has none of its own
	CutIn     bool   `json:"cut_in"`  // nothing reaches the node
	CutOut    bool   `json:"cut_out"` // nothing leaves the node
	Unplugged bool   `json:"unplugged"`
}

// DaemonStatus is a picture of one of the product's daemons on a node.
type DaemonStatus struct {
	PID    int    `json:"pid,omitempty"` // inside the node; 0: not running
	Starts int    `json:"starts"`        // in this boot
	Last   string `json:"last,omitempty"`
}

// WatchStatus is a picture of a node's watchdog.
type WatchStatus struct {
	Open    bool          `json:"open"`
	Running bool          `json:"running"`
	Timeout time.Duration `json:"timeout"`
	Fired   int           `json:"fired"` // since the lab began
}

// An Event is something that happened to the lab.
type Event struct {
	Time   time.Time     `json:"time"`
	Node   string        `json:"node,omitempty"`
	Kind   string        `json:"kind"` // boot, up, crash, watchdog, reset, power_off, ...
	Detail string        `json:"detail,omitempty"`
	Took   time.Duration `json:"took,omitempty"` // crash: from the link's end to the last file system's
	PID    int           `json:"pid,omitempty"`  // boot, up: of the node's init, as seen outside
}
