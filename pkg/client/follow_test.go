package client

import (
	"bufio"
	"strings"
	"testing"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

func TestStreamReader(t *testing.T) {
	text := "id: 3\r\nretry: 5\r\n\r\n: alive\n\nid:4\ndata: {\"id\":4}\n\nevent: lost\ndata: {\"sentence\":\ndata: \"gone\"}\n\nevent: of another version\ndata: x\n\nid: 5\ndata: {"
	r := streamReader{bufio.NewReaderSize(strings.NewReader(text), 16)}
	at, ids, told := "", []uint64{}, ""
	for {
		m, err := r.next(func() {})
		if err != nil {
			break
		}
		if err := m.give(&at, func(e api.Event) error { ids = append(ids, e.ID); return nil }, func(s string) { told += s }); err != nil {
			t.Fatal(err)
		}
	}
	if at != "4" || len(ids) != 1 || ids[0] != 4 || told != "gone" {
		t.Errorf("at %q, heard %v, told %q", at, ids, told)
	}
	long := streamReader{bufio.NewReaderSize(strings.NewReader("data: "+strings.Repeat("x", 2*maxStreamLine)), 4096)}
	if _, err := long.next(func() {}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a line without end: %v", err)
	}
}

func FuzzStream(f *testing.F) {
	f.Add("id: 1\ndata: {\"id\":1}\n\n")
	f.Add(": x\nevent: end\ndata: {}\n\n")
	f.Add("data\ndata:\n\n\n")
	f.Fuzz(func(_ *testing.T, text string) {
		r := streamReader{bufio.NewReaderSize(strings.NewReader(text), 16)}
		at := ""
		for {
			m, err := r.next(func() {})
			if err != nil {
				return
			}
			_ = m.give(&at, func(api.Event) error { return nil }, func(string) {})
		}
	})
}
