package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/fence"
	"github.com/holdfast-ha/holdfast/pkg/state"
	"github.com/holdfast-ha/holdfast/pkg/verify"
	"github.com/holdfast-ha/holdfast/pkg/verify/collect"
)

// A verification asks every member to look at itself, and judges here what they have seen (package verify). It holds no group,
// touches no loop, and a node that does not answer is a finding.

const (
	// inspectLimit is how long a node may take for a look without methods and fence devices.
	inspectLimit = 8 * time.Second
	reachLimit   = 1500 * time.Millisecond
	maxOutput    = 4 << 10 // bytes of a method's output that are shown
)

// deadmanView is what the loop knows of its deadman, for those who only look.
type deadmanView struct {
	dm       Deadman
	warnings []string
}

// inspectRequest asks a node to look at itself.
type inspectRequest struct {
	// YAML is a text to look with; empty: the node's own copy of the definition, staged if Staged says so.
	YAML   string `json:"yaml,omitempty"`
	Staged bool   `json:"staged,omitempty"`
	// Quick leaves out fence devices and methods. Methods names some; none: all.
	Quick   bool     `json:"quick,omitempty"`
	Methods []string `json:"methods,omitempty"`
}

// Verify implements server.Verifier.
func (a *Agent) Verify(ctx context.Context, who api.Caller, r api.VerifyRequest) (api.VerifyReport, error) {
	m, err := a.configured()
	if err != nil {
		return api.VerifyReport{}, err
	}
	report, err := m.verify(ctx, r)
	if err == nil {
		m.logVerification("clverify/clverify.log", who.String(), &report)
	}
	return report, err
}

// verify makes one whole verification, and with Fix a second one after the repairs.
func (m *member) verify(ctx context.Context, r api.VerifyRequest) (api.VerifyReport, error) {
	began := time.Now()
	in, subject, err := m.verifyInput(r)
	if err != nil {
		return api.VerifyReport{}, err
	}
	ask := inspectRequest{YAML: r.YAML, Staged: subject.staged, Quick: r.Quick, Methods: r.Methods}
	m.inspectAll(ctx, ask, in)
	var fixed []string
	if r.Fix {
		fixed = m.repairAll(ctx, ask, in)
		m.inspectAll(ctx, ask, in)
	}
	if r.NoDefaultChecks {
		in.Only = func(id string) bool { return id == "V2701" || id == "V0201" }
	}
	report := verify.Run(in)
	report.Subject, report.DefinitionVersion = subject.name, subject.version
	report.Fixed = fixed
	report.TookSeconds = time.Since(began).Seconds()
	if r.Quick {
		report.NotChecked = append(report.NotChecked, "fence devices and methods of your own (a quick look)")
	}
	return report, nil
}

// subject is what is verified.
type subject struct {
	name    string
	version uint64
	staged  bool
}

func (m *member) verifyInput(r api.VerifyRequest) (*verify.Input, subject, error) {
	view := m.view()
	in := &verify.Input{Now: m.wall()}
	sub := subject{name: "the active definition", version: view.DefinitionVersion}
	d := view.Definition
	switch {
	case r.YAML != "":
		sub = subject{name: r.File}
		if sub.name == "" {
			sub.name = "the text given"
		}
		var err error
		if d, err = decodeDefinition(r.File, r.YAML); err != nil {
			return nil, sub, err
		}
	case view.Staged != nil && !r.Active:
		d, sub = view.Staged.Definition, subject{name: "the staged definition", version: view.DefinitionVersion, staged: true}
	case d == nil:
		return nil, sub, api.Errorf(api.CodeUnavailable, "this node has not received the definition yet")
	}
	d = d.Clone()
	d.Defaults()
	for _, p := range d.Validate() {
		in.Faults = append(in.Faults, api.Fault{Key: p.Path, Message: p.Text + wantText(p.Want)})
	}
	if p, err := definedTimings(d); err == nil {
		in.Params = p
	}
	in.Definition = d
	if view.Staged != nil {
		in.Unsynced = view.Staged.Since
	}
	st := m.status()
	in.Status = &st
	return in, sub, nil
}

