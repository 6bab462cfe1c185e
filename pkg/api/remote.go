package api

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A RemoteRequest asks for one operation on several nodes. It is begun once, however often it is sent with the same ID; the second
// sender gets what the first one began. Exactly one of Command and Collection is set.
type RemoteRequest struct {
	ID         string          `json:"id"`
	Nodes      []string        `json:"nodes,omitempty"` // none: all that it concerns
	Command    *FreeCommand    `json:"command,omitempty"`
	Collection *CollectionSync `json:"collection,omitempty"`
	// Timeout is how long one node may take, in seconds; 0: DefaultRemoteTimeout.
	Timeout int `json:"timeout,omitempty"`
}

// A FreeCommand is a program with its arguments. It is executed as they stand: there is no shell, unless Argv itself begins one.
type FreeCommand struct {
	// Argv[0] is an absolute path, or a name that each node looks for in /usr/sbin, /usr/bin, /sbin and /bin.
	Argv []string `json:"argv"`
}

// A CollectionSync brings file collections into step, or with CompareOnly says what differs.
type CollectionSync struct {
	Names []string `json:"names"`
	// Source is the node whose copy wins; empty: the collection's own. With neither it is refused.
	Source      string `json:"source,omitempty"`
	CompareOnly bool   `json:"compare_only,omitempty"`
}

// Limits of operations on several nodes.
const (
	DefaultRemoteTimeout = 300       // seconds
	MaxRemoteTimeout     = 3600      // seconds
	MaxRemoteArgs        = 256       // words of a command
	MaxRemoteArgBytes    = 32 << 10  // of all of them together
	MaxRemoteOutput      = 256 << 10 // bytes of one node's output that are kept
)

// A RemoteState is what is known of an operation on one node.
type RemoteState string

// The states. The last five are ends.
const (
	RemoteWaiting     RemoteState = "waiting"     // not begun there
	RemoteRunning     RemoteState = "running"     //
	RemoteDone        RemoteState = "done"        // with exit status 0
	RemoteFailed      RemoteState = "failed"      // it ran, and not all of it went well
	RemoteRefused     RemoteState = "refused"     // the node would not; certainly nothing was done there
	RemoteUnreachable RemoteState = "unreachable" // the node could not be asked; certainly nothing was done there
	RemoteUnknown     RemoteState = "unknown"     // it may have been done, in part or whole
)

// Ended reports whether nothing more will come.
func (s RemoteState) Ended() bool { return s != RemoteWaiting && s != RemoteRunning }

// A RemoteResult is one node's part of an operation.
type RemoteResult struct {
	Node  string      `json:"node"`
	State RemoteState `json:"state"`
	// Exit is the command's exit status; -1 when there is none.
	Exit int `json:"exit"`
	// Output is what the command wrote, bounded by MaxRemoteOutput; it comes with the end of the operation.
	Output []byte `json:"output,omitempty"`
	// Detail says why it is not done.
	Detail  string       `json:"detail,omitempty"`
	Seconds float64      `json:"seconds"`
	Files   []FileResult `json:"files,omitempty"`
}

// A FileResult is one file of a collection on one node.
type FileResult struct {
	Path  string `json:"path"`
	State string `json:"state"` // same, differs, replaced, created, failed, refused
	// Detail says why it failed, what differs, or where the former copy is.
	Detail string `json:"detail,omitempty"`
}

// The states of a file.
const (
	FileSame     = "same"
	FileDiffers  = "differs"
	FileReplaced = "replaced"
	FileCreated  = "created"
	FileFailed   = "failed"
	FileRefused  = "refused"
)

// A RemoteOperation is an operation as far as it has got. Nodes are in the order of the definition.
type RemoteOperation struct {
	ID      string         `json:"id"`
	What    string         `json:"what"`
	By      string         `json:"by"`
	Began   time.Time      `json:"began"`
	Version uint64         `json:"version"` // grows with each change
	Done    bool           `json:"done"`
	Nodes   []RemoteResult `json:"nodes"`
}

// Failed lists the nodes on which it is not done.
func (o *RemoteOperation) Failed() []string {
	var out []string
	for i := range o.Nodes {
		if o.Nodes[i].State != RemoteDone {
			out = append(out, o.Nodes[i].Node)
		}
	}
	return out
}

// Check finds what no node could do with the request.
func (r *RemoteRequest) Check() error {
	switch {
	case (r.Command == nil) == (r.Collection == nil):
		return Errorf(CodeMissing, "an operation on nodes is a command or a file collection, and one of them")
	case r.Timeout < 0 || r.Timeout > MaxRemoteTimeout:
		return Errorf(CodeInvalid, "a time of %d s cannot be used: 1 to %d", r.Timeout, MaxRemoteTimeout)
	case len(r.Nodes) > 256:
		return Errorf(CodeTooLarge, "%d nodes are named", len(r.Nodes))
	case r.Command != nil:
		return r.Command.check()
	}
	return r.Collection.check()
}

func (c *CollectionSync) check() error {
	if len(c.Names) == 0 || len(c.Names) > 256 {
		return Errorf(CodeMissing, "name the file collections")
	}
	return nil
}

func (c *FreeCommand) check() error {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return Errorf(CodeMissing, "the command is missing")
	}
	if len(c.Argv) > MaxRemoteArgs {
		return Errorf(CodeTooLarge, "the command has %d words, and at most %d are allowed", len(c.Argv), MaxRemoteArgs)
	}
	total := 0
	for _, a := range c.Argv {
		total += len(a)
		if strings.ContainsRune(a, 0) {
			return Errorf(CodeInvalid, "a word of the command has a zero byte")
		}
		if !utf8.ValidString(a) {
			return Errorf(CodeInvalid, "a word of the command is not UTF-8: it would arrive as another one")
		}
	}
	if total > MaxRemoteArgBytes {
		return Errorf(CodeTooLarge, "the command has %d bytes, and at most %d are allowed", total, MaxRemoteArgBytes)
	}
	if p := c.Argv[0]; p[0] != '/' && strings.ContainsRune(p, '/') {
		return Errorf(CodeInvalid, "%s is a relative path: write it from the root, or the name alone", Printable(p))
	}
	return nil
}

// String is the command as it can be read and typed: words with anything unusual are quoted as in the shell, control characters
// are shown as '?', and the whole is bounded.
func (c *FreeCommand) String() string {
	var b strings.Builder
	for i, a := range c.Argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.Len() > 400 {
			b.WriteString("...")
			break
		}
		b.WriteString(quoteWord(a))
	}
	return b.String()
}

func quoteWord(a string) string {
	if len(a) > 200 {
		a = strings.ToValidUTF8(a[:200], "") + "..."
	}
	plain := a != "" && !strings.ContainsFunc(a, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,+@%", r))
	})
	if plain {
		return a
	}
	return "'" + strings.ReplaceAll(Printable(a), "'", `'\''`) + "'"
}

// Printable is a text on one line, without what drives a terminal or turns the direction of writing.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
