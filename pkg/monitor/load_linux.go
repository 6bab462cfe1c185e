package monitor

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A LoadReader reads the machine's load from /proc. It is not safe for concurrent use.
type LoadReader struct {
	at          time.Time
	idle, total float64
	disks       map[string]float64 // milliseconds busy
}

// Read gives the load since the reading before.
func (r *LoadReader) Read() (Load, error) {
	now := time.Now()
	idle, total, err := cpuTimes()
	if err != nil {
		return Load{}, err
	}
	disks, err := diskTimes()
	if err != nil {
		return Load{}, err
	}
	free, err := freeMemory()
	if err != nil {
		return Load{}, err
	}
	was := *r
	r.at, r.idle, r.total, r.disks = now, idle, total, disks
	if was.at.IsZero() || total <= was.total {
		return Load{}, ErrNoLoad
	}
	l := Load{IdleCPU: 100 * (idle - was.idle) / (total - was.total), FreeMemory: free}
	passed := float64(now.Sub(was.at).Milliseconds())
	for name, busy := range disks {
		if before, ok := was.disks[name]; ok && passed > 0 {
			l.BusyDisk = max(l.BusyDisk, min(100, 100*(busy-before)/passed))
		}
	}
	return l, nil
}

// cpuTimes reads the first line of /proc/stat: idle (with iowait) and total ticks.
func cpuTimes() (idle, total float64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 6 || f[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat does not begin as expected: %.40q", line)
	}
	for i, s := range f[1:min(len(f), 9)] { // guest times are in user already
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		total += v
		if i == 3 || i == 4 {
			idle += v
		}
	}
	return idle, total, nil
}

// freeMemory reads MemAvailable, in MiB.
func freeMemory() (float64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 2 && w[0] == "MemAvailable:" {
			kb, err := strconv.ParseFloat(w[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemAvailable")
}

// diskTimes reads the milliseconds that each whole disk was busy.
func diskTimes() (map[string]float64, error) {
	b, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 13 || strings.HasPrefix(f[2], "loop") || strings.HasPrefix(f[2], "ram") {
			continue
		}
		if v, err := strconv.ParseFloat(f[12], 64); err == nil {
			out[f[2]] = v
		}
	}
	return out, nil
}
