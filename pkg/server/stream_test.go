package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/server/servertest"
)

type logText struct {
	mu   sync.Mutex
	b    bytes.Buffer
	seen chan struct{} // closed when a client is dropped, if it is there
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen != nil && bytes.Contains(p, []byte("is dropped")) {
		close(l.seen)
		l.seen = nil
	}
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type streamRig struct {
	t       *testing.T
	backend *servertest.Backend
	server  *Server
	path    string
	log     *logText
	done    chan error
}

func startStreams(t *testing.T, edit func(*Server)) *streamRig {
	t.Helper()
	r := &streamRig{t: t, backend: servertest.New(api.Status{}), path: filepath.Join(t.TempDir(), "s"), log: &logText{}}
	r.serve(edit)
	t.Cleanup(func() { r.server.Close(); <-r.done })
	return r
}

func (r *streamRig) serve(edit func(*Server)) {
	r.t.Helper()
	s, err := New(Config{Backend: r.backend, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		r.t.Fatal(err)
	}
	if edit != nil {
		edit(s)
	}
	l, err := ListenLocal(r.path, Access{})
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeLocal(l) }()
	r.server, r.done = s, done
}

func (r *streamRig) event(n int) {
	for range n {
		r.backend.AddEvent(api.Event{Kind: "node_up", Node: "n1", Sentence: "n1 is up, with \"quotes\" and\nlines"})
	}
}

// open asks for the stream as curl would.
func (r *streamRig) open(query, lastID string) (*http.Response, *bufio.Reader) {
	r.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.path)
	}}
	req, err := http.NewRequestWithContext(r.t.Context(), "GET", "http://x"+api.PathEvents+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = res.Body.Close(); tr.CloseIdleConnections() })
	return res, bufio.NewReader(res.Body)
}

// until reads lines up to one with the text.
func until(t *testing.T, b *bufio.Reader, text string) string {
	t.Helper()
	var all strings.Builder
	for {
		line, err := b.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			t.Fatalf("no %q before %v in:\n%s", text, err, all.String())
		}
		if strings.Contains(line, text) {
			return all.String()
		}
	}
}

func TestStreamOfEvents(t *testing.T) {
	r := startStreams(t, func(s *Server) { s.beat = 20 * time.Millisecond })
	r.event(3)
	res, b := r.open("?follow", "")
	if ct := res.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %q", ct)
	}
	if head := until(t, b, "newest event here is 3"); !strings.Contains(head, "id: 3\n") || strings.Contains(head, "data:") {
		t.Errorf("the heading is\n%s", head)
	}
	until(t, b, ": alive")
	r.event(2)
	until(t, b, "id: 4")
	line := until(t, b, "data: ")
	var e api.Event
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &e); err != nil || e.ID != 4 || !strings.Contains(e.Sentence, "and\nlines") {
		t.Errorf("%s is %+v, %v", line, e, err)
	}
	until(t, b, "id: 5")
}

func TestStreamBeginsWhereItIsAskedTo(t *testing.T) {
	r := startStreams(t, nil)
	r.event(200)
	for _, tc := range []struct {
		query, lastID, first string
	}{
		{"?follow&limit=150", "", "id: 51\n"},
		{"?follow&limit=5", "", "id: 196\n"},
		{"?follow&since=7", "", "id: 8\n"},
		{"?follow&since=7&limit=3", "", "id: 8\n"},
		{"?follow&since=7", "12", "id: 13\n"}, // what a browser sends with the same address when it comes back
		{"?follow", "0", "id: 1\n"},           // it saw the history while that was empty
	} {
		_, b := r.open(tc.query, tc.lastID)
		until(t, b, "newest event here is 200")
		until(t, b, "\n")
		if got := until(t, b, "id:"); got != tc.first {
			t.Errorf("%s, %s: it begins with %q, want %q", tc.query, tc.lastID, got, tc.first)
		}
		until(t, b, "id: 200")
	}
}

func TestStreamTellsWhatIsLost(t *testing.T) {
	r := startStreams(t, nil)
	r.event(20)
	r.backend.ForgetEvents(10)
	_, b := r.open("?follow", "4")
	until(t, b, "event: lost")
	until(t, b, "events after 4 are no longer kept")
	until(t, b, "id: 11")
	until(t, b, "id: 20")
}

