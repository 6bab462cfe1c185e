package fake

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Volume is a repository volume in memory, as hosts see one: a slot per host, written by that host alone, with the ballot of its
// newest claim and the one it has published; and an area of records per ballot. A claim takes a ballot above all seen, reads the
// slots, copies the area of the highest published ballot, reads the slots again, publishes, and reads again.
//
// Slots are read one at a time, so that anything may happen between two of them. Methods may be called by any goroutine.
type Volume struct {
	// Delay is how long a write and a read of all slots take; Trust, for tests that show what it costs, leaves the re-read out
	// of Append and Check. Both are set before the volume is used.
	Delay time.Duration
	Trust bool

	mu    sync.Mutex
	slots map[string]*volumeSlot
	areas map[int][][]byte
	hook  func(host, phase string)
	gone  map[string]bool
	reads int
}

type volumeSlot struct {
	ballot, published int
	released          bool
	beat              time.Time
}

// ErrBallot says that another claim has a higher ballot.
var ErrBallot = errors.New("another host has claimed the volume")

// ErrVolumeGone says that the host does not see the volume.
var ErrVolumeGone = errors.New("the volume cannot be read")

// NewVolume makes a volume that nobody has used.
func NewVolume() *Volume {
	return &Volume{slots: map[string]*volumeSlot{}, areas: map[int][][]byte{}, gone: map[string]bool{}}
}

// SetHook has f called, without a lock, at the steps of a host's access: "write" before a write, "written" after it and before
// the re-read, "read" before each read of the slots.
func (v *Volume) SetHook(f func(host, phase string)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hook = f
}

// SetGone takes the volume from a host's sight, or gives it back.
func (v *Volume) SetGone(host string, gone bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone[host] = gone
}

// Reads counts the reads of all slots.
func (v *Volume) Reads() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reads
}

func (v *Volume) at(host, phase string) {
	v.mu.Lock()
	hook := v.hook
	v.mu.Unlock()
	if hook != nil {
		hook(host, phase)
	}
	if v.Delay > 0 && phase != "written" {
		time.Sleep(v.Delay)
	}
}

func (v *Volume) hosts() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for h := range v.slots {
		out = append(out, h)
	}
	slices.Sort(out)
	return out
}

// read looks at all slots, one by one: ErrBallot if one is above the ballot, else the highest published one.
func (v *Volume) read(host string, ballot int) (published int, err error) {
	v.at(host, "read")
	v.mu.Lock()
	v.reads++
	v.mu.Unlock()
	for _, h := range v.hosts() {
		v.mu.Lock()
		gone, s := v.gone[host], *v.slots[h]
		v.mu.Unlock()
		switch {
		case gone:
			return 0, ErrVolumeGone
		case s.ballot > ballot:
			return 0, fmt.Errorf("%w: host %s with ballot %d, ours is %d", ErrBallot, h, s.ballot, ballot)
		}
		published = max(published, s.published)
	}
	return published, nil
}

// write changes the host's own slot or its own areas.
func (v *Volume) write(host string, change func()) error {
	v.at(host, "write")
	v.mu.Lock()
	gone := v.gone[host]
	if !gone {
		change()
	}
	v.mu.Unlock()
	if gone {
		return ErrVolumeGone
	}
	v.at(host, "written")
	return nil
}

// Claim makes the host the one whose appends count.
func (v *Volume) Claim(host string) (*VolumeStore, error) {
	s := &VolumeStore{v: v, host: host}
	if err := s.claim(nil); err != nil {
		return nil, err
	}
	return s, nil
}

// Holder is the host of the highest published ballot, whether it has given its claim up, and when it last beat.
func (v *Volume) Holder() (host string, released bool, beat time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	best := 0
	for h, s := range v.slots {
		if s.published > best {
			best, host, released, beat = s.published, h, s.released, s.beat
		}
	}
	return host, released, beat
}

// A VolumeStore is one host's claim.
type VolumeStore struct {
	v      *Volume
	host   string
	ballot int

	mu      sync.Mutex // over the queue of those who wait for a read
	waiting []chan error
	reading bool
}

// claim takes a new ballot. records, if not nil, replace what would be copied.
func (s *VolumeStore) claim(records [][]byte) error {
	v := s.v
	highest := 0
	for _, h := range v.hosts() {
		v.mu.Lock()
		highest = max(highest, v.slots[h].ballot)
		v.mu.Unlock()
	}
	var ballot int
	err := v.write(s.host, func() {
		if v.slots[s.host] == nil {
			v.slots[s.host] = &volumeSlot{}
		}
		ballot = highest + 1
		for h := range v.slots { // unique: another host may have taken the same one at the same time
			if h != s.host && v.slots[h].ballot == ballot {
				ballot++
			}
		}
		v.slots[s.host].ballot = max(ballot, v.slots[s.host].ballot+1)
		ballot = v.slots[s.host].ballot
	})
	if err != nil {
		return err
	}
	published, err := v.read(s.host, ballot)
	if err != nil {
		return err
	}
	if records != nil && published != s.ballot {
		// Who has claimed and published since, has appended what these records do not hold.
		return fmt.Errorf("%w, with ballot %d, and given it up to ours", ErrBallot, published)
	}
	if err := v.write(s.host, func() {
		if records == nil {
			records = v.areas[published]
		}
		v.areas[ballot] = slices.Clone(records)
	}); err != nil {
		return err
	}
	if _, err := v.read(s.host, ballot); err != nil {
		return err
	}
	if err := v.write(s.host, func() {
		slot := v.slots[s.host]
		slot.published, slot.released, slot.beat = ballot, false, time.Now()
	}); err != nil {
		return err
	}
	if _, err := v.read(s.host, ballot); err != nil {
		return err
	}
	s.ballot = ballot
	return nil
}

// Records is the area of this claim.
func (s *VolumeStore) Records() ([][]byte, error) {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	return slices.Clone(s.v.areas[s.ballot]), nil
}

// Append writes and re-reads.
func (s *VolumeStore) Append(records ...[]byte) error {
	err := s.v.write(s.host, func() {
		for _, r := range records {
			s.v.areas[s.ballot] = append(s.v.areas[s.ballot], slices.Clone(r))
		}
	})
	if err != nil {
		return err
	}
	return s.reread()
}

func (s *VolumeStore) reread() error {
	if s.v.Trust {
		return nil
	}
	_, err := s.v.read(s.host, s.ballot)
	return err
}

// Check re-reads. One read serves all who waited when it began.
func (s *VolumeStore) Check() error {
	end := make(chan error, 1)
	s.mu.Lock()
	s.waiting = append(s.waiting, end)
	if !s.reading {
		s.reading = true
		go s.serve()
	}
	s.mu.Unlock()
	return <-end
}

func (s *VolumeStore) serve() {
	for {
		s.mu.Lock()
		batch := s.waiting
		s.waiting = nil
		s.reading = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		err := s.reread()
		for _, end := range batch {
			end <- err
		}
	}
}

// Compact claims anew with just these records.
func (s *VolumeStore) Compact(records [][]byte) error {
	if records == nil {
		records = [][]byte{}
	}
	return s.claim(records)
}

// Beat refreshes the slot's heartbeat.
func (s *VolumeStore) Beat() error {
	return s.v.write(s.host, func() { s.v.slots[s.host].beat = time.Now() })
}

// Close gives the claim up.
func (s *VolumeStore) Close() error {
	return s.v.write(s.host, func() {
		if slot := s.v.slots[s.host]; slot.published == s.ballot {
			slot.released = true
		}
	})
}
