package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Errors of joining, for the admitting side to answer with and for callers to branch on. The text is what the operator of the
// joining node reads.
var (
	ErrBadToken     = errors.New("the join token is damaged or incomplete: copy the whole line")
	ErrTokenUnknown = errors.New("the cluster does not know this join token: it was used already, was withdrawn, or belongs to another node")
	ErrTokenExpired = errors.New("the join token has expired: make a new one on a member")
)

// A Token invites one node into a cluster, once. Its text holds the secret; the cluster keeps only the secret's hash.
type Token struct {
	ClusterName   string
	ClusterUUID   string
	CAFingerprint Fingerprint
	Addresses     []string // of members, host:port, to ask in this order
	Node          string   // whom it invites
	Secret        [32]byte
}

// tokenPrefix tells what the text is, and its version.
const tokenPrefix = "holdfast-join-1."

const maxToken = 8 << 10

type tokenBody struct {
	Cluster   string   `json:"c"`
	UUID      string   `json:"u"`
	CA        []byte   `json:"f"`
	Addresses []string `json:"a"`
	Node      string   `json:"n"`
	Secret    []byte   `json:"s"`
}

// NewToken draws a secret and returns the token's text, one line of letters, digits, '.', '-' and '_', and the hash of the
// secret, which is what the cluster stores.
func NewToken(clusterName, uuid string, caFingerprint Fingerprint, addresses []string, node string) (text string, hash [32]byte) {
	var secret [32]byte
	rand.Read(secret[:])
	// Strings and bytes always encode.
	body, _ := json.Marshal(tokenBody{clusterName, uuid, caFingerprint[:], addresses, node, secret[:]})
	// The checksum tells a bad copy from a refused token.
	body = crcTable.append(body)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(body), HashSecret(secret[:])
}

// HashSecret is the hash under which a token is stored.
func HashSecret(secret []byte) [32]byte { return sha256.Sum256(secret) }

// SameHash compares two hashes in constant time.
func SameHash(a, b [32]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// ParseToken reads a token's text. Blanks and line breaks, as terminals add them, are ignored. Its errors never quote the
// text, which is a secret.
func ParseToken(text string) (*Token, error) {
	if len(text) > maxToken {
		return nil, fmt.Errorf("%w (it is longer than any token)", ErrBadToken)
	}
	text = strings.Join(strings.Fields(text), "")
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return nil, fmt.Errorf("%w (a token of this version begins with %q)", ErrBadToken, tokenPrefix)
	}
	body, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, ErrBadToken
	}
	if body, ok = crcTable.strip(body); !ok {
		return nil, ErrBadToken
	}
	var b tokenBody
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, ErrBadToken
	}
	t := &Token{ClusterName: b.Cluster, ClusterUUID: b.UUID, Addresses: b.Addresses, Node: b.Node}
	if len(b.CA) != len(t.CAFingerprint) || len(b.Secret) != len(t.Secret) || len(b.Addresses) == 0 {
		return nil, ErrBadToken
	}
	copy(t.CAFingerprint[:], b.CA)
	copy(t.Secret[:], b.Secret)
	if errors.Join(CheckName("cluster", t.ClusterName), CheckName("node", t.Node), checkUUID(t.ClusterUUID)) != nil {
		return nil, ErrBadToken
	}
	return t, nil
}

type checksum struct{ *crc32.Table }

var crcTable = checksum{crc32.MakeTable(crc32.Castagnoli)}

