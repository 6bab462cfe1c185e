package agent

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/monitor"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Readings for dynamic node priority, taken only where a group of this node's asks for them, and told to the log only when
// they have changed enough to matter: the log is for decisions, not for curves.

const (
	measureEvery  = 5 * time.Second
	measureChange = 0.1 // of the value told before
	scriptTimeout = 10 * time.Second
)

func (m *member) keepMeasuring(ctx context.Context) {
	var reader monitor.LoadReader
	told, silent := map[string]float64{}, map[string]string{}
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		view := m.view()
		inc := m.incarnation(view)
		if view.Definition == nil || inc == 0 {
			continue
		}
		groups := dynamicGroups(view.Definition, m.name)
		if len(groups) == 0 {
			continue
		}
		ms, news := m.measure(ctx, &reader, groups, told, silent)
		if news {
			m.submit(&state.Command{Measure: &state.Measure{Node: m.name, Incarnation: inc, Measures: ms}})
		}
	}
}

// dynamicGroups lists the groups of this node that choose their node by what is measured.
func dynamicGroups(d *cluster.Definition, node string) []*cluster.ResourceGroup {
	var out []*cluster.ResourceGroup
	for i := range d.ResourceGroups {
		if g := &d.ResourceGroups[i]; g.Fallover == cluster.FalloverUsingDNP && g.Has(node) {
			out = append(out, g)
		}
	}
	return out
}

// measure reads what the groups want, and reports whether any of it has changed enough to be told. silent keeps why a group's script
// has no answer, so that each cause is logged once and not every few seconds.
func (m *member) measure(ctx context.Context, r *monitor.LoadReader, groups []*cluster.ResourceGroup, told map[string]float64,
	silent map[string]string) (state.Measures, bool) {
	var ms state.Measures
	news := false
	note := func(key string, v float64) *float64 {
		if old, ok := told[key]; ok && math.Abs(v-old) <= measureChange*math.Max(math.Abs(old), 1) {
			return nil
		}
		told[key], news = v, true
		return &v
	}
	if l, err := r.Read(); err == nil {
		ms.CPU, ms.Memory, ms.Disk = note("cpu", l.IdleCPU), note("mem", l.FreeMemory), note("disk", l.BusyDisk)
	}
	for _, g := range groups {
		if g.NodePriorityScript == "" {
			continue
		}
		v, err := m.askScript(ctx, g)
		if err != nil {
			if silent[g.Name] != err.Error() {
				m.log.Warn("the script of dynamic node priority has no answer", "group", g.Name, "error", err)
			}
			silent[g.Name] = err.Error()
			continue
		}
		delete(silent, g.Name)
		if p := note("script/"+g.Name, v); p != nil {
			if ms.Script == nil {
				ms.Script = map[string]float64{}
			}
			ms.Script[g.Name] = *p
		}
	}
	return ms, news
}

// askScript runs a group's own script. Its answer is the first number that it prints, or else its exit status, as PowerHA's
// scripts give it.
func (m *member) askScript(ctx context.Context, g *cluster.ResourceGroup) (float64, error) {
	limit := g.NodePriorityTimeout
	if limit <= 0 {
		limit = scriptTimeout
	}
	o := m.runner.Run(ctx, executor.Command{Scope: executor.Scope{Group: g.Name, Name: "node_priority"}, Op: "monitor", Path: g.NodePriorityScript,
		Timeout: limit, Unrecorded: true, Env: []string{"HOLDFAST_GROUP=" + g.Name, "HOLDFAST_NODE=" + m.name}})
	if w := strings.Fields(o.Output); len(w) > 0 {
		if v, err := strconv.ParseFloat(w[0], 64); err == nil {
			return v, nil
		}
	}
	if o.Exit < 0 {
		return 0, o.Err
	}
	return float64(o.Exit), nil
}
