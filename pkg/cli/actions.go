package cli

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// An action is the first word of a command line. Its operations say which classes it takes.
type action struct {
	name    string
	aliases []string
	doc     string
	// operations are the classes with something of their own; anyClass handles every class of the definition besides.
	operations []operation
	anyClass   *operation
	// bare handles an action without a class (export, explain GROUP). All words that follow are its names.
	bare *operation
}

// An operation is what an action does with a class.
type operation struct {
	class   string   // canonical word; for anyClass and bare empty
	aliases []string // for classes that the definition does not have
	usage   string   // what follows the class
	doc     string
	attrs   []argument
	options []argument // one-letter options of its own
	names   arity
	run     func(ctx context.Context, s *session, t *target) error
}

// An argument is one ATTR=VALUE or option that an operation takes and that is no attribute of the class.
type argument struct {
	name   string
	values string // what may stand after '='
	doc    string
}

// arity says how many names an operation takes.
type arity int

const (
	namesNone arity = iota
	namesOptional
	namesOne     // exactly one
	namesList    // one word with a list: RG[,RG]
	namesListOpt // such a list or nothing
	namesUpToTwo // one or two words
	namesAll     // as many as there are
)

// A target is what one command acts on.
type target struct {
	action    *action
	operation *operation
	class     *cluster.Class // nil for the tables' own classes
	names     []string
}

// name is the only name, or "".
func (t *target) name() string {
	if len(t.names) == 0 {
		return ""
	}
	return t.names[0]
}

var timeoutAttr = argument{"TIMEOUT", "SECONDS", "how long to wait for the effect; 0: as long as it takes (default 360)"}

// actionTable is the table from which the parser, help and completion are made. It is filled by init, because operations refer
// back to it through help, which the compiler takes for a cycle.
var actionTable []action

