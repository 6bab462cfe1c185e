package lab

import (
	"os"
	"path/filepath"
	"syscall"
)

// locked tells whether the lab's keeper still lives.
func (l *Lab) locked() bool {
	f, err := os.OpenFile(filepath.Join(l.Dir, LockFile), os.O_RDWR, 0)
	if err != nil {
		return false // never started, or removed
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}
