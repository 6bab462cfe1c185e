package cli

import (
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A mode is a word after -m and what it stands for.
type mode struct {
	words []string // the first is the one that help shows
	value string
	doc   string
}

var falloverModes = []mode{
	{[]string{"next", "fnpn"}, "FNPN", "to the next node of its list"},
	{[]string{"dynamic", "fudnp", "dnp"}, "FUDNP", "to the node that is best off at that moment (-p)"},
	{[]string{"offline", "bo", "none", "never"}, "BO", "nowhere: it goes offline"},
}

var fallbackModes = []mode{
	{[]string{"never", "nfb"}, "NFB", "it stays where it is"},
	{[]string{"higher", "fbhpn", "home"}, "FBHPN", "it returns to a node of higher priority"},
}

var startupModes = []mode{
	{[]string{"home", "ohn"}, "OHN", "on its home node only"},
	{[]string{"available", "first", "ofan"}, "OFAN", "on the first node that is there"},
	{[]string{"distribute", "oudp"}, "OUDP", "at most one such group on a node"},
	{[]string{"all", "oaan"}, "OAAN", "on all nodes at once"},
}

var stopModes = []mode{
	{[]string{"graceful", "offline"}, api.ManageOffline, "groups are released here and not taken over"},
	{[]string{"takeover", "move"}, api.ManageMove, "groups move to other nodes"},
	{[]string{"forced", "unmanage"}, api.ManageUnmanage, "groups run on, unmanaged"},
}

// modes lists the words that help shows.
func modes(list []mode) []string {
	var out []string
	for _, m := range list {
		out = append(out, m.words[0])
	}
	return out
}

func modeHelp(list []mode) string {
	var out []string
	for _, m := range list {
		out = append(out, m.words[0]+": "+m.doc)
	}
	return strings.Join(out, "; ")
}

// modeOf finds the value for a word after an option, in any case.
func modeOf(option, word string, list []mode) (string, error) {
	w := strings.ToLower(word)
	for _, m := range list {
		if hasWord(m.words, w) {
			return m.value, nil
		}
	}
	return "", fail(ExitIncorrect, "option -%s: %q is not one of %s%s", option, word, strings.Join(modes(list), ", "),
		cluster.DidYouMean(w, modes(list)))
}
