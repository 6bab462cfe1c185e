package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// randomDefinition makes a cluster of the kind that a run is about.
func randomDefinition(r *rand.Rand, nodes int) *cluster.Definition {
	for {
		d := draw(r, nodes)
		d.Defaults()
		if len(d.Validate()) == 0 {
			return d
		}
	}
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func draw(r *rand.Rand, nodes int) *cluster.Definition {
	d := &cluster.Definition{Name: "sim", Networks: []cluster.Network{{Name: "net1"}, {Name: "net2"}}}
	d.Settings.Profile = pick(r, "default", "default", "fast")
	d.Settings.DeadmanMode = pick(r, "a", "a", "a", "a", "a", "a", "a", "e")
	if r.IntN(4) == 0 {
		d.Settings.SettlingTime = 2 * time.Second
	}
	for i := range nodes {
		d.Nodes = append(d.Nodes, cluster.Node{Name: fmt.Sprintf("n%d", i+1),
			Addresses:       map[string]string{"net1": fmt.Sprintf("10.0.1.%d", i+1), "net2": fmt.Sprintf("10.0.2.%d", i+1)},
			PlatformRestart: r.IntN(12) == 0})
	}
	for i := range d.Nodes {
		if r.IntN(3) == 0 {
			d.FenceDevices = append(d.FenceDevices, cluster.FenceDevice{Name: "fence" + d.Nodes[i].Name, Agent: "/usr/sbin/fence_sim",
				Nodes: []string{d.Nodes[i].Name}})
		}
	}
	if r.IntN(2) == 0 {
		d.FallbackTimers = []cluster.FallbackTimer{{Name: "nightly", Repeats: "daily", Hour: 9, Minute: r.IntN(2)}}
	}
	for i, n := 0, 2+r.IntN(5); i < n; i++ {
		d.ResourceGroups = append(d.ResourceGroups, randomGroup(r, d, i))
	}
	randomDependencies(r, d)
	return d
}

func randomGroup(r *rand.Rand, d *cluster.Definition, i int) cluster.ResourceGroup {
	g := cluster.ResourceGroup{Name: fmt.Sprintf("g%d", i+1)}
	for _, k := range r.Perm(len(d.Nodes)) {
		if len(g.Nodes) == 0 || r.IntN(5) > 0 {
			g.Nodes = append(g.Nodes, d.Nodes[k].Name)
		}
	}
	g.Startup = pick(r, cluster.OnlineOnHomeNode, cluster.OnlineOnFirstAvailable, cluster.OnlineOnFirstAvailable, cluster.OnlineOnFirstAvailable,
		cluster.OnlineUsingDistribution, cluster.OnlineOnAllAvailable)
	switch g.Startup {
	case cluster.OnlineOnAllAvailable:
		return g
	case cluster.OnlineUsingDistribution:
		g.Fallover = pick(r, cluster.FalloverToNextPriority, cluster.FalloverBringOffline)
	default:
		g.Fallover = pick(r, cluster.FalloverToNextPriority, cluster.FalloverToNextPriority, cluster.FalloverToNextPriority, cluster.FalloverUsingDNP,
			cluster.FalloverBringOffline)
		if g.Fallover == cluster.FalloverUsingDNP {
			g.NodePriorityPolicy = pick(r, cluster.PriorityCPU, cluster.PriorityMemory)
		}
		g.Fallback = pick(r, cluster.NeverFallback, cluster.FallbackToHigherPriority)
		if len(d.FallbackTimers) > 0 && g.Fallback == cluster.FallbackToHigherPriority && r.IntN(2) == 0 {
			g.FallbackAt = "nightly"
		}
	}
	g.Network = pick(r, "", "", "net1", "net2")
	g.Priority = r.IntN(4)
	g.OnReleaseFailure = pick(r, cluster.OnReleaseFailureError, cluster.OnReleaseFailureReset)
	return g
}

func randomDependencies(r *rand.Rand, d *cluster.Definition) {
	n := len(d.ResourceGroups)
	for k := r.IntN(3); k > 0; k-- {
		i, j := r.IntN(n), r.IntN(n)
		if i == j {
			continue
		}
		a, b := d.ResourceGroups[i].Name, d.ResourceGroups[j].Name
		dep := cluster.Dependency{}
		switch r.IntN(5) {
		case 0, 1:
			dep.Parent, dep.Child = a, b
		case 2:
			dep.Start, dep.After = a, b
		case 3:
			dep.Stop, dep.After = a, b
		case 4:
			if len(d.Nodes) < 2 {
				continue
			}
			dep.DifferentNodes = &cluster.DifferentNodes{High: []string{a}, Low: []string{b}}
		}
		d.Dependencies = append(d.Dependencies, dep)
	}
}

// changed is a definition with something else in it.
func changed(r *rand.Rand, old *cluster.Definition) *cluster.Definition {
	for range 20 {
		d := old.Clone()
		switch r.IntN(7) {
		case 0:
			d.Settings.Profile = pick(r, "default", "fast", "careful")
		case 1:
			d.Settings.DeadmanMode = pick(r, "a", "a", "e")
		case 2:
			g := &d.ResourceGroups[r.IntN(len(d.ResourceGroups))]
			g.Priority = r.IntN(5)
		case 3:
			d.Settings.FailureWindow = time.Duration(1+r.IntN(60)) * time.Minute
		case 4:
			if len(d.ResourceGroups) < 8 {
				g := randomGroup(r, d, 100+r.IntN(100))
				if d.Group(g.Name) == nil {
					d.ResourceGroups = append(d.ResourceGroups, g)
				}
			}
		case 5:
			if n := len(d.ResourceGroups); n > 2 && d.ResourceGroups[n-1].Name > "g100" {
				d.ResourceGroups = d.ResourceGroups[:n-1]
			}
		default:
			g := &d.ResourceGroups[r.IntN(len(d.ResourceGroups))]
			if !g.Concurrent() && len(g.Nodes) > 1 {
				k := 1 + r.IntN(len(g.Nodes)-1)
				g.Nodes[0], g.Nodes[k] = g.Nodes[k], g.Nodes[0]
			}
		}
		d.Defaults()
		if len(d.Validate()) == 0 {
			return d
		}
	}
	return old.Clone()
}
