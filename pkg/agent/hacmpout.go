package agent

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// The text of hacmp.out: PowerHA's lines, which people and their scripts know (docs/events.md).

const ruler = "----------------------------------------------------------------------------\n"

func stamp(t time.Time) string { return t.Format("Jan _2 2006 15:04:05") }

func preamble(o *occurrence) string {
	return "\n                        Holdfast Event Preamble\n" + ruler +
		title(o) + "\n" + ruler
}

// title is the sentence of the preamble.
func title(o *occurrence) string {
	if o.sentence != "" {
		return bounded(oneLine(o.sentence), maxLine)
	}
	if k := cluster.FindEvent(o.name); k != nil {
		return strings.TrimSpace(k.Doc + ": " + strings.TrimSpace(o.group+" "+o.resource))
	}
	return o.name
}

// eventSummary is PowerHA's block of an event: what was done, to what, by which script.
func eventSummary(o *occurrence, end time.Time) string {
	var b strings.Builder
	b.WriteString("\n                        Holdfast Event Summary\n" + ruler)
	fmt.Fprintf(&b, "Event: TE_%s\nStart time: %s\n\nEnd time: %s\n\n", strings.ToUpper(o.name), o.began.Format(time.ANSIC), end.Format(time.ANSIC))
	b.WriteString("Action:                         Resource:                       Script Name:\n" + ruler)
	if len(o.actions) == 0 {
		b.WriteString("No resources changed as a result of this event\n")
	}
	for _, a := range o.actions {
		b.WriteString(a)
	}
	b.WriteString(ruler)
	return b.String()
}

func action(what, resource, script string) string {
	return fmt.Sprintf("%-31s %-31s %s\n", what+":", resource, script)
}

// workLines are PowerHA's lines of work that was done.
func workLines(o *occurrence, err error) []string {
	what, script := "resource", o.name
	if o.resource == "" {
		what, script = "resource group", "process_resources"
	}
	begun, done := "Acquiring "+what, "Resource"+strings.TrimPrefix(what, "resource")+" online"
	if releasing(o.name) {
		begun, done = "Releasing "+what, "Resource"+strings.TrimPrefix(what, "resource")+" offline"
	}
	if err != nil {
		done = "Error encountered with " + strings.TrimPrefix(what, "resource ")
	}
	return []string{action(begun, o.object(), script), action(done, o.object(), script)}
}

// object is what an event is about, for the summary.
func (o *occurrence) object() string {
	switch {
	case o.resource != "":
		return o.resource
	case o.group != "":
		return o.group
	}
	return o.node
}
