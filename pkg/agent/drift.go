package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/state"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

// The leader verifies the cluster by itself: a quick look every VERIFICATION_INTERVAL, and all of it once a day. It tells what
// is new and what is gone, and is quiet when nothing has changed.

const (
	verifyLogLimit = 8 << 20
	verifyLogKeep  = 4
	driftNotes     = 20 // events that one look may make; the rest stands in the log
)

func (m *member) keepVerifying(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	var last time.Time
	var lastDay string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		view, led, now := m.view(), m.leading(), m.wall()
		if view.Definition == nil || led == nil || !led.ready() {
			continue
		}
		if last.IsZero() {
			last = now // the first look waits: a cluster that has just elected is not at rest
		}
		set := &view.Definition.Settings
		day := now.Format(time.DateOnly)
		switch daily := !set.NoDailyVerification && now.Hour() == set.VerificationHour && lastDay != day; {
		case daily && now.Sub(last) > time.Minute:
			lastDay, last = day, now
			m.verifyByItself(led.ctx, "daily", api.VerifyRequest{Active: true})
			m.shareVerification(led.ctx)
		case now.Sub(last) >= set.LooksEvery():
			last = now
			m.verifyByItself(led.ctx, "drift", api.VerifyRequest{Active: true, Quick: true})
			m.shareVerification(led.ctx)
		}
	}
}

// verifyByItself compares with the last look of the same kind. What only the whole verification sees (fence devices, methods) is
// kept from the last whole one.
func (m *member) verifyByItself(ctx context.Context, why string, r api.VerifyRequest) {
	m.verifying.Lock()
	defer m.verifying.Unlock()
	report, err := m.verify(ctx, r)
	if err != nil || ctx.Err() != nil {
		return
	}
	before := m.verified
	if r.Quick {
		for _, f := range before.Findings {
			if onlyWhole(f.Check) {
				report.Findings = append(report.Findings, f)
			}
		}
	}
	first := before.Time.IsZero()
	m.verified = report
	fresh, gone := verify.Compare(&before, &report)
	if why == "daily" {
		m.logVerification("log/autoverify.log", "the daily verification", &report)
	} else if first || len(fresh)+len(gone) > 0 {
		m.logVerification("clverify/clverify.log", "the look for drift", &report)
	}
	if first {
		return // nothing to compare with: no leader has looked since this daemon started
	}
	m.noteFindings("new", fresh)
	m.noteFindings("gone", gone)
}

// shareLimit is how long the other nodes may take to accept the report of a look.
const shareLimit = 3 * time.Second

// shareVerification gives the other members the newest report, so that the next leader knows what was there before, and tells what has
// changed meanwhile. It decides nothing, so a member that misses it costs at most a line of the history.
func (m *member) shareVerification(ctx context.Context) {
	m.verifying.Lock()
	report := m.verified
	m.verifying.Unlock()
	if report.Time.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, shareLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, node := range m.view().NodeNames() {
		if node == m.name {
			continue
		}
		wg.Go(func() {
			var none struct{}
			if _, err := m.callNode(ctx, node, rpcVerified, &report, &none, nil); err != nil {
				m.log.Debug("a node has not taken the report of a verification", "node", node, "error", err)
			}
		})
	}
	wg.Wait()
}

// serveVerified takes the leader's newest report. One that looks itself keeps its own.
func (m *member) serveVerified(_ context.Context, from string, body []byte) ([]byte, error) {
	var report api.VerifyReport
	if err := json.Unmarshal(body, &report); err != nil {
		return nil, errors.New("the report of a verification cannot be read")
	}
	if m.leading() == nil && from == m.leaderNode() && m.verifying.TryLock() {
		m.verified = report
		m.verifying.Unlock()
	}
	return []byte("{}"), nil
}

// onlyWhole are the checks that a quick look does not make.
func onlyWhole(check string) bool {
	return check == "V2009" || check == "V2010" || check == "V2701"
}

func (m *member) noteFindings(what string, list []api.Finding) {
	n := 0
	for _, f := range list {
		if f.Severity == api.SeverityInfo {
			continue
		}
		if n++; n > driftNotes {
			return
		}
		node := f.Node
		if node == "" {
			node = m.name
		}
		text := fmt.Sprintf("verification, %s: %s %s %s: %s", what, f.Severity, f.Check, f.Object, f.Saw)
		m.submit(&state.Command{Note: &state.Note{Event: state.EventVerification, Node: node, Sentence: text}})
	}
}

// logVerification appends a report to one of the verification's logs: each line by itself says what it is about.
func (m *member) logVerification(name, by string, r *api.VerifyReport) {
	l, err := OpenLogFile(filepath.Join(m.opt.Node.LogDir, name), verifyLogLimit, verifyLogKeep)
	if err != nil {
		m.log.Warn("the verification's log cannot be written", "error", err)
		return
	}
	defer func() { _ = l.Close() }()
	if _, err := l.Write([]byte(verificationText(m.name, by, r))); err != nil {
		m.log.Warn("the verification's log cannot be written", "error", err)
	}
}

func verificationText(node, by string, r *api.VerifyReport) string {
	var b strings.Builder
	stamp := r.Time.Format("2006-01-02 15:04:05")
	line := func(format string, args ...any) {
		text := strings.Map(func(c rune) rune {
			if c < ' ' || c == 0x7f {
				return ' '
			}
			return c
		}, fmt.Sprintf(format, args...))
		b.WriteString(stamp + " " + text + "\n")
	}
	line("verification of %s (version %d) asked on node %s by %s: %d checks on %d nodes in %.2f s", r.Subject, r.DefinitionVersion, node, by,
		r.Checks, len(r.Nodes), r.TookSeconds)
	for _, f := range r.Findings {
		where := f.Node
		if where == "" {
			where = "cluster"
		}
		mark := string(f.Severity)
		if f.Waived != "" {
			mark = "WAIVED"
		}
		line("%s %s %s: %s: %s", mark, f.Check, where, f.Object, f.Saw)
	}
	for _, x := range r.Fixed {
		line("FIXED %s", x)
	}
	for _, x := range r.NotChecked {
		line("NOT CHECKED %s", x)
	}
	result := "PASSED"
	if r.Failed() {
		result = "FAILED"
	}
	line("Check: %s", result)
	return b.String()
}
