package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

// FuzzWire: whatever is sent, the server answers with a status, never panics, and passes nothing on that has no id or no known
// operation.
func FuzzWire(f *testing.F) {
	f.Add("POST", api.PathRequests, `{"id":"0123456789abcdef","op":"move","groups":["g"],"node":"n"}`)
	f.Add("PUT", api.PathDefinition, `{"id":"0123456789abcdef","yaml":"name: x","base_version":1}`)
	f.Add("GET", api.PathStatus+"?wait=0&since=1&instance=test", "")
	f.Add("GET", api.PathEvents+"?since=1&limit=99999999999", "")
	f.Add("POST", api.PathJoin, `{"token":"x","addresses":["a"]}`)
	f.Add("DELETE", api.PathCluster, "")
	b := servertest.New(api.Status{})
	b.SetYAML("name: x\n")
	s, err := New(Config{Backend: b, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	h := s.handler(func(*http.Request) (api.Caller, error) { return api.Caller{User: "root", Role: api.RoleAdmin}, nil })
	f.Fuzz(func(t *testing.T, method, target, body string) {
		if strings.Contains(target, "wait=") {
			return // a wait for a change that nobody makes
		}
		r, err := http.NewRequest(method, "http://x/"+strings.TrimPrefix(target, "/"), strings.NewReader(body))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 || w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s %q: status %d %s", method, target, body, w.Code, w.Body)
		}
		for _, q := range b.Requests() {
			if checkID(q.ID) != nil || q.Op.Role() == api.RoleNone {
				t.Errorf("%+v reached the backend", q)
			}
		}
	})
}
