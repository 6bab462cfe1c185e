package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/consensus"
	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/identity"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/peer"
	"github.com/holdfast-ha/holdfast/pkg/repository"
)

// The repository voter's process. Each node of a cluster with a repository volume runs one beside its agent: it waits until it may
// claim the volume, and then runs the voter until the claim is over. It serves nobody but the other voters, decides nothing and
// touches no resource.

// VoterOptions configure the process. Device, DeviceSize, Network, Clock and Exit are replaced by tests.
type VoterOptions struct {
	Node   *config.Node
	Device string // path of the volume
	UUID   string // of its format, by the definition
	Params lease.Params
	Logger *slog.Logger

	// Orders are lines: "handover NODE" gives the voter to a node. Their end says that the agent is gone: the voter goes on for
	// orphanLimit, so that an agent that is back at once finds nothing changed, and then gives its claim up.
	Orders io.Reader
	// Report is told each change: JSON of VoterReport, one per line.
	Report io.Writer

	Open    func(repository.Options) (*repository.Volume, error)
	Network *peer.Config // Dial and Listen of it are used, if set
	Clock   lease.Clock
	Exit    func(reason string)
}

// A VoterReport is what the process says of itself.
type VoterReport struct {
	State string `json:"state"`          // waiting, running, ended
	Host  string `json:"host,omitempty"` // who runs the voter, as the volume shows; "" if nobody does
	Text  string `json:"text,omitempty"`
}

// The values of VoterReport.State.
const (
	VoterWaiting = "waiting"
	VoterRunning = "running"
	VoterEnded   = "ended" // Text says why; the last report
)

const (
	orphanLimit  = 5 * time.Second
	hostInterval = 500 * time.Millisecond // between two looks at who hosts, while waiting
)

// RunVoter runs until the context ends, the claim is over, the voter was handed over, or the agent is gone.
func RunVoter(ctx context.Context, o VoterOptions) (err error) {
	// Whoever starts the process again must be able to say why it ends.
	ends := func(why string) {
		if b, err := json.Marshal(VoterReport{State: VoterEnded, Text: why}); err == nil && o.Report != nil {
			_, _ = o.Report.Write(append(b, '\n'))
		}
	}
	defer func() {
		if err != nil {
			ends(err.Error())
		}
	}()
	if exit := o.Exit; exit != nil {
		o.Exit = func(why string) { ends(why); exit(why) }
	}
	if o.Open == nil {
		o.Open = repository.Open
	}
	if o.Clock == nil {
		o.Clock = deadman.BootClock{}
	}
	id, err := identity.Load(filepath.Join(o.Node.StateDir, "identity"))
	if err != nil {
		return err
	}
	vol, err := o.Open(repository.Options{Path: o.Device, Cluster: id.ClusterUUID, Node: id.Node, Authority: id,
		Dir: filepath.Join(o.Node.StateDir, "repository"), Role: repository.RoleVoter, Lab: o.Node.Deadman.Backend == config.BackendLab})
	if err != nil {
		return err
	}
	defer vol.Close()
	if got := vol.UUID().String(); got != o.UUID {
		return fmt.Errorf("the volume %s has the id %s, the definition says %s: it was formatted anew, or is another one", o.Device, got, o.UUID)
	}
	pid := filepath.Join(o.Node.RunDir, "voter.pid")
	if err := writeFile(pid, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return fmt.Errorf("store the process's number: %w", err)
	}
	p := &voterProcess{VoterOptions: o, id: id, vol: vol, log: o.Logger.With("component", "voter", "node", id.Node)}
	ctx, p.cancel = context.WithCancelCause(ctx)
	defer p.cancel(nil)
	go p.takeOrders(ctx)
	return p.run(ctx)
}

type voterProcess struct {
	VoterOptions
	id     *identity.Identity
	vol    *repository.Volume
	log    *slog.Logger
	cancel context.CancelCauseFunc
	heir   atomic.Pointer[string] // to whom the voter is given
}

var (
	errHandedOver = errors.New("the repository voter is handed over")
	errOrphaned   = errors.New("the agent is gone")
)

// takeOrders reads what the agent wants.
func (p *voterProcess) takeOrders(ctx context.Context) {
	if p.Orders == nil {
		return
	}
	lines := bufio.NewScanner(p.Orders)
	for lines.Scan() {
		if node, ok := strings.CutPrefix(lines.Text(), "handover "); ok {
			p.heir.Store(&node)
			p.cancel(errHandedOver)
			return
		}
	}
	select {
	case <-ctx.Done():
	case <-after(orphanLimit):
		p.cancel(errOrphaned)
	}
}

func (p *voterProcess) report(r VoterReport) {
	b, err := json.Marshal(r)
	if err == nil && p.Report != nil {
		_, _ = p.Report.Write(append(b, '\n')) // an agent that is gone reads nothing
	}
}

