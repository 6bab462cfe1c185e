package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// checkBolt reads a bbolt file through and says what is wrong with its structure, before bbolt maps it: bbolt itself panics
// on much of what can be damaged, partly in goroutines of its own, and loops for ever on the rest. It reads pages by ReadAt
// and follows each reference once, so that nothing in the file can make it fault, run away or grow.
//
// It returns the keys of the log bucket, in order. It cannot see a flipped bit inside a value: those have checksums of
// their own (see command, seal).
func checkBolt(f io.ReaderAt, size int64) (logs []uint64, err error) {
	c := &boltCheck{f: f, size: size, seen: map[uint64]bool{}}
	root, err := c.newestMeta()
	if err != nil {
		return nil, err
	}
	buckets := map[string]uint64{}
	err = c.walk(root, nil, func(key, value []byte, bucket bool) error {
		if !bucket || len(value) < 16 {
			return fmt.Errorf("the root holds something else than a bucket")
		}
		if r := binary.NativeEndian.Uint64(value); r != 0 {
			buckets[string(key)] = r
			return nil
		}
		return c.leaf(value[16:], uint64(len(value)-16), nil, bucketEntry(string(key), &logs))
	})
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"conf", "logs"} {
		if r, ok := buckets[name]; ok {
			if err := c.walk(r, nil, bucketEntry(name, &logs)); err != nil {
				return nil, fmt.Errorf("bucket %s: %w", name, err)
			}
		}
	}
	return logs, nil
}

// bucketEntry checks the entries of one bucket, and collects the log's indexes.
func bucketEntry(name string, logs *[]uint64) func(key, value []byte, bucket bool) error {
	return func(key, _ []byte, bucket bool) error {
		switch {
		case bucket:
			return errors.New("a bucket stands where a value should")
		case name == "logs" && len(key) != 8:
			return fmt.Errorf("a log entry's key has %d bytes", len(key))
		case name == "logs":
			*logs = append(*logs, binary.BigEndian.Uint64(key))
		}
		return nil
	}
}

// The layout of bbolt's file, format version 2; integers are in the machine's own order.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeader     = 16 // id, flags, count, overflow
	pageBranch     = 0x01
	pageLeaf       = 0x02
	pageMeta       = 0x04
	elementSize    = 16
	leafIsBucket   = 0x01
	metaSize       = 64
	maxBoltDepth   = 32
	maxOverflow    = 1 << 16
	minBoltPage    = 1 << 10
	maxBoltPage    = 1 << 17
	metaChecksumAt = 56
)

type boltCheck struct {
	f        io.ReaderAt
	size     int64
	pageSize uint64
	pages    uint64 // high water mark
	seen     map[uint64]bool
}

// newestMeta finds the newest of the two meta pages that is whole, and returns the root bucket's page.
func (c *boltCheck) newestMeta() (root uint64, err error) {
	var newest uint64
	found := false
	try := func(offset int64) (pageSize int64) {
		b := make([]byte, pageHeader+metaSize)
		if _, err := c.f.ReadAt(b, offset); err != nil {
			return 0
		}
		m, e := b[pageHeader:], binary.NativeEndian
		h := fnv.New64a()
		h.Write(m[:metaChecksumAt])
		if e.Uint32(m) != boltMagic || e.Uint32(m[4:]) != boltVersion || e.Uint64(m[metaChecksumAt:]) != h.Sum64() {
			return 0
		}
		size, txid := uint64(e.Uint32(m[8:])), e.Uint64(m[48:])
		if size < minBoltPage || size > maxBoltPage || size&(size-1) != 0 {
			return 0
		}
		if !found || txid > newest {
			found, newest = true, txid
			root, c.pages, c.pageSize = e.Uint64(m[16:]), e.Uint64(m[40:]), size
		}
		return int64(size)
	}
	if size := try(0); size != 0 {
		try(size)
	} else {
		size := int64(minBoltPage)
		for size <= maxBoltPage && try(size) == 0 {
			size *= 2
		}
	}
	switch {
	case !found:
		return 0, errors.New("neither of its two meta pages is whole")
	case c.pages > uint64(c.size)/c.pageSize+maxOverflow || int64(c.pages*c.pageSize) > c.size:
		return 0, fmt.Errorf("it is %d bytes long, its meta page wants %d: it was cut short", c.size, c.pages*c.pageSize)
	}
	return root, nil
}

