package config

// Where AIX keeps what runs and what is logged. Compiled only; it has not been run on AIX.
const (
	defaultRunDir  = "/var/run/holdfast"
	defaultLogDir  = "/var/hacmp"
	defaultBackend = BackendHalt
)