func TestStreamRefusesBadPlaces(t *testing.T) {
	r := startStreams(t, nil)
	for _, tc := range [][2]string{{"?follow&since=x", ""}, {"?follow&limit=-1", ""}, {"?follow", "yesterday"}} {
		if res, _ := r.open(tc[0], tc[1]); res.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d", tc, res.StatusCode)
		}
	}
}

// TestSlowReaderOfAStreamIsDropped: one that takes nothing costs its connection and no more, is named in the log, and hinders nobody.
func TestSlowReaderOfAStreamIsDropped(t *testing.T) {
	r := startStreams(t, func(s *Server) { s.patience = 2 * time.Second })
	dropped := make(chan struct{})
	r.log.seen = dropped
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "GET "+api.PathEvents+"?follow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	head := bufio.NewReader(c)
	until(t, head, "newest event here is 0")
	_, other := r.open("?follow", "")
	until(t, other, "newest event here is 0")
	// More than the sockets between the two hold.
	big := api.Event{Kind: "k", Sentence: strings.Repeat("x", 16<<10)}
	for n := range 200 {
		r.backend.AddEvent(big)
		until(t, other, fmt.Sprintf("id: %d\n", n+1))
	}
	select {
	case <-dropped:
	case <-time.After(30 * time.Second):
		t.Fatalf("it is not dropped; the log: %s", r.log.String())
	}
	if log := r.log.String(); !strings.Contains(log, "it does not take what it asked for") || !strings.Contains(log, "at_event=") {
		t.Errorf("the log: %s", log)
	}
}

// TestFollowGoesOn: a client hears each event once and in order, over restarts of the daemon.
func TestFollowGoesOn(t *testing.T) {
	r := startStreams(t, nil)
	r.event(10)
	cl := client.New(r.path)
	defer cl.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var ids []uint64
	var told []string
	heard := make(chan uint64, 100)
	done := make(chan error, 1)
	go func() {
		done <- cl.Follow(ctx, 0, 3, func(e api.Event) error {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, e.ID)
			heard <- e.ID
			return nil
		}, func(s string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s)
		})
	}()
	wait := func(id uint64) {
		for got := range heard {
			if got == id {
				return
			}
		}
	}
	wait(10)
	r.server.Close()
	<-r.done
	r.event(5)
	r.serve(nil)
	r.event(5)
	wait(20)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) != 13 {
		t.Errorf("heard %v", ids)
	}
	for i, id := range ids {
		if id != uint64(8+i) {
			t.Fatalf("heard %v", ids)
		}
	}
	if !strings.Contains(strings.Join(told, "\n"), "asking again") {
		t.Errorf("told %q", told)
	}
}

func TestFollowEndsWithTheHearersError(t *testing.T) {
	r := startStreams(t, nil)
	r.event(3)
	cl := client.New(r.path)
	defer cl.Close()
	if err := cl.Follow(t.Context(), 1, 0, func(api.Event) error { return io.ErrShortWrite }, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	if err := client.New(r.path+"-not").Follow(t.Context(), 0, 0, func(api.Event) error { return nil }, nil); err == nil {
		t.Error("nobody is there, and it goes on")
	}
}

// TestWatchersShareOneStatus: those who wait for the same change are given the same text, made once.
func TestWatchersShareOneStatus(t *testing.T) {
	b := &counting{Backend: servertest.New(api.Status{Cluster: api.Cluster{Name: "c1"}})}
	var w watched
	var texts [2]encoded
	for i := range texts {
		var err error
		if texts[i], err = w.status(b); err != nil {
			t.Fatal(err)
		}
	}
	if b.made != 1 || !bytes.Equal(texts[0], texts[1]) {
		t.Errorf("it was made %d times", b.made)
	}
	b.Change(func(st *api.Status) { st.Cluster.Name = "c2" })
	if text, err := w.status(b); err != nil || b.made != 2 || !strings.Contains(string(text), `"c2"`) {
		t.Errorf("after a change: %s, %v, made %d times", text, err, b.made)
	}
	w.made = w.made.Add(-watchedAge)
	if _, err := w.status(b); err != nil || b.made != 3 {
		t.Errorf("an old one is given again: %v", err)
	}
}

type counting struct {
	*servertest.Backend
	made int
}

func (c *counting) Status() api.Status { c.made++; return c.Backend.Status() }
