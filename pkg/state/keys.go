package state

// Which certificates and gossip keys are good is decided in the log; the keys themselves never enter it.
//
// Each certificate that is made by a decision of the log carries the index of that decision as its number, so that of two
// certificates of one name the later one has the higher number, for ever. The log keeps one number for each name, its floor:
// certificates below it are void. A floor and not a list of serial numbers, because it is bounded by the number of names; and a
// floor and not the number of the one good certificate, because a node that was away and knows an older log must go on to take
// certificates that are newer than what it knows, or nobody could ever bring it the newer log.
//
// Safety. Nothing here touches a lease, a vote or an instance. A floor rises only by the node's own word that it uses the newer
// certificate, by its admission under a new server id, and by its removal from the definition (which unsafeDefinition refuses
// while it may hold anything): so it never shuts out the certificate by which a living member speaks. A node that it does shut
// out (a restored image, a copied disk) is to the cluster a node that is silent: its lease runs out as any other's does.

// Certs is what the log knows of certificates.
type Certs struct {
	// Floors by name: certificates of that name with a lower number are refused. Names of removed nodes stay.
	Floors map[string]uint64 `json:"floors,omitempty"`
	// Wanted by node: it shall make itself a certificate with this number. Gone when it has.
	Wanted map[string]uint64 `json:"wanted,omitempty"`
}

// RenewCerts makes nodes renew their certificates, each by itself and one after another; empty Nodes means all. A node that is
// away renews when it is back.
type RenewCerts struct {
	Nodes []string `json:"nodes,omitempty"`
}

// CertInUse is a node's word that it stores and uses the certificate of this number: older ones of its name are void.
type CertInUse struct {
	Node   string `json:"node"`
	Number uint64 `json:"number"`
}

// KeyStep is a step of the rotation of a key.
type KeyStep string

// The steps, in their order. Between two of them every living node has taken the one before.
const (
	KeyAdd    KeyStep = "add"    // a new key, whose number is the entry's index, is understood beside the old one
	KeyUse    KeyStep = "use"    // the new key is sent with; the old one is still understood
	KeyRemove KeyStep = "remove" // the old key is forgotten
)

// GossipKey is one step of the rotation of the gossip key. Key names the key of the step use or remove.
type GossipKey struct {
	Step KeyStep `json:"step"`
	Key  uint64  `json:"key,omitempty"`
}

// CertFloor is the lowest number of a certificate of the name that is good.
func (s *State) CertFloor(name string) uint64 {
	if s.Certs == nil {
		return 0
	}
	return s.Certs.Floors[name]
}

// CertWanted is the number of the certificate that the node shall make itself; 0: none.
func (s *State) CertWanted(node string) uint64 {
	if s.Certs == nil {
		return 0
	}
	return s.Certs.Wanted[node]
}

// GossipKeyNumbers are the gossip keys in force, the one to send with first.
func (s *State) GossipKeyNumbers() []uint64 {
	if len(s.GossipKeys) == 0 {
		return []uint64{0}
	}
	return s.GossipKeys
}

// NextGossipStep is the step that a rotation which has begun needs next; nil if none is under way.
func (s *State) NextGossipStep() *GossipKey {
	switch k := s.GossipKeyNumbers(); {
	case len(k) < 2:
		return nil
	case k[1] > k[0]:
		return &GossipKey{Step: KeyUse, Key: k[1]}
	default:
		return &GossipKey{Step: KeyRemove, Key: k[1]}
	}
}

// certs returns what is known of certificates for writing.
func (t *tx) certs() *Certs {
	if t.ownCerts {
		return t.s.Certs
	}
	c := &Certs{}
	if old := t.s.Certs; old != nil {
		*c = *old
	}
	c.Floors, c.Wanted = copyMap(c.Floors), copyMap(c.Wanted)
	t.s.Certs, t.ownCerts = c, true
	return c
}

func (t *tx) renewCerts(c *RenewCerts) {
	nodes := c.Nodes
	if len(nodes) == 0 {
		nodes = t.s.NodeNames()
	}
	for _, n := range nodes {
		if t.s.Nodes[n] == nil {
			t.refuse("there is no node %s in the definition", n)
			return
		}
	}
	w := t.certs()
	for _, n := range nodes {
		w.Wanted[n] = t.e.Index
	}
	t.event(EventCertificate, "", "", "the certificates of %d nodes are being renewed, under number %d", len(nodes), t.e.Index)
}

func (t *tx) certInUse(c *CertInUse) {
	switch {
	case t.s.Nodes[c.Node] == nil:
		t.refuse("there is no node %s in the definition", c.Node)
		return
	case c.Number > t.e.Index:
		t.refuse("the certificate of node %s has the number %d, which no entry has given out", c.Node, c.Number)
		return
	case c.Number <= t.s.CertFloor(c.Node):
		return // it is known
	}
	w := t.certs()
	w.Floors[c.Node] = c.Number
	if w.Wanted[c.Node] <= c.Number {
		delete(w.Wanted, c.Node)
	}
	t.event(EventCertificate, c.Node, "", "node %s uses certificate %d; those before it are void", c.Node, c.Number)
}

// revoke makes the certificates of a removed node void for ever: a node that gets the name later has one of a higher number. While
// nothing was ever numbered there may be daemons that know nothing of this, and all must come to the same state.
func (t *tx) revoke(name string) {
	if t.s.Certs == nil {
		return
	}
	w := t.certs()
	w.Floors[name] = t.e.Index
	delete(w.Wanted, name)
}

func (t *tx) gossipKey(c *GossipKey) {
	keys := t.s.GossipKeyNumbers()
	next := t.s.NextGossipStep()
	switch {
	case c.Step == KeyAdd && next != nil:
		t.refuse("a rotation of the gossip key is under way: its next step is %s of key %d", next.Step, next.Key)
		return
	case c.Step == KeyAdd:
		t.s.GossipKeys = []uint64{keys[0], t.e.Index}
		t.event(EventGossipKey, "", "", "gossip key %d is added: it is understood beside key %d, which is still sent with", t.e.Index, keys[0])
		return
	case next == nil || *next != *c:
		t.refuse("step %q of gossip key %d is not the next one", c.Step, c.Key)
		return
	}
	if c.Step == KeyUse {
		t.s.GossipKeys = []uint64{keys[1], keys[0]}
		t.event(EventGossipKey, "", "", "gossip key %d is used; key %d is still understood", keys[1], keys[0])
		return
	}
	t.s.GossipKeys = []uint64{keys[0]}
	t.event(EventGossipKey, "", "", "gossip key %d is removed; key %d is the only one", keys[1], keys[0])
}

// checkKeys says what is wrong with a decoded state's gossip keys; empty if nothing.
func (s *State) checkKeys() string {
	if k := s.GossipKeys; len(k) > 2 || len(k) == 2 && k[0] == k[1] {
		return "there are more gossip keys than a rotation has"
	}
	return ""
}