func (p *voterProcess) run(ctx context.Context) error {
	claim, err := p.claim(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	store := &givenStore{Voter: claim, heir: &p.heir}
	fsm := newFSM(p.log, func() {}, func(why string) { p.Exit(why) })
	links, err := p.openLinks(fsm)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	defer links.Close()
	var open atomic.Pointer[consensus.Voter]
	links.Handle(rpcRemember, func(_ context.Context, from string, body []byte) ([]byte, error) {
		v := open.Load()
		if v == nil {
			return json.Marshal(rememberReply{NotYet: true})
		}
		return answerMemory(from, body, fsm.newest.Load(), v.Unapplied, false)
	})
	cfg := consensus.Config{ID: p.vol.ServerID(), ClusterID: p.id.ClusterUUID, Params: p.Params, FSM: fsm, Clock: p.Clock, Logger: p.log,
		Exit: p.Exit, StoreTimeout: p.vol.Timings().IO + 500*time.Millisecond,
		Dial: func(ctx context.Context, server string) (net.Conn, error) {
			return links.Dial(ctx, nodeOfServer(server), peer.ProtoRaft)
		},
		Listener: links.Listener(peer.ProtoRaft),
		Ask: func(context.Context, string, consensus.ConfirmRequest) (consensus.ConfirmReply, error) {
			return consensus.ConfirmReply{}, errors.New("the repository voter asks nobody")
		},
	}
	voter, err := consensus.OpenVoter(cfg, store)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	open.Store(voter)
	links.Handle(rpcConfirm, func(_ context.Context, _ string, body []byte) ([]byte, error) {
		var req consensus.ConfirmRequest
		if err := json.Unmarshal(body, &req); err != nil {
			return nil, errors.New("the confirmation request cannot be read")
		}
		return json.Marshal(voter.Confirm(req))
	})
	links.Handle(rpcStanding, func(context.Context, string, []byte) ([]byte, error) {
		var s standing
		var err error
		if s.Index, s.Term, err = voter.LastEntry(); err != nil {
			return nil, err
		}
		return json.Marshal(s)
	})
	p.log.Info("the repository voter runs here", "ballot", claim.Ballot())
	p.report(VoterReport{State: VoterRunning, Host: p.id.Node})
	select {
	case <-ctx.Done():
		p.log.Info("the repository voter ends", "why", context.Cause(ctx))
		return voter.Close()
	case <-claim.Done():
		// The claim is lost: what is under way must not be answered any more, and nothing can be given up.
		p.Exit(fmt.Sprintf("the repository voter ends: %v", claim.Err()))
		_ = voter.Close() // only where Exit returns, in tests
		return claim.Err()
	}
}

// claim waits for its turn, and says meanwhile who runs the voter.
func (p *voterProcess) claim(ctx context.Context) (*repository.Voter, error) {
	p.report(VoterReport{State: VoterWaiting})
	looking, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.watchHost(looking)
	}()
	defer func() { stop(); <-done }()
	return p.vol.Claim(ctx)
}

func (p *voterProcess) watchHost(ctx context.Context) {
	var last VoterReport
	var beat uint64
	var since time.Time
	for {
		r := VoterReport{State: VoterWaiting}
		h, err := p.vol.Host()
		switch {
		case err != nil:
			r.Text = err.Error()
		case h.Beat != beat:
			beat, since = h.Beat, time.Now()
			r.Host = h.Node
		case time.Since(since) < p.vol.Timings().Host:
			r.Host = h.Node
		}
		if err == nil && (!h.Running || h.Released) {
			r.Host = ""
		}
		if r != last {
			last = r
			p.report(r)
		}
		select {
		case <-ctx.Done():
			return
		case <-after(hostInterval):
		}
	}
}

// openLinks makes the voter's own end of the links, under an identity of its own: it speaks as the repository voter, wherever it runs.
func (p *voterProcess) openLinks(fsm *fsm) (*peer.Peer, error) {
	own, err := p.id.As(p.vol.ServerID(), p.vol.ServerID())
	if err != nil {
		return nil, err
	}
	friends, err := readFriends(p.Node.StateDir)
	if err != nil {
		p.log.Warn("the list of members cannot be read: it will be learned from the log", "error", err)
	}
	epoch, err := readEpoch(p.Node.StateDir)
	if err != nil {
		return nil, err
	}
	port := fmt.Sprint(p.Node.Port)
	cfg := peer.Config{Identity: own, Logger: p.log, Epoch: epoch.Epoch, Members: func(node string) ([]string, bool) {
		if d := fsm.newest.Load().Definition; d != nil {
			n := d.Node(node)
			if n == nil {
				return nil, false
			}
			return dialAddresses(d, n, port), true
		}
		addrs, ok := friends[node]
		return addrs, ok
	}, Floor: func(node string) uint64 { return fsm.newest.Load().CertFloor(node) }}
	if p.Network != nil {
		cfg.Dial, cfg.Listen = p.Network.Dial, p.Network.Listen
	}
	// Of two voters on one node, while a volume is being replaced, the second takes the second port.
	for _, port := range voterPorts(p.Node) {
		var links *peer.Peer
		cfg.ListenAddrs = voterAddrs(p.Node, port)
		if links, err = peer.New(cfg); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return links, err
		}
	}
	return nil, err
}

// voterPorts are the ports of repository voters, the same on all nodes.
func voterPorts(n *config.Node) []string {
	return []string{fmt.Sprint(n.VoterPort), fmt.Sprint(n.VoterPort + 1)}
}

// voterAddrs is where a voter on this node listens: as the agent, on a port of its own.
func voterAddrs(n *config.Node, port string) []string {
	if len(n.Listen) == 0 {
		return []string{net.JoinHostPort("", port)}
	}
	var out []string
	for _, a := range n.Listen {
		out = append(out, net.JoinHostPort(plainAddress(a), port))
	}
	return out
}

// givenStore gives the claim up to the heir, if there is one.
type givenStore struct {
	*repository.Voter
	heir *atomic.Pointer[string]
}

func (s *givenStore) Close() error {
	if to := s.heir.Load(); to != nil {
		return s.HandOver(*to)
	}
	return s.Voter.Close()
}
