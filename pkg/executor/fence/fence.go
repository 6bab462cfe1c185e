// Package fence switches nodes off through fence agents: programs with the public interface of the fence-agents project, which
// take name=value lines on standard input and answer with their exit status.
//
// A node counts as off only when the agent's action off has succeeded and its action status then says off. What an agent that
// reboots says is not asked, and a device that does not answer means that nothing is known. Who may shoot, and whether the
// victim is still the one that was meant, is the caller's to decide; he is asked again just before the shot.
package fence

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// DefaultTimeout bounds one call of an agent that has no timeout of its own.
const DefaultTimeout = 20 * time.Second

// ErrUnknown says that nothing is known about the node's power: it must be taken to be on.
var ErrUnknown = errors.New("whether the node is off is not known")

// A Power is what an agent says of a plug.
type Power string

// The powers.
const (
	On  Power = "on"
	Off Power = "off"
)

// A Fencer runs fence agents. Its methods may be called by any goroutine.
type Fencer struct {
	run   *executor.Runner
	pause time.Duration // between two questions for the status
}

// New makes a fencer over the runner.
func New(run *executor.Runner) *Fencer { return &Fencer{run: run, pause: 100 * time.Millisecond} }

// Off switches the node off and sees that it is off. still is asked just before the shot, and an error of it calls the shot
// off; nil is not asked. The proof is a sentence for the log. Every error means that the node may be running.
func (f *Fencer) Off(ctx context.Context, d *cluster.FenceDevice, node string, still func() error) (proof string, err error) {
	if still != nil {
		if err := still(); err != nil {
			return "", fmt.Errorf("node %s is not switched off: %w", node, err)
		}
	}
	out, err := f.call(ctx, d, node, "off")
	if err != nil {
		return "", err
	}
	if out.Err != nil {
		return "", fmt.Errorf("switch node %s off by device %s: %w: %w", node, d.Name, ErrUnknown, out.Err)
	}
	took := out.Duration.Round(time.Millisecond)
	if err := f.awaitOff(ctx, d, node); err != nil {
		return "", err
	}
	return fmt.Sprintf("fence device %s (%s) switched node %s off in %s and then reported its power as off", d.Name, d.Agent, node, took), nil
}

// awaitOff asks for the status until it is off: some devices answer off before the power is gone.
func (f *Fencer) awaitOff(ctx context.Context, d *cluster.FenceDevice, node string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(d))
	defer cancel()
	last := fmt.Errorf("it was not asked: %w", ErrUnknown)
	for {
		power, err := f.Status(ctx, d, node)
		switch {
		case err == nil && power == Off:
			return nil
		case err == nil:
			last = fmt.Errorf("its power is still %s: %w", power, ErrUnknown)
		case ctx.Err() == nil:
			last = err
		}
		t := time.NewTimer(f.pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("device %s said that it switched node %s off, but its status does not confirm it: %w", d.Name, node, last)
		}
	}
}

// On switches the node on.
func (f *Fencer) On(ctx context.Context, d *cluster.FenceDevice, node string) error {
	out, err := f.call(ctx, d, node, "on")
	if err == nil && out.Err != nil {
		err = fmt.Errorf("switch node %s on by device %s: %w", node, d.Name, out.Err)
	}
	return err
}

// Status asks for the node's power. Every answer but on and off is ErrUnknown.
func (f *Fencer) Status(ctx context.Context, d *cluster.FenceDevice, node string) (Power, error) {
	out, err := f.call(ctx, d, node, "status")
	switch {
	case err != nil:
		return "", err
	case out.Err == nil:
		return On, nil
	case out.Exit == 2:
		return Off, nil
	}
	return "", fmt.Errorf("ask device %s for the power of node %s: %w: %w", d.Name, node, ErrUnknown, out.Err)
}

func timeout(d *cluster.FenceDevice) time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	return DefaultTimeout
}

func (f *Fencer) call(ctx context.Context, d *cluster.FenceDevice, node, action string) (executor.Outcome, error) {
	input, secrets, err := inputFor(d, node, action)
	if err != nil {
		return executor.Outcome{}, err
	}
	c := executor.Command{Scope: executor.Scope{Kind: "fence", Name: d.Name}, Op: action, Path: d.Agent, Stdin: input, Redact: secrets,
		Timeout: timeout(d), Unrecorded: action == "status" || action == "metadata"}
	out := f.run.Run(ctx, c)
	if !out.Executed {
		return out, fmt.Errorf("run the agent of fence device %s: %w: %w", d.Name, ErrUnknown, out.Err)
	}
	return out, nil
}

// inputFor is what the agent reads. Nothing of it stands in an argument vector or in a log.
func inputFor(d *cluster.FenceDevice, node, action string) (input []byte, secrets []string, err error) {
	var b strings.Builder
	line := func(name, value string) error {
		if strings.ContainsAny(name, "=\n\r ") || name == "" || strings.ContainsAny(value, "\n\r\x00") {
			return fmt.Errorf("parameter %q of fence device %s cannot be given to an agent: names have no blanks and no =, values are one "+
				"line", name, d.Name)
		}
		b.WriteString(name + "=" + value + "\n")
		return nil
	}
	errs := []error{line("action", action)}
	if action != "metadata" {
		plug := node
		if p, ok := d.Plugs[node]; ok {
			plug = p
		}
		errs = append(errs, line("plug", plug))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Params)) {
		value := d.Params[name]
		if name == "action" || name == "plug" || name == "port" && d.Plugs[node] != "" {
			errs = append(errs, fmt.Errorf("parameter %s of fence device %s is set by the cluster manager; remove it", name, d.Name))
			continue
		}
		errs = append(errs, line(name, value))
		if secret(name) && value != "" {
			secrets = append(secrets, value)
		}
	}
	return []byte(b.String()), secrets, errors.Join(errs...)
}

