package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newCluster(t testing.TB, name, node string) *Identity {
	t.Helper()
	id, err := NewCluster(filepath.Join(t.TempDir(), "id"), name, node)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// join admits a node the way agents do, wire formats included, and returns its identity.
func join(t testing.TB, member *Identity, node string) (*Identity, error) {
	t.Helper()
	text, hash := NewToken(member.ClusterName, member.ClusterUUID, member.CAFingerprint(), []string{"192.0.2.1:6191"}, node)
	tok, err := ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	j, err := Join(filepath.Join(t.TempDir(), "id"), tok)
	if err != nil {
		t.Fatal(err)
	}
	req := j.Request()
	if !SameHash(req.Hash(), hash) {
		t.Fatal("the request's hash is not the token's")
	}
	reply, err := member.Admit(req, NewRaftID(node), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return j.Finish(reply)
}

func mustJoin(t testing.TB, member *Identity, node string) *Identity {
	t.Helper()
	id, err := join(t, member, node)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNewClusterThenLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "identity")
	id, err := NewCluster(dir, "prod", "n1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.ClusterName != "prod" || got.Node != "n1" || got.ClusterUUID != id.ClusterUUID || got.RaftID != id.RaftID ||
		got.CAFingerprint() != id.CAFingerprint() || !bytes.Equal(got.GossipKey(), id.GossipKey()) {
		t.Fatalf("loaded %+v, made %+v", got, id)
	}
	if len(got.GossipKey()) != GossipKeySize {
		t.Fatalf("gossip key of %d bytes", len(got.GossipKey()))
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		fi, _ := e.Info()
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", e.Name(), fi.Mode().Perm())
		}
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %04o", fi.Mode().Perm())
	}
	if _, err := NewCluster(dir, "prod", "n1"); !errors.Is(err, ErrExists) {
		t.Errorf("a second identity in the same directory: %v", err)
	}
}

// A killed attempt leaves a directory beside the real one; the next success removes it, and an empty target is no obstacle.
func TestStoreIsOneStep(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "identity")
	for _, d := range []string{dir, filepath.Join(parent, "identity.new-123")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewCluster(dir, "prod", "n1"); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(parent)
	if len(entries) != 1 {
		t.Errorf("left in the parent: %v", entries)
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %04o", fi.Mode().Perm())
	}
}

func TestStoreFailureLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	blocked := filepath.Join(parent, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCluster(filepath.Join(blocked, "identity"), "prod", "n1"); err == nil {
		t.Fatal("an identity below a file")
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestLoadRefuses(t *testing.T) {
	other := newCluster(t, "other", "n1")
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
		want  string
	}{
		{"no directory", func(d string) error { return os.RemoveAll(d) }, "belongs to no cluster"},
		{"directory open to others", func(d string) error { return os.Chmod(d, 0o750) }, "must have mode 0700"},
		{"key readable by others", func(d string) error { return os.Chmod(filepath.Join(d, fileKey), 0o640) }, "node-key.pem has mode 0640"},
		{"CA key readable by all", func(d string) error { return os.Chmod(filepath.Join(d, fileCAKey), 0o604) }, "ca-key.pem has mode 0604"},
		{"missing file", func(d string) error { return os.Remove(filepath.Join(d, fileCert)) }, "node.pem"},
		{"link", func(d string) error {
			p := filepath.Join(d, fileGossip)
			return errors.Join(os.Rename(p, p+".x"), os.Symlink(p+".x", p))
		}, "gossip.key"},
		{"fifo", func(d string) error {
			p := filepath.Join(d, fileGossip)
			return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600))
		}, "not a regular file"},
		{"huge", func(d string) error { return os.Truncate(filepath.Join(d, fileMeta), 1<<20) }, "larger than"},
		{"truncated certificate", func(d string) error { return os.Truncate(filepath.Join(d, fileCert), 100) }, "node.pem: it is not PEM"},
		{"empty key", func(d string) error { return os.Truncate(filepath.Join(d, fileKey), 0) }, "node-key.pem: it is not PEM"},
		{"short gossip key", func(d string) error { return os.Truncate(filepath.Join(d, fileGossip), 10) }, "gossip key has 5 bytes"},
		{"bad gossip key", func(d string) error { return os.WriteFile(filepath.Join(d, fileGossip), []byte("zz"), 0o600) }, "not hexadecimal"},
		{"key in the certificate's place", func(d string) error {
			return copyFile(filepath.Join(d, fileKey), filepath.Join(d, fileCert))
		}, `PEM block "PRIVATE KEY"`},
		{"another key", func(d string) error {
			return copyFile(filepath.Join(d, fileCAKey), filepath.Join(d, fileKey))
		}, "node's key does not belong"},
		{"foreign CA", func(d string) error {
			k, _ := encodeKey(other.caKey)
			return errors.Join(os.WriteFile(filepath.Join(d, fileCA), encodeCert(other.ca), 0o600),
				os.WriteFile(filepath.Join(d, fileCAKey), k, 0o600))
		}, "signed by another CA"},
		{"foreign CA key", func(d string) error {
			k, _ := encodeKey(other.caKey)
			return os.WriteFile(filepath.Join(d, fileCAKey), k, 0o600)
		}, "CA's key does not belong"},
		{"another node's name", func(d string) error {
			b, _ := os.ReadFile(filepath.Join(d, fileMeta))
			return os.WriteFile(filepath.Join(d, fileMeta), bytes.Replace(b, []byte(`"n1"`), []byte(`"n2"`), 1), 0o600)
		}, "names node n1, not n2"},
		{"future format", func(d string) error {
			b, _ := os.ReadFile(filepath.Join(d, fileMeta))
			return os.WriteFile(filepath.Join(d, fileMeta), bytes.Replace(b, []byte(`: 1`), []byte(`: 9`), 1), 0o600)
		}, "format 9 is unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "id")
			if _, err := NewCluster(dir, "prod", "n1"); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			id, err := Load(dir)
			if err == nil {
				t.Fatalf("loaded %+v", id)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			if strings.Contains(err.Error(), "zz") {
				t.Errorf("error %q quotes a secret", err)
			}
		})
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, b, 0o600))
}

func TestNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "id")
	for _, bad := range []string{"", "a/b", "../x", "a b", "-a", "a\n", strings.Repeat("a", 65), "ä"} {
		if _, err := NewCluster(dir, "prod", bad); err == nil {
			t.Errorf("node name %q was taken", bad)
		}
		if _, err := NewCluster(dir, bad, "n1"); err == nil {
			t.Errorf("cluster name %q was taken", bad)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused cluster left %s: %v", dir, err)
	}
}

func TestJoinedNodeMayAdmit(t *testing.T) {
	n1 := newCluster(t, "prod", "n1")
	n2 := mustJoin(t, n1, "n2")
	n3 := mustJoin(t, n2, "n3")
	if n3.ClusterUUID != n1.ClusterUUID || !bytes.Equal(n3.GossipKey(), n1.GossipKey()) || n3.RaftID == n2.RaftID {
		t.Errorf("n3 is %+v", n3)
	}
	if err := handshake(n1.ServerTLS(allow("n3")), n3.ClientTLS("n1")); err != nil {
		t.Error(err)
	}
}

func TestFinishRefusesForgedReplies(t *testing.T) {
	good, evil := newCluster(t, "prod", "n1"), newCluster(t, "prod", "n1")
	text, _ := NewToken(good.ClusterName, good.ClusterUUID, good.CAFingerprint(), []string{"a:1"}, "n2")
	tok, _ := ParseToken(text)
	for _, c := range []struct {
		name  string
		forge func(r *JoinReply, req *JoinRequest)
		want  string
	}{
		{"another cluster", func(r *JoinReply, req *JoinRequest) { e, _ := evil.Admit(req, "x", 0, nil); *r = *e }, "the token of prod"},
		{"another CA under the same uuid", func(r *JoinReply, req *JoinRequest) {
			e, _ := evil.Admit(req, "x", 0, nil)
			*r = *e
			r.ClusterUUID = good.ClusterUUID
		}, "not the one that the token pins"},
		{"another CA key", func(r *JoinReply, req *JoinRequest) { e, _ := evil.Admit(req, "x", 0, nil); r.CAKey = e.CAKey }, "CA's key does not belong"},
		{"another node's certificate", func(r *JoinReply, req *JoinRequest) { r.NodeCert = good.cert.Raw }, "node's key does not belong"},
		{"another name", func(r *JoinReply, req *JoinRequest) { r.NodeCert, _ = good.SignCSR(req.CSR, "n9", 0) }, "names node n9"},
		{"no gossip key", func(r *JoinReply, req *JoinRequest) { r.GossipKey = nil }, "gossip key has 0 bytes"},
		{"no raft id", func(r *JoinReply, req *JoinRequest) { r.RaftID = "" }, "raft id"},
		{"rubbish", func(r *JoinReply, req *JoinRequest) { r.NodeCert = []byte("x") }, "parse the node's certificate"},
		{"no CA key", func(r *JoinReply, req *JoinRequest) { r.CAKey = nil }, "CA's key cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "id")
			j, err := Join(dir, tok)
			if err != nil {
				t.Fatal(err)
			}
			req := j.Request()
			r, err := good.Admit(req, "n2-1", 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.forge(r, req)
			if _, err := j.Finish(r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Error("something was stored")
			}
		})
	}
}

