package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// ProbeOptions says how a probe asks. Zero values mean the command's defaults.
type ProbeOptions struct {
	Interval  time.Duration
	Timeout   time.Duration
	Threshold time.Duration // shortest time without answers that counts
	UDP       bool
	Connect   bool // take an accepted connection for an answer
}

// A Probe is a client that asks a service until it is stopped.
type Probe struct {
	*follower[ProbeEvent]
}

// StartProbe begins to ask the service at ADDRESS:PORT from the client's namespace.
func (l *Lab) StartProbe(target string, o ProbeOptions) (*Probe, error) {
	argv := []string{"probe", target}
	argv = addDuration(argv, "interval", o.Interval)
	argv = addDuration(argv, "timeout", o.Timeout)
	argv = addDuration(argv, "min", o.Threshold)
	if o.UDP {
		argv = append(argv, "--udp")
	}
	if o.Connect {
		argv = append(argv, "--connect")
	}
	f, err := follow[ProbeEvent](l, argv)
	if err != nil {
		return nil, err
	}
	return &Probe{f}, nil
}

func addDuration(argv []string, name string, d time.Duration) []string {
	if d == 0 {
		return argv
	}
	return append(argv, "--"+name+"="+d.String())
}

// AwaitAnswer waits until the newest answer comes from the node, or from anybody when node is empty.
func (p *Probe) AwaitAnswer(ctx context.Context, node string) error {
	err := p.Await(ctx, func(events []ProbeEvent) bool {
		from := false
		for _, e := range events {
			switch {
			case e.Event == "answer":
				from = node == "" || e.From.Node == node
			case e.Event == "silent":
				from = false
			case e.Event == "outage" && !e.Outage.Open:
				from = node == "" || e.Outage.After.Node == node
			}
		}
		return from
	})
	if err != nil {
		return fmt.Errorf("wait for an answer from %q: %w", node, err)
	}
	return nil
}

// Stop ends the probe and returns its report.
func (p *Probe) Stop() (*ProbeReport, error) {
	for _, e := range p.stop() {
		if e.Report != nil {
			return e.Report, nil
		}
	}
	return nil, fmt.Errorf("the probe gave no report: %w", p.cause())
}

// WatchOptions says how a watcher looks. Zero values mean the command's defaults.
type WatchOptions struct {
	Interval time.Duration
	Ignore   []string // names that several nodes may hold
}

// A Watch looks who holds what until it is stopped.
type Watch struct {
	*follower[WatchEvent]
}

// StartWatch begins to look, and returns once it does.
func (l *Lab) StartWatch(ctx context.Context, o WatchOptions) (*Watch, error) {
	argv := addDuration([]string{"watch"}, "interval", o.Interval)
	for _, name := range o.Ignore {
		argv = append(argv, "--ignore="+name)
	}
	f, err := follow[WatchEvent](l, argv)
	if err != nil {
		return nil, err
	}
	w := &Watch{f}
	if err := w.Await(ctx, func(events []WatchEvent) bool { return len(events) > 0 }); err != nil {
		w.stop()
		return nil, fmt.Errorf("wait for the watcher's first look: %w", err)
	}
	return w, nil
}

// Stop ends the watch and returns its report. Overlaps are no error here: they are in the report.
func (w *Watch) Stop() (*WatchReport, error) {
	for _, e := range w.stop() {
		if e.Report != nil {
			return e.Report, nil
		}
	}
	return nil, fmt.Errorf("the watcher gave no report: %w", w.cause())
}

// A follower runs a command of cllab in the client's namespace and collects the events that it writes, one JSON line each.
type follower[E any] struct {
	signals chan os.Signal
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the command has ended and all is read

	mu     sync.Mutex
	events []E
	news   chan struct{} // closed and replaced at each event
	err    error
	stderr strings.Builder
}

func follow[E any](l *Lab, argv []string) (*follower[E], error) {
	f := &follower[E]{signals: make(chan os.Signal, 1), ended: make(chan struct{}), news: make(chan struct{})}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	argv = append(append([]string{"/proc/self/exe"}, argv...), "--here", "-o", "jsonl", "--name", l.name())
	var wg sync.WaitGroup
	wg.Go(func() { f.readEvents(outR) })
	wg.Go(func() { f.readMessages(errR) })
	go func() {
		code, err := l.Exec(ctx, ClientNode, argv, ExecOptions{Stdout: outW, Stderr: errW, Signals: f.signals})
		outW.Close()
		errW.Close()
		wg.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if err == nil && code != 0 {
			err = fmt.Errorf("exit status %d", code)
		}
		f.err = err
		close(f.ended)
	}()
	return f, nil
}

func (l *Lab) name() string { return l.Dir[strings.LastIndexByte(l.Dir, '/')+1:] }

func (f *follower[E]) readEvents(r *os.File) {
	defer r.Close()
	d := json.NewDecoder(bufio.NewReader(r))
	for {
		var e E
		if err := d.Decode(&e); err != nil {
			_, _ = io.Copy(io.Discard, r) // so that the command is never blocked
			return
		}
		f.mu.Lock()
		f.events = append(f.events, e)
		close(f.news)
		f.news = make(chan struct{})
		f.mu.Unlock()
	}
}

func (f *follower[E]) readMessages(r *os.File) {
	defer r.Close()
	b, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	_, _ = io.Copy(io.Discard, r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stderr.Write(b)
}

// Events returns what was told so far. The slice is the caller's.
func (f *follower[E]) Events() []E {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]E(nil), f.events...)
}

// Await waits until the events told so far satisfy enough.
func (f *follower[E]) Await(ctx context.Context, enough func([]E) bool) error {
	for {
		f.mu.Lock()
		news, ok := f.news, enough(f.events)
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.ended:
			f.mu.Lock()
			ok := enough(f.events)
			f.mu.Unlock()
			if ok {
				return nil
			}
			return f.cause()
		}
	}
}

// stop interrupts the command, and kills it if that does not end it.
func (f *follower[E]) stop() []E {
	select {
	case f.signals <- os.Interrupt:
	default:
	}
	select {
	case <-f.ended:
	case <-time.After(10 * time.Second):
	}
	f.cancel()
	<-f.ended
	return f.Events()
}

// cause says why the command ended.
func (f *follower[E]) cause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return errors.New("it has ended: " + strings.TrimSpace(f.stderr.String()))
	}
	return fmt.Errorf("%w: %s", f.err, strings.TrimSpace(f.stderr.String()))
}