func (c checksum) append(b []byte) []byte {
	s := crc32.Checksum(b, c.Table)
	return append(b, byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}

func (c checksum) strip(b []byte) ([]byte, bool) {
	n := len(b) - 4
	if n < 0 {
		return nil, false
	}
	return b[:n:n], bytes.Equal(c.append(b[:n:n]), b)
}

// A JoinRequest asks a member to admit a node. It holds the token's secret and travels only under
// VerifyServerByFingerprint.
type JoinRequest struct {
	Secret []byte `json:"secret"`
	Node   string `json:"node"`
	CSR    []byte `json:"csr"` // DER
}

// Hash is the hash of the request's secret, to be looked up in the cluster's open tokens.
func (r *JoinRequest) Hash() [32]byte { return HashSecret(r.Secret) }

// A JoinReply makes the asker a member. It holds the CA's key, so that the new member can admit others.
type JoinReply struct {
	ClusterName string              `json:"cluster_name"`
	ClusterUUID string              `json:"cluster_uuid"`
	CACert      []byte              `json:"ca_cert"`   // DER
	CAKey       []byte              `json:"ca_key"`    // PKCS #8
	NodeCert    []byte              `json:"node_cert"` // DER
	GossipKey   []byte              `json:"gossip_key"`
	RaftID      string              `json:"raft_id"`
	Members     map[string][]string `json:"members"`           // node -> addresses, host:port, in order of preference
	Timings     json.RawMessage     `json:"timings,omitempty"` // with which the newcomer opens its log; nothing to this package
	Epoch       uint64              `json:"epoch,omitempty"`   // of the cluster, which the newcomer's links must speak; 0 is the first
}

// DecodeJoinRequest reads a request from the wire. Size is the caller's to bound.
func DecodeJoinRequest(b []byte) (*JoinRequest, error) {
	var r JoinRequest
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, errors.New("the join request is damaged")
	}
	if err := CheckName("node", r.Node); err != nil {
		return nil, err
	}
	return &r, nil
}

// Admit makes the reply to a request whose token and name the caller has checked, and taken, against the cluster's state. number
// is that of the newcomer's certificate.
func (id *Identity) Admit(r *JoinRequest, raftID string, number uint64, members map[string][]string) (*JoinReply, error) {
	cert, err := id.SignCSR(r.CSR, r.Node, number)
	if err != nil {
		return nil, err
	}
	caKey, err := x509.MarshalPKCS8PrivateKey(id.caKey)
	if err != nil {
		return nil, fmt.Errorf("encode the CA's key: %w", err)
	}
	return &JoinReply{ClusterName: id.ClusterName, ClusterUUID: id.ClusterUUID, CACert: id.ca.Raw, CAKey: caKey, NodeCert: cert,
		GossipKey: id.GossipKey(), RaftID: raftID, Members: members}, nil
}

// A Joining is a node's side of joining, between the token and the reply. Nothing is on disk until Finish.
type Joining struct {
	dir   string
	token *Token
	key   *ecdsa.PrivateKey
	csr   []byte
}

// Join begins: it makes the node's key. dir must not exist or be empty.
func Join(dir string, t *Token) (*Joining, error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate request: %w", err)
	}
	return &Joining{dir: dir, token: t, key: key, csr: csr}, nil
}

// Request is what the node sends.
func (j *Joining) Request() *JoinRequest {
	return &JoinRequest{Secret: bytes.Clone(j.token.Secret[:]), Node: j.token.Node, CSR: j.csr}
}

// Finish checks the reply against the token and the key, and stores the identity.
func (j *Joining) Finish(r *JoinReply) (*Identity, error) {
	id, err := j.identity(r)
	if err == nil {
		err = id.check()
	}
	if err != nil {
		return nil, fmt.Errorf("check the cluster's reply to the join: %w", err)
	}
	id.dir = j.dir
	return id, id.store(j.dir)
}

func (j *Joining) identity(r *JoinReply) (*Identity, error) {
	if r.ClusterUUID != j.token.ClusterUUID || r.ClusterName != j.token.ClusterName {
		return nil, fmt.Errorf("it is of cluster %.70q (%.40q), the token of %s (%s)", r.ClusterName, r.ClusterUUID,
			j.token.ClusterName, j.token.ClusterUUID)
	}
	if sha256.Sum256(r.CACert) != j.token.CAFingerprint {
		return nil, fmt.Errorf("its CA is not the one that the token pins (%s)", j.token.CAFingerprint)
	}
	id := &Identity{ClusterName: r.ClusterName, ClusterUUID: r.ClusterUUID, Node: j.token.Node, RaftID: r.RaftID,
		gossipKey: bytes.Clone(r.GossipKey), key: j.key}
	var err error
	if id.ca, err = x509.ParseCertificate(r.CACert); err != nil {
		return nil, fmt.Errorf("parse the CA's certificate: %w", err)
	}
	if id.cert, err = x509.ParseCertificate(r.NodeCert); err != nil {
		return nil, fmt.Errorf("parse the node's certificate: %w", err)
	}
	k, err := x509.ParsePKCS8PrivateKey(r.CAKey)
	if err != nil {
		return nil, errors.New("the CA's key cannot be read")
	}
	var ok bool
	if id.caKey, ok = k.(*ecdsa.PrivateKey); !ok {
		return nil, errors.New("the CA's key is not ECDSA")
	}
	id.finish()
	return id, nil
}
