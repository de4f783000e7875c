package ordering

// waiting is a held message in the order of arrival, by stamp.
type waiting struct {
	lane *lane
	rank rank
	at   int64 // when it came, milliseconds
}

const fifoChunk = 1024

// fifo is a queue in chunks, so that it gives memory back as it empties.
type fifo struct {
	chunks [][]waiting
	head   int // in the first chunk
	last   int64
}

// push adds one at the end, no earlier than the one before.
func (f *fifo) push(w waiting) {
	f.last = max(f.last, w.at)
	w.at = f.last
	k := len(f.chunks)
	if k == 0 || len(f.chunks[k-1]) == fifoChunk {
		f.chunks = append(f.chunks, make([]waiting, 0, fifoChunk))
		k++
	}
	f.chunks[k-1] = append(f.chunks[k-1], w)
}

// first returns the oldest; nil = there is none.
func (f *fifo) first() *waiting {
	if len(f.chunks) == 0 {
		return nil
	}
	return &f.chunks[0][f.head]
}

func (f *fifo) removeFirst() {
	f.chunks[0][f.head].lane = nil
	if f.head++; f.head < len(f.chunks[0]) {
		return
	}
	f.head = 0
	f.chunks[0] = nil
	if f.chunks = f.chunks[1:]; len(f.chunks) == 0 {
		f.chunks = nil
	}
}
