package cluster

import "time"

// Values of Settings.Changes, and the one of Method.Type.
const (
	ChangesLive   = "live"
	ChangesStaged = "staged"
	MethodVerify  = "verify"
)

// The documented defaults. A zero value in a definition means the default.
const (
	DefaultStopTimeoutFileSystem = 10 * time.Second
	DefaultStartTimeout          = 60 * time.Second
	DefaultStopTimeout           = 60 * time.Second
	DefaultMonitorInterval       = 60 * time.Second // a method that is not back by then hangs, so it must not be short
	DefaultProcessStabilization  = 10 * time.Second
	DefaultCustomStabilization   = 60 * time.Second
	DefaultRestartCount          = 3
	DefaultHungSignal            = 9
	DefaultInstanceCount         = 1
	DefaultFenceTimeout          = 20 * time.Second
	DefaultNodePriorityTimeout   = 30 * time.Second
	DefaultFailureWindow         = time.Hour
	DefaultMaxEventTime          = 180 * time.Second
	DefaultMaxGroupTime          = 180 * time.Second
	DefaultDistribution          = "AC"
	DefaultProfile               = "default"
	DefaultDeadmanMode           = "a"
	DefaultMethodTimeout         = 30 * time.Second
	DefaultVerificationInterval  = 10 * time.Minute
	DefaultRepositoryLossTime    = time.Minute
	DefaultChanges               = ChangesLive
	DefaultCollectionInterval    = 10 * time.Minute
)

// The modes of a volume group.
const (
	VolumeGroupExclusive = "exclusive"
	VolumeGroupEnhanced  = "enhanced"
)

// AgentSRC begins the agent of an application that is a subsystem of AIX's System Resource Controller: "src:httpd".
const AgentSRC = "src:"

// Defaults writes the documented default into every value that is not set. Afterwards no reader needs to know defaults.
// Filling twice changes nothing.
func (d *Definition) Defaults() {
	yes := true
	for i := range d.Nodes {
		if d.Nodes[i].StartOnBoot == nil {
			v := yes
			d.Nodes[i].StartOnBoot = &v
		}
	}
	for i := range d.Networks {
		fill(&d.Networks[i].Distribution, DefaultDistribution)
	}
	for i := range d.VolumeGroups {
		fill(&d.VolumeGroups[i].Mode, VolumeGroupExclusive)
	}
	for i := range d.FileSystems {
		fill(&d.FileSystems[i].Check, "fsck")
		fill(&d.FileSystems[i].StopTimeout, DefaultStopTimeoutFileSystem)
	}
	for i := range d.ApplicationControllers {
		a := &d.ApplicationControllers[i]
		fill(&a.StartupMode, "foreground")
		if !a.OwnTimes() {
			fill(&a.StartTimeout, DefaultStartTimeout)
			fill(&a.StopTimeout, DefaultStopTimeout)
		}
	}
	for i := range d.ApplicationMonitors {
		d.ApplicationMonitors[i].defaults()
	}
	for i := range d.FenceDevices {
		fill(&d.FenceDevices[i].Timeout, DefaultFenceTimeout)
	}
	for i := range d.ResourceGroups {
		d.ResourceGroups[i].defaults()
	}
	for i := range d.FallbackTimers {
		fill(&d.FallbackTimers[i].Repeats, "daily")
	}
	for i := range d.Methods {
		fill(&d.Methods[i].Type, MethodVerify)
		fill(&d.Methods[i].Timeout, DefaultMethodTimeout)
	}
	for i := range d.Events {
		fill(&d.Events[i].Timeout, DefaultEventTimeout)
	}
	s := &d.Settings
	drop(&s.ActionPlan, ActionPlanReboot)
	drop(&s.RepositoryLossTime, DefaultRepositoryLossTime)
	drop(&s.Changes, DefaultChanges) // these are left empty: see verification.go
	drop(&s.VerificationInterval, DefaultVerificationInterval)
	drop(&s.CollectionInterval, DefaultCollectionInterval)
	fill(&s.Profile, DefaultProfile)
	fill(&s.DeadmanMode, DefaultDeadmanMode)
	fill(&s.FailureWindow, DefaultFailureWindow)
	fill(&s.MaxEventTime, DefaultMaxEventTime)
	fill(&s.MaxGroupTime, DefaultMaxGroupTime)
}

func (m *ApplicationMonitor) defaults() {
	fill(&m.Mode, "longrunning")
	fill(&m.MonitorInterval, m.defaultInterval())
	fill(&m.Stabilization, m.defaultStabilization())
	fill(&m.HungSignal, DefaultHungSignal)
	fill(&m.FailureAction, "notify")
	fill(&m.InstanceCount, DefaultInstanceCount)
	if m.RestartCount == nil {
		n := DefaultRestartCount
		m.RestartCount = &n
	}
	fill(&m.RestartInterval, m.defaultRestartInterval())
}