// page reads a page with its overflow.
func (c *boltCheck) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.pages {
		return nil, fmt.Errorf("page %d is outside of the file", id)
	}
	if c.seen[id] {
		return nil, fmt.Errorf("page %d is referred to twice", id)
	}
	head := make([]byte, pageHeader)
	if _, err := c.f.ReadAt(head, int64(id*c.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	e := binary.NativeEndian
	overflow := uint64(e.Uint32(head[12:]))
	if e.Uint64(head) != id || overflow > maxOverflow || id+overflow >= c.pages {
		return nil, fmt.Errorf("page %d has a damaged header", id)
	}
	for i := id; i <= id+overflow; i++ {
		c.seen[i] = true
	}
	b := make([]byte, (overflow+1)*c.pageSize)
	if _, err := c.f.ReadAt(b, int64(id*c.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return b, nil
}

type entryFunc func(key, value []byte, bucket bool) error

// walk visits all entries below the page, in order.
func (c *boltCheck) walk(id uint64, depth []uint64, visit entryFunc) error {
	if len(depth) > maxBoltDepth {
		return errors.New("the tree is too deep")
	}
	b, err := c.page(id)
	if err != nil {
		return err
	}
	e := binary.NativeEndian
	switch flags := e.Uint16(b[8:]); flags {
	case pageLeaf:
		return c.leaf(b, uint64(len(b)), nil, visit)
	case pageBranch:
	default:
		return fmt.Errorf("page %d is of an unexpected kind %#x", id, flags)
	}
	count := int(e.Uint16(b[10:]))
	if count == 0 || pageHeader+count*elementSize > len(b) {
		return fmt.Errorf("page %d has a damaged header", id)
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*elementSize
		key, ok := cut(b, at, uint64(e.Uint32(b[at:])), uint64(e.Uint32(b[at+4:])))
		if !ok || i > 0 && slices.Compare(key, last) <= 0 {
			return fmt.Errorf("page %d has damaged keys", id)
		}
		last = key
		if err := c.walk(e.Uint64(b[at+8:]), append(depth, id), visit); err != nil {
			return err
		}
	}
	return nil
}

// leaf visits the entries of one leaf page.
func (c *boltCheck) leaf(b []byte, size uint64, last []byte, visit entryFunc) error {
	e := binary.NativeEndian
	if size < pageHeader || e.Uint16(b[8:]) != pageLeaf {
		return errors.New("a leaf page has a damaged header")
	}
	id, count := e.Uint64(b), int(e.Uint16(b[10:]))
	if uint64(pageHeader+count*elementSize) > size {
		return fmt.Errorf("page %d has a damaged header", id)
	}
	for i := range count {
		at := pageHeader + i*elementSize
		pos, ksize, vsize := uint64(e.Uint32(b[at+4:])), uint64(e.Uint32(b[at+8:])), uint64(e.Uint32(b[at+12:]))
		entry, ok := cut(b, at, pos, ksize+vsize)
		if !ok || ksize == 0 || i > 0 && slices.Compare(entry[:ksize], last) <= 0 {
			return fmt.Errorf("page %d has damaged entries", id)
		}
		last = entry[:ksize]
		if err := visit(last, entry[ksize:], e.Uint32(b[at:])&leafIsBucket != 0); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
	}
	return nil
}

// cut takes n bytes at an element's relative position, if they lie in the page.
func cut(b []byte, element int, pos, n uint64) ([]byte, bool) {
	from := uint64(element) + pos
	if from > uint64(len(b)) || n > uint64(len(b))-from {
		return nil, false
	}
	return b[from : from+n], true
}

// checkBoltFile checks the file if it exists and is not empty.
func checkBoltFile(path string) ([]uint64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	return checkBolt(f, info.Size())
}
