package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/repository/repositorytest"
)

const testCluster = "11111111-2222-4333-8444-555555555555"

// testTimings are short: the tests run on a real file, in real time.
var testTimings = Timings{Host: 400 * time.Millisecond, IO: 300 * time.Millisecond, Beat: 50 * time.Millisecond}

func members(names ...string) []Member {
	var out []Member
	for _, n := range names {
		out = append(out, Member{Name: n, Card: repositorytest.Authority(n).Card()})
	}
	return out
}

// testFile makes a file for a small volume. Direct I/O is used where the file system has it.
func testFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

func formatted(t testing.TB, names ...string) string {
	t.Helper()
	path := testFile(t, MinLabSize)
	_, err := Format(FormatOptions{Path: path, Cluster: testCluster, Node: names[0], Members: members(names...),
		Authority: repositorytest.Authority(names[0]), Timings: testTimings, Lab: true})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func openAs(t testing.TB, path, node string, role Role) *Volume {
	t.Helper()
	v, err := Open(Options{Path: path, Cluster: testCluster, Node: node, Authority: repositorytest.Authority(node),
		Dir: filepath.Join(filepath.Dir(path), node), Role: role, Lab: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func claim(t testing.TB, v *Volume) *Voter {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w, err := v.Claim(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func wantRecords(t testing.TB, w *Voter, want ...string) {
	t.Helper()
	got, err := w.Records()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, r := range got {
		words = append(words, string(r))
	}
	if fmt.Sprint(words) != fmt.Sprint(want) {
		t.Fatalf("the records are %q and not %q", words, want)
	}
}

func TestClaimInheritsWhatWasAcknowledged(t *testing.T) {
	path := formatted(t, "a", "b")
	a := claim(t, openAs(t, path, "a", RoleVoter))
	wantRecords(t, a)
	for _, r := range []string{"one", "two"} {
		if err := a.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	big := bytes.Repeat([]byte("x"), 3*BlockSize)
	if err := a.Append([]byte("three"), big, nil); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, a, "one", "two", "three", string(big), "")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	b := claim(t, openAs(t, path, "b", RoleVoter))
	wantRecords(t, b, "one", "two", "three", string(big), "")
	if err := b.Compact([][]byte{[]byte("snapshot")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Append([]byte("four")); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, b, "snapshot", "four")
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	if err := a.Append([]byte("late")); !errors.Is(err, ErrClosed) {
		t.Fatalf("an append after the claim was given up: %v", err)
	}
}

func TestAStaleHostCannotPromise(t *testing.T) {
	path := formatted(t, "a", "b")
	a := claim(t, openAs(t, path, "a", RoleVoter))
	if err := a.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	b, err := openAs(t, path, "b", RoleVoter).takeOver() // a lives: only liveness says that b should wait
	if err != nil {
		t.Fatal(err)
	}
	wantRecords(t, b, "one")
	if err := a.Check(); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("the stale host's check: %v", err)
	}
	if err := a.Append([]byte("lost")); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("the stale host's append: %v", err)
	}
	<-a.Done()
	wantRecords(t, b, "one")
}

func TestOneWriterPerNode(t *testing.T) {
	path := formatted(t, "a", "b")
	openAs(t, path, "a", RoleVoter)
	_, err := Open(Options{Path: path, Cluster: testCluster, Node: "a", Authority: repositorytest.Authority("a"),
		Dir: filepath.Join(filepath.Dir(path), "a"), Role: RoleVoter, Lab: true})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("a second voter's process: %v", err)
	}
}
