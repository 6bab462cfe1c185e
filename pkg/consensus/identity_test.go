package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// open1 opens a server on the directory and closes it again.
func open1(t *testing.T, dir string, change func(*Config)) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		cfg := c.config("a")
		cfg.FSM, cfg.Dir, cfg.MachineID = &journal{}, dir, "machine-1"
		if change != nil {
			change(&cfg)
		}
		var n *Node
		if n, err = Open(cfg); err != nil {
			cfg.Listener.Close()
			return
		}
		if err = n.Bootstrap(); err == nil || errors.Is(err, ErrHasState) {
			c.servers["a"] = &server{id: "a", node: n}
			<-n.Leads()
			err = nil
		}
		must(t, n.Close())
	})
	return err
}

func TestA10CopiedStoreIsRefused(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "raft")
	must(t, open1(t, dir, nil))
	must(t, open1(t, dir, nil)) // the same again

	copied := filepath.Join(base, "copy")
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	if err := open1(t, copied, nil); !errors.Is(err, ErrAmnesia) || !strings.Contains(err.Error(), "join the node") {
		t.Errorf("a copy: error %v, want ErrAmnesia", err)
	}
	for what, change := range map[string]func(*Config){
		"machine": func(c *Config) { c.MachineID = "machine-2" },
		"server":  func(c *Config) { c.ID = "b" },
		"cluster": func(c *Config) { c.ClusterID = "other" },
	} {
		if err := open1(t, dir, change); !errors.Is(err, ErrAmnesia) {
			t.Errorf("another %s: error %v, want ErrAmnesia", what, err)
		}
	}
	must(t, os.Remove(filepath.Join(dir, identityName)))
	if err := open1(t, dir, nil); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("without a record: error %v, want ErrNoIdentity", err)
	}
}

func TestA10EachPartOfThePlaceCounts(t *testing.T) {
	dir := t.TempDir()
	_, err := createIdentity(dir, "test", "a", "m")
	must(t, err)
	for what, tc := range map[string]struct {
		spoil func(*Place)
		same  bool
	}{
		"nothing":                          {func(*Place) {}, true},
		"inode":                            {func(p *Place) { p.Inode++ }, false},
		"machine":                          {func(p *Place) { p.MachineID = "n" }, false},
		"device and file system":           {func(p *Place) { p.Device++; p.FileSystem = "other" }, false},
		"device, file system not known":    {func(p *Place) { p.Device++; p.FileSystem = "" }, false},
		"file system, not the device":      {func(p *Place) { p.FileSystem = "other" }, true},
		"birth not known when it was made": {func(p *Place) { p.Born = 0 }, true},
	} {
		now, err := LoadIdentity(dir)
		must(t, err)
		tc.spoil(&now.Place)
		if err := now.check("test", "a", "m"); errors.Is(err, ErrAmnesia) == tc.same {
			t.Errorf("another %s: error %v", what, err)
		}
	}
}

// The log's newest boot of a server against the store's: a restored store knows an older one.
func TestA10OlderStoreIsFoundByItsBoots(t *testing.T) {
	dir := t.TempDir()
	id, err := createIdentity(dir, "test", "a", "m")
	must(t, err)
	if err := id.Matches(Boot{}); err != nil {
		t.Errorf("a new store and a log that knows none: %v", err)
	}
	first, err := id.Propose()
	must(t, err)
	must(t, id.Accept(first))
	image, err := os.ReadFile(filepath.Join(dir, identityName)) // a backup is made now
	must(t, err)
	second, err := id.Propose()
	must(t, err)

	// A crash between the log's write and the record's: the log may know the second or not.
	id, err = LoadIdentity(dir)
	must(t, err)
	for _, b := range []Boot{first, second, {}} {
		if err := id.Matches(b); err != nil {
			t.Errorf("boot %d: %v", b.Number, err)
		}
	}
	third, err := id.Propose()
	must(t, err)
	if err := id.Matches(second); err != nil {
		t.Errorf("a boot that was proposed and never heard of: %v", err)
	}
	must(t, id.Accept(third))
	if err := id.Matches(second); err != nil {
		t.Errorf("a log that lags behind: %v", err)
	}
	if err := id.Matches(Boot{third.Number, "another"}); !errors.Is(err, ErrAmnesia) {
		t.Errorf("another random: error %v, want ErrAmnesia", err)
	}

	must(t, os.WriteFile(filepath.Join(dir, identityName), image, 0o600)) // the backup comes back
	id, err = LoadIdentity(dir)
	must(t, err)
	if err := id.Matches(third); !errors.Is(err, ErrAmnesia) {
		t.Errorf("an older store: error %v, want ErrAmnesia", err)
	}
	// Also after it has started once more on its own.
	mine, err := id.Propose()
	must(t, err)
	if mine.Number != second.Number || mine == second {
		t.Fatalf("boot %+v", mine)
	}
	if err := id.Matches(second); !errors.Is(err, ErrAmnesia) {
		t.Errorf("the other life's boot: error %v, want ErrAmnesia", err)
	}
}

func TestDamagedIdentityIsSaid(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, identityName)
	for name, text := range map[string]string{
		"empty": "", "half": `{"format": 1, "cluster`, "format": `{"format": 9, "cluster_id": "c", "server_id": "s"}`,
		"names": `{"format": 1}`, "huge": strings.Repeat(" ", maxIdentity+1),
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "join the node") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestProposedBootsAreBounded(t *testing.T) {
	id, err := createIdentity(t.TempDir(), "test", "a", "m")
	must(t, err)
	for range 3 * maxProposed {
		_, err := id.Propose()
		must(t, err)
	}
	if n := len(id.Proposed); n != maxProposed || id.Proposed[n-1].Number != 3*maxProposed {
		t.Errorf("%d proposed, the last is %+v", n, id.Proposed[n-1])
	}
}
