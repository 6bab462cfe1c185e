package aix

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Exports is the executor of NFS exports: exportfs -i, so that /etc/exports says nothing of them and a reboot exports nothing.
type Exports struct{ sys *System }

var _ executor.Executor = (*Exports)(nil)

// Exports makes the executor of NFS exports.
func (s *System) Exports() *Exports { return &Exports{s} }

// Kind is that of NFS exports.
func (x *Exports) Kind() executor.Kind { return executor.KindNFSExport }

// Validate checks the directory's form and that the command is there. The directory lies in a file system of the group.
func (x *Exports) Validate(_ context.Context, r executor.Resource) error {
	e := r.Export
	if e == nil {
		return errMissing("NFS export")
	}
	errs := []error{x.sys.need("exportfs")}
	if !filepath.IsAbs(e.Directory) || filepath.Clean(e.Directory) != e.Directory || e.Directory == "/" {
		errs = append(errs, fmt.Errorf("directory %q of export %s must be an absolute path without . and .., and not /", e.Directory, e.Name))
	}
	return errors.Join(errs...)
}

func exportOptions(r executor.Resource) string {
	e := r.Export
	options := e.Options
	if options == "" {
		options = "rw"
	}
	if len(e.Clients) > 0 {
		options += ",access=" + strings.Join(e.Clients, ":")
	}
	return options
}

// Probe looks for the directory among the exports. AIX shows options in words of its own, so those that it was exported with are
// looked for one by one.
func (x *Exports) Probe(ctx context.Context, r executor.Resource) executor.Result {
	e := r.Export
	if e == nil {
		return unknown(errMissing("NFS export"))
	}
	if err := x.sys.atWork(r); err != nil {
		return unknown(err)
	}
	o := x.sys.ask(ctx, r, "exportfs")
	if o.Err != nil {
		return unknown(fmt.Errorf("see what is exported: %w", failed(o)))
	}
	have, ok := parseExports(o.Output)[e.Directory]
	if !ok {
		return say(executor.Stopped, "directory %s is not exported", e.Directory)
	}
	shown := strings.Split(have, ",")
	var lacks []string
	for want := range strings.SplitSeq(exportOptions(r), ",") {
		if want != "rw" && !contains(shown, want) { // rw is the default, and not shown by every level
			lacks = append(lacks, want)
		}
	}
	if len(lacks) > 0 {
		sort.Strings(lacks)
		return say(executor.Degraded, "directory %s is exported, but with %q: %s is missing", e.Directory, have, strings.Join(lacks, ", "))
	}
	return say(executor.Running, "directory %s is exported", e.Directory)
}

// Start exports the directory; one that is exported otherwise is exported anew.
func (x *Exports) Start(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Running || before.Status == executor.Unknown {
		return before
	}
	e := r.Export
	if before.Status == executor.Degraded {
		if o := x.sys.do(ctx, r, "exportfs", "exportfs", "-u", e.Directory); o.Err != nil {
			return because(x.Probe(ctx, r), fmt.Errorf("unexport %s, to export it anew: %w", e.Directory, failed(o)))
		}
	}
	if o := x.sys.do(ctx, r, "exportfs", "exportfs", "-i", "-o", exportOptions(r), e.Directory); o.Err != nil {
		return because(x.Probe(context.WithoutCancel(ctx), r), fmt.Errorf("export %s: %w", e.Directory, failed(o)))
	}
	res := x.Probe(ctx, r)
	if res.Status != executor.Running {
		return because(res, fmt.Errorf("directory %s was exported but is not well: %s", e.Directory, res.Detail))
	}
	return res
}

// Stop unexports the directory.
func (x *Exports) Stop(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Stopped || before.Status == executor.Unknown {
		return before
	}
	o := x.sys.do(ctx, r, "exportfs", "exportfs", "-u", r.Export.Directory)
	res := x.Probe(context.WithoutCancel(ctx), r)
	if res.Status == executor.Stopped {
		return res
	}
	err := fmt.Errorf("unexport %s: %s", r.Export.Directory, res.Detail)
	if o.Err != nil {
		err = fmt.Errorf("unexport %s: %w", r.Export.Directory, failed(o))
	}
	return because(res, err)
}
