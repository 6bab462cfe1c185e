package aix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The parsers take text as the commands print it with LC_ALL=C. They skip lines that they do not know, and fail when the whole
// is not what it should be: an empty answer is not an answer.

// A netif is one network interface as ifconfig -a and entstat show it.
type netif struct {
	name      string
	up        bool
	quorumOff bool // QUORUMLOSS: taken down by a cluster's quorum
	addresses []netip.Prefix
	link      linkState
}

type linkState int

const (
	linkUnknown linkState = iota
	linkUp
	linkDown
)

func (i *netif) usable() bool { return i.up && !i.quorumOff && i.link != linkDown }

func (i *netif) state() string {
	switch {
	case !i.up:
		return "is down"
	case i.quorumOff:
		return "is marked down for the loss of a cluster's quorum"
	case i.link == linkDown:
		return "has no link"
	}
	return "is up"
}

var interfaceLine = regexp.MustCompile(`^([a-z]+[0-9]+): flags=[0-9a-fx,]+<(.*)>`)

// parseIfconfig reads ifconfig -a.
func parseIfconfig(text string) ([]*netif, error) {
	var out []*netif
	for line := range strings.Lines(text) {
		if m := interfaceLine.FindStringSubmatch(line); m != nil {
			flags := strings.Split(m[2], ",")
			out = append(out, &netif{name: m[1], up: contains(flags, "UP"), quorumOff: contains(flags, "QUORUMLOSS")})
			continue
		}
		f := strings.Fields(line)
		if len(out) == 0 || len(f) < 2 || f[0] != "inet" && f[0] != "inet6" {
			continue
		}
		p, err := inetLine(f)
		if err != nil {
			return nil, fmt.Errorf("ifconfig: line %q: %w", strings.TrimSpace(line), err)
		}
		i := out[len(out)-1]
		i.addresses = append(i.addresses, p)
	}
	if len(out) == 0 {
		return nil, errors.New("ifconfig shows no interface")
	}
	return out, nil
}

// inetLine reads "inet A [netmask 0xM] ..." and "inet6 A[%scope]/P". An inet line may have no netmask: the address stands alone.
func inetLine(f []string) (netip.Prefix, error) {
	text := f[1]
	if f[0] == "inet6" {
		addr, bits, _ := strings.Cut(text, "/")
		addr, _, _ = strings.Cut(addr, "%")
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return netip.Prefix{}, err
		}
		n, err := strconv.Atoi(bits)
		if err != nil {
			n = a.BitLen()
		}
		return checked(a, n)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	for i := 2; i+1 < len(f); i++ {
		if f[i] == "netmask" {
			m, err := strconv.ParseUint(strings.TrimPrefix(f[i+1], "0x"), 16, 32)
			if err != nil {
				return netip.Prefix{}, fmt.Errorf("netmask %q", f[i+1])
			}
			bits := 0
			for ; m&0x80000000 != 0; m = m << 1 & 0xffffffff {
				bits++
			}
			return checked(a, bits)
		}
	}
	return checked(a, a.BitLen())
}

func checked(a netip.Addr, bits int) (netip.Prefix, error) {
	p := netip.PrefixFrom(a, bits)
	if !p.IsValid() {
		return p, fmt.Errorf("prefix length %d", bits)
	}
	return p, nil
}

// parseNetstat reads netstat -in: the interfaces in their order, and whether each is up (a down one has an asterisk).
func parseNetstat(text string) (names []string, up map[string]bool, err error) {
	up = map[string]bool{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] == "Name" {
			continue
		}
		name, down := strings.CutSuffix(f[0], "*")
		if _, known := up[name]; !known {
			names = append(names, name)
		}
		up[name] = !down
	}
	if len(names) == 0 {
		return nil, nil, errors.New("netstat shows no interface")
	}
	return names, up, nil
}

// parseEntstat reads entstat -d: the link of the adapter, or of any port of an aggregate. Virtual Ethernet has no link of its
// own; it says whether it is operational.
func parseEntstat(text string) linkState {
	state := linkUnknown
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Link Status", "Physical Port Link State", "Physical Port Link Status":
			state = better(state, value == "Up")
		case "LAN State":
			state = better(state, value == "Operational")
		}
	}
	return state
}

