package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// breakGlass is the option that starts and releases a group past the cluster, without its first dash. The work is done by the daemon's
// own program, which has the executors.
const breakGlass = "-break-glass"

// breakGlass does what --break-glass asks for; done is false when it was not given.
func (s *session) breakGlass(ctx context.Context, t *target, action string) (done bool, err error) {
	confirm, confirmed := s.take("CONFIRM")
	file, fromFile := s.options["f"]
	if _, given := s.options[breakGlass]; !given {
		if confirmed || fromFile {
			return false, fail(ExitIncorrect, "%s: CONFIRM and -f FILE are for --break-glass", t.what())
		}
		return false, nil
	}
	switch _, node := s.take("NODE"); {
	case node:
		return true, fail(ExitIncorrect, "%s --break-glass acts on this node: NODE cannot be given", t.what())
	case len(t.names) != 1:
		return true, fail(ExitIncorrect, "%s --break-glass takes one group at a time", t.what())
	case confirmed && strings.TrimSpace(confirm) == "":
		return true, fail(ExitMissing, "%s: CONFIRM is empty; it names the group and every other node of the cluster", t.what())
	}
	args := []string{"break-glass", action, "--group=" + t.names[0]}
	if fromFile {
		if file, err = filepath.Abs(file); err != nil {
			return true, fail(ExitNotFound, "%s: %w", t.what(), err)
		}
		args = append(args, "--file="+file)
	}
	if confirmed {
		args = append(args, "--confirm="+confirm)
	}
	if f, ok := s.env.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		args = append(args, "--terminal")
	}
	status, complaint := s.env.glass(ctx, s.env, args)
	if status == 0 {
		return true, nil
	}
	code := ExitFailed
	if status == 2 { // the node file or the call cannot be used
		code = ExitNotFound
	}
	if complaint == "" {
		complaint = fmt.Sprintf("%s --break-glass ended with status %d", t.what(), status)
	}
	return true, fail(code, "%s", complaint)
}

// runGlass runs clstrmgrd, which lies beside clmgr or where the package puts it.
func runGlass(ctx context.Context, e Env, args []string) (status int, complaint string) {
	program, err := findDaemon()
	if err != nil {
		return -1, err.Error()
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	// A signal that ends clmgr must not leave half a group behind: the program undoes what it has done.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Minute
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.Stdin, e.Stdout, &stderr
	err = cmd.Run()
	complaint = strings.TrimSpace(stderr.String())
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), complaint
	}
	if err != nil {
		return -1, strings.TrimSpace(fmt.Sprintf("run %s: %v\n%s", program, err, complaint))
	}
	return 0, ""
}

func findDaemon() (string, error) {
	places := []string{"/usr/sbin/clstrmgrd"}
	if self, err := os.Executable(); err == nil {
		places = append([]string{filepath.Join(filepath.Dir(self), "clstrmgrd")}, places...)
	}
	for _, p := range places {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("clstrmgrd, which does this, is in none of %s", strings.Join(places, ", "))
}
