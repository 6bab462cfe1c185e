package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cli"
	"github.com/holdfast-ha/holdfast/pkg/scenario"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// simulate answers `clmgr simulate`: what would happen. A file needs no cluster; --live takes the definition and the state of
// the running one, which is not touched.
func simulate(ctx context.Context, s cli.Simulation) int {
	if len(s.Live) > 0 {
		return simulateLive(ctx, s)
	}
	name, in := s.File, s.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			fmt.Fprintf(s.Stderr, "ERROR: %v\n", err)
			return scenario.ExitUnusable
		}
		defer f.Close()
		in = f
	} else {
		name = "standard input"
	}
	return scenario.Command(name, in, s.JSON, s.Stdout, s.Stderr)
}

func simulateLive(ctx context.Context, s cli.Simulation) int {
	fail := func(err error, status int) int {
		fmt.Fprintf(s.Stderr, "ERROR: %v\n", err)
		return status
	}
	raw, err := s.Client.State(ctx)
	if err != nil {
		return fail(err, 1)
	}
	st, err := state.Decode(raw.Encoded)
	if err != nil {
		return fail(fmt.Errorf("the daemon's state cannot be read; is clmgr of another version? %w", err), 1)
	}
	r, err := scenario.Live(st, time.Now().UTC(), s.Live)
	if err != nil {
		return fail(err, scenario.ExitUnusable)
	}
	write := r.Text
	if s.JSON {
		write = func(out io.Writer) error { return r.JSON(out) }
	}
	if err := write(s.Stdout); err != nil {
		return fail(err, 1)
	}
	if !r.OK {
		return 1
	}
	return 0
}
