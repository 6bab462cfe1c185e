package config

import (
	"reflect"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// DecodeResourceType reads the manifest of a resource type; name is what the faults call it. An error is of type Faults.
func DecodeResourceType(name string, data []byte) (*cluster.ResourceType, error) {
	r := newReport(name)
	root, whole := read(r, data)
	t := &cluster.ResourceType{}
	r.places[""] = place{1, 1}
	if root != nil && root.kind != nullNode {
		r.fill(root, reflect.ValueOf(t).Elem(), "")
	}
	if whole && !r.spoiled[""] {
		r.problems("", t.Validate())
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return t, nil
}
