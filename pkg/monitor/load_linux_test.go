package monitor

import (
	"errors"
	"testing"
)

func TestLoadNeedsTwoReadings(t *testing.T) {
	var r LoadReader
	if _, err := r.Read(); !errors.Is(err, ErrNoLoad) {
		t.Fatalf("first reading: %v", err)
	}
	for {
		l, err := r.Read()
		if errors.Is(err, ErrNoLoad) {
			continue // no tick has passed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if l.IdleCPU < 0 || l.IdleCPU > 100 || l.FreeMemory <= 0 || l.BusyDisk < 0 || l.BusyDisk > 100 {
			t.Fatalf("load %+v", l)
		}
		return
	}
}
