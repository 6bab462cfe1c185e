package cli

import (
	"fmt"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A foreignWord is an action or a class of PowerHA that does not exist here, or only with other actions.
type foreignWord struct {
	name    string
	aliases []string
	why     string // what to do instead, or that it is not there yet
}

var foreignActions = []foreignWord{
	{"discover", []string{"di"}, "nothing has to be discovered: a node's addresses stand in its ADDRESSES"},
	{"recover", nil, "clmgr clear resource_group RG lets the cluster try again what has failed"},
	{"reset", nil, "there are no locks that could be left behind; staged changes are dropped by clmgr undo"},
	{"unlock", nil, "there are no locks that could be left behind; staged changes are dropped by clmgr undo"},
	{"copy", nil, "clmgr export, edit the file, clmgr apply -f FILE"},
	{"restore", nil, "clmgr manage snapshot restore NAME"},
}

// foreignClasses has classes that do not exist here with any action, and, below, those that exist with other actions only.
var foreignClasses = []foreignWord{
	{"site", []string{"st"}, "sites are not managed yet; a node's SITE says where it stands"},
	{"interface", []string{"in", "if"}, "interfaces follow from the nodes' ADDRESSES; cllsif and clmgr query node show them"},
	{"tape", []string{"tp"}, "tapes are no resource here"},
	{"report", []string{"re"}, "cldisp, cldump, clshowres and clmgr -v query CLASS show what a report does"},
	{"logical_volume", []string{"lv"}, "logical volumes are made with the system's own commands (mklv, lvcreate)"},
	{"physical_volume", []string{"pv", "disk"}, "disks are listed by the system's own commands (lspv, lsblk)"},
	{"mirror_pool", []string{"mp"}, "mirror pools are made with the system's own commands"},
	{"mirror_group", []string{"mg"}, "storage replication is not driven yet"},
	{"storage_agent", nil, "storage replication is not driven yet"},
	{"storage_system", nil, "storage replication is not driven yet"},
	{"user", []string{"ur"}, "users are kept by the system's own commands, or a directory service"},
	{"group", []string{"gp"}, "groups of users are kept by the system's own commands; a resource group is resource_group (rg)"},
	{"ldap_server", nil, "directory services are left to the system"},
	{"ldap_client", nil, "directory services are left to the system"},
	{"efs", nil, "encrypted file systems are left to the system"},
	{"hmc", nil, "processor and memory are not moved between partitions"},
	{"cod", nil, "processor and memory are not moved between partitions"},
	{"roha", nil, "processor and memory are not moved between partitions"},
	{"smart_assist", nil, "use an agent of the application: AGENT=ocf:heartbeat:NAME in an application_controller"},
	{"option", nil, "there are no options beside the cluster's attributes"},
	{"security", nil, "the nodes always speak TLS 1.3 with certificates of the cluster's own authority"},
}

// foreignOperations are an action and a class that PowerHA has, where here the action does not take the class.
var foreignOperations = []struct{ action, class, why string }{
	{"move", "service_ip", "an address moves with its group, and is moved to another interface by INTERFACE= of the service_ip"},
	{"move", "persistent_ip", "delete it and add it on the other node"},
	{"manage", "cluster", "nothing has to be discovered, there are no locks, and TLS is always on"},
	{"manage", "node", "clmgr clear node NODE ends a quarantine; online and offline start and stop services"},
	{"manage", "network", "nothing has to be discovered"},
	{"manage", "log", "collecting logs is not there yet: they are below one directory on each node (clmgr view log)"},
	{"manage", "logs", "collecting logs is not there yet: they are below one directory on each node (clmgr view log)"},
	{"manage", "application_controller", "clmgr suspend resource_group RG: the cluster then watches and does not touch it"},
	{"manage", "application_monitor", "clmgr suspend resource_group RG: the cluster then watches and does not touch it"},
	{"modify", "log", "the logs' directory and level stand in each node's own file, node.yaml"},
	{"modify", "snapshot", "a snapshot stays as it was taken: add another, and delete this one"},
	{"delete", "event", "the history is bounded by itself"},
	{"view", "report", "cldisp, cldump, clshowres and clmgr -v query CLASS show what a report does"},
	{"online", "site", "sites are not managed yet"},
	{"offline", "site", "sites are not managed yet"},
	{"query", "log", "clmgr view log lists them"},
}

func findForeign(list []foreignWord, word string) *foreignWord {
	w := strings.ToLower(word)
	for i := range list {
		if list[i].name == w || hasWord(list[i].aliases, w) {
			return &list[i]
		}
	}
	return nil
}

// foreignClass refuses a class that PowerHA has; nil: it has none such either.
func foreignClass(a *action, word string) error {
	w := strings.ToLower(word)
	for _, o := range foreignOperations {
		if o.action == a.name && (o.class == w || sameClass(o.class, w)) {
			return fail(ExitNotFound, "%s %s is PowerHA's: %s", a.name, o.class, o.why)
		}
	}
	if f := findForeign(foreignClasses, word); f != nil {
		return fail(ExitNotFound, "the class %s is PowerHA's: %s", f.name, f.why)
	}
	return nil
}

// sameClass reports whether the word is an alias of the class, which may be one of the tables' own.
func sameClass(class, word string) bool {
	if c := classNamed(class); c != nil && hasWord(c.Aliases, word) {
		return true
	}
	for i := range actionTable {
		for _, o := range actionTable[i].operations {
			if o.class == class && hasWord(o.aliases, word) {
				return true
			}
		}
	}
	f := findForeign(foreignClasses, word)
	return f != nil && f.name == class
}

// plural are arguments whose name PowerHA has in the plural.
var plural = map[string]string{"NODES": "NODE"}

// foreignAttributes drops what PowerHA's scripts say and what has no effect here, with a notice for each, and refuses what cannot be
// left out. Conditions of a query are no settings, and stay.
func (s *session) foreignAttributes(t *target) error {
	if t.action.name == "query" {
		return nil
	}
	class := t.operation.class
	if t.class != nil {
		class = t.class.Name
	}
	keep := s.set[:0:0]
	for _, a := range s.set {
		if one, ok := plural[strings.ToUpper(a.Attribute)]; ok && !t.knows(a.Attribute) && t.knows(one) {
			a.Attribute = one
		}
		f := cluster.FindForeign(a.Attribute, class, t.action.name)
		switch {
		case f == nil || t.knows(a.Attribute):
			keep = append(keep, a)
		case f.Takes(a.Value):
			s.foreign++
			s.notice("%s: %s has no effect: %s", t.what(), f.Name, f.Why)
		case f.Taken:
			return fail(ExitIncorrect, "%s: %s=%s: %s", t.what(), f.Name, printable(a.Value), f.Refusal(a.Value))
		default:
			return fail(ExitNotFound, "%s: %s", t.what(), f.Refusal(a.Value))
		}
	}
	s.set = keep
	return nil
}

// knows reports whether the operation takes the attribute.
func (t *target) knows(attr string) bool {
	if t.setsAttributes() && t.class != nil && (t.class.Attribute(attr) != nil || strings.EqualFold(attr, "NAME")) {
		return true
	}
	for _, a := range t.operation.attrs {
		if strings.EqualFold(a.name, attr) {
			return true
		}
	}
	return false
}

// notice tells something that a person should know and a program need not.
func (s *session) notice(format string, args ...any) {
	fmt.Fprintln(s.env.Stderr, "NOTICE: "+printable(fmt.Sprintf(format, args...)))
}

// idleOptions tells of options that were given and change nothing here: PowerHA's forms of output are a query's.
func (s *session) idleOptions(t *target) {
	lists := t.action.name == "query" && t.operation.class != "status" || t.action.name == "view" && t.operation.class == "log" && t.name() == ""
	idle := func(option, why string) { s.notice("%s: %s has no effect: %s", t.what(), option, why) }
	const forms = "it is a form of queries; -o json and -o yaml work everywhere"
	switch {
	case !lists && s.form == formColon:
		idle("-c (or -d)", forms)
	case !lists && s.form == formXML:
		idle("-x", forms)
	case s.noHeader && s.form != formColon:
		idle("-S", "it goes with -c or -d")
	}
	records := t.class != nil || t.operation.class == "snapshot"
	if len(s.attrs) > 0 && (!lists || s.form == formJSON && !records) {
		idle("-a", "it chooses attributes of objects that are queried")
	}
}
