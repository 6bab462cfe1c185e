package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// A cluster whose configuration was forced has a new epoch, and what is left of the old one must not take part in it: it may have a
// leader that grants, and votes that count, in a configuration whose majority shares nobody with the new one's (attack A12). So the
// epoch stands in every message there is, by standing in the handshake of every connection: the protocols of an epoch after the first
// carry its number in their names, and members of two epochs have no protocol in common but one, by which they tell each other
// their epochs. A connection belongs to one epoch from its beginning to its end, because a member changes its epoch only by making a
// new Peer.

// protoEpoch is the one protocol that all epochs speak: the member that was called says its epoch in one line and closes. Anybody may ask
// (serverTLS); who asks believes a certificate of the cluster only.
const protoEpoch = "holdfast-epoch/1"

const (
	maxEpochLine = 32
	epochTimeout = time.Second // for the question, connection included
)

// ErrOtherEpoch says that a member belongs to another epoch of the cluster than this node. An *EpochError says which.
var ErrOtherEpoch = errors.New("it belongs to another epoch of the cluster")

// An EpochError tells a member's epoch, as it has said under its certificate.
type EpochError struct {
	Node       string
	Epoch, Own uint64
}

func (e *EpochError) Error() string {
	return fmt.Sprintf("node %s belongs to epoch %d of the cluster, this node to %d: the configuration was forced in between", e.Node, e.Epoch, e.Own)
}

// Is makes errors.Is(err, ErrOtherEpoch) hold.
func (e *EpochError) Is(target error) bool { return target == ErrOtherEpoch }

// epoch is this node's; a cluster that was never forced is in its first.
func (p *Peer) epoch() uint64 { return max(p.cfg.Epoch, 1) }

// named is the protocol as the handshake names it in this node's epoch. Daemons of versions without epochs are in the first.
func (p *Peer) named(proto string) string {
	if p.epoch() == 1 {
		return proto
	}
	return proto + ";epoch=" + strconv.FormatUint(p.epoch(), 10)
}

// unnamed is the protocol without its epoch, which the handshake has compared.
func unnamed(proto string) string {
	name, _, _ := strings.Cut(proto, ";")
	return name
}

// tellEpoch answers who asks by protoEpoch.
func (p *Peer) tellEpoch(c net.Conn) {
	defer closeNow(c)
	_ = c.SetDeadline(time.Now().Add(epochTimeout))
	_, _ = fmt.Fprintf(c, "%d\n", p.epoch())
}

// noProtocol reports whether the handshake failed because the other side has no such protocol, which it says at once. The alert has no
// type that could be asked for; a test holds the text.
func noProtocol(err error) bool {
	return err != nil && strings.Contains(err.Error(), "tls: no application protocol")
}

// otherEpoch finds out whether a member that refused the handshake did so because it is of another epoch. nil: no, or it does not say.
func (p *Peer) otherEpoch(ctx context.Context, node, address string) error {
	ctx, cancel := context.WithTimeout(ctx, epochTimeout)
	defer cancel()
	c, err := p.connect(ctx, node, protoEpoch, address)
	if err != nil {
		return nil
	}
	defer closeNow(c)
	_ = c.SetDeadline(time.Now().Add(epochTimeout))
	line, err := bufio.NewReader(io.LimitReader(c, maxEpochLine)).ReadString('\n')
	if err != nil {
		return nil
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil || epoch == p.epoch() {
		return nil
	}
	if epoch > p.epoch() && p.cfg.OnNewerEpoch != nil {
		p.cfg.OnNewerEpoch(node, epoch)
	}
	return &EpochError{Node: node, Epoch: epoch, Own: p.epoch()}
}
