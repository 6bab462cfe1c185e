package server

import (
	"fmt"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/config"
)

// mask stands in the place of a secret, as everywhere else.
const mask = "***"

// masked is the definition for those who may look at it and may not know its secrets.
func masked(text api.Definition) (api.Definition, error) {
	d, err := config.DecodeCluster("the active definition", []byte(text.YAML))
	if err != nil {
		return api.Definition{}, fmt.Errorf("mask the secrets of the definition: %w", err)
	}
	found := false
	hide := func(params map[string]string) {
		for k := range params {
			if cluster.Secret(k) {
				params[k] = mask
				found = true
			}
		}
	}
	for i := range d.FenceDevices {
		hide(d.FenceDevices[i].Params)
	}
	for i := range d.ApplicationControllers {
		hide(d.ApplicationControllers[i].Params)
	}
	if !found {
		return text, nil
	}
	y, err := config.EncodeCluster(d)
	if err != nil {
		return api.Definition{}, fmt.Errorf("mask the secrets of the definition: %w", err)
	}
	text.YAML = string(y)
	return text, nil
}
