package cluster

import (
	"testing"
	"time"
)

func TestFormation(t *testing.T) {
	inBubble(t, options{}, func(r *rig) {
		for g, home := range map[string]string{"g1": "n1", "g2": "n2", "g3": "n3"} {
			if h := r.holder(g); h != home {
				t.Errorf("%s is served by %q, not at home on %s", g, h, home)
			}
		}
		r.watch.forget()
		time.Sleep(30 * time.Second)
		if o := r.watch.outages(""); len(o) > 0 {
			t.Errorf("outages of a cluster at rest: %v", o)
		}
	})
}
