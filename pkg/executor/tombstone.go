package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// maxStateFile bounds every file that this package reads back.
const maxStateFile = 1 << 20

// Tombstones are this node's promises: a group whose tombstone stands at a generation is never again started here at that
// generation or a lower one. They are written before a release is reported on any path, and survive crashes.
//
// All methods may be called by any goroutine.
type Tombstones struct {
	mu   sync.Mutex
	path string
	gens map[string]uint64
}

type tombstoneFile struct {
	Format      int               `json:"format"`
	Generations map[string]uint64 `json:"generations"`
	CRC         uint32            `json:"crc"` // of the generations, as they are encoded
}

// OpenTombstones reads the file, or begins with none when it does not exist. A damaged file is an error: promises that cannot
// be read must not be taken for promises that were never made.
func OpenTombstones(path string) (*Tombstones, error) {
	t := &Tombstones{path: path, gens: map[string]uint64{}}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the tombstones: %w", err)
	}
	data, err := readFileBounded(path)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tombstones: %w", err)
	}
	var f tombstoneFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("the tombstones in %s are damaged (%w): restore the file, or remove the node from the cluster and "+
			"join it again", path, err)
	}
	if f.Format != 1 {
		return nil, fmt.Errorf("the tombstones in %s have format %d, this program knows format 1", path, f.Format)
	}
	if body, _ := json.Marshal(f.Generations); crc32.ChecksumIEEE(body) != f.CRC {
		return nil, fmt.Errorf("the tombstones in %s are damaged (checksum): restore the file, or remove the node from the "+
			"cluster and join it again", path)
	}
	maps.Copy(t.gens, f.Generations)
	return t, nil
}

// Write promises that the group is not started here again at the generation or a lower one. When it returns nil the promise
// is on the disk. A promise for a lower generation than the one that stands is kept already.
func (t *Tombstones) Write(group string, generation uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.gens[group]; ok && old >= generation {
		return nil
	}
	next := maps.Clone(t.gens)
	next[group] = generation
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	data, err := json.Marshal(tombstoneFile{Format: 1, Generations: next, CRC: crc32.ChecksumIEEE(body)})
	if err != nil {
		return err
	}
	if err := writeDurably(t.path, data); err != nil {
		return fmt.Errorf("write the tombstone of group %s, generation %d: %w", group, generation, err)
	}
	t.gens = next
	return nil
}

// Has reports whether the group may not be started here at the generation: a tombstone stands at it or at a higher one.
func (t *Tombstones) Has(group string, generation uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	gen, ok := t.gens[group]
	return ok && gen >= generation
}

// Highest is the highest generation that was released here, per group.
func (t *Tombstones) Highest() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.gens)
}

func readFileBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxStateFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxStateFile)
	}
	return data, nil
}
