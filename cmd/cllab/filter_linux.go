package main

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A oneWayFilter drops frames in one direction of a port, with nftables rules of the bridge family in the switch's namespace.
// The whole table is written anew at each change, in one transaction. Frames from a node are dropped before the bridge learns
// the sender's address from them.
type oneWayFilter struct {
	in, out map[string]bool // port -> drop what goes to the node, what comes from it
}

// set says which directions of a port are dropped. Nothing is asked of the kernel as long as nothing ever was to be dropped.
func (f *oneWayFilter) set(port string, in, out bool) error {
	if f.in[port] == in && f.out[port] == out {
		return nil
	}
	next := oneWayFilter{in: with(f.in, port, in), out: with(f.out, port, out)}
	if err := next.write(); err != nil {
		return fmt.Errorf("write nftables rules (the kernel needs CONFIG_NF_TABLES_BRIDGE): %w", err)
	}
	*f = next
	return nil
}

func with(m map[string]bool, key string, value bool) map[string]bool {
	n := map[string]bool{key: value}
	for k, v := range m {
		if k != key {
			n[k] = v
		}
	}
	return n
}

func (f *oneWayFilter) write() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "cllab"}
	c.AddTable(t) // so that the deletion finds one
	c.DelTable(t)
	c.AddTable(t)
	from := c.AddChain(&nftables.Chain{Table: t, Name: "from_node", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter})
	to := c.AddChain(&nftables.Chain{Table: t, Name: "to_node", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter})
	addDrops(c, t, from, expr.MetaKeyIIFNAME, f.out)
	addDrops(c, t, to, expr.MetaKeyOIFNAME, f.in)
	return c.Flush()
}

func addDrops(c *nftables.Conn, t *nftables.Table, chain *nftables.Chain, key expr.MetaKey, ports map[string]bool) {
	for port, drop := range ports {
		if !drop {
			continue
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, port)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
}
