package queue

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/ackwise/ackwise/queue/internal/state"
)

// identify fills in who the store is. A directory has the inode that the log names, and keeps its
// identity; a copy has another one, and gets its own, so that no token of the original is good
// there. The original never learns of the copy, and its tokens stay good. Where the system knows
// no inodes, a copy is not told. It reports whether the directory is a copy.
func (s *Store) identify(open *state.Open) (copied bool, err error) {
	inode, err := s.fs.Inode(s.dir)
	if err != nil {
		return false, fmt.Errorf("ask for the directory's inode: %w", err)
	}
	was := s.st.Inode
	copied = was != 0 && inode != 0 && was != inode
	open.Inode, open.Identity = inode, s.st.Identity
	if inode == 0 {
		open.Inode = was
	}
	if copied || open.Identity == [16]byte{} {
		if _, err := rand.Read(open.Identity[:]); err != nil {
			return false, fmt.Errorf("draw an identity: %w", err)
		}
	}
	if copied {
		s.opt.Logger.Warn("a copied directory: lease tokens of the original are void here",
			"dir", s.dir)
	}
	s.number = binary.BigEndian.Uint64(open.Identity[:8])
	return copied, nil
}
