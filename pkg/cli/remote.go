package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

const (
	// remotePatience is how long an operation is followed beyond the time that one node may take.
	remotePatience = 60 * time.Second
	// remoteSilence is how long a daemon that does not answer is asked again for the operation that it leads.
	remoteSilence = 30 * time.Second
	remotePoll    = 5 * time.Second
)

// remote begins an operation on nodes and follows it to its end. What it waits for is shown while it lasts.
func (s *session) remote(ctx context.Context, what string, r api.RemoteRequest) (api.RemoteOperation, error) {
	if r.ID == "" {
		r.ID = client.NewID()
	}
	limit := time.Duration(r.Timeout) * time.Second
	if r.Timeout == 0 {
		limit = api.DefaultRemoteTimeout * time.Second
	}
	op, err := send(ctx, s, what, func(ctx context.Context) (api.RemoteOperation, error) { return s.client.BeginRemote(ctx, r) })
	if err != nil {
		return op, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit+remotePatience)
	defer cancel()
	p := s.progress()
	defer p.end()
	began, heard := time.Now(), time.Now()
	for !op.Done {
		if time.Since(began) > time.Second {
			p.show(what + ": waiting for " + waitsFor(&op))
		}
		next, err := s.client.Remote(ctx, r.ID, op.Version, remotePoll)
		switch {
		case err == nil:
			op, heard = next, time.Now()
		case ctx.Err() != nil:
			return op, fail(ExitFailed, "%s: not finished; it goes on without this command. To follow it again, on this node: the same command with the id %s", what, r.ID)
		case api.CodeOf(err) == api.CodeNotFound:
			return op, fail(ExitFailed, "%s: the daemon was restarted and does not know the operation any more: it is not known what was done (clmgr query audit)", what)
		case time.Since(heard) > remoteSilence:
			return op, fail(ExitFailed, "%s: %w; it is not known what was done", what, err)
		default:
			_ = pause(ctx, 500*time.Millisecond)
		}
	}
	return op, nil
}

func waitsFor(op *api.RemoteOperation) string {
	var out []string
	for i := range op.Nodes {
		if r := &op.Nodes[i]; !r.State.Ended() {
			out = append(out, r.Node+" ("+string(r.State)+")")
		}
	}
	return strings.Join(out, ", ")
}

// nodeCommand is clcmd and cl_nodecmd: a command on all nodes or some, each node's output under its name.
func nodeCommand(ctx context.Context, t *toolCall) error {
	r := api.RemoteRequest{ID: t.flags['i'], Nodes: cluster.SplitList(t.flags['n'] + "," + t.flags['m']), Command: &api.FreeCommand{Argv: t.args}}
	if (t.has('n') || t.has('m')) && len(r.Nodes) == 0 {
		return fail(ExitMissing, "%s: -n names no node; nothing was run", t.name)
	}
	if v, ok := t.flags['t']; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > api.MaxRemoteTimeout {
			return fail(ExitIncorrect, "%s: -t %s: a number of seconds from 1 to %d; nothing was run", t.name, v, api.MaxRemoteTimeout)
		}
		r.Timeout = n
	}
	if len(t.args) == 0 {
		return fail(ExitMissing, "%s needs a command; usage: %s", t.name, tools[strings.ToLower(t.name)].usage)
	}
	if err := r.Check(); err != nil {
		return err
	}
	op, err := t.remote(ctx, t.name, r)
	if err != nil {
		return err
	}
	for i := range op.Nodes {
		t.nodeBlock(&op.Nodes[i])
	}
	return t.remoteEnd(t.name, &op)
}

// nodeBlock is what one node wrote, as clcmd of AIX prints it. A node that wrote nothing because nothing ran there has no block.
func (t *toolCall) nodeBlock(r *api.RemoteResult) {
	if r.State == api.RemoteRefused || r.State == api.RemoteUnreachable {
		return
	}
	line := strings.Repeat("-", 31)
	fmt.Fprintf(t.out, "%s\nNODE %s\n%s\n", line, r.Node, line)
	_, _ = t.out.Write(r.Output) // as it is: it is the command's own
	if n := len(r.Output); n > 0 && !bytes.HasSuffix(r.Output, []byte("\n")) {
		fmt.Fprintln(t.out)
	}
}

// remoteEnd names what was not done where, on standard error, and gives the exit status.
func (s *session) remoteEnd(what string, op *api.RemoteOperation) error {
	failed := op.Failed()
	for i := range op.Nodes {
		r := &op.Nodes[i]
		if r.State == api.RemoteDone {
			continue
		}
		detail := r.Detail
		if detail != "" {
			detail = ": " + detail
		}
		fmt.Fprintln(s.env.Stderr, printable(fmt.Sprintf("%s: %s: %s%s", what, r.Node, r.State, detail)))
	}
	if len(failed) == 0 {
		return nil
	}
	return fail(ExitFailed, "%s: not done on %d of %s: %s", what, len(failed), count(len(op.Nodes), "node"), strings.Join(failed, ", "))
}

