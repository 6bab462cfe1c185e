//go:build race && linux

package aix

func init() { underRace = true }
