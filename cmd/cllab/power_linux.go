package main

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lab"
)

// The lab's power switch cuts and gives power to nodes. From inside a node it is reached through a socket, one line per
// connection: "off NODE", "on NODE", "status NODE" or "list". The answer is one line: "ok", "on", "off", names, or
// "error ...". It is not on any of the lab's networks: a node that is cut off still reaches it, unless told otherwise.
type powerSwitch struct {
	sup *supervisor

	mu          sync.Mutex
	delay       time.Duration
	unreachable map[string]bool // from these nodes; "" means all
}

func newPowerSwitch(s *supervisor) *powerSwitch {
	return &powerSwitch{sup: s, delay: s.cfg.FenceDelay, unreachable: map[string]bool{}}
}

func (p *powerSwitch) configure(req lab.Request) error {
	if req.Node != "" {
		if _, err := p.sup.node(req.Node); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if req.Delay != nil {
		p.delay = max(*req.Delay, 0)
	}
	switch {
	case req.Unreachable == nil:
	case *req.Unreachable:
		p.unreachable[req.Node] = true
	case req.Node == "":
		p.unreachable = map[string]bool{}
	default:
		delete(p.unreachable, req.Node)
	}
	return nil
}

func (p *powerSwitch) unreachableFrom() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for n := range p.unreachable {
		if n == "" {
			n = "all"
		}
		list = append(list, n)
	}
	sort.Strings(list)
	return list
}

func (p *powerSwitch) settings(from string) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay, p.unreachable[""] || p.unreachable[from]
}

// listen makes the way to the switch from a node that is booting.
func (p *powerSwitch) listen(n *node, dir string) error {
	l, err := listenStream(filepath.Join(dir, "power.sock"), 0o600)
	if err != nil {
		return fmt.Errorf("make the way from %s to the power switch: %w", n.name, err)
	}
	n.mu.Lock()
	old := n.powerWay
	n.powerWay = l
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn, n.name)
		}
	}()
	return nil
}

// serve answers one order. A switch that cannot be reached takes the connection and stays silent, as a dead device behind a
// living network does: the caller's timeout must end it.
func (p *powerSwitch) serve(conn net.Conn, from string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	line, err := bufio.NewReaderSize(conn, 256).ReadString('\n')
	if err != nil {
		return
	}
	delay, unreachable := p.settings(from)
	if unreachable {
		var b [1]byte
		_, _ = conn.Read(b[:]) // until the caller gives up
		return
	}
	if delay > 0 {
		time.Sleep(delay)
	}
	fmt.Fprintln(conn, p.order(strings.Fields(line), from))
}

func (p *powerSwitch) order(words []string, from string) string {
	if len(words) == 1 && words[0] == "list" {
		return strings.Join(p.sup.cfg.NodeNames(), " ")
	}
	if len(words) != 2 {
		return "error want: off NODE, on NODE, status NODE or list"
	}
	n, err := p.sup.node(words[1])
	if err != nil {
		return "error " + err.Error()
	}
	switch words[0] {
	case "off":
		err = n.powerOff("fenced by " + from)
	case "on":
		err = n.powerOn("by " + from)
	case "status":
		if n.poweredOn() {
			return "on"
		}
		return "off"
	default:
		return "error order " + words[0] + " is not known"
	}
	if err != nil {
		return "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return "ok"
}