// inspectAll asks all nodes at once, those of the definition and those that are members now.
func (m *member) inspectAll(ctx context.Context, ask inspectRequest, in *verify.Input) {
	nodes := m.view().NodeNames()
	limit := inspectLimit
	if !ask.Quick {
		limit += slowest(in.Definition)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	in.Nodes, in.Silent = map[string]*verify.Facts{}, map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range nodes {
		wg.Go(func() {
			sent := time.Now()
			var f verify.Facts
			_, err := m.callNode(ctx, node, rpcInspect, ask, &f, func() any { return m.inspect(ctx, ask) })
			back := time.Now()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				in.Silent[node] = plainCause(err)
				return
			}
			f.Skew, f.Uncertain = skewOf(sent, back, &f)
			in.Nodes[node] = &f
		})
	}
	wg.Wait()
	for i := range in.Definition.Nodes {
		if n := in.Definition.Nodes[i].Name; !slices.Contains(nodes, n) {
			in.Silent[n] = "it is not a member yet"
		}
	}
}

// skewOf bounds how far another clock is from ours: it was read after the request left, and Took before the answer came.
func skewOf(sent, back time.Time, f *verify.Facts) (skew, uncertain time.Duration) {
	most, least := f.Time.Sub(sent), f.Time.Add(f.Took).Sub(back)
	if least > most {
		least = most
	}
	return (most + least) / 2, (most - least) / 2
}

// slowest is how long methods and fence devices may take.
func slowest(d *cluster.Definition) time.Duration {
	var most time.Duration
	for i := range d.Methods {
		most += d.Methods[i].Timeout
	}
	var device time.Duration
	for i := range d.FenceDevices {
		device = max(device, d.FenceDevices[i].Timeout)
	}
	return min(most+device, 5*time.Minute)
}

func plainCause(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}

func (m *member) serveInspect(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var ask inspectRequest
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, errors.New("the request to look cannot be read")
	}
	return json.Marshal(m.inspect(ctx, ask))
}

// lookedAt is the definition with which this node looks. Methods are run only from the cluster's own.
func (m *member) lookedAt(ask inspectRequest) *cluster.Definition {
	d := m.view().Definition
	if s := m.view().Staged; ask.Staged && s != nil {
		d = s.Definition
	}
	if ask.YAML != "" {
		if text, err := decodeDefinition("", ask.YAML); err == nil {
			d = text
		}
	}
	if d == nil {
		d = &cluster.Definition{}
	}
	d = d.Clone()
	d.Defaults()
	return d
}

// inspect looks at this node.
func (m *member) inspect(ctx context.Context, ask inspectRequest) *verify.Facts {
	d := m.lookedAt(ask)
	node := m.opt.Node
	id := m.a.identityDir()
	began := time.Now()
	f := m.opt.Inspect(ctx, collect.Options{Node: m.name, Definition: d,
		Places: []collect.Place{{Path: node.StateDir, Purpose: "the daemon's state", NeedMiB: 64}, {Path: node.LogDir, Purpose: "the logs", NeedMiB: 32},
			{Path: node.RunDir, Purpose: "the run directory", NeedMiB: 1}},
		Keys:  []string{id, filepath.Join(id, "ca-key.pem"), filepath.Join(id, "node-key.pem"), filepath.Join(id, "gossip.key")},
		Units: []string{"holdfast.service", "holdfast-deadman.service"}})
	view := m.view()
	f.Node, f.Version, f.Format, f.Definition = m.name, m.opt.Version, state.Format, view.DefinitionVersion
	f.Daemon.Port, f.Daemon.GossipPort, f.Daemon.Metrics = node.Port, node.GossipPort, node.Metrics
	m.inspectDeadman(f)
	m.inspectIdentity(f)
	m.inspectReach(ctx, d, f)
	if !ask.Quick {
		m.inspectPower(ctx, d, f)
		if ask.YAML == "" {
			m.runMethods(ctx, d, ask.Methods, f)
		} else if f.Missed = orMap(f.Missed); len(d.Methods) > 0 {
			f.Missed["methods"] = "methods are run only when they are part of the cluster's own definition"
		}
	}
	f.Took = time.Since(began)
	return f
}

func orMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func (m *member) inspectDeadman(f *verify.Facts) {
	f.Deadman = verify.Deadman{Backend: m.opt.Node.Deadman.Backend, Device: m.opt.Node.Deadman.Device}
	v := m.deadmanIs.Load()
	if v == nil || v.dm == nil {
		return
	}
	i, s := v.dm.Info(), v.dm.Status()
	f.Deadman.Connected, f.Deadman.Class, f.Deadman.Mode = true, string(i.Class), string(i.Mode)
	f.Deadman.Armed, f.Deadman.Watchdog, f.Deadman.Counted = i.Armed, i.Device, i.Watchdog
	f.Deadman.Held, f.Deadman.NoWayOut, f.Deadman.TakenOver = i.Held, i.NoWayOut, i.TakenOver
	f.Deadman.Warnings = append(append([]string(nil), i.Warnings...), v.warnings...)
	slices.Sort(f.Deadman.Warnings)
	f.Deadman.Warnings = slices.Compact(f.Deadman.Warnings)
	f.Deadman.WorstMargin = s.MinMargin
}

func (m *member) inspectIdentity(f *verify.Facts) {
	own, ca := m.id.Certificates()
	f.Certs = []verify.Cert{{What: "the node's certificate", NotBefore: own.NotBefore, NotAfter: own.NotAfter},
		{What: "the cluster's CA", NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}}
	f.CA = m.id.CAFingerprint().String()
}

// inspectReach tries to reach every other member on every network that both have: by TCP at its own address there, and by what
// the ring says of UDP.
func (m *member) inspectReach(ctx context.Context, d *cluster.Definition, f *verify.Facts) {
	self := d.Node(m.name)
	active := m.view().Definition
	if self == nil || active == nil {
		return
	}
	quiet := m.silentOnRings()
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16)
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if n.Name == m.name || active.Node(n.Name) == nil {
			continue // a node that is not a member yet answers nobody
		}
		for _, w := range d.Networks {
			text, ok := n.Addresses[w.Name]
			if _, here := self.Addresses[w.Name]; !ok || !here {
				continue
			}
			wg.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()
				r := m.reach(ctx, n.Name, w.Name, plainAddress(text))
				if r.Error == "" && quiet[w.Name+"/"+n.Name] {
					r.Error = "TCP is answered, gossip (UDP) is not"
				}
				mu.Lock()
				f.Reach = append(f.Reach, r)
				mu.Unlock()
			})
		}
	}
	wg.Wait()
	slices.SortFunc(f.Reach, func(a, b verify.Reach) int { return strings.Compare(a.Network+" "+a.Node, b.Network+" "+b.Node) })
}

func (m *member) reach(ctx context.Context, node, network, address string) verify.Reach {
	r := verify.Reach{Node: node, Network: network, Address: address}
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	dial := func(ctx context.Context, a string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", a)
	}
	if n := m.opt.Network; n != nil && n.Dial != nil {
		dial = n.Dial
	}
	began := time.Now()
	c, err := dial(ctx, net.JoinHostPort(address, m.port()))
	r.Took = time.Since(began)
	if err != nil {
		r.Error = plainCause(err)
		return r
	}
	_ = c.Close()
	return r
}

// silentOnRings lists network/node of those that the rings have not heard.
func (m *member) silentOnRings() map[string]bool {
	out := map[string]bool{}
	g := m.gossip.Load()
	if g == nil {
		return out
	}
	for _, s := range g.Status() {
		if !s.Up && s.Node != m.name {
			out[s.Network+"/"+s.Node] = true
		}
	}
	return out
}

// powerAsker is a fencer that can also ask.
type powerAsker interface {
	Status(ctx context.Context, d *cluster.FenceDevice, node string) (fence.Power, error)
}

