package executor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// CheckMountPoint says what is wrong with the place of a file system on this node; a directory that does not exist will be made. stat is
// os.Stat where the way to it may lead over a symbolic link, and os.Lstat where it may not.
func CheckMountPoint(f *cluster.FileSystem, stat func(string) (os.FileInfo, error)) error {
	if !filepath.IsAbs(f.MountPoint) || filepath.Clean(f.MountPoint) != f.MountPoint || f.MountPoint == "/" {
		return fmt.Errorf("mount point %q of file system %s must be an absolute path without . and .., and not /", f.MountPoint, f.Name)
	}
	info, err := stat(f.MountPoint)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the mount point of file system %s: %w", f.Name, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("mount point %s of file system %s is not a directory", f.MountPoint, f.Name)
	}
	return nil
}
