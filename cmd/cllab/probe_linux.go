package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// probeOptions is what a probe is told.
type probeOptions struct {
	target      string
	interval    time.Duration
	length      time.Duration // 0: until interrupted
	timeout     time.Duration
	threshold   time.Duration
	udp         bool
	connectOnly bool
	format      string
}

func (o *probeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&o.interval, "interval", 10*time.Millisecond, "time between attempts")
	f.DurationVar(&o.length, "for", 0, "how long (default: until interrupted)")
	f.DurationVar(&o.timeout, "timeout", time.Second, "how long each attempt waits")
	f.DurationVar(&o.threshold, "min", 0, "shortest time without answers that counts, the client's own pauses taken off (default: 5 intervals)")
	f.BoolVar(&o.udp, "udp", false, "ask by UDP datagrams instead of TCP connections")
	f.BoolVar(&o.connectOnly, "connect", false, "take an accepted TCP connection for an answer")
	f.StringVarP(&o.format, "output", "o", "text", "output form: text, json (one report at the end) or jsonl (each event as it comes)")
}

func (o *probeOptions) check() error {
	host, port, err := net.SplitHostPort(o.target)
	if err != nil || host == "" || port == "" {
		return usageError(fmt.Errorf("target %q: want ADDRESS:PORT", o.target))
	}
	if o.format != "text" && o.format != "json" && o.format != "jsonl" {
		return usageError(fmt.Errorf("-o %q: want text, json or jsonl", o.format))
	}
	if o.threshold == 0 {
		o.threshold = 5 * o.interval
	}
	if o.interval < 100*time.Microsecond || o.timeout <= 0 || o.length < 0 || o.threshold < o.interval {
		return usageError(errors.New("--interval must be at least 0.1ms, --timeout positive, --min at least the interval"))
	}
	if o.udp && o.connectOnly {
		return usageError(errors.New("--connect does not go with --udp"))
	}
	return nil
}

// probeCommand sends itself into the client's namespace, through the supervisor.
func probeCommand(c *common) *cobra.Command {
	o := &probeOptions{}
	var here bool
	cmd := &cobra.Command{
		Use:   "probe ADDRESS:PORT",
		Short: "Ask a service again and again from a client of its own on the network, and report every outage",
		Long: `Ask a service again and again, each time on a new connection (or with a new datagram), from a client in a network namespace of
its own on all networks of the lab. Every time without answers is reported with its begin, its length, and who answered before
and after. The exit status is 1 when nobody ever answered.`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.target = a[0]
			if err := o.check(); err != nil {
				return err
			}
			if here {
				return runProbe(cmd.Context(), *o, os.Stdout)
			}
			return inClientNamespace(cmd, c, os.Args[1:])
		}}
	o.flags(cmd)
	cmd.Flags().BoolVar(&here, "here", false, "ask from where this command runs instead")
	return cmd
}

// inClientNamespace runs this same command line there, with "--here".
func inClientNamespace(cmd *cobra.Command, c *common, line []string) error {
	signals := make(chan os.Signal, 4)
	signal.Reset(os.Interrupt, unix.SIGTERM)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM)
	argv := append(append([]string{"/proc/self/exe"}, line...), "--here", "--name", c.name)
	code, err := c.client().Exec(cmd.Context(), lab.ClientNode, argv,
		lab.ExecOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals})
	if err != nil || code != 0 {
		return &exitError{code: code, err: err}
	}
	return nil
}

// An attempt is one question and what became of it.
type attempt struct {
	end  time.Time
	from lab.Answerer
	err  error
}

// A prober makes a report of attempts. All its fields belong to the goroutine of run.
type prober struct {
	o      probeOptions
	out    io.Writer
	report lab.ProbeReport
	last   time.Time     // of the last answer; before the first, of the begin
	silent bool          // an outage is going on
	begun  time.Time     // of the last attempt
	gap    time.Duration // the longest time without an attempt since the last answer: that silence is the client's own
	asked  int           // attempts begun since the last answer
}

func runProbe(ctx context.Context, o probeOptions, out io.Writer) error {
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	p := &prober{o: o, out: out}
	p.run(ctx)
	if p.report.Answers == 0 {
		return &exitError{code: 1, err: fmt.Errorf("nobody answered at %s", o.target)}
	}
	return nil
}

func (p *prober) run(ctx context.Context) {
	now := time.Now()
	p.report = lab.ProbeReport{Target: p.o.target, Protocol: "tcp", Begin: now, Interval: p.o.interval, Threshold: p.o.threshold,
		Outages: []lab.Outage{}}
	if p.o.udp {
		p.report.Protocol = "udp"
	}
	p.last, p.begun = now, now
	results := make(chan attempt, 1024)
	var wg sync.WaitGroup
	tick := time.NewTicker(p.o.interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			p.beginAttempt()
			wg.Go(func() { results <- p.o.ask() })
		case r := <-results:
			p.take(r)
		}
		p.checkSilence(time.Now())
	}
	for done := false; !done; { // what is answered already counts
		select {
		case r := <-results:
			p.take(r)
		default:
			done = true
		}
	}
	p.finish()
	go func() { // attempts under way end by their timeouts; nobody waits for them
		for range results {
		}
	}()
}

func (p *prober) beginAttempt() {
	now := time.Now()
	gap := now.Sub(p.begun)
	p.begun = now
	p.gap = max(p.gap, gap)
	p.report.WorstGap = max(p.report.WorstGap, gap)
	p.report.Attempts++
	p.asked++
}

