package watchdog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// kernelDevice is a Linux watchdog device.
type kernelDevice struct {
	fd    int
	sec   int32
	facts Facts
	resetter
}

// Flags of struct watchdog_info.
const (
	flagSetTimeout = 0x0080
	flagMagicClose = 0x0100
	statusReset    = 0x0020 // WDIOF_CARDRESET in the boot status: the last reboot was the watchdog's
)

// watchdogInfo is the kernel's struct watchdog_info.
type watchdogInfo struct {
	Options  uint32
	Firmware uint32
	Identity [32]byte
}

func openKernel(path string) (Device, error) {
	if path == "" {
		path = DefaultPath(Kernel)
	}
	// Opening pets. A device that runs while nobody has it open belonged to a deadman that died with all its copies, and the
	// leader counts from that one's last grant: it must be left to fire (attack A2).
	if attribute(sysfsOf(path), "state") == "active" {
		return nil, fmt.Errorf("the watchdog %s runs already: either another process has it open (systemd's RuntimeWatchdogSec=, "+
			"watchdogd, sbd), or its last owner died without closing it; then opening it would pet it once more, so it is left "+
			"to reset this node when its time is over", path)
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("open the watchdog %s: another process has it open: %w", path, err)
		}
		return nil, fmt.Errorf("open the watchdog %s: %w", path, err)
	}
	d, err := newKernel(path, fd)
	if err != nil {
		_, _ = unix.Write(fd, []byte("V"))
		unix.Close(fd)
		return nil, err
	}
	d.facts.Fired = firedBefore(fd)
	return d, nil
}

// firedBefore asks the device why the machine has booted. Many drivers do not know, and answer 0 or an error: no.
func firedBefore(fd int) bool {
	var status int32
	return ioctl(fd, unix.WDIOC_GETBOOTSTATUS, unsafe.Pointer(&status)) == nil && status&statusReset != 0
}

func adoptKernel(path string, fd int) (Device, error) {
	d, err := newKernel(path, fd)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func newKernel(path string, fd int) (*kernelDevice, error) {
	var info watchdogInfo
	if err := ioctl(fd, unix.WDIOC_GETSUPPORT, unsafe.Pointer(&info)); err != nil {
		return nil, fmt.Errorf("ask the watchdog %s what it can do: %w", path, err)
	}
	d := &kernelDevice{fd: fd, resetter: newResetter()}
	identity := string(info.Identity[:max(0, bytes.IndexByte(info.Identity[:], 0))])
	d.facts = Facts{Name: fmt.Sprintf("%s (%s)", path, identity), Class: lease.Independent, Watches: true}
	d.facts.Warnings = append(d.facts.Warnings, d.resetter.warnings...)
	switch attribute(sysfsOf(path), "nowayout") {
	case "1":
		d.facts.NoWayOut = true
	case "0":
		d.warn(wire.NoNowayout)
	default:
		d.warn(wire.UnknownWayout)
	}
	if info.Options&flagMagicClose == 0 && !d.facts.NoWayOut {
		return nil, fmt.Errorf("the driver %q of the watchdog %s stops the timer at any close, so the death of a process would end the "+
			"watching; load it with nowayout=1 or use another device", identity, path)
	}
	// A software watchdog lives in the kernel whose failure it should catch, and under a hypervisor it sleeps with it.
	if strings.EqualFold(identity, "Software Watchdog") && (!d.facts.NoWayOut || virtual()) {
		d.facts.Class = lease.Process
		d.warn(wire.SoftwareDevice)
	}
	return d, nil
}

func (d *kernelDevice) warn(t wire.Trouble) {
	d.facts.Warnings = append(d.facts.Warnings, wire.Warning{Trouble: t})
}

func (d *kernelDevice) Facts() Facts    { return d.facts }
func (d *kernelDevice) Descriptor() int { return d.fd }

func ioctl(fd int, req uint, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(p)); e != 0 {
		return e
	}
	return nil
}

func (d *kernelDevice) Pet() error {
	return ioctl(d.fd, unix.WDIOC_KEEPALIVE, unsafe.Pointer(&d.sec))
}

// SetTimeout rounds up to whole seconds, which is what the kernel counts in, and reads back what the driver made of it.
func (d *kernelDevice) SetTimeout(t time.Duration) (time.Duration, error) {
	d.sec = int32((t + time.Second - 1) / time.Second)
	if err := ioctl(d.fd, unix.WDIOC_SETTIMEOUT, unsafe.Pointer(&d.sec)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOTTY) {
		return 0, err
	}
	return d.Timeout()
}

func (d *kernelDevice) Timeout() (time.Duration, error) {
	if err := ioctl(d.fd, unix.WDIOC_GETTIMEOUT, unsafe.Pointer(&d.sec)); err != nil {
		return 0, err
	}
	return time.Duration(d.sec) * time.Second, nil
}

func (d *kernelDevice) Stop() error {
	if d.facts.NoWayOut {
		return fmt.Errorf("the watchdog %s cannot be stopped: its driver is loaded with nowayout", d.facts.Name)
	}
	if _, err := unix.Write(d.fd, []byte("V")); err != nil {
		return fmt.Errorf("write the magic character to the watchdog %s: %w", d.facts.Name, err)
	}
	return unix.Close(d.fd)
}

// sysfsOf finds the sysfs directory of a watchdog device, "" if there is none. /dev/watchdog is the old name of the first one.
func sysfsOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return ""
	}
	major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
	if major == 10 && minor == 130 {
		return "/sys/class/watchdog/watchdog0"
	}
	return "/sys/dev/char/" + strconv.Itoa(int(major)) + ":" + strconv.Itoa(int(minor))
}

// attribute reads a small sysfs file, "" if it is not there.
func attribute(dir, name string) string {
	if dir == "" {
		return ""
	}
	b, err := os.ReadFile(dir + "/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// virtual reports whether the machine shows that it is a guest. Unknown counts as bare metal: the operator's own test decides.
func virtual() bool {
	if _, err := os.Stat("/sys/hypervisor/type"); err == nil {
		return true
	}
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && (bytes.Contains(b, []byte(" hypervisor")) || bytes.Contains(b, []byte("pSeries")))
}
