// Package repositorytest has what tests of the repository volume and of its users need: a disk in memory, and an identity.
//
// It promises nothing about real disks: a block's write is atomic here, and there is no cache that could lie.
package repositorytest

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Disk is memory that several processes see as one disk. It is safe for concurrent use.
type Disk struct {
	mu   sync.Mutex
	data []byte
}

// NewDisk makes a disk of zeros.
func NewDisk(size int64) *Disk { return &Disk{data: make([]byte, size)} }

// Size is in bytes.
func (d *Disk) Size() int64 { return int64(len(d.data)) }

// Bytes returns a copy of n bytes at off.
func (d *Disk) Bytes(off, n int64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.data[off:off+n]...)
}

// Set changes bytes behind everybody's back.
func (d *Disk) Set(off int64, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], b)
}

// A Handle is one process's way to a disk; it is a repository.Device.
type Handle struct {
	disk *Disk
	// Before, if it is set, is called before every access; its error ends the access. It may block: then the access hangs.
	Before func(write bool, off int64, n int) error
}

// Open gives a new handle.
func (d *Disk) Open() *Handle { return &Handle{disk: d} }

func (h *Handle) reach(write bool, off int64, n int) error {
	if off < 0 || off+int64(n) > h.disk.Size() {
		return fmt.Errorf("%w: %d bytes at %d, and the disk has %d", io.ErrUnexpectedEOF, n, off, h.disk.Size())
	}
	if h.Before != nil {
		return h.Before(write, off, n)
	}
	return nil
}

// ReadAt reads.
func (h *Handle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.reach(false, off, len(p)); err != nil {
		return 0, err
	}
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return copy(p, h.disk.data[off:]), nil
}

// WriteAt writes.
func (h *Handle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.reach(true, off, len(p)); err != nil {
		return 0, err
	}
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return copy(h.disk.data[off:], p), nil
}

// Close does nothing.
func (h *Handle) Close() error { return nil }

// Authority is the identity of a node in tests: it keeps no secret. Its value is the node's name.
type Authority string

func mac(key string, m []byte) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write(m)
	return h.Sum(nil)
}

// Card names the node.
func (a Authority) Card() []byte { return []byte("card of " + string(a)) }

// Sign signs as the node.
func (a Authority) Sign(m []byte) ([]byte, error) { return mac("sign"+string(a), m), nil }

// Verify checks a signature that Sign made.
func (Authority) Verify(node string, card, m, signature []byte) error {
	if string(card) != "card of "+node || !hmac.Equal(signature, mac("sign"+node, m)) {
		return errors.New("the signature is not the node's")
	}
	return nil
}

// Seal marks the secret for the card's owner; it hides nothing.
func (Authority) Seal(card, secret []byte) ([]byte, error) {
	return append(mac("seal"+string(card), secret), secret...), nil
}

// Open gives what was sealed for the node.
func (a Authority) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < sha256.Size || !hmac.Equal(sealed[:sha256.Size], mac("seal"+string(a.Card()), sealed[sha256.Size:])) {
		return nil, fmt.Errorf("it is not sealed for %s", string(a))
	}
	return sealed[sha256.Size:], nil
}
