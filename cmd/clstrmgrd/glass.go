package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"syscall"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// runGlass is `clstrmgrd break-glass start|stop`, which clmgr runs: the executors are in this program, and in clmgr they are not.
func runGlass(args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("clstrmgrd break-glass", flag.ContinueOnError)
	fs.SetOutput(stderr)
	file := fs.String("config", config.NodeFile, "the node file")
	group := fs.String("group", "", "the resource group")
	definition := fs.String("file", "", "a cluster file, instead of what this node knew last")
	confirm := fs.String("confirm", "", "the confirmation of a script: the group, and each other node of the cluster")
	terminal := fs.Bool("terminal", false, "questions are answered on standard input")
	bad := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "clstrmgrd break-glass: "+format+"\n", args...)
		return exitUsage
	}
	if len(args) == 0 || args[0] != "start" && args[0] != "stop" {
		return bad("start or stop must follow; it is run by: clmgr start|stop resource_group NAME --break-glass")
	}
	if err := fs.Parse(args[1:]); err != nil {
		return exitUsage
	}
	if fs.NArg() > 0 || *group == "" {
		return bad("--group is needed, and %q is not understood", fs.Args())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(stderr, "clstrmgrd break-glass: only root may start a group past the cluster")
		return exitError
	}
	node, err := config.LoadNode(*file)
	if err != nil {
		return bad("%v", err)
	}
	log, closeLog, err := openLog(node, "break-glass.debug")
	if err != nil {
		fmt.Fprintf(stderr, "clstrmgrd break-glass: %v\n", err)
		return exitError
	}
	defer closeLog()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	o := agent.GlassOptions{Options: agent.Options{Node: node, NodeFile: *file, Version: version, Logger: log}, Group: *group, File: *definition,
		Confirm: *confirm, Out: os.Stdout, By: operator()}
	if *terminal {
		o.Ask = os.Stdin
	}
	do := agent.BreakGlassStart
	if args[0] == "stop" {
		do = agent.BreakGlassStop
	}
	if err := do(ctx, o); err != nil {
		fmt.Fprintf(stderr, "break-glass %s of resource group %s: %v\n", args[0], *group, err)
		if errors.Is(err, agent.ErrGlassRefused) {
			return exitFinal
		}
		return exitError
	}
	return exitOK
}

// operator is who asked, for the record.
func operator() string {
	name := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if via := os.Getenv("SUDO_USER"); via != "" {
		return via + " via " + name
	}
	return name
}
