package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// File collections. The operator says whose copy wins; from there each file is read once and offered to the other nodes by its
// digest, and sent to those that do not have it. A node takes a file only if its own copy of the definition has it in a collection
// for this node, so that a member cannot be made to write anything else by this call; it puts the file in its place by a rename,
// and keeps the copy that was there. Access lists, extended attributes and hard links are not kept.

// ownConfig is where the node's own file lies.
var ownConfig = filepath.Dir(config.NodeFile)

// fileFacts are what makes two copies the same.
type fileFacts struct {
	Digest string `json:"digest"` // SHA-256 in hexadecimal
	Size   int64  `json:"size"`
	Mode   uint32 `json:"mode"` // permissions alone
	Owner  string `json:"owner"`
	Group  string `json:"group"`
}

// fileAsk is about one file of a collection. Without Content it asks whether the file is the same here.
type fileAsk struct {
	Collection string     `json:"collection"`
	Path       string     `json:"path"`
	Version    uint64     `json:"version"`
	Who        api.Caller `json:"who"`
	Facts      fileFacts  `json:"facts"`
	Content    []byte     `json:"content,omitempty"`
}

type fileAnswer struct {
	File    api.FileResult `json:"file"`
	Facts   fileFacts      `json:"facts"`
	Content []byte         `json:"content,omitempty"` // of a read
}

// planCollections finds the collections, their sources and their nodes.
func (d *remoteDesk) planCollections(def *cluster.Definition, who api.Caller, r api.RemoteRequest) (string, []string, func(context.Context, *remoteOp), error) {
	nothing := func(code api.Code, format string, args ...any) (string, []string, func(context.Context, *remoteOp), error) {
		return "", nil, nil, api.Errorf(code, format+"; nothing was done", args...)
	}
	want := r.Collection
	if want.Source != "" && def.Node(want.Source) == nil {
		return nothing(api.CodeNotFound, "no node %q; there are: %s", want.Source, listOr(namesOf(def), "none"))
	}
	var list []*cluster.FileCollection
	concerned := map[string]bool{}
	for _, name := range want.Names {
		c := def.FileCollection(name)
		if c == nil {
			return nothing(api.CodeNotFound, "no file collection %q%s", name, cluster.DidYouMean(name, collectionNames(def)))
		}
		source := orText(want.Source, c.Source)
		if source == "" {
			return nothing(api.CodeMissing, "whose copy of the file collection %s wins? Say SOURCE=node, or set it for good: "+
				"clmgr modify file_collection %s SOURCE=node", name, name)
		}
		if !slices.Contains(c.On(def), source) {
			return nothing(api.CodeInvalid, "the file collection %s is not for node %s: its nodes are %s", name, source, strings.Join(c.On(def), ", "))
		}
		for _, n := range among(c.On(def), r.Nodes) {
			concerned[n] = true
		}
		concerned[source] = true
		list = append(list, c)
	}
	nodes := slices.DeleteFunc(namesOf(def), func(n string) bool { return !concerned[n] })
	word := "sync"
	if want.CompareOnly {
		word = "compare"
	}
	what := word + " file_collection " + bounded(strings.Join(want.Names, ","), 200)
	return what, nodes, func(ctx context.Context, op *remoteOp) {
		away := &absent{nodes: map[string]bool{}}
		for _, c := range list {
			d.bringInStep(ctx, op, def, c, who, r, away)
		}
		for _, n := range nodes {
			op.set(n, settleFiles)
		}
	}, nil
}

func collectionNames(def *cluster.Definition) []string {
	var out []string
	for i := range def.FileCollections {
		out = append(out, def.FileCollections[i].Name)
	}
	return out
}

func orText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// absent are the nodes that could not be reached: they are not asked again for each file.
type absent struct {
	mu    sync.Mutex
	nodes map[string]bool
}

func (a *absent) has(node string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nodes[node]
}

// note looks at what became of a file on the node.
func (a *absent) note(node string, f api.FileResult) {
	if f.State == api.FileFailed && f.Detail == unreachableDetail {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.nodes[node] = true
	}
}

