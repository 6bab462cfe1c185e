package collect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/verify"
)

// Limit is how long one subject may take.
const Limit = 4 * time.Second

// Sizes of what is read.
const (
	maxDigest = 64 << 20 // bytes of a file that is digested
	maxTable  = 1 << 20  // bytes of the system's tables
)

// A Place is a directory or file of the daemon's own.
type Place struct {
	Path    string
	Purpose string
	NeedMiB int64
}

// Options say where to look.
type Options struct {
	Node       string
	Definition *cluster.Definition
	Places     []Place  // directories whose space is looked at
	Keys       []string // files and directories that must be private
	Units      []string
	// Limit replaces the package's.
	Limit time.Duration
}

// A looker fills in facts. Each subject writes under the lock, and only while the look is on.
type looker struct {
	o     Options
	mu    sync.Mutex
	over  bool
	facts *verify.Facts
}

// hanging are the subjects of earlier looks that have not come back yet.
var hanging sync.Map

// Look looks at everything. It returns within about Options.Limit.
func Look(ctx context.Context, o Options) *verify.Facts {
	if o.Limit == 0 {
		o.Limit = Limit
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	l := &looker{o: o, facts: &verify.Facts{Node: o.Node, Time: time.Now().UTC(), Missed: map[string]string{}}}
	began := time.Now()
	var names []string
	done := make(chan string, len(subjects))
	for _, s := range subjects {
		if _, busy := hanging.LoadOrStore(s.name, true); busy {
			l.miss(s.name, "an earlier look still waits for an answer")
			continue
		}
		names = append(names, s.name)
		go func() {
			defer func() { hanging.Delete(s.name); done <- s.name }()
			if err := s.look(ctx, l); err != nil {
				l.miss(s.name, err.Error())
			}
		}()
	}
	left := map[string]bool{}
	for _, n := range names {
		left[n] = true
	}
	for len(left) > 0 && ctx.Err() == nil {
		select {
		case n := <-done:
			delete(left, n)
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range left {
		l.facts.Missed[n] = fmt.Sprintf("no answer within %v", o.Limit)
	}
	l.over = true
	l.facts.Took = time.Since(began)
	return l.facts
}

// set changes the facts, unless the look is over.
func (l *looker) set(f func(*verify.Facts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		f(l.facts)
	}
}

func (l *looker) miss(subject, why string) {
	l.set(func(f *verify.Facts) { f.Missed[subject] = why })
}

// subjects by the names under which the checks need them.
var subjects = []struct {
	name string
	look func(context.Context, *looker) error
}{
	{"system", lookSystem},
	{"interfaces", lookInterfaces},
	{"names", lookNames},
	{"files", lookFiles},
	{"devices", lookDevices},
	{"mounts", lookMounts},
	{"boot table", lookBootTable},
	{"space", lookSpace},
	{"users", lookUsers},
	{"programs", lookPrograms},
	{"settings", lookSettings},
	{"units", lookUnits},
	{"keys", lookKeys},
}

func lookSystem(_ context.Context, l *looker) error {
	host, err := os.Hostname()
	s := verify.System{OS: runtime.GOOS, Arch: runtime.GOARCH, Hostname: host, CPUs: runtime.NumCPU(), UID: os.Geteuid()}
	s.TimeZone, _ = time.Now().Zone()
	describeSystem(&s)
	l.set(func(f *verify.Facts) { f.System = s })
	return err
}

func lookInterfaces(_ context.Context, l *looker) error {
	list, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	var out []verify.Interface
	for _, i := range list {
		x := verify.Interface{Name: i.Name, Up: i.Flags&net.FlagUp != 0, MTU: i.MTU, Loopback: i.Flags&net.FlagLoopback != 0, MAC: i.HardwareAddr.String(),
			Carrier: carrierOf(i.Name)}
		addrs, err := i.Addrs()
		if err != nil {
			return fmt.Errorf("list the addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			x.Addresses = append(x.Addresses, a.String())
		}
		out = append(out, x)
	}
	l.set(func(f *verify.Facts) { f.Interfaces = out })
	return nil
}

func lookNames(ctx context.Context, l *looker) error {
	d := l.o.Definition
	var names []string
	for _, s := range d.ServiceIPs {
		names = append(names, s.Name)
	}
	for _, p := range d.PersistentIPs {
		names = append(names, p.Name)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	out := make([]verify.Name, len(names))
	var wg sync.WaitGroup
	limit := make(chan struct{}, 8)
	for i, n := range names {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			ctx, cancel := context.WithTimeout(ctx, l.o.Limit/2)
			defer cancel()
			addrs, err := net.DefaultResolver.LookupHost(ctx, n)
			out[i].Addresses = addrs
			if err != nil {
				out[i].Error = shortLookup(err)
			}
		})
	}
	wg.Wait()
	m := map[string]verify.Name{}
	for i, n := range names {
		m[n] = out[i]
	}
	l.set(func(f *verify.Facts) { f.Names = m })
	return nil
}

func shortLookup(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Err
	}
	return err.Error()
}

func lookFiles(_ context.Context, l *looker) error {
	m := map[string]verify.File{}
	for _, p := range verify.Paths(l.o.Definition) {
		m[p] = FileAt(p)
	}
	mounted := map[string]bool{}
	list, err := mounts()
	for _, x := range list {
		mounted[x.Point] = true
	}
	for p, f := range m {
		if f.Kind == "directory" {
			f.Mounted = mounted[p]
			m[p] = f
		}
	}
	l.set(func(f *verify.Facts) { f.Files = m })
	if err != nil && !errors.Is(err, executor.ErrNotSupported) {
		return err
	}
	return nil
}

// FileAt looks at one path. Links are followed, as an execution would.
func FileAt(p string) verify.File {
	info, err := os.Stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if link, e := os.Lstat(p); e == nil && link.Mode()&os.ModeSymlink != 0 {
			return verify.File{Error: "it is a symbolic link to nothing"}
		}
		return verify.File{}
	case err != nil:
		return verify.File{Error: cause(err)}
	}
	f := verify.File{Exists: true, Mode: uint32(info.Mode().Perm()), Size: info.Size(), UID: -1}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID = int(st.Uid)
	}
	switch {
	case info.Mode().IsRegular():
		f.Kind = "file"
		lookInside(p, &f)
	case info.IsDir():
		f.Kind = "directory"
		f.Empty, err = emptyDirectory(p)
		if err != nil {
			f.Error = cause(err)
		}
	case info.Mode()&os.ModeDevice != 0:
		f.Kind = "device"
	default:
		f.Kind = "special file"
	}
	return f
}

