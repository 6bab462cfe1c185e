package fence_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
	"github.com/holdfast-ha/holdfast/pkg/executor/executortest"
	"github.com/holdfast-ha/holdfast/pkg/executor/fence"
)

// agent is a fence agent over a directory: the file power.PLUG holds on or off, the file broken makes every action fail, lie
// makes off say yes and do nothing, slow makes the power go away only at the third status.
const agent = `
cd "$(dirname "$0")"
while IFS= read -r l; do
  case "$l" in action=*) action="${l#action=}";; plug=*) plug="${l#plug=}";; passwd=*) passwd="${l#passwd=}";; esac
done
echo "$action $plug" >>calls
[ "$action" = metadata ] && { echo "WARNING: old" >&2; cat metadata; exit 0; }
[ -f broken ] && { echo "cannot connect with $passwd" >&2; exit 1; }
case "$action" in
on) echo on >power.$plug;;
off) [ -f lie ] || echo off >power.$plug; [ -f slow ] && echo on >power.$plug; exit 0;;
status)
  [ -f slow ] && { echo x >>slow; [ $(wc -l <slow) -ge 3 ] && echo off >power.$plug; }
  case "$(cat power.$plug)" in on) exit 0;; off) exit 2;; *) echo "no power at the device"; exit 1;; esac;;
*) exit 1;;
esac`

const metadata = `<?xml version="1.0" ?>
<resource-agent name="fence_test" shortdesc="A test"><longdesc> Long. </longdesc>
<parameters>
<parameter name="plug" unique="0" required="1"><content type="string" /><shortdesc lang="en">Plug</shortdesc></parameter>
<parameter name="ip" required="1"><content type="string" /></parameter>
<parameter name="passwd" required="0"><content type="string" default="" /></parameter>
</parameters>
<actions><action name="on" automatic="0"/><action name="off" /><action name="status" /><action name="metadata" /></actions>
</resource-agent>
`

type bench struct {
	dir string
	f   *fence.Fencer
	d   *cluster.FenceDevice
	log *bytes.Buffer
}

