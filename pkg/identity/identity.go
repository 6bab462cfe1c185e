package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
)

// GossipKeySize is the size of the gossip key in bytes (AES-256).
const GossipKeySize = 32

// An Identity is one node's membership in one cluster. Any goroutine may use it. It is read-only after it was made, but for the
// certificate that is shown to other nodes, which Renew replaces.
type Identity struct {
	ClusterName string
	ClusterUUID string
	Node        string
	// RaftID is the node's server id in the replicated log. It is constant for as long as the node keeps its log; a node
	// that lost its log joins again and gets a new one.
	RaftID string

	gossipKey []byte
	ca        *x509.Certificate
	caKey     *ecdsa.PrivateKey
	// With which the node was made a member. Its card is this, for ever: what is sealed for the node on the repository volume
	// would be lost with the key.
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool

	dir     string // where it is stored; empty: nowhere
	renew   sync.Mutex
	current atomic.Pointer[pair] // nil: cert and key
}

// A pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// shown is what this node shows to others.
func (id *Identity) shown() *pair {
	if p := id.current.Load(); p != nil {
		return p
	}
	return &pair{id.cert, id.key}
}

// ErrExists says that the directory already holds an identity. A node belongs to one cluster; to leave it, the directory is
// removed by hand.
var ErrExists = errors.New("the directory already holds an identity")

// ErrNone says that the directory holds no identity: the node was never made a member.
var ErrNone = errors.New("the node belongs to no cluster yet: create one, or join one with a token")

// A Fingerprint is the SHA-256 of a CA certificate's DER encoding.
type Fingerprint [sha256.Size]byte

// String gives the fingerprint in hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// CAFingerprint is what a joining node pins.
func (id *Identity) CAFingerprint() Fingerprint { return sha256.Sum256(id.ca.Raw) }

// Certificates are the node's own, as it shows it, and the CA's. They are shared and must not be changed.
func (id *Identity) Certificates() (node, ca *x509.Certificate) { return id.shown().cert, id.ca }

// GossipKey returns a copy of the cluster's gossip key, GossipKeySize bytes.
func (id *Identity) GossipKey() []byte { return bytes.Clone(id.gossipKey) }

// NewCluster makes a cluster of its own with a new CA, and this node as its first member, in the directory dir, which must
// not exist or be empty. Names are up to 64 letters, digits, dots, hyphens and underscores, and begin with a letter or digit.
func NewCluster(dir, clusterName, nodeName string) (*Identity, error) {
	if err := CheckName("cluster", clusterName); err != nil {
		return nil, err
	}
	if err := CheckName("node", nodeName); err != nil {
		return nil, err
	}
	if err := vacant(dir); err != nil {
		return nil, err
	}
	id := &Identity{ClusterName: clusterName, ClusterUUID: newUUID(), Node: nodeName, RaftID: NewRaftID(nodeName)}
	var err error
	if id.ca, id.caKey, err = newCA(clusterName, id.ClusterUUID); err != nil {
		return nil, err
	}
	if id.key, err = newKey(); err != nil {
		return nil, err
	}
	if id.cert, err = id.sign(&id.key.PublicKey, nodeName, 0); err != nil {
		return nil, err
	}
	id.gossipKey = make([]byte, GossipKeySize)
	rand.Read(id.gossipKey)
	id.finish()
	id.dir = dir
	return id, id.store(dir)
}

// NewRaftID makes a new server id for a node. Ids are never used twice, not even for the same node.
func NewRaftID(node string) string {
	var b [4]byte
	rand.Read(b[:])
	return node + "-" + hex.EncodeToString(b[:])
}

// newUUID makes a random UUID (version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

