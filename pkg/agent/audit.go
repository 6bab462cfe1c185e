package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// The record of attempted writes: each node's door writes what it was asked, refused attempts too, to adm/audit.log (one JSON object
// a line, bounded, root's alone) and to the daemon's log. A command that is passed on to the leader is recorded where it was given.

const (
	auditLimit = 16 << 20
	auditKeep  = 9
	auditTail  = 4 << 20 // bytes of the file's end that a query reads
)

func (a *Agent) auditFile() string { return filepath.Join(a.opt.Node.LogDir, "adm", "audit.log") }

// auditLog writes to both places. A file that cannot be written is said once; the daemon's own log still has the records.
func (a *Agent) auditLog() *slog.Logger {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.audit == nil {
		l, err := OpenLogFile(a.auditFile(), auditLimit, auditKeep)
		if err != nil {
			a.log.Error("the record of changes cannot be written: only the daemon's log has them", "error", err)
			return a.log
		}
		a.audit = l
	}
	return slog.New(slog.NewMultiHandler(a.log.Handler(), slog.NewJSONHandler(a.audit, nil)))
}

// Audit implements server.Auditor.
func (a *Agent) Audit(ctx context.Context, limit int) (api.AuditList, error) {
	m := a.current()
	if m == nil {
		list, err := a.localAudit(limit)
		return api.AuditList{Records: list}, err
	}
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	out := api.AuditList{Records: []api.AuditRecord{}, Silent: map[string]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range m.view().NodeNames() {
		wg.Go(func() {
			var list []api.AuditRecord
			_, err := m.callNode(ctx, node, rpcAudit, limit, &list, func() any { return m.auditHere(limit) })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Silent[node] = plainCause(err)
				return
			}
			for i := range list {
				list[i].Node = node
			}
			out.Records = append(out.Records, list...)
		})
	}
	wg.Wait()
	slices.SortStableFunc(out.Records, func(x, y api.AuditRecord) int { return x.Time.Compare(y.Time) })
	out.Records = out.Records[max(0, len(out.Records)-limit):]
	return out, nil
}

func (m *member) serveAudit(_ context.Context, _ string, body []byte) ([]byte, error) {
	var limit int
	if err := json.Unmarshal(body, &limit); err != nil {
		return nil, errors.New("the question for the record of changes cannot be read")
	}
	return json.Marshal(m.auditHere(min(max(limit, 1), api.MaxAudit)))
}

// auditHere is bounded by what fits into a message between nodes.
func (m *member) auditHere(limit int) []api.AuditRecord {
	list, err := m.a.localAudit(limit)
	if err != nil {
		m.log.Warn("the record of changes cannot be read", "error", err)
	}
	for {
		b, err := json.Marshal(list)
		if err != nil || len(b) < maxSnapshot || len(list) < 2 {
			return list
		}
		list = list[len(list)/2:]
	}
}

// localAudit reads the newest records of this node's file.
func (a *Agent) localAudit(limit int) ([]api.AuditRecord, error) {
	out := []api.AuditRecord{}
	f, err := os.Open(a.auditFile())
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("read the record of changes: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return out, fmt.Errorf("read the record of changes: %w", err)
	}
	from := max(0, info.Size()-auditTail)
	b, err := io.ReadAll(io.NewSectionReader(f, from, auditTail))
	if err != nil {
		return out, fmt.Errorf("read the record of changes: %w", err)
	}
	for line := range bytes.Lines(b) {
		var r api.AuditRecord
		if json.Unmarshal(line, &r) == nil && r.Call != "" { // the first line may be cut
			r.Node = a.opt.Node.Name
			out = append(out, r)
		}
	}
	return out[max(0, len(out)-limit):], nil
}
