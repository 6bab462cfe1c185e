package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Addresses is the executor of service or persistent addresses. It is also an executor.Announcer.
type Addresses struct {
	kind executor.Kind
	wait time.Duration
	log  *slog.Logger

	mu        sync.Mutex
	announces map[netip.Addr]*announcement
	prepared  map[netip.Addr]*preparation
	coming    map[netip.Addr]int // addresses that are being put on an interface, by its index
	closed    bool
}

// A preparation is a probe made ahead.
type preparation struct {
	index int // of the interface
	begun time.Time
	done  chan struct{} // closed at its end
	free  bool          // nobody answered; read it after done
}

// changes lets one change of addresses go on at a time in this process: the kernel removes addresses together, and what is put
// back after one removal must not be what another one is removing. It is held for some netlink calls, never for a wait.
var changes sync.Mutex

// An announcement is repeated in the background until it is through or stopped.
type announcement struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (a *announcement) stop() {
	a.cancel()
	<-a.done
}

var (
	_ executor.Executor  = (*Addresses)(nil)
	_ executor.Announcer = (*Addresses)(nil)
	_ executor.Preparer  = (*Addresses)(nil)
	_ executor.Mover     = (*Addresses)(nil)
)

// NewServiceIP makes the executor of service addresses. Close it to end its announcements.
func NewServiceIP(o AddressOptions) *Addresses { return newAddresses(executor.KindServiceIP, o) }

// NewPersistentIP makes the executor of persistent addresses. Close it to end its announcements.
func NewPersistentIP(o AddressOptions) *Addresses { return newAddresses(executor.KindPersistentIP, o) }

