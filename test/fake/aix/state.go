package aix

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// A Config says where one node's emulator keeps its state. It lies beside the commands, as ConfigName.
type Config struct {
	Node   string `json:"node"`   // empty: the host name
	Shared string `json:"shared"` // directory of what the nodes share
	ODM    string `json:"odm"`    // directory of what outlives a boot of the node
	Run    string `json:"run"`    // directory of what does not
	// Real makes addresses and mounts real ones of this machine's namespaces (a bind mount stands for the file system). Without
	// it they are kept in the state only.
	Real bool `json:"real"`
	// BootFile holds this boot's id; empty: one is made.
	BootFile string `json:"boot_file"`
}

// ConfigName is the name of the configuration beside the commands.
const ConfigName = "aixemu.json"

// Shared is what all nodes see.
type Shared struct {
	Disks  map[string]*Disk  `json:"disks"` // by PVID
	Groups map[string]*Group `json:"groups"`
	// Foreign are addresses that somebody outside the cluster answers for (without Real).
	Foreign []string `json:"foreign,omitempty"`
	// Faults seen by the storage itself: a volume group varied on twice, a file system mounted twice.
	Overlaps []string `json:"overlaps,omitempty"`
}

// A Disk is a shared physical volume.
type Disk struct {
	Group   string   `json:"group,omitempty"` // VGID
	Missing []string `json:"missing,omitempty"`
	Reserve string   `json:"reserve,omitempty"` // the node whose SCSI-2 reserve is on it
	Policy  string   `json:"policy"`            // no_reserve, single_path, ...
}

// A Group is a volume group as its disks describe it.
type Group struct {
	Name       string             `json:"name"` // under which it was made; other nodes may know it by another
	ID         string             `json:"id"`
	Timestamp  string             `json:"timestamp"`
	Quorum     bool               `json:"quorum"`
	Concurrent bool               `json:"concurrent,omitempty"` // enhanced concurrent capable
	Volumes    map[string]*Volume `json:"volumes,omitempty"`
	// On says who has it varied on: node -> boot.
	On map[string]string `json:"on,omitempty"`
}

// A Volume is a logical volume.
type Volume struct {
	Type      string `json:"type"`            // jfs2, jfs2log
	Point     string `json:"point,omitempty"` // its mount point, as its label says
	Guard     bool   `json:"guard,omitempty"` // mount guard is switched on
	Held      string `json:"held,omitempty"`  // the node that has it mounted, as the guard knows
	Dirty     bool   `json:"dirty,omitempty"`
	Broken    bool   `json:"broken,omitempty"` // beyond what fsck -p repairs
	MountedBy string `json:"mounted_by,omitempty"`
	MountBoot string `json:"mount_boot,omitempty"`
	OpenRaw   bool   `json:"open_raw,omitempty"` // somebody has the raw device open
}

// An ODM is what a node keeps over its boots.
type ODM struct {
	Disks       map[string]string      `json:"disks"` // hdisk -> PVID
	Groups      map[string]*Known      `json:"groups"`
	FileSystems map[string]*Stanza     `json:"file_systems,omitempty"` // /etc/filesystems, by mount point
	Subsystems  map[string]*Subsystem  `json:"subsystems,omitempty"`
	Inittab     []string               `json:"inittab,omitempty"`
	Notify      []string               `json:"notify,omitempty"`
	Aliases     map[string][]string    `json:"aliases,omitempty"`
	Locks       map[string]*Lock       `json:"locks,omitempty"` // volume group -> lock in the ODM
	Errors      []ErrorEntry           `json:"errors,omitempty"`
	Attributes  map[string]interface{} `json:"attributes,omitempty"`
}

// Known is a volume group in a node's ODM.
type Known struct {
	ID        string   `json:"id"`
	Timestamp string   `json:"timestamp"`
	AutoOn    bool     `json:"auto_on"`
	Major     int      `json:"major"`
	Volumes   []string `json:"volumes,omitempty"`
}

// A Lock is the ODM lock of a volume group; Owner is 0 when its owner died.
type Lock struct {
	Owner   int    `json:"owner"`
	Command string `json:"command"`
}

// A Stanza is one of /etc/filesystems.
type Stanza struct {
	Dev     string `json:"dev"`
	Log     string `json:"log,omitempty"`
	Mount   string `json:"mount"`
	Options string `json:"options,omitempty"`
	Vfs     string `json:"vfs"`
}

// A Subsystem is what SRC knows.
type Subsystem struct {
	Group   string `json:"group,omitempty"`
	Path    string `json:"path"`
	Args    string `json:"args,omitempty"`
	Respawn bool   `json:"respawn,omitempty"`
	Signals bool   `json:"signals,omitempty"`
	Wait    int    `json:"wait"` // seconds from SIGTERM to SIGKILL
	Stdout  string `json:"stdout,omitempty"`
	Stderr  string `json:"stderr,omitempty"`
	Nice    string `json:"nice,omitempty"`
	Notify  string `json:"notify,omitempty"`
}

