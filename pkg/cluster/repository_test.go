package cluster

import (
	"strings"
	"testing"
)

const (
	uuidOne = "11111111-2222-4333-8444-555555555551"
	uuidTwo = "11111111-2222-4333-8444-555555555552"
	uuidTri = "11111111-2222-4333-8444-555555555553"
)

// Who is in use and who is not, before and after a loss: a volume that was lost is in use in no order of the list.
func TestReplaceLostRepository(t *testing.T) {
	d := &Definition{Name: "c", Repositories: []Repository{{Name: "raw", Device: "/0"}, {Name: "one", Device: "/1", UUID: uuidOne},
		{Name: "two", Device: "/2", UUID: uuidTwo}, {Name: "three", Device: "/3", UUID: uuidTri}}}
	states := func(d *Definition) string {
		var out []string
		for i := range d.Repositories {
			out = append(out, d.Repositories[i].Name+" "+d.RepositoryState(&d.Repositories[i]))
		}
		return strings.Join(out, ", ")
	}
	if got := states(d); got != "raw unformatted, one active, two backup, three backup" {
		t.Error(got)
	}
	next, err := d.ReplaceLostRepository(uuidOne, uuidTri)
	if err != nil {
		t.Fatal(err)
	}
	if got := states(next); got != "three active, raw unformatted, one lost, two backup" {
		t.Error(got)
	}
	if got := states(d); got != "raw unformatted, one active, two backup, three backup" {
		t.Errorf("the definition itself was changed: %s", got)
	}
	last, err := next.ReplaceLostRepository(uuidTri, uuidTwo)
	if err != nil {
		t.Fatal(err)
	}
	if got := states(last); got != "two active, three lost, raw unformatted, one lost" || len(last.BackupRepositories()) != 0 {
		t.Error(got)
	}
	last.Repositories = append(last.Repositories[1:], last.Repositories[0]) // an operator's file in another order
	if last.Repository().Name != "two" {
		t.Errorf("%s is in use", last.Repository().Name)
	}
	for _, c := range [][2]string{{uuidOne, uuidTwo}, {uuidTri, uuidOne}, {uuidTri, uuidTri}, {uuidTri, ""}, {"", uuidTwo}} {
		if d, err := next.ReplaceLostRepository(c[0], c[1]); err == nil {
			t.Errorf("%v: %s", c, states(d))
		}
	}
	d.Repositories[0].Lost = true
	if list := d.Validate(); !hasProblem(list, "repositories[0].lost") {
		t.Errorf("a volume that is lost and has no id is valid: %v", list)
	}
}

func hasProblem(list []Problem, path string) bool {
	for _, p := range list {
		if strings.Contains(p.String(), path) {
			return true
		}
	}
	return false
}
