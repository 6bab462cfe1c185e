package config

import (
	"reflect"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// DecodeCluster reads a cluster file; name is what the faults call it. The definition has passed cluster.Validate and has its
// defaults filled in. An error is of type Faults.
func DecodeCluster(name string, data []byte) (*cluster.Definition, error) {
	r := newReport(name)
	root, whole := read(r, data)
	if root == nil {
		return nil, r.err()
	}
	if root.kind == nullNode && whole {
		r.add(place{1, 1}, "", "the file is empty: a cluster file has at least name: and nodes:")
		return nil, r.err()
	}
	d := &cluster.Definition{}
	r.places[""] = place{1, 1}
	r.fill(root, reflect.ValueOf(d).Elem(), "")
	// With a part of the file unread, what is missing or unknown elsewhere says nothing.
	if whole && !r.spoiled[""] {
		r.problems("", d.Validate())
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	d.Defaults()
	return d, nil
}
