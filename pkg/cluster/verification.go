package cluster

import (
	"fmt"
	"strings"
	"time"
)

// VerificationInterval and Changes are not among what Defaults fills in: a definition that does not use them is then written as
// older daemons read it.

// LooksEvery is how often the cluster looks for what has changed on its nodes.
func (s *Settings) LooksEvery() time.Duration {
	if s.VerificationInterval == 0 {
		return DefaultVerificationInterval
	}
	return s.VerificationInterval
}

// What becomes of a node that was taken for dead: PowerHA's ACTION_PLAN.
const (
	ActionPlanReboot     = "reboot"
	ActionPlanNoGroups   = "disable_rgs_autostart"
	ActionPlanNoServices = "disable_cluster_services_autostart"
)

// Staged reports whether changes wait for a sync.
func (s *Settings) Staged() bool { return s.Changes == ChangesStaged }

// checkNumber reports whether the text has the form of a check's number, as V0408; which numbers exist is package verify's.
func checkNumber(s string) bool {
	return len(s) == 5 && s[0] == 'V' && !strings.ContainsFunc(s[1:], func(r rune) bool { return r < '0' || r > '9' })
}

// expiryForm is how a waiver's last day is written.
const expiryForm = "2006-01-02"

// Ends is the moment after which the waiver counts no more; the zero time: it does not end.
func (w *Waiver) Ends() time.Time {
	t, err := time.Parse(expiryForm, w.Expires)
	if err != nil {
		return time.Time{}
	}
	return t.AddDate(0, 0, 1)
}

// Expired reports whether the waiver's last day is over.
func (w *Waiver) Expired(now time.Time) bool {
	end := w.Ends()
	return !end.IsZero() && !now.Before(end)
}

func (v *validator) methods() {
	for i := range v.d.Methods {
		m, p := &v.d.Methods[i], fmt.Sprintf("methods[%d].", i)
		if m.Type != "" {
			v.oneOf(p+"type", m.Type, MethodVerify)
		}
		v.script(p+"file", m.File, true)
		v.distinct(p+"nodes", m.Nodes)
		v.within(p+"timeout", m.Timeout, time.Hour)
	}
}

func (v *validator) waivers() {
	for i := range v.d.Waivers {
		w, p := &v.d.Waivers[i], fmt.Sprintf("waivers[%d].", i)
		if !checkNumber(w.Check) {
			v.add(p+"check", "as V0408; clmgr verify cluster shows them", "%q is not the number of a check", w.Check)
		}
		if strings.TrimSpace(w.Reason) == "" {
			v.add(p+"reason", "one sentence", "a waiver needs a reason")
		}
		if _, err := time.Parse(expiryForm, w.Expires); w.Expires != "" && err != nil {
			v.add(p+"expires", "as 2027-01-31", "%q is not a day", w.Expires)
		}
	}
}
