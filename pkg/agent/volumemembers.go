package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Who may use the repository volume stands in its header: the members, with their certificates, to which the volume's keys are sealed.
// The leader keeps it in step with the log: a node that joins gets a place, one that is removed loses it, and one that was rebuilt (the
// same name under a new server id and a new certificate) gets a new place in exchange for its old one. Until then such a node cannot
// host the repository voter.
//
// The leader compares at the beginning of its term, when the members change, and once a minute; what is equal is not written. A volume
// that is away is tried again. The write is made by the leader's own node if that has a place on the volume, else by another one that
// has: a leader that was itself rebuilt cannot read it yet.
//
// A deposed leader may do all this late. It can do no harm that lasts: the volume orders changes by the leader's term (package
// repository), each node refuses an order of an older term than its own, and what a deposed leader has put there while nobody newer had
// written, the newer one finds when it compares. Safety does not rest on the list: a node that is missing in it cannot claim, and the
// place of the newest claim is never taken from its owner.

const (
	keepEvery = time.Minute     // between two comparisons when nothing has changed
	keepRetry = 5 * time.Second // after one that failed
	keepLimit = 15 * time.Second
)

// volumeKeeping is what a leader's loop knows of the volume's list of members in its term.
type volumeKeeping struct {
	busy bool
	done string        // what was in force at the last comparison
	next lease.Instant // when to compare again although nothing has changed
	told string        // the error that was logged last
}

// A memberOrder asks a node to make the volume's list of members so.
type memberOrder struct {
	Term    uint64         `json:"term"`
	Device  string         `json:"device"`
	UUID    string         `json:"uuid"`
	Members []volumeMember `json:"members"`
}

// A volumeMember is one node that belongs on the list. Without a card it stays as it is, if it is there.
type volumeMember struct {
	Name string `json:"name"`
	Card []byte `json:"card,omitempty"`
}

// An introduction is what a node says of itself: its certificate, and the server id under which it was made a member.
type introduction struct {
	RaftID string `json:"raft_id"`
	Card   []byte `json:"card"`
}

// volumeKept is the end of a comparison.
type volumeKept struct {
	led  *leadership
	uuid string
	want string
	err  error
}

// tendVolumeMembers begins the comparisons that are due: of the volume in use, and of its backups, which could not take its place without
// a place for each node on them. Of the leader's loop.
func (m *member) tendVolumeMembers(led *leadership, view *state.State, now lease.Instant) {
	d := view.Definition
	if d == nil || d.Repository() == nil || d.Node(m.name) == nil {
		return
	}
	for _, v := range append([]cluster.Repository{*d.Repository()}, d.BackupRepositories()...) {
		m.tendMembersOf(led, view, v, now)
	}
}

func (m *member) tendMembersOf(led *leadership, view *state.State, repo cluster.Repository, now lease.Instant) {
	k := led.volumes[repo.UUID]
	if k == nil {
		k = &volumeKeeping{}
		led.volumes[repo.UUID] = k
	}
	if k.busy {
		return
	}
	order := memberOrder{Term: led.term, Device: repo.Device, UUID: repo.UUID}
	ids, alive := map[string]string{}, map[string]bool{}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s", repo.UUID, repo.Device)
	for i := range view.Definition.Nodes {
		name := view.Definition.Nodes[i].Name
		n := view.Node(name)
		if n == nil || n.RaftID == "" {
			continue // it has not joined: its former certificate, if there is one, is void
		}
		order.Members = append(order.Members, volumeMember{Name: name})
		ids[name], alive[name] = n.RaftID, n.Alive()
		fmt.Fprintf(&text, " %s:%s:%v", name, n.RaftID, n.Alive())
	}
	want := text.String()
	if now < k.next && (k.done == want || k.done == "") {
		return
	}
	k.busy = true
	m.work.Go(func() {
		ctx, cancel := context.WithTimeout(led.ctx, keepLimit)
		defer cancel()
		m.post(volumeKept{led, repo.UUID, want, m.compareMembers(ctx, order, ids, alive)})
	})
}

// gotVolumeKept takes the end of a comparison. Of the loop.
func (m *member) gotVolumeKept(e volumeKept) {
	k := e.led.volumes[e.uuid]
	k.busy = false
	now := m.clock.Now()
	if e.err == nil {
		k.done, k.next, k.told = e.want, now.Add(keepEvery), ""
		return
	}
	k.done, k.next = "", now.Add(keepRetry)
	if text := e.err.Error(); text != k.told && e.led.ctx.Err() == nil {
		k.told = text
		m.log.Warn("the repository volume's list of members could not be compared with the cluster's; it is tried again", "volume", e.uuid, "error", e.err)
	}
}

