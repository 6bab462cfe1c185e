package identity

import (
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// subject names the node, and the certificate's number, unless that is 0: in the attribute "serial number" of the name, which
// readers of older versions pass over. (The serial number of the certificate itself is random, as it should be.)
func subject(node string, number uint64) pkix.Name {
	s := pkix.Name{CommonName: node}
	if number != 0 {
		s.SerialNumber = strconv.FormatUint(number, 10)
	}
	return s
}

// Number is the number of a certificate: of two of one name the later has the higher one. Certificates of older versions and the
// founder's first have 0. It counts for a certificate that was verified.
func Number(c *x509.Certificate) uint64 {
	n, err := strconv.ParseUint(c.Subject.SerialNumber, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Number is that of the certificate which this node shows.
func (id *Identity) Number() uint64 { return Number(id.shown().cert) }

// Renew makes this node a new key and a certificate of this number, stores both, and shows it from the next handshake on. The one
// before is good for as long as the other nodes take it. A number that is not higher changes nothing. After an error, and after a
// crash at any point, the node has the one or the other certificate, whole.
func (id *Identity) Renew(number uint64) error {
	id.renew.Lock()
	defer id.renew.Unlock()
	if number <= id.Number() {
		return nil
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	cert, err := id.sign(&key.PublicKey, id.Node, number)
	if err != nil {
		return err
	}
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	if id.dir != "" {
		if err := replaceFile(filepath.Join(id.dir, fileShown), append(encodeCert(cert), text...)); err != nil {
			return fmt.Errorf("store the renewed certificate of node %s: %w", id.Node, err)
		}
	}
	id.current.Store(&pair{cert, key})
	return nil
}

// loadShown takes the renewed certificate, if there is one.
func (id *Identity) loadShown() error {
	path := filepath.Join(id.dir, fileShown)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	text, err := readPrivate(path)
	if err != nil {
		return err
	}
	first, rest := pem.Decode(text)
	if first == nil || first.Type != pemCert {
		return errors.New("it does not begin with a certificate: it is empty or damaged. Without the file the node shows the certificate that it " +
			"joined with, which the others refuse if it has used a newer one; then join it anew")
	}
	cert, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return fmt.Errorf("parse the certificate: %w", err)
	}
	key, err := decodeKey(rest)
	if err != nil {
		return err
	}
	return id.takeShown(cert, key)
}

func (id *Identity) takeShown(cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	if !key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("the key does not belong to the certificate")
	}
	node, err := id.verify(cert, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if node != id.Node {
		return fmt.Errorf("the certificate names node %s, not %s", node, id.Node)
	}
	id.current.Store(&pair{cert, key})
	return nil
}

// replaceFile puts a private file in the place of another in one step.
func replaceFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFile(tmp, data); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// GossipKeyNumber is the gossip key of that number, GossipKeySize bytes. Key 0 is the one that the cluster was founded with; every
// other is made from the CA's key, which every member holds and nobody else: so the log need only say which numbers are good, no
// key ever travels, and a node that was away knows the newest as soon as it knows the log. It is no weaker than a random key given
// out over the links: whoever holds the CA's key can be any member there and ask for it.
func (id *Identity) GossipKeyNumber(number uint64) ([]byte, error) {
	if number == 0 {
		return id.GossipKey(), nil
	}
	secret, err := id.caKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("read the CA's key: %w", err)
	}
	return hkdf.Key(sha256.New, secret, []byte(id.ClusterUUID), "holdfast gossip key "+strconv.FormatUint(number, 10), GossipKeySize)
}
