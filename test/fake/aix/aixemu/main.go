// Command aixemu plays commands of AIX for tests, each under its own name (see package test/fake/aix).
//
//	aixemu srcmstr DIRECTORY   the master of the subsystems: it starts them, ends them, and starts again those that are to be
package main

import (
	"fmt"
	"os"

	fake "github.com/holdfast-ha/holdfast/test/fake/aix"
)

func main() {
	if fake.Called(os.Args[0]) {
		os.Exit(fake.Main(os.Args))
	}
	if len(os.Args) == 3 && os.Args[1] == "srcmstr" {
		os.Exit(fake.Master(os.Args[2]))
	}
	fmt.Fprintln(os.Stderr, "usage: aixemu srcmstr DIRECTORY, or the name of a command by a link beside "+fake.ConfigName)
	os.Exit(2)
}
