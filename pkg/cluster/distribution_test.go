package cluster

import (
	"strings"
	"testing"
)

func TestPlaceAddress(t *testing.T) {
	p := func(name string, services int, persistent bool) Place { return Place{name, services, persistent} }
	three := []Place{p("eth0", 2, true), p("eth1", 0, false), p("eth2", 3, false)}
	level := []Place{p("eth0", 1, false), p("eth1", 1, false)}
	lone := []Place{p("eth0", 4, true)}
	for _, c := range []struct {
		preference string
		places     []Place
		want       int
		why        string
	}{
		{"", three, 1, "anti-collocation"},
		{"AC", three, 1, "fewest"},
		{"AC", level, 0, "eth0 carries the fewest"}, // the order decides between equals
		{"AC", lone, 0, "eth0"},
		{"C", three, 2, "(collocation)"},
		{"C", level, 0, "(collocation)"},
		{"CPL", three, 0, "persistent IP"},
		{"CPL", level, 0, "(collocation)"}, // the persistent IP is nowhere
		{"CPL", three[1:], 1, "(collocation)"},
		{"ACPL", three, 1, "anti-collocation"},
		{"ACPL", []Place{three[0], three[2]}, 1, "anti-collocation"}, // although it carries more
		{"ACPL", lone, 0, "is left, although the persistent IP is on it"},
		{"ACPL", level, 0, "anti-collocation"},
		{"AC", nil, -1, "no interface"},
		{"CPL", nil, -1, "no interface"},
	} {
		if got, why := PlaceAddress(c.preference, c.places); got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%q of %v: %d, %q; wanted %d, %q", c.preference, c.places, got, why, c.want, c.why)
		}
	}
}

// What is known and not supported is refused with a sentence of its own, by the file and by the command alike.
func TestDistributionsThatAreRefused(t *testing.T) {
	class, err := FindClass("network")
	if err != nil {
		t.Fatal(err)
	}
	for preference, text := range map[string]string{"ACS": "AC places it the same way", "CS": "C places it the same way",
		"ACPLS": "ACPL places it the same way", "NOALI": "stays the source"} {
		d := whole()
		d.Networks[0].Distribution = preference
		if p := d.Validate(); len(p) != 1 || !strings.Contains(p[0].String(), text) {
			t.Errorf("%s in a file: %v", preference, p)
		}
		d = whole()
		if err := class.Set(d, "net1", "RESOURCE_DIST_PREF", strings.ToLower(preference)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s by the command: %v", preference, err)
		}
	}
}