func TestSignCSRRefuses(t *testing.T) {
	id := newCluster(t, "prod", "n1")
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	weak, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	k, _ := newKey()
	good, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	broken := bytes.Clone(good)
	broken[len(broken)-3] ^= 1
	for name, csr := range map[string][]byte{"empty": nil, "another curve": weak, "bad signature": broken} {
		if _, err := id.SignCSR(csr, "n2", 0); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := id.SignCSR(good, "../n2", 0); err == nil {
		t.Error("signed a bad name")
	}
	// What the request asks for besides its key is not given.
	asking, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		URIs: []*url.URL{{Scheme: scheme, Host: id.ClusterUUID, Path: "/n1"}}, DNSNames: []string{"example.com"}}, k)
	der, err := id.SignCSR(asking, "n2", 0)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := x509.ParseCertificate(der)
	if len(c.URIs) != 1 || c.URIs[0].Path != "/n2" || len(c.DNSNames) != 0 || c.IsCA {
		t.Errorf("certificate has %v %v CA=%v", c.URIs, c.DNSNames, c.IsCA)
	}
}

func TestTokenText(t *testing.T) {
	id := newCluster(t, "prod", "n1")
	addrs := []string{"192.0.2.1:6191", "[2001:db8::1]:6191"}
	text, hash := NewToken(id.ClusterName, id.ClusterUUID, id.CAFingerprint(), addrs, "n2")
	if strings.ContainsAny(text, " \t\r\n'\"$`\\&;|<>()*?[]{}#!~") {
		t.Errorf("token %q is not safe to paste", text)
	}
	wrapped := "  " + text[:40] + "\r\n   " + text[40:] + "\n"
	tok, err := ParseToken(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Node != "n2" || tok.ClusterName != "prod" || tok.CAFingerprint != id.CAFingerprint() || len(tok.Addresses) != 2 ||
		HashSecret(tok.Secret[:]) != hash {
		t.Errorf("parsed %+v", tok)
	}
	for name, bad := range map[string]string{
		"empty": "", "cut": text[:len(text)-1], "changed": strings.Replace(text, text[60:61], "_", 1) + "A",
		"another version": "holdfast-join-9." + text[len(tokenPrefix):], "prefix only": tokenPrefix,
		"long":    text + strings.Repeat("A", maxToken),
		"no body": tokenPrefix + base64.RawURLEncoding.EncodeToString(crcTable.append([]byte("{}"))),
	} {
		_, err := ParseToken(bad)
		if !errors.Is(err, ErrBadToken) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(bad) > 50 && strings.Contains(err.Error(), bad[30:50]) {
			t.Errorf("%s: the error quotes the token", name)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text, _ := NewToken("c", "00000000-0000-4000-8000-000000000000", Fingerprint{1}, []string{"a:1"}, "n")
	f.Add(text)
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if (tok == nil) == (err == nil) {
			t.Fatalf("token %v, error %v", tok, err)
		}
	})
}

func allow(names ...string) func(string) bool {
	return func(n string) bool {
		return slices.Contains(names, n)
	}
}

// handshake runs both sides over a pipe, with one byte each way so that the server's verdict on the client shows.
func handshake(server, client *tls.Config) error {
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	result := make(chan error, 1)
	go func() {
		defer a.Close()
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		result <- err
	}()
	err := c.Handshake()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	b.Close()
	return errors.Join(<-result, err)
}

func TestTLS(t *testing.T) {
	n1 := newCluster(t, "prod", "n1")
	n2 := mustJoin(t, n1, "n2")
	foreign := newCluster(t, "prod", "n2")
	// The same CA but another uuid: only by a forged certificate, which the uuid check must still refuse.
	twin := n2.clone()
	twin.ClusterUUID = newUUID()
	twin.cert, _ = twin.sign(&twin.key.PublicKey, "n2", 0)
	expired := n2.clone()
	expired.cert = reissue(t, n1, n2, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	all := allow("n1", "n2")
	noCert := n2.ClientTLS("n1")
	noCert.GetClientCertificate = nil
	old := n2.ClientTLS("n1")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		want           string
	}{
		{"members", n1.ServerTLS(all), n2.ClientTLS("n1"), ""},
		{"removed member", n1.ServerTLS(allow("n1")), n2.ClientTLS("n1"), "refuse node n2: the node is not a member"},
		{"wrong node answers", n1.ServerTLS(all), n2.ClientTLS("n3"), "node n1 answers at its address"},
		{"client of another cluster", n1.ServerTLS(all), insecure(foreign.ClientTLS("n1")), "belongs to another cluster"},
		{"server of another cluster", foreign.ServerTLS(all), n1.ClientTLS("n2"), "belongs to another cluster"},
		{"another uuid", n1.ServerTLS(all), insecure(twin.ClientTLS("n1")), "not to ours"},
		{"expired", n1.ServerTLS(all), expired.ClientTLS("n1"), "it is valid from"},
		{"no certificate", n1.ServerTLS(all), noCert, "didn't provide a certificate"},
		{"TLS 1.2", n1.ServerTLS(all), old, "protocol version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := handshake(c.server, c.client)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// insecure switches the client's own check off, to see the server's.
func insecure(c *tls.Config) *tls.Config {
	c.VerifyConnection = nil
	return c
}

func reissue(t *testing.T, ca, of *Identity, from, to time.Time) *x509.Certificate {
	t.Helper()
	tmpl := *of.cert
	tmpl.NotBefore, tmpl.NotAfter = from, to
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, ca.ca, &of.key.PublicKey, ca.caKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestJoinTLSPinsTheCA(t *testing.T) {
	good, evil := newCluster(t, "prod", "n1"), newCluster(t, "prod", "n1")
	text, _ := NewToken(good.ClusterName, good.ClusterUUID, good.CAFingerprint(), []string{"a:1"}, "n2")
	tok, _ := ParseToken(text)
	if err := handshake(good.JoinServerTLS(), VerifyServerByFingerprint(tok)); err != nil {
		t.Error(err)
	}
	err := handshake(evil.JoinServerTLS(), VerifyServerByFingerprint(tok))
	if err == nil || !strings.Contains(err.Error(), "not the one that the token pins") {
		t.Errorf("an impostor: %v", err)
	}
	// An impostor that shows the right CA's certificate beside its own.
	borrowed := evil.clone()
	borrowed.ca = good.ca
	err = handshake(borrowed.JoinServerTLS(), VerifyServerByFingerprint(tok))
	if err == nil || !strings.Contains(err.Error(), "signed by another CA") {
		t.Errorf("an impostor with a borrowed CA certificate: %v", err)
	}
}

// A clock at its epoch or far in the future stops no cluster.
func TestCertificatesHoldUnderAnyClock(t *testing.T) {
	id := newCluster(t, "prod", "n1")
	for _, now := range []time.Time{time.Unix(0, 0), time.Unix(1e9, 0), time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, err := id.cert.Verify(x509.VerifyOptions{Roots: id.roots, CurrentTime: now}); err != nil {
			t.Errorf("at %v: %v", now, err)
		}
	}
}

func TestPeerNodeNeedsAHandshake(t *testing.T) {
	if n, err := PeerNode(tls.ConnectionState{}); err == nil {
		t.Errorf("peer %q of no connection", n)
	}
}
