package agent

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// row makes resources of words: "ip:a", "app:b", "fs:c=/mount/point" or "fs:c=/mount/point<device".
func row(t *testing.T, text string) []executor.Resource {
	t.Helper()
	var out []executor.Resource
	for word := range strings.FieldsSeq(text) {
		kind, rest, _ := strings.Cut(word, ":")
		name, at, _ := strings.Cut(rest, "=")
		r := executor.Resource{Kind: map[string]executor.Kind{"ip": executor.KindServiceIP, "app": executor.KindApplication, "ocf": executor.KindOCF,
			"fs": executor.KindFileSystem, "vg": executor.KindVolumeGroup}[kind], Name: name}
		if r.Kind == "" {
			t.Fatal(word)
		}
		if kind == "fs" {
			point, device, _ := strings.Cut(at, "<")
			r.FileSystem = &cluster.FileSystem{Name: name, MountPoint: point, Device: device}
		}
		out = append(out, r)
	}
	return out
}

func TestStages(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"ip:a ip:b":                             "a+b",
		"vg:v vg:w ip:a ip:b app:x":             "v w a+b x",
		"ocf:a app:b ocf:c":                     "a b c",
		"ip:a fs:f=/f fs:g=/g app:x":            "a f+g x",
		"fs:f=/f fs:g=/g ip:a":                  "f+g a",
		"fs:in=/a/b fs:out=/a fs:by=/ab":        "out+by in",
		"fs:c=/a/b/c fs:b=/a/b fs:a=/a fs:d=/d": "a+d b c",
		"fs:img=/x</a/disk.img fs:a=/a":         "a img",
		"fs:b=/b</a/dir fs:a=/a</b/dir fs:c=/c": "c b a", // a circle keeps its order
		"fs:root=/ fs:f=/f":                     "root f",
	} {
		var parts, row1 []string
		for _, s := range stages(row(t, in), false) {
			row1 = nil
			for _, r := range s {
				row1 = append(row1, r.Name)
			}
			parts = append(parts, strings.Join(row1, "+"))
		}
		if got := strings.Join(parts, " "); got != want {
			t.Errorf("%s: %s, wanted %s", in, got, want)
		}
	}
	var one []string
	for _, s := range stages(row(t, "ip:a ip:b fs:in=/a/b fs:out=/a fs:f=/f app:x"), true) {
		one = append(one, fmt.Sprint(len(s), s[0].Name))
	}
	if got := strings.Join(one, " "); got != "2a 1out 1f 1in 1x" {
		t.Error("sequential: ", got)
	}
}

func TestSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []executor.Resource
		for i := range 2*maxAtOnce + 1 {
			all = append(all, executor.Resource{Name: fmt.Sprint(i)})
		}
		var mu sync.Mutex
		var now, most atomic.Int32
		began := time.Now()
		results := sideBySide(all, func(r executor.Resource) executor.Result {
			n := now.Add(1)
			mu.Lock()
			most.Store(max(most.Load(), n))
			mu.Unlock()
			time.Sleep(time.Second)
			now.Add(-1)
			return executor.Result{Detail: r.Name}
		})
		if took := time.Since(began); took != 3*time.Second || most.Load() != maxAtOnce {
			t.Errorf("%d steps took %v, at most %d at once", len(all), took, most.Load())
		}
		for i, r := range results {
			if r.Detail != all[i].Name {
				t.Errorf("result %d is of %s", i, r.Detail)
			}
		}
	})
}
