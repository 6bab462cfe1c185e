package server

import (
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

func TestSecretsAreMasked(t *testing.T) {
	const head = "name: c\nnodes: [a, b, c]\n"
	text := head + "fence_devices:\n  - {name: f, agent: /usr/sbin/fence_x, nodes: [a], params: {ip: 10.0.0.1, password: hunter2, passwd_script: /p}}\n"
	got, err := masked(api.Definition{YAML: text, Version: 7})
	if err != nil || got.Version != 7 || strings.Contains(got.YAML, "hunter2") || !strings.Contains(got.YAML, "10.0.0.1") || !strings.Contains(got.YAML, "/p") {
		t.Errorf("%v %+v", err, got)
	}
	if got, err := masked(api.Definition{YAML: head}); err != nil || got.YAML != head {
		t.Errorf("without secrets it is left as it is: %v %q", err, got.YAML)
	}
	if got, err := masked(api.Definition{YAML: "password: hunter2"}); err == nil || strings.Contains(err.Error(), "hunter2") || got.YAML != "" {
		t.Errorf("what cannot be read is not shown: %v %q", err, got.YAML)
	}
}