func init() {
	nodeList := argument{"NODES", "node[,node]", "only these nodes"}
	actionTable = []action{
		{name: "add", aliases: []string{"a", "create", "make", "mk"}, doc: "define an object", anyClass: &operation{
			usage: "NAME ATTR=VALUE ...", names: namesOptional, doc: "define an object; the change is one log entry and active at once", run: addObject},
			operations: []operation{
				{class: "cluster", usage: "[NAME] [NODES=...] [ADDRESSES=...] | FILE=cluster.yaml", names: namesOptional, run: addCluster,
					doc: "found a cluster with this node as its first member, and print a join token for each other node",
					attrs: []argument{
						{"NODES", "node[,node]", "the nodes; the first is this one (default: this node alone, by its host name)"},
						{"ADDRESSES", "node:network:address/prefix,...", "their addresses; where none is given the name is resolved here. " +
							"With one node: network:address/prefix"},
						{"FILE", "path", "a whole cluster file (YAML) instead"},
						{"TTL", "SECONDS", "how long the join tokens hold"},
					}},
				{class: "node", usage: "NAME ADDRESS=network:address/prefix ...", names: namesOne, run: addNode,
					doc: "add a node to the definition and print the one-time token with which it joins (clmgr join cluster TOKEN=..., there)"},
				{class: "repository", aliases: []string{"rp", "repo"}, usage: "NAME DEVICE=path | PATH[,PATH] | hdiskN[,hdiskN]", names: namesList, run: addRepositories,
					doc: "name one volume, or several by their paths or disks, which gives each the last part of its path for a name. Nothing is written to it: format " +
						"repository does that, and the first that is formatted is used, the others are its backups"},
				{class: "snapshot", aliases: snapshotWords, usage: "NAME [DESCRIPTION=text] [FILE=path]", names: namesOne, run: addSnapshot,
					doc:   "keep the active definition under a name, on all nodes; with FILE= a cluster file, or what can be taken from PowerHA's own snapshot (.odm)",
					attrs: []argument{{"DESCRIPTION", "text", "up to 255 bytes"}, {"FILE", "path", "a cluster file or an .odm file instead of the active definition"}}},
				{class: "token", usage: "NODE", names: namesOne, run: addToken, doc: "print a new one-time token for a node that is in the definition",
					attrs: []argument{{"TTL", "SECONDS", "how long it holds"}}},
			}},
		{name: "query", aliases: []string{"q", "ls", "get", "list", "show"}, doc: "show objects and their state", anyClass: &operation{
			usage: "[NAME[,NAME]] [ATTR=VALUE ...]", names: namesListOpt, run: queryObjects,
			doc: "without a name: the names, or with -v, -a or conditions the objects; ATTR=VALUE keeps those that match"},
			operations: []operation{
				{class: "event", aliases: []string{"events", "ev"}, names: namesNone, run: queryEvents, doc: "the cluster's history, oldest first",
					attrs: []argument{{"TAIL", "n", "the last n (default 100)"}, {"SINCE", "id", "only those after this id"}, {"NODE", "node", "only of this node"},
						{"GROUP", "group", "only of this group"}, {"KIND", "name", "as node_down"},
						{"FOLLOW", "yes|no", "go on with what comes, until interrupted; -o json is then one object a line (default no)"}}},
				{class: "snapshot", aliases: snapshotWords, usage: "[NAME[,NAME]]", names: namesListOpt, run: querySnapshots,
					doc: "the kept definitions and where they are; those that begin with auto. the cluster took by itself before a change"},
				{class: "lock", aliases: []string{"locks"}, usage: "[NAME[,NAME]]", names: namesListOpt, run: queryLocks,
					doc: "the cluster's locks: who holds them with which token, and who waits in which order"},
				{class: "audit", names: namesNone, run: queryAudit, doc: "who asked for which change on which node, and what became of it; refused attempts too",
					attrs: []argument{{"TAIL", "n", "the last n (default 100)"}, {"USER", "name", "only what this user asked for"}, {"NODE", "node", "only what was asked there"}, {"RESULT", "word", "as done, refused, forbidden"}}},
				{class: "status", names: namesNone, run: queryStatus, doc: "everything that this node knows of the cluster (best with -o json)"},
			}},
		{name: "modify", aliases: []string{"mod", "ch", "change"}, doc: "change an object", anyClass: &operation{
			usage: "NAME ATTR=VALUE ...", names: namesOptional, doc: "change attributes; ATTR= returns one to its default, NAME=new renames", run: modifyObject}},
		{name: "delete", aliases: []string{"del", "rm", "remove", "er", "erase"}, doc: "remove an object", anyClass: &operation{
			usage: "NAME[,NAME]", names: namesListOpt, doc: "remove objects; with -f also what refers to them", run: deleteObjects},
			operations: []operation{
				{class: "cluster", usage: "[NAME]", names: namesOptional, run: deleteCluster,
					doc: "take this node out of its cluster; on the last node the cluster is gone (needs -f)"},
				{class: "snapshot", aliases: snapshotWords, usage: "NAME[,NAME]", names: namesList, run: deleteSnapshots, doc: "remove snapshots from all nodes"},
			}},
		{name: "online", aliases: []string{"start", "on"}, doc: "start cluster services, bring groups online", operations: []operation{
			{class: "cluster", usage: "[NAME]", names: namesOptional, run: startServices, doc: "start cluster services on all nodes",
				attrs: startAttrs(nodeList), options: startOptions},
			{class: "node", usage: "NODE[,NODE]", names: namesList, run: startServices, doc: "start cluster services on nodes",
				attrs: startAttrs(), options: startOptions},
			{class: "resource_group", usage: "RG[,RG] [NODE=node]", names: namesList, run: onlineGroups,
				doc: "bring groups online; or, with --break-glass, start one on this node without the cluster",
				attrs: []argument{{"NODE", "node", "there; it becomes their first priority"}, timeoutAttr,
					{"CONFIRM", "\"RG NODE...\"", "with --break-glass, in a script: the group, and every other node of the cluster, which you declare dead"}},
				options: []argument{{breakGlass, "", "on a node where no cluster services run: look at everything, ask, and start the group by hand. " +
					"Nothing guards it then; see docs/break-glass.md"},
					{"f", "FILE", "with --break-glass: go by this cluster file, and not by what this node knew last"}}},
		}},
		{name: "offline", aliases: []string{"stop", "off"}, doc: "stop cluster services, bring groups offline", operations: []operation{
			{class: "cluster", usage: "[NAME]", names: namesOptional, run: stopServices, doc: "stop cluster services on all nodes",
				attrs: stopAttrs(nodeList), options: stopOptions},
			{class: "node", usage: "NODE[,NODE]", names: namesList, run: stopServices, doc: "stop cluster services on nodes",
				attrs: stopAttrs(), options: stopOptions},
			{class: "resource_group", usage: "RG[,RG] [NODE=node]", names: namesList, run: offlineGroups, doc: "bring groups offline",
				attrs:   []argument{{"NODE", "node", "only there (for groups that run on several nodes)"}, timeoutAttr},
				options: []argument{{breakGlass, "", "release what start ... --break-glass has started on this node, in reverse order"}}},
		}},
		{name: "move", aliases: []string{"mv"}, doc: "move groups", operations: []operation{
			{class: "resource_group", usage: "RG[,RG] NODE=node", names: namesList, run: moveGroups,
				doc:   "move groups to a node, which becomes their first priority until: clmgr unset priority RG",
				attrs: []argument{{"NODE", "node", "where to"}, timeoutAttr}},
		}},
		{name: "set", doc: "set a policy of a group; with any other class: modify", operations: []operation{
			{class: "failover", aliases: []string{"fallover"}, usage: "-g RG -m MODE", names: namesNone, run: setFallover, doc: "where a group goes when its node fails",
				options: []argument{{"g", "RG[,RG]", "the groups"}, {"m", strings.Join(modes(falloverModes), "|"), modeHelp(falloverModes)},
					{"p", "mem|cpu|disk", "with -m dynamic: what the node is chosen by (default cpu)"}}},
			{class: "fallback", usage: "-g RG -m MODE", names: namesNone, run: setFallback, doc: "whether a group returns when a better node comes back",
				options: []argument{{"g", "RG[,RG]", "the groups"}, {"m", strings.Join(modes(fallbackModes), "|"), modeHelp(fallbackModes)}}},
			{class: "startup", usage: "-g RG -m MODE", names: namesNone, run: setStartup, doc: "where a group comes online when the cluster starts",
				options: []argument{{"g", "RG[,RG]", "the groups"}, {"m", strings.Join(modes(startupModes), "|"), modeHelp(startupModes)}}},
		}, anyClass: &operation{usage: "NAME ATTR=VALUE ...", names: namesOptional, doc: "the same as modify", run: modifyObject}},
		{name: "unset", doc: "forget an operator's setting", operations: []operation{
			{class: "priority", usage: "RG[,RG] | -g RG", names: namesListOpt, run: unsetPriority, doc: "forget where the operator has placed the groups",
				options: []argument{{"g", "RG[,RG]", "the groups"}}, attrs: []argument{timeoutAttr}},
		}},
		{name: "clear", doc: "clear errors", operations: []operation{
			{class: "resource_group", usage: "RG[,RG]", names: namesList, run: clearGroups, attrs: []argument{timeoutAttr},
				doc: "forget ERROR, failures and nodes tried in vain, and let the cluster try again"},
			{class: "node", usage: "NODE", names: namesOne, run: clearNode, attrs: []argument{timeoutAttr}, doc: "end a node's quarantine"},
		}},
		{name: "suspend", doc: "per-group maintenance", operations: []operation{
			{class: "resource_group", usage: "RG[,RG]", names: namesList, run: suspendGroups, attrs: []argument{timeoutAttr},
				doc: "the cluster watches the groups and does not touch them"}}},
		{name: "resume", doc: "end of per-group maintenance", operations: []operation{
			{class: "resource_group", usage: "RG[,RG]", names: namesList, run: resumeGroups, attrs: []argument{timeoutAttr},
				doc: "the groups are planned again, as things then are"}}},
		{name: "unmanage", doc: "leave groups running outside the cluster's care", operations: []operation{
			{class: "resource_group", usage: "RG[,RG]", names: namesList, run: unmanageGroups, attrs: []argument{timeoutAttr},
				doc: "the groups run on, unwatched, and are not taken over"}}},
		{name: "manage", aliases: []string{"mg"}, doc: "take groups back, restore snapshots", operations: []operation{
			{class: "snapshot", aliases: snapshotWords, usage: "restore NAME [CONFIGURE=no] [FORCE=yes]", names: namesUpToTwo, run: restoreSnapshot,
				doc: "make a kept definition the active one, live: verified on all nodes first, with the plan shown",
				attrs: []argument{{"CONFIGURE", "yes|no", "no: only show what it would do (default yes)"},
					{"FORCE", "yes|no", "go on although the verification finds errors (default no)"}, timeoutAttr}},
			{class: "resource_group", usage: "RG[,RG]", names: namesList, run: manageGroups, attrs: []argument{timeoutAttr},
				doc: "the cluster adopts what runs"}}},
		{name: "sync", aliases: []string{"sy"}, doc: "synchronise the definition", operations: []operation{
			{class: "cluster", usage: "[NAME] [VERIFY=yes] [FIX=yes] [FORCE=yes]", names: namesOptional, run: syncCluster,
				doc: "verify what is staged on all nodes and make it active, all of it in one log entry; refused when the verification finds an error " +
					"(FORCE=yes goes on). Where nothing is staged: verify the active definition",
				attrs: syncAttrs},
			{class: "file_collection", usage: "[NAME[,NAME]] [SOURCE=node] [NODES=node,...]", names: namesListOpt, run: syncCollections, attrs: collectionAttrs,
				doc: "bring the files of collections into step with the source's copy, on all their nodes; what was not done where is named"}}},
		{name: "verify", aliases: []string{"ve"}, doc: "verify the definition", operations: []operation{
			{class: "cluster", usage: "[NAME] [FIX=yes] [FILE=path] ...", names: namesOptional, run: verifyCluster,
				doc:   "look at all nodes and judge (clmgr help checks lists the checks); fails if there is an error that nobody has waived. -v shows remarks too",
				attrs: verifyAttrs},
			{class: "method", usage: "NAME[,NAME]", names: namesList, run: verifyMethod, doc: "run these methods of your own on their nodes, and nothing else"},
			{class: "file_collection", usage: "[NAME[,NAME]] [SOURCE=node] [NODES=node,...]", names: namesListOpt, run: verifyCollections, attrs: collectionAttrs,
				doc: "compare the files of collections with the source's copy, on all their nodes; nothing is changed, and 1 says that something differs"}}},
		{name: "view", aliases: []string{"vi", "cat"}, doc: "show a log", operations: []operation{
			{class: "log", aliases: []string{"lo"}, usage: "[NAME]", names: namesOptional, run: viewLog, doc: "show one of this node's logs; without a name: which there are",
				attrs: []argument{{"TAIL", "n", "the last n lines"}, {"HEAD", "n", "the first n lines"}, {"FILTER", "expression", "only lines that match"},
					{"CASE", "sensitive|insensitive", "for FILTER"}}},
			{class: "subsystem", aliases: []string{"ssys"}, usage: "[clstrmgrES]", names: namesOptional, run: showSubsystem,
				doc: "this node's daemon in the form of lssrc -ls clstrmgrES; scripts look for its first line, Current state: ST_STABLE"},
			{class: "snapshot", aliases: snapshotWords, usage: "NAME", names: namesOne, run: viewSnapshot, doc: "print a snapshot: a heading and a cluster file"}}},
		{name: "compare", doc: "what a snapshot differs in", operations: []operation{
			{class: "snapshot", aliases: snapshotWords, usage: "NAME [NAME]", names: namesUpToTwo, run: compareSnapshots,
				doc: "what would change if the snapshot were restored now; with a second name, what differs in that one from the first"}}},
		{name: "confirm", doc: "give the cluster your word", operations: []operation{
			{class: "node_down", usage: "NODE", names: namesOne, run: confirmNodeDown, attrs: []argument{timeoutAttr},
				doc: "NODE is dead: its power is off or its disks are cut off. If that is not so, two nodes may hold one file system"},
			{class: "quorum_lost", usage: "DEAD=NODE[,NODE] [LOST=REPOSITORY[,REPOSITORY]] [CONFIRM=name,...] [FENCE=no]", names: namesNone, run: confirmQuorumLost,
				doc: "the majority is lost for good, and this node goes on alone: what is named is dead or lost and never comes back as it is. Whoever votes and is not " +
					"named must be less than a majority. The node listens first, for as long as any lease could last, and refuses if one of the named is heard, if somebody " +
					"leads, or if another node has more of the log; fence devices must say that the named are off. If the word is wrong, two nodes may hold one file system",
				attrs: []argument{{"DEAD", "node[,node]", "nodes that are dead: their power is off, or they are destroyed"},
					{"LOST", "repository[,repository]", "repository volumes that are lost; needed if one is in use"},
					{"CONFIRM", "name[,name]", "the same names again; on a terminal they are asked for. -f does not replace them"},
					{"FENCE", "yes|no", "no: the fence devices are not asked, because you have seen that the power is off (default yes)"}, timeoutAttr}}}},
		{name: "format", doc: "make a repository volume", operations: []operation{
			{class: "repository", aliases: []string{"rp", "repo"}, usage: "NAME [OVERWRITE=yes]", names: namesOne, run: formatRepository,
				doc:   "format the device of the repository NAME, which add repository has named, and put it to use. What is on it is lost (needs -f)",
				attrs: []argument{{"OVERWRITE", "yes", "format a device that holds a file system, a partition table or another volume, too"}, timeoutAttr}}}},
		{name: "replace", aliases: []string{"rep", "switch", "swap"}, doc: "put another one in its place", operations: []operation{
			{class: "repository", aliases: []string{"rp", "repo"}, usage: "[NAME]", names: namesOptional, run: replaceRepository,
				doc: "put the formatted repository NAME (default: the next one) to use in place of the one in use, while the cluster runs. The one " +
					"before votes until the new one does, and then leaves the definition; should its device come back, nothing uses it",
				attrs: []argument{timeoutAttr}}}},
		{name: "rotate", doc: "new certificates and keys, while the cluster runs", operations: []operation{
			{class: "certificates", aliases: []string{"certificate"}, usage: "[NODES=node[,node]]", names: namesNone, run: rotateCertificates,
				doc: "give nodes new keys and certificates, one node after another; the ones before are void then. No group, lease or leadership is " +
					"touched. A node that is down renews when it is back", attrs: []argument{nodeList, timeoutAttr}},
			{class: "gossip_key", usage: "", names: namesNone, run: rotateGossipKey,
				doc:   "change the key of the heartbeats between nodes, in three steps: add, use, remove. A node that is down learns it when it is back",
				attrs: []argument{timeoutAttr}}}},
		{name: "join", doc: "join a cluster", operations: []operation{
			{class: "cluster", usage: "TOKEN=token|- [ADDRESS=host:port,...]", names: namesNone, run: joinCluster, doc: "make this node a member",
				attrs: []argument{{"TOKEN", "token", "from clmgr add node; '-' reads it from standard input"}, {"TOKEN_FILE", "path", "the file that holds it"},
					{"ADDRESS", "host:port[,...]", "members to ask (default: those in the token)"}, {"NODE", "name", "this node's name (default: the token's)"}, timeoutAttr}}}},
		{name: "leave", doc: "leave the cluster", operations: []operation{
			{class: "cluster", names: namesNone, run: deleteCluster, doc: "take this node out of its cluster (needs -f)"}}},
		{name: "lock", doc: "run a command under a cluster-wide lock", bare: &operation{
			usage: "run NAME [-s|--shared] [-w SECONDS|--try] [-E STATUS] [--ttl SECONDS] [--lost=term|kill|ignore] -- COMMAND ...", names: namesAll, run: lockUsed,
			doc: "wait for the lock NAME, run COMMAND while it is held, and exit with its status: as flock(1), on all nodes together. Own statuses: 123 the lock was lost " +
				"(the command was ended), 124 not free (-E), 125 clmgr could not ask, 126 and 127 the command cannot be run or found"}},
		{name: "release", doc: "take a lock away", operations: []operation{
			{class: "lock", usage: "NAME SESSION=id", names: namesOne, run: releaseLock, attrs: []argument{{"SESSION", "id", "whose: clmgr query lock NAME shows it"}, timeoutAttr},
				doc: "take the lock from a session that holds it or waits for it. Its command is told, and may go on for a moment while the next has the lock already"}}},
		{name: "explain", doc: "why a group is where it is", bare: &operation{usage: "GROUP [NODE]", names: namesUpToTwo, run: explain,
			doc: "why the group is where it is; with NODE: why it is or is not there"}},
		{name: "simulate", doc: "what would happen", bare: &operation{usage: "FILE | --live 'STEP'...", names: namesAll, run: simulate,
			doc: "run a scenario file (or one step against the running cluster's own definition and state) and show the decisions; nothing is done"}},
		{name: "export", doc: "the definition as YAML", bare: &operation{names: namesNone, run: export, doc: "print the active definition as one YAML file"}},
		{name: "completion", doc: "completion for a shell", bare: &operation{usage: "bash|zsh|ksh", names: namesOne, run: completionScript,
			doc: "print the script that makes a shell complete clmgr's words; deploy/completion has the same files"}},
		{name: "undo", doc: "drop staged changes", bare: &operation{names: namesNone, run: undo,
			doc: "drop what is staged; the active definition stays as it is"}},
		{name: "diff", doc: "what is staged, or what a file would change", bare: &operation{usage: "[-f FILE]", names: namesNone, run: diff,
			doc:     "compare what is staged, or a cluster file, with the active definition, and say what that would do to what runs; nothing is changed",
			options: []argument{{"f", "FILE", "the cluster file; '-' is standard input"}}}},
		{name: "apply", doc: "make a file the definition", bare: &operation{usage: "-f FILE", names: namesNone, run: apply,
			doc: "make a cluster file the definition, in one step. What it adds, changes and deletes is shown first, and what stops by it; on a terminal it " +
				"asks before something is deleted or stops (--yes does not, --plan ends there). All faults of the file are shown with line and column, and then nothing is changed",
			options: []argument{{"f", "FILE", "the cluster file; '-' is standard input"}}, attrs: []argument{timeoutAttr}}},
	}
}