func newAddresses(kind executor.Kind, o AddressOptions) *Addresses {
	if o.ProbeWait == 0 {
		o.ProbeWait = DefaultProbeWait
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Addresses{kind: kind, wait: o.ProbeWait, log: o.Logger.With("component", "address"),
		announces: map[netip.Addr]*announcement{}, prepared: map[netip.Addr]*preparation{}, coming: map[netip.Addr]int{}}
}

// Kind is that of service or of persistent addresses.
func (x *Addresses) Kind() executor.Kind { return x.kind }

// Close ends the announcements in the background and waits for them. Addresses stay where they are.
func (x *Addresses) Close() {
	x.mu.Lock()
	x.closed = true
	all := x.announces
	x.announces = map[netip.Addr]*announcement{}
	x.mu.Unlock()
	for _, a := range all {
		a.stop()
	}
}

// Validate checks that this node has an interface for the address. A link that is down now is no fault of the definition.
func (x *Addresses) Validate(_ context.Context, r executor.Resource) error {
	all, err := interfaces()
	if err != nil {
		return err
	}
	c, err := choose(all, r.IP)
	if c.on != nil {
		return nil
	}
	return err
}

// Probe looks for the address on all interfaces.
func (x *Addresses) Probe(_ context.Context, r executor.Resource) executor.Result {
	w, err := r.IP.Wanted()
	if err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	all, err := interfaces()
	if err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	return describe(w.Addr, holders(all, w.Addr))
}

// describe is what a probe says of an address that is on those interfaces.
func describe(addr netip.Addr, on []*netInterface) executor.Result {
	switch {
	case len(on) == 0:
		return executor.Result{Status: executor.Stopped, Detail: fmt.Sprintf("address %s is on no interface", addr)}
	case len(on) > 1:
		return executor.Result{Status: executor.Degraded,
			Detail: fmt.Sprintf("address %s is on several interfaces at once: %s", addr, names(on))}
	case !on[0].usable():
		return executor.Result{Status: executor.Degraded,
			Detail: fmt.Sprintf("address %s is on %s, but that interface %s", addr, on[0].name, on[0].state())}
	}
	own, _ := on[0].carries(addr)
	return executor.Result{Status: executor.Running, Detail: fmt.Sprintf("address %s is on %s", own.prefix, on[0].name)}
}

// Start puts the address on the right interface and announces it. An address that somebody else on the network answers for is
// not taken; one that sits on a wrong interface of this node is moved.
func (x *Addresses) Start(ctx context.Context, r executor.Resource) executor.Result {
	all, err := interfaces()
	if err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	c, arrived, err := x.reserve(all, r.IP)
	if err != nil {
		return x.failed(ctx, r, err)
	}
	defer arrived()
	w, _ := r.IP.Wanted() // reserve has read it
	if len(holders(all, w.Addr)) == 0 {
		if err := x.checkFree(ctx, c.on, all, w.Addr); err != nil {
			return x.failed(ctx, r, err)
		}
	}
	if err := x.place(c, w.Addr); err != nil {
		return x.failed(ctx, r, err)
	}
	if err := x.announce(ctx, c.on, w.Addr); err != nil {
		x.log.Warn("the address could not be announced; neighbours may keep the old one for a while", "address", w.Addr.String(),
			"cause", err.Error())
	}
	res := x.Probe(ctx, r)
	if res.Status != executor.Running {
		res.Err = fmt.Errorf("address %s was set but is not well: %s", w.Addr, res.Detail)
		return res
	}
	res.Detail += ": " + c.why
	return res
}

// Relocate takes the address to an interface of its network that is well, when the one that it is on is not.
//
// No two machines hold it by that: it stays on this one, whose lease covers it before, meanwhile and after, and a caller relocates
// only what it holds. Nobody is asked whether the address is free: this node is the one who may answer for it. It leaves the old
// interface first, also one without a carrier, on which it would else stay configured: for a moment it is nowhere, and never on
// two interfaces. If it cannot be taken off the old one, it is not put on another.
func (x *Addresses) Relocate(ctx context.Context, r executor.Resource) (executor.Relocation, error) {
	all, err := interfaces()
	if err != nil {
		return executor.Relocation{}, err
	}
	c, arrived, err := x.reserve(all, r.IP)
	if err != nil {
		return executor.Relocation{}, err
	}
	defer arrived()
	w, _ := r.IP.Wanted() // reserve has read it
	held := holders(all, w.Addr)
	if len(held) == 1 && slices.ContainsFunc(c.also, func(i *netInterface) bool { return i.index == held[0].index }) {
		return executor.Relocation{From: held[0].name, To: held[0].name, Why: held[0].name + " carries it already"}, nil
	}
	m := executor.Relocation{From: names(held), To: c.on.name, Why: c.why}
	if err := x.place(c, w.Addr); err != nil {
		return m, err
	}
	if err := x.announce(ctx, c.on, w.Addr); err != nil {
		x.log.Warn("the address could not be announced; neighbours may keep the old one for a while", "address", w.Addr.String(),
			"cause", err.Error())
	}
	if res := x.Probe(ctx, r); res.Status != executor.Running {
		return m, fmt.Errorf("address %s was moved to %s but is not well: %s", w.Addr, c.on.name, res.Detail)
	}
	m.Moved = true
	return m, nil
}

// reserve chooses the interface for an address, and lets it count there for other choices until arrived is called: addresses come side
// by side, and each must see where the others go. An address that is on one that is good enough stays there.
func (x *Addresses) reserve(all []*netInterface, a *executor.Address) (c choice, arrived func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	w, err := a.Wanted()
	if err != nil {
		return c, nil, err
	}
	for addr, index := range x.coming {
		for _, i := range all {
			if _, there := i.carries(addr); i.index == index && !there && addr != w.Addr {
				i.addresses = append(i.addresses, ifAddress{prefix: netip.PrefixFrom(addr, addr.BitLen()), secondary: true})
			}
		}
	}
	if c, err = choose(all, a); err != nil {
		return c, nil, err
	}
	for _, i := range c.also { // good enough where it is: do not move it between equals
		if _, ok := i.carries(w.Addr); ok {
			c.on, c.prefix, c.why = i, w.PrefixOn(i.prefixes()), i.name+" carries it already"
		}
	}
	x.coming[w.Addr] = c.on.index
	return c, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.coming, w.Addr)
	}, nil
}

// failed is the result of a start that ended with err, with what is there now.
func (x *Addresses) failed(ctx context.Context, r executor.Resource, err error) executor.Result {
	res := x.Probe(ctx, r)
	return executor.Result{Status: res.Status, Detail: err.Error(), Err: err}
}

// Prepare asks the network whether the address is free, so that a Start within preparedFor need not wait for that. An answer is
// not kept: at that time the address may still be with the node that is to lose it, so a Start asks again.
//
// It is for IPv4 only, whose probe names no sender. Two nodes that solicit the same IPv6 address at once each take the other for
// one that is about to use it: a node that only gets ready must not keep another from its start.
func (x *Addresses) Prepare(ctx context.Context, r executor.Resource) {
	all, err := interfaces()
	if err != nil {
		return
	}
	c, err := choose(all, r.IP)
	if err != nil {
		return
	}
	w, _ := r.IP.Wanted()
	if w.Addr.Is6() || len(holders(all, w.Addr)) > 0 {
		return
	}
	x.mu.Lock()
	if p := x.prepared[w.Addr]; x.closed || p != nil && p.index == c.on.index && time.Since(p.begun) < preparedFor {
		x.mu.Unlock()
		return
	}
	p := &preparation{index: c.on.index, begun: time.Now(), done: make(chan struct{})}
	x.prepared[w.Addr] = p
	x.mu.Unlock()
	defer close(p.done)
	who, err := inUse(ctx, c.on, ownAddresses(all), w.Addr, x.wait)
	p.free = err == nil && who == nil && ctx.Err() == nil
}

