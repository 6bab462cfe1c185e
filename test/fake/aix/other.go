//go:build !linux

package aix

import (
	"errors"
	"os"
)

var errLinux = errors.New("the emulator runs on Linux only")

func flock(*os.File) error                                { return errLinux }
func realInterfaces() ([]*Interface, error)               { return nil, errLinux }
func realAlias(string, string) error                      { return errLinux }
func realDelete(string, string) error                     { return errLinux }
func realARP() (map[string]string, error)                 { return nil, errLinux }
func realForget(string) error                             { return errLinux }
func realMount(string, string, bool) error                { return errLinux }
func realUnmount(string) (busy bool, err error)           { return false, errLinux }
func realUsers(string) []int                              { return nil }
func alive(int) bool                                      { return false }
func spawn(string, []string, string, string) (int, error) { return 0, errLinux }
func hangChild()                                          {}
func terminate(int, bool)                                 {}
