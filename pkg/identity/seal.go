package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// Card is what other members need to know of this node to seal a secret for it and to check its signatures: its certificate. The
// caller must not change it.
func (id *Identity) Card() []byte { return id.cert.Raw }

// Sign signs a message as this node. Whoever signs for two purposes begins the messages with different words.
func (id *Identity) Sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, id.key, sum[:])
}

// Verify checks that the card is the named node's, of this cluster, and that the signature is its.
func (id *Identity) Verify(node string, card, message, signature []byte) error {
	key, name, err := id.readCard(card)
	if err != nil {
		return err
	}
	if name != node {
		return fmt.Errorf("the certificate names node %s, not %.70s", name, node)
	}
	sum := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(key, sum[:], signature) {
		return fmt.Errorf("the signature is not node %s's", node)
	}
	return nil
}

// readCard checks a certificate against the cluster's CA.
func (id *Identity) readCard(card []byte) (*ecdsa.PublicKey, string, error) {
	cert, err := x509.ParseCertificate(card)
	if err != nil {
		return nil, "", fmt.Errorf("read the certificate: %w", err)
	}
	node, err := id.verify(cert, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, "", err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, "", errors.New("the certificate's key is not of the kind that members have")
	}
	return key, node, nil
}

// sealWords separates the keys made here from any others of the same node keys.
const sealWords = "holdfast sealed secret"

// pointSize is that of an uncompressed point of P-256.
const pointSize = 65

// sealer makes the cipher from what the two sides share. The key is used once, so its nonce is all zeros.
func sealer(shared, ephemeral, recipient []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, shared, slices.Concat(ephemeral, recipient), sealWords, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Seal encrypts a short secret so that only the owner of the card can open it: a new P-256 key, ECDH with the card's, HKDF-SHA256,
// AES-256-GCM. It does not say who sealed.
func (id *Identity) Seal(card, secret []byte) ([]byte, error) {
	public, _, err := id.readCard(card)
	if err != nil {
		return nil, err
	}
	to, err := public.ECDH()
	if err != nil {
		return nil, fmt.Errorf("the certificate's key: %w", err)
	}
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	shared, err := ephemeral.ECDH(to)
	if err != nil {
		return nil, fmt.Errorf("agree on a key: %w", err)
	}
	point := ephemeral.PublicKey().Bytes()
	aead, err := sealer(shared, point, to.Bytes())
	if err != nil {
		return nil, err
	}
	return aead.Seal(point, make([]byte, aead.NonceSize()), secret, nil), nil
}

// Open opens what was sealed for this node.
func (id *Identity) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < pointSize {
		return nil, errors.New("the sealed secret is too short")
	}
	from, err := ecdh.P256().NewPublicKey(sealed[:pointSize])
	if err != nil {
		return nil, fmt.Errorf("the sealed secret: %w", err)
	}
	own, err := id.key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("this node's key: %w", err)
	}
	shared, err := own.ECDH(from)
	if err != nil {
		return nil, fmt.Errorf("agree on a key: %w", err)
	}
	aead, err := sealer(shared, sealed[:pointSize], own.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed[pointSize:], nil)
	if err != nil {
		return nil, errors.New("the sealed secret is not for this node, or was changed")
	}
	return secret, nil
}
