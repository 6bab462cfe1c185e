//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "cllab: a lab needs the namespaces of a Linux kernel; it is not supported on this system")
	os.Exit(1)
}