func startAttrs(more ...argument) []argument {
	return append(more, argument{"WHEN", "now", "only now: what starts at boot is the node's START_ON_BOOT"},
		argument{"MANAGE", "auto|manual", "manual: this start acquires nothing (default auto)"}, timeoutAttr)
}

func stopAttrs(more ...argument) []argument {
	return append(more, argument{"WHEN", "now", "only now"},
		argument{"MANAGE", "offline|move|unmanage", "what becomes of the groups: released here, moved to other nodes, left running unmanaged (default offline)"},
		timeoutAttr)
}

var startOptions = []argument{{"o", "home|available|manual", "where groups come online: home: each on its home node, and the command ends well only " +
	"if it is so; available: by their own policies (the default); manual: nowhere"}}

var stopOptions = []argument{{"m", strings.Join(modes(stopModes), "|"), modeHelp(stopModes)}}

// findAction finds an action by name, alias or unambiguous beginning, in any case.
func findAction(word string) (*action, error) {
	w := strings.ToLower(word)
	var starts []*action
	var names []string
	for i := range actionTable {
		a := &actionTable[i]
		names = append(names, a.name)
		if a.name == w || hasWord(a.aliases, w) {
			return a, nil
		}
		if w != "" && (strings.HasPrefix(a.name, w) || hasPrefix(a.aliases, w)) {
			starts = append(starts, a)
		}
	}
	switch len(starts) {
	case 1:
		return starts[0], nil
	case 0:
		if f := findForeign(foreignActions, word); f != nil {
			return nil, fail(ExitNotFound, "the action %s is PowerHA's: %s", f.name, f.why)
		}
		return nil, fail(ExitNotFound, "there is no action %q%s; the actions are: %s", word, cluster.DidYouMean(w, names), strings.Join(names, ", "))
	}
	var could []string
	for _, a := range starts {
		could = append(could, a.name)
	}
	return nil, fail(ExitNotFound, "the action %q could be %s: write more of it", word, strings.Join(could, " or "))
}