// secret reports whether a parameter's value must not be seen.
func secret(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"pass", "secret", "token", "community", "apikey", "api_key"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// Metadata is what an agent says of itself.
type Metadata struct {
	Name       string
	ShortDesc  string
	LongDesc   string
	Parameters []Parameter
	Actions    []string
}

// A Parameter is one that the agent takes.
type Parameter struct {
	Name       string
	Required   bool
	Default    string
	Type       string
	ShortDesc  string
	Deprecated bool
}

// Metadata asks the agent for its description.
func (f *Fencer) Metadata(ctx context.Context, d *cluster.FenceDevice) (*Metadata, error) {
	out, err := f.call(ctx, &cluster.FenceDevice{Name: d.Name, Agent: d.Agent, Timeout: d.Timeout}, "", "metadata")
	if err != nil {
		return nil, err
	}
	if out.Err != nil {
		return nil, fmt.Errorf("ask the agent of fence device %s for its metadata: %w", d.Name, out.Err)
	}
	m, err := ParseMetadata(out.Output)
	if err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", d.Agent, err)
	}
	return m, nil
}

type metadataXML struct {
	Name       string `xml:"name,attr"`
	ShortDesc  string `xml:"shortdesc,attr"`
	LongDesc   string `xml:"longdesc"`
	Parameters []struct {
		Name       string `xml:"name,attr"`
		Required   string `xml:"required,attr"`
		Deprecated string `xml:"deprecated,attr"`
		ShortDesc  string `xml:"shortdesc"`
		Content    struct {
			Type    string `xml:"type,attr"`
			Default string `xml:"default,attr"`
		} `xml:"content"`
	} `xml:"parameters>parameter"`
	Actions []struct {
		Name string `xml:"name,attr"`
	} `xml:"actions>action"`
}

// maxMetadata bounds an agent's description.
const maxMetadata = 256 << 10

// ParseMetadata reads an agent's description, with warnings around it that the agent may have printed.
func ParseMetadata(text string) (*Metadata, error) {
	if len(text) > maxMetadata {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", len(text), maxMetadata)
	}
	start, end := strings.Index(text, "<resource-agent"), strings.LastIndex(text, "</resource-agent>")
	if start < 0 || end < start {
		return nil, errors.New("there is no complete <resource-agent> element in it")
	}
	var x metadataXML
	if err := xml.Unmarshal([]byte(text[start:end]+"</resource-agent>"), &x); err != nil {
		return nil, fmt.Errorf("it is no XML of a resource agent: %w", err)
	}
	m := &Metadata{Name: x.Name, ShortDesc: x.ShortDesc, LongDesc: strings.TrimSpace(x.LongDesc)}
	for _, p := range x.Parameters {
		m.Parameters = append(m.Parameters, Parameter{Name: p.Name, Required: p.Required == "1", Default: p.Content.Default,
			Type: p.Content.Type, ShortDesc: strings.TrimSpace(p.ShortDesc), Deprecated: p.Deprecated == "1"})
	}
	for _, a := range x.Actions {
		m.Actions = append(m.Actions, a.Name)
	}
	return m, nil
}

// Validate checks the device against its agent, without switching anything: the agent is safe to run, knows off and status,
// takes the parameters, and misses none. It joins all that it finds wrong.
func (f *Fencer) Validate(ctx context.Context, d *cluster.FenceDevice) error {
	if err := executor.CheckScript(d.Agent); err != nil {
		return fmt.Errorf("agent of fence device %s: %w", d.Name, err)
	}
	var errs []error
	for _, n := range d.Nodes {
		if _, _, err := inputFor(d, n, "status"); err != nil {
			errs = append(errs, err)
			break
		}
	}
	m, err := f.Metadata(ctx, d)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, action := range []string{"off", "status"} {
		if !slices.Contains(m.Actions, action) && (action != "status" || !slices.Contains(m.Actions, "monitor")) {
			errs = append(errs, fmt.Errorf("agent %s of fence device %s does not know the action %s", d.Agent, d.Name, action))
		}
	}
	return errors.Join(append(errs, checkParams(d, m)...)...)
}

func checkParams(d *cluster.FenceDevice, m *Metadata) []error {
	var errs []error
	known := map[string]bool{}
	for _, p := range m.Parameters {
		known[p.Name] = true
		if _, ok := d.Params[p.Name]; p.Required && !ok && p.Default == "" && p.Name != "action" && p.Name != "plug" && p.Name != "port" {
			errs = append(errs, fmt.Errorf("fence device %s lacks the parameter %s that %s requires", d.Name, p.Name, d.Agent))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Params)) {
		if !known[name] {
			errs = append(errs, fmt.Errorf("agent %s of fence device %s does not know the parameter %s", d.Agent, d.Name, name))
		}
	}
	return errs
}
