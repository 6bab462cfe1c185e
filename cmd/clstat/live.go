package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gdamore/tcell/v2"
	"golang.org/x/term"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
)

const footer = "************************ f/forward, b/back, r/refresh, q/quit ****************"

// showLive follows the state on the terminal until the user or the context ends it.
func showLive(ctx context.Context, c *client.Client, o options) error {
	s, err := newScreen()
	if err == nil {
		err = s.Init()
	}
	if err != nil {
		return fmt.Errorf("use the terminal: %w (clstat -o needs none)", err)
	}
	defer s.Fini()
	return follow(ctx, s, c, o, time.Now)
}

// newScreen takes the terminal that it was given as input and output; where the input is none, the controlling one. The
// library's own choice, the controlling terminal, is missing where a command was started in a session of its own.
func newScreen() (tcell.Screen, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return tcell.NewScreen()
	}
	tty, err := tcell.NewStdIoTty()
	if err != nil {
		return nil, err
	}
	return tcell.NewTerminfoScreenFromTty(tty)
}

// A news is an answer of the daemon, or its absence.
type news struct {
	status *api.Status
	err    error
}

// follow is the loop of the live picture: answers, keys, sizes and the clock come in, one picture goes out.
func follow(ctx context.Context, s tcell.Screen, c *client.Client, o options, now func() time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	answers, refresh := make(chan news), make(chan struct{}, 1)
	keys, quit := make(chan tcell.Event), make(chan struct{})
	wg.Go(func() { listen(ctx, c, o, answers, refresh) })
	wg.Go(func() { s.ChannelEvents(keys, quit) })
	defer wg.Wait()
	defer close(quit)
	defer cancel()

	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	d := &display{screen: s, ascii: o.ascii}
	for {
		d.view.now = now()
		d.draw()
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		case n := <-answers:
			if n.status != nil {
				if err := o.right(n.status); err != nil {
					return err
				}
				d.view.status, d.view.seen = n.status, now()
			}
			d.view.err = n.err
		case e, ok := <-keys:
			if !ok || d.handle(e, refresh) {
				return nil
			}
		}
	}
}

// listen asks for the next state again and again; refresh breaks a wait off.
func listen(ctx context.Context, c *client.Client, o options, out chan<- news, refresh <-chan struct{}) {
	var last *api.Status
	for ctx.Err() == nil {
		st, err := ask(ctx, c, last, o.refresh, refresh)
		if ctx.Err() != nil {
			return
		}
		n := news{err: err}
		if err == nil {
			last = &st
			n.status = &st
		}
		select {
		case out <- n:
		case <-ctx.Done():
			return
		}
		if err != nil {
			select {
			case <-time.After(min(o.refresh, time.Second)):
			case <-refresh:
			case <-ctx.Done():
			}
		}
	}
}

func ask(ctx context.Context, c *client.Client, last *api.Status, wait time.Duration, refresh <-chan struct{}) (api.Status, error) {
	if last == nil {
		return c.Status(ctx)
	}
	poll, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan news, 1)
	go func() {
		st, err := c.Next(poll, last, wait)
		done <- news{&st, err}
	}()
	select {
	case n := <-done:
		return *n.status, n.err
	case <-refresh:
		cancel()
		<-done
		return c.Status(ctx)
	}
}

// A display is the terminal and where the user is in the picture.
type display struct {
	screen tcell.Screen
	ascii  bool
	view   view
	top    int // the first line shown
}

// handle takes a key or a new size; true ends the program.
func (d *display) handle(e tcell.Event, refresh chan<- struct{}) bool {
	switch e := e.(type) {
	case *tcell.EventResize:
		d.screen.Sync()
	case *tcell.EventKey:
		_, rows := d.screen.Size()
		page := max(1, rows-2)
		switch {
		case e.Key() == tcell.KeyCtrlC, e.Key() == tcell.KeyEscape, e.Rune() == 'q', e.Rune() == 'Q':
			return true
		case e.Key() == tcell.KeyPgDn, e.Rune() == 'f', e.Rune() == 'F', e.Rune() == ' ':
			d.top += page
		case e.Key() == tcell.KeyPgUp, e.Rune() == 'b', e.Rune() == 'B':
			d.top -= page
		case e.Key() == tcell.KeyDown:
			d.top++
		case e.Key() == tcell.KeyUp:
			d.top--
		case e.Key() == tcell.KeyHome:
			d.top = 0
		case e.Key() == tcell.KeyCtrlL, e.Rune() == 'r', e.Rune() == 'R':
			d.screen.Sync()
			select {
			case refresh <- struct{}{}:
			default: // one is on its way
			}
		}
	}
	return false
}

// draw puts the part of the picture that fits on the screen, and the keys on the last row.
func (d *display) draw() {
	lines := d.view.lines()
	cols, rows := d.screen.Size()
	body := rows
	if rows > 3 {
		body = rows - 1
	}
	d.top = max(0, min(d.top, len(lines)-body))
	d.screen.Clear()
	for y := 0; y < body && d.top+y < len(lines); y++ {
		l := lines[d.top+y]
		style := tcell.StyleDefault
		if l.marked && !d.ascii {
			style = style.Bold(true)
		}
		put(d.screen, y, cols, l.text, style)
	}
	if body < rows {
		text := footer
		if more := len(lines) - d.top - body; more > 0 {
			text = fmt.Sprintf("%d more lines  f/forward, b/back, r/refresh, q/quit", more)
		}
		put(d.screen, rows-1, cols, text, tcell.StyleDefault)
	}
	d.screen.Show()
}

// put writes a text on a row; what does not fit ends in '>'.
func put(s tcell.Screen, y, cols int, text string, style tcell.Style) {
	x := 0
	for _, r := range text {
		if x == cols-1 && len([]rune(text)) > cols {
			r = '>'
		}
		if x >= cols {
			return
		}
		s.SetContent(x, y, r, nil, style)
		x++
	}
}