func hasWord(list []string, w string) bool {
	return slices.Contains(list, w)
}

func hasPrefix(list []string, w string) bool {
	for _, l := range list {
		if len(w) > 1 && strings.HasPrefix(l, w) {
			return true
		}
	}
	return false
}

// dispatch finds the operation and checks what was given against what it takes.
func (a *action) dispatch(ctx context.Context, s *session, words []string) error {
	t, err := a.target(words)
	if err != nil {
		return err
	}
	if err := s.foreignAttributes(t); err != nil {
		return err
	}
	if err := s.checkOptions(t); err != nil {
		return err
	}
	s.idleOptions(t)
	// Some classes have a TIMEOUT of their own, which is then what is meant; --timeout is left for the waiting.
	if own := t.setsAttributes() && t.class != nil && t.class.Attribute("TIMEOUT") != nil; !own {
		if err := s.waitingTime(); err != nil {
			return err
		}
	}
	return t.operation.run(ctx, s, t)
}

// waitingTime takes TIMEOUT=, which says how long to wait for the effect.
func (s *session) waitingTime() error {
	if v, ok := s.take("TIMEOUT"); ok {
		if err := s.setTimeout(v, "TIMEOUT"); err != nil {
			return err
		}
	}
	return nil
}

func (a *action) target(words []string) (*target, error) {
	t := &target{action: a}
	if a.bare != nil {
		t.operation = a.bare
		t.names = words
		return t, t.checkNames()
	}
	if len(words) == 0 {
		return nil, fail(ExitMissing, "%s needs a class: %s", a.name, strings.Join(a.classNames(), ", "))
	}
	if err := t.find(a, words[0]); err != nil {
		return nil, err
	}
	t.names = words[1:]
	return t, t.checkNames()
}

