//go:build unix

package cli

import "golang.org/x/sys/unix"

// noFollow refuses a symbolic link in the place of a log.
const noFollow = unix.O_NOFOLLOW
