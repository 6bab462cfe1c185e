package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// streamSilence is how long a stream may say nothing at all: a few of the daemon's signs of life.
const streamSilence = 50 * time.Second

// maxStreamLine bounds a line of the stream.
const maxStreamLine = 1 << 20

// Follow hears the cluster's events as they come, those after the event since; with since 0 it begins with the newest last ones. It
// returns when the context ends (with its cause), when heard returns an error (with that), or when the daemon refuses. A stream that
// breaks is taken up again where it was, also after a restart of the daemon: told, if not nil, hears of that, and of events that were
// missed because they are no longer kept.
func (c *Client) Follow(ctx context.Context, since uint64, last int, heard func(api.Event) error, told func(sentence string)) error {
	at := ""
	if since > 0 {
		at = strconv.FormatUint(since, 10)
	}
	if told == nil {
		told = func(string) {}
	}
	opened := false
	for {
		err := c.followOnce(ctx, &at, last, func() { opened = true }, heard, told)
		var own *heardError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &own):
			return own.error
		case !opened || !passing(ctx, err): // at first somebody must be there
			return err
		}
		told(fmt.Sprintf("%v; asking again", err))
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// heardError marks an error of the hearer's own.
type heardError struct{ error }

var errStreamEnd = errors.New("the stream of events broke off")

func (c *Client) followOnce(ctx context.Context, at *string, last int, opened func(), heard func(api.Event) error,
	told func(string)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(streamSilence, func() { cancel(errSilent) })
	defer quiet.Stop()
	q := url.Values{"follow": {"yes"}, "limit": {strconv.Itoa(last)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://holdfast"+api.PathEvents+"?"+q.Encode(), nil)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	if *at != "" {
		req.Header.Set("Last-Event-ID", *at)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(context.WithoutCancel(ctx), err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		return failure(res, text)
	}
	opened()
	r := streamReader{bufio.NewReaderSize(res.Body, 64<<10)}
	for {
		m, err := r.next(func() { quiet.Reset(streamSilence) })
		if err != nil {
			if errors.Is(context.Cause(ctx), errSilent) {
				err = errSilent
			}
			return fmt.Errorf("%w: %w", errStreamEnd, err)
		}
		if err := m.give(at, heard, told); err != nil {
			return err
		}
	}
}

// A message is one of a stream of server-sent events.
type message struct {
	name, data string
	id         string
	hasID      bool
}

// give hands a message on. One that this client does not know is left out: another version of the daemon may send it.
func (m *message) give(at *string, heard func(api.Event) error, told func(string)) error {
	switch {
	case m.data == "":
	case m.name == "":
		var e api.Event
		if err := json.Unmarshal([]byte(m.data), &e); err != nil {
			return &heardError{fmt.Errorf("read the stream of events: %w", err)}
		}
		if err := heard(e); err != nil {
			return &heardError{err}
		}
	case m.name == api.StreamLost || m.name == api.StreamEnd:
		var n api.StreamNote
		if err := json.Unmarshal([]byte(m.data), &n); err != nil {
			return &heardError{fmt.Errorf("read the stream of events: %w", err)}
		}
		told(n.Sentence)
	}
	if m.hasID {
		*at = m.id
	}
	return nil
}

// A streamReader reads server-sent events.
type streamReader struct{ r *bufio.Reader }

// next reads one message; alive is called for each line, comments too.
func (s *streamReader) next(alive func()) (message, error) {
	var m message
	var data []string
	size := 0
	for {
		line, err := s.line()
		if err != nil {
			return message{}, err
		}
		alive()
		if size += len(line); size > maxStreamLine {
			return message{}, fmt.Errorf("a message is longer than %d bytes", maxStreamLine)
		}
		if line == "" {
			m.data = strings.Join(data, "\n")
			return m, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			m.name = value
		case "data":
			data = append(data, value)
		case "id":
			m.id, m.hasID = value, true
		}
	}
}

// line reads one without its end.
func (s *streamReader) line() (string, error) {
	var long []byte
	for {
		part, err := s.r.ReadSlice('\n')
		long = append(long, part...)
		switch {
		case err == nil:
			return string(bytes.TrimRight(long, "\r\n")), nil
		case len(long) > maxStreamLine:
			return "", fmt.Errorf("a line is longer than %d bytes", maxStreamLine)
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
	}
}