// inspectPower asks each device for the power of the node that follows this one in the definition: so every device is asked for
// every node, and every node proves that it can talk to every device that it might need.
func (m *member) inspectPower(ctx context.Context, d *cluster.Definition, f *verify.Facts) {
	ask, ok := m.fencer.(powerAsker)
	if !ok || len(d.FenceDevices) == 0 {
		return
	}
	next := ""
	for i := range d.Nodes {
		if d.Nodes[i].Name == m.name {
			next = d.Nodes[(i+1)%len(d.Nodes)].Name
		}
	}
	f.Power = map[string]verify.Power{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range d.FenceDevices {
		dev := &d.FenceDevices[i]
		if !slices.Contains(dev.Nodes, next) {
			continue
		}
		wg.Go(func() {
			p, err := ask.Status(ctx, dev, next)
			out := verify.Power{State: string(p)}
			if err != nil {
				out.Error = err.Error()
			}
			mu.Lock()
			f.Power[dev.Name+"/"+next] = out
			mu.Unlock()
		})
	}
	wg.Wait()
}

// runMethods runs the administrator's own checks, one after another.
func (m *member) runMethods(ctx context.Context, d *cluster.Definition, only []string, f *verify.Facts) {
	for i := range d.Methods {
		x := &d.Methods[i]
		if x.Type != cluster.MethodVerify || len(x.Nodes) > 0 && !slices.Contains(x.Nodes, m.name) || len(only) > 0 && !slices.Contains(only, x.Name) {
			continue
		}
		if f.Methods == nil {
			f.Methods = map[string]verify.MethodRun{}
		}
		out := m.runner.Run(ctx, executor.Command{Scope: executor.Scope{Kind: "verify", Name: x.Name}, Op: "verify", Path: x.File,
			Env: []string{"HOLDFAST_NODE=" + m.name, "HOLDFAST_CLUSTER=" + d.Name, "HOLDFAST_METHOD=" + x.Name}, Timeout: x.Timeout, Unrecorded: true})
		run := verify.MethodRun{Exit: out.Exit, Output: bounded(out.Output, maxOutput), Took: out.Duration}
		if out.Err != nil && out.Exit <= 0 {
			run.Error = out.Err.Error()
		}
		f.Methods[x.Name] = run
	}
}

func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// repairAll lets every node repair what is safe. The node looks again and decides itself what that is.
func (m *member) repairAll(ctx context.Context, ask inspectRequest, in *verify.Input) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*inspectLimit)
	defer cancel()
	var out []string
	for _, node := range m.view().NodeNames() {
		if in.Nodes[node] == nil {
			continue
		}
		var done []string
		if _, err := m.callNode(ctx, node, rpcRepair, ask, &done, func() any { return m.repair(ctx, ask) }); err != nil {
			done = []string{"nothing, or it is not known: " + plainCause(err)}
		}
		for _, d := range done {
			out = append(out, node+": "+d)
		}
	}
	return out
}

func (m *member) serveRepair(ctx context.Context, from string, body []byte) ([]byte, error) {
	var ask inspectRequest
	if err := json.Unmarshal(body, &ask); err != nil || ask.YAML != "" {
		return nil, errors.New("the request to repair cannot be used")
	}
	m.log.Info("node " + from + " asks for repairs after a verification")
	return json.Marshal(m.repair(ctx, ask))
}

// repair does what this node's own look finds repairable. What the asking node has seen counts for nothing here.
func (m *member) repair(ctx context.Context, ask inspectRequest) []string {
	ask.Quick = true
	in, _, err := m.verifyInput(api.VerifyRequest{Active: !ask.Staged})
	if err != nil {
		return []string{"nothing: " + err.Error()}
	}
	in.Nodes = map[string]*verify.Facts{m.name: m.inspect(ctx, ask)}
	out := []string{}
	for _, a := range verify.Actions(in, m.name) {
		did, err := collect.Repair(a)
		switch {
		case err != nil:
			out = append(out, fmt.Sprintf("%s %s was not repaired: %v", a.For.Check, a.For.Object, err))
		case did != "":
			m.log.Info("repaired after a verification", "check", a.For.Check, "what", did)
			out = append(out, fmt.Sprintf("%s %s: %s", a.For.Check, a.For.Object, did))
		}
	}
	return out
}