// foundFree takes the outcome of a preparation, once, and reports whether it found the address free a moment ago.
func (x *Addresses) foundFree(ctx context.Context, on *netInterface, addr netip.Addr) bool {
	x.mu.Lock()
	p := x.prepared[addr]
	delete(x.prepared, addr)
	x.mu.Unlock()
	if p == nil || p.index != on.index || time.Since(p.begun) >= preparedFor {
		return false
	}
	select {
	case <-p.done:
		return p.free
	case <-ctx.Done():
		return false
	}
}

func ownAddresses(all []*netInterface) []net.HardwareAddr {
	var own []net.HardwareAddr
	for _, i := range all {
		own = append(own, i.mac)
	}
	return own
}

func (x *Addresses) checkFree(ctx context.Context, on *netInterface, all []*netInterface, addr netip.Addr) error {
	if x.foundFree(ctx, on, addr) {
		return nil
	}
	who, err := inUse(ctx, on, ownAddresses(all), addr, x.wait)
	if err != nil {
		return fmt.Errorf("ask the network whether %s is free: %w", addr, err)
	}
	if who != nil {
		return fmt.Errorf("address %s is in use on the network: %s answers for it on %s; it was not taken", addr, who, on.name)
	}
	return nil
}

// place adds the address where it belongs and removes it where it does not.
func (x *Addresses) place(c choice, addr netip.Addr) error {
	changes.Lock()
	defer changes.Unlock()
	all, err := interfaces()
	if err != nil {
		return err
	}
	for _, i := range holders(all, addr) {
		own, _ := i.carries(addr)
		if i.index == c.on.index && own.prefix.Bits() == c.prefix {
			continue
		}
		x.log.Info("the address is moved", "address", own.prefix.String(), "from", i.name, "to", c.on.name)
		if err := remove(i, own); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByIndex(c.on.index)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", c.on.name, err)
	}
	prefix := netip.PrefixFrom(addr, c.prefix)
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if addr.Is6() {
		// No duplicate address detection: it takes a second, and we have asked already. And not preferred as a source:
		// connections of the node itself come from its own address.
		a.Flags = unix.IFA_F_NODAD
		a.ValidLft = math.MaxUint32
		if !hasOwnIn(c.on, prefix.Masked(), addr) {
			a.PreferedLft = math.MaxUint32
		}
	}
	if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add %s to %s: %w%s", prefix, c.on.name, err, hint(err, addr))
	}
	return nil
}

func hint(err error, addr netip.Addr) string {
	switch {
	case errors.Is(err, unix.EACCES) && addr.Is6(), errors.Is(err, unix.EOPNOTSUPP) && addr.Is6():
		return " (is IPv6 switched off on that interface?)"
	case errors.Is(err, unix.EPERM):
		return " (the daemon needs CAP_NET_ADMIN)"
	}
	return ""
}

// Stop removes the address from all interfaces and sees that it is gone. Addresses that the kernel removes together with it
// are put back.
func (x *Addresses) Stop(ctx context.Context, r executor.Resource) executor.Result {
	w, err := r.IP.Wanted()
	if err != nil {
		return executor.Result{Status: executor.Unknown, Detail: err.Error(), Err: err}
	}
	x.quiet(w.Addr)
	err = removeEverywhere(w.Addr)
	res := x.Probe(ctx, r)
	if res.Status != executor.Stopped {
		res.Err = errors.Join(err, fmt.Errorf("address %s is still there: %s", w.Addr, res.Detail))
		return res
	}
	if err != nil {
		x.log.Warn("removing the address had side effects", "address", w.Addr.String(), "cause", err.Error())
	}
	return res
}

func removeEverywhere(addr netip.Addr) error {
	changes.Lock()
	defer changes.Unlock()
	all, err := interfaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range holders(all, addr) {
		own, _ := i.carries(addr)
		errs = append(errs, remove(i, own))
	}
	return errors.Join(errs...)
}

