package cluster

import (
	"fmt"
	"strings"
)

// The distribution preferences of a network (RESOURCE_DIST_PREF): by which a service IP chooses its interface among several.
const (
	AntiCollocation               = "AC"   // spread over the interfaces
	Collocation                   = "C"    // together on one
	CollocationWithPersistent     = "CPL"  // together, where the node's persistent IP is
	AntiCollocationWithPersistent = "ACPL" // spread over the others than where the persistent IP is
)

var distributions = []string{AntiCollocation, Collocation, CollocationWithPersistent, AntiCollocationWithPersistent}

// refusedDistribution says why one of PowerHA's other preferences cannot be used; empty for all other texts.
func refusedDistribution(s string) string {
	plain := map[string]string{"ACS": AntiCollocation, "CS": Collocation, "ACPLS": AntiCollocationWithPersistent}
	switch s = strings.ToUpper(s); s {
	case "ACS", "CS", "ACPLS":
		return fmt.Sprintf("%s would make the service IP the source of what the node sends, which is not supported; %s places it the same way "+
			"and leaves the node's own address the source", s, plain[s])
	case "NOALI":
		return "NOALI is not supported and not needed: a service IP is never put before the node's own address, which stays the source " +
			"of what the node sends; AC does it"
	}
	return ""
}

// distribution lets an attribute refuse the preferences that are known and not supported with their own sentence.
func distribution(f field[Network]) field[Network] {
	write := f.write
	f.write = func(d *Definition, n *Network, v string) error {
		if why := refusedDistribution(v); why != "" {
			return fmt.Errorf("%s", why)
		}
		return write(d, n, v)
	}
	return f
}

// A Place is an interface on which a service IP may be put.
type Place struct {
	Name       string
	Services   int  // service IPs that are on it, the one that is placed left out
	Persistent bool // the node's persistent IP of the network is on it
}

// PlaceAddress chooses among the interfaces that can be used, in the order of preference, by the network's distribution
// preference; an empty one is AC. It returns the index and a clause that says why. It is a preference: as long as there is an
// interface the address gets one. With no places it returns -1.
func PlaceAddress(preference string, places []Place) (int, string) {
	if len(places) == 0 {
		return -1, "there is no interface that can be used"
	}
	persistent := -1
	for i := range places {
		if places[i].Persistent && persistent < 0 {
			persistent = i
		}
	}
	switch preference {
	case CollocationWithPersistent:
		if persistent >= 0 {
			return persistent, places[persistent].Name + " carries the node's persistent IP (collocation with it)"
		}
		return together(places)
	case Collocation:
		return together(places)
	case AntiCollocationWithPersistent:
		return spread(places, func(p Place) bool { return !p.Persistent })
	}
	return spread(places, func(Place) bool { return true })
}

func together(places []Place) (int, string) {
	best := 0
	for i := range places {
		if places[i].Services > places[best].Services {
			best = i
		}
	}
	return best, places[best].Name + " carries the most service addresses of the network's interfaces (collocation)"
}

// spread takes the interface with the fewest service IPs among those that are wanted, and among all if none of them is.
func spread(places []Place, wanted func(Place) bool) (int, string) {
	best := -1
	for i, p := range places {
		if wanted(p) && (best < 0 || p.Services < places[best].Services) {
			best = i
		}
	}
	if best < 0 {
		best, _ = spread(places, func(Place) bool { return true })
		return best, places[best].Name + " is left, although the persistent IP is on it"
	}
	return best, places[best].Name + " carries the fewest service addresses of the network's interfaces (anti-collocation)"
}
