package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNodeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.yaml")
	text := `name: node1
state_dir: /srv/holdfast
run_dir: /tmp/hf
port: 7000
gossip_port: 7001
metrics: off
listen: [10.1.1.1, "fd00::1"]
boot_id_file: /tmp/boot_id
log_level: debug
deadman: {backend: lab, device: /tmp/wd.sock, watchdog_timeout: 2s}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := LoadNode(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Node{Name: "node1", StateDir: "/srv/holdfast", RunDir: "/tmp/hf", LogDir: "/var/log/holdfast", Port: 7000, GossipPort: 7001, VoterPort: 6194, Metrics: "",
		Listen: []string{"10.1.1.1", "fd00::1"}, BootIDFile: "/tmp/boot_id", LogLevel: "debug",
		Deadman: Deadman{Backend: "lab", Device: "/tmp/wd.sock", Socket: "/tmp/hf/deadman.sock", WatchdogTimeout: 2 * time.Second},
		Access:  Access{View: []string{"everyone"}, Operate: []string{"%holdfast"}}}
	if fmt.Sprintf("%+v", *n) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", *n, want)
	}
}

func TestNodeDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		n, err := DecodeNode("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		want := Node{StateDir: "/var/lib/holdfast", RunDir: "/run/holdfast", LogDir: "/var/log/holdfast", Port: 6191, GossipPort: 6192, VoterPort: 6194, Metrics: "127.0.0.1:6193", LogLevel: "info",
			Deadman: Deadman{Backend: "watchdog", Device: "/dev/watchdog", Socket: "/run/holdfast/deadman.sock"},
			Access:  Access{View: []string{"everyone"}, Operate: []string{"%holdfast"}}}
		if fmt.Sprintf("%+v", *n) != fmt.Sprintf("%+v", want) {
			t.Errorf("got  %+v\nwant %+v", *n, want)
		}
	}
}

func TestFaultsOfANodeFile(t *testing.T) {
	for text, want := range map[string]string{
		"nmae: node1\n":                         `f:1:1: nmae: ...did you mean "name"`,
		"name: a b\n":                           "f:1:7: name: ...letters, digits",
		"port: 70000\n":                         "f:1:7: port: the port 70000 cannot be used: 1 to 65535",
		"port: six\n":                           "f:1:7: port: this is \"six\": a whole number",
		"port: 6192\n":                          "f:1:...gossip_port: the port 6192",
		"state_dir: state\n":                    "f:1:12: state_dir: ...absolute",
		"state_dir: /a/../b\n":                  "f:1:12: state_dir: ...absolute",
		"metrics: 6193\n":                       "f:1:10: metrics: ...ADDRESS:PORT",
		"metrics: host:6193\n":                  "f:1:10: metrics: ...not an IP address",
		"metrics: 127.0.0.1:6191\n":             "f:1:10: metrics: ...used by the agents",
		"listen: 10.1.1.1\n":                    "f:1:9: listen: this is \"10.1.1.1\": a list",
		"listen: [10.1.1.1:80]\n":               "f:1:10: listen[0]: ...without a port",
		"listen: [10.1.1.1, 10.1.1.1]\n":        "f:1:20: listen[1]: ...twice",
		"log_level: verbose\n":                  "f:1:12: log_level: ...debug, info, warn, error",
		"deadman: {backend: watchdgo}\n":        `f:1:20: deadman.backend: ...did you mean "watchdog"`,
		"deadman: {watchdog_timeout: 5}\n":      "f:1:29: deadman.watchdog_timeout: the duration 5 has no unit: write 5s",
		"deadman: {watchdog_timeout: 1500ms}\n": "f:1:29: deadman.watchdog_timeout: ...whole seconds",
		"deadman: {backend: lab}\n":             "f:1:...deadman.device: ...needs it",
		"deadman: watchdog\n":                   "f:1:10: deadman: ...a mapping is needed",
	} {
		n, err := DecodeNode("f", []byte(text))
		var faults Faults
		if n != nil || !errors.As(err, &faults) || len(faults) != 1 || !found(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestLoadNodeThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadNode(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := LoadNode(dir); err == nil || !strings.Contains(err.Error(), "node file") {
		t.Error(err)
	}
}

func TestFaultsOfAccess(t *testing.T) {
	for text, want := range map[string]string{
		"access: {operate: [everyone]}":    "access.operate[0]",
		"access: {admin: [\"%\"]}":         "access.admin[0]",
		"access: {view: [alice, \"a b\"]}": "access.view[1]",
		"access: {root: [alice]}":          "there is no key",
	} {
		if _, err := DecodeNode("f", []byte(text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	n, err := DecodeNode("f", []byte("access: {view: [], operate: [alice, \"%ops\"], admin: [bob]}\n"))
	if err != nil || len(n.Access.View) != 0 || len(n.Access.Operate) != 2 || n.Access.Admin[0] != "bob" {
		t.Errorf("%v %+v", err, n)
	}
}
