package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The bounds of file collections. MaxCollectionFile is what one message between nodes carries; larger things are data, and data
// belongs on a shared file system.
const (
	MaxCollections     = 64
	MaxCollectionFiles = 256       // files of one collection
	MaxCollectionFile  = 512 << 10 // bytes of one file
)

// FileCollection is the collection of that name, nil if there is none.
func (d *Definition) FileCollection(name string) *FileCollection {
	return find(d.FileCollections, name, func(f *FileCollection) string { return f.Name })
}

// On lists the nodes on which the collection's files are to be the same.
func (f *FileCollection) On(d *Definition) []string {
	if len(f.Nodes) > 0 {
		return slices.Clone(f.Nodes)
	}
	return nodeNames(d)
}

// ComparesEvery is how often collections that keep themselves in step are compared.
func (s *Settings) ComparesEvery() time.Duration {
	if s.CollectionInterval == 0 {
		return DefaultCollectionInterval
	}
	return s.CollectionInterval
}

// notFiles are where the kernel shows itself as files: nothing there can be replaced.
var notFiles = []string{"/proc", "/sys", "/dev"}

func (v *validator) collections() {
	owner := map[string]string{}
	for i := range v.d.FileCollections {
		f, p := &v.d.FileCollections[i], fmt.Sprintf("file_collections[%d].", i)
		if len(f.Files) == 0 {
			v.add(p+"files", "absolute paths", "the collection has no files")
		}
		if len(f.Files) > MaxCollectionFiles {
			v.add(p+"files", fmt.Sprintf("at most %d", MaxCollectionFiles), "the collection has %d files", len(f.Files))
			continue
		}
		v.distinct(p+"files", f.Files)
		v.distinct(p+"nodes", f.Nodes)
		for k, file := range f.Files {
			at := fmt.Sprintf("%sfiles[%d]", p, k)
			v.collected(at, file)
			if other, taken := owner[file]; taken && other != f.Name {
				v.add(at, "in one collection only", "the file %s is in the collection %s already: two collections could disagree on it", file, other)
			}
			owner[file] = f.Name
		}
		if (f.SyncWithCluster || f.SyncWhenChanged) && f.Source == "" {
			v.add(p+"source", "a node", "the collection keeps itself in step, and it is not said whose copy wins")
		}
		if f.Source != "" && len(f.Nodes) > 0 && !slices.Contains(f.Nodes, f.Source) {
			v.add(p+"source", "one of "+strings.Join(f.Nodes, ", "), "the source %s is not among the collection's nodes", f.Source)
		}
	}
}

// collected checks the path of one file. Which directories are the product's own, each node knows by itself.
func (v *validator) collected(at, file string) {
	if !v.absolute(at, file) {
		return
	}
	if file == "/" {
		v.add(at, "a file", "/ is a directory")
	}
	for _, dir := range notFiles {
		if Below(file, dir) {
			v.add(at, "a file on a disk", "%s is the kernel's: nothing there can be replaced", file)
		}
	}
}

// Below reports whether the path is the directory or lies in it. Both are absolute and clean.
func Below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// forgetCollections takes a node out of the collections before references to it are emptied: one that was for this node alone
// goes, and one whose copy won keeps itself in step no more.
func (d *Definition) forgetCollections(node string) {
	d.FileCollections = slices.DeleteFunc(d.FileCollections, func(f FileCollection) bool { return len(f.Nodes) == 1 && f.Nodes[0] == node })
	for i := range d.FileCollections {
		if f := &d.FileCollections[i]; f.Source == node {
			f.SyncWithCluster, f.SyncWhenChanged = false, false
		}
	}
}
