package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// commLength is where the kernel cuts command names.
const commLength = 15

// processTable reads all processes that are not zombies.
func processTable() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []process
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := processOf(pid); ok {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// processOf reads one process; false: it does not live.
func processOf(pid int) (process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, false
	}
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	f := strings.Fields(string(stat[end+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return process{}, false
	}
	p := process{pid: pid, comm: string(stat[open+1 : end]), uid: -1}
	p.started, _ = strconv.ParseUint(f[19], 10, 64)
	if cmdline, err := os.ReadFile(dir + "/cmdline"); err == nil {
		argv0, _, _ := bytes.Cut(cmdline, []byte{0})
		p.argv0 = string(argv0)
	}
	if info, err := os.Stat(dir); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			p.uid = int(st.Uid)
		}
	}
	return p, true
}

// awaitDeath returns the first of the processes that ends, within a millisecond or so: each is held by a pidfd.
func awaitDeath(ctx context.Context, list []process) (process, error) {
	ctx, cancel := context.WithCancel(ctx)
	dead := make(chan process, len(list))
	ended := make(chan struct{}, len(list))
	var files []*os.File
	defer func() {
		cancel()
		for _, f := range files { // wakes the goroutines
			_ = f.Close()
		}
		for range files {
			<-ended
		}
	}()
	for _, p := range list {
		f, err := openPIDFD(p)
		switch {
		case errors.Is(err, unix.ESRCH):
			return p, nil
		case errors.Is(err, unix.ENOSYS):
			return pollDeath(ctx, list)
		case err != nil:
			return p, fmt.Errorf("watch process %d: %w", p.pid, err)
		}
		files = append(files, f)
		go func() {
			if readable(f) {
				dead <- p
			}
			ended <- struct{}{}
		}()
	}
	select {
	case p := <-dead:
		return p, nil
	case <-ctx.Done():
		return process{}, ctx.Err()
	}
}

// openPIDFD holds the process, and not another one that got its number meanwhile.
func openPIDFD(p process) (*os.File, error) {
	fd, err := unix.PidfdOpen(p.pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.10
		if fd, err = unix.PidfdOpen(p.pid, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if now, ok := processOf(p.pid); !ok || now.started != p.started {
		_ = f.Close()
		return nil, unix.ESRCH
	}
	return f, nil
}

// readable waits, in the runtime's poller, until the pidfd says that its process ended; false: it was closed.
func readable(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = conn.Read(func(fd uintptr) bool {
		list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(list, 0)
		ended = err == nil && n == 1 && list[0].Revents&unix.POLLIN != 0
		return ended
	})
	return err == nil && ended
}

// pollDeath is for kernels without pidfds.
func pollDeath(ctx context.Context, list []process) (process, error) {
	for sleep(ctx, 100*time.Millisecond) {
		for _, p := range list {
			if now, ok := processOf(p.pid); !ok || now.started != p.started {
				return p, nil
			}
		}
	}
	return process{}, ctx.Err()
}
