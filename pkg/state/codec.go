package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// Limits of what is decoded.
const (
	maxCommand  = 4 << 20  // bytes of one encoded command
	maxSnapshot = 64 << 20 // bytes of an encoded state
)

// ErrUnknown is wrapped by the decoders' errors for what a newer version has written: the caller must stop, and never guess.
var ErrUnknown = errors.New("written by a newer version of Holdfast")

// envelope is the outer form of everything that is stored: the version first, so that a reader can tell new from broken.
type envelope struct {
	Format  int             `json:"format"`
	Command json.RawMessage `json:"command,omitempty"`
	State   json.RawMessage `json:"state,omitempty"`
}

// Encode gives the bytes of a command for the log.
func (c *Command) Encode() ([]byte, error) {
	if c.kind() == "" {
		return nil, errors.New("encode the command: none or several of its forms are set")
	}
	if len(c.ID) > 64 {
		return nil, errors.New("encode the command: its id is longer than 64 bytes")
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode the command: %w", err)
	}
	out, err := json.Marshal(envelope{Format: c.Needs(), Command: body})
	if err != nil {
		return nil, fmt.Errorf("encode the command: %w", err)
	}
	if len(out) > maxCommand {
		return nil, fmt.Errorf("encode the command: %d bytes are over the limit of %d", len(out), maxCommand)
	}
	return out, nil
}

// DecodeCommand reads what Encode wrote, of this or an older format. Anything unknown is an error that wraps ErrUnknown where
// a newer format says so: a replica that does not understand an entry must stop.
func DecodeCommand(b []byte) (*Command, error) {
	if len(b) > maxCommand {
		return nil, fmt.Errorf("decode the command: %d bytes are over the limit of %d", len(b), maxCommand)
	}
	env, err := openEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("decode the command: %w", err)
	}
	var c Command
	if err := strict(env.Command, &c); err != nil {
		return nil, fmt.Errorf("decode the command: %w", err)
	}
	if c.kind() == "" {
		return nil, errors.New("decode the command: none or several of its forms are set")
	}
	if len(c.ID) > 64 {
		return nil, errors.New("decode the command: its id is longer than 64 bytes")
	}
	return &c, nil
}

func openEnvelope(b []byte) (envelope, error) {
	var env envelope
	if err := strict(b, &env); err != nil {
		return env, err
	}
	if env.Format > Format {
		return env, fmt.Errorf("format %d, this daemon knows up to %d: %w", env.Format, Format, ErrUnknown)
	}
	if env.Format < 1 {
		return env, fmt.Errorf("there is no format %d", env.Format)
	}
	return env, nil
}

// strict decodes exactly one JSON value with no unknown keys.
func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows after the end")
	}
	return nil
}

// snapshot is a State with its histories as plain lists.
type snapshot struct {
	*State
	Events  []Event     `json:"events,omitempty"`
	Applied []appliedID `json:"applied,omitempty"`
}

// Encode gives the bytes of the state for a snapshot. Equal states give equal bytes.
func (s *State) Encode() ([]byte, error) {
	body, err := json.Marshal(snapshot{State: s, Events: s.events.list(), Applied: s.applied.list()})
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	return json.Marshal(envelope{Format: s.needs(), State: body})
}

// Decode reads what Encode wrote, of this or an older format.
func Decode(b []byte) (*State, error) {
	if len(b) > maxSnapshot {
		return nil, fmt.Errorf("decode the state: %d bytes are over the limit of %d", len(b), maxSnapshot)
	}
	env, err := openEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("decode the state: %w", err)
	}
	in := snapshot{State: New()}
	if err := strict(env.State, &in); err != nil {
		return nil, fmt.Errorf("decode the state: %w", err)
	}
	if in.State == nil {
		return nil, errors.New("decode the state: it is empty")
	}
	if err := in.State.check(); err != nil {
		return nil, fmt.Errorf("decode the state: %w", err)
	}
	in.State.Format = Format
	in.State.events = ringOf(in.Events, maxEvents)
	in.State.applied = ringOf(in.Applied, maxAppliedIDs)
	return in.State, nil
}

// check refuses a decoded state on which Apply could not work: what it takes for granted about maps and names.
func (s *State) check() error {
	if s.Definition == nil && (len(s.Nodes) > 0 || len(s.Groups) > 0) {
		return errors.New("nodes or groups without a definition")
	}
	for name, n := range s.Nodes {
		if n == nil || n.Name != name || s.Definition.Node(name) == nil {
			return fmt.Errorf("node %q does not fit the definition", name)
		}
	}
	for name, g := range s.Groups {
		if g == nil || g.Name != name {
			return fmt.Errorf("group %q is not well formed", name)
		}
		d := s.Definition.Group(name)
		if d == nil {
			return fmt.Errorf("group %q does not fit the definition", name)
		}
		for node, i := range g.Instances {
			if i == nil || !d.Has(node) {
				return fmt.Errorf("the instance of group %q on node %q does not fit the definition", name, node)
			}
		}
		for node, m := range g.Marks {
			if m == nil {
				return fmt.Errorf("the mark of group %q on node %q is empty", name, node)
			}
		}
	}
	if s.Definition != nil {
		for _, name := range s.NodeNames() {
			if s.Nodes[name] == nil {
				return fmt.Errorf("node %q is missing", name)
			}
		}
		for _, name := range s.GroupNames() {
			if s.Groups[name] == nil {
				return fmt.Errorf("group %q is missing", name)
			}
		}
	}
	if s.Staged != nil && s.Staged.Definition == nil {
		return errors.New("something is staged without a definition")
	}
	if why := s.checkLocks(); why != "" {
		return errors.New(why)
	}
	if why := s.checkKeys(); why != "" {
		return errors.New(why)
	}
	for name, t := range s.Timers {
		if t == nil || t.Name != name {
			return fmt.Errorf("timer %q is not well formed", name)
		}
	}
	for hash, t := range s.Tokens {
		if t == nil || t.Hash != hash {
			return fmt.Errorf("token %q is not well formed", hash)
		}
	}
	return nil
}

// kind names the form that is set; empty if none or several are.
func (c *Command) kind() string {
	kind := ""
	v := reflect.ValueOf(c).Elem()
	for _, f := range commandForms {
		if v.Field(f.field).IsNil() {
			continue
		}
		if kind != "" {
			return ""
		}
		kind = f.name
	}
	return kind
}

// Kind names the command's form, as in its encoding: acquire, node_boot, ... Empty if none or several are set.
func (c *Command) Kind() string {
	if c == nil {
		return ""
	}
	return c.kind()
}

type form struct {
	field int
	name  string
}

// commandForms are Command's pointers, by their JSON names.
var commandForms = func() []form {
	var out []form
	t := reflect.TypeFor[Command]()
	for i := range t.NumField() {
		if f := t.Field(i); f.Type.Kind() == reflect.Pointer && f.Type != reflect.TypeFor[*time.Time]() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			out = append(out, form{field: i, name: name})
		}
	}
	return out
}()