// compareMembers asks the nodes that are up for their certificates, and has the list made so.
func (m *member) compareMembers(ctx context.Context, order memberOrder, ids map[string]string, alive map[string]bool) error {
	var unasked error
	for i := range order.Members {
		v := &order.Members[i]
		if v.Name == m.name {
			v.Card = m.id.Card()
			continue
		}
		if !alive[v.Name] {
			continue
		}
		var in introduction
		out, err := m.links.Call(ctx, v.Name, rpcIntroduce, nil)
		if err == nil {
			err = json.Unmarshal(out, &in)
		}
		if err == nil && in.RaftID != ids[v.Name] { // a former machine of this name may still answer
			err = fmt.Errorf("it answers as server %s, and the log knows it as %s", in.RaftID, ids[v.Name])
		}
		if err != nil {
			// The rest is done; this one's place stays as it is until it answers.
			unasked = errors.Join(unasked, fmt.Errorf("ask node %s for its certificate: %w", v.Name, err))
			continue
		}
		v.Card = in.Card
	}
	return errors.Join(m.haveMembersKept(ctx, order, alive), unasked)
}

// haveMembersKept does it here, or has it done by the first node that can.
func (m *member) haveMembersKept(ctx context.Context, order memberOrder, alive map[string]bool) error {
	err := m.keepMembers(ctx, order)
	if err == nil {
		return nil
	}
	body, jerr := json.Marshal(order)
	if jerr != nil {
		return jerr
	}
	for _, v := range order.Members {
		if v.Name == m.name || !alive[v.Name] {
			continue
		}
		_, there := m.links.Call(ctx, v.Name, rpcKeepMembers, body)
		if there == nil {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("node %s: %w", v.Name, there))
	}
	return err
}

func (m *member) serveIntroduce(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(introduction{RaftID: m.id.RaftID, Card: m.id.Card()})
}

// serveKeepMembers does it for a leader that has no place on the volume, or does not reach it.
func (m *member) serveKeepMembers(ctx context.Context, from string, body []byte) ([]byte, error) {
	var order memberOrder
	if err := json.Unmarshal(body, &order); err != nil {
		return nil, errors.New("the order cannot be read")
	}
	if _, term := m.raft.Leader(); order.Term < term {
		return nil, fmt.Errorf("node %s led in term %d, and it is term %d", from, order.Term, term)
	}
	return nil, m.keepMembers(ctx, order)
}

// keepMembers makes the list of the volume so, from this node. One at a time per volume; an access that hangs keeps later ones from beginning.
func (m *member) keepMembers(ctx context.Context, order memberOrder) error {
	if _, busy := m.keeping.LoadOrStore(order.UUID, true); busy {
		return errors.New("an earlier change of the list of members has not ended")
	}
	done := make(chan error, 1)
	go func() { // apart: opening a file of a server that is gone can hang for ever
		defer m.keeping.Delete(order.UUID)
		done <- m.keepMembersNow(order)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *member) keepMembersNow(order memberOrder) error {
	vol, err := m.opt.OpenVolume(repository.Options{Path: order.Device, Cluster: m.id.ClusterUUID, Node: m.name, Authority: m.id,
		Dir: filepath.Join(m.opt.Node.StateDir, "repository"), Role: repository.RoleKeeper, Lab: m.opt.Node.Deadman.Backend == config.BackendLab})
	if err != nil {
		return err
	}
	defer vol.Close()
	if got := vol.UUID().String(); got != order.UUID {
		return fmt.Errorf("the volume %s has the id %s, and %s is in use", order.Device, got, order.UUID)
	}
	change, what := membersChange(vol.Members(), order.Members)
	if what == "" {
		return nil
	}
	change.Term = order.Term
	if err := vol.Change(change); err != nil {
		return err
	}
	m.log.Info("the repository volume's list of members was changed", "volume", order.UUID, "change", what)
	return nil
}

// membersChange is what makes the list as wanted; what is empty if nothing is to be done.
func membersChange(now []repository.Member, want []volumeMember) (c repository.Change, what string) {
	var words []string
	cards := map[string][]byte{}
	for _, w := range want {
		cards[w.Name] = w.Card
	}
	there := map[string]bool{}
	for _, h := range now {
		card, wanted := cards[h.Name]
		there[h.Name] = true
		switch {
		case !wanted:
			c.Remove = append(c.Remove, h.Name)
			words = append(words, h.Name+" is no member any more")
		case card != nil && !bytes.Equal(card, h.Card):
			c.Remove = append(c.Remove, h.Name)
			c.Add = append(c.Add, repository.Member{Name: h.Name, Card: card})
			words = append(words, h.Name+" has a new certificate")
		}
	}
	for _, w := range want {
		if !there[w.Name] && w.Card != nil {
			c.Add = append(c.Add, repository.Member{Name: w.Name, Card: w.Card})
			words = append(words, w.Name+" is a new member")
		}
	}
	return c, strings.Join(words, ", ")
}
