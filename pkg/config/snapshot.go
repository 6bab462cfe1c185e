package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Snapshot is a definition that was kept: a cluster file with a heading of comments, so that it can be read, compared and applied
// as any other. The checksum in the heading covers everything else in the file.
type Snapshot struct {
	Name        string
	Description string
	Cluster     string
	Version     uint64 // of the definition
	Taken       time.Time
	By          string
	Definition  *cluster.Definition
}

// MaxDescription is how long a snapshot's description may be, as in PowerHA.
const MaxDescription = 255

const snapshotMark = "# Holdfast snapshot"

// EncodeSnapshot writes a snapshot. It holds the parameters of fence devices, secrets included, and belongs into files of mode 0600.
func EncodeSnapshot(s *Snapshot) ([]byte, error) {
	body, err := EncodeCluster(s.Definition)
	if err != nil {
		return nil, err
	}
	if len(s.Description) > MaxDescription {
		return nil, fmt.Errorf("the description has %d bytes, at most %d can be kept", len(s.Description), MaxDescription)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# name: %s\n# description: %s\n# cluster: %s\n# version: %d\n# taken: %s\n# by: %s\n", snapshotMark, plainLine(s.Name), plainLine(s.Description),
		plainLine(s.Cluster), s.Version, s.Taken.UTC().Format(time.RFC3339), plainLine(s.By))
	fmt.Fprintf(&b, "# sha256: %s\n%s", checksum(b.String(), body), body)
	return []byte(b.String()), nil
}

func checksum(head string, body []byte) string {
	h := sha256.New()
	h.Write([]byte(head))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func plainLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// DecodeSnapshot reads what EncodeSnapshot wrote. A file that was changed since, or damaged, is refused; its text can still be
// applied as a cluster file, by somebody who has looked at it.
func DecodeSnapshot(name string, data []byte) (*Snapshot, error) {
	s := &Snapshot{}
	rest := data
	sum := ""
	for first := true; sum == ""; first = false {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		text := string(line)
		if !ok || first && text != snapshotMark {
			return nil, fmt.Errorf("%s is no snapshot: it does not begin with %q and a heading with a checksum", name, snapshotMark)
		}
		if key, value, found := strings.Cut(strings.TrimPrefix(text, "# "), ":"); !first && found && strings.HasPrefix(text, "# ") {
			if err := s.set(key, strings.TrimSpace(value), &sum); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		} else if !first {
			return nil, fmt.Errorf("%s: the heading has the line %q", name, text)
		}
		if sum == "" {
			rest = after
			continue
		}
		head := string(data[:len(data)-len(rest)])
		if got := checksum(head, after); got != sum {
			return nil, fmt.Errorf("%s was changed or damaged since it was taken: its checksum begins with %.12s, the heading says %.12s", name, got, sum)
		}
		rest = after
	}
	d, err := DecodeCluster(name, rest)
	if err != nil {
		return nil, err
	}
	s.Definition = d
	return s, nil
}

func (s *Snapshot) set(key, value string, sum *string) error {
	var err error
	switch key {
	case "name":
		s.Name = value
	case "description":
		s.Description = value
	case "cluster":
		s.Cluster = value
	case "version":
		s.Version, err = strconv.ParseUint(value, 10, 64)
	case "taken":
		s.Taken, err = time.Parse(time.RFC3339, value)
	case "by":
		s.By = value
	case "sha256":
		if len(value) != 64 {
			return fmt.Errorf("the checksum %q has another length", value)
		}
		*sum = value
	default:
		return fmt.Errorf("the heading has an unknown key %q", key)
	}
	if err != nil {
		return fmt.Errorf("the heading's %s is %q: %w", key, value, err)
	}
	return nil
}
