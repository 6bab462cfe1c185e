package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// defaultNetwork is the name of the first network when none is said; PowerHA's discovery would call it so.
const defaultNetwork = "net_ether_01"

// addCluster founds a cluster.
func addCluster(ctx context.Context, s *session, t *target) error {
	c := api.CreateCluster{Name: t.name()}
	ttl, err := s.ttl()
	if err != nil {
		return err
	}
	c.TTL = ttl.Seconds()
	if name, ok := s.take("FILE"); ok {
		err = s.clusterFromFile(&c, name)
	} else {
		err = s.clusterFromNodes(ctx, &c)
	}
	if err != nil {
		return err
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	reply, err := s.client.CreateCluster(ctx, c)
	if err != nil {
		return err
	}
	what := "add cluster " + c.Name
	if reply.Refused != "" {
		return fail(ExitFailed, "%s: refused: %s", what, reply.Refused)
	}
	if !s.noWait {
		if _, err := s.await(ctx, what, reply.Reply, goal{missing: func(st *api.Status) []string {
			if st.Cluster.Leader == "" {
				return []string{"a leader"}
			}
			return unseen(st)
		}}); err != nil {
			return err
		}
	}
	if s.form == formJSON {
		return writeJSON(s.out, reply)
	}
	for _, w := range reply.Warnings {
		s.warn("%s", w)
	}
	fmt.Fprintf(s.out, "cluster %s is founded (%s); this node is its first member\n", c.Name, reply.UUID)
	for _, tok := range reply.Tokens {
		s.printToken(tok)
	}
	return nil
}

func (s *session) ttl() (time.Duration, error) {
	v, ok := s.take("TTL")
	if !ok {
		return 0, nil
	}
	d, err := cluster.ParseSeconds(v)
	if err != nil || d <= 0 {
		return 0, fail(ExitIncorrect, "TTL=%s: it must be a time above 0 (a number of seconds, or as 90s, 2h)", v)
	}
	return d, nil
}

func (s *session) clusterFromFile(c *api.CreateCluster, name string) error {
	if len(s.set) > 0 {
		return fail(ExitIncorrect, "add cluster: FILE says all; %s cannot stand beside it", s.set[0].Attribute)
	}
	text, err := s.readFile(name)
	if err != nil {
		return err
	}
	d, faults := decode(text.File, []byte(text.YAML))
	if len(faults) > 0 {
		return unusable(faults)
	}
	if c.Name != "" && c.Name != d.Name {
		return fail(ExitIncorrect, "add cluster %s: the file %s calls it %s", c.Name, text.File, d.Name)
	}
	c.Name, c.YAML, c.File = d.Name, text.YAML, text.File
	return nil
}

func (s *session) clusterFromNodes(ctx context.Context, c *api.CreateCluster) error {
	if c.Name == "" {
		return fail(ExitMissing, "add cluster needs a name, or FILE=cluster.yaml")
	}
	var names []string
	if v, ok := s.take("NODES"); ok {
		if names = cluster.SplitList(v); len(names) == 0 {
			return fail(ExitMissing, "NODES= names no node")
		}
	}
	if len(names) == 0 {
		host, err := os.Hostname()
		if err != nil {
			return fail(ExitMissing, "NODES=... is needed: this machine's name cannot be read: %w", err)
		}
		host, _, _ = strings.Cut(host, ".")
		names = []string{host}
	}
	given, _ := s.take("ADDRESSES")
	addresses, err := seedAddresses(given, names)
	if err != nil {
		return err
	}
	for _, n := range names {
		a := addresses[n]
		if a == nil && len(names) > 1 {
			if a, err = resolve(ctx, n); err != nil {
				return err
			}
		}
		c.Nodes = append(c.Nodes, api.Seed{Name: n, Addresses: a})
	}
	c.Node = names[0]
	return nil
}

// seedAddresses reads node:network:address/prefix or node:address/prefix, and for a single node network:address/prefix or just
// an address.
func seedAddresses(text string, names []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, p := range cluster.SplitList(text) {
		node, rest, ok := strings.Cut(p, ":")
		if !contains(names, node) {
			if len(names) != 1 {
				return nil, fail(ExitIncorrect, "ADDRESSES=%s: %q is none of the nodes %s", text, node, strings.Join(names, ", "))
			}
			node, rest, ok = names[0], p, true
		}
		if !ok {
			return nil, fail(ExitIncorrect, "ADDRESSES=%s: %q is not of the form node:network:address/prefix", text, p)
		}
		network, address := defaultNetwork, rest
		if !isAddress(rest) {
			network, address, _ = strings.Cut(rest, ":")
		}
		if !isAddress(address) || network == "" {
			return nil, fail(ExitIncorrect, "ADDRESSES=%s: %q is not an address (as 10.1.1.1/24 or fd00::1/64)", text, address)
		}
		if out[node] == nil {
			out[node] = map[string]string{}
		}
		if out[node][network] != "" {
			return nil, fail(ExitIncorrect, "ADDRESSES=%s: node %s has two addresses on the network %s", text, node, network)
		}
		out[node][network] = address
	}
	return out, nil
}

func isAddress(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

// addNode puts a node into the definition and prints its token.
func addNode(ctx context.Context, s *session, t *target) error {
	if err := t.knownAttributes(s.set); err != nil {
		return err
	}
	what := "add node " + t.name()
	s.live = true // only a node of the active definition can get a token
	reply, err := s.edit(ctx, what, func(d *cluster.Definition) error { return t.class.Add(d, t.name(), s.set) })
	if err != nil {
		return err
	}
	if err := s.changedQuietly(ctx, what, reply); err != nil {
		return err
	}
	return s.newToken(ctx, t.name(), 0)
}

// changedQuietly waits as changed does, and leaves the last word to the caller.
func (s *session) changedQuietly(ctx context.Context, what string, reply api.Reply) error {
	quiet := *s
	c := *s.command
	c.form = formText
	quiet.command, quiet.out = &c, io.Discard
	return quiet.changed(ctx, what, reply, "")
}

func addToken(ctx context.Context, s *session, t *target) error {
	ttl, err := s.ttl()
	if err != nil {
		return err
	}
	if _, err := s.look(ctx, nil, []string{t.name()}); err != nil {
		return err
	}
	return s.newToken(ctx, t.name(), ttl)
}

func (s *session) newToken(ctx context.Context, node string, ttl time.Duration) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	tok, err := send(ctx, s, "token for node "+node, func(ctx context.Context) (api.JoinToken, error) {
		return s.client.NewToken(ctx, api.NewToken{Node: node, TTL: ttl.Seconds()})
	})
	if err != nil {
		return err
	}
	if s.form == formJSON {
		return writeJSON(s.out, tok)
	}
	s.printToken(tok)
	return nil
}

func (s *session) printToken(tok api.JoinToken) {
	life := ""
	if tok.Expires > 0 {
		life = " (within " + seconds(tok.Expires) + ", once)"
	}
	fmt.Fprintf(s.out, "on %s, as root%s:\n  clmgr join cluster TOKEN=%s\n", printable(tok.Node), life, printable(tok.Token))
}

func joinCluster(ctx context.Context, s *session, t *target) error {
	token, err := s.token()
	if err != nil {
		return err
	}
	j := api.Join{Token: token}
	if v, ok := s.take("ADDRESS"); ok {
		j.Addresses = cluster.SplitList(v)
	}
	j.Node, _ = s.take("NODE")
	ctx, cancel := s.limited(ctx)
	defer cancel()
	reply, err := s.client.Join(ctx, j)
	if err != nil {
		return err
	}
	return s.finish(ctx, t.what(), reply, goal{
		missing: func(st *api.Status) []string {
			switch {
			case st.Cluster.State == api.ClusterNotConfigured:
				return []string{"this node is not yet a member"}
			case st.Cluster.Leader == "":
				return []string{"a leader"}
			}
			return unseen(st)
		},
		done: func(st *api.Status) string {
			return fmt.Sprintf("%s is a member of cluster %s, which %s leads", st.Cluster.LocalNode, st.Cluster.Name, st.Cluster.Leader)
		},
	})
}

// unseen waits until the log knows this node's boot: before that its cluster services cannot be started.
func unseen(st *api.Status) []string {
	if n := st.Node(st.Cluster.LocalNode); n != nil && n.Incarnation == 0 {
		return []string{n.Name + " has not introduced itself to the cluster yet"}
	}
	return nil
}

// token finds the join token: given, in a file, on standard input, or asked for. On the command line other users of the machine
// can see it; it is good once and not for long, and the other ways are there.
func (s *session) token() (string, error) {
	v, given := s.take("TOKEN")
	file, inFile := s.take("TOKEN_FILE")
	switch {
	case given && inFile:
		return "", fail(ExitIncorrect, "join cluster: TOKEN and TOKEN_FILE are both given")
	case inFile:
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fail(ExitNotFound, "%w", err)
		}
		v = string(b)
	case given && v == "-":
		v = readLine(s.env.Stdin)
	case !given && s.env.Terminal:
		fmt.Fprint(s.env.Stderr, "token: ")
		v = readLine(s.env.Stdin)
	}
	if v = strings.TrimSpace(v); v == "" {
		return "", fail(ExitMissing, "join cluster needs TOKEN=token (clmgr add node NAME, on a member, prints one)")
	}
	return v, nil
}

// deleteCluster takes this node out of its cluster.
func deleteCluster(ctx context.Context, s *session, t *target) error {
	st, err := s.look(ctx, nil, nil)
	if err != nil {
		return err
	}
	if t.name() != "" && t.name() != st.Cluster.Name {
		return fail(ExitNotFound, "there is no cluster %q here: this node belongs to %q", t.name(), st.Cluster.Name)
	}
	if err := s.sure(fmt.Sprintf("%s leaves the cluster %s and forgets it: its identity, its copy of the state and of the definition.",
		st.Cluster.LocalNode, st.Cluster.Name), t.what()); err != nil {
		return err
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	reply, err := s.client.Leave(ctx)
	if err != nil {
		return err
	}
	reply.Index = 0 // of the log that this node no longer has
	return s.finish(ctx, t.what(), reply, goal{
		missing: func(st *api.Status) []string {
			if st.Cluster.State != api.ClusterNotConfigured {
				return []string{"this node is still a member"}
			}
			return nil
		},
		done: func(*api.Status) string { return "this node belongs to no cluster" },
	})
}
