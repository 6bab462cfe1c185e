package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// A Code says what kind of error it is, for programs. The table of exit statuses in package cli is made from it.
type Code string

// The codes.
const (
	CodeInternal      Code = "internal"        // a fault of ours
	CodeNotFound      Code = "not_found"       // the named object, class or path does not exist
	CodeExists        Code = "exists"          // the name is taken
	CodeMissing       Code = "missing"         // something required was not given
	CodeInvalid       Code = "invalid"         // a value is not allowed, or a text cannot be used; see Faults
	CodeDependency    Code = "dependency"      // another object that this one needs is not there
	CodeConflict      Code = "conflict"        // the definition changed meanwhile: read again, and try again
	CodeRefused       Code = "refused"         // understood and not done, by the cluster's rules; the message says why
	CodeForbidden     Code = "forbidden"       // the caller's role does not allow it
	CodeNotConfigured Code = "not_configured"  // this node belongs to no cluster
	CodeUnavailable   Code = "unavailable"     // no leader or no quorum: certainly not done
	CodeUncertain     Code = "unknown_outcome" // it may have been done; asking again with the same id is safe
	CodeTooLarge      Code = "too_large"       // over one of the limits
	CodeTimeout       Code = "timeout"         // not finished in the time given
)

// An Error is what went wrong, with a sentence for the operator that names the object and what to do.
type Error struct {
	Code    Code    `json:"code"`
	Message string  `json:"message"`
	Faults  []Fault `json:"faults,omitempty"` // each place of a text that cannot be used
}

// A Fault is one mistake in a text.
type Fault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // from 1; 0: the text as a whole
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"` // as resource_groups[2].fallover
	Message string `json:"message"`       // what is wrong and what would be right
}

// String is the fault as editors find it: file:line:column: key: message.
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:", f.Line)
		if f.Column > 0 {
			fmt.Fprintf(&b, "%d:", f.Column)
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Error is the message with all faults, one per line.
func (e *Error) Error() string {
	if len(e.Faults) == 0 {
		return e.Message
	}
	lines := make([]string, 0, len(e.Faults)+1)
	if e.Message != "" {
		lines = append(lines, e.Message)
	}
	for _, f := range e.Faults {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf finds the code in an error's chain: "" for nil, CodeInternal for an error without one.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// HTTPStatus is the status under which an error of the code travels.
func (c Code) HTTPStatus() int {
	switch c {
	case CodeNotFound:
		return http.StatusNotFound
	case CodeExists, CodeConflict:
		return http.StatusConflict
	case CodeMissing, CodeInvalid, CodeDependency:
		return http.StatusUnprocessableEntity
	case CodeRefused, CodeNotConfigured:
		return http.StatusPreconditionFailed
	case CodeForbidden:
		return http.StatusForbidden
	case CodeUnavailable, CodeUncertain:
		return http.StatusServiceUnavailable
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