var (
	nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// CheckName reports whether a name can stand in a certificate; what is "node" or "cluster" and begins the error's text.
func CheckName(what, name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s name %.70q is not usable: 1 to 64 letters, digits, '.', '-' and '_', the first a letter or digit", what, name)
}

func checkUUID(uuid string) error {
	if uuidForm.MatchString(uuid) {
		return nil
	}
	return fmt.Errorf("cluster uuid %.40q is not a UUID", uuid)
}

// finish fills what is computed from the rest.
func (id *Identity) finish() {
	id.roots = x509.NewCertPool()
	id.roots.AddCert(id.ca)
}

// check makes sure that the parts belong together. Its errors name the part.
func (id *Identity) check() error {
	if err := CheckName("cluster", id.ClusterName); err != nil {
		return err
	}
	if err := CheckName("node", id.Node); err != nil {
		return err
	}
	if err := checkUUID(id.ClusterUUID); err != nil {
		return err
	}
	if id.RaftID == "" || len(id.RaftID) > 128 {
		return fmt.Errorf("the raft id %.40q is empty or too long", id.RaftID)
	}
	if len(id.gossipKey) != GossipKeySize {
		return fmt.Errorf("the gossip key has %d bytes instead of %d", len(id.gossipKey), GossipKeySize)
	}
	if !id.ca.IsCA {
		return errors.New("the CA certificate is not one of a CA")
	}
	if !id.caKey.PublicKey.Equal(id.ca.PublicKey) {
		return errors.New("the CA's key does not belong to the CA's certificate")
	}
	if !id.key.PublicKey.Equal(id.cert.PublicKey) {
		return errors.New("the node's key does not belong to the node's certificate")
	}
	node, err := id.verify(id.cert, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return fmt.Errorf("the node's certificate: %w", err)
	}
	if node != id.Node {
		return fmt.Errorf("the node's certificate names node %s, not %s", node, id.Node)
	}
	return nil
}

// The files of an identity. Those that hold secrets are private.
const (
	fileMeta    = "identity.json"
	fileCA      = "ca.pem"
	fileCAKey   = "ca-key.pem"
	fileCert    = "node.pem"
	fileKey     = "node-key.pem"
	fileGossip  = "gossip.key"
	fileShown   = "shown.pem" // the renewed certificate and its key, in one file so that it is replaced in one step
	maxFileSize = 64 << 10
)

type meta struct {
	Format      int    `json:"format"`
	ClusterName string `json:"cluster_name"`
	ClusterUUID string `json:"cluster_uuid"`
	Node        string `json:"node"`
	RaftID      string `json:"raft_id"`
}

// format is the version of the directory's layout.
const format = 1

func (id *Identity) store(dir string) error {
	m, err := json.MarshalIndent(meta{format, id.ClusterName, id.ClusterUUID, id.Node, id.RaftID}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	caKey, err := encodeKey(id.caKey)
	if err != nil {
		return err
	}
	key, err := encodeKey(id.key)
	if err != nil {
		return err
	}
	return writeDir(dir, []file{
		{fileMeta, append(m, '\n')},
		{fileCA, encodeCert(id.ca)},
		{fileCAKey, caKey},
		{fileCert, encodeCert(id.cert)},
		{fileKey, key},
		{fileGossip, []byte(hex.EncodeToString(id.gossipKey) + "\n")},
	})
}

// Load reads the identity in dir. It returns ErrNone when there is none, and refuses a directory that others may enter, keys
// that others may read, links, and parts that do not belong together; the error names the file and what is wrong with it.
func Load(dir string) (*Identity, error) {
	files, err := readDir(dir, fileMeta, fileCA, fileCAKey, fileCert, fileKey, fileGossip)
	if err != nil {
		return nil, err
	}
	in := func(name string, err error) error {
		return fmt.Errorf("read the identity in %s: file %s: %w", dir, name, err)
	}

	var m meta
	d := json.NewDecoder(bytes.NewReader(files[fileMeta]))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, in(fileMeta, err)
	}
	if m.Format != format {
		return nil, in(fileMeta, fmt.Errorf("format %d is unknown; this version reads format %d", m.Format, format))
	}
	id := &Identity{ClusterName: m.ClusterName, ClusterUUID: m.ClusterUUID, Node: m.Node, RaftID: m.RaftID}
	if id.ca, err = decodeCert(files[fileCA]); err != nil {
		return nil, in(fileCA, err)
	}
	if id.caKey, err = decodeKey(files[fileCAKey]); err != nil {
		return nil, in(fileCAKey, err)
	}
	if id.cert, err = decodeCert(files[fileCert]); err != nil {
		return nil, in(fileCert, err)
	}
	if id.key, err = decodeKey(files[fileKey]); err != nil {
		return nil, in(fileKey, err)
	}
	if id.gossipKey, err = hex.DecodeString(string(bytes.TrimSpace(files[fileGossip]))); err != nil {
		// The library's error quotes a byte of the key.
		return nil, in(fileGossip, errors.New("it is not hexadecimal"))
	}
	id.finish()
	if err := id.check(); err != nil {
		return nil, fmt.Errorf("read the identity in %s: %w", dir, err)
	}
	id.dir = dir
	if err := id.loadShown(); err != nil {
		return nil, in(fileShown, err)
	}
	return id, nil
}

const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})
}

func decodeCert(b []byte) (*x509.Certificate, error) {
	p, err := decodePEM(b, pemCert)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(p)
	if err != nil {
		return nil, fmt.Errorf("parse the certificate: %w", err)
	}
	return c, nil
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: b}), nil
}

func decodeKey(b []byte) (*ecdsa.PrivateKey, error) {
	p, err := decodePEM(b, pemKey)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(p)
	if err != nil {
		return nil, errors.New("it holds no PKCS #8 private key")
	}
	e, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a key of type %T instead of ECDSA", k)
	}
	return e, nil
}

func decodePEM(b []byte, kind string) ([]byte, error) {
	p, rest := pem.Decode(b)
	switch {
	case p == nil:
		return nil, errors.New("it is not PEM: it is empty or damaged")
	case p.Type != kind:
		return nil, fmt.Errorf("it holds a PEM block %.40q instead of %q", p.Type, kind)
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, errors.New("something follows the PEM block")
	}
	return p.Bytes, nil
}