func cause(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// emptyDirectory takes a file system's own lost+found for nothing.
func emptyDirectory(p string) (bool, error) {
	d, err := os.Open(p)
	if err != nil {
		return false, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(2)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return len(names) == 0 || len(names) == 1 && names[0] == "lost+found", err
}

// lookInside reads a program's beginning and makes its digest.
func lookInside(p string, f *verify.File) {
	if f.Mode&0o111 != 0 {
		if err := executor.CheckScript(p); err != nil {
			f.Unsafe = strings.TrimPrefix(err.Error(), executor.ErrUnsafe.Error()+": ")
		}
	}
	file, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		f.Error = cause(err)
		return
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, 256)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		f.Error = cause(err)
		return
	}
	readHead(head[:n], f)
	if f.Script != "" {
		info, err := os.Stat(f.Script)
		f.Runner = err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
	}
	if f.Size > maxDigest {
		return
	}
	sum := sha256.New()
	sum.Write(head[:n])
	if _, err := io.Copy(sum, io.LimitReader(file, maxDigest)); err != nil {
		f.Error = cause(err)
		return
	}
	f.Digest = hex.EncodeToString(sum.Sum(nil))
}

// readHead understands the first bytes of a program: #! and an interpreter, or a binary's magic.
func readHead(b []byte, f *verify.File) {
	rest, script := strings.CutPrefix(string(b), "#!")
	if !script {
		elf := strings.HasPrefix(string(b), "\x7fELF")
		xcoff := len(b) > 1 && b[0] == 0x01 && (b[1] == 0xdf || b[1] == 0xf7)
		f.NoHead = len(b) > 0 && !elf && !xcoff
		return
	}
	line, _, _ := strings.Cut(rest, "\n")
	f.CRLF = strings.HasSuffix(line, "\r")
	if words := strings.Fields(line); len(words) > 0 {
		f.Script = words[0]
	}
}

func lookUsers(_ context.Context, l *looker) error {
	m := map[string]string{}
	for _, name := range verify.Owners(l.o.Definition) {
		u, err := user.Lookup(name)
		switch {
		case err == nil:
			m[name] = u.Uid
		case errors.As(err, new(user.UnknownUserError)):
			m[name] = ""
		default:
			return fmt.Errorf("look up the user %s: %w", name, err)
		}
	}
	l.set(func(f *verify.Facts) { f.Users = m })
	return nil
}

// programDirs are where the system keeps the programs of file systems.
var programDirs = []string{"/sbin", "/usr/sbin", "/bin", "/usr/bin", "/usr/local/sbin"}

func lookPrograms(_ context.Context, l *looker) error {
	if runtime.GOOS != "linux" {
		return nil // the names are Linux's
	}
	m := map[string]string{}
	for i := range l.o.Definition.FileSystems {
		for _, p := range verify.HelpersOf(&l.o.Definition.FileSystems[i]) {
			m[p] = ""
			for _, dir := range programDirs {
				if info, err := os.Stat(filepath.Join(dir, p)); err == nil && info.Mode().Perm()&0o111 != 0 {
					m[p] = filepath.Join(dir, p)
					break
				}
			}
		}
	}
	l.set(func(f *verify.Facts) { f.Programs = m })
	return nil
}

func lookKeys(_ context.Context, l *looker) error {
	m := map[string]verify.File{}
	for _, p := range l.o.Keys {
		info, err := os.Lstat(p)
		if err != nil {
			continue // what a daemon cannot do without it has said at its start
		}
		f := verify.File{Exists: true, Kind: "file", Mode: uint32(info.Mode().Perm())}
		if info.IsDir() {
			f.Kind = "directory"
		}
		m[p] = f
	}
	l.set(func(f *verify.Facts) { f.Daemon.Files = m })
	return nil
}

// readTable reads one of the system's tables, of bounded size.
func readTable(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxTable))
	return string(b), err
}
