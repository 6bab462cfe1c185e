package agent

import (
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// maxAtOnce bounds the steps that are taken side by side: each may be a process.
const maxAtOnce = 32

// stages puts a group's resources, which are in the order of acquisition, into stages: the resources of a stage do not need each
// other and are acquired side by side, the stages one after another. Addresses are one stage; so are file systems, except that one
// inside another, or made of something that lies in another, comes after it. Everything else keeps its place in the row. Sequential:
// so do the file systems, with the outer before the inner.
func stages(resources []executor.Resource, sequential bool) [][]executor.Resource {
	var out [][]executor.Resource
	for i := 0; i < len(resources); {
		kind := resources[i].Kind
		end := i
		for end < len(resources) && resources[end].Kind == kind {
			end++
		}
		row := resources[i:end]
		i = end
		switch {
		case kind == executor.KindServiceIP:
			out = append(out, row)
		case kind == executor.KindFileSystem && sequential:
			out = append(out, oneByOne(slices.Concat(layers(row)...))...)
		case kind == executor.KindFileSystem:
			out = append(out, layers(row)...)
		default:
			out = append(out, oneByOne(row)...)
		}
	}
	return out
}

func oneByOne(row []executor.Resource) [][]executor.Resource {
	var out [][]executor.Resource
	for i := range row {
		out = append(out, row[i:i+1])
	}
	return out
}

// layers puts file systems into layers: each needs nothing of its own layer or a later one. Some that need each other in a circle
// keep the order in which they are listed.
func layers(row []executor.Resource) [][]executor.Resource {
	var out [][]executor.Resource
	left := slices.Clone(row)
	for len(left) > 0 {
		var now, later []executor.Resource
		for _, r := range left {
			if slices.ContainsFunc(left, func(o executor.Resource) bool { return needs(r.FileSystem, o.FileSystem) }) {
				later = append(later, r)
			} else {
				now = append(now, r)
			}
		}
		if len(now) == 0 {
			return append(out, oneByOne(left)...)
		}
		out = append(out, now)
		left = later
	}
	return out
}

// needs reports whether file system a can only be mounted when b is.
func needs(a, b *cluster.FileSystem) bool {
	if a == nil || b == nil || a == b || a.Name == b.Name {
		return false
	}
	inside := strings.TrimSuffix(b.MountPoint, "/") + "/"
	return strings.HasPrefix(a.MountPoint, inside) || strings.HasPrefix(a.Device, inside)
}

// sideBySide takes a step on each resource, many at once, and returns the results in the order of the resources.
func sideBySide(resources []executor.Resource, step func(executor.Resource) executor.Result) []executor.Result {
	results := make([]executor.Result, len(resources))
	if len(resources) == 1 {
		results[0] = step(resources[0])
		return results
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxAtOnce)
	for i, r := range resources {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i] = step(r)
		})
	}
	wg.Wait()
	return results
}
