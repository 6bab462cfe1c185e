//go:build !linux

package monitor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Without an event for the death of a process that is no child of ours, ps is asked. This has been compiled for AIX, not run
// there.

const (
	commLength   = 32
	pollInterval = 250 * time.Millisecond
)

func processTable() ([]process, error) { return ps("-e") }

func processOf(pid int) (process, bool) {
	list, err := ps("-p", strconv.Itoa(pid))
	if err != nil || len(list) == 0 {
		return process{}, false
	}
	return list[0], true
}

func ps(selection ...string) ([]process, error) {
	args := append(selection, "-o", "pid=,uid=,stat=,comm=,args=")
	out, err := exec.Command("/usr/bin/ps", args...).Output()
	if err != nil && len(out) == 0 {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var list []process
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 5 || strings.HasPrefix(f[2], "Z") {
			continue
		}
		pid, err1 := strconv.Atoi(f[0])
		uid, err2 := strconv.Atoi(f[1])
		if err1 == nil && err2 == nil {
			list = append(list, process{pid: pid, uid: uid, comm: f[3], argv0: f[4]})
		}
	}
	return list, nil
}

func awaitDeath(ctx context.Context, list []process) (process, error) {
	for sleep(ctx, pollInterval) {
		all, err := processTable()
		if err != nil {
			continue // seen again at the next look
		}
		for _, p := range list {
			if !listed(all, p.pid) {
				return p, nil
			}
		}
	}
	return process{}, ctx.Err()
}

func listed(all []process, pid int) bool {
	for _, p := range all {
		if p.pid == pid {
			return true
		}
	}
	return false
}
