package cli

import (
	"errors"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// decode reads a cluster file and lists all its faults; none: the definition is valid and complete.
func decode(file string, text []byte) (*cluster.Definition, []api.Fault) {
	d, err := config.DecodeCluster(file, text)
	if err == nil {
		return d, nil
	}
	var faults config.Faults
	if !errors.As(err, &faults) {
		return nil, []api.Fault{{File: file, Message: err.Error()}}
	}
	out := make([]api.Fault, 0, len(faults))
	for _, f := range faults {
		out = append(out, api.Fault{File: f.File, Line: f.Line, Column: f.Column, Key: f.Key, Message: f.Text})
	}
	return nil, out
}

// encode writes a definition as a cluster file.
func encode(d *cluster.Definition) ([]byte, error) { return config.EncodeCluster(d) }
