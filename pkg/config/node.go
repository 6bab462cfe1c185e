package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// NodeFile is where a node's own file stands.
const NodeFile = "/etc/holdfast/node.yaml"

// A Node is a node's own file: what only this machine knows. Everything that the cluster agrees upon stands in the cluster
// file instead.
type Node struct {
	// Name is the node's name in the cluster; empty: the one under which it was made or joined.
	Name     string `json:"name"`
	StateDir string `json:"state_dir"` // default /var/lib/holdfast; must survive a reboot
	RunDir   string `json:"run_dir"`   // default /run/holdfast (/var/run/holdfast on AIX)
	LogDir   string `json:"log_dir"`   // default /var/log/holdfast (/var/hacmp on AIX)
	Port     int    `json:"port"`      // TCP, between agents; default 6191
	// GossipPort is used over TCP and UDP; default 6192.
	GossipPort int `json:"gossip_port"`
	// VoterPort is the TCP port of the repository voter, on whichever node it runs; default 6194, the same on all nodes. While a
	// repository volume is being replaced the new one's voter may use the port after it.
	VoterPort int `json:"voter_port"`
	// Metrics is the address of the metrics' listener, default 127.0.0.1:6193; "off" in the file, empty here: none.
	Metrics string `json:"metrics"`
	// Listen are the addresses on which agents may reach this node; empty: its addresses in the cluster file.
	Listen []string `json:"listen"`
	// BootIDFile holds an identifier that is another after each boot; empty: the system's own.
	BootIDFile string  `json:"boot_id_file"`
	LogLevel   string  `json:"log_level"` // debug, info (default), warn, error
	Deadman    Deadman `json:"deadman"`
	Access     Access  `json:"access"`
	// System says whose executors move the resources: linux or aix; empty: this machine's own.
	System string `json:"system"`
	// CommandDir is the only directory in which the executors of AIX look for the system's commands; empty: where AIX has them.
	// With another system than the machine's own it holds an emulator of them.
	CommandDir string `json:"command_dir"`
}

// An Access says who besides root may use this node's socket. An entry is a user's name, or %group as in sudoers; in view also
// everyone. Each role includes the ones before it.
type Access struct {
	View    []string `json:"view"`    // see everything but secrets; default everyone
	Operate []string `json:"operate"` // move, start, stop, clear, verify; default %holdfast
	Admin   []string `json:"admin"`   // change the cluster; default nobody but root
	// Command lists who may run free commands on all nodes, where the cluster allows any; default nobody but root. It is a right of
	// its own: no role includes it, and who has it views.
	Command []string `json:"command"`
}

// Everyone stands in Access.View for all users.
const Everyone = "everyone"

// A Deadman says what resets this node when its lease has run out, and how the agent reaches it.
type Deadman struct {
	// Backend is watchdog (a device; the default on Linux), reboot, halt (the default on AIX), lab, or none. With none a node
	// that falls silent proves nothing, and nothing ends it: for a cluster of one node that is tried out.
	Backend string `json:"backend"`
	Device  string `json:"device"` // default /dev/watchdog for backend watchdog
	Socket  string `json:"socket"` // of the deadman; default RUN_DIR/deadman.sock
	// WatchdogTimeout is asked of the device at the start; 0: what the cluster's profile says.
	WatchdogTimeout time.Duration `json:"watchdog_timeout"`
}

// The values of Deadman.Backend.
const (
	BackendWatchdog = "watchdog"
	BackendReboot   = "reboot"
	BackendHalt     = "halt"
	BackendLab      = "lab"
	BackendNone     = "none"
)

// The values of Node.System.
const (
	SystemLinux = "linux"
	SystemAIX   = "aix"
)

