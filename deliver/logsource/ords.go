package logsource

// ordHeap is a heap of messages by ordinal.
type ordHeap []ordItem

type ordItem struct {
	ord uint64
	m   *msg
}

func (h *ordHeap) push(m *msg) {
	q := append(*h, ordItem{m.ord, m})
	i := len(q) - 1
	for i > 0 && q[i].ord < q[(i-1)/2].ord {
		q[i], q[(i-1)/2] = q[(i-1)/2], q[i]
		i = (i - 1) / 2
	}
	*h = q
}

func (h ordHeap) first() *msg {
	if len(h) == 0 {
		return nil
	}
	return h[0].m
}

func (h *ordHeap) pop() *msg {
	q := *h
	m, last := q[0].m, len(q)-1
	q[0], q[last] = q[last], ordItem{}
	q = q[:last]
	for i := 0; ; {
		next := 2*i + 1
		if next >= len(q) {
			break
		}
		if next+1 < len(q) && q[next+1].ord < q[next].ord {
			next++
		}
		if q[i].ord < q[next].ord {
			break
		}
		q[i], q[next] = q[next], q[i]
		i = next
	}
	*h = q
	return m
}

// ordQueue is a queue of messages by ordinal. Most come in that order: they form the run.
type ordQueue struct {
	run  []*msg
	rest ordHeap
}

func (q *ordQueue) push(m *msg) {
	if k := len(q.run); k == 0 || q.run[k-1].ord < m.ord {
		q.run = append(q.run, m)
		return
	}
	q.rest.push(m)
}

// first returns the message that pop would, nil = none.
func (q *ordQueue) first() *msg {
	switch r := q.rest.first(); {
	case len(q.run) == 0:
		return r
	case r != nil && r.ord < q.run[0].ord:
		return r
	}
	return q.run[0]
}

func (q *ordQueue) pop() *msg {
	m := q.first()
	if len(q.run) > 0 && q.run[0] == m {
		q.run[0] = nil
		q.run = q.run[1:]
		return m
	}
	return q.rest.pop()
}
