//go:build !linux

package linux

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// On other systems the executors exist, so that everything compiles, and refuse to do anything.

var errLinux = fmt.Errorf("addresses and file systems by the Linux executors: %w", executor.ErrNotSupported)

type refusing struct{ kind executor.Kind }

func (x refusing) Kind() executor.Kind                                    { return x.kind }
func (refusing) Validate(context.Context, executor.Resource) error        { return errLinux }
func (refusing) Probe(context.Context, executor.Resource) executor.Result { return refused() }
func (refusing) Start(context.Context, executor.Resource) executor.Result { return refused() }
func (refusing) Stop(context.Context, executor.Resource) executor.Result  { return refused() }

func refused() executor.Result {
	return executor.Result{Status: executor.Unknown, Detail: errLinux.Error(), Err: errLinux}
}

// Addresses is the executor of service or persistent addresses.
type Addresses struct{ refusing }

// NewServiceIP makes an executor that refuses everything on this system.
func NewServiceIP(AddressOptions) *Addresses { return &Addresses{refusing{executor.KindServiceIP}} }

// NewPersistentIP makes an executor that refuses everything on this system.
func NewPersistentIP(AddressOptions) *Addresses {
	return &Addresses{refusing{executor.KindPersistentIP}}
}

// Close does nothing.
func (*Addresses) Close() {}

// Announce refuses.
func (*Addresses) Announce(context.Context, executor.Resource) error { return errLinux }

// Ask refuses.
func Ask(context.Context, string, []netip.Addr, time.Duration) (bool, error) { return false, errLinux }

// A Steerer does nothing on this system.
type Steerer struct{}

// NewSteerer makes one that refuses everything on this system.
func NewSteerer(*slog.Logger) *Steerer { return &Steerer{} }

// Steer refuses.
func (*Steerer) Steer([]string, []Detour) error { return errLinux }

// FileSystems is the executor of file systems.
type FileSystems struct{ refusing }

// NewFileSystem makes an executor that refuses everything on this system.
func NewFileSystem(FileSystemOptions) *FileSystems {
	return &FileSystems{refusing{executor.KindFileSystem}}
}

// WatchLinks refuses.
func WatchLinks(context.Context) (<-chan LinkEvent, error) { return nil, errLinux }
