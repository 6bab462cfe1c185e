package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// clcmd prints each node's output under its name, in the order that it was given, names what was not done, and its status says so.
func TestNodeCommand(t *testing.T) {
	l := newLab(t)
	var asked api.RemoteRequest
	results := []api.RemoteResult{{Node: "node1", State: api.RemoteDone, Output: []byte("one\n")}, {Node: "node2", State: api.RemoteDone, Output: []byte("no line end")}}
	l.backend.OnRemote = func(_ api.Caller, r api.RemoteRequest) (api.RemoteOperation, error) {
		asked = r
		return api.RemoteOperation{Done: true, Nodes: results}, nil
	}
	got := l.call(t.Context(), Env{Name: "clcmd"}, "-n", "node1,node2", "-t", "7", "ls", "-l", "-n", "$(x)")
	line := strings.Repeat("-", 31) + "\n"
	if want := line + "NODE node1\n" + line + "one\n" + line + "NODE node2\n" + line + "no line end\n"; got.status != ExitOK || got.out != want || got.errors != "" {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if !slices.Equal(asked.Command.Argv, []string{"ls", "-l", "-n", "$(x)"}) || !slices.Equal(asked.Nodes, []string{"node1", "node2"}) || asked.Timeout != 7 {
		t.Errorf("%+v", asked)
	}
	results = []api.RemoteResult{{Node: "node1", State: api.RemoteFailed, Exit: 3, Output: []byte("x\n"), Detail: "exit status 3"},
		{Node: "node2", State: api.RemoteUnreachable, Exit: -1, Detail: "away\x1b[2J"}, {Node: "node3", State: api.RemoteDone}}
	got = l.call(t.Context(), Env{Name: "cl_nodecmd"}, "ls")
	if got.status != ExitFailed || strings.Contains(got.out, "NODE node2") || !strings.Contains(got.out, "NODE node3\n"+line) ||
		!strings.Contains(got.errors, "cl_nodecmd: node1: failed: exit status 3\n") || !strings.Contains(got.errors, "not done on 2 of 3 nodes: node1, node2") ||
		strings.Contains(got.errors, "\x1b") {
		t.Errorf("%d %q %q", got.status, got.out, got.errors)
	}
	if l.call(t.Context(), Env{Name: "clcmd"}, "-n", "node1", "--", "-x", "--", "y"); !slices.Equal(asked.Command.Argv, []string{"-x", "--", "y"}) {
		t.Errorf("%q", asked.Command.Argv)
	}
	for line, status := range map[string]int{"": ExitMissing, "-n": ExitMissing, "-t 0 ls": ExitIncorrect, "-t x ls": ExitIncorrect, "-t 3601 ls": ExitIncorrect, "-n , ls": ExitMissing,
		"-q ls": ExitNotFound, "../ls": ExitIncorrect, "-i short ls": ExitIncorrect} {
		asked = api.RemoteRequest{}
		if got := l.call(t.Context(), Env{Name: "clcmd"}, strings.Fields(line)...); got.status != status || got.out != "" || got.errors == "" || asked.Command != nil {
			t.Errorf("clcmd %s: %+v, want %d", line, got, status)
		}
	}
}

func TestCollectionCommands(t *testing.T) {
	l := newLab(t)
	var asked api.RemoteRequest
	l.backend.OnRemote = func(_ api.Caller, r api.RemoteRequest) (api.RemoteOperation, error) {
		asked = r
		return api.RemoteOperation{Done: true, Nodes: []api.RemoteResult{{Node: "node1", State: api.RemoteDone, Files: []api.FileResult{{Path: "/etc/hosts", State: api.FileSame}}},
			{Node: "node2", State: api.RemoteDone, Files: []api.FileResult{{Path: "/etc/hosts", State: api.FileReplaced, Detail: "other content"}}}}}, nil
	}
	got := l.call(t.Context(), Env{Name: "clmgr"}, "sync", "file_collection", "fc1,fc2", "SOURCE=node1", "NODES=node2")
	if got.status != ExitOK || !strings.Contains(got.out, "node2        replaced  /etc/hosts: other content\n") || !strings.Contains(got.out, "the same on 2 nodes; copies written: 1") ||
		asked.Collection.Source != "node1" || asked.Collection.CompareOnly || !slices.Equal(asked.Collection.Names, []string{"fc1", "fc2"}) || !slices.Equal(asked.Nodes, []string{"node2"}) {
		t.Errorf("%+v %+v", got, asked)
	}
	got = l.call(t.Context(), Env{Name: "clmgr"}, "verify", "fc", "fc1")
	if got.status != ExitOK || !asked.Collection.CompareOnly {
		t.Errorf("%+v %+v", got, asked)
	}
	if got := l.call(t.Context(), Env{Name: "clmgr"}, "sync", "fc"); got.status != ExitNotFound || !strings.Contains(got.errors, "there are no file collections") {
		t.Errorf("%+v", got)
	}
}