// find resolves the class word: an exact name or alias of any table first, then a beginning that only one class has.
func (t *target) find(a *action, word string) error {
	w := strings.ToLower(word)
	for i := range a.operations {
		if o := &a.operations[i]; o.class == w || hasWord(o.aliases, w) {
			t.operation = o
			t.class = classNamed(o.class)
			return nil
		}
	}
	for _, c := range cluster.Classes() {
		if c.Name == w || hasWord(c.Aliases, w) {
			return t.bind(a, c.Name, word)
		}
	}
	if err := foreignClass(a, word); err != nil {
		return err
	}
	var could []string
	for _, n := range a.classNames() {
		if w != "" && strings.HasPrefix(n, w) {
			could = append(could, n)
		}
	}
	switch len(could) {
	case 1:
		return t.bind(a, could[0], word)
	case 0:
		return fail(ExitNotFound, "%s takes no class %q%s; it takes: %s", a.name, word,
			cluster.DidYouMean(w, a.classNames()), strings.Join(a.classNames(), ", "))
	}
	return fail(ExitNotFound, "the class %q could be %s: write more of it", word, strings.Join(could, " or "))
}

func (t *target) bind(a *action, class, word string) error {
	t.class = classNamed(class)
	for i := range a.operations {
		if a.operations[i].class == class {
			t.operation = &a.operations[i]
			return nil
		}
	}
	if a.anyClass == nil || t.class == nil {
		if err := foreignClass(a, class); err != nil {
			return err
		}
		return fail(ExitNotFound, "%s takes no class %q; it takes: %s", a.name, word, strings.Join(a.classNames(), ", "))
	}
	t.operation = a.anyClass
	return nil
}

