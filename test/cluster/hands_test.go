package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// A hand is one process's executor of one kind: it takes its time, can be held up, and moves nothing once its process has ended.
type hand struct {
	inner executor.Executor
	p     *process
}

func (p *process) hands() executor.Registry {
	var all []executor.Executor
	for _, e := range p.m.r.world.Registry(p.m.name) {
		all = append(all, &hand{inner: e, p: p})
	}
	return executor.NewRegistry(all...)
}

func (h *hand) Kind() executor.Kind { return h.inner.Kind() }

func (h *hand) Validate(ctx context.Context, r executor.Resource) error {
	return h.inner.Validate(ctx, r)
}

// Fit refuses by a snag of that name.
func (h *hand) Fit(_ context.Context, r executor.Resource) error {
	if s := h.p.m.r.snagFor(h.p.m.name, "fit", r.Name); s != nil {
		return s.err
	}
	return nil
}

func (h *hand) Probe(ctx context.Context, r executor.Resource) executor.Result {
	h.p.m.r.probes.Add(1)
	if err := h.pass(ctx, "probe", r); err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	return h.inner.Probe(ctx, r)
}

func (h *hand) Start(ctx context.Context, r executor.Resource) executor.Result {
	if err := h.pass(ctx, "start", r); err != nil {
		return h.failed(ctx, r, err)
	}
	m := h.p.m
	m.mu.Lock() // the machine's end and this effect come one after the other
	if h.p.ended.Load() || !m.on {
		m.mu.Unlock()
		_ = h.p.dead()
		return executor.Result{Status: executor.Unknown, Detail: errEnded.Error(), Err: errEnded}
	}
	res := h.inner.Start(context.WithoutCancel(ctx), r)
	if r.Kind != executor.KindPersistentIP {
		m.r.ledger.take(m.name, r, executor.Generation(ctx))
	}
	m.mu.Unlock()
	return res
}

// failed is the truth after a start that had no effect.
func (h *hand) failed(ctx context.Context, r executor.Resource, err error) executor.Result {
	res := executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	if !h.p.ended.Load() {
		res.Status = h.inner.Probe(context.WithoutCancel(ctx), r).Status
	}
	return res
}

func (h *hand) Stop(ctx context.Context, r executor.Resource) executor.Result {
	if err := h.pass(ctx, "stop", r); err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	m := h.p.m
	m.mu.Lock()
	if h.p.ended.Load() || !m.on {
		m.mu.Unlock()
		_ = h.p.dead()
		return executor.Result{Status: executor.Unknown, Detail: errEnded.Error(), Err: errEnded}
	}
	defer m.mu.Unlock()
	res := h.inner.Stop(context.WithoutCancel(ctx), r)
	m.r.ledger.give(m.name, r)
	return res
}

func (h *hand) Announce(ctx context.Context, r executor.Resource) error {
	if h.p.ended.Load() {
		return errEnded
	}
	h.p.m.r.announced.Add(1)
	return nil
}

// A snag holds up or fails what the hands of a node do.
type snag struct {
	node, op, resource string // empty: any
	delay              time.Duration
	err                error
	gate               chan struct{} // until it is closed
	times              atomic.Int32  // how often; negative: for ever
}

// pass is the way to the effect: some time, what holds it up, and the freeze of the machine, which ends no wait early.
func (h *hand) pass(ctx context.Context, op string, r executor.Resource) error {
	p, rig := h.p, h.p.m.r
	delay := time.Duration(1+rig.random(20)) * time.Millisecond
	if op == "probe" {
		delay = time.Millisecond
	}
	s := rig.snagFor(p.m.name, op, r.Name)
	if s != nil {
		delay += s.delay
	}
	if err := p.sleep(ctx, delay); err != nil {
		return fmt.Errorf("%s %s: %w", op, r.Name, err)
	}
	if s != nil && s.gate != nil {
		select {
		case <-s.gate:
		case <-p.ctx.Done():
			return p.dead()
		}
	}
	for {
		p.m.mu.Lock()
		frozen := p.m.frozen
		p.m.mu.Unlock()
		if frozen == nil {
			break
		}
		select {
		case <-frozen:
		case <-p.ctx.Done():
			return p.dead()
		}
	}
	if s != nil && s.err != nil {
		return s.err
	}
	return nil
}

func (p *process) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		if p.ended.Load() {
			return p.dead()
		}
		return context.Cause(ctx)
	case <-p.ctx.Done():
		return p.dead()
	}
}

// dead holds a hand of an ended process until nothing that the process says or writes of it counts.
func (p *process) dead() error {
	<-p.buried
	return errEnded
}

// A fencer is the power switch of all machines, reached over the LAN that a dead process no longer has.
type fencer struct{ p *process }

var errNoPower = errors.New("the power switch does not answer")

func (f *fencer) Off(ctx context.Context, d *cluster.FenceDevice, node string, still func() error) (string, error) {
	r := f.p.m.r
	if err := still(); err != nil {
		return "", err
	}
	if r.fenceHand != nil {
		return r.fenceHand(d.Name, node)
	}
	took := r.fenceTime
	if r.fenceBy != nil {
		took = r.fenceBy(f.p.m.name)
	}
	if err := f.p.sleep(ctx, took); err != nil {
		return "", err
	}
	if r.fenceBroken.Load() || f.p.ended.Load() {
		return "", errNoPower
	}
	r.ledger.say("%s fences %s", f.p.m.name, node)
	r.machines[node].end("fenced by " + f.p.m.name)
	r.shots.Add(1)
	if err := f.p.sleep(ctx, r.fenceAnswer); err != nil {
		return "", err
	}
	return "switch " + d.Name + " says that " + node + " is off", nil
}
