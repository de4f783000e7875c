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
