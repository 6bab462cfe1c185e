package agent

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Nothing of the log is said to one member, however clear its own answer, before all were asked.
func TestA10NothingIsSaidBeforeAllWereAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{}
		m.memory.id, m.memory.asked, m.memory.cleared = &consensus.Identity{}, map[string]bool{"n2": true}, make(chan struct{})
		if m.hasAsked("n2") {
			t.Error("a round is confirmed for n2 while others have not answered")
		}
		began := time.Now()
		if err := m.mayTalk("n2"); err == nil || time.Since(began) != rememberOne {
			t.Errorf("talks to n2 after %v: %v", time.Since(began), err)
		}
		go func() { time.Sleep(time.Millisecond); close(m.memory.cleared) }()
		if err := m.mayTalk("n2"); err != nil {
			t.Error(err)
		}
		if !m.hasAsked("n2") || m.hasAsked("n3") {
			t.Error("asked is not asked")
		}
	})
}

// What lies in a log counts also where it was not applied yet; a log that cannot be read to its end knows nothing yet.
func TestA10AnswersOfALog(t *testing.T) {
	value := func(n uint64) string { return bootValue("n1-aa", consensus.Boot{Number: n, Random: "r"}) }
	entry := func(node, v string) []byte {
		b, err := (&state.Command{BootRandom: &state.BootRandom{Node: node, Value: v}}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	body, err := json.Marshal(rememberRequest{Server: "n1-aa"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		log  [][]byte
		fail error
		want rememberReply
	}{
		"nothing":                    {nil, nil, rememberReply{}},
		"the newest of several":      {[][]byte{entry("n1", value(3)), entry("n1", value(4)), entry("n1", value(2))}, nil, rememberReply{Boot: value(4)}},
		"another node's":             {[][]byte{entry("n2", value(9))}, nil, rememberReply{}},
		"another server of the node": {[][]byte{entry("n1", bootValue("n1-bb", consensus.Boot{Number: 9}))}, nil, rememberReply{}},
		"no commands":                {[][]byte{nil, []byte("x")}, nil, rememberReply{}},
		"cut meanwhile":              {[][]byte{entry("n1", value(3))}, errors.New("gone"), rememberReply{NotYet: true}},
	} {
		out, err := answerMemory("n1", body, state.New(), func(f func([]byte)) error {
			for _, b := range c.log {
				f(b)
			}
			return c.fail
		}, false)
		var got rememberReply
		if err != nil || json.Unmarshal(out, &got) != nil || got != c.want {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, c.want)
		}
	}
}
