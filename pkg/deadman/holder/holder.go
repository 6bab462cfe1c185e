// Package holder keeps a second copy of a watchdog's open descriptor, so that no single death closes it, and hands it to the
// next deadman: closing the last copy pets the device, and on some drivers stops it (attack A2).
//
// Two stores are known: a process that does nothing else (Run), and systemd's descriptor store. Beside the device both keep a
// pidfd of the deadman that handed it over, by which its successor sees it gone.
//
// It does not promise that a copy is never lost: when both holders die the device closes. Then what is armed must count the
// watchdog's timeout twice, which is why the deadman watches its holder.
package holder

import "errors"

// ErrUnsupported is the error of all of this where the system has no descriptor passing that the package knows.
var ErrUnsupported = errors.New("holding a descriptor by a second process is not supported on this system")

// A Copy is what a store gives to a successor. Label names the device, so that a copy of another one is not adopted.
type Copy struct {
	Device int
	PidFD  int // of the predecessor
	Label  string
}

// MaxLabel is the length of a label, in bytes; longer ones are cut.
const MaxLabel = 120
