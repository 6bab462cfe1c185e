package executor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks bounds the symbolic links that CheckScript follows.
const maxLinks = 40

// CheckScript says whether a program may be run with the daemon's rights: it is a regular, executable file, and it and every
// directory on the way to it belong to root (or to the user the daemon runs as) and can be written by nobody else. A
// world-writable directory with the sticky bit, such as /tmp, is refused as well. The error is ErrUnsafe, names the component
// of the path, and says what to do.
func CheckScript(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %q is not an absolute path", ErrUnsafe, path)
	}
	final, err := checkPath(path)
	if err != nil {
		return err
	}
	info, err := os.Lstat(final)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file but %s", ErrUnsafe, final, describeMode(info.Mode()))
	case info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%w: %s is not executable; fix: chmod 0755 %s", ErrUnsafe, final, final)
	}
	return nil
}

// checkPath checks every component, those behind symbolic links too, and returns the path without links.
func checkPath(path string) (string, error) {
	todo := splitPath(path)
	at := "/"
	if err := checkOwner(at); err != nil {
		return "", err
	}
	for links := 0; len(todo) > 0; {
		next := filepath.Join(at, todo[0])
		todo = todo[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return "", missing(path, next, err)
		}
		if info.Mode()&os.ModeSymlink == 0 {
			if err := checkOwner(next); err != nil {
				return "", err
			}
			at = next
			continue
		}
		// Who may change the link is decided by its directory, which has been checked, and by its owner.
		if err := checkUID(next, info); err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%w: %s goes through more than %d symbolic links", ErrUnsafe, path, maxLinks)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnsafe, err)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(splitPath(target), todo...)
	}
	return at, nil
}

// splitPath keeps "..": behind a symbolic link it is not what a cleaned path makes of it.
func splitPath(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func missing(path, component string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s does not exist (wanted for %s)", ErrUnsafe, component, path)
	}
	return fmt.Errorf("%w: %w", ErrUnsafe, err)
}

func checkOwner(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	if err := checkUID(path, info); err != nil {
		return err
	}
	perm := info.Mode().Perm()
	switch {
	case perm&0o022 == 0:
		return nil
	case info.IsDir() && info.Mode()&os.ModeSticky != 0:
		return fmt.Errorf("%w: %s can be written by everybody (sticky directory); fix: keep the program elsewhere, for example "+
			"below /usr/local", ErrUnsafe, path)
	case perm&0o002 != 0:
		return fmt.Errorf("%w: %s can be written by everybody (mode %04o); fix: chmod go-w %s", ErrUnsafe, path, perm, path)
	}
	return fmt.Errorf("%w: %s can be written by its group (mode %04o); fix: chmod go-w %s", ErrUnsafe, path, perm, path)
}

func checkUID(path string, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: the owner of %s cannot be read", ErrUnsafe, path)
	}
	uid := int(st.Uid)
	if uid == 0 || uid == os.Geteuid() || ownerOutside(uid) {
		return nil
	}
	return fmt.Errorf("%w: %s belongs to user %d, not to root; fix: chown root %s", ErrUnsafe, path, uid, path)
}

func describeMode(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&os.ModeNamedPipe != 0:
		return "a named pipe"
	case m&os.ModeDevice != 0:
		return "a device"
	case m&os.ModeSocket != 0:
		return "a socket"
	}
	return "of mode " + m.String()
}

// CheckDirectory says whether only root (or the user the daemon runs as) can change what lies in a directory: it and every
// directory on the way to it, those behind symbolic links too, obey the rules of CheckScript. It returns the path without links.
func CheckDirectory(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: %q is not an absolute path", ErrUnsafe, path)
	}
	final, err := checkPath(path)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(final)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%w: %s is not a directory", ErrUnsafe, final)
	}
	return final, nil
}
