package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/identity"
)

const (
	// maxJoinFrame bounds what a stranger may send, and what the cluster may answer.
	maxJoinFrame = 256 << 10
	// joinReadTimeout bounds the wait for a stranger's request, joinTimeout the work on it.
	joinReadTimeout = 3 * time.Second
	joinTimeout     = 30 * time.Second
	// Joins: so many at once, then so many a second.
	joinBurst = 8
	joinRate  = 2
	// maxJoining bounds the strangers' connections that are open at once.
	maxJoining = 32
	// joinPatience is how long a new node goes on asking members that put it off, once in joinPause: some thirty nodes may have come
	// before it. Asking again spends no token: who is put off was not served.
	joinPatience = 20 * time.Second
	joinPause    = 500 * time.Millisecond
)

var errPutOff = errors.New("the cluster has too many joins at once; try again in some seconds")

// serveJoin serves the one request of a node without certificate.
func (p *Peer) serveJoin(c *tls.Conn) {
	defer closeNow(c)
	remote := c.RemoteAddr().String()
	w := writer{conn: c}
	defer p.joining.Add(-1)
	if p.joining.Add(1) > maxJoining {
		return
	}
	c.SetReadDeadline(time.Now().Add(joinReadTimeout))
	f, _, err := readFrame(bufio.NewReaderSize(c, readBuffer), nil, maxJoinFrame)
	if err != nil || f.kind != kindRequest {
		p.log.Debug("a join sent no request", "remote", remote, "error", err)
		return
	}
	// Only after reading: a close over unread bytes is a reset, which would overtake the answer.
	if !p.joins.take(time.Now()) {
		_ = send(&w, kindBusy, 0, 0, "", "")
		p.log.Warn("a join was put off: too many at once", "remote", remote)
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, joinTimeout)
	defer cancel()
	answer, err := p.cfg.Join(ctx, remote, f.body)
	if err == nil && len(answer) > maxJoinFrame-headSize {
		err = ErrTooLarge
	}
	if err != nil {
		p.log.Warn("a join was refused", "remote", remote, "error", err)
		_ = send(&w, kindFailure, 0, 0, "", err.Error())
		return
	}
	_ = send(&w, kindReply, 0, 0, "", answer)
	c.CloseWrite()
}

// A bucket lets joinBurst events pass at once and joinRate a second.
type bucket struct {
	mu   sync.Mutex
	used float64
	at   time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*joinRate)
	b.at = now
	if b.used > joinBurst-1 {
		return false
	}
	b.used++
	return true
}

// AskToJoin sends a join request to the token's addresses, one after another, until one member answers, and returns the
// answer. A refusal by the cluster is a *RemoteError; the next address is then not asked. Members that are busy with other joins
// are asked again for joinPatience. dial replaces TCP if not nil.
func AskToJoin(ctx context.Context, t *identity.Token, request []byte,
	dial func(ctx context.Context, address string) (net.Conn, error)) ([]byte, error) {
	if dial == nil {
		dial = dialTCP
	}
	for until := time.Now().Add(joinPatience); ; {
		answer, putOff, err := askAll(ctx, t, request, dial)
		if err == nil {
			return answer, nil
		}
		if !putOff || time.Now().After(until) {
			return nil, fmt.Errorf("join cluster %s: %w", t.ClusterName, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("join cluster %s: %w", t.ClusterName, errors.Join(err, context.Cause(ctx)))
		case <-time.After(joinPause):
		}
	}
}

// askAll asks each address once. putOff: no member has taken the request, and one may take it later.
func askAll(ctx context.Context, t *identity.Token, request []byte,
	dial func(context.Context, string) (net.Conn, error)) (answer []byte, putOff bool, err error) {
	var errs []error
	for _, a := range t.Addresses {
		a = withPort(a)
		answer, sent, err := askToJoin(ctx, t, a, request, dial)
		if err == nil {
			return answer, false, nil
		}
		errs = append(errs, fmt.Errorf("ask the member at %s: %w", a, err))
		if sent { // the token may be spent
			return nil, false, errors.Join(errs...)
		}
		putOff = putOff || errors.Is(err, errPutOff)
	}
	return nil, putOff, errors.Join(errs...)
}

func askToJoin(ctx context.Context, t *identity.Token, address string, request []byte,
	dial func(context.Context, string) (net.Conn, error)) (answer []byte, sent bool, err error) {
	dctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	raw, err := dial(dctx, address)
	if err != nil {
		return nil, false, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	cfg := identity.VerifyServerByFingerprint(t)
	cfg.NextProtos = []string{ProtoJoin}
	c := tls.Client(raw, cfg)
	c.SetDeadline(time.Now().Add(joinTimeout + joinReadTimeout))
	if err := c.HandshakeContext(dctx); err != nil {
		return nil, false, fmt.Errorf("TLS handshake: %w", err)
	}
	if _, err := c.Write(appendFrame(nil, kindRequest, 0, 0, "join", request)); err != nil {
		return nil, true, fmt.Errorf("send the request: %w", err)
	}
	f, _, err := readFrame(bufio.NewReaderSize(c, readBuffer), nil, maxJoinFrame)
	switch {
	case err != nil:
		return nil, true, fmt.Errorf("read the answer; whether the cluster has admitted the node is unknown: %w", err)
	case f.kind == kindReply:
		return append([]byte(nil), f.body...), true, nil
	case f.kind == kindBusy:
		return nil, false, errPutOff
	case f.kind == kindFailure:
		return nil, true, &RemoteError{Node: address, Method: "join", Text: string(f.body)}
	}
	return nil, true, fmt.Errorf("%w: kind %d", errFrame, f.kind)
}
