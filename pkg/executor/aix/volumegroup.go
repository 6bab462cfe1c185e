package aix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// VolumeGroups is the executor of volume groups: plain varyonvg and varyoffvg, or, where the definition says so and RSCT's
// group services run, enhanced concurrent mode, active here and passive elsewhere.
//
// Nothing in a disk without a reserve keeps a second node from varying on the same volume group. That only one does is the
// lease's and the fence's work; this executor is called on one node.
type VolumeGroups struct{ sys *System }

var _ executor.Executor = (*VolumeGroups)(nil)

// VolumeGroups makes the executor of volume groups.
func (s *System) VolumeGroups() *VolumeGroups { return &VolumeGroups{s} }

// Kind is that of volume groups.
func (x *VolumeGroups) Kind() executor.Kind { return executor.KindVolumeGroup }

// Ids of messages, as they are published.
const (
	idNotVariedOn = "0516-010" // must be varied on
	idNoQuorum    = "0516-052" // cannot be varied on without a quorum
	idOpenVolume  = "0516-012" // a logical volume must be closed
	idLocked      = "0516-1201"
)

// Validate checks that the volume group is known here, or can be imported, and that its mode can be had.
func (x *VolumeGroups) Validate(ctx context.Context, r executor.Resource) error {
	g := r.VolumeGroup
	if g == nil {
		return errMissing("volume group")
	}
	if err := x.sys.need("lsvg", "lspv", "varyonvg", "varyoffvg", "importvg", "chvg"); err != nil {
		return err
	}
	var errs []error
	if g.Mode == cluster.VolumeGroupEnhanced {
		errs = append(errs, x.groupServices(ctx, r))
	}
	known, err := x.known(ctx, r)
	switch {
	case err != nil:
		errs = append(errs, err)
	case known:
	case !g.AutoImport:
		errs = append(errs, fmt.Errorf("volume group %s is not known on this node: import it (importvg -y %s hdiskN, then varyoffvg), "+
			"or set vg_auto_import and its physical_volumes", g.Name, g.Name))
	default:
		_, err := x.disk(ctx, r)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// groupServices checks that enhanced concurrent mode is to be had: it needs RSCT's group services.
func (x *VolumeGroups) groupServices(ctx context.Context, r executor.Resource) error {
	for _, name := range []string{"cthags", "grpsvcs"} {
		o := x.sys.ask(ctx, r, "lssrc", "-s", name)
		for _, s := range parseLssrc(o.Output) {
			if s.name == name && s.status == "active" {
				return nil
			}
		}
	}
	return fmt.Errorf("volume group %s cannot be used in enhanced concurrent mode: RSCT group services (cthags) are not active on this "+
		"node; set its mode to %s", r.VolumeGroup.Name, cluster.VolumeGroupExclusive)
}

// known reports whether the volume group is in this node's ODM.
func (x *VolumeGroups) known(ctx context.Context, r executor.Resource) (bool, error) {
	o := x.sys.ask(ctx, r, "lsvg")
	if o.Err != nil {
		return false, fmt.Errorf("list the volume groups: %w", failed(o))
	}
	return slices.Contains(strings.Fields(o.Output), r.VolumeGroup.Name), nil
}

// disk finds one of the volume group's disks on this node: hdisk numbers differ between nodes, PVIDs do not.
func (x *VolumeGroups) disk(ctx context.Context, r executor.Resource) (string, error) {
	g := r.VolumeGroup
	o := x.sys.ask(ctx, r, "lspv")
	if o.Err != nil {
		return "", fmt.Errorf("list the disks: %w", failed(o))
	}
	for _, p := range parseLspv(o.Output) {
		if p.group == g.Name || slices.Contains(g.PhysicalVolumes, p.pvid) && p.pvid != "" {
			return p.disk, nil
		}
	}
	if len(g.PhysicalVolumes) == 0 {
		return "", fmt.Errorf("no disk of this node belongs to volume group %s, and the definition names none (physical_volumes)", g.Name)
	}
	return "", fmt.Errorf("no disk of volume group %s is on this node: none of the PVIDs %s is in lspv", g.Name, strings.Join(g.PhysicalVolumes, ", "))
}

// Probe asks which volume groups are varied on here in active mode. Answers that wait for no lock (lsvg -L) may be out of date:
// they describe the volume group, they do not decide.
func (x *VolumeGroups) Probe(ctx context.Context, r executor.Resource) executor.Result {
	g := r.VolumeGroup
	if g == nil {
		return unknown(errMissing("volume group"))
	}
	if err := x.sys.atWork(r); err != nil {
		return unknown(err)
	}
	o := x.sys.ask(ctx, r, "lsvg", "-o")
	if o.Err != nil {
		return unknown(fmt.Errorf("see which volume groups are varied on: %w", failed(o)))
	}
	names := strings.Fields(o.Output)
	if slices.ContainsFunc(names, isMessage) {
		return unknown(fmt.Errorf("see which volume groups are varied on: %w", failed(o)))
	}
	if !slices.Contains(names, g.Name) {
		return say(executor.Stopped, "volume group %s is not varied on", g.Name)
	}
	return x.describe(ctx, r)
}

func (x *VolumeGroups) describe(ctx context.Context, r executor.Resource) executor.Result {
	g := r.VolumeGroup
	o := x.sys.ask(ctx, r, "lsvg", "-L", g.Name)
	info, err := parseLsvg(o.Output)
	switch {
	case has(o, idNotVariedOn):
		return say(executor.Stopped, "volume group %s is not varied on", g.Name)
	case o.Err != nil || err != nil:
		return say(executor.Running, "volume group %s is varied on", g.Name) // lsvg -o has said so
	case info.permission == "passive-only":
		return say(executor.Stopped, "volume group %s is varied on in passive mode only", g.Name)
	case info.permission == "read-only":
		return say(executor.Degraded, "volume group %s is varied on, but for reading only", g.Name)
	case info.active >= 0 && info.total > info.active:
		return say(executor.Running, "volume group %s is varied on; %d of its %d disks are missing", g.Name, info.total-info.active, info.total)
	}
	return say(executor.Running, "volume group %s is varied on", g.Name)
}

// Start makes the volume group known here and up to date, clears a lock that nobody holds any more, and varies it on.
func (x *VolumeGroups) Start(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Degraded {
		return because(before, fmt.Errorf("it is not varied on again: %s", before.Detail))
	}
	if before.Status != executor.Stopped {
		return before
	}
	g := r.VolumeGroup
	if g.Mode == cluster.VolumeGroupEnhanced {
		if err := x.groupServices(ctx, r); err != nil {
			return because(before, err)
		}
	}
	fail := func(err error) executor.Result { return because(x.Probe(context.WithoutCancel(ctx), r), err) }
	known, err := x.known(ctx, r)
	how := ""
	switch {
	case err != nil:
	case !known:
		err = x.importGroup(ctx, r)
	default:
		if err = x.unlock(ctx, r); err == nil {
			x.refresh(ctx, r)
			how, err = x.varyOn(ctx, r)
		}
	}
	if err != nil {
		return fail(err)
	}
	res := x.Probe(ctx, r)
	if res.Status != executor.Running {
		return because(res, fmt.Errorf("volume group %s was varied on but is not well: %s", g.Name, res.Detail))
	}
	res.Detail += how
	return res
}

// importGroup makes an unknown volume group known, and varied on. importvg sets quorum and automatic varyon to their defaults, so both are set
// again: a cluster's volume group must not come up at boot, nor go off while a majority of copies is lost.
func (x *VolumeGroups) importGroup(ctx context.Context, r executor.Resource) error {
	g := r.VolumeGroup
	if !g.AutoImport {
		return fmt.Errorf("volume group %s is not known on this node: import it (importvg), or set vg_auto_import", g.Name)
	}
	disk, err := x.disk(ctx, r)
	if err != nil {
		return err
	}
	args := []string{"-y", g.Name, disk}
	if g.MajorNumber > 0 {
		args = append([]string{"-V", strconv.Itoa(g.MajorNumber)}, args...)
	}
	x.sys.log.Warn("a volume group that this node does not know is imported", "volume_group", g.Name, "disk", disk)
	if o := x.sys.do(ctx, r, "importvg", "importvg", args...); o.Err != nil {
		return fmt.Errorf("import volume group %s from %s: %w", g.Name, disk, failed(o))
	}
	if x.Probe(ctx, r).Status != executor.Running { // enhanced concurrent capable ones are not varied on by the import
		if _, err := x.varyOn(ctx, r); err != nil {
			return err
		}
	}
	if o := x.sys.do(ctx, r, "chvg", "chvg", "-a", "n", "-Q", "n", g.Name); o.Err != nil {
		return fmt.Errorf("volume group %s was imported but would vary on at boot: set that with chvg -a n: %w", g.Name, failed(o))
	}
	return nil
}

// unlock clears a lock that an LVM command left behind when it was killed. A lock whose command may still run is respected.
func (x *VolumeGroups) unlock(ctx context.Context, r executor.Resource) error {
	g := r.VolumeGroup
	o := x.sys.run(ctx, step{r: r, op: "look", timeout: x.sys.o.LockTimeout, look: true, command: "lsvg", args: []string{g.Name}})
	if !has(o, idLocked) {
		return nil // it answered, or it failed for a cause that the varyon will show
	}
	if o.Err == nil {
		return nil // the lock was given back while lsvg waited
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("volume group %s is locked: %w", g.Name, context.Cause(ctx))
	}
	at, err := x.lvmAtWork(ctx, r)
	if err != nil {
		return fmt.Errorf("volume group %s is locked, and who holds the lock cannot be seen: %w", g.Name, err)
	}
	if at != "" {
		return fmt.Errorf("volume group %s is locked, and %s is at work on this node: wait for its end, or end it and run chvg -u %s", g.Name, at, g.Name)
	}
	x.sys.log.Warn("a volume group is locked and no LVM command runs: the lock is removed", "volume_group", g.Name)
	if o := x.sys.do(ctx, r, "chvg", "chvg", "-u", g.Name); o.Err != nil {
		return fmt.Errorf("remove the lock of volume group %s: %w", g.Name, failed(o))
	}
	return nil
}

// lvmCommands take the lock of a volume group.
var lvmCommands = strings.Fields(`varyonvg varyoffvg importvg exportvg chvg extendvg reducevg mkvg mklv rmlv chlv extendlv mirrorvg unmirrorvg
	syncvg migratepv replacepv mklvcopy rmlvcopy redefinevg synclvodm savevg restvg reorgvg splitvg joinvg mkvg4vp chfs crfs rmfs`)

// lvmAtWork names an LVM command that runs on this node.
func (x *VolumeGroups) lvmAtWork(ctx context.Context, r executor.Resource) (string, error) {
	o := x.sys.ask(ctx, r, "ps", "-e", "-o", "comm")
	if o.Err != nil {
		return "", failed(o)
	}
	for name := range strings.FieldsSeq(o.Output) {
		if slices.Contains(lvmCommands, name[strings.LastIndexByte(name, '/')+1:]) {
			return name, nil
		}
	}
	return "", nil
}

// refresh makes this node learn what another has changed in the volume group while it had it (the lazy update): when the
// timestamp in the disks is not the one in the ODM, or when one of them cannot be read. A failure is no reason not to vary on.
func (x *VolumeGroups) refresh(ctx context.Context, r executor.Resource) {
	g := r.VolumeGroup
	disk, err := x.disk(ctx, r)
	if err != nil {
		return // the varyon will tell
	}
	here := x.sys.ask(ctx, r, "getlvodm", "-T", g.Name)
	there := x.sys.ask(ctx, r, "lqueryvg", "-p", disk, "-T")
	if here.Err == nil && there.Err == nil && strings.TrimSpace(here.Output) == strings.TrimSpace(there.Output) {
		return
	}
	if o := x.sys.do(ctx, r, "importvg", "importvg", "-L", g.Name, "-n", disk); o.Err != nil {
		x.sys.log.Warn("what has changed in a volume group could not be learned", "volume_group", g.Name, "disk", disk, "cause", failed(o).Error())
		return
	}
	x.sys.log.Info("this node has learned what was changed in a volume group", "volume_group", g.Name, "disk", disk)
}

// varyOn varies the volume group on. When disks do not answer, reserves of a node that is gone are broken once; when they are
// missing, only FORCED_VARYON goes on without them. The result is a clause for the operator.
func (x *VolumeGroups) varyOn(ctx context.Context, r executor.Resource) (string, error) {
	g := r.VolumeGroup
	args := []string{"-n", g.Name} // stale partitions are synchronised by the administrator's own means: it takes its time
	if g.Mode == cluster.VolumeGroupEnhanced {
		args = []string{"-n", "-c", "-A", "-O", g.Name}
	}
	o := x.sys.do(ctx, r, "varyonvg", "varyonvg", args...)
	if o.Err == nil {
		return "", nil
	}
	if !has(o, idNoQuorum) {
		return "", fmt.Errorf("vary on volume group %s: %w", g.Name, failed(o))
	}
	if broken := x.breakReserves(ctx, r); len(broken) > 0 {
		if o = x.sys.do(ctx, r, "varyonvg", "varyonvg", args...); o.Err == nil {
			return "; the reserve of another node was broken on " + strings.Join(broken, ", "), nil
		}
	}
	if !g.Forced || !has(o, idNoQuorum) {
		return "", fmt.Errorf("vary on volume group %s: disks are missing (%s): %w; if their data may be given up, set forced_varyon", g.Name,
			missing(o.Output), failed(o))
	}
	lost := missing(o.Output)
	x.sys.log.Error("a volume group is varied on by force although disks are missing", "volume_group", g.Name, "missing", lost)
	if o = x.sys.do(ctx, r, "varyonvg", "varyonvg", append([]string{"-f"}, args...)...); o.Err != nil {
		return "", fmt.Errorf("vary on volume group %s by force: %w", g.Name, failed(o))
	}
	return "; by force, without " + lost, nil
}

// missing lists the disks that varyonvg says are missing.
func missing(output string) string {
	var out []string
	for line := range strings.Lines(output) {
		if f := strings.Fields(line); slices.Contains(f, "PVMISSING") && len(f) > 3 {
			out = append(out, strings.Join(f[2:len(f)-1], " "))
		}
	}
	if len(out) == 0 {
		return "which, varyonvg does not say"
	}
	return strings.Join(out, ", ")
}

// breakReserves breaks SCSI-2 reserves on the volume group's disks that this node does not hold itself. The start is under a
// proof that the other holder is gone; a reserve outlives its node.
func (x *VolumeGroups) breakReserves(ctx context.Context, r executor.Resource) []string {
	var out []string
	o := x.sys.ask(ctx, r, "lspv")
	for _, p := range parseLspv(o.Output) {
		if p.group != r.VolumeGroup.Name {
			continue
		}
		q := x.sys.ask(ctx, r, "devrsrv", "-c", "query", "-l", p.disk)
		state, open := parseReservation(q.Output)
		if q.Err != nil || open || !strings.HasPrefix(state, "SINGLE PATH") {
			continue
		}
		x.sys.log.Warn("the reserve of another node on a disk is broken", "disk", p.disk, "volume_group", r.VolumeGroup.Name)
		if b := x.sys.do(ctx, r, "devrsrv", "devrsrv", "-f", "-l", p.disk); b.Err != nil {
			x.sys.log.Error("the reserve of another node cannot be broken", "disk", p.disk, "cause", failed(b).Error())
			continue
		}
		out = append(out, p.disk)
	}
	return out
}

// Stop varies the volume group off, or back to passive mode. While a logical volume is open it cannot be: who holds it is named.
func (x *VolumeGroups) Stop(ctx context.Context, r executor.Resource) executor.Result {
	before := x.Probe(ctx, r)
	if before.Status == executor.Stopped || before.Status == executor.Unknown {
		return before
	}
	g := r.VolumeGroup
	if err := x.unlock(ctx, r); err != nil {
		return because(before, err)
	}
	command, args := "varyoffvg", []string{g.Name}
	if g.Mode == cluster.VolumeGroupEnhanced {
		command, args = "varyonvg", []string{"-n", "-c", "-P", g.Name}
	}
	o := x.sys.do(ctx, r, "varyoffvg", command, args...)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*x.sys.o.QueryTimeout)
	defer cancel()
	res := x.Probe(after, r)
	if res.Status == executor.Stopped && (o.Err == nil || !errors.Is(o.Err, executor.ErrStuck)) {
		return res
	}
	err := fmt.Errorf("vary off volume group %s: %s", g.Name, res.Detail)
	if o.Err != nil {
		err = fmt.Errorf("vary off volume group %s: %w%s", g.Name, failed(o), x.openVolumes(after, r, o))
	}
	return because(res, err)
}

// openVolumes names the logical volumes that keep a volume group from being varied off.
func (x *VolumeGroups) openVolumes(ctx context.Context, r executor.Resource, o executor.Outcome) string {
	if !has(o, idOpenVolume) {
		return ""
	}
	var open []string
	for _, lv := range parseVolumes(x.sys.ask(ctx, r, "lsvg", "-L", "-l", r.VolumeGroup.Name).Output) {
		if lv.open {
			text := lv.name
			if lv.point != "" {
				text += " (" + lv.point + ")"
			}
			open = append(open, text)
		}
	}
	if len(open) == 0 {
		return ""
	}
	return "; open: " + strings.Join(open, ", ")
}