// bringInStep reads each file at the source and offers it to the others, file by file.
func (d *remoteDesk) bringInStep(ctx context.Context, op *remoteOp, def *cluster.Definition, c *cluster.FileCollection, who api.Caller, r api.RemoteRequest, away *absent) {
	source := orText(r.Collection.Source, c.Source)
	targets := slices.DeleteFunc(among(c.On(def), r.Nodes), func(n string) bool { return n == source })
	_, version := d.definition()
	for _, n := range append([]string{source}, targets...) {
		op.set(n, func(res *api.RemoteResult) { res.State = api.RemoteRunning })
	}
	for _, path := range c.Files {
		q := fileAsk{Collection: c.Name, Path: path, Version: version, Who: who}
		a := d.fetch(ctx, source, q, away)
		if a.File.State != api.FileSame {
			op.set(source, func(res *api.RemoteResult) { res.Files = append(res.Files, a.File) })
			for _, n := range targets {
				op.set(n, func(res *api.RemoteResult) {
					res.Files = append(res.Files, api.FileResult{Path: path, State: api.FileFailed, Detail: "not sent: node " + source + ": " + a.File.Detail})
				})
			}
			continue
		}
		op.set(source, func(res *api.RemoteResult) {
			res.Files = append(res.Files, api.FileResult{Path: path, State: api.FileSame, Detail: "this copy wins"})
		})
		q.Facts = a.Facts
		d.onAll(targets, func(node string) {
			got := api.FileResult{Path: path, State: api.FileFailed, Detail: unreachableDetail}
			if !away.has(node) {
				got = d.offer(ctx, node, q, a.Content, r.Collection.CompareOnly)
				away.note(node, got)
			}
			op.set(node, func(res *api.RemoteResult) { res.Files = append(res.Files, got) })
		})
	}
}

// fetch reads the winning copy at its node.
func (d *remoteDesk) fetch(ctx context.Context, source string, q fileAsk, away *absent) fileAnswer {
	if away.has(source) {
		return fileAnswer{File: api.FileResult{Path: q.Path, State: api.FileFailed, Detail: unreachableDetail}}
	}
	a, err := ask[fileAnswer](ctx, d, source, rpcReadFile, q, min(fileLimit, 3*d.agree(source)))
	if err != nil {
		a = fileAnswer{File: unheard(q.Path, err)}
		away.note(source, a.File)
	}
	return a
}

func (d *remoteDesk) onAll(nodes []string, do func(string)) {
	done := make(chan struct{}, len(nodes))
	for _, n := range nodes {
		go func() {
			defer func() { done <- struct{}{} }()
			do(n)
		}()
	}
	for range nodes {
		<-done
	}
}

// offer asks a node whether it has the file, and sends it if not.
func (d *remoteDesk) offer(ctx context.Context, node string, q fileAsk, content []byte, compare bool) api.FileResult {
	a, err := ask[fileAnswer](ctx, d, node, rpcPutFile, q, d.agree(node))
	if err == nil && a.File.State == api.FileDiffers && !compare {
		q.Content = content
		a, err = ask[fileAnswer](ctx, d, node, rpcPutFile, q, fileLimit)
		if err != nil {
			return api.FileResult{Path: q.Path, State: api.FileFailed, Detail: "it was sent, and no answer came: the file is the old or the new one (" + plainCause(err) + ")"}
		}
	}
	if err != nil {
		return unheard(q.Path, err)
	}
	a.File.Path = q.Path
	return a.File
}

// unreachableDetail begins what is said of a file on a node that could not be asked.
const unreachableDetail = "the node cannot be reached"

func unheard(path string, err error) api.FileResult {
	var r api.RemoteResult
	notAsked(&r, err)
	if r.State == api.RemoteUnreachable {
		return api.FileResult{Path: path, State: api.FileFailed, Detail: unreachableDetail}
	}
	return api.FileResult{Path: path, State: api.FileRefused, Detail: r.Detail}
}

