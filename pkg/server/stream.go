package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// Events as a stream (server-sent events, as browsers and curl read them). Nothing is kept for a client but its place in the history,
// which all share and which is bounded: a slow client costs its connection and one batch, and is dropped when it takes nothing for a
// while, or when its place is no longer kept. It may come back with the id of the last event that it saw.

const (
	streamBatch    = 64               // events written at once
	streamPatience = 20 * time.Second // for a client to take a batch
	streamBeat     = 15 * time.Second // between signs of life
	streamRetry    = 2 * time.Second  // after which a client should come back; said in the stream
)

// follow streams what comes after the event that the client names; without one, after the newest limit events.
func (c *call) follow(since uint64, limit int) (any, error) {
	if id := c.r.Header.Get("Last-Event-ID"); id != "" {
		var err error
		if since, err = number(id, "Last-Event-ID"); err != nil {
			return nil, err
		}
		if since == 0 { // it saw the history while that was empty
			limit = api.MaxEvents
		}
	}
	f := &follower{c: c, w: http.NewResponseController(c.w), since: since}
	if err := f.begin(limit); err != nil {
		return nil, err
	}
	err := f.run()
	if f.slow {
		c.s.cfg.Log.Warn("a client of the event stream is dropped: it does not take what it asked for", "caller", c.who.String(),
			"patience", c.s.patience, "at_event", f.since, "err", err)
	}
	return answered{}, nil
}

// A follower is one client of the stream.
type follower struct {
	c     *call
	w     *http.ResponseController
	since uint64 // the last event sent
	slow  bool   // it did not take what was written
}

// begin finds the place to begin at, while an error can still be told as one, and sends the heading.
func (f *follower) begin(limit int) error {
	newest, err := f.c.s.cfg.Backend.Events(0, max(limit, 1))
	if err != nil {
		return err
	}
	var first []api.Event
	if f.since == 0 {
		f.since = newest.Next
		if limit > 0 && len(newest.Events) > 0 {
			first = newest.Events
			f.since = first[0].ID - 1
		}
	}
	h := f.c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	f.c.w.WriteHeader(http.StatusOK)
	var b bytes.Buffer
	// An id without data is no message, and the place that a reader comes back to if it hears nothing more.
	fmt.Fprintf(&b, "id: %d\nretry: %d\n: the newest event here is %d\n\n", f.since, streamRetry.Milliseconds(), newest.Next)
	_ = f.send(&b) // a client that has gone is found by what follows
	for len(first) > 0 {
		n := min(len(first), streamBatch)
		if f.sendEvents(first[:n]) != nil {
			break
		}
		first = first[n:]
	}
	return nil
}

// run ends with the client, the daemon, or a client too slow.
func (f *follower) run() error {
	ctx, backend := f.c.r.Context(), f.c.s.cfg.Backend
	for {
		_, version := backend.Version() // read before the events: one that comes in between ends the wait
		list, err := backend.Events(f.since, streamBatch)
		switch {
		case err != nil: // no member any more
			return f.note(api.StreamEnd, err.Error())
		case list.Lost && f.since > 0:
			if err := f.note(api.StreamLost, fmt.Sprintf("events after %d are no longer kept: the next one follows", f.since)); err != nil {
				return err
			}
		}
		if len(list.Events) > 0 {
			if err := f.sendEvents(list.Events); err != nil {
				return err
			}
			continue
		}
		wait, cancel := context.WithTimeout(ctx, f.c.s.beat)
		backend.Wait(wait, version)
		quiet := wait.Err() != nil
		cancel()
		if ctx.Err() != nil {
			if errors.Is(context.Cause(ctx), ErrClosed) {
				_ = f.note(api.StreamEnd, ErrClosed.Error()) // the connection may be closed already
			}
			return context.Cause(ctx)
		}
		if quiet {
			if err := f.send(bytes.NewBufferString(": alive\n\n")); err != nil {
				return err
			}
		}
	}
}

func (f *follower) sendEvents(list []api.Event) error {
	var b bytes.Buffer
	for i := range list {
		data, err := json.Marshal(&list[i])
		if err != nil {
			return fmt.Errorf("encode an event: %w", err)
		}
		fmt.Fprintf(&b, "id: %d\ndata: %s\n\n", list[i].ID, data)
	}
	if err := f.send(&b); err != nil {
		return err
	}
	f.since = max(f.since, list[len(list)-1].ID)
	return nil
}

func (f *follower) note(name, sentence string) error {
	data, err := json.Marshal(api.StreamNote{Sentence: sentence})
	if err != nil {
		return fmt.Errorf("encode a note: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, data)
	return f.send(&b)
}

func (f *follower) send(b *bytes.Buffer) error {
	_ = f.w.SetWriteDeadline(time.Now().Add(f.c.s.patience)) // fails only for a writer that is no connection
	_, err := f.c.w.Write(b.Bytes())
	if err == nil {
		err = f.w.Flush()
	}
	f.slow = errors.Is(err, os.ErrDeadlineExceeded)
	return err
}
