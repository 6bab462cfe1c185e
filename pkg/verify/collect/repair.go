package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/holdfast-ha/holdfast/pkg/verify"
)

// tableFile is the system's own table of what is mounted at boot. Tests have one of their own.
var tableFile = "/etc/fstab"

// Repair carries out one action, if what it is for is still so. It says what it did. Nothing is followed: a path that is, or goes
// through, a symbolic link is refused.
func Repair(a verify.Action) (string, error) {
	if !filepath.IsAbs(a.Path) && a.Kind != verify.ActionNoAuto || strings.ContainsAny(a.Path, "\x00\n") {
		return "", fmt.Errorf("repair: %q is not an absolute path", a.Path)
	}
	switch a.Kind {
	case verify.ActionMkdir:
		return makeDirectory(a.Path, fs.FileMode(a.Mode).Perm())
	case verify.ActionChmod:
		return changeMode(a.Path, fs.FileMode(a.Mode).Perm())
	case verify.ActionNoAuto:
		return editTable(a.Path, a.Line)
	}
	return "", fmt.Errorf("repair: there is no action %q", a.Kind)
}

// noLinks refuses a path of which a component is a symbolic link.
func noLinks(p string) error {
	for at := filepath.Clean(p); at != "/"; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && info.Mode()&os.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link: repair it by hand", at)
		}
	}
	return nil
}

func makeDirectory(p string, mode fs.FileMode) (string, error) {
	if err := noLinks(p); err != nil {
		return "", err
	}
	if _, err := os.Lstat(p); err == nil {
		return "", nil // it is there meanwhile
	}
	if err := os.MkdirAll(p, mode); err != nil {
		return "", err
	}
	return fmt.Sprintf("made the directory %s (mode %04o)", p, mode), nil
}

func changeMode(p string, mode fs.FileMode) (string, error) {
	if err := noLinks(p); err != nil {
		return "", err
	}
	// By the open file: what is changed is what was looked at.
	f, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return "", fmt.Errorf("%s does not belong to root: repair it by hand", p)
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return "", fmt.Errorf("%s is no regular file", p)
	}
	was := info.Mode().Perm()
	if was == mode {
		return "", nil
	}
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	return fmt.Sprintf("changed the mode of %s from %04o to %04o", p, was, mode), nil
}

// editTable rewrites one entry, keeps the old table beside it, and replaces the file as a whole.
func editTable(source, point string) (string, error) {
	text, err := readTable(tableFile)
	if err != nil {
		return "", err
	}
	if len(text) >= maxTable {
		return "", fmt.Errorf("%s is too large to be changed", tableFile)
	}
	changed, ok := noAuto(text, source, point)
	if !ok {
		return "", nil
	}
	info, err := os.Stat(tableFile)
	if err != nil {
		return "", err
	}
	backup := tableFile + ".holdfast"
	if err := replace(backup, text, info.Mode().Perm()); err != nil {
		return "", err
	}
	if err := replace(tableFile, changed, info.Mode().Perm()); err != nil {
		return "", err
	}
	return fmt.Sprintf("added noauto to the entry of %s on %s in %s (the old table is %s)", source, point, tableFile, backup), nil
}

func replace(path, text string, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".holdfast-*")
	if err != nil {
		return err
	}
	_, werr := f.WriteString(text)
	err = errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
