package cluster

import (
	"fmt"
	"strings"
	"time"
)

// EventCommands are the administrator's own programs around one event. They are executed by their path, with nothing but fixed words
// as arguments; what they are told stands in their environment (docs/events.md).
type EventCommands struct {
	Name string `json:"name"` // the event's: one of KnownEvents
	// Notify tells somebody: it is run when the event begins and when it has ended, and nothing ever waits for it.
	Notify string `json:"notify,omitempty"`
	// Pre and Post run before and after the event, one after another. Their end is awaited, unless the node's lease runs out.
	Pre  []string `json:"pre,omitempty"`
	Post []string `json:"post,omitempty"`
	// FailOnError makes a failing pre-command a failure of the event; otherwise it is written down and nothing more.
	FailOnError bool `json:"fail_on_error,omitempty"`
	// Recovery runs when the event has failed, and the event is tried again after it, RecoveryLimit times (default 1).
	Recovery      string `json:"recovery,omitempty"`
	RecoveryLimit int    `json:"recovery_limit,omitempty"`
	// Timeout bounds each of the commands; then it is killed with all that it started, and has failed. Default 30 s.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// EventKind says where an event happens.
type EventKind string

// The kinds of events.
const (
	// EventOfCluster has happened when a node hears of it: its commands run on each node.
	EventOfCluster EventKind = "cluster"
	// EventOfGroup is work on a whole group: its commands run on the node that does it, around the work.
	EventOfGroup EventKind = "group"
	// EventOfResource is one step of that work, which can be tried again.
	EventOfResource EventKind = "resource"
)

// A KnownEvent is an event around which commands may run.
type KnownEvent struct {
	Name string
	Kind EventKind
	Doc  string
}

// knownEvents are PowerHA's names where PowerHA has the event.
var knownEvents = []KnownEvent{
	{"node_up", EventOfCluster, "cluster services of a node have been started"},
	{"node_up_complete", EventOfCluster, "a node that came has taken its part"},
	{"node_lost", EventOfCluster, "a node is silent"},
	{"node_fence", EventOfCluster, "a node is being switched off"},
	{"node_fence_failed", EventOfCluster, "a fence device could not switch a node off"},
	{"node_dead", EventOfCluster, "a node's death is proven"},
	{"node_down", EventOfCluster, "a node is down, or its cluster services are being stopped"},
	{"node_down_complete", EventOfCluster, "cluster services of a node are stopped"},
	{"node_quarantined", EventOfCluster, "a node takes no groups until somebody clears it"},
	{"network_down", EventOfCluster, "a node has lost a network"},
	{"network_up", EventOfCluster, "a node has a network again"},
	{"fail_interface", EventOfCluster, "an interface has failed"},
	{"join_interface", EventOfCluster, "an interface works again"},
	{"swap_adapter", EventOfCluster, "an address goes to another interface of its node"},
	{"swap_adapter_complete", EventOfCluster, "it is there"},
	{"external_resource_state_change", EventOfCluster, "the operator has asked for a move"},
	{"rg_move", EventOfCluster, "it was decided to release a group"},
	{"rg_move_release", EventOfGroup, "a group is released"},
	{"stop_server", EventOfResource, "an application is stopped"},
	{"release_vg_fs", EventOfResource, "a file system, export or volume group is released"},
	{"release_service_addr", EventOfResource, "an address is released"},
	{"rg_move_acquire", EventOfGroup, "a group is acquired"},
	{"acquire_service_addr", EventOfResource, "an address is acquired"},
	{"get_disk_vg_fs", EventOfResource, "a volume group, file system or export is acquired"},
	{"start_server", EventOfResource, "an application is started"},
	{"rg_move_complete", EventOfCluster, "a group is online"},
	{"rg_acquire_failed", EventOfCluster, "a group could not be acquired on a node"},
	{"rg_release_failed", EventOfCluster, "a group could not be released on a node"},
	{"rg_error", EventOfCluster, "a group needs somebody"},
	{"server_down", EventOfCluster, "an application has failed, and its restarts are used up"},
	{"server_restart", EventOfCluster, "an application has failed and is started again"},
	{"server_restart_complete", EventOfCluster, "it runs again"},
	{"config_too_long", EventOfCluster, "something takes longer than it should"},
	{"reconfig_configuration_complete", EventOfCluster, "the definition has changed"},
}

// KnownEvents lists the events around which commands may run, in the order in which they follow each other. It must not be changed.
func KnownEvents() []KnownEvent { return knownEvents }

// FindEvent finds an event by its name; nil: there is none such.
func FindEvent(name string) *KnownEvent {
	for i := range knownEvents {
		if knownEvents[i].Name == name {
			return &knownEvents[i]
		}
	}
	return nil
}

// EventCommands are those of an event; nil: there are none.
func (d *Definition) EventCommands(event string) *EventCommands {
	for i := range d.Events {
		if d.Events[i].Name == event {
			return &d.Events[i]
		}
	}
	return nil
}

// Limits of commands around an event, and what counts where nothing is said.
const (
	maxEventCommands    = 8
	maxRecoveryLimit    = 10
	MaxEventTimeout     = time.Hour
	DefaultEventTimeout = 30 * time.Second
)

func (v *validator) events() {
	for i := range v.d.Events {
		v.event(fmt.Sprintf("events[%d].", i), &v.d.Events[i])
	}
}

func (v *validator) event(p string, e *EventCommands) {
	known := FindEvent(e.Name)
	if known == nil {
		var all []string
		for _, k := range knownEvents {
			all = append(all, k.Name)
		}
		v.add(p+"name", "one of "+strings.Join(all, ", "), "there is no event %q%s", shortened(e.Name), DidYouMean(e.Name, all))
	}
	v.script(p+"notify", e.Notify, false)
	v.commands(p+"pre", e.Pre)
	v.commands(p+"post", e.Post)
	v.script(p+"recovery", e.Recovery, false)
	if e.Notify == "" && len(e.Pre)+len(e.Post) == 0 && e.Recovery == "" {
		v.add(p+"name", "notify, pre, post or recovery", "no command is given for the event %s", e.Name)
	}
	happened := known != nil && known.Kind == EventOfCluster
	if happened && e.FailOnError {
		v.add(p+"fail_on_error", "leave it out", "%s has happened when it is heard of, so it cannot fail any more", e.Name)
	}
	if happened && e.Recovery != "" {
		v.add(p+"recovery", "leave it out", "%s has happened when it is heard of, so it cannot be tried again", e.Name)
	}
	if known != nil && known.Kind == EventOfGroup && e.Recovery != "" && !e.FailOnError {
		v.add(p+"recovery", "fail_on_error: true, or recovery of the step that fails: start_server, get_disk_vg_fs, ...",
			"of %s only the pre-commands can be tried again, and they cannot fail without fail_on_error", e.Name)
	}
	if e.RecoveryLimit < 0 || e.RecoveryLimit > maxRecoveryLimit {
		v.add(p+"recovery_limit", fmt.Sprintf("1 to %d", maxRecoveryLimit), "%d tries cannot be made", e.RecoveryLimit)
	} else if e.RecoveryLimit != 0 && e.Recovery == "" {
		v.add(p+"recovery_limit", "leave it out, or give recovery", "there is no recovery command to be limited")
	}
	v.within(p+"timeout", e.Timeout, MaxEventTimeout)
}

func (v *validator) commands(path string, list []string) {
	if len(list) > maxEventCommands {
		v.add(path, fmt.Sprintf("at most %d", maxEventCommands), "there are %d commands", len(list))
		return
	}
	for i, c := range list {
		v.script(fmt.Sprintf("%s[%d]", path, i), c, true)
	}
	v.distinct(path, list)
}

func eventClass() Class {
	type E = EventCommands
	return newClass(Class{Name: "event_command", Aliases: []string{"event"},
		Doc: "your own commands around an event, which is its name: node_down, rg_move_acquire, start_server ..."},
		func(d *Definition) *[]E { return &d.Events }, func(e *E) *string { return &e.Name },
		text(Attribute{Name: "NOTIFY", Kind: KindPath, Doc: "run when the event begins and when it has ended; nothing waits for it"},
			func(e *E) *string { return &e.Notify }),
		names(Attribute{Name: "PRECOMMAND", Aliases: []string{"PRE"}, Kind: KindList, Doc: "paths of the commands before the event"},
			func(e *E) *[]string { return &e.Pre }),
		names(Attribute{Name: "POSTCOMMAND", Aliases: []string{"POST"}, Kind: KindList, Doc: "paths of the commands after it"},
			func(e *E) *[]string { return &e.Post }),
		boolean(Attribute{Name: "FAIL_ON_ERROR", Default: "false", Doc: "a pre-command that fails makes the event fail"},
			func(e *E) bool { return e.FailOnError }, func(e *E, v bool) { e.FailOnError = v }),
		text(Attribute{Name: "RECOVERY", Kind: KindPath, Doc: "run when the event has failed, before it is tried again"},
			func(e *E) *string { return &e.Recovery }),
		integer(Attribute{Name: "RECOVERYLIMIT", Aliases: []string{"RECOVERY_LIMIT"}, Doc: "how often it is tried again; none: once, where there is RECOVERY"},
			1, maxRecoveryLimit, func(e *E) *int { return &e.RecoveryLimit }),
		seconds(Attribute{Name: "TIMEOUT", Default: formatSeconds(DefaultEventTimeout), Doc: "how long each command may take before it is killed and has failed"},
			func(e *E) *time.Duration { return &e.Timeout }),
	)
}