// leastRestartInterval is the shortest time in which all restarts can be used up: with less, the count would be forgotten
// before it is reached, and the monitor would restart for ever.
func (m *ApplicationMonitor) leastRestartInterval() time.Duration {
	n := DefaultRestartCount
	if m.RestartCount != nil {
		n = *m.RestartCount
	}
	if n < 0 || n > 100 {
		return 0 // Validate reports the count; a product with it would say nothing.
	}
	interval, stable := m.MonitorInterval, m.Stabilization
	fill(&interval, m.defaultInterval())
	fill(&stable, m.defaultStabilization())
	if m.Type == "process" {
		interval = 0 // The death of a process is seen at once, not at the next interval.
	}
	if interval < 0 || stable < 0 || interval > 24*time.Hour || stable > 24*time.Hour {
		return 0
	}
	return time.Duration(n) * (interval + stable)
}

// defaultInterval of an agent is short, because its timeout is its own and not the interval.
func (m *ApplicationMonitor) defaultInterval() time.Duration {
	if m.Type == "agent" {
		return DefaultAgentMonitorInterval
	}
	return DefaultMonitorInterval
}

func (m *ApplicationMonitor) defaultStabilization() time.Duration {
	if m.Type == "process" {
		return DefaultProcessStabilization
	}
	return DefaultCustomStabilization
}

// defaultRestartInterval is a tenth above the least, as PowerHA computes it.
func (m *ApplicationMonitor) defaultRestartInterval() time.Duration {
	least := m.leastRestartInterval()
	return least + least/10
}

// defaults fills the policies. What OAAN and OUDP leave no choice about is filled with the only legal value.
func (g *ResourceGroup) defaults() {
	fill(&g.Startup, OnlineOnHomeNode)
	switch g.Startup {
	case OnlineOnAllAvailable:
		fill(&g.Fallover, FalloverBringOffline)
		fill(&g.Fallback, NeverFallback)
	case OnlineUsingDistribution:
		fill(&g.Fallback, NeverFallback)
	}
	fill(&g.Fallover, FalloverToNextPriority)
	fill(&g.Fallback, FallbackToHigherPriority)
	fill(&g.OnReleaseFailure, OnReleaseFailureError)
	drop(&g.RecoveryMethod, RecoverInParallel) // nothing says the same, in words that older daemons can read
	if g.NodePriorityPolicy == PriorityLeast || g.NodePriorityPolicy == PriorityMost {
		fill(&g.NodePriorityTimeout, DefaultNodePriorityTimeout)
	}
}

// Sparse is the inverse of Defaults: a copy in which every value that equals its default is left out, for export. The
// policies stay, because nobody should have to know by heart what a group does.
func (d *Definition) Sparse() *Definition {
	c := d.Clone()
	c.Defaults()
	for i := range c.Nodes {
		if p := c.Nodes[i].StartOnBoot; p != nil && *p {
			c.Nodes[i].StartOnBoot = nil
		}
	}
	for i := range c.Networks {
		drop(&c.Networks[i].Distribution, DefaultDistribution)
	}
	for i := range c.VolumeGroups {
		drop(&c.VolumeGroups[i].Mode, VolumeGroupExclusive)
	}
	for i := range c.FileSystems {
		drop(&c.FileSystems[i].Check, "fsck")
		drop(&c.FileSystems[i].StopTimeout, DefaultStopTimeoutFileSystem)
	}
	for i := range c.ApplicationControllers {
		a := &c.ApplicationControllers[i]
		drop(&a.StartupMode, "foreground")
		if !a.OwnTimes() {
			drop(&a.StartTimeout, DefaultStartTimeout)
			drop(&a.StopTimeout, DefaultStopTimeout)
		}
	}
	for i := range c.ApplicationMonitors {
		c.ApplicationMonitors[i].sparse()
	}
	for i := range c.FenceDevices {
		drop(&c.FenceDevices[i].Timeout, DefaultFenceTimeout)
	}
	for i := range c.ResourceGroups {
		g := &c.ResourceGroups[i]
		if g.NodePriorityPolicy == PriorityLeast || g.NodePriorityPolicy == PriorityMost {
			drop(&g.NodePriorityTimeout, DefaultNodePriorityTimeout)
		}
		drop(&g.OnReleaseFailure, OnReleaseFailureError)
	}
	for i := range c.Methods {
		drop(&c.Methods[i].Type, MethodVerify)
		drop(&c.Methods[i].Timeout, DefaultMethodTimeout)
	}
	for i := range c.Events {
		drop(&c.Events[i].Timeout, DefaultEventTimeout)
	}
	s := &c.Settings
	drop(&s.Profile, DefaultProfile)
	drop(&s.DeadmanMode, DefaultDeadmanMode)
	drop(&s.FailureWindow, DefaultFailureWindow)
	drop(&s.MaxEventTime, DefaultMaxEventTime)
	drop(&s.MaxGroupTime, DefaultMaxGroupTime)
	return c
}

func (m *ApplicationMonitor) sparse() {
	drop(&m.RestartInterval, m.defaultRestartInterval())
	drop(&m.Mode, "longrunning")
	drop(&m.MonitorInterval, m.defaultInterval())
	drop(&m.Stabilization, m.defaultStabilization())
	drop(&m.HungSignal, DefaultHungSignal)
	drop(&m.FailureAction, "notify")
	drop(&m.InstanceCount, DefaultInstanceCount)
	if m.RestartCount != nil && *m.RestartCount == DefaultRestartCount {
		m.RestartCount = nil
	}
}

func fill[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func drop[T comparable](p *T, v T) {
	if *p == v {
		var zero T
		*p = zero
	}
}
