package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// scheme is that of the URI in a node's certificate.
const scheme = "holdfast"

// Certificates hold at any time that a clock may show, a clock without battery among them: no cluster stops because of a date.
// RFC 5280 gives the end of 9999 as the form of "no expiration".
var (
	notBefore = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func newKey() (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return k, nil
}

// serial draws a certificate's number: 127 random bits.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func newCA(clusterName, uuid string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Holdfast cluster " + clusterName}, CommonName: uuid},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the cluster's CA: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("make the cluster's CA: %w", err)
	}
	return c, key, nil
}

// sign makes the certificate by which the holder of the key is the named node of this cluster. Of two certificates of one name
// that with the higher number is the later one (Number).
func (id *Identity) sign(pub *ecdsa.PublicKey, node string, number uint64) (*x509.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               subject(node, number),
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{{Scheme: scheme, Host: id.ClusterUUID, Path: "/" + node}},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, id.ca, pub, id.caKey)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of node %s: %w", node, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of node %s: %w", node, err)
	}
	return c, nil
}

// As makes an identity under which a process of this node speaks as a member that is no node, with a key of its own that is never
// stored: the repository voter. Whoever holds the CA's key can do so (every member does).
func (id *Identity) As(name, raftID string) (*Identity, error) {
	if err := CheckName("member", name); err != nil {
		return nil, err
	}
	other := id.clone()
	other.Node, other.RaftID = name, raftID
	var err error
	if other.key, err = newKey(); err != nil {
		return nil, err
	}
	if other.cert, err = id.sign(&other.key.PublicKey, name, 0); err != nil {
		return nil, err
	}
	return other, nil
}

// clone is the identity as it was made, stored nowhere.
func (id *Identity) clone() *Identity {
	return &Identity{ClusterName: id.ClusterName, ClusterUUID: id.ClusterUUID, Node: id.Node, RaftID: id.RaftID, gossipKey: id.gossipKey,
		ca: id.ca, caKey: id.caKey, cert: id.cert, key: id.key, roots: id.roots}
}

// SignCSR makes the certificate (DER) for the key in a certificate request (DER). Only the key is taken from the request,
// which proves by its signature that the asker has it; the name is the caller's, who has checked the token.
func (id *Identity) SignCSR(csr []byte, node string, number uint64) ([]byte, error) {
	if err := CheckName("node", node); err != nil {
		return nil, err
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("read the certificate request of node %s: %w", node, err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the certificate request of node %s: %w", node, err)
	}
	pub, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("check the certificate request of node %s: its key is not ECDSA P-256", node)
	}
	c, err := id.sign(pub, node, number)
	if err != nil {
		return nil, err
	}
	return c.Raw, nil
}

// verify checks that a certificate was signed by this cluster's CA for the use, and returns the node that it names.
func (id *Identity) verify(c *x509.Certificate, use x509.ExtKeyUsage) (node string, err error) {
	if err := verifyChain(c, id.roots, use); err != nil {
		return "", err
	}
	uuid, node, err := nameOf(c)
	if err != nil {
		return "", err
	}
	if uuid != id.ClusterUUID {
		return "", fmt.Errorf("it belongs to cluster %s, not to ours, %s (%s)", uuid, id.ClusterName, id.ClusterUUID)
	}
	return node, nil
}

func verifyChain(c *x509.Certificate, roots *x509.CertPool, use x509.ExtKeyUsage) error {
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{use}})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &x509.UnknownAuthorityError{}):
		return errors.New("it was signed by another CA: the peer belongs to another cluster")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("it is valid from %s to %s, and this machine's clock shows %s", c.NotBefore.Format(time.RFC3339),
			c.NotAfter.Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
	}
	return err
}

// nameOf reads the cluster and the node from a certificate's URI. It proves nothing by itself.
func nameOf(c *x509.Certificate) (uuid, node string, err error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != scheme {
		return "", "", errors.New("it names no node of a cluster")
	}
	u := c.URIs[0]
	node, ok := strings.CutPrefix(u.Path, "/")
	if !ok || checkUUID(u.Host) != nil || CheckName("node", node) != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", "", fmt.Errorf("its name %.120q has not the form %s://<cluster uuid>/<node>", u.String(), scheme)
	}
	return u.Host, node, nil
}
