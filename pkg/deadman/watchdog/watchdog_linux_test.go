package watchdog

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// lab is a lab device whose other end the test holds.
func lab(t *testing.T) (Device, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	d, err := Adopt(Lab, "test", fds[0])
	if err != nil {
		t.Fatal(err)
	}
	return d, fds[1]
}

func frame(op byte, ms uint32) []byte {
	b := make([]byte, LabFrame)
	b[0] = op
	binary.BigEndian.PutUint32(b[4:], ms)
	return b
}

// answer waits for an operation and writes what the test wants to come back.
func answer(t *testing.T, fd int, want byte, back ...[]byte) {
	t.Helper()
	var b [LabFrame]byte
	if n, err := unix.Read(fd, b[:]); n != LabFrame || err != nil || b[0] != want {
		t.Errorf("the device was asked %q (%d bytes, %v), want %q", b[0], n, err, want)
	}
	for _, f := range back {
		if _, err := unix.Write(fd, f); err != nil {
			t.Error(err)
		}
	}
}

// A successor may find an answer in the socket that its predecessor asked for.
func TestLabAnswersToAPredecessorAreNotTaken(t *testing.T) {
	d, fd := lab(t)
	for _, f := range [][]byte{frame(LabSetTimeout, 1), frame(LabGetTimeout, 2)} {
		if _, err := unix.Write(fd, f); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer(t, fd, LabGetTimeout, frame(LabSetTimeout, 3), frame(LabGetTimeout, 5000)) // the first one came late
		answer(t, fd, LabSetTimeout, frame(LabSetTimeout, 7000)[:3], frame(LabSetTimeout, 7000)[3:])
	}()
	if got, err := d.Timeout(); got != 5*time.Second || err != nil {
		t.Errorf("timeout %v, %v", got, err)
	}
	if got, err := d.SetTimeout(6500 * time.Millisecond); got != 7*time.Second || err != nil {
		t.Errorf("timeout in force %v, %v", got, err)
	}
	<-done
}

func TestLabOperations(t *testing.T) {
	d, fd := lab(t)
	if f := d.Facts(); f.Class != lease.Independent || f.NoWayOut || !f.Watches || d.Descriptor() < 0 {
		t.Errorf("facts %+v", f)
	}
	if err := d.Pet(); err != nil {
		t.Error(err)
	}
	answer(t, fd, LabPet)
	d.Reset()
	answer(t, fd, LabReset)
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	answer(t, fd, LabMagicClose)
}

func TestLabThatIsGone(t *testing.T) {
	d, fd := lab(t)
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := d.Pet(); !errors.Is(err, unix.EPIPE) {
		t.Errorf("a pet of nothing: %v", err)
	}
	if _, err := d.Timeout(); err == nil {
		t.Error("a timeout of nothing")
	}
	d.Reset() // fails, and does not end the process
}

// A lab that takes nothing more must not stop its deadman, who would miss its own time.
func TestLabThatHangs(t *testing.T) {
	d, _ := lab(t)
	var err error
	for range 100000 {
		if err = d.Pet(); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the last pet of a lab that does not read: %v", err)
	}
}

// The kernel's struct is as long as the number of its ioctl says.
func TestKernelStructs(t *testing.T) {
	if got, want := unsafe.Sizeof(watchdogInfo{}), uintptr(unix.WDIOC_GETSUPPORT>>16&0x1fff); got != want {
		t.Errorf("struct watchdog_info has %d bytes, want %d", got, want)
	}
}

func TestWhatIsNoWatchdog(t *testing.T) {
	for path, says := range map[string]string{"/dev/null": "what it can do", "/nowhere/watchdog": "no such file", t.TempDir(): "open the watchdog"} {
		if _, err := Open(Kernel, path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Adopt(Halt, "", 0); err == nil {
		t.Error("halt has a descriptor")
	}
	if sysfsOf("/dev/null") != "/sys/dev/char/1:3" || sysfsOf("/proc") != "" || attribute("", "x") != "" || attribute("/proc", "none") != "" {
		t.Error("sysfs is looked for in the wrong place")
	}
}

func TestRebootHasNoDevice(t *testing.T) {
	d, err := Open(Reboot, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.SetTimeout(5 * time.Second)
	now, err2 := d.Timeout()
	if f := d.Facts(); f.Class != lease.Process || f.Watches || got != 5*time.Second || now != got || errors.Join(err, err2, d.Pet()) != nil {
		t.Errorf("facts %+v, timeout %v, %v", f, got, errors.Join(err, err2))
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}
