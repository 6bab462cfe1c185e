// Command clmgr is the administrator's command. Called by another name (clRGinfo, clRGmove, cltopinfo, cllsif,
// clshowres, clshowsrv, cldump, cldisp, clverify, clsnapshot, lscluster) it is that tool.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/term"

	"github.com/holdfast-ha/holdfast/pkg/cli"
)

// version is set when a release is linked.
var version string

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, cli.Env{
		Name:     os.Args[0],
		Terminal: term.IsTerminal(int(os.Stderr.Fd())),
		Width:    width(),
		Version:  buildVersion(),
		Simulate: simulate,
	}, os.Args[1:])
}

func width() int {
	w, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil {
		return 0
	}
	return w
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.Main.Version
	}
	return ""
}