func better(old linkState, up bool) linkState {
	if up || old == linkUp {
		return linkUp
	}
	return linkDown
}

var arpLine = regexp.MustCompile(`\(([0-9a-fA-F.:]+)\) at (\S+)|^([0-9a-fA-F:]+)\S*\s+([0-9a-f]+:\S+)`)

// parseARP reads arp -an (or ndp -an): who has answered for which address.
func parseARP(text string) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for line := range strings.Lines(text) {
		m := arpLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		addr, mac := m[1]+m[3], m[2]+m[4]
		if a, err := netip.ParseAddr(addr); err == nil && strings.Count(mac, ":") == 5 {
			out[a] = mac
		}
	}
	return out
}

// A vgInfo is lsvg of one volume group.
type vgInfo struct {
	name, id, state, permission, quorum string
	total, active, stale, open          int
	autoOn                              bool
	enhanced                            bool   // Enhanced-Capable
	mode                                string // "Concurrent", or ""
}

// lsvgKeys are the keys of lsvg VG that stand in the second column, in the order of their length: a line is split where one of
// them begins, because values have blanks too.
var lsvgKeys = []string{"MAX PPs per VG:", "VG IDENTIFIER:", "VG DESCRIPTORS:", "INFINITE RETRY:", "Auto-Concurrent:", "DISK BLOCK SIZE:",
	"Active Nodes:", "CRITICAL PVs:", "CRITICAL VG:", "BB POLICY:", "AUTO SYNC:", "TOTAL PPs:", "STALE PPs:", "FREE PPs:", "USED PPs:", "PP SIZE:", "MAX PVs:", "AUTO ON:", "QUORUM:"}

// parseLsvg reads lsvg VG.
func parseLsvg(text string) (*vgInfo, error) {
	v := map[string]string{}
	for line := range strings.Lines(text) {
		cut := len(line)
		for _, k := range lsvgKeys {
			if at := strings.Index(line, k); at > 0 && at < cut {
				cut = at
			}
		}
		for _, part := range []string{line[:cut], line[cut:]} {
			if key, value, ok := strings.Cut(part, ":"); ok {
				v[strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
	}
	g := &vgInfo{name: v["VOLUME GROUP"], id: v["VG IDENTIFIER"], state: v["VG STATE"], permission: v["VG PERMISSION"], quorum: v["QUORUM"],
		total: number(v["TOTAL PVs"]), active: number(v["ACTIVE PVs"]), stale: number(v["STALE PVs"]), open: number(v["OPEN LVs"]),
		autoOn: v["AUTO ON"] == "yes", enhanced: v["Concurrent"] == "Enhanced-Capable", mode: v["VG Mode"]}
	if g.name == "" || g.state == "" {
		return nil, errors.New("lsvg does not describe a volume group")
	}
	return g, nil
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

// An lvInfo is one line of lsvg -l.
type lvInfo struct {
	name, kind, point string
	open, stale       bool
}

// parseVolumes reads lsvg -l VG.
func parseVolumes(text string) []lvInfo {
	var out []lvInfo
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] == "LV" {
			continue
		}
		for i := 2; i < len(f); i++ { // the state is the only field with a slash before the mount point
			state, sync, ok := strings.Cut(f[i], "/")
			if !ok || state != "open" && state != "closed" {
				continue
			}
			lv := lvInfo{name: f[0], kind: f[1], open: state == "open", stale: sync == "stale"}
			if i+1 < len(f) && f[i+1] != "N/A" {
				lv.point = f[i+1]
			}
			out = append(out, lv)
			break
		}
	}
	return out
}

// A pvInfo is one line of lspv.
type pvInfo struct{ disk, pvid, group, state string }

// parseLspv reads lspv without arguments. The fourth column may be absent.
func parseLspv(text string) []pvInfo {
	var out []pvInfo
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || isMessage(f[0]) {
			continue
		}
		p := pvInfo{disk: f[0], pvid: f[1], group: f[2]}
		if p.pvid == "none" {
			p.pvid = ""
		}
		if p.group == "None" {
			p.group = ""
		}
		if len(f) > 3 {
			p.state = f[3]
		}
		out = append(out, p)
	}
	return out
}

// parseDisks reads lsvg -p VG: the state of each disk.
func parseDisks(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 4 && f[0] != "PV_NAME" && number(f[2]) >= 0 {
			out[f[0]] = f[1]
		}
	}
	return out
}