// remove takes the address off the interface. The kernel may remove secondary addresses of the subnet together with their
// primary one; those are kept. The caller holds changes.
func remove(i *netInterface, own ifAddress) error {
	link, err := netlink.LinkByIndex(i.index)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", i.name, err)
	}
	var siblings []netip.Prefix
	for _, o := range i.addresses {
		if o.secondary && o.prefix != own.prefix && o.prefix.Masked() == own.prefix.Masked() {
			siblings = append(siblings, o.prefix)
		}
	}
	if !own.secondary && len(siblings) > 0 {
		path := "/proc/sys/net/ipv4/conf/" + strings.ReplaceAll(i.name, "/", ".") + "/promote_secondaries"
		_ = os.WriteFile(path, []byte("1"), 0) // without it they are put back below
	}
	err = netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(own.prefix)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove %s from %s: %w", own.prefix, i.name, err)
	}
	var errs []error
	for _, s := range siblings {
		err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(s)})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("put %s back on %s: %w", s, i.name, err))
		}
	}
	return errors.Join(errs...)
}

// Announce tells the neighbours again where the address is: at once, and several times in the background.
func (x *Addresses) Announce(ctx context.Context, r executor.Resource) error {
	w, err := r.IP.Wanted()
	if err != nil {
		return err
	}
	all, err := interfaces()
	if err != nil {
		return err
	}
	on := holders(all, w.Addr)
	if len(on) != 1 {
		return fmt.Errorf("announce %s: %s", w.Addr, describe(w.Addr, on).Detail)
	}
	return x.announce(ctx, on[0], w.Addr)
}

func (x *Addresses) announce(_ context.Context, i *netInterface, addr netip.Addr) error {
	x.quiet(addr)
	first := announceOnce(i, addr)
	ctx, cancel := context.WithCancel(context.Background())
	a := &announcement{cancel: cancel, done: make(chan struct{})}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		cancel()
		return first
	}
	x.announces[addr] = a
	go x.repeat(ctx, a, i, addr)
	return first
}

// repeat announces the address again until the schedule is through.
func (x *Addresses) repeat(ctx context.Context, a *announcement, i *netInterface, addr netip.Addr) {
	defer close(a.done)
	defer a.cancel()
	began := time.Now()
	for _, after := range announceAfter {
		t := time.NewTimer(time.Until(began.Add(after)))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if err := announceOnce(i, addr); err != nil {
			x.log.Warn("the address could not be announced again", "address", addr.String(), "cause", err.Error())
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.announces[addr] == a {
		delete(x.announces, addr)
	}
}

// quiet ends the announcements of the address; when it returns no further frame goes out.
func (x *Addresses) quiet(addr netip.Addr) {
	x.mu.Lock()
	a := x.announces[addr]
	delete(x.announces, addr)
	x.mu.Unlock()
	if a != nil {
		a.stop()
	}
}

// interfaces takes a snapshot of all network interfaces, in the order of their indexes.
func interfaces() ([]*netInterface, error) {
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	addrs, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of the network interfaces: %w", err)
	}
	byIndex := map[int]*netInterface{}
	var out []*netInterface
	for _, l := range links {
		at := l.Attrs()
		i := &netInterface{index: at.Index, name: at.Name, mac: at.HardwareAddr,
			up:        at.RawFlags&unix.IFF_UP != 0,
			carrier:   at.RawFlags&unix.IFF_LOWER_UP != 0,
			broadcast: at.RawFlags&unix.IFF_BROADCAST != 0 && at.RawFlags&unix.IFF_NOARP == 0 && len(at.HardwareAddr) == 6}
		byIndex[at.Index] = i
		out = append(out, i)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if i := byIndex[a.LinkIndex]; ok && i != nil {
			i.addresses = append(i.addresses, ifAddress{prefix: netip.PrefixFrom(ip.Unmap(), bits),
				secondary: a.Flags&unix.IFA_F_SECONDARY != 0 && ip.Unmap().Is4()})
		}
	}
	sort.Slice(out, func(a, b int) bool { return out[a].index < out[b].index })
	return out, nil
}

// retryDump repeats a listing that the kernel says was changed under it.
func retryDump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		out, err := list()
		if try < 10 && errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		return out, err
	}
}

func holders(all []*netInterface, addr netip.Addr) []*netInterface {
	var out []*netInterface
	for _, i := range all {
		if _, ok := i.carries(addr); ok {
			out = append(out, i)
		}
	}
	return out
}

func names(list []*netInterface) string {
	var out []string
	for _, i := range list {
		out = append(out, i.name)
	}
	return strings.Join(out, ", ")
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
