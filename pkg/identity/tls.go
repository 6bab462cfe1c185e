package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ErrNotMember says that a peer proved to be a node of this cluster which is no member (any more).
var ErrNotMember = errors.New("the node is not a member of the cluster")

// ErrRevoked says that a peer showed a certificate that is void: the node has a newer one, or was removed since it was made.
var ErrRevoked = errors.New("its certificate is void: the node has a newer one, or was removed from the cluster since; to let it in again, " +
	"make a token (clmgr add token) and join it anew")

// ServerTLS is the configuration of a listener that serves members only: TLS 1.3, and a client certificate of this cluster
// whose node passes the members function. The function is called at each handshake, by any goroutine. The caller sets
// NextProtos.
func (id *Identity) ServerTLS(members func(node string) bool) *tls.Config {
	c := id.base()
	c.ClientAuth = tls.RequireAnyClientCert // verified below, against the cluster and not against a host name
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		node, err := id.verifyPeer(cs, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return fmt.Errorf("check the certificate of the connecting node: %w", err)
		}
		if !members(node) {
			return fmt.Errorf("refuse node %s: %w", node, ErrNotMember)
		}
		return nil
	}
	return c
}

// JoinServerTLS is the configuration under which a node that has no certificate yet may ask to be admitted. The caller sets
// NextProtos, and serves nothing but that one request on such a connection.
func (id *Identity) JoinServerTLS() *tls.Config {
	c := id.base()
	c.ClientAuth = tls.NoClientCert
	return c
}

// ClientTLS is the configuration for connecting to the named node of this cluster; whoever answers at the address must prove
// to be that node. The caller sets NextProtos.
func (id *Identity) ClientTLS(node string) *tls.Config {
	c := id.base()
	// Verification by host name is replaced by that of the cluster and node name.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		got, err := id.verifyPeer(cs, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return fmt.Errorf("check the certificate of node %s: %w", node, err)
		}
		if got != node {
			return fmt.Errorf("check the certificate of node %s: node %s answers at its address", node, got)
		}
		return nil
	}
	return c
}

func (id *Identity) base() *tls.Config {
	// Asked at each handshake, so that a renewed certificate is shown from the next one on.
	show := func() (*tls.Certificate, error) {
		p := id.shown()
		// The CA's certificate goes along: a joining node, which has only its fingerprint, needs it.
		return &tls.Certificate{Certificate: [][]byte{p.cert.Raw, id.ca.Raw}, PrivateKey: p.key, Leaf: p.cert}, nil
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		MaxVersion:           tls.VersionTLS13,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return show() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show() },
		// Without resumption each connection is checked against the membership of its moment.
		SessionTicketsDisabled: true,
		// Messages are small and latency counts: no slow start of record sizes.
		DynamicRecordSizingDisabled: true,
	}
}

func (id *Identity) verifyPeer(cs tls.ConnectionState, use x509.ExtKeyUsage) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("there is none")
	}
	return id.verify(cs.PeerCertificates[0], use)
}

// PeerNumber is the number of the certificate of the node at the other end of such a connection.
func PeerNumber(cs tls.ConnectionState) uint64 {
	if len(cs.PeerCertificates) == 0 {
		return 0
	}
	return Number(cs.PeerCertificates[0])
}

// PeerNode is the name of the node at the other end of a connection that was made under ServerTLS or ClientTLS, which have
// verified it.
func PeerNode(cs tls.ConnectionState) (string, error) {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return "", errors.New("the connection has no verified peer")
	}
	_, node, err := nameOf(cs.PeerCertificates[0])
	return node, err
}

// VerifyServerByFingerprint is the configuration for a node that joins: whoever answers must hold a node certificate of the
// token's cluster under the CA that the token pins. The caller sets NextProtos. The secret may be sent on such a connection.
func VerifyServerByFingerprint(t *Token) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by the check below
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := t.verifyServer(cs); err != nil {
				return fmt.Errorf("check the certificate of the cluster's node: %w", err)
			}
			return nil
		},
	}
}

func (t *Token) verifyServer(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("there is none")
	}
	for _, ca := range cs.PeerCertificates[1:] {
		if sha256.Sum256(ca.Raw) != t.CAFingerprint {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		if err := verifyChain(cs.PeerCertificates[0], roots, x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		uuid, _, err := nameOf(cs.PeerCertificates[0])
		if err != nil {
			return err
		}
		if uuid != t.ClusterUUID {
			return fmt.Errorf("it belongs to cluster %s, the token to %s (%s)", uuid, t.ClusterName, t.ClusterUUID)
		}
		return nil
	}
	return fmt.Errorf("its CA is not the one that the token pins (%s): this is not the cluster that made the token, "+
		"or somebody stands between", t.CAFingerprint)
}

// NodeOf is the node that the other end's certificate names. It proves nothing by itself: it is for checks that come after
// those of ServerTLS and ClientTLS.
func NodeOf(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("there is no certificate")
	}
	_, node, err := nameOf(cs.PeerCertificates[0])
	return node, err
}