// LoadNode reads a node's own file. A file that does not exist gives the defaults if it is the usual one; any other must
// exist. An error about the content is of type Faults.
func LoadNode(path string) (*Node, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && path == NodeFile {
		return DecodeNode(path, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open the node file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the node file: %w", err)
	}
	return DecodeNode(path, data)
}

// DecodeNode reads a node's own file from memory; name is what the faults call it. An empty file gives the defaults. An error
// is of type Faults.
func DecodeNode(name string, data []byte) (*Node, error) {
	r := newReport(name)
	n := &Node{}
	root, whole := read(r, data)
	if root != nil && root.kind != nullNode {
		r.places[""] = place{1, 1}
		r.fill(root, reflect.ValueOf(n).Elem(), "")
	}
	if whole && !r.spoiled[""] {
		n.defaults()
		r.problems("", n.validate())
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	if n.Metrics == "off" {
		n.Metrics = ""
	}
	return n, nil
}

func (n *Node) defaults() {
	def := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	def(&n.StateDir, "/var/lib/holdfast")
	def(&n.RunDir, defaultRunDir)
	def(&n.LogDir, defaultLogDir)
	def(&n.Metrics, "127.0.0.1:6193")
	if n.Access.View == nil {
		n.Access.View = []string{Everyone}
	}
	if n.Access.Operate == nil {
		n.Access.Operate = []string{"%holdfast"}
	}
	def(&n.LogLevel, "info")
	def(&n.Deadman.Backend, defaultBackend)
	def(&n.Deadman.Socket, filepath.Join(n.RunDir, "deadman.sock"))
	if n.Deadman.Backend == BackendWatchdog {
		def(&n.Deadman.Device, "/dev/watchdog")
	}
	if n.Port == 0 {
		n.Port = 6191
	}
	if n.GossipPort == 0 {
		n.GossipPort = 6192
	}
	if n.VoterPort == 0 {
		n.VoterPort = 6194
	}
}

// validate lists what does not fit; defaults are filled in.
func (n *Node) validate() []cluster.Problem {
	var out []cluster.Problem
	bad := func(path, want, format string, args ...any) {
		out = append(out, cluster.Problem{Path: path, Want: want, Text: fmt.Sprintf(format, args...)})
	}
	if n.Name != "" {
		if err := cluster.CheckName(n.Name); err != nil {
			bad("name", "", "the name %q cannot be used: %v", n.Name, err)
		}
	}
	for _, d := range []struct{ key, value string }{{"state_dir", n.StateDir}, {"run_dir", n.RunDir}, {"log_dir", n.LogDir},
		{"boot_id_file", n.BootIDFile}, {"command_dir", n.CommandDir}, {"deadman.socket", n.Deadman.Socket}, {"deadman.device", n.Deadman.Device}} {
		if d.value == "" {
			continue
		}
		if strings.ContainsFunc(d.value, func(c rune) bool { return c < ' ' }) || !filepath.IsAbs(d.value) || filepath.Clean(d.value) != d.value {
			bad(d.key, "as /var/lib/holdfast", "%q is not an absolute path in its shortest form", d.value)
		}
	}
	// A unix socket's address has 108 bytes on Linux, 1023 on AIX; one limit keeps a node file portable.
	if len(n.Deadman.Socket) > 100 {
		bad("deadman.socket", "at most 100 characters", "the path has %d characters", len(n.Deadman.Socket))
	}
	if len(n.RunDir) > 80 {
		bad("run_dir", "at most 80 characters: sockets are made in it", "the path has %d characters", len(n.RunDir))
	}
	for _, p := range []struct {
		key  string
		port int
	}{{"port", n.Port}, {"gossip_port", n.GossipPort}, {"voter_port", n.VoterPort}, {"voter_port", n.VoterPort + 1}} {
		if p.port < 1 || p.port > 65535 {
			bad(p.key, "1 to 65535", "the port %d cannot be used", p.port)
		}
	}
	for _, p := range []int{n.VoterPort, n.VoterPort + 1} {
		if p == n.Port || p == n.GossipPort {
			bad("voter_port", "a port of its own, and the one after it", "the port %d is another one's already", p)
		}
	}
	for _, a := range []struct {
		key  string
		list []string
	}{{"access.view", n.Access.View}, {"access.operate", n.Access.Operate}, {"access.admin", n.Access.Admin}, {"access.command", n.Access.Command}} {
		for i, who := range a.list {
			name := strings.TrimPrefix(who, "%")
			if name == "" || len(name) > 64 || strings.ContainsAny(name, " \t:/,%") || who == Everyone && a.key != "access.view" {
				bad(fmt.Sprintf("%s[%d]", a.key, i), "a user's name, or %group; everyone in view only", "%q cannot be used", who)
			}
		}
	}
	if n.Port == n.GossipPort {
		bad("gossip_port", "a port of its own: gossip uses TCP too", "the port %d is that of port: already", n.Port)
	}
	n.validateMetrics(bad)
	n.validateListen(bad)
	enum(bad, "system", n.System, "", SystemLinux, SystemAIX)
	if n.CommandDir != "" && n.System != SystemAIX {
		bad("command_dir", "leave it out, or system: aix", "only the executors of AIX look for commands in it")
	}
	enum(bad, "log_level", n.LogLevel, "debug", "info", "warn", "error")
	enum(bad, "deadman.backend", n.Deadman.Backend, BackendWatchdog, BackendReboot, BackendHalt, BackendLab, BackendNone)
	if w := n.Deadman.WatchdogTimeout; w != 0 && (w < time.Second || w > 10*time.Minute || w%time.Second != 0) {
		bad("deadman.watchdog_timeout", "1s to 10m, in whole seconds: devices know no others", "the time %v cannot be used", w)
	}
	if n.Deadman.Backend == BackendLab && n.Deadman.Device == "" {
		bad("deadman.device", "the socket of the lab's watchdog", "the backend lab needs it")
	}
	return out
}

func (n *Node) validateMetrics(bad func(path, want, format string, args ...any)) {
	if n.Metrics == "off" {
		return
	}
	const want = "ADDRESS:PORT as 127.0.0.1:6193, or off"
	host, port, err := net.SplitHostPort(n.Metrics)
	p, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil || p < 1 || p > 65535 {
		bad("metrics", want, "%q is not an address with a port", n.Metrics)
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		bad("metrics", want, "%q is not an IP address", host)
	}
	if p == n.Port || p == n.GossipPort || p == n.VoterPort || p == n.VoterPort+1 {
		bad("metrics", "a port of its own", "the port %d is used by the agents already", p)
	}
}

func (n *Node) validateListen(bad func(path, want, format string, args ...any)) {
	seen := map[netip.Addr]bool{}
	for i, s := range n.Listen {
		key := fmt.Sprintf("listen[%d]", i)
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			bad(key, "an IP address without a port, as 10.1.1.1", "%q is not an IP address", s)
		case seen[a]:
			bad(key, "each once", "%s stands here twice", s)
		}
		seen[a] = true
	}
}

func enum(bad func(path, want, format string, args ...any), key, value string, legal ...string) {
	if slices.Contains(legal, value) {
		return
	}
	bad(key, "one of "+strings.Join(legal, ", ")+cluster.DidYouMean(value, legal), "the value %q is unknown", value)
}
