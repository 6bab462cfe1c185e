//go:build !aix

package config

const (
	defaultRunDir  = "/run/holdfast"
	defaultLogDir  = "/var/log/holdfast"
	defaultBackend = BackendWatchdog
)
