package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// queryAudit shows the record of attempted writes, of all nodes.
func queryAudit(ctx context.Context, s *session, _ *target) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	tail := 100
	if v, ok := s.take("TAIL"); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > api.MaxAudit {
			return fail(ExitIncorrect, "TAIL=%s: a number from 1 to %d", v, api.MaxAudit)
		}
		tail = n
	}
	keep := map[string]string{}
	for _, a := range []string{"USER", "NODE", "RESULT"} {
		if v, ok := s.take(a); ok {
			keep[a] = v
		}
	}
	list, err := s.client.Audit(ctx, api.MaxAudit)
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(list.Silent)) {
		s.warn("node %s could not be asked: %s", n, list.Silent[n])
	}
	out := slices.DeleteFunc(list.Records, func(r api.AuditRecord) bool {
		return !wants(keep, "USER", r.User) || !wants(keep, "NODE", r.Node) || !wants(keep, "RESULT", r.Result)
	})
	out = out[max(0, len(out)-tail):]
	if len(out) == 0 && len(keep) > 0 {
		return fail(ExitNoMatch, "no record matches the conditions")
	}
	switch {
	case s.form == formJSON:
		return writeJSON(s.out, out)
	case s.form != formText || len(s.attrs) > 0:
		var list []record
		for _, r := range out {
			list = append(list, record{{"TIME", s.auditTime(r)}, {"NODE", r.Node}, {"USER", r.User}, {"ROLE", string(r.Role)}, {"WHAT", r.What}, {"RESULT", r.Result},
				{"INDEX", strconv.FormatUint(r.Index, 10)}, {"DETAIL", r.Detail}})
		}
		return s.printChosen("audit", list)
	}
	for _, r := range out {
		at, why := "", ""
		if r.Index > 0 {
			at = fmt.Sprintf(" at %d", r.Index)
		}
		if r.Detail != "" {
			why = ": " + r.Detail
		}
		fmt.Fprintln(s.out, printable(fmt.Sprintf("%s %-12s %-12s %-8s %s: %s%s%s", s.auditTime(r), r.Node, r.User, r.Role, r.What, r.Result, at, why)))
	}
	return nil
}

func (s *session) auditTime(r api.AuditRecord) string {
	return r.Time.In(s.env.Location).Format("2006-01-02 15:04:05.000")
}