func newBench(t *testing.T) bench {
	t.Helper()
	b := bench{dir: executortest.ScriptDir(t), log: &bytes.Buffer{}}
	run, err := executor.NewRunner(executor.RunnerOptions{Dir: t.TempDir(), Node: "n1",
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run.Close)
	b.f = fence.New(run)
	b.d = &cluster.FenceDevice{Name: "pdu", Agent: executortest.Script(t, b.dir, "fence_test", agent), Nodes: []string{"n2", "n3"},
		Params: map[string]string{"ip": "10.0.0.1", "passwd": "s3cr3t word"}, Plugs: map[string]string{"n2": "7"}, Timeout: 5 * time.Second}
	b.write(t, "metadata", metadata)
	b.write(t, "power.7", "on")
	b.write(t, "power.n3", "on")
	return b
}

func (b bench) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(b.dir+"/"+name, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b bench) calls(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(b.dir + "/calls")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func TestOffIsProvenByTheStatusAfterIt(t *testing.T) {
	b := newBench(t)
	asked := 0
	proof, err := b.f.Off(t.Context(), b.d, "n2", func() error { asked++; return nil })
	if err != nil || !strings.Contains(proof, "device pdu") || !strings.Contains(proof, "node n2 off") || asked != 1 {
		t.Errorf("%q, %v, asked %d times", proof, err, asked)
	}
	if got := b.calls(t); got != "off 7\nstatus 7\n" {
		t.Errorf("calls %q", got)
	}
	if p, err := b.f.Status(t.Context(), b.d, "n3"); p != fence.On || err != nil {
		t.Errorf("the other node is %s, %v", p, err)
	}
	if err := b.f.On(t.Context(), b.d, "n2"); err != nil {
		t.Error(err)
	}
	if p, err := b.f.Status(t.Context(), b.d, "n2"); p != fence.On || err != nil {
		t.Errorf("%s, %v", p, err)
	}
}

func TestADeviceThatSwitchesOffLateIsAwaited(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile(b.dir+"/slow", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.f.Off(t.Context(), b.d, "n3", nil); err != nil {
		t.Error(err)
	}
	if got := b.calls(t); got != "off n3\nstatus n3\nstatus n3\nstatus n3\n" {
		t.Errorf("calls %q", got)
	}
}

func TestNothingLessIsAProof(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, b *bench)
		want  string
	}{
		"off that lies":    {func(t *testing.T, b *bench) { b.write(t, "lie", "") }, "its power is still on"},
		"no power there":   {func(t *testing.T, b *bench) { b.write(t, "lie", ""); b.write(t, "power.7", "?") }, "no power at the device"},
		"device broken":    {func(t *testing.T, b *bench) { b.write(t, "broken", "") }, "cannot connect"},
		"agent missing":    {func(_ *testing.T, b *bench) { b.d.Agent = b.dir + "/none" }, "does not exist"},
		"agent hangs":      {func(t *testing.T, b *bench) { b.d.Agent = executortest.Script(t, b.dir, "hang", "sleep 1000") }, "timed out"},
		"bad parameter":    {func(_ *testing.T, b *bench) { b.d.Params["a b"] = "" }, `"a b"`},
		"two-line value":   {func(_ *testing.T, b *bench) { b.d.Params["ip"] = "x\naction=on" }, "one line"},
		"action in params": {func(_ *testing.T, b *bench) { b.d.Params["action"] = "reboot" }, "remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.d.Timeout = 2 * time.Second
			c.spoil(t, &b)
			proof, err := b.f.Off(t.Context(), b.d, "n2", nil)
			if proof != "" || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v, wanted %q", proof, err, c.want)
			}
		})
	}
	b := newBench(t)
	if _, err := b.f.Off(t.Context(), b.d, "n2", func() error { return errors.New("no longer the leader") }); err == nil || b.calls(t) != "" {
		t.Errorf("shot although called off: %v, %q", err, b.calls(t))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.f.Off(ctx, b.d, "n2", nil); err == nil || !errors.Is(err, context.Canceled) || b.calls(t) != "" {
		t.Errorf("shot although cancelled: %v, %q", err, b.calls(t))
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	b := newBench(t)
	b.write(t, "broken", "")
	_, err := b.f.Off(t.Context(), b.d, "n2", nil)
	if err == nil || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(b.log.String(), "s3cr3t") {
		t.Errorf("the password is shown: %v\n%s", err, b.log)
	}
	if !strings.Contains(b.log.String(), "cannot connect with ***") {
		t.Errorf("the output is not logged: %s", b.log)
	}
}

func TestMetadataAndValidate(t *testing.T) {
	b := newBench(t)
	m, err := b.f.Metadata(t.Context(), b.d)
	if err != nil || m.Name != "fence_test" || len(m.Parameters) != 3 || !m.Parameters[1].Required || len(m.Actions) != 4 {
		t.Errorf("%+v, %v", m, err)
	}
	if err := b.f.Validate(t.Context(), b.d); err != nil {
		t.Error(err)
	}
	delete(b.d.Params, "ip")
	b.d.Params["usernme"] = "x"
	b.write(t, "metadata", strings.Replace(metadata, `<action name="off" />`, "", 1))
	err = b.f.Validate(t.Context(), b.d)
	for _, want := range []string{"lacks the parameter ip", "does not know the parameter usernme", "does not know the action off"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, wanted %q", err, want)
		}
	}
	for _, bad := range []string{"", "<resource-agent", "<resource-agent><a></resource-agent>", strings.Repeat("x", 300<<10)} {
		if m, err := fence.ParseMetadata(bad); err == nil {
			t.Errorf("%.20q is taken for %+v", bad, m)
		}
	}
}

func FuzzParseMetadata(f *testing.F) {
	f.Add(metadata)
	f.Fuzz(func(_ *testing.T, text string) { _, _ = fence.ParseMetadata(text) })
}
