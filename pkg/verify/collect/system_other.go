//go:build !linux

package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

// What is read from Linux's own files has no counterpart here yet, and is listed as not looked at.

func describeSystem(*verify.System) {}

func carrierOf(string) string { return "unknown" }

func mounts() ([]verify.Mount, error) { return nil, unsupported("the mount table") }

func unsupported(what string) error { return fmt.Errorf("%s: %w", what, executor.ErrNotSupported) }

func lookMounts(context.Context, *looker) error   { return unsupported("the mount table") }
func lookDevices(context.Context, *looker) error  { return unsupported("devices") }
func lookSpace(context.Context, *looker) error    { return unsupported("free space") }
func lookSettings(context.Context, *looker) error { return unsupported("network options") }
func lookUnits(context.Context, *looker) error    { return nil }

func lookBootTable(_ context.Context, l *looker) error {
	text, err := readTable("/etc/filesystems")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read /etc/filesystems: %w", err)
	}
	list := parseFilesystems(text)
	l.set(func(f *verify.Facts) { f.Boot = list })
	return nil
}
