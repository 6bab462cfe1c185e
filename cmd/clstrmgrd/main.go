// Command clstrmgrd is the Holdfast daemon of one node: flags, signals, and the exit status.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/metrics"
)

var version = "unknown" // set by the build

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2 // flags or the node file cannot be used
	exitFinal = 3 // an administrator must act before the daemon can run; starting it again changes nothing
)

func main() {
	relaxTimers() // first: the thread that runs this now is the process's own, and few others are there
	os.Exit(run(os.Args[1:], os.Stderr))
}

func run(args []string, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "voter" {
		return runVoter(args[1:], stderr)
	}
	if len(args) > 0 && args[0] == "break-glass" {
		return runGlass(args[1:], stderr)
	}
	fs := flag.NewFlagSet("clstrmgrd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	file := fs.String("config", "/etc/holdfast/node.yaml", "the node file")
	show := fs.Bool("version", false, "print the version and exit")
	check := fs.Bool("check", false, "check the node file and exit")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "clstrmgrd: unknown argument %q\n", fs.Arg(0))
		return exitUsage
	}
	if *show {
		fmt.Println("clstrmgrd", version)
		return exitOK
	}
	node, err := config.LoadNode(*file)
	if err != nil {
		fmt.Fprintf(stderr, "clstrmgrd: %v\n", err)
		return exitUsage
	}
	if *check {
		return exitOK
	}
	log, closeLog, err := openLog(node, "clstrmgr.debug")
	if err != nil {
		fmt.Fprintf(stderr, "clstrmgrd: %v\n", err)
		return exitError
	}
	defer closeLog()
	return serve(*file, node, log, stderr)
}

func serve(file string, node *config.Node, log *slog.Logger, stderr io.Writer) int {
	// The live heap is a few MiB: fewer collections cost less than what they would save.
	debug.SetGCPercent(200)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	release, err := agent.HoldMachine(node)
	if err != nil {
		log.Error("clstrmgrd ends", "error", err)
		fmt.Fprintf(stderr, "clstrmgrd: %v\n", err)
		return exitError
	}
	defer release()
	a, err := agent.New(agent.Options{Node: node, NodeFile: file, Version: version, Logger: log, Metrics: metrics.New(version),
		Ready: func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) },
		Exit: func(reason string) {
			log.Error("the daemon ends at once", "reason", reason)
			fmt.Fprintf(stderr, "clstrmgrd: %s\n", reason)
			os.Exit(exitError)
		}})
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		log.Error("clstrmgrd ends", "error", err)
		fmt.Fprintf(stderr, "clstrmgrd: %v\n", err)
		if agent.NeedsAdministrator(err) {
			return exitFinal
		}
		return exitError
	}
	return exitOK
}

// The structured log's size, and how many old ones are kept.
const (
	logSize = 16 << 20
	logKeep = 7
)

// openLog writes the structured log to log/NAME below the log directory.
func openLog(node *config.Node, name string) (*slog.Logger, func(), error) {
	f, err := agent.OpenLogFile(filepath.Join(node.LogDir, "log", name), logSize, logKeep)
	if err != nil {
		return nil, nil, err
	}
	var level slog.Level
	if node.LogLevel != "" {
		if err := level.UnmarshalText([]byte(node.LogLevel)); err != nil {
			f.Close()
			return nil, nil, fmt.Errorf("log_level: %w", err)
		}
	}
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: level})), func() { f.Close() }, nil
}
