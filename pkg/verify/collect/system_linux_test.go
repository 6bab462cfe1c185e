package collect

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"os"
)

// The superblock is read as the file system's own programs write it.
func TestSuperblocks(t *testing.T) {
	for kind, mkfs := range map[string][]string{"ext": {"mkfs.ext4", "-q", "-F", "-U", "11111111-2222-3333-4444-555555555555"},
		"xfs": {"mkfs.xfs", "-q", "-f", "-m", "uuid=11111111-2222-3333-4444-555555555555"}} {
		path, err := exec.LookPath(mkfs[0])
		if err != nil {
			t.Logf("%s is not installed here", mkfs[0])
			continue
		}
		image := filepath.Join(t.TempDir(), "image")
		f, err := os.Create(image)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(512 << 20); err != nil { // sparse; XFS wants 300 MiB
			t.Fatal(err)
		}
		_ = f.Close()
		if out, err := exec.Command(path, append(mkfs[1:], image)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if d := deviceAt(image); d.Type != kind || d.UUID != "11111111-2222-3333-4444-555555555555" {
			t.Errorf("%s: %+v", kind, d)
		}
	}
	if kind, uuid := superblock(nil); kind+uuid != "" {
		t.Error("nothing was recognised as something")
	}
	if d := deviceAt("/dev/no-such-device"); d.Exists || d.Error != "" {
		t.Errorf("%+v", d)
	}
	if d := deviceAt("UUID=no-such-uuid"); d.Exists {
		t.Errorf("%+v", d)
	}
	if d := deviceAt(strings.Repeat("x", 5)); !d.Exists || d.Kind != "other" {
		t.Errorf("%+v", d)
	}
}

func FuzzSuperblock(f *testing.F) {
	f.Add([]byte("XFSB"))
	f.Fuzz(func(_ *testing.T, b []byte) { superblock(b) })
}
