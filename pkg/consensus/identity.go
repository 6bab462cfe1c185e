package consensus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Identity is the record in a store's directory of where the store lives and of what the log knows about its boots. A store
// that was restored from an image, copied or cloned has forgotten promises: it may vote twice in one term (attack A10). Its
// server must not take part; it joins again under a new server id.
//
// Two checks find such a store, both before it votes or acknowledges anything: Open makes the record of a new store and
// compares the place of an old one; Matches, which the caller is to use before Open (LoadIdentity), compares the newest boot
// that the log holds for this server, as asked of every voter that can be reached. A copy of the whole machine that is never
// compared with another voter is not found.
type Identity struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
	ServerID  string `json:"server_id"`
	Place     Place  `json:"place"`
	// Last is the newest boot known to be in the log. Proposed are later ones, which may be in the log: both are kept, so
	// that a crash between the log's write and this file's is no mismatch.
	Last     Boot   `json:"last"`
	Proposed []Boot `json:"proposed,omitempty"`

	path string

	writing sync.Mutex // held across I/O, by who changes the record
	mu      sync.Mutex // over Last and Proposed; never across I/O
}

// Place is where a directory is.
type Place struct {
	MachineID  string `json:"machine_id"`
	Device     uint64 `json:"device"`
	FileSystem string `json:"file_system,omitempty"` // its id, where the system has one
	Inode      uint64 `json:"inode"`
	Born       int64  `json:"born,omitempty"` // the directory's time of birth in nanoseconds, where the system has one
}

// A Boot is one start of a server: a number that only grows and a random value.
type Boot struct {
	Number uint64 `json:"number"`
	Random string `json:"random"`
}

var (
	// ErrNoIdentity says that the directory has no identity record.
	ErrNoIdentity = errors.New("the directory has no identity record")
	// ErrAmnesia says that the store is not the one that made the promises of this server.
	ErrAmnesia = errors.New("this is a copy or an older state of the server's store")
)

const (
	identityName   = "identity.json"
	identityFormat = 1
	maxIdentity    = 64 << 10
	maxProposed    = 64
)

// createIdentity writes the record of a new store.
func createIdentity(dir, clusterID, serverID, machineID string) (*Identity, error) {
	path := filepath.Join(dir, identityName)
	place, err := placeOf(dir, machineID)
	if err != nil {
		return nil, err
	}
	id := &Identity{Format: identityFormat, ClusterID: clusterID, ServerID: serverID, Place: place, path: path}
	return id, id.save()
}

// LoadIdentity reads the record. ErrNoIdentity: there is none.
func LoadIdentity(dir string) (*Identity, error) {
	path := filepath.Join(dir, identityName)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the identity record %s: %w", path, ErrNoIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("read the identity record: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err != nil {
		return nil, fmt.Errorf("read the identity record: %w", err)
	}
	id := &Identity{path: path}
	if len(b) > maxIdentity {
		return nil, fmt.Errorf("read the identity record %s: it is larger than %d bytes; %s", path, maxIdentity, howToReplace)
	}
	if err := json.Unmarshal(b, id); err != nil {
		return nil, fmt.Errorf("read the identity record %s: %w; %s", path, err, howToReplace)
	}
	if id.Format != identityFormat || id.ServerID == "" || id.ClusterID == "" {
		return nil, fmt.Errorf("read the identity record %s: format %d is not this version's %d, or names are missing; %s",
			path, id.Format, identityFormat, howToReplace)
	}
	return id, nil
}

