package scenario

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// bigScenario starts a cluster and crashes a node, as a file.
func bigScenario(nodes, groups int) []byte {
	var b strings.Builder
	b.WriteString("name: big\ncluster:\n  name: big\n  nodes: [")
	for i := range nodes {
		fmt.Fprintf(&b, "%snode%02d", []string{", ", ""}[b2i(i == 0)], i)
	}
	b.WriteString("]\n  networks: [net1]\n  resource_groups:\n")
	for i := range groups {
		fmt.Fprintf(&b, "    - {name: rg%03d, startup: OFAN, network: net1, priority: %d, nodes: [", i, i%5)
		for k := range min(8, nodes) {
			fmt.Fprintf(&b, "%snode%02d", []string{", ", ""}[b2i(k == 0)], (i+5*k)%nodes)
		}
		b.WriteString("]}\n")
	}
	b.WriteString("  dependencies:\n")
	for i := 0; i+3 < groups; i += 4 {
		fmt.Fprintf(&b, "    - {parent: rg%03d, child: rg%03d}\n    - {start: rg%03d, after: rg%03d}\n    - {different_nodes: {high: [rg%03d], low: [rg%03d]}}\n",
			i, i+1, i+2, i, i+2, i+3)
	}
	b.WriteString("steps:\n  - do: online cluster\n  - do: crash node00\n")
	return []byte(b.String())
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// BenchmarkSimulate is `clmgr simulate` of a start and a crash: decoding, playing and the report.
func BenchmarkSimulate(b *testing.B) {
	for _, c := range []struct{ nodes, groups int }{{8, 24}, {32, 256}} {
		b.Run(fmt.Sprintf("%dx%d", c.nodes, c.groups), func(b *testing.B) {
			file := bigScenario(c.nodes, c.groups)
			b.ReportAllocs()
			for b.Loop() {
				var out, errs bytes.Buffer
				if s := Command("big.yaml", bytes.NewReader(file), false, &out, &errs); s != ExitHeld {
					b.Fatalf("exit status %d: %s%.2000s", s, errs.String(), out.String())
				}
			}
		})
	}
}
