package nakadi

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// journal is a file of one entry a line. It is written before an answer, and not synced: it
// survives a killed process.
type journal struct{ file *os.File }

// entry is one change of what is kept. One of its members is set.
type entry struct {
	Type   *typeDef         `json:"type,omitempty"`
	NoType string           `json:"no_type,omitempty"`
	Event  *Stored          `json:"event,omitempty"`
	Sub    *subscriptionDef `json:"subscription,omitempty"`
	NoSub  string           `json:"no_subscription,omitempty"`
	Commit *commitEntry     `json:"commit,omitempty"`
	Trim   *trimEntry       `json:"trim,omitempty"`
}

type trimEntry struct {
	Type      string `json:"type"`
	Partition string `json:"partition"`
	Before    int    `json:"before"`
}

type commitEntry struct {
	Sub    string `json:"subscription"`
	Part   string `json:"partition"` // TYPE/PARTITION
	Offset int    `json:"offset"`
}

func (j *journal) put(e entry) {
	if j == nil {
		return
	}
	b, err := json.Marshal(e)
	if err == nil {
		_, err = j.file.Write(append(b, '\n'))
	}
	if err != nil {
		panic(fmt.Sprintf("write the data of the fake: %v", err))
	}
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.file.Close()
}

func (s *Server) openJournal() error {
	f, err := os.OpenFile(filepath.Join(s.o.Dir, "nakadi.jsonl"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	whole := int64(0)
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return errors.Join(err, f.Close())
			}
			break // a last line without its end was never answered
		}
		var e entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return errors.Join(err, f.Close())
		}
		s.replay(&e)
		whole += int64(len(line))
	}
	err = f.Truncate(whole)
	if err == nil {
		_, err = f.Seek(whole, io.SeekStart)
	}
	s.journal = &journal{f}
	return err
}

func (s *Server) replay(e *entry) {
	switch {
	case e.Type != nil:
		t, p := newType(*e.Type, s.o.MaxPartitions)
		if p != nil {
			panic(p)
		}
		if old := s.types[t.def.Name]; old != nil {
			old.def, old.schema = t.def, t.schema
			old.grow(len(t.parts))
			t = old
		}
		s.types[t.def.Name] = t
	case e.NoType != "":
		delete(s.types, e.NoType)
	case e.Event != nil:
		e.Event.at = time.Now()
		p := s.types[e.Event.Type].part(e.Event.Partition)
		p.events = append(p.events, *e.Event)
	case e.Trim != nil:
		s.types[e.Trim.Type].part(e.Trim.Partition).trim(e.Trim.Before)
	case e.Sub != nil:
		s.subs[e.Sub.ID] = newSubscription(*e.Sub)
		s.subs[e.Sub.ID].addParts(s, "begin")
	case e.NoSub != "":
		delete(s.subs, e.NoSub)
	case e.Commit != nil:
		if p := s.subs[e.Commit.Sub].part(e.Commit.Part); p != nil {
			p.committed, p.sent = e.Commit.Offset, e.Commit.Offset
		}
	}
}

// offsetText is how the n-th event's offset is written; clients have to treat it as opaque.
func offsetText(n int) string {
	if n < 0 {
		return "001-0001--1"
	}
	return fmt.Sprintf("001-0001-%018d", n)
}

func readOffset(text string) (int, bool) {
	if text == "BEGIN" {
		return -1, true
	}
	digits, ok := strings.CutPrefix(text, "001-0001-")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && (len(digits) == 18 || n == -1)
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