func classNamed(name string) *cluster.Class {
	for _, c := range cluster.Classes() {
		if c.Name == name {
			return &c
		}
	}
	return nil
}

// classNames lists the classes that the action takes.
func (a *action) classNames() []string {
	seen := map[string]bool{}
	var out []string
	for _, o := range a.operations {
		seen[o.class] = true
		out = append(out, o.class)
	}
	if a.anyClass != nil {
		for _, c := range cluster.Classes() {
			if !seen[c.Name] {
				out = append(out, c.Name)
			}
		}
	}
	sort.Strings(out)
	return out
}

// what names the operation for messages: "move resource_group".
func (t *target) what() string {
	switch {
	case t.class != nil:
		return t.action.name + " " + t.class.Name
	case t.operation.class != "":
		return t.action.name + " " + t.operation.class
	}
	return t.action.name
}

func (t *target) checkNames() error {
	n, most := len(t.names), 1
	switch t.operation.names {
	case namesNone:
		most = 0
	case namesUpToTwo:
		most = 2
	case namesAll:
		most = n
	}
	need := t.operation.names == namesOne || t.operation.names == namesList || t.operation.names == namesUpToTwo
	switch {
	case need && (n == 0 || strings.TrimSpace(t.names[0]) == ""):
		return fail(ExitMissing, "%s needs a name; usage: %s", t.what(), t.usage())
	case n > most && most == 0:
		return fail(ExitIncorrect, "%s takes no name, and %q is given; usage: %s", t.what(), t.names[0], t.usage())
	case n > most:
		return fail(ExitIncorrect, "%s: %q is one word too many (several names go in one word, with commas); usage: %s", t.what(), t.names[most], t.usage())
	}
	for _, name := range t.names {
		if strings.ContainsAny(name, "\x00\r\n") {
			return fail(ExitIncorrect, "%s: the name %q has characters that no name can have", t.what(), name)
		}
	}
	if t.operation.names == namesList || t.operation.names == namesListOpt {
		var list []string
		for _, w := range t.names {
			list = append(list, cluster.SplitList(w)...)
		}
		if need && len(list) == 0 {
			return fail(ExitMissing, "%s needs a name; usage: %s", t.what(), t.usage())
		}
		t.names = list
	}
	return nil
}

