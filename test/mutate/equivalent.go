package main

import "strings"

// An equivalent mistake is none: the program does the same with it. It is counted as not noticed all the same, so that the score
// stays a lower bound; the second score leaves it out, and it is printed with the reason.
type equivalent struct {
	file   string // the end of the path; empty: any
	place  string // a part of the line, with what is replaced between « and »
	with   string // what it is replaced with
	reason string
}

// equivalents were each found among the survivors of a sample, and read.
var equivalents = []equivalent{
	{"", "[«2»][]int{", "3", "an empty list more is walked"},
	{"scheduler/obstacle.go", "return -«1»", "2", "what is not in a set has a negative tier: it is compared with tiers from 0 up and with itself only"},
	{"scheduler/model.go", "return -«1»", "2", "an order: only the sign is looked at; or no tier, which is not asked for of units that are in the set"},
	{"scheduler/model.go", "\t\treturn «1»", "2", "an order: only the sign is looked at"},
	{"scheduler/leave.go", "to: -«1»", "2", "no node: only the sign is looked at"},
	{"scheduler/place.go", "in, -«1»)", "2", "no node to leave: it is compared with indexes from 0 up only"},
	{"", "leaving: -«1»", "2", "no node to leave: it is compared with indexes from 0 up only"},
	{"scheduler/place.go", "node: -«1»", "2", "no node: only the sign is looked at"},
	{"scheduler/place.go", "in.startup == cluster.OnlineOnHomeNode && len(g.list) > «0»", "1", "the first of a list of one is the list"},
}

func (e equivalent) is(m Mutant) bool {
	return strings.HasSuffix(m.File, e.file) && strings.Contains(m.Place, e.place) && m.With == e.with
}

// changesNothing says why a mistake is none; empty if it may be one.
func changesNothing(m Mutant) string {
	for _, e := range equivalents {
		if e.is(m) {
			return e.reason
		}
	}
	return ""
}
