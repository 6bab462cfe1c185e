package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A11: a round serves only requests that came before it began, however many are brought together.
func TestA11AGatheringIsClosedBeforeItsRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gatherer
		var mu sync.Mutex
		var begun []time.Time
		round := func() error {
			mu.Lock()
			begun = append(begun, time.Now())
			mu.Unlock()
			time.Sleep(3 * time.Millisecond)
			return nil
		}
		type served struct{ asked, end time.Time }
		got := make(chan served, 16)
		ask := func(after time.Duration) {
			go func() {
				time.Sleep(after)
				asked := time.Now()
				if err := g.confirm(t.Context(), 3, round); err != nil {
					t.Errorf("asked after %v: %v", after, err)
				}
				got <- served{asked, time.Now()}
			}()
		}
		ask(0)
		ask(time.Millisecond)
		ask(gatherTime + time.Millisecond) // the first round runs
		for range 3 {
			s := <-got
			mu.Lock()
			ok := false
			for _, b := range begun {
				ok = ok || !b.Before(s.asked) && !b.Add(3*time.Millisecond).After(s.end)
			}
			if !ok {
				t.Errorf("asked at %v, served at %v: by no round that began in between; rounds began at %v", s.asked, s.end, begun)
			}
			mu.Unlock()
		}
		if len(begun) != 2 {
			t.Errorf("%d rounds for two gatherings", len(begun))
		}
	})
}

// When everybody has asked nobody is waited for.
func TestAFullGatheringDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gatherer
		var rounds atomic.Int64
		round := func() error { rounds.Add(1); return nil }
		began := time.Now()
		done := make(chan error, 3)
		for range 3 {
			go func() { done <- g.confirm(t.Context(), 3, round) }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n, took := rounds.Load(), time.Since(began); n != 1 || took != 0 {
			t.Errorf("%d rounds, after %v; want one at once", n, took)
		}
	})
}

// The one who came first may give up; the others are served all the same.
func TestAGatheringOutlivesItsFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gatherer
		gone, leave := context.WithCancel(t.Context())
		round := func() error { time.Sleep(10 * time.Millisecond); return nil }
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- g.confirm(gone, 3, round) }()
		synctest.Wait()
		go func() { second <- g.confirm(t.Context(), 3, round) }()
		synctest.Wait()
		leave()
		if err := <-second; err != nil {
			t.Errorf("the second request: %v", err)
		}
		<-first
		// And a round that fails fails for all that it was to serve.
		lost := errors.New("the term is over")
		if err := g.confirm(t.Context(), 1, func() error { return lost }); !errors.Is(err, lost) {
			t.Errorf("of a round that failed: %v", err)
		}
	})
}

// A node that joins while a gathering is already full does not fill it twice.
func TestAGatheringIsFilledOnce(t *testing.T) {
	full := &gathering{asked: 1, closed: true, full: make(chan struct{}), served: make(chan struct{})}
	close(full.full)
	close(full.served)
	g := gatherer{open: full}
	if err := g.confirm(t.Context(), 2, nil); err != nil {
		t.Error(err)
	}
}
