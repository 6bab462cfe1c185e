package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// exitError carries an exit status to main. A nil err was told to the user already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() { os.Exit(run(os.Args)) }

// run dispatches: the lab's own processes first, which are not for users and must start fast; then the fence agent when called
// by its name; then the commands.
func run(args []string) int {
	if strings.HasPrefix(filepath.Base(args[0]), "fence_") {
		return fenceMain(os.Stdin, os.Stdout, os.Stderr)
	}
	if len(args) > 1 {
		switch args[1] {
		case "supervise", "supervisor":
			if len(args) != 3 {
				fmt.Fprintln(os.Stderr, "cllab", args[1], "is started by cllab up only")
				return 2
			}
			slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
			if args[1] == "supervise" {
				return keeperMain(args[2])
			}
			return supervisorMain(args[2])
		case "node-init":
			return initMain()
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	return report(newCommand().ExecuteContext(ctx))
}

func report(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		if e.err != nil {
			fmt.Fprintln(os.Stderr, "cllab:", e.err)
		}
		return e.code
	}
	fmt.Fprintln(os.Stderr, "cllab:", err)
	return 1
}
