package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The watcher looks from outside, many times a second, who holds which address, mount, disk and lock. It knows nothing of the
// product: it reads what the kernel says about each node's init.

type watchOptions struct {
	interval time.Duration
	length   time.Duration
	format   string
	ignore   []string
}

func watchCommand(c *common) *cobra.Command {
	o := &watchOptions{}
	var here bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show who holds which address, mount, disk and lock, and flag whatever two nodes hold at once",
		Long: `Look many times a second who holds which service address, mount point, disk and lock below /shared, as the kernel tells from
outside the nodes, and flag whatever two nodes hold at once. The exit status is 1 when such an overlap was seen. Overlaps that
are shorter than the time between two looks can be missed; the report says how long that was at worst.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.format != "text" && o.format != "json" && o.format != "jsonl" {
				return usageError(fmt.Errorf("-o %q: want text, json or jsonl", o.format))
			}
			if o.interval <= 0 || o.length < 0 {
				return usageError(errors.New("--interval must be positive"))
			}
			if here {
				return runWatch(cmd.Context(), c.client(), *o, os.Stdout)
			}
			return inClientNamespace(cmd, c, os.Args[1:])
		}}
	f := cmd.Flags()
	f.DurationVar(&o.interval, "interval", 10*time.Millisecond, "time between two looks")
	f.DurationVar(&o.length, "for", 0, "how long (default: until interrupted)")
	f.StringVarP(&o.format, "output", "o", "text", "output form: text, json (one report at the end) or jsonl (each event as it comes)")
	f.StringSliceVar(&o.ignore, "ignore", nil, "names that several nodes may hold, as patterns: --ignore '/mnt/*'")
	f.BoolVar(&here, "here", false, "watch from where this command runs")
	return cmd
}

// A watched is one boot of a node, as the watcher sees it.
type watched struct {
	name  string
	index int
	eyes  *nodeEyes
	held  map[lab.Holding]string // with a detail for the reader
}

// A watcher makes a report of samples. All its fields belong to the goroutine of run.
type watcher struct {
	o      watchOptions
	out    io.Writer
	cfg    *lab.Config
	dir    string
	nodes  []*watched
	locks  *lockReader
	report lab.WatchReport
	open   map[string]*lab.Overlap // going on now
	last   time.Time
}

func runWatch(ctx context.Context, c lab.Client, o watchOptions, out io.Writer) error {
	cfg, err := lab.ReadConfig(c.Dir)
	if err != nil {
		return err
	}
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	w := &watcher{o: o, out: out, cfg: cfg, dir: c.Dir, open: map[string]*lab.Overlap{},
		locks: newLockReader(filepath.Join(c.Dir, lab.SharedDir))}
	for i, n := range st.Nodes {
		w.nodes = append(w.nodes, &watched{name: n.Name, index: i + 1, held: map[lab.Holding]string{}})
		w.note(lab.Event{Node: n.Name, Kind: "up", Detail: "already", PID: n.PID})
	}
	events := make(chan lab.Event, 256)
	var lost error
	go func() {
		defer close(events)
		lost = c.Events(ctx, func(e lab.Event) bool {
			events <- e
			return true
		})
	}()
	w.run(ctx, events)
	if ctx.Err() == nil && !errors.Is(lost, lab.ErrNotRunning) {
		return &exitError{code: 2, err: fmt.Errorf("the watch broke off: %w", lost)}
	}
	if n := len(w.report.Overlaps); n > 0 {
		return &exitError{code: 1, err: fmt.Errorf("%d overlaps were seen", n)}
	}
	return nil
}

// run looks until the context ends or the events do, which is when the lab goes down.
func (w *watcher) run(ctx context.Context, events <-chan lab.Event) {
	now := time.Now()
	w.report = lab.WatchReport{Begin: now, Overlaps: []lab.Overlap{}, Held: map[string][]lab.Holding{}}
	w.last = now
	w.sample()
	w.emit(lab.WatchEvent{Event: "begin", Time: now})
	tick := time.NewTicker(w.o.interval)
	defer tick.Stop()
	for ctx.Err() == nil && events != nil {
		select {
		case <-ctx.Done():
		case e, ok := <-events:
			if !ok {
				events = nil
				break
			}
			w.note(e)
		case <-tick.C:
			w.sample()
		}
	}
	w.finish()
	go func() { // the events' sender must not be stuck
		for range events {
		}
	}()
}

// note follows the boots of nodes. A node that is down needs no word: what it held is seen to be gone.
func (w *watcher) note(e lab.Event) {
	if e.Kind == "up" && e.PID != 0 {
		for _, n := range w.nodes {
			if n.name == e.Node && (n.eyes == nil || n.eyes.pid != e.PID) {
				n.eyes.close()
				n.eyes = newNodeEyes(e.PID, w.ownAddresses(n.index), filepath.Join(w.dir, lab.NodesDir, n.name, baseMounts))
			}
		}
	}
	if e.Kind != "daemon" && e.Detail != "already" {
		w.emit(lab.WatchEvent{Event: "node", Time: e.Time, Node: e.Node, Detail: strings.TrimSpace(e.Kind + " " + e.Detail)})
	}
}

func (w *watcher) ownAddresses(index int) map[string]bool {
	own := map[string]bool{}
	for k := 1; k <= w.cfg.Networks; k++ {
		own[w.cfg.Address(index, k)] = true
	}
	return own
}

// sample looks once at all nodes.
func (w *watcher) sample() {
	now := time.Now()
	w.report.WorstGap = max(w.report.WorstGap, now.Sub(w.last))
	w.report.Samples++
	w.last = now
	locks := w.locks.read(w.nodes)
	for _, n := range w.nodes {
		held := n.look()
		maps.Copy(held, locks.held[n.name])
		w.compare(n, held)
	}
	w.checkOverlaps(locks)
}

// look reads what the node holds now, locks excepted.
func (n *watched) look() map[lab.Holding]string {
	if n.eyes == nil {
		return map[lab.Holding]string{}
	}
	return n.eyes.look()
}

func (w *watcher) compare(n *watched, held map[lab.Holding]string) {
	now := time.Now()
	for _, h := range sorted(n.held) {
		if _, still := held[h]; !still {
			w.emit(lab.WatchEvent{Event: "lost", Time: now, Node: n.name, Holding: &h})
		}
	}
	for _, h := range sorted(held) {
		if _, before := n.held[h]; !before {
			w.emit(lab.WatchEvent{Event: "gained", Time: now, Node: n.name, Holding: &h, Detail: held[h]})
		}
	}
	n.held = held
}

func sorted(m map[lab.Holding]string) []lab.Holding {
	list := make([]lab.Holding, 0, len(m))
	for h := range m {
		list = append(list, h)
	}
	sort.Slice(list, func(i, j int) bool {
		return list[i].Kind < list[j].Kind || (list[i].Kind == list[j].Kind && list[i].What < list[j].What)
	})
	return list
}

// checkOverlaps finds what several nodes held in this sample, and proves it by a second look: the nodes were read one after
// another, so a thing that moved between two reads shows up twice without ever having been twice.
func (w *watcher) checkOverlaps(locks lockSample) {
	holders := map[lab.Holding][]*watched{}
	for _, n := range w.nodes {
		for h := range n.held {
			holders[h] = append(holders[h], n)
		}
	}
	seen := map[string]bool{}
	for h, nodes := range holders {
		if len(nodes) < 2 || h.Kind == "lock" || w.ignored(h) {
			continue
		}
		if names := confirm(h, nodes); len(names) > 1 {
			seen[w.overlap(h, names)] = true
		}
	}
	for h, names := range locks.wanted {
		if !w.ignored(h) {
			seen[w.overlap(h, names)] = true
		}
	}
	for key, o := range w.open {
		if !seen[key] {
			w.closeOverlap(key, o)
		}
	}
}

// confirm reads the earlier nodes again. One that still has the thing had it while the last node was seen to have it.
func confirm(h lab.Holding, nodes []*watched) []string {
	var names []string
	for _, n := range nodes[:len(nodes)-1] {
		if _, still := n.look()[h]; still {
			names = append(names, n.name)
		}
	}
	return append(names, nodes[len(nodes)-1].name)
}

func (w *watcher) ignored(h lab.Holding) bool {
	return slices.ContainsFunc(w.o.ignore, func(pattern string) bool {
		ok, err := path.Match(pattern, h.What)
		return (err == nil && ok) || pattern == h.What
	})
}

// overlap notes an overlap of this sample, and returns the key under which it goes on.
func (w *watcher) overlap(h lab.Holding, names []string) string {
	sort.Strings(names)
	key := h.Kind + " " + h.What + " " + strings.Join(names, ",")
	now := time.Now()
	o := w.open[key]
	if o == nil {
		o = &lab.Overlap{Holding: h, Nodes: names, Begin: now, Last: now}
		w.open[key] = o
		w.emit(lab.WatchEvent{Event: "overlap", Time: now, Overlap: o})
	}
	o.Seen++
	o.Last = now
	o.Took = o.Last.Sub(o.Begin)
	return key
}

func (w *watcher) closeOverlap(key string, o *lab.Overlap) {
	delete(w.open, key)
	w.report.Overlaps = append(w.report.Overlaps, *o)
	w.emit(lab.WatchEvent{Event: "overlap_end", Time: o.Last, Overlap: o})
}

func (w *watcher) finish() {
	for key, o := range w.open {
		w.closeOverlap(key, o)
	}
	sort.Slice(w.report.Overlaps, func(i, j int) bool { return w.report.Overlaps[i].Begin.Before(w.report.Overlaps[j].Begin) })
	w.report.End = time.Now()
	for _, n := range w.nodes {
		if len(n.held) > 0 {
			w.report.Held[n.name] = sorted(n.held)
		}
		n.eyes.close()
	}
	w.emit(lab.WatchEvent{Event: "report", Time: w.report.End, Report: &w.report})
}

func (w *watcher) emit(e lab.WatchEvent) {
	switch {
	case w.o.format == "jsonl":
		_ = json.NewEncoder(w.out).Encode(e)
	case w.o.format == "json" && e.Report != nil:
		_ = writeJSON(w.out, e.Report)
	case w.o.format == "text":
		fmt.Fprintln(w.out, e.Time.Format("15:04:05.000000"), watchText(e))
	}
}

func watchText(e lab.WatchEvent) string {
	switch e.Event {
	case "gained", "lost":
		words := fmt.Sprintf("%s %s %s %s", e.Node, e.Event, e.Holding.Kind, e.Holding.What)
		if e.Detail != "" {
			words += " (" + e.Detail + ")"
		}
		return words
	case "overlap":
		return fmt.Sprintf("OVERLAP: %s %s on %s", e.Overlap.Kind, e.Overlap.What, strings.Join(e.Overlap.Nodes, " and "))
	case "overlap_end":
		return fmt.Sprintf("overlap over: %s %s on %s, seen for %.3f s", e.Overlap.Kind, e.Overlap.What,
			strings.Join(e.Overlap.Nodes, " and "), e.Overlap.Took.Seconds())
	case "node":
		return e.Node + " " + e.Detail
	case "begin":
		return "watching"
	}
	return fmt.Sprintf("%d looks in %.1f s, at worst %v apart, %d overlaps", e.Report.Samples, e.Report.End.Sub(e.Report.Begin).Seconds(),
		e.Report.WorstGap.Round(100*time.Microsecond), len(e.Report.Overlaps))
}
