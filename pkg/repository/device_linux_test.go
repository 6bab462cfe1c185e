package repository

import (
	"os"
	"strings"
	"testing"
)

func TestALocalFileIsRefused(t *testing.T) {
	dirs := []string{t.TempDir()}
	if _, err := os.Stat("/dev/shm"); err == nil {
		dirs = append(dirs, "/dev/shm")
	}
	for _, dir := range dirs {
		f, err := os.CreateTemp(dir, "volume")
		if err != nil {
			t.Log(err)
			continue
		}
		defer os.Remove(f.Name())
		f.Close()
		if d, _, err := OpenDevice(f.Name(), true, false); err == nil {
			d.Close()
			t.Errorf("a file in %s was taken", dir)
		} else if !strings.Contains(err.Error(), "shared") {
			t.Error(err)
		}
		d, _, err := OpenDevice(f.Name(), true, true)
		if err != nil {
			t.Errorf("in the lab: %v", err)
			continue
		}
		d.Close()
	}
}

func TestNFSMustBeHard(t *testing.T) {
	mounts := "/dev/sda / ext4 rw 0 0\nsrv:/x /shared nfs4 rw,hard,vers=4.2 0 0\nsrv:/y /shared/soft\\040one nfs4 rw,soft 0 0\n"
	for path, bad := range map[string]bool{"/shared/volume": false, "/shared/soft one/volume": true, "/sharedother/v": false} {
		if err := checkNFS(mountOptions(mounts, path)); (err != nil) != bad {
			t.Errorf("%s: %v", path, err)
		}
	}
}