// settleFiles makes a node's state of those of its files. The worst counts.
func settleFiles(r *api.RemoteResult) {
	count := map[string]int{}
	away := 0
	for _, f := range r.Files {
		count[f.State]++
		if f.State == api.FileFailed && f.Detail == unreachableDetail {
			away++
		}
	}
	switch n := len(r.Files); {
	case n > 0 && away == n:
		r.State, r.Detail = api.RemoteUnreachable, "the node cannot be reached: nothing was done there"
	case n > 0 && count[api.FileRefused] == n:
		r.State, r.Detail = api.RemoteRefused, r.Files[0].Path+": "+r.Files[0].Detail
	case count[api.FileFailed]+count[api.FileRefused]+count[api.FileDiffers] > 0:
		r.State, r.Exit = api.RemoteFailed, 1
		var bad []string
		for _, f := range r.Files {
			if f.State == api.FileFailed || f.State == api.FileRefused || f.State == api.FileDiffers {
				bad = append(bad, f.Path+" "+f.State+": "+f.Detail)
			}
		}
		r.Detail = bounded(strings.Join(bad, "; "), 1000)
	default:
		r.State, r.Exit = api.RemoteDone, 0
	}
}

func (d *remoteDesk) serveReadFile(ctx context.Context, from string, body []byte) ([]byte, error) {
	q, err := d.fileQuestion(from, body)
	if err != nil {
		return nil, err
	}
	a := fileAnswer{File: api.FileResult{Path: q.Path, State: api.FileSame}}
	path, err := d.collected(ctx, q)
	if err == nil {
		a.Content, a.Facts, err = readCollected(path)
	}
	if err != nil {
		a.File.State, a.File.Detail = api.FileRefused, err.Error()
		a.Content = nil
	}
	return json.Marshal(a)
}

func (d *remoteDesk) servePutFile(ctx context.Context, from string, body []byte) ([]byte, error) {
	q, err := d.fileQuestion(from, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(fileAnswer{File: d.putFile(ctx, q)})
}

func (d *remoteDesk) fileQuestion(from string, body []byte) (fileAsk, error) {
	var q fileAsk
	if err := json.Unmarshal(body, &q); err != nil || q.Path == "" {
		return q, errors.New("the question cannot be read")
	}
	if q.Who.Node = ""; from != d.node {
		q.Who.Node = from
	}
	return q, nil
}

// collected checks that the file is one that this node may hand out or take, and returns its path without links.
func (d *remoteDesk) collected(ctx context.Context, q fileAsk) (string, error) {
	def := d.definitionAt(ctx, q.Version)
	var c *cluster.FileCollection
	if def != nil {
		c = def.FileCollection(q.Collection)
	}
	if c == nil || !slices.Contains(c.Files, q.Path) || !slices.Contains(c.On(def), d.node) {
		return "", fmt.Errorf("the definition that this node has does not list it in the file collection %s for this node", q.Collection)
	}
	dir, err := d.inside(filepath.Dir(q.Path))
	if err != nil {
		return "", errors.New("its directory is not safe: " + strings.TrimPrefix(err.Error(), executor.ErrUnsafe.Error()+": "))
	}
	path := filepath.Join(dir, filepath.Base(q.Path))
	for _, own := range d.own() {
		for _, dir := range []string{own, withoutLinks(own)} {
			if dir != "" && dir != "." && (cluster.Below(path, dir) || cluster.Below(q.Path, dir)) {
				return "", fmt.Errorf("%s is the product's own, with the keys of this node: such files are never collected", dir)
			}
		}
	}
	return path, nil
}

func withoutLinks(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

// openCollected opens a regular file, and no link.
func openCollected(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("it is no regular file (%s)", info.Mode().Type())
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file any more")
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readCollected reads the winning copy.
func readCollected(path string) ([]byte, fileFacts, error) {
	var facts fileFacts
	f, info, err := openCollected(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, facts, errors.New("it is missing there: nothing is removed elsewhere for that")
	}
	if err != nil {
		return nil, facts, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, cluster.MaxCollectionFile+1))
	switch {
	case err != nil:
		return nil, facts, err
	case len(content) == 0:
		return nil, facts, errors.New("it is empty there: an empty file is not sent")
	case len(content) > cluster.MaxCollectionFile:
		return nil, facts, fmt.Errorf("it has more than %d KiB, which is the most that a collected file may have", cluster.MaxCollectionFile>>10)
	case info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0:
		return nil, facts, errors.New("it runs with another user's rights (mode " + info.Mode().String() + "): such a file is not sent")
	}
	facts = factsOf(info, sha256.Sum256(content))
	return content, facts, nil
}

func factsOf(info fs.FileInfo, sum [sha256.Size]byte) fileFacts {
	f := fileFacts{Digest: hex.EncodeToString(sum[:]), Size: info.Size(), Mode: uint32(info.Mode().Perm())}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Owner, f.Group = strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	}
	if u, err := user.LookupId(f.Owner); err == nil {
		f.Owner = u.Username
	}
	if g, err := user.LookupGroupId(f.Group); err == nil {
		f.Group = g.Name
	}
	return f
}

// tooLarge stands for the digest of a copy that no collection could have sent: it is not read.
const tooLarge = "larger than any collected file"

// hereNow looks at this node's copy; what is not there has no digest.
func hereNow(path string) (fileFacts, error) {
	f, info, err := openCollected(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fileFacts{}, nil
	}
	if err != nil {
		return fileFacts{}, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, cluster.MaxCollectionFile+1))
	if err != nil {
		return fileFacts{}, err
	}
	if n > cluster.MaxCollectionFile {
		facts := factsOf(info, [sha256.Size]byte{})
		facts.Digest = tooLarge
		return facts, nil
	}
	return factsOf(info, [sha256.Size]byte(h.Sum(nil))), nil
}

