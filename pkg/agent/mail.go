package agent

import "sync"

// mailbox brings events to the loop. Posting never blocks and never loses: a callback under somebody's lock, or a goroutine
// that ends, must not wait for the loop. It is bounded by what can be under way at once.
type mailbox struct {
	mu    sync.Mutex
	list  []any
	ready chan struct{}
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

func (b *mailbox) post(v any) {
	b.mu.Lock()
	b.list = append(b.list, v)
	b.mu.Unlock()
	b.wake()
}

// wake makes the loop run a pass without an event.
func (b *mailbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *mailbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.list
	b.list = nil
	return l
}
