package cli

import (
	"strings"
	"testing"
)

// Volumes are added by a name and a device, or several at once by their paths or AIX disks: all of them or none.
func TestAddRepositories(t *testing.T) {
	for _, tc := range []struct {
		line, want string // what is in the definition then, or what the refusal says
		status     int
	}{
		{"add repository r1 DEVICE=/dev/x", "r1=/dev/x", 0},
		{"add repository /dev/disk/by-id/wwn-1,/shared/two.vol", "wwn-1=/dev/disk/by-id/wwn-1 two.vol=/shared/two.vol", 0},
		{"add rp hdisk2,hdiskpower3", "hdisk2=/dev/hdisk2 hdiskpower3=/dev/hdiskpower3", 0},
		{"add repository hdisk2 DEVICE=/dev/other", "hdisk2=/dev/other", 0},
		{"add repository /dev/x,r2", "not all such", ExitIncorrect},
		{"add repository r1,r2", "not all such", ExitIncorrect},
		{"add repository /dev/x DEVICE=/dev/y", "beside a path", ExitIncorrect},
		{"add repository /a/x,/b/x", "there is one already", ExitFailed},
		{"add repository /dev/%", "cannot be a name", ExitIncorrect},
		{"add repository r1", "DEVICE", ExitMissing},
		{"add repository r1 DEVICE=/dev/x LOST=yes", "has no attribute LOST", ExitNotFound},
	} {
		l := newLab(t)
		had := len(l.def().Repositories)
		got := l.run(strings.Fields(tc.line)...)
		var out []string
		for _, r := range l.def().Repositories[had:] {
			out = append(out, r.Name+"="+r.Device)
		}
		switch {
		case got.status != tc.status:
			t.Errorf("%s: status %d, wanted %d: %s", tc.line, got.status, tc.status, got.errors)
		case tc.status == 0 && strings.Join(out, " ") != tc.want:
			t.Errorf("%s: %v", tc.line, out)
		case tc.status != 0 && (len(out) != 0 || !strings.Contains(got.errors, tc.want)):
			t.Errorf("%s: %v, %q", tc.line, out, got.errors)
		}
	}
}
