package state

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, c := range map[string]struct {
		in    string
		newer bool
	}{
		"empty":             {"", false},
		"not JSON":          {"\x00\x01\x02", false},
		"no format":         {`{"command":{"at":"2026-01-05T09:00:00Z","noop":{}}}`, false},
		"a newer format":    {`{"format":99,"command":{}}`, true},
		"an unknown kind":   {`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","teleport":{}}}`, false},
		"an unknown field":  {`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","noop":{"x":1}}}`, false},
		"no kind":           {`{"format":1,"command":{"at":"2026-01-05T09:00:00Z"}}`, false},
		"two kinds":         {`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","noop":{},"clear_node":{"node":"a"}}}`, false},
		"something behind":  {`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","noop":{}}}{}`, false},
		"a wrong type":      {`{"format":1,"command":{"at":"yesterday","noop":{}}}`, false},
		"a negative number": {`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","node_lost":{"node":"a","incarnation":-1,"sentence":""}}}`, false},
		"too long an id":    {`{"format":1,"command":{"id":"` + strings.Repeat("x", 65) + `","at":"2026-01-05T09:00:00Z","noop":{}}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeCommand([]byte(c.in))
			if err == nil {
				t.Fatal("it was taken")
			}
			if errors.Is(err, ErrUnknown) != c.newer {
				t.Fatalf("newer is %v: %v", c.newer, err)
			}
		})
	}
	if _, err := DecodeCommand(bytes.Repeat([]byte(" "), maxCommand+1)); err == nil {
		t.Fatal("a command without bounds was taken")
	}
	if _, err := Decode([]byte(`{"format":1,"state":{"nodes":{"a":null},"measures":{}}}`)); err == nil {
		t.Fatal("a state with an empty node was taken")
	}
	if _, err := (&Command{}).Encode(); err == nil {
		t.Fatal("an empty command was written")
	}
}

// goldenState is what format 1 has written: newer code must read it for ever.
const goldenState = `{"format":1,"state":{"format":1,"cluster_id":"id","epoch":1,"generation":1099511627777,"index":6,"term":1,` +
	`"definition":{"name":"demo","nodes":[{"name":"n1"}],"resource_groups":[{"name":"a","nodes":["n1"],"startup":"OHN","fallover":"FNPN","fallback":"NFB"}],"settings":{}},` +
	`"definition_version":1,"nodes":{"n1":{"name":"n1","incarnation":1,"boot_id":"b","services":"on","up_since":3,"measures":{}}},` +
	`"groups":{"a":{"name":"a","generation":1099511627777,"instances":{"n1":{"state":"ONLINE","held":true,"incarnation":1,"generation":1099511627777,"since":6}},"phase":"active"}},` +
	`"events":[{"id":1,"index":1,"at":"2026-01-05T09:00:01Z","name":"reconfig_configuration_complete","sentence":"the cluster demo was created"}],"applied":[{"id":"x","index":2}]}}`

func TestOldDataLoads(t *testing.T) {
	s, err := Decode([]byte(goldenState))
	if err != nil {
		t.Fatal(err)
	}
	if h := s.Holds("n1", 1); len(h) != 1 || h[0].Generation != 1<<40+1 || s.LastEvent() != 1 {
		t.Fatalf("the old state says %v", h)
	}
	for _, old := range []string{
		`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","acquire":{"group":"a","node":"n1","incarnation":1,"based":1099511627777,"reason":"r"}}}`,
		`{"format":1,"command":{"id":"1","at":"2026-01-05T09:00:00Z","by":"root","report":{"node":"n1","incarnation":1,"group":"a","generation":1099511627777,"outcome":"released"}}}`,
		`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","armed":{"fact":{"node":"n1","incarnation":1,"class":"independent","mode":"a","watchdog":5000000000,"max_age":500000000,"residue":500000000,"margin":100000000},"arming":"x"}}}`,
	} {
		c, err := DecodeCommand([]byte(old))
		if err != nil {
			t.Fatal(err)
		}
		Apply(s, Entry{Index: 7, Term: 1, Command: c})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	l := newLog(t, three())
	for range 3 * maxEvents {
		l.ok(Command{Note: &Note{Event: "server_restart", Node: "n1", Group: "a", Sentence: strings.Repeat("ä", 1000)}})
	}
	ev := l.s.Events(0)
	if len(ev) < maxEvents || len(ev) >= maxEvents+ringBlock {
		t.Fatalf("%d events are kept", len(ev))
	}
	for i := 1; i < len(ev); i++ {
		if ev[i].ID != ev[i-1].ID+1 {
			t.Fatalf("event %d follows %d", ev[i].ID, ev[i-1].ID)
		}
	}
	if last := ev[len(ev)-1]; last.ID != l.s.LastEvent() || len(last.Sentence) > maxSentence || !strings.HasSuffix(last.Sentence, "ä") {
		t.Fatalf("the newest event is %+v", last)
	}
	if got := l.s.Events(l.s.LastEvent()); len(got) != 1 {
		t.Fatalf("%d events from the last on", len(got))
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add([]byte(`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","noop":{}}}`))
	f.Add([]byte(`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","proof":{"node":"n1","incarnation":1,"kind":"time","time":{"t0":1,"now":2,"armed":{}},"sentence":""}}}`))
	f.Add([]byte(`{"format":1,"command":{"at":"2026-01-05T09:00:00Z","set_definition":{"base":1,"definition":{"name":"x","nodes":[{"name":"n1"}],"settings":{}}}}}`))
	s := New()
	c := Command{Create: &Create{ClusterID: "id", Definition: three()}}
	s, _ = Apply(s, Entry{Index: 1, Term: 1, Command: &c})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := DecodeCommand(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		n, r := Apply(s, Entry{Index: 2, Term: 1, Command: c})
		if r.Refused == "" {
			if b, err := n.Encode(); err != nil {
				t.Fatalf("the state cannot be written: %v", err)
			} else if _, err := Decode(b); err != nil {
				t.Fatalf("the state cannot be read: %v", err)
			}
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(goldenState))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil || s.Definition == nil || len(s.Definition.Nodes) == 0 {
			return
		}
		node := s.Definition.Nodes[0].Name
		for i, c := range []Command{
			{NodeServices: &NodeServices{Start: StartAuto}},
			{NodeBoot: &NodeBoot{Node: node, BootID: "fuzz", Replaces: s.Nodes[node].Incarnation, AllStopped: true}},
			{NodeServices: &NodeServices{Stop: StopMove}},
			{SetDefinition: &SetDefinition{Base: s.DefinitionVersion, Definition: three()}},
		} {
			s, _ = Apply(s, Entry{Index: s.Index + uint64(i) + 1, Term: 1, Command: &c})
		}
		if _, err := s.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
