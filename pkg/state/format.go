package state

import "github.com/holdfast-ha/holdfast/pkg/cluster"

// Needs is the oldest format in which the command can be written. A leader proposes it only when every node of the cluster
// understands that format (BehindFormat): a replica that does not understand an entry must stop.
func (c *Command) Needs() int {
	switch {
	case c.Create != nil:
		return definitionNeeds(c.Create.Definition)
	case c.SetDefinition != nil:
		return definitionNeeds(c.SetDefinition.Definition)
	case c.Stage != nil:
		return max(2, definitionNeeds(c.Stage.Definition))
	case c.Activate != nil:
		return 2
	case c.LockOpen != nil, c.LockClose != nil, c.LockAcquire != nil, c.LockRelease != nil, c.LockBreak != nil, c.LocksEnd != nil:
		return 3
	case c.SetMember != nil && c.SetMember.Cert != 0, c.RenewCerts != nil, c.CertInUse != nil, c.GossipKey != nil,
		c.ReplaceVolume != nil:
		return 4
	}
	return 1
}

// needs is the oldest format in which the state can be written.
func (s *State) needs() int {
	least := definitionNeeds(s.Definition)
	if s.Certs != nil || s.GossipKeys != nil {
		least = max(least, 4)
	}
	if s.Locks != nil {
		least = max(least, 3)
	}
	if s.Staged != nil {
		least = max(least, definitionNeeds(s.Staged.Definition))
	}
	if s.Staged != nil || s.StagedVersion != 0 {
		least = max(least, 2)
	}
	return least
}

func definitionNeeds(d *cluster.Definition) int {
	if d == nil {
		return 1
	}
	if len(d.Events) > 0 {
		return 4
	}
	s := &d.Settings
	if s.ActionPlan != "" || s.NoRepositoryReplacement || s.RepositoryLossTime != 0 {
		return 4
	}
	for i := range d.Repositories {
		if d.Repositories[i].Lost {
			return 4 // an older daemon would put it to use again
		}
	}
	if len(d.FileCollections) > 0 || s.FreeCommands || s.CollectionInterval != 0 {
		return 4
	}
	if len(d.VolumeGroups)+len(d.NFSExports)+len(d.Repositories) > 0 {
		return 2
	}
	for i := range d.Nodes {
		if len(d.Nodes[i].Interfaces) > 0 {
			return 2
		}
	}
	for i := range d.Networks {
		if len(d.Networks[i].ProbeTargets) > 0 {
			return 2
		}
	}
	for i := range d.ApplicationControllers {
		if d.ApplicationControllers[i].Agent != "" {
			return 2
		}
	}
	if len(d.Methods)+len(d.Waivers) > 0 || s.VerificationHour != 0 || s.NoDailyVerification || s.VerificationInterval != 0 || s.Changes != "" {
		return 2
	}
	// An older daemon would take an application of an agent for one without scripts, and devices of one fence level, each of which
	// proves nothing by itself, for devices that do.
	for i := range d.ApplicationControllers {
		if d.ApplicationControllers[i].OwnTimes() {
			return 2
		}
	}
	for i := range d.ApplicationMonitors {
		if m := &d.ApplicationMonitors[i]; m.Type == "agent" || m.Depth != 0 {
			return 2
		}
	}
	for i := range d.FenceDevices {
		if len(d.FenceDevices[i].Levels) > 0 {
			return 2
		}
	}
	for i := range d.ResourceGroups {
		if d.ResourceGroups[i].RecoveryMethod != "" {
			return 2
		}
	}
	return 1
}

// BehindFormat lists the nodes whose daemons do not understand the format, as far as the log knows: those that have booted.
func (s *State) BehindFormat(format int) []string {
	var out []string
	for _, name := range s.NodeNames() {
		if n := s.Nodes[name]; n != nil && n.Incarnation > 0 && max(n.Format, 1) < format {
			out = append(out, name)
		}
	}
	return out
}