// differs says in what this node's copy is another one; "": in nothing.
func (f fileFacts) differs(here fileFacts) string {
	var out []string
	switch {
	case here.Digest == "":
		return "it is missing here"
	case here.Digest != f.Digest:
		out = append(out, fmt.Sprintf("other content (%d bytes here, %d there)", here.Size, f.Size))
	}
	if here.Mode != f.Mode {
		out = append(out, fmt.Sprintf("mode %04o here, %04o there", here.Mode, f.Mode))
	}
	if here.Owner != f.Owner || here.Group != f.Group {
		out = append(out, fmt.Sprintf("owner %s:%s here, %s:%s there", here.Owner, here.Group, f.Owner, f.Group))
	}
	return strings.Join(out, ", ")
}

// putFile compares, and with content brings this node's copy into step.
func (d *remoteDesk) putFile(ctx context.Context, q fileAsk) api.FileResult {
	out := api.FileResult{Path: q.Path}
	began := time.Now()
	path, err := d.collected(ctx, q)
	if err != nil {
		out.State, out.Detail = api.FileRefused, err.Error()
		d.auditRemote(q.Who, "take the file "+api.Printable(q.Path)+" of collection "+q.Collection, "refused", out.Detail, time.Since(began))
		return out
	}
	d.files.Lock()
	defer d.files.Unlock()
	here, err := hereNow(path)
	if err != nil {
		out.State, out.Detail = api.FileRefused, err.Error()
		return out
	}
	what := q.Facts.differs(here)
	switch {
	case what == "":
		out.State = api.FileSame
		return out
	case q.Content == nil:
		out.State, out.Detail = api.FileDiffers, what
		return out
	}
	out.State = api.FileReplaced
	if here.Digest == "" {
		out.State = api.FileCreated
	}
	former, err := d.replace(path, q, here)
	if out.Detail = what; former != "" {
		out.Detail += "; the former copy is " + former
	}
	result := "done"
	if err != nil {
		out.State, out.Detail, result = api.FileFailed, err.Error(), "failed"
	}
	d.auditRemote(q.Who, "take the file "+api.Printable(q.Path)+" of collection "+q.Collection, result, out.Detail, time.Since(began))
	return out
}

// replace puts the new copy where the old one is, in one step that a crash leaves done or not begun.
func (d *remoteDesk) replace(path string, q fileAsk, here fileFacts) (former string, err error) {
	sum := sha256.Sum256(q.Content)
	if hex.EncodeToString(sum[:]) != q.Facts.Digest || len(q.Content) == 0 || len(q.Content) > cluster.MaxCollectionFile {
		return "", errors.New("what arrived is not what was announced: nothing was changed")
	}
	uid, gid, err := idsOf(q.Facts)
	if err != nil {
		return "", err
	}
	if here.Digest != "" && here.Digest != q.Facts.Digest {
		if former, err = d.backup(path); err != nil {
			return "", fmt.Errorf("keep the former copy, without which nothing is changed: %w", err)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".holdfast-new-*") // mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(q.Content); err != nil {
		return former, err
	}
	if err = f.Chown(uid, gid); err != nil {
		return former, fmt.Errorf("give it to %s:%s: %w", q.Facts.Owner, q.Facts.Group, err)
	}
	if err = f.Chmod(fs.FileMode(q.Facts.Mode).Perm()); err != nil {
		return former, err
	}
	if err = f.Sync(); err != nil {
		return former, err
	}
	if err = f.Close(); err != nil {
		return former, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return former, err
	}
	return former, syncDirectory(filepath.Dir(path))
}

