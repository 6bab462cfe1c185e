package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Which of the repository volumes is in use, which are its backups, and what the definition is after one has taken the place of
// another. As with VerificationInterval, what is not used is not filled in: see verification.go.

// The states of a repository volume, as the definition has it.
const (
	RepositoryActive      = "active"
	RepositoryBackup      = "backup"
	RepositoryLost        = "lost" // a backup has taken its place
	RepositoryUnformatted = "unformatted"
)

// Repository is the volume in use, nil if there is none.
func (d *Definition) Repository() *Repository {
	for i := range d.Repositories {
		if d.Repositories[i].usable() {
			return &d.Repositories[i]
		}
	}
	return nil
}

func (r *Repository) usable() bool { return r.UUID != "" && !r.Lost }

// BackupRepositories are the volumes that may take the place of the one in use, the first choice first.
func (d *Definition) BackupRepositories() []Repository {
	var out []Repository
	used := d.Repository()
	for i := range d.Repositories {
		if r := &d.Repositories[i]; r.usable() && r != used {
			out = append(out, *r)
		}
	}
	return out
}

// RepositoryState is one of the states above.
func (d *Definition) RepositoryState(r *Repository) string {
	used := d.Repository()
	switch {
	case r.UUID == "":
		return RepositoryUnformatted
	case r.Lost:
		return RepositoryLost
	case used != nil && used.UUID == r.UUID:
		return RepositoryActive
	}
	return RepositoryBackup
}

// RepositoryPatience is how long no node may be able to use the volume before it is taken for lost.
func (s *Settings) RepositoryPatience() time.Duration {
	if s.RepositoryLossTime == 0 {
		return DefaultRepositoryLossTime
	}
	return s.RepositoryLossTime
}

// ReplaceLostRepository is the definition after the backup with the id to has taken the place of the volume with the id from, which
// is lost: that one stays in the list, marked, so that nothing uses it should it come back. d is not changed. The error says why it
// cannot be.
func (d *Definition) ReplaceLostRepository(from, to string) (*Definition, error) {
	used := d.Repository()
	if used == nil || used.UUID != from {
		return nil, fmt.Errorf("the repository volume %s is not the one in use", from)
	}
	k := slices.IndexFunc(d.Repositories, func(r Repository) bool { return r.UUID == to && r.usable() })
	if k < 0 || to == from {
		return nil, fmt.Errorf("there is no backup repository %s", to)
	}
	out := d.Clone()
	fresh := out.Repositories[k]
	out.Repository().Lost = true
	out.Repositories = slices.Insert(slices.Delete(out.Repositories, k, k+1), 0, fresh)
	return out, nil
}