var messageID = regexp.MustCompile(`^[0-9]{4}-[0-9]{3,4}$`)

func isMessage(word string) bool { return messageID.MatchString(word) }

// A mounted is one entry of the mount table.
type mounted struct {
	node, device, point, vfs string
	options                  []string
}

var clock = regexp.MustCompile(`^[0-2][0-9]:[0-5][0-9]$`)

// parseMounts reads mount without arguments, from the right: columns overflow, and the first may be empty.
func parseMounts(text string) ([]mounted, error) {
	var out []mounted
	ruled := false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 0 && strings.HasPrefix(f[0], "-----") {
			ruled = true
			continue
		}
		if !ruled || len(f) == 0 {
			continue
		}
		m, err := mountLine(f)
		if err != nil {
			return nil, fmt.Errorf("mount: line %q: %w", strings.TrimSpace(line), err)
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, errors.New("mount shows no file system")
	}
	return out, nil
}

// mountLine: [node] device point vfs Mon DD HH:MM [options].
func mountLine(f []string) (mounted, error) {
	at := -1
	for i := len(f) - 1; i > 2; i-- {
		if clock.MatchString(f[i]) {
			at = i
			break
		}
	}
	if at < 5 {
		return mounted{}, errors.New("there is no date in it")
	}
	m := mounted{vfs: f[at-3], point: f[at-4]}
	switch rest := f[:at-4]; len(rest) {
	case 1:
		m.device = rest[0]
	case 2:
		m.node, m.device = rest[0], rest[1]
	default:
		return mounted{}, fmt.Errorf("%d words stand before the mount point", len(rest))
	}
	if at+1 < len(f) {
		m.options = strings.Split(f[at+1], ",")
	}
	return m, nil
}

// A subsystem is one row of lssrc.
type subsystem struct {
	name, status string
	pid          int
}

// parseLssrc reads lssrc -s NAME or -a. Group and PID may be missing, each by itself.
func parseLssrc(text string) []subsystem {
	var out []subsystem
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || isMessage(f[0]) {
			continue
		}
		s := subsystem{name: f[0], status: f[len(f)-1]}
		switch s.status {
		case "active", "inoperative", "stopping", "starting", "warned":
		default:
			continue
		}
		for _, w := range f[1 : len(f)-1] {
			if n, err := strconv.Atoi(w); err == nil && n > 0 {
				s.pid = n
			}
		}
		out = append(out, s)
	}
	return out
}

// parseExports reads exportfs without arguments: directory -> options.
func parseExports(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "/") {
			continue
		}
		out[f[0]] = strings.TrimPrefix(strings.Join(f[1:], " "), "-")
	}
	return out
}

// parseReservation reads devrsrv -c query: the reservation on the disk, and whether it is open here.
func parseReservation(text string) (state string, open bool) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Device Reservation State":
			state = value
		case "Device Open On Current Host?":
			open = value == "YES"
		}
	}
	return state, open
}

var userNumber = regexp.MustCompile(`\b([0-9]+)`)

// parseUsers reads fuser, whose numbers go to one output and whose letters to the other.
func parseUsers(text, point string) []int {
	text = strings.ReplaceAll(text, point, "")
	var out []int
	for _, m := range userNumber.FindAllString(text, 64) {
		if n, err := strconv.Atoi(m); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// netmask writes a prefix length as ifconfig takes it.
func netmask(bits int) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], ^uint32(0)<<(32-bits))
	return netip.AddrFrom4(b).String()
}
