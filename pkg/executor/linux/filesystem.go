package linux

import (
	"log/slog"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultUnmountTimeout is how long an unmount may take, the killing of its users included.
const DefaultUnmountTimeout = 10 * time.Second

// FileSystemOptions configure the executor of file systems.
type FileSystemOptions struct {
	Runner *executor.Runner // required: runs fsck, mount and umount
	Logger *slog.Logger
}