// checkOptions refuses options and attributes that the operation does not know. Attributes of the definition's classes are
// checked where they are set.
func (s *session) checkOptions(t *target) error {
	var known []string
	for _, o := range t.operation.options {
		known = append(known, o.name)
	}
	for _, l := range sortedKeys(s.options) {
		if !hasWord(known, l) && !(l == "live" && t.action.name == "simulate") {
			return fail(ExitNotFound, "%s has no option -%s; usage: %s", t.what(), l, t.usage())
		}
	}
	if t.setsAttributes() {
		return nil
	}
	known = nil
	for _, a := range t.operation.attrs {
		known = append(known, a.name)
	}
	for i, a := range s.set {
		if !hasWord(known, strings.ToUpper(a.Attribute)) {
			return fail(ExitNotFound, "%s has no attribute %s%s; usage: %s", t.what(), strings.ToUpper(a.Attribute),
				cluster.DidYouMean(strings.ToUpper(a.Attribute), known), t.usage())
		}
		for _, b := range s.set[:i] {
			if strings.EqualFold(a.Attribute, b.Attribute) {
				return fail(ExitIncorrect, "%s: %s is given twice", t.what(), strings.ToUpper(a.Attribute))
			}
		}
	}
	return nil
}

// setsAttributes reports whether the ATTR=VALUE words are the class's own attributes.
func (t *target) setsAttributes() bool {
	return t.operation == t.action.anyClass || t.action.name == "add" && (t.operation.class == "node" || t.operation.class == "repository")
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
