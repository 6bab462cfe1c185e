package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Defaults of a Config.
const (
	DefaultMaxConns     = 2048             // per listener; one caller gets a quarter
	DefaultWriteTimeout = 60 * time.Second // for one write in the backend
	readHeaderTimeout   = 5 * time.Second
	bodyTimeout         = 15 * time.Second // for a caller to send its request's body
	answerTimeout       = 30 * time.Second // for a caller to take its answer
	idleTimeout         = 2 * time.Minute
	maxHeader           = 16 << 10
)

// A Config says what to serve. Backend and Log are required.
type Config struct {
	Backend Backend
	Log     *slog.Logger
	// Audit receives one record for each attempted write; nil: Log.
	Audit *slog.Logger
	// Access gives local callers their roles.
	Access Access
	// PeerIdentity finds the member's name in a verified connection; nil: PeerFromSAN.
	PeerIdentity func(tls.ConnectionState) (string, error)
	// IsMember says whether the name is one of a current member; nil refuses every peer.
	IsMember func(node string) bool
	// MaxConns bounds the connections of each listener; 0: DefaultMaxConns.
	MaxConns int
	// WriteTimeout bounds a write in the backend; 0: DefaultWriteTimeout. The backend then answers that the outcome is
	// unknown, or that nothing was done.
	WriteTimeout time.Duration
}

// A Server serves one backend on any number of listeners.
type Server struct {
	cfg   Config
	audit *slog.Logger
	body  time.Duration
	// patience is how long the client of a stream may take nothing, beat the time between signs of life.
	patience, beat time.Duration
	watched        watched

	mu      sync.Mutex
	closed  bool
	servers []*http.Server
	stop    context.CancelCauseFunc
	base    context.Context
}

// ErrClosed is the cause of the contexts of calls that end because the server does, and not because their caller has gone.
var ErrClosed = errors.New("the daemon stops")

// New makes a server. It starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Backend == nil || cfg.Log == nil {
		return nil, errors.New("make the server: a backend and a logger are required")
	}
	if cfg.PeerIdentity == nil {
		cfg.PeerIdentity = PeerFromSAN
	}
	if cfg.IsMember == nil {
		cfg.IsMember = func(string) bool { return false }
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	if cfg.Audit == nil {
		cfg.Audit = cfg.Log
	}
	base, stop := context.WithCancelCause(context.Background())
	return &Server{cfg: cfg, audit: cfg.Audit, body: bodyTimeout, patience: streamPatience, beat: streamBeat, base: base, stop: stop}, nil
}

// ServeLocal serves the unix socket until Close, and returns nil then. Its callers are known by their peer credentials.
func (s *Server) ServeLocal(l net.Listener) error {
	return s.serve(l, s.handler(s.localCaller), func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	})
}

// ServePeers serves members over TLS until Close. The listener yields *tls.Conn connections (tls.NewListener), with
// certificates verified against the cluster's CA where the peer gives one; one without a certificate can only ask to be
// admitted with a token.
func (s *Server) ServePeers(l net.Listener) error {
	return s.serve(l, s.handler(s.peerCaller), nil)
}

// ServeMetrics serves handler at /metrics, and nothing else, on a plain listener until Close.
func (s *Server) ServeMetrics(l net.Listener, handler http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler)
	return s.serve(l, mux, nil)
}

// Close stops all listeners at once; long polls end, and writes in the backend see their context end. It may be called twice.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.stop(ErrClosed)
	for _, h := range s.servers {
		_ = h.Close() // the listener's close error tells nobody anything at this point
	}
	s.servers = nil
}

func (s *Server) serve(l net.Listener, h http.Handler, conn func(context.Context, net.Conn) context.Context) error {
	// ReadTimeout bounds the sending of a request and not the waiting after it: the HTTP server takes the deadline away once it
	// has the body (a test holds it to that). There is no WriteTimeout, which would count from the request's begin; an answer
	// has a deadline of its own.
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       s.body,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnContext:       conn,
		ConnState:         newGate(s.cfg.MaxConns, s.cfg.Access).state,
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close()
		return nil
	}
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %v: %w", l.Addr(), err)
}

type connKey struct{}

// localCaller is the caller on a unix socket.
func (s *Server) localCaller(r *http.Request) (api.Caller, error) {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return api.Caller{}, errors.New("the connection is not known")
	}
	return s.cfg.Access.caller(c)
}

// peerCaller is the caller on a TLS listener: a member, with the role that the caller behind it has; or a newcomer, with no
// role at all.
func (s *Server) peerCaller(r *http.Request) (api.Caller, error) {
	if r.TLS == nil {
		return api.Caller{}, errors.New("the connection is not TLS")
	}
	if len(r.TLS.VerifiedChains) == 0 {
		return api.Caller{User: "newcomer", UID: -1}, nil
	}
	node, err := s.cfg.PeerIdentity(*r.TLS)
	if err != nil {
		return api.Caller{}, err
	}
	if !s.cfg.IsMember(node) {
		return api.Caller{}, fmt.Errorf("node %q holds a certificate of this cluster but is not a member", node)
	}
	return onBehalf(r.Header.Get(api.HeaderOnBehalf), node)
}

// PeerFromSAN is the node named by the verified leaf certificate: the path of its one URI, holdfast://CLUSTER/NODE. That the
// cluster is the right one is the verified chain's word: each cluster has a CA of its own.
func PeerFromSAN(cs tls.ConnectionState) (string, error) {
	if len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return "", errors.New("the peer's certificate is not verified")
	}
	leaf := cs.VerifiedChains[0][0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "holdfast" {
		return "", errors.New("the peer's certificate names no node (no holdfast:// URI among its subject alternative names)")
	}
	node := strings.TrimPrefix(leaf.URIs[0].Path, "/")
	if node == "" || strings.Contains(node, "/") {
		return "", fmt.Errorf("the peer's certificate names no node: %q", leaf.URIs[0])
	}
	return node, nil
}
