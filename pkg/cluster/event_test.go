package cluster

import (
	"os"
	"strings"
	"testing"
)

// Every event around which commands may run is in the documentation, with where they run.
func TestEventsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	where := map[EventKind]string{EventOfCluster: "every node", EventOfGroup: "the node that does it",
		EventOfResource: "the node that does it, for each resource"}
	for _, e := range KnownEvents() {
		if row := "| `" + e.Name + "` | " + where[e.Kind] + " | " + e.Doc + " |\n"; !strings.Contains(string(b), row) {
			t.Errorf("docs/events.md lacks %s", row)
		}
	}
}