// maxBackup bounds a former copy, in bytes.
const maxBackup = 64 << 20

// backup copies the file to the directory of former copies, in place of what it had of it.
func (d *remoteDesk) backup(path string) (string, error) {
	if err := os.MkdirAll(d.backups, 0o700); err != nil {
		return "", err
	}
	from, info, err := openCollected(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = from.Close() }()
	if info.Size() > maxBackup {
		return "", fmt.Errorf("it has %d bytes, and at most %d are kept: move it away yourself", info.Size(), maxBackup)
	}
	to := filepath.Join(d.backups, backupName(path))
	f, err := os.CreateTemp(d.backups, ".new-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, io.LimitReader(from, maxBackup))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return to, syncDirectory(d.backups)
}

// backupName is one name for one path: what could be taken for the separator is written as in a URL.
func backupName(path string) string {
	name := strings.NewReplacer("%", "%25", "_", "%5F", "/", "_").Replace(strings.TrimPrefix(path, "/"))
	if len(name) > 200 {
		sum := sha256.Sum256([]byte(path))
		name = name[len(name)-120:] + "." + hex.EncodeToString(sum[:8])
	}
	return name
}

func idsOf(f fileFacts) (uid, gid int, err error) {
	if uid, err = strconv.Atoi(f.Owner); err != nil {
		u, lookup := user.Lookup(f.Owner)
		if lookup != nil {
			return 0, 0, fmt.Errorf("the file's owner %s is not known here: nothing was changed", api.Printable(f.Owner))
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return 0, 0, err
		}
	}
	if gid, err = strconv.Atoi(f.Group); err != nil {
		g, lookup := user.LookupGroup(f.Group)
		if lookup != nil {
			return 0, 0, fmt.Errorf("the file's group %s is not known here: nothing was changed", api.Printable(f.Group))
		}
		gid, err = strconv.Atoi(g.Gid)
	}
	return uid, gid, err
}

func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// keepCollections lets the leader bring into step what is to keep itself so. That two leaders do it at once for a moment harms
// nothing: each node writes one file at a time, and all of them from the same source.
func (m *member) keepCollections(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		view, led := m.view(), m.leading()
		if view.Definition == nil || led == nil || !led.ready() || time.Since(last) < view.Definition.Settings.ComparesEvery() {
			continue
		}
		last = time.Now()
		for i := range view.Definition.FileCollections {
			if c := &view.Definition.FileCollections[i]; c.SyncWhenChanged {
				m.remote.byItself(led.ctx, c.Name)
			}
		}
	}
}

// byItself brings one collection into step for the cluster's own sake, and waits for it. What it cannot do is said once, and again
// when it changes.
func (d *remoteDesk) byItself(ctx context.Context, name string) {
	who := api.Caller{User: "the cluster", UID: -1, Role: api.RoleAdmin}
	op, err := d.begin(who, api.RemoteRequest{ID: newNonce(), Collection: &api.CollectionSync{Names: []string{name}}})
	for err == nil && !op.Done && ctx.Err() == nil {
		op, err = d.follow(ctx, who, op.ID, op.Version, time.Minute)
	}
	if err != nil || !op.Done {
		return
	}
	text := ""
	for i := range op.Nodes {
		if r := &op.Nodes[i]; r.State != api.RemoteDone {
			text += r.Node + ": " + r.Detail + "; "
		}
	}
	d.mu.Lock()
	before := d.auto[name]
	d.auto[name] = text
	d.mu.Unlock()
	if text != before && text != "" && !anyChange(&op) {
		d.tell("the file collection " + name + " is not in step: " + bounded(text, 350))
	}
}
