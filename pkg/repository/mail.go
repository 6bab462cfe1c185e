package repository

import (
	"encoding/binary"
	"fmt"
)

// A LetterKind says what a letter is about. Its body is the agent's.
type LetterKind uint8

// The kinds of letters. Unknown ones are handed on: the reader ignores them.
const (
	LetterRequest LetterKind = 1 + iota // a lease request
	LetterGrant                         // a grant
	LetterReport                        // what the sender released
	LetterPoison                        // reset yourself at once
	LetterAnswer                        // what the log has taken
)

// A Letter is one message. The subject (node, incarnation, group, generation) is part of the body: mail that is old is still
// there, and its reader must be able to tell.
type Letter struct {
	Kind LetterKind
	Body []byte
}

// Mail is what one node has for another: the newest of everything, not a queue. It stays until the writer replaces it.
type Mail struct {
	From    string
	Seq     uint64 // higher than that of any earlier mail of this sender
	Letters []Letter
}

// MaxMail is the room for letters, each of which takes 3 bytes besides its body.
const MaxMail = maxPayload - 1

// WriteMail replaces this node's mail to another. Write a heartbeat afterwards: it tells the reader that there is mail.
func (v *Volume) WriteMail(to string, letters ...Letter) error {
	if err := v.mustBe(RoleAgent); err != nil {
		return err
	}
	m := v.head.Load().member(to)
	if m == nil {
		return fmt.Errorf("write mail to %s: it is no member of the volume", to)
	}
	payload, err := encodeLetters(letters)
	if err != nil {
		return fmt.Errorf("write mail to %s: %w", to, err)
	}
	<-v.beatTurn
	defer func() { v.beatTurn <- struct{}{} }()
	if err := v.learnOwn(); err != nil {
		return err
	}
	at := v.layout.mail(v.index, m.Index)
	seq := v.beats.mail[m.Index] + 1
	buf := alignedBlocks(1)
	v.codec.encode(buf, frame{kind: kindMail, writer: uint16(v.index), position: at, seq: seq, payload: payload}, false)
	if err := v.mailLane.do(v.timings().IO, func() error { return writeBlocks(v.dev, buf, at) }); err != nil {
		return fmt.Errorf("write mail to %s: %w", to, err)
	}
	v.beats.mail[m.Index] = seq
	return nil
}

func encodeLetters(letters []Letter) ([]byte, error) {
	out := []byte{byte(len(letters))}
	for _, l := range letters {
		if len(letters) > 255 || len(out)+3+len(l.Body) > maxPayload {
			return nil, fmt.Errorf("the letters are over the limit of %d bytes", MaxMail)
		}
		out = append(out, byte(l.Kind))
		out = binary.BigEndian.AppendUint16(out, uint16(len(l.Body)))
		out = append(out, l.Body...)
	}
	return out, nil
}

func decodeLetters(p []byte) ([]Letter, error) {
	if len(p) == 0 {
		return nil, errShape
	}
	out := make([]Letter, 0, p[0])
	n := int(p[0])
	for p = p[1:]; len(p) > 0; {
		if len(p) < 3 {
			return nil, errShape
		}
		size := int(binary.BigEndian.Uint16(p[1:]))
		if len(p) < 3+size {
			return nil, errShape
		}
		out = append(out, Letter{LetterKind(p[0]), append([]byte(nil), p[3:3+size]...)})
		p = p[3+size:]
	}
	if len(out) != n {
		return nil, errShape
	}
	return out, nil
}

// readMail reads one mail block.
func (v *Volume) readMail(from, to int) (frame, error) {
	at := v.layout.mail(from, to)
	buf := alignedBlocks(1)
	if err := v.mailLane.do(v.timings().IO, func() error { return readBlocks(v.dev, buf, at) }); err != nil {
		return frame{}, err
	}
	f, err := v.codec.decode(buf, kindMail, uint16(from), at)
	if err != nil {
		return frame{}, &BlockError{at, fmt.Sprintf("mail of node %d to node %d", from, to), err}
	}
	return f, nil
}

// ReadMail reads all mail to this node, in one access. Mail that cannot be believed, and mail older than what was read before, is
// left out.
func (v *Volume) ReadMail() ([]Mail, error) {
	n := v.layout.nodes
	first := v.layout.mail(0, v.index)
	floor := v.memory.now(n)
	buf := alignedBlocks(n)
	if err := v.mailLane.do(v.timings().IO, func() error { return readBlocks(v.dev, buf, first) }); err != nil {
		return nil, fmt.Errorf("read the mailbox on the volume: %w", err)
	}
	var out []Mail
	for _, m := range v.head.Load().Members {
		f, err := v.codec.decode(buf[m.Index*BlockSize:(m.Index+1)*BlockSize], kindMail, uint16(m.Index), first+int64(m.Index))
		if err != nil {
			continue // never written, torn, or not ours; the writer writes again
		}
		letters, err := decodeLetters(f.payload)
		if err != nil {
			continue
		}
		if v.memory.see(m.Index, mark{Mail: f.seq}, floor[m.Index]) != nil {
			continue
		}
		out = append(out, Mail{From: m.Name, Seq: f.seq, Letters: letters})
	}
	return out, nil
}
