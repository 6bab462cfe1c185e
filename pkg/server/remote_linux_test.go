package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/server"
)

// Free commands are a right of their own: an administrator without it has it not, and who has it is no more than a viewer besides.
// File collections are an administrator's, comparing them an operator's.
func TestRightsToOperationsOnNodes(t *testing.T) {
	r := start(t, server.Access{AdminUsers: []int{7601}, OperateUsers: []int{7602}, ViewUsers: []int{7603}, CommandUsers: []int{7604}, CommandGroups: []int{7020}})
	r.backend.OnRemote = func(who api.Caller, q api.RemoteRequest) (api.RemoteOperation, error) {
		return api.RemoteOperation{By: who.String()}, nil
	}
	if err := os.Chmod(filepath.Dir(r.socket), 0o755); err != nil {
		t.Fatal(err)
	}
	openParents(t, r.socket)
	const id = `"id":"0123456789abcdef"`
	bodies := []string{`{` + id + `,"command":{"argv":["date","-u"]}}`, `{` + id + `,"collection":{"names":["f"]}}`, `{` + id + `,"collection":{"names":["f"],"compare_only":true}}`}
	for name, tc := range map[string]struct {
		uid    int
		groups []int
		want   string
	}{
		"admin":            {7601, nil, "403 200 200"},
		"operator":         {7602, nil, "403 403 200"},
		"viewer":           {7603, nil, "403 403 403"},
		"command":          {7604, nil, "200 403 403"},
		"command by group": {7605, []int{7020}, "200 403 403"},
		"nobody":           {7606, nil, "403 403 403"},
	} {
		var got []string
		asUser(t, tc.uid, 7999, tc.groups, func() {
			for _, b := range bodies {
				answer := ask(t, r.socket, "POST", api.PathRemote, b)
				got = append(got, strings.TrimPrefix(answer, "HTTP/1.1 ")[:3])
			}
		})
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s: %s, want %s", name, s, tc.want)
		}
	}
	for _, want := range []string{`what="free command date -u"`, "result=begun", "result=forbidden", `what="sync file_collection f"`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the record has no %s:\n%s", want, r.log.String())
		}
	}
}

// What cannot be an operation does not reach the backend.
func TestImpossibleOperationsOnNodes(t *testing.T) {
	r := start(t, server.Access{})
	r.backend.OnRemote = func(_ api.Caller, q api.RemoteRequest) (api.RemoteOperation, error) {
		t.Errorf("it got through: %+v", q)
		return api.RemoteOperation{}, nil
	}
	const id = `"id":"0123456789abcdef"`
	for _, b := range []string{`{}`, `{` + id + `}`, `{` + id + `,"command":{"argv":[]}}`, `{` + id + `,"command":{"argv":[""]}}`, `{` + id + `,"command":{"argv":["a\u0000"]}}`,
		`{` + id + `,"command":{"argv":["./x"]}}`, `{` + id + `,"command":{"argv":["x"]},"collection":{"names":["f"]}}`, `{` + id + `,"collection":{"names":[]}}`,
		`{` + id + `,"command":{"argv":["x"]},"timeout":-1}`, `{` + id + `,"command":{"argv":["x"]},"timeout":3601}`, `{` + id + `,"command":{"argv":["x"],"shell":true}}`,
		`{"id":"short","command":{"argv":["x"]}}`, `{` + id + `,"command":{"argv":["` + strings.Repeat("x", api.MaxRemoteArgBytes+1) + `"]}}`} {
		if answer := ask(t, r.socket, "POST", api.PathRemote, b); !strings.HasPrefix(answer, "HTTP/1.1 4") {
			t.Errorf("%.80s: %.200s", b, answer)
		}
	}
}
