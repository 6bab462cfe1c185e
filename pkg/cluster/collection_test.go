package cluster

import (
	"strings"
	"testing"
	"time"
)

func TestFileCollections(t *testing.T) {
	base := func() *Definition {
		return &Definition{Name: "c", Nodes: []Node{{Name: "a", Addresses: map[string]string{"n": "10.0.0.1/24"}}, {Name: "b", Addresses: map[string]string{"n": "10.0.0.2/24"}},
			{Name: "x", Addresses: map[string]string{"n": "10.0.0.3/24"}}}, Networks: []Network{{Name: "n"}},
			FileCollections: []FileCollection{{Name: "f", Files: []string{"/etc/hosts", "/opt/app/conf"}, Source: "a"}}}
	}
	if p := base().Validate(); len(p) > 0 {
		t.Fatalf("a good one is refused: %v", p)
	}
	for name, tc := range map[string]struct {
		change func(*Definition)
		want   string
	}{
		"no files":           {func(d *Definition) { d.FileCollections[0].Files = nil }, "has no files"},
		"relative":           {func(d *Definition) { d.FileCollections[0].Files = []string{"etc/hosts"} }, "is not absolute"},
		"dots":               {func(d *Definition) { d.FileCollections[0].Files = []string{"/opt/../etc/hosts"} }, "lead nowhere"},
		"the root":           {func(d *Definition) { d.FileCollections[0].Files = []string{"/"} }, "is a directory"},
		"the kernel's":       {func(d *Definition) { d.FileCollections[0].Files = []string{"/proc/sys/kernel/panic"} }, "is the kernel's"},
		"twice":              {func(d *Definition) { d.FileCollections[0].Files = []string{"/a", "/a"} }, "twice"},
		"unknown node":       {func(d *Definition) { d.FileCollections[0].Nodes = []string{"a", "q"} }, `no node "q"`},
		"unknown source":     {func(d *Definition) { d.FileCollections[0].Source = "q" }, `no node "q"`},
		"a source elsewhere": {func(d *Definition) { d.FileCollections[0].Nodes = []string{"b", "x"} }, "is not among"},
		"by itself, and from nowhere": {func(d *Definition) {
			d.FileCollections[0].Source, d.FileCollections[0].SyncWhenChanged = "", true
		}, "whose copy wins"},
		"two collections": {func(d *Definition) {
			d.FileCollections = append(d.FileCollections, FileCollection{Name: "g", Files: []string{"/etc/hosts"}})
		}, "is in the collection f already"},
		"too many": {func(d *Definition) {
			d.FileCollections[0].Files = strings.Split(strings.Repeat("/a ", MaxCollectionFiles)+"/b", " ")
		}, "has 257 files"},
		"an interval of a second": {func(d *Definition) { d.Settings.CollectionInterval = time.Second }, "cannot be used"},
	} {
		d := base()
		tc.change(d)
		var text []string
		for _, p := range d.Validate() {
			text = append(text, p.Path+": "+p.Text)
		}
		if !strings.Contains(strings.Join(text, "\n"), tc.want) {
			t.Errorf("%s: %q, wanted %q", name, text, tc.want)
		}
	}
}

// A node that goes takes its word with it: nothing keeps itself in step with a node that is not there.
func TestForgottenNodeOfCollections(t *testing.T) {
	d := &Definition{Nodes: []Node{{Name: "a"}, {Name: "b"}}, FileCollections: []FileCollection{
		{Name: "alone", Files: []string{"/a"}, Nodes: []string{"a"}},
		{Name: "some", Files: []string{"/b"}, Nodes: []string{"a", "b"}, Source: "a", SyncWhenChanged: true, SyncWithCluster: true}}}
	d.forget("node", "a")
	if len(d.FileCollections) != 1 {
		t.Fatalf("%+v", d.FileCollections)
	}
	f := d.FileCollections[0]
	if f.Name != "some" || len(f.Nodes) != 1 || f.Source != "" || f.SyncWhenChanged || f.SyncWithCluster {
		t.Errorf("%+v", f)
	}
}

func TestMinutes(t *testing.T) {
	d := &Definition{Name: "c"}
	c, _ := FindClass("cluster")
	for in, want := range map[string]time.Duration{"5": 5 * time.Minute, "1440": 24 * time.Hour, "90s": 90 * time.Second, "": 0} {
		if err := c.Attribute("FC_SYNC_INTERVAL").set(d, "c", in); err != nil || d.Settings.CollectionInterval != want {
			t.Errorf("%q: %v, %v", in, d.Settings.CollectionInterval, err)
		}
	}
	for _, in := range []string{"0", "1441", "x", "-5", "-5m"} {
		if err := c.Attribute("FC_SYNC_INTERVAL").set(d, "c", in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
