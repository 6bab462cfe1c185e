package server

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// watched keeps the newest status as text for those who wait for a change. All of them wake at once, and each would otherwise make
// and encode the whole of it anew: with hundreds of watchers that is most of what a change costs a node. A plain question is never
// answered from here, because it may follow a write whose effect it must show.
type watched struct {
	mu       sync.Mutex
	instance string
	version  uint64
	made     time.Time
	text     encoded
}

// watchedAge bounds the ages in a status that is given again, which grow while its version does not. Its time says when it was made.
const watchedAge = 200 * time.Millisecond

func (w *watched) status(b Reader) (encoded, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	instance, version := b.Version()
	if w.text != nil && w.instance == instance && w.version == version && time.Since(w.made) < watchedAge {
		return w.text, nil
	}
	made, st := time.Now(), b.Status()
	text, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	w.instance, w.version, w.made, w.text = st.Instance, st.Version, made, append(text, '\n')
	return w.text, nil
}