var collectionAttrs = []argument{
	{"SOURCE", "node", "the node whose copy wins (default: the collection's own SOURCE)"},
	{"NODES", "node[,node]", "only these nodes (and the source)"},
	{"ID", "id", "repeat or follow an operation: 16 to 64 letters, digits or '-'"},
	timeoutAttr,
}

// syncCollections brings file collections into step.
func syncCollections(ctx context.Context, s *session, t *target) error {
	return s.collections(ctx, t, false)
}

// verifyCollections says what differs, and changes nothing.
func verifyCollections(ctx context.Context, s *session, t *target) error {
	return s.collections(ctx, t, true)
}

func (s *session) collections(ctx context.Context, t *target, compare bool) error {
	names := t.names
	if len(names) == 0 {
		short, cancel := s.limited(ctx)
		defer cancel()
		d, _, err := s.definition(short)
		if err != nil {
			return err
		}
		if names = classNamed("file_collection").Names(d); len(names) == 0 {
			return fail(ExitNotFound, "there are no file collections (clmgr add file_collection NAME FILES=/etc/hosts,...)")
		}
	}
	r := api.RemoteRequest{Collection: &api.CollectionSync{Names: names, CompareOnly: compare}}
	r.Collection.Source, _ = s.take("SOURCE")
	if v, ok := s.take("NODES"); ok {
		if r.Nodes = cluster.SplitList(v); len(r.Nodes) == 0 {
			return fail(ExitMissing, "NODES= names no node")
		}
	}
	r.ID, _ = s.take("ID")
	op, err := s.remote(ctx, t.what(), r)
	if err != nil {
		return err
	}
	return s.collectionsEnd(t.what(), &op, compare)
}

// collectionsEnd prints what was done where.
func (s *session) collectionsEnd(what string, op *api.RemoteOperation, compare bool) error {
	if s.form == formJSON {
		if err := writeJSON(s.out, op); err != nil {
			return err
		}
		if len(op.Failed()) > 0 {
			return errSilentStatus(ExitFailed)
		}
		return nil
	}
	changed := 0
	for i := range op.Nodes {
		for _, f := range op.Nodes[i].Files {
			if f.State == api.FileReplaced || f.State == api.FileCreated {
				changed++
			}
			if f.State == api.FileSame && !s.verbose {
				continue
			}
			detail := ""
			if f.Detail != "" {
				detail = ": " + f.Detail
			}
			fmt.Fprintln(s.out, printable(fmt.Sprintf("%-12s %-9s %s%s", op.Nodes[i].Node, f.State, f.Path, detail)))
		}
	}
	failed := op.Failed()
	switch {
	case len(failed) > 0 && compare:
		return fail(ExitFailed, "%s: not the same, or not known, on %s", what, strings.Join(failed, ", "))
	case len(failed) > 0:
		return fail(ExitFailed, "%s: not done on %d of %s: %s", what, len(failed), count(len(op.Nodes), "node"), strings.Join(failed, ", "))
	case compare:
		fmt.Fprintf(s.out, "the files are the same on %s\n", count(len(op.Nodes), "node"))
	default:
		fmt.Fprintf(s.out, "the files are the same on %s; copies written: %d\n", count(len(op.Nodes), "node"), changed)
	}
	return nil
}

// syncWithCluster brings those collections into step that go with each sync of the cluster. The definition is active by then, and stays
// so whatever becomes of the files.
func (s *session) syncWithCluster(ctx context.Context) error {
	short, cancel := s.limited(ctx)
	defer cancel()
	d, _, err := s.definition(short)
	if err != nil {
		return err
	}
	var names []string
	for i := range d.FileCollections {
		if d.FileCollections[i].SyncWithCluster {
			names = append(names, d.FileCollections[i].Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	what := "sync file_collection " + strings.Join(names, ",")
	op, err := s.remote(ctx, what, api.RemoteRequest{Collection: &api.CollectionSync{Names: slices.Clone(names)}})
	if err == nil && s.form == formJSON { // one answer: that of the sync
		if failed := op.Failed(); len(failed) > 0 {
			err = fmt.Errorf("%s: not done on %s", what, strings.Join(failed, ", "))
		}
	} else if err == nil {
		err = s.collectionsEnd(what, &op, false)
	}
	if err != nil && !errors.Is(err, errSilent) {
		return fail(ExitFailed, "the definition is active; %w", err)
	}
	return err
}
