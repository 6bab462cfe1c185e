package identity

import (
	"bytes"
	"path/filepath"
	"testing"
)

func TestSealAndSign(t *testing.T) {
	a, err := NewCluster(filepath.Join(t.TempDir(), "a"), "one", "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCluster(filepath.Join(t.TempDir(), "b"), "one", "a")
	if err != nil {
		t.Fatal(err)
	}
	secret, message := []byte("0123456789abcdef0123456789abcdef"), []byte("a message")
	sealed, err := a.Seal(a.Card(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Open(sealed); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("opened %x, %v", got, err)
	}
	if bytes.Contains(sealed, secret[:8]) {
		t.Fatal("the secret is in clear")
	}
	if _, err := other.Open(sealed); err == nil {
		t.Fatal("another node opened it")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := a.Open(bad); err == nil {
			t.Fatalf("a change of byte %d was not noticed", i)
		}
	}
	if _, err := a.Seal(other.Card(), secret); err == nil {
		t.Fatal("sealed for a node of another cluster")
	}
	sig, err := a.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify("a", a.Card(), message, sig); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]error{
		"another name":    a.Verify("b", a.Card(), message, sig),
		"another message": a.Verify("a", a.Card(), []byte("b message"), sig),
		"another cluster": a.Verify("a", other.Card(), message, sig),
		"no card":         a.Verify("a", nil, message, sig),
	} {
		if bad == nil {
			t.Errorf("%s was not noticed", name)
		}
	}
}
