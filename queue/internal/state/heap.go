package state

// slotHeap is a binary heap of entries, by their slots. Each entry knows its place (entry.heap), so
// that any of them can be taken out; an entry is in one heap at most.
type slotHeap struct {
	slots []int32
	byDue bool // ordered by due, then by sequence; else by sequence alone
}

func (h *slotHeap) less(q *Sub, a, b int32) bool {
	ea, eb := q.entry(a), q.entry(b)
	if h.byDue && ea.due != eb.due {
		return ea.due < eb.due
	}
	return ea.seq < eb.seq
}

func (h *slotHeap) set(q *Sub, i int, slot int32) {
	h.slots[i] = slot
	q.entry(slot).heap = int32(i)
}

func (h *slotHeap) push(q *Sub, slot int32) {
	h.slots = append(h.slots, slot)
	h.up(q, len(h.slots)-1)
}

func (h *slotHeap) remove(q *Sub, slot int32) {
	i := int(q.entry(slot).heap)
	last := len(h.slots) - 1
	moved := h.slots[last]
	h.slots = h.slots[:last]
	q.entry(slot).heap = -1
	if i < last {
		h.slots[i] = moved
		h.fix(q, i)
	}
}

func (h *slotHeap) fix(q *Sub, i int) {
	if !h.down(q, i) {
		h.up(q, i)
	}
}

// up lets a hole rise from i to where the slot in it belongs, and fills it.
func (h *slotHeap) up(q *Sub, i int) {
	slot := h.slots[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(q, slot, h.slots[parent]) {
			break
		}
		h.set(q, i, h.slots[parent])
		i = parent
	}
	h.set(q, i, slot)
}

// down lets a hole sink from i to where the slot in it belongs, and fills it.
func (h *slotHeap) down(q *Sub, i int) (moved bool) {
	slot := h.slots[i]
	for child := 2*i + 1; child < len(h.slots); child = 2*i + 1 {
		if child+1 < len(h.slots) && h.less(q, h.slots[child+1], h.slots[child]) {
			child++
		}
		if !h.less(q, h.slots[child], slot) {
			break
		}
		h.set(q, i, h.slots[child])
		i, moved = child, true
	}
	h.set(q, i, slot)
	return moved
}

func (h *slotHeap) top() (int32, bool) {
	if len(h.slots) == 0 {
		return 0, false
	}
	return h.slots[0], true
}

// heapOf is a binary heap: no element is before the first one.
type heapOf[T interface{ before(T) bool }] []T

func (h *heapOf[T]) push(v T) {
	*h = append(*h, v)
	a := *h
	for i := len(a) - 1; i > 0 && a[i].before(a[(i-1)/2]); i = (i - 1) / 2 {
		a[i], a[(i-1)/2] = a[(i-1)/2], a[i]
	}
}

func (h *heapOf[T]) pop() T {
	a := *h
	top, last := a[0], len(a)-1
	a[0] = a[last]
	clear(a[last:])
	*h = a[:last]
	h.fix()
	return top
}

// fix puts the first element in its place after it has changed.
func (h *heapOf[T]) fix() {
	a := *h
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(a); c++ {
			if a[c].before(a[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		a[i], a[least] = a[least], a[i]
		i = least
	}
}
