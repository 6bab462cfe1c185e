package wire

import "syscall"

var troubleText = [...]string{
	NoTrouble:      "",
	NoRealtime:     "the deadman has no real-time priority: a busy machine may be reset",
	NoMemoryLock:   "the deadman's memory is not locked: a machine that swaps may be reset",
	NoOOMScore:     "the deadman is not protected from the out-of-memory killer",
	NoCgroup:       "the deadman could not leave its caller's cgroup, which may be frozen or ended as a whole",
	NoKillTimer:    "there is no kill timer: a deadman that is stopped between check and pet may pet late",
	NoSysrq:        "/proc/sysrq-trigger cannot be opened: the reset takes the slower way of reboot(2)",
	NotHeldTwice:   "nobody else holds the watchdog's descriptor: the watchdog timeout counts twice",
	SoftwareDevice: "the watchdog is a software watchdog that can be unloaded, or of a virtual machine: its silence is no proof",
	NoNowayout:     "the watchdog's driver is loaded without nowayout: who may open the device may stop it",
	UnknownWayout:  "whether the watchdog can be stopped is unknown: the kernel does not say",
	PlainTimers:    "this system offers no kill timer, memory lock with demand paging or real-time class to the deadman: plain timers only",
	MuchLocked:     "the deadman has locked more than 4 MiB",
}

// Text is the warning's sentence, with the system's reason where there is one.
func (w Warning) Text() string {
	text := "unknown warning"
	if int(w.Trouble) < len(troubleText) {
		text = troubleText[w.Trouble]
	}
	if w.Errno != 0 {
		text += ": " + syscall.Errno(w.Errno).Error()
	}
	return text
}
