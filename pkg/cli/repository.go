package cli

import (
	"context"
	"path"
	"regexp"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// aixDisk is a disk as AIX calls it, and as PowerHA's clmgr takes it for a repository.
var aixDisk = regexp.MustCompile(`^hdisk(power)?[0-9]+$`)

// addRepositories names repository volumes: one by NAME DEVICE=..., or as many as there are paths or AIX disks, as PowerHA's clmgr takes
// them. All of them or none; formatting is a step of its own.
func addRepositories(ctx context.Context, s *session, t *target) error {
	if err := t.knownAttributes(s.set); err != nil {
		return err
	}
	devices, err := repositoryDevices(t, s.set)
	if err != nil {
		return err
	}
	if devices == nil {
		return addObject(ctx, s, t)
	}
	var names []string
	for _, d := range devices {
		names = append(names, path.Base(d))
	}
	what := "add repository " + strings.Join(t.names, ",")
	reply, err := s.edit(ctx, what, func(d *cluster.Definition) error {
		for i, name := range names {
			if err := t.class.Add(d, name, []cluster.Assignment{{Attribute: "DEVICE", Value: devices[i]}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.changed(ctx, what, reply, "repository "+join(names)+" is defined and active on all nodes; clmgr format repository writes each, which makes it a "+
		"backup of the one in use, or the one in use if there is none")
}

// repositoryDevices are the paths that were given instead of a name; nil: a name was given.
func repositoryDevices(t *target, set []cluster.Assignment) ([]string, error) {
	var out []string
	for _, name := range t.names {
		switch {
		case strings.HasPrefix(name, "/"):
			out = append(out, name)
		case aixDisk.MatchString(name) && len(set) == 0:
			out = append(out, "/dev/"+name)
		}
	}
	switch {
	case len(out) == 0 && len(t.names) == 1:
		return nil, nil
	case len(out) != len(t.names):
		return nil, fail(ExitIncorrect, "%s: several volumes are named by their paths (or AIX disks), and %s are not all such; usage: %s", t.what(),
			strings.Join(t.names, ","), t.usage())
	case len(set) > 0:
		return nil, fail(ExitIncorrect, "%s: %s is given beside a path, which says the device already; usage: %s", t.what(), set[0].Attribute, t.usage())
	}
	for _, d := range out {
		if err := cluster.CheckName(path.Base(d)); err != nil {
			return nil, fail(ExitIncorrect, "%s: the last part of %s cannot be a name (%v): use NAME DEVICE=%s", t.what(), d, err, d)
		}
	}
	return out, nil
}
