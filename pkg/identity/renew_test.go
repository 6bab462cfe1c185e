package identity

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A renewed certificate is shown from the next handshake on, has another key and the number, is there after a restart, and leaves the
// card, with which things are sealed for the node, as it was.
func TestRenew(t *testing.T) {
	n1 := newCluster(t, "prod", "n1")
	n2 := mustJoin(t, n1, "n2")
	card, before := n2.Card(), n2.shown()
	server := n2.ServerTLS(func(string) bool { return true }) // made before, as a listener's is
	sealed, err := n1.Seal(card, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n2.Renew(12); err != nil {
		t.Fatal(err)
	}
	if got := n2.shown(); got.key.Equal(before.key) || n2.Number() != 12 || !bytes.Equal(n2.Card(), card) {
		t.Errorf("number %d, the same key: %v", n2.Number(), got.key.Equal(before.key))
	}
	if err := n2.Renew(11); err != nil || n2.Number() != 12 {
		t.Errorf("an older number: %v, %d", err, n2.Number())
	}
	if err := handshake(server, n1.ClientTLS("n2")); err != nil {
		t.Errorf("as server: %v", err)
	}
	if err := handshake(n1.ServerTLS(func(string) bool { return true }), n2.ClientTLS("n1")); err != nil {
		t.Errorf("as client: %v", err)
	}
	again, err := Load(n2.dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Number() != 12 || !again.shown().key.Equal(n2.shown().key) {
		t.Errorf("after a restart: number %d", again.Number())
	}
	if got, err := again.Open(sealed); err != nil || string(got) != "secret" {
		t.Errorf("what was sealed before: %q, %v", got, err)
	}
	if voter, err := again.As("voter", "voter"); err != nil || voter.Number() != 0 || voter.shown().key.Equal(again.shown().key) {
		t.Errorf("the voter's own identity: %v", err)
	}
}

// A renewed certificate that is damaged, or is not this node's, is refused with the file's name, and a half-written one harms nothing.
func TestRenewedFileIsChecked(t *testing.T) {
	n1 := newCluster(t, "prod", "n1")
	n2, other := mustJoin(t, n1, "n2"), newCluster(t, "prod", "n2")
	for _, id := range []*Identity{n1, n2, other} {
		if err := id.Renew(3); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(n2.dir, fileShown)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(id *Identity) []byte {
		b, err := os.ReadFile(filepath.Join(id.dir, fileShown))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	half := bytes.Index(good, []byte("-----BEGIN PRIVATE"))
	for want, text := range map[string][]byte{"empty or damaged": nil, "not PEM": good[:half], "names node n1": read(n1), "another CA": read(other),
		"does not belong to the certificate": append(bytes.Clone(good[:half]), read(n1)[bytes.Index(read(n1), []byte("-----BEGIN PRIVATE")):]...)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(n2.dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fileShown) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	mode := func(m os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	mode(0o644)
	if _, err := Load(n2.dir); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("a key that others may read: %v", err)
	}
	mode(0o600)
	if err := os.WriteFile(path+".new", good[:10], 0o600); err != nil { // a crash while the next one was written
		t.Fatal(err)
	}
	id, err := Load(n2.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Renew(4); err != nil || id.Number() != 4 {
		t.Errorf("after a crash: %v", err)
	}
}

// All members make the same gossip key of a number, and nobody else does.
func TestGossipKeyNumbers(t *testing.T) {
	n1 := newCluster(t, "prod", "n1")
	n2, other := mustJoin(t, n1, "n2"), newCluster(t, "prod", "n1")
	seen := map[string]bool{}
	for _, n := range []uint64{0, 1, 2, 1 << 60} {
		a, err1 := n1.GossipKeyNumber(n)
		b, err2 := n2.GossipKeyNumber(n)
		c, err3 := other.GossipKeyNumber(n)
		if err1 != nil || err2 != nil || err3 != nil || len(a) != GossipKeySize || !bytes.Equal(a, b) || bytes.Equal(a, c) || seen[string(a)] {
			t.Errorf("key %d: %v %v %v", n, err1, err2, err3)
		}
		seen[string(a)] = true
	}
	if k, _ := n1.GossipKeyNumber(0); !bytes.Equal(k, n1.GossipKey()) {
		t.Error("key 0 is not the one that the cluster was founded with")
	}
}
