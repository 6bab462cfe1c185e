package server_test

import (
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/server"
)

// A configuration is forced only where the same names were given twice.
func TestRecoverNeedsTheNamesTwice(t *testing.T) {
	r := start(t, server.Access{})
	asked := 0
	r.backend.OnRecover = func(api.Recover) (api.Reply, error) { asked++; return api.Reply{Index: 7}, nil }
	for _, c := range []struct {
		r    api.Recover
		code api.Code
	}{
		{api.Recover{}, api.CodeMissing},
		{api.Recover{Dead: []string{"n2"}}, api.CodeRefused},
		{api.Recover{Dead: []string{"n2", "n3"}, Confirm: []string{"n2"}}, api.CodeRefused},
		{api.Recover{Dead: []string{"n2"}, Confirm: []string{"n2", "n3"}}, api.CodeRefused},
		{api.Recover{Dead: []string{"n2"}, Lost: []string{"repo"}, Confirm: []string{"n2"}}, api.CodeRefused},
		{api.Recover{Dead: []string{"n2", "n2"}, Confirm: []string{"n2", "n2"}}, api.CodeInvalid},
		{api.Recover{Dead: []string{"n2"}, Confirm: []string{"n2"}, ID: "short"}, api.CodeInvalid},
	} {
		if c.r.ID == "" {
			c.r.ID = client.NewID()
		}
		if _, err := r.client.Recover(t.Context(), c.r); api.CodeOf(err) != c.code {
			t.Errorf("%+v: %v, want code %s", c.r, err, c.code)
		}
	}
	if asked != 0 {
		t.Fatalf("%d requests without the names twice reached the backend", asked)
	}
	good := api.Recover{ID: client.NewID(), Dead: []string{"n2", "n3"}, Lost: []string{"repo"}, Confirm: []string{"repo", "n3", "n2"}}
	if reply, err := r.client.Recover(t.Context(), good); err != nil || reply.Index != 7 || asked != 1 {
		t.Errorf("the names in another order: %+v, %v, asked %d times", reply, err, asked)
	}
}
