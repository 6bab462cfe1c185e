package metrics

import "sort"

// Names lists every metric of this package as Prometheus stores it: histograms as _bucket, _sum and _count. Rules and
// dashboards are checked against it.
func Names() []string {
	m := New("")
	m.SetSource(func() Sample {
		return Sample{Nodes: []Node{{}}, Groups: []Group{{}}, Lease: &Lease{}, Deadman: &Deadman{Connected: true, Armed: true}, Raft: &Raft{Volume: &Volume{}}, Gossip: []Ring{{}},
			Refused: &Refused{}}
	})
	m.ExecutorRun("")
	m.ExecutorFailed("")
	m.ExecutorTook("", "", 0)
	m.Event("")
	families, err := m.registry.Gather()
	if err != nil {
		panic("metrics: two instruments of one name: " + err.Error())
	}
	var out []string
	for _, f := range families {
		name := f.GetName()
		if len(f.Metric) > 0 && f.Metric[0].Histogram != nil {
			out = append(out, name+"_bucket", name+"_sum", name+"_count")
			continue
		}
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
