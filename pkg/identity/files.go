package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

type file struct {
	name string
	data []byte
}

// vacant reports an error unless dir does not exist or is empty.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into the identity directory: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("%w: %s; a node belongs to one cluster, remove the directory to leave it", ErrExists, dir)
	}
	return nil
}

// writeDir puts the files into dir in one step: they are written and synced in a new directory beside it, which is then
// renamed. The parent directories are made if they are missing.
func writeDir(dir string, files []file) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, ErrExists) {
			err = fmt.Errorf("store the identity in %s: %w", dir, err)
		}
	}()
	dir = filepath.Clean(dir)
	parent, prefix := filepath.Dir(dir), filepath.Base(dir)+".new-"
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, prefix) // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, f := range files {
		if err := writeFile(filepath.Join(tmp, f.name), f.data); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := vacant(dir); err != nil {
		return err
	}
	// An empty directory may stand there, made by a package. Remove fails if somebody filled it meanwhile.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	removeLeftovers(parent, prefix)
	return syncDir(parent)
}

// removeLeftovers removes what attempts that were killed have left: they hold keys that nobody will use.
func removeLeftovers(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			_ = os.RemoveAll(filepath.Join(parent, e.Name())) // the next attempt tries again
		}
	}
}

func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EBADF) {
		err = nil // some systems do not sync directories; the rename is then as durable as they make it
	}
	return errors.Join(err, d.Close())
}

// readDir reads the named files, after a check that nobody else can have read or changed them.
func readDir(dir string, names ...string) (map[string][]byte, error) {
	fi, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (no directory %s)", ErrNone, dir)
	case err != nil:
		return nil, fmt.Errorf("read the identity: %w", err)
	case !fi.IsDir():
		return nil, fmt.Errorf("read the identity: %s is not a directory", dir)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		return nil, fmt.Errorf("%w (%s is empty)", ErrNone, dir)
	}
	if err := private(dir, fi, 0o700); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, n := range names {
		if files[n], err = readPrivate(filepath.Join(dir, n)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the identity: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the identity: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("read the identity: %s is not a regular file", path)
	}
	if err := private(path, fi, 0o600); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the identity: %w", err)
	}
	if len(b) > maxFileSize {
		return nil, fmt.Errorf("read the identity: %s is larger than %d bytes", path, maxFileSize)
	}
	return b, nil
}

// private reports an error if a user other than ours (or root) owns the file, or others than its owner may use it.
func private(path string, fi fs.FileInfo, want fs.FileMode) error {
	if got := fi.Mode().Perm(); got&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so other users may use it; it holds keys and must have mode %04o: chmod %04o %s, "+
			"and if others could read it, give the node a new identity", path, got, want, want, path)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d; it holds keys and must belong to user %d, who runs this", path, st.Uid, os.Geteuid())
	}
	return nil
}
