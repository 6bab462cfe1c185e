package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-ha/holdfast/pkg/agent"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// runVoter is `clstrmgrd voter`: the repository voter's process, which the agent starts. It takes its orders from standard input
// and reports on standard output.
func runVoter(args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("clstrmgrd voter", flag.ContinueOnError)
	fs.SetOutput(stderr)
	file := fs.String("config", config.NodeFile, "the node file")
	device := fs.String("device", "", "the repository volume")
	uuid := fs.String("uuid", "", "the id of its format")
	timings := fs.String("timings", "", "the log's timings, as JSON")
	if err := fs.Parse(args); err != nil {
		return exitUsage
	}
	o := agent.VoterOptions{Device: *device, UUID: *uuid, Orders: os.Stdin, Report: os.Stdout}
	if err := json.Unmarshal([]byte(*timings), &o.Params); err != nil || *device == "" || *uuid == "" || fs.NArg() > 0 {
		fmt.Fprintln(stderr, "clstrmgrd voter: it is started by clstrmgrd, with --config, --device, --uuid and --timings")
		return exitUsage
	}
	var err error
	if o.Node, err = config.LoadNode(*file); err != nil {
		fmt.Fprintf(stderr, "clstrmgrd voter: %v\n", err)
		return exitUsage
	}
	log, closeLog, err := openLog(o.Node, "voter.debug")
	if err != nil {
		fmt.Fprintf(stderr, "clstrmgrd voter: %v\n", err)
		return exitError
	}
	defer closeLog()
	o.Logger = log
	o.Exit = func(reason string) {
		log.Error("the repository voter ends at once", "reason", reason)
		os.Exit(exitError)
	}
	signal.Ignore(syscall.SIGPIPE) // the agent may be gone
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := agent.RunVoter(ctx, o); err != nil {
		log.Error("the repository voter ends", "error", err)
		fmt.Fprintf(stderr, "clstrmgrd voter: %v\n", err)
		return exitError
	}
	return exitOK
}
