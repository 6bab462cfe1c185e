package ocf

import (
	"errors"
	"fmt"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// The exit statuses of the OCF resource agent API.
const (
	exitSuccess          = 0
	exitGeneric          = 1
	exitArguments        = 2
	exitUnimplemented    = 3
	exitPermission       = 4
	exitInstalled        = 5
	exitConfigured       = 6
	exitNotRunning       = 7
	exitPromoted         = 8
	exitFailedPromoted   = 9
	exitDegraded         = 190
	exitDegradedPromoted = 191
)

// meaning puts an exit status into words.
func meaning(exit int) string {
	switch exit {
	case exitSuccess:
		return "success"
	case exitGeneric:
		return "failed"
	case exitArguments:
		return "called with wrong arguments"
	case exitUnimplemented:
		return "action not implemented"
	case exitPermission:
		return "not permitted"
	case exitInstalled:
		return "not installed here"
	case exitConfigured:
		return "wrongly configured"
	case exitNotRunning:
		return "not running"
	case exitPromoted:
		return "running and promoted"
	case exitFailedPromoted:
		return "promoted and failed"
	case exitDegraded:
		return "running, but likely to fail"
	case exitDegradedPromoted:
		return "promoted, but likely to fail"
	}
	return "an exit status that means nothing to us"
}

// explain makes a sentence of how an action ended.
func explain(action string, o executor.Outcome) error {
	if o.Err == nil {
		return nil
	}
	if !o.Executed || o.Exit < 0 || errors.Is(o.Err, executor.ErrTimeout) {
		return o.Err
	}
	text := fmt.Sprintf("the agent's %s ended with %d, %s", action, o.Exit, meaning(o.Exit))
	if last := o.LastLine(); last != "" {
		text += fmt.Sprintf(": %q", last)
	}
	return errors.New(text)
}
