// Command clstat shows the cluster's state: once (-o), or live on the terminal.
//
// It is thin: of Holdfast it links the wire types and the client only. It shows what the daemon on this machine knows, says
// when that is old, and shows what is not known as unknown. It changes nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
)

const usage = `clstat [-a] [-o] [-c id | -n name] [-r seconds] [--socket path]
clstat -o json
  -a        ASCII: no attributes of the terminal are used
  -o        once: print the state and end; with json, all of it in JSON
  -c, -n    the cluster's id or name: an error if this node belongs to another
  -r        how often to ask again when nothing changes, in seconds (default 10); a change is shown at once
keys: f forward, b back, r refresh, q quit`

// options are what the command line says.
type options struct {
	once, json, ascii, help bool
	id, name, socket        string
	refresh                 time.Duration
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "clstat: %v\n%s\n", err, usage)
		return 2
	}
	if o.help {
		fmt.Fprintln(stdout, usage)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := client.New(o.socket)
	defer c.Close()
	if !o.once && !term.IsTerminal(int(os.Stdout.Fd())) {
		o.once = true
	}
	if o.once {
		err = showOnce(ctx, c, o, stdout)
	} else {
		err = showLive(ctx, c, o)
	}
	if err != nil {
		fmt.Fprintf(stderr, "clstat: %v\n", err)
		return 1
	}
	return 0
}

func parse(args []string) (options, error) {
	o := options{socket: client.Socket(), refresh: 10 * time.Second}
	value := func(i *int, flag string) (string, error) {
		if *i++; *i >= len(args) {
			return "", fmt.Errorf("%s needs a value", flag)
		}
		return args[*i], nil
	}
	for i := 0; i < len(args); i++ {
		var err error
		switch a := args[i]; a {
		case "-h", "--help":
			o.help = true
		case "-a":
			o.ascii = true
		case "-ao", "-oa":
			o.ascii, o.once = true, true
		case "-o":
			o.once = true
			if i+1 < len(args) && strings.EqualFold(args[i+1], "json") {
				o.json = true
				i++
			}
		case "-i": // PowerHA: choose among several clusters; a node has one
		case "-c":
			o.id, err = value(&i, a)
		case "-n":
			o.name, err = value(&i, a)
		case "--socket":
			o.socket, err = value(&i, a)
		case "-r":
			var v string
			if v, err = value(&i, a); err == nil {
				n, perr := strconv.ParseFloat(v, 64)
				if perr != nil || !(n > 0 && n <= 3600) {
					err = fmt.Errorf("-r %s: a number of seconds from above 0 to 3600", v)
				}
				o.refresh = time.Duration(n * float64(time.Second))
			}
		default:
			err = fmt.Errorf("%q is not understood", a)
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

// right reports whether the status is of the cluster that was asked for.
func (o options) right(st *api.Status) error {
	switch {
	case o.name != "" && o.name != st.Cluster.Name:
		return fmt.Errorf("this node belongs to the cluster %q, not to %q", st.Cluster.Name, o.name)
	case o.id != "" && o.id != strconv.FormatUint(st.Cluster.ID, 10) && o.id != st.Cluster.UUID:
		return fmt.Errorf("this node belongs to the cluster with the id %d, not %s", st.Cluster.ID, o.id)
	}
	return nil
}

func showOnce(ctx context.Context, c *client.Client, o options, w io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("the daemon did not answer within 15 s"))
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if err := o.right(&st); err != nil {
		return err
	}
	if o.json {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(st)
	}
	for _, l := range (view{status: &st, now: time.Now()}).lines() {
		fmt.Fprintln(w, l.text)
	}
	return nil
}
