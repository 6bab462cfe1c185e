package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/server"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

// An authority signs certificates for one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	return a
}

func (a *authority) issue(uri string) tls.Certificate {
	a.t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, DNSNames: []string{"holdfast"}}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			a.t.Fatal(err)
		}
		tmpl.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

type peers struct {
	t       *testing.T
	ca      *authority
	addr    string
	backend *servertest.Backend
	log     *syncBuffer
	seen    []api.Caller
}

func startPeers(t *testing.T) *peers {
	t.Helper()
	p := &peers{t: t, ca: newAuthority(t), backend: servertest.New(api.Status{}), log: &syncBuffer{}}
	p.backend.OnDo = func(who api.Caller, _ api.Request) (api.Reply, error) {
		p.seen = append(p.seen, who)
		return api.Reply{Index: 3}, nil
	}
	s, err := server.New(server.Config{Backend: p.backend, Log: slog.New(slog.NewTextHandler(p.log, nil)),
		IsMember: func(n string) bool { return n == "n1" || n == "n2" }})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(tcp, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.ca.issue("holdfast://u/n1")},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: p.ca.pool()})
	p.addr = tcp.Addr().String()
	done := make(chan error, 1)
	go func() { done <- s.ServePeers(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return p
}

func (p *peers) call(cert *tls.Certificate, method, path, body, behalf string) (int, string) {
	p.t.Helper()
	cfg := &tls.Config{RootCAs: p.ca.pool(), ServerName: "holdfast"}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(context.Background(), method, "https://"+p.addr+path, strings.NewReader(body))
	if behalf != "" {
		req.Header.Set(api.HeaderOnBehalf, behalf)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func TestPeersAreWhoTheirCertificatesSay(t *testing.T) {
	p := startPeers(t)
	body := func() string { return `{"id":"` + client.NewID() + `","op":"start"}` }
	good, gone := p.ca.issue("holdfast://u/n2"), p.ca.issue("holdfast://u/n9")
	nameless, odd := p.ca.issue(""), p.ca.issue("holdfast://u/n1/n2")
	foreign := newAuthority(t).issue("holdfast://u/n2")
	for name, tc := range map[string]struct {
		cert         *tls.Certificate
		behalf, want string
		status       int
	}{
		"member":                 {&good, "", `"index":3`, 200},
		"member for an operator": {&good, `{"user":"otto","uid":7,"role":"operate"}`, `"index":3`, 200},
		"member for a viewer":    {&good, `{"user":"vera","uid":8,"role":"view"}`, "may only view", 403},
		"member for nobody":      {&good, `{"role":"admin"}`, "names no user", 403},
		"member with nonsense":   {&good, `x`, "read the header", 403},
		"removed node":           {&gone, "", "is not a member", 403},
		"no name":                {&nameless, "", "names no node", 403},
		"name with a slash":      {&odd, "", "names no node", 403},
		"no certificate":         {nil, `{"user":"root","uid":0,"role":"admin"}`, "has no role", 403},
		"another cluster's CA":   {&foreign, "", "", 0},
	} {
		status, text := p.call(tc.cert, "POST", api.PathRequests, body(), tc.behalf)
		if status != tc.status || !strings.Contains(text, tc.want) {
			t.Errorf("%s: %d %s, want %d with %q", name, status, text, tc.status, tc.want)
		}
	}
	for _, who := range p.seen {
		if who.Node != "n2" {
			t.Errorf("the backend saw %+v, which does not name the member", who)
		}
	}
	if len(p.seen) != 2 {
		t.Errorf("%d calls reached the backend, want 2", len(p.seen))
	}
}

func TestNewcomerCanOnlyAskToBeAdmitted(t *testing.T) {
	p := startPeers(t)
	p.backend.OnAdmit = func(from string, a api.Admit) (api.AdmitReply, error) {
		if a.Token != "good" {
			return api.AdmitReply{}, api.Errorf(api.CodeForbidden, "the token is not valid")
		}
		return api.AdmitReply{Cluster: "c1"}, nil
	}
	for path, want := range map[string]int{api.PathStatus: 403, api.PathDefinition: 403, api.PathHealth: 403} {
		if status, text := p.call(nil, "GET", path, "", ""); status != want {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, text := p.call(nil, "POST", api.PathAdmit, `{"token":"good","node":"n3","csr":"eA=="}`, ""); status != 200 {
		t.Errorf("admit: %d %s", status, text)
	}
	if status, _ := p.call(nil, "POST", api.PathAdmit, `{"token":"bad","node":"n3","csr":"eA=="}`, ""); status != 403 {
		t.Errorf("admit with a bad token: %d", status)
	}
	if status, _ := p.call(nil, "POST", api.PathAdmit, `{"token":"","node":"n3"}`, ""); status != 422 {
		t.Errorf("admit without a token: %d", status)
	}
	if log := p.log.String(); strings.Contains(log, "good") || strings.Count(log, "admit node") != 3 {
		t.Errorf("audit of admissions:\n%s", log)
	}
}

func TestMetricsListenerServesNothingElse(t *testing.T) {
	s, err := server.New(server.Config{Backend: servertest.New(api.Status{}), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.ServeMetrics(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") }))
	}()
	defer func() { s.Close(); <-done }()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for path, want := range map[string]int{"/metrics": 200, api.PathStatus: 404} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+path, nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}