// An ErrorEntry is one of the error log.
type ErrorEntry struct {
	ID    string    `json:"id"`
	Label string    `json:"label"`
	Class string    `json:"class"`
	Type  string    `json:"type"`
	Name  string    `json:"name"`
	Text  string    `json:"text"`
	At    time.Time `json:"at"`
}

// Volatile is what a node loses when it goes down.
type Volatile struct {
	Boot       string             `json:"boot"`
	On         map[string]string  `json:"on,omitempty"` // volume group -> active, passive, concurrent
	Mounts     []Mount            `json:"mounts,omitempty"`
	Interfaces []*Interface       `json:"interfaces,omitempty"`
	Exports    map[string]string  `json:"exports,omitempty"`
	Running    map[string]Process `json:"running,omitempty"` // subsystem -> its process
	Faults     []*Fault           `json:"faults,omitempty"`
	ARP        map[string]bool    `json:"arp,omitempty"` // without Real: addresses whose owner is known
	Busy       map[string][]int   `json:"busy,omitempty"`
	LVM        []string           `json:"lvm,omitempty"` // LVM commands that run here, for ps
	Counter    int                `json:"counter,omitempty"`
}

// A Process is what SRC started.
type Process struct {
	PID    int    `json:"pid"`
	Status string `json:"status"` // active, stopping
}

// A Mount is one entry of the mount table.
type Mount struct {
	Node    string    `json:"node,omitempty"`
	Device  string    `json:"device"`
	Point   string    `json:"point"`
	Vfs     string    `json:"vfs"`
	Options string    `json:"options"`
	At      time.Time `json:"at"`
}

// An Interface is a network interface (without Real).
type Interface struct {
	Name      string   `json:"name"`
	Down      bool     `json:"down,omitempty"`
	NoLink    bool     `json:"no_link,omitempty"`
	Virtual   bool     `json:"virtual,omitempty"`
	Addresses []string `json:"addresses"` // CIDR
}

// A Fault makes a command fail.
type Fault struct {
	Command string `json:"command"`
	Arg     string `json:"arg,omitempty"`  // a part of its arguments
	Mode    string `json:"mode"`           // slow, hang, hangchild, fail, lie, garbage
	Millis  int    `json:"millis"`         // of slow
	Exit    int    `json:"exit,omitempty"` // of fail
	Text    string `json:"text,omitempty"`
	Times   int    `json:"times,omitempty"` // 0: always
}

// A World is one node's view, open for change.
type World struct {
	Config Config
	Shared *Shared
	ODM    *ODM
	Run    *Volatile
	locks  []*os.File
}

// Open locks and reads the state. The locks are held until Close; they are taken in one order by everybody.
func Open(c Config) (*World, error) {
	w := &World{Config: c, Shared: &Shared{}, ODM: &ODM{}, Run: &Volatile{}}
	for _, dir := range []string{c.Shared, c.ODM, c.Run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
		if err == nil {
			err = lockFile(f)
		}
		if err != nil {
			w.unlock()
			return nil, err
		}
		w.locks = append(w.locks, f)
	}
	err := errors.Join(load(filepath.Join(c.Shared, "shared.json"), w.Shared), load(filepath.Join(c.ODM, "odm.json"), w.ODM),
		load(filepath.Join(c.Run, "run.json"), w.Run))
	if err != nil {
		w.unlock()
		return nil, err
	}
	w.fill()
	return w, nil
}

func (w *World) fill() {
	s, o, r := w.Shared, w.ODM, w.Run
	mk(&s.Disks)
	mk(&s.Groups)
	mk(&o.Disks)
	mk(&o.Groups)
	mk(&o.FileSystems)
	mk(&o.Subsystems)
	mk(&o.Locks)
	mk(&r.On)
	mk(&r.Exports)
	mk(&r.Running)
	mk(&r.ARP)
	mk(&r.Busy)
	if b, err := os.ReadFile(w.Config.BootFile); err == nil && r.Boot == "" {
		r.Boot = strings.TrimSpace(string(b))
	}
	if r.Boot == "" {
		r.Boot = fmt.Sprintf("%x", time.Now().UnixNano())
	}
}

func mk[K comparable, V any](m *map[K]V) {
	if *m == nil {
		*m = map[K]V{}
	}
}

// Close writes the state and gives the locks back.
func (w *World) Close() error {
	err := errors.Join(save(filepath.Join(w.Config.Shared, "shared.json"), w.Shared),
		save(filepath.Join(w.Config.ODM, "odm.json"), w.ODM), save(filepath.Join(w.Config.Run, "run.json"), w.Run))
	w.unlock()
	return err
}

func (w *World) unlock() {
	for _, f := range w.locks {
		_ = f.Close() // the lock goes with it
	}
	w.locks = nil
}

// Change opens, changes and closes the state of a node.
func Change(c Config, f func(w *World)) error {
	w, err := Open(c)
	if err != nil {
		return err
	}
	f(w)
	return w.Close()
}

func load(path string, into any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func save(path string, from any) error {
	b, err := json.MarshalIndent(from, "", " ")
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}

// lockFile waits for the lock of the file.
func lockFile(f *os.File) error {
	for {
		err := flock(f)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