func (p *prober) take(r attempt) {
	if r.err != nil {
		p.report.Failed++
		return
	}
	p.report.Answers++
	if r.end.Before(p.last) {
		return // overtaken by a later one
	}
	if p.report.Answers == 1 {
		p.report.First = r.from
	} else if length := r.end.Sub(p.last); length-p.gap > p.o.threshold {
		p.endOutage(lab.Outage{Begin: p.last, End: r.end, Length: length, Before: p.report.Last, After: r.from})
	}
	before := p.report.Last
	p.report.Last, p.last, p.silent, p.asked, p.gap = r.from, r.end, false, 0, 0
	if p.report.Answers == 1 || before.Node != r.from.Node || before.PID != r.from.PID {
		p.emit(lab.ProbeEvent{Event: "answer", Time: r.end, From: &r.from})
	}
}

func (p *prober) endOutage(o lab.Outage) {
	o.Asked, o.ClientGap = p.asked, p.gap
	p.report.Outages = append(p.report.Outages, o)
	p.emit(lab.ProbeEvent{Event: "outage", Time: o.End, Outage: &o})
}

// checkSilence tells about an outage when it is one, not only when it is over.
func (p *prober) checkSilence(now time.Time) {
	if !p.silent && p.report.Answers > 0 && now.Sub(p.last)-p.gap > p.o.threshold {
		p.silent = true
		p.emit(lab.ProbeEvent{Event: "silent", Time: p.last, From: &p.report.Last})
	}
}

func (p *prober) finish() {
	p.report.End = time.Now()
	p.report.Pending = p.report.Attempts - p.report.Answers - p.report.Failed
	if length := p.report.End.Sub(p.last); p.report.Answers > 0 && length-p.gap > p.o.threshold {
		p.endOutage(lab.Outage{Begin: p.last, End: p.report.End, Length: length, Open: true, Before: p.report.Last})
	}
	p.emit(lab.ProbeEvent{Event: "report", Time: p.report.End, Report: &p.report})
}

// emit tells an event in the wanted form.
func (p *prober) emit(e lab.ProbeEvent) {
	switch {
	case p.o.format == "jsonl":
		_ = json.NewEncoder(p.out).Encode(e)
	case p.o.format == "json" && e.Report != nil:
		_ = writeJSON(p.out, e.Report)
	case p.o.format == "text":
		fmt.Fprintln(p.out, probeText(e))
	}
}

func probeText(e lab.ProbeEvent) string {
	at := e.Time.Format("15:04:05.000")
	switch e.Event {
	case "answer":
		return fmt.Sprintf("%s answer from %s", at, answererWords(*e.From))
	case "silent":
		return fmt.Sprintf("%s last answer, from %s", at, answererWords(*e.From))
	case "outage":
		o := e.Outage
		after := answererWords(o.After)
		if o.Open {
			after = "nobody yet"
		}
		return fmt.Sprintf("%s outage of %.3f s since %s: %s -> %s, asked %d times", at, o.Length.Seconds(),
			o.Begin.Format("15:04:05.000"), answererWords(o.Before), after, o.Asked)
	}
	r := e.Report
	return fmt.Sprintf("%s %s over %s: %d attempts in %.1f s, %d answered, %d failed, %d outages, the longest %.3f s; one attempt "+
		"every %v, at worst %v apart", at, r.Target, r.Protocol, r.Attempts, r.End.Sub(r.Begin).Seconds(), r.Answers, r.Failed,
		len(r.Outages), r.Longest().Seconds(), r.Interval, r.WorstGap.Round(time.Millisecond))
}

func answererWords(a lab.Answerer) string {
	if a.Node == "" {
		return "somebody"
	}
	return fmt.Sprintf("%s (process %d)", a.Node, a.PID)
}

// ask makes one attempt, on a socket of its own.
func (o *probeOptions) ask() attempt {
	deadline := time.Now().Add(o.timeout)
	from, err := o.exchange(deadline)
	return attempt{end: time.Now(), from: from, err: err}
}

func (o *probeOptions) exchange(deadline time.Time) (lab.Answerer, error) {
	network := "tcp"
	if o.udp {
		network = "udp"
	}
	d := net.Dialer{Deadline: deadline}
	conn, err := d.Dial(network, o.target)
	if err != nil {
		return lab.Answerer{}, err
	}
	defer conn.Close()
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // no ports wait after thousands of attempts
		if o.connectOnly {
			return lab.Answerer{}, nil
		}
	}
	_ = conn.SetDeadline(deadline)
	if _, err := fmt.Fprintln(conn, "probe"); err != nil {
		return lab.Answerer{}, err
	}
	line, err := bufio.NewReaderSize(conn, 512).ReadString('\n')
	if line == "" {
		return lab.Answerer{}, err
	}
	return parseAnswer(line), nil
}

// parseAnswer reads what the demo application says. Another server's answer tells nothing more than that it came.
func parseAnswer(line string) lab.Answerer {
	var a lab.Answerer
	for word := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "node":
			a.Node = value
		case "pid":
			a.PID, _ = strconv.Atoi(value)
		case "count":
			a.Count, _ = strconv.ParseInt(value, 10, 64)
		case "echo":
			return a
		}
	}
	return a
}
