//go:build !linux && !aix

package repository

import (
	"errors"
	"os"
)

const rawCharDevices = false

var errSystem = errors.New("a repository volume is not supported on this system")

func openDirect(string, bool, bool) (*os.File, error) { return nil, errSystem }
func machineLock(*os.File) error                      { return errSystem }
