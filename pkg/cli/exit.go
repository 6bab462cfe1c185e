package cli

import (
	"errors"
	"fmt"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// Exit statuses, PowerHA's numbers. This is the one table; `clmgr help status` prints it.
const (
	ExitOK         = 0
	ExitFailed     = 1
	ExitNotFound   = 2
	ExitMissing    = 3
	ExitIncorrect  = 4
	ExitDependency = 5
	ExitNoMatch    = 6
)

var exitMeanings = []struct {
	status  int
	meaning string
}{
	{ExitOK, "done, and the effect was seen; or the question was answered"},
	{ExitFailed, "refused by the cluster, failed, not finished in time, or the daemon could not be asked"},
	{ExitNotFound, "what was named does not exist: action, class, object, attribute, option, or a file; or a file cannot be used"},
	{ExitMissing, "input is missing: a name, a required attribute, an option's value"},
	{ExitIncorrect, "input is wrong: a value that the attribute or option cannot have"},
	{ExitDependency, "something that this needs is not there: no cluster on this node yet, an object still in use by others"},
	{ExitNoMatch, "a query with conditions (ATTR=VALUE) found nothing"},
}

// A failure is an error with its exit status.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

// statusOf is the exit status for an error; the most specific cause wins.
func statusOf(err error) int {
	if err == nil {
		return ExitOK
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	for _, c := range []struct {
		is     error
		status int
	}{
		{cluster.ErrNotFound, ExitNotFound},
		{cluster.ErrMissing, ExitMissing},
		{cluster.ErrIncorrect, ExitIncorrect},
		{cluster.ErrInUse, ExitDependency},
		{cluster.ErrExists, ExitFailed},
	} {
		if errors.Is(err, c.is) {
			return c.status
		}
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return statusOfCode(e)
	}
	return ExitFailed
}

func statusOfCode(e *api.Error) int {
	switch e.Code {
	case api.CodeNotFound:
		return ExitNotFound
	case api.CodeMissing:
		return ExitMissing
	case api.CodeInvalid:
		if len(e.Faults) > 0 {
			return ExitNotFound // a text that cannot be used
		}
		return ExitIncorrect
	case api.CodeDependency, api.CodeNotConfigured:
		return ExitDependency
	}
	return ExitFailed
}