// check compares the record with the names given and with the place where the directory is now. ErrAmnesia: it is another.
// A device number may change from boot to boot; it counts only where the file system's id differs too.
func (id *Identity) check(clusterID, serverID, machineID string) error {
	now, err := placeOf(filepath.Dir(id.path), machineID)
	if err != nil {
		return err
	}
	was := id.Place
	bad := func(what string, was, now any) error {
		return fmt.Errorf("check the identity record %s: %s was %v, is %v: %w; %s", id.path, what, was, now, ErrAmnesia, howToReplace)
	}
	switch {
	case id.ClusterID != clusterID:
		return bad("the cluster", id.ClusterID, clusterID)
	case id.ServerID != serverID:
		return bad("the server", id.ServerID, serverID)
	case was.MachineID != now.MachineID:
		return bad("the machine id", was.MachineID, now.MachineID)
	case was.Inode != now.Inode:
		return bad("the directory's inode", was.Inode, now.Inode)
	case was.Born != 0 && now.Born != 0 && was.Born != now.Born:
		return bad("the directory's time of birth", was.Born, now.Born)
	case was.Device != now.Device && (was.FileSystem == "" || was.FileSystem != now.FileSystem):
		return bad("the file system", fmt.Sprint(was.Device, "/", was.FileSystem), fmt.Sprint(now.Device, "/", now.FileSystem))
	}
	return nil
}

// Matches compares the newest boot that another server's log holds for this one. nil: this store is that server's newest, or
// the other lags behind it. The zero Boot (the other knows none) matches a store whose boots are not in the log yet.
func (id *Identity) Matches(logged Boot) error {
	id.mu.Lock()
	known := append([]Boot{id.Last}, id.Proposed...)
	id.mu.Unlock()
	newest := known[len(known)-1].Number
	switch {
	case slices.Contains(known, logged), logged.Number < known[0].Number:
		return nil
	case logged.Number > newest:
		return fmt.Errorf("check the boots of server %s: the log knows boot %d, this store only %d: %w; %s",
			id.ServerID, logged.Number, newest, ErrAmnesia, howToReplace)
	default:
		return fmt.Errorf("check the boots of server %s: the log's boot %d is not this store's: %w; %s",
			id.ServerID, logged.Number, ErrAmnesia, howToReplace)
	}
}

// Propose draws the boot of this start and writes it down before it can get into the log.
func (id *Identity) Propose() (Boot, error) {
	id.writing.Lock()
	defer id.writing.Unlock()
	last := id.Last.Number
	if n := len(id.Proposed); n > 0 {
		last = id.Proposed[n-1].Number
	}
	proposed := id.Proposed
	if len(proposed) >= maxProposed {
		// Without a majority for as many starts. The oldest is the one least likely to be the log's newest.
		proposed = proposed[1:]
	}
	var random [16]byte
	rand.Read(random[:])
	b := Boot{Number: last + 1, Random: hex.EncodeToString(random[:])}
	id.set(id.Last, append(slices.Clone(proposed), b))
	return b, id.save()
}

// set changes what Matches compares. The caller has the writing lock.
func (id *Identity) set(last Boot, proposed []Boot) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.Last, id.Proposed = last, proposed
}

// Accept notes that the boot was seen committed. Propose, Accept and Matches may be called by any goroutine.
func (id *Identity) Accept(b Boot) error {
	id.writing.Lock()
	defer id.writing.Unlock()
	if b.Number <= id.Last.Number {
		return nil
	}
	id.set(b, slices.DeleteFunc(slices.Clone(id.Proposed), func(p Boot) bool { return p.Number <= b.Number }))
	return id.save()
}

// save replaces the file durably.
func (id *Identity) save() error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("write the identity record: %w", err)
	}
	tmp := id.path + ".tmp"
	if err := writeDurably(tmp, append(b, '\n')); err != nil {
		return fmt.Errorf("write the identity record: %w", err)
	}
	if err := os.Rename(tmp, id.path); err != nil {
		return fmt.Errorf("write the identity record: %w", err)
	}
	dir, err := os.Open(filepath.Dir(id.path))
	if err != nil {
		return fmt.Errorf("write the identity record: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("write the identity record: %w", err)
	}
	return nil
}

func writeDurably(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if serr := f.Sync(); err == nil {
		err = serr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
