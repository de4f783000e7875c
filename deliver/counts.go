package deliver

// failureCounts counts, by ID, what sources that do not count themselves cannot say: the failures
// of a message, and which of its hand-outs the loop gave back in good order. It is bounded: past
// max the oldest count is forgotten.
type failureCounts struct {
	max    int
	counts map[string]failureCount
	order  []countedID // from the oldest; one whose serial is no longer the ID's is stale
	serial uint64
}

type failureCount struct {
	failures int
	back     int    // hand-outs that ended with a nack, a snooze or a release
	serial   uint64 // of its entry in order
}

type countedID struct {
	id     string
	serial uint64
}

// add counts one failure and returns how many there are.
func (c *failureCounts) add(id string) int { return c.count(id, 1, 0).failures }

// gaveBack counts one hand-out that was given back.
func (c *failureCounts) gaveBack(id string) { c.count(id, 0, 1) }

// back returns how many hand-outs were given back.
func (c *failureCounts) back(id string) int { return c.counts[id].back }

func (c *failureCounts) count(id string, failures, back int) failureCount {
	n, known := c.counts[id]
	if !known {
		c.makeRoom()
		c.serial++
		n.serial = c.serial
		c.order = append(c.order, countedID{id, n.serial})
	}
	n.failures += failures
	n.back += back
	c.counts[id] = n
	return n
}

// forget drops the count of a message that is done.
func (c *failureCounts) forget(id string) { delete(c.counts, id) }

// makeRoom forgets the oldest while the bound is reached, and the stale part of order once it is
// longer than the bound.
func (c *failureCounts) makeRoom() {
	if c.counts == nil {
		c.counts = make(map[string]failureCount)
	}
	for len(c.counts) >= c.max {
		if oldest := c.order[0]; c.counts[oldest.id].serial == oldest.serial {
			delete(c.counts, oldest.id)
		}
		c.order = c.order[1:]
	}
	if len(c.order) < 2*c.max {
		return
	}
	kept := make([]countedID, 0, c.max)
	for _, o := range c.order {
		if c.counts[o.id].serial == o.serial {
			kept = append(kept, o)
		}
	}
	c.order = kept
}
