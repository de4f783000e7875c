package nakadi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// filled makes a type of some partitions, by user's choice, with n events in each.
func (b *bed) filled(parts, n int) {
	b.Helper()
	b.want(b.kind("a", m{"partition_strategy": "user_defined", "default_statistic": m{
		"read_parallelism": parts, "write_parallelism": 1}}), 201, "")
	b.fill(parts, n)
}

func (b *bed) fill(parts, n int) {
	b.Helper()
	for p := range parts {
		for i := range n {
			b.want(b.publish("a", strings.Replace(business(100*p+i, ""), `"eid"`,
				fmt.Sprintf(`"partition":"%d","eid"`, p), 1)), 200, "")
		}
	}
}

// TestSubscriptionRules are the rules of subscriptions.
func TestSubscriptionRules(t *testing.T) {
	post := func(b *bed, more string) got {
		return b.do("POST", "/subscriptions", `{"owning_application":"x","event_types":["a"]`+more+"}")
	}
	run(t, []rule{
		{"made is 201, the same again is 200 with the old object", func(b *bed) {
			b.filled(1, 0)
			g := b.want(post(b, ""), 201, `"consumer_group":"default","read_from":"end"`)
			again := b.want(post(b, `,"read_from":"begin"`), 200, "")
			if g.body != again.body {
				b.Errorf("%s and %s", g.body, again.body)
			}
		}},
		{"an unknown type is 422, a bad enum 400", func(b *bed) {
			b.want(post(b, ""), 422, "not found")
			b.filled(1, 0)
			b.want(post(b, `,"read_from":"x"`), 400, "read_from")
		}},
		{"cursors to begin at cover all partitions", func(b *bed) {
			b.filled(2, 2)
			one := `{"event_type":"a","partition":"0","offset":"` + offsetText(0) + `"}`
			b.want(post(b, `,"read_from":"cursors","initial_cursors":[`+one+`]`), 422, "all partitions")
			two := strings.Replace(one, `"0"`, `"1"`, 1)
			b.want(post(b, `,"read_from":"cursors","initial_cursors":[`+one+","+two+`]`), 201, "")
		}},
		{"at most 100 partitions", func(b *bed) {
			var names []string
			for i := range 13 {
				name := fmt.Sprintf("t%d", i)
				b.kind(name, m{"default_statistic": m{"read_parallelism": 8, "write_parallelism": 1}})
				names = append(names, `"`+name+`"`)
			}
			b.want(b.do("POST", "/subscriptions", `{"owning_application":"x","event_types":[`+
				strings.Join(names, ",")+`]}`), 422, "at most 100")
		}},
		{"an unknown subscription is 404, deleting ends streams", func(b *bed) {
			b.want(b.do("GET", "/subscriptions/x/events", ""), 404, "")
			b.filled(1, 0)
			id := b.subscribe("g", "a")
			r := b.open(id, "")
			b.want(b.do("DELETE", "/subscriptions/"+id, ""), 204, "")
			if _, ok := r.next(); ok {
				b.Error("the stream goes on")
			}
		}},
		{"a reset ends streams and moves offsets", func(b *bed) {
			b.filled(1, 3)
			id := b.subscribe("g", "a")
			r := b.open(id, "")
			r.batch()
			b.want(b.do("PATCH", "/subscriptions/"+id+"/cursors",
				`{"items":[{"event_type":"a","partition":"0","offset":"`+offsetText(1)+`"}]}`), 204, "")
			for {
				if _, ok := r.next(); !ok {
					break
				}
			}
			if l := b.open(id, "").batch(); l.Cursor.Offset != offsetText(2) {
				b.Errorf("%+v", l.Cursor)
			}
		}},
	})
}

// TestStreamRules are the rules of streams.
func TestStreamRules(t *testing.T) {
	run(t, slices.Concat(batchingRules(), commitRules(), endRules(), trimRules(),
		trimmedStreamRules()))
}

// batchingRules are the rules of what a stream sends.
func batchingRules() []rule {
	return []rule{
		{"batch_limit 0 and a commit_timeout over the maximum are 422", func(b *bed) {
			b.filled(1, 0)
			path := "/subscriptions/" + b.subscribe("g", "a") + "/events?"
			b.want(b.do("GET", path+"batch_limit=0", ""), 422, "batch_limit")
			b.want(b.do("GET", path+"commit_timeout=61", ""), 422, "commit_timeout")
		}},
		{"one batch is one partition, its cursor names the last event", func(b *bed) {
			b.filled(2, 4)
			r := b.open(b.subscribe("g", "a"), "batch_limit=2")
			l, next := r.batch(), r.batch()
			if len(l.Events) != 2 || l.Cursor.Offset != offsetText(1) || l.Cursor.Token == "" ||
				next.Cursor.Partition == l.Cursor.Partition {
				b.Errorf("%+v %+v", l, next)
			}
		}},
		{"a batch that is not full is flushed in time, then keep-alives come", func(b *bed) {
			b.filled(1, 1)
			r := b.open(b.subscribe("g", "a"), "batch_limit=5&batch_flush_timeout=1")
			if l := r.batch(); len(l.Events) != 1 {
				b.Errorf("%+v", l)
			}
			if l, ok := r.next(); !ok || l.Events != nil || l.Cursor.Offset != offsetText(0) {
				b.Errorf("%+v", l)
			}
		}},
		{"max_uncommitted_events counts over the whole stream", func(b *bed) {
			b.filled(2, 10)
			r := b.open(b.subscribe("g", "a"), "max_uncommitted_events=3&batch_flush_timeout=1")
			var last line
			for range 3 {
				last = r.batch()
			}
			if l, ok := r.next(); !ok || len(l.Events) > 0 {
				b.Errorf("a fourth: %+v", l) // a keep-alive is due
			}
			b.want(r.commit(last.Cursor), 204, "")
			r.batch()
		}},
	}
}

// commitRules are the rules of commits.
func commitRules() []rule {
	return []rule{
		{"commits are cumulative, an old one is outdated", func(b *bed) {
			b.filled(1, 3)
			id := b.subscribe("g", "a")
			r := b.open(id, "")
			first, second := r.batch(), r.batch()
			b.want(r.commit(second.Cursor), 204, "")
			b.want(r.commit(first.Cursor), 200, "outdated")
			b.want(b.do("GET", "/subscriptions/"+id+"/cursors", ""), 200, offsetText(1))
		}},
		{"a commit is refused without what it needs", func(b *bed) {
			b.filled(1, 1)
			r := b.open(b.subscribe("g", "a"), "")
			c := r.batch().Cursor
			b.want(b.do("POST", "/subscriptions/"+r.sub+"/cursors", "{}"), 400, "StreamId")
			b.want(r.commit(), 422, "empty")
			noToken, noPart, noOffset := c, c, c
			noToken.Token, noPart.Partition, noOffset.Offset = "", "9", "7"
			b.want(r.commit(noToken), 422, "cursor_token")
			b.want(r.commit(noPart), 422, "partition")
			b.want(r.commit(noOffset), 422, "offset")
			r.id = newUUID()
			b.want(r.commit(c), 422, "not found")
		}},
		{"an offset in the future is taken, and what is below is not delivered", func(b *bed) {
			b.filled(1, 5)
			r := b.open(b.subscribe("g", "a"), "max_uncommitted_events=1")
			c := r.batch().Cursor
			c.Offset = offsetText(3)
			b.want(r.commit(c), 204, "")
			if l := r.batch(); l.Cursor.Offset != offsetText(4) {
				b.Errorf("%+v", l.Cursor)
			}
		}},
	}
}

// endRules are the rules of how a stream ends.
func endRules() []rule {
	return []rule{
		{"without a commit in time the stream says so and ends, and later commits are refused",
			func(b *bed) {
				b.filled(1, 2)
				r := b.open(b.subscribe("g", "a"), "commit_timeout=1")
				c := r.batch().Cursor
				r.batch()
				if l, ok := r.next(); !ok || l.Info["debug"] != "Commit timeout reached" {
					b.Errorf("%+v", l)
				}
				if _, ok := r.next(); ok {
					b.Error("it goes on")
				}
				b.want(r.commit(c), 422, "not found")
				if l := b.open(r.sub, "").batch(); l.Cursor.Offset != offsetText(0) {
					b.Errorf("%+v", l.Cursor)
				}
			}},
		{"an outdated commit gives no more time", func(b *bed) {
			b.filled(1, 3)
			r := b.open(b.subscribe("g", "a"), "commit_timeout=2")
			c := r.batch().Cursor
			b.want(r.commit(c), 204, "")
			b.until("late", func() bool { return r.commit(c).status == 422 })
		}},
		{"stream_timeout ends a stream, and it may still commit", func(b *bed) {
			b.filled(1, 2)
			r := b.open(b.subscribe("g", "a"), "stream_timeout=1&batch_limit=1")
			c := r.batch().Cursor
			for {
				if _, ok := r.next(); !ok {
					break
				}
			}
			b.want(r.commit(c), 204, "")
		}},
		{"stream_limit ends it when so many are committed", func(b *bed) {
			b.filled(1, 5)
			r := b.open(b.subscribe("g", "a"), "stream_limit=2&max_uncommitted_events=2")
			r.batch()
			b.want(r.commit(r.batch().Cursor), 204, "")
			for n := 0; ; n++ {
				if _, ok := r.next(); !ok {
					break
				} else if n > 3 {
					b.Fatal("it goes on")
				}
			}
		}},
		{"stream_keep_alive_limit ends it after so many on every partition", func(b *bed) {
			b.filled(2, 0)
			r := b.open(b.subscribe("g", "a"), "batch_flush_timeout=1&stream_keep_alive_limit=1")
			n := 0
			for ; ; n++ {
				if _, ok := r.next(); !ok {
					break
				}
			}
			if n != 2 {
				b.Errorf("%d lines", n)
			}
		}},
	}
}

// trim drops events of the first partition, of which so many are there.
func (b *bed) trim(before, there int) {
	b.Helper()
	if n := b.s.Trim("a", "0", before); n != there {
		b.Fatalf("%d events have gone, want %d", n, there)
	}
}

// ends wants the first partition's oldest and newest event.
func (b *bed) ends(oldest, newest int) {
	b.Helper()
	b.want(b.do("GET", "/event-types/a/partitions", ""), 200, fmt.Sprintf(
		`"oldest_available_offset":"%s","newest_available_offset":"%s"`,
		offsetText(oldest), offsetText(newest)))
}

// trimRules are the rules of events that are gone.
func trimRules() []rule {
	return []rule{
		{"partitions tell the oldest event, which is behind the newest where none is left",
			func(b *bed) {
				b.filled(1, 5)
				b.trim(3, 3)
				b.ends(3, 4)
				b.trim(2, 0)
				b.trim(9, 2)
				b.ends(5, 4)
				b.fill(1, 1)
				b.ends(5, 5)
				if list := b.s.Events("a"); len(list) != 1 || list[0].Offset != offsetText(5) {
					b.Errorf("%+v", list)
				}
			}},
		{"what begins at the begin begins before the oldest event", func(b *bed) {
			b.filled(1, 5)
			b.trim(3, 3)
			id := b.subscribe("g", "a")
			b.want(b.do("GET", "/subscriptions/"+id+"/cursors", ""), 200, offsetText(2))
			b.want(b.do("GET", "/subscriptions/"+id+"/stats", ""), 200, `"unconsumed_events":2`)
			if l := b.open(id, "").batch(); l.Cursor.Offset != offsetText(3) {
				b.Errorf("%+v", l.Cursor)
			}
		}},
		{"what is gone stays gone when the server comes back", func(b *bed) {
			o := Options{Dir: b.TempDir()}
			before := newBed(b.T, o)
			before.filled(1, 3)
			before.trim(2, 2)
			after := newBed(b.T, o)
			after.ends(2, 2)
		}},
	}
}

// trimmedStreamRules are the rules of streams whose events are gone.
func trimmedStreamRules() []rule {
	lag := regexp.MustCompile(`"unconsumed_events":6,"consumer_lag_seconds":\d{1,3},`)
	return []rule{
		{"a stream whose cursor is too old begins at the oldest event, and the cursor stays",
			func(b *bed) {
				b.filled(1, 8)
				id := b.subscribe("g", "a")
				r := b.open(id, "max_uncommitted_events=1")
				b.want(r.commit(r.batch().Cursor), 204, "")
				b.want(r.commit(r.batch().Cursor), 204, "")
				b.want(b.do("PATCH", "/subscriptions/"+id+"/cursors",
					`{"items":[{"event_type":"a","partition":"0","offset":"`+offsetText(1)+`"}]}`), 204, "")
				b.trim(6, 6)
				b.want(b.do("GET", "/subscriptions/"+id+"/cursors", ""), 200, offsetText(1))
				g := b.do("GET", "/subscriptions/"+id+"/stats?show_time_lag=true", "")
				if !lag.MatchString(g.body) { // the lag is that of an event that is there
					b.Errorf("stats %s", g.body)
				}
				r = b.open(id, "max_uncommitted_events=2")
				first, second := r.batch().Cursor, r.batch().Cursor
				if first.Offset != offsetText(6) || second.Offset != offsetText(7) {
					b.Errorf("%+v %+v", first, second)
				}
				b.want(b.do("GET", "/subscriptions/"+id+"/cursors", ""), 200, offsetText(1))
				b.want(r.commit(first), 204, "")
				b.want(b.do("GET", "/subscriptions/"+id+"/stats", ""), 200, `"unconsumed_events":1`)
			}},
		{"nobody has to commit what went while a stream was open", func(b *bed) {
			b.filled(1, 8)
			r := b.open(b.subscribe("g", "a"),
				"max_uncommitted_events=2&commit_timeout=3&batch_flush_timeout=1")
			first, second := r.batch().Cursor, r.batch().Cursor
			b.trim(8, 8)
			b.want(r.commit(first, second), 204, "")
			for range 4 {
				l, ok := r.next()
				if !ok || len(l.Events) > 0 || l.Info != nil || l.Cursor.Offset != offsetText(7) {
					b.Fatalf("no keep-alive: %+v", l)
				}
			}
			b.fill(1, 1)
			c := r.batch().Cursor
			if c.Offset != offsetText(8) {
				b.Errorf("%+v", c)
			}
			b.want(r.commit(c), 204, "")
			b.want(b.do("GET", "/subscriptions/"+r.sub+"/stats", ""), 200, `"unconsumed_events":0`)
		}},
	}
}

// TestSharingRules are the rules of several streams.
func TestSharingRules(t *testing.T) {
	run(t, slices.Concat(slotRules(), goneRules()))
}

// slotRules are the rules of who gets which partition.
func slotRules() []rule {
	return []rule{
		{"more streams than partitions are 409", func(b *bed) {
			b.filled(1, 0)
			r := b.open(b.subscribe("g", "a"), "")
			b.want(b.do("GET", "/subscriptions/"+r.sub+"/events", ""), 409, "No free slots")
		}},
		{"a partition asked for directly is exclusive", func(b *bed) {
			b.filled(2, 0)
			id := b.subscribe("g", "a")
			body := `{"partitions":[{"event_type":"a","partition":"0"}],"stream_timeout":5}`
			done := make(chan got, 1)
			go func() { done <- b.do("POST", "/subscriptions/"+id+"/events", body) }()
			b.until("taken", func() bool {
				return strings.Contains(b.do("GET", "/subscriptions/"+id+"/stats", "").body, `"assigned"`)
			})
			b.want(b.do("POST", "/subscriptions/"+id+"/events", body), 409, "taken")
			<-done
		}},
		{"a newcomer waits until the old owner has committed", func(b *bed) {
			b.filled(2, 3)
			first := b.open(b.subscribe("g", "a"), "batch_flush_timeout=1")
			last := map[string]cursor{}
			for range 6 {
				c := first.batch().Cursor
				last[c.Partition] = c
			}
			second := b.open(first.sub, "batch_flush_timeout=1")
			stats := func() string { return b.do("GET", "/subscriptions/"+first.sub+"/stats", "").body }
			b.until("reassigning", func() bool { return strings.Contains(stats(), "reassigning") })
			b.fill(2, 1)
			if strings.Contains(stats(), second.id) {
				b.Error("it has a partition before the commit")
			}
			b.want(first.commit(last["0"], last["1"]), 204, "")
			moved := second.batch().Cursor
			if moved.Offset != offsetText(3) {
				b.Errorf("%+v", moved)
			}
			b.want(first.commit(moved), 422, "cannot be committed with stream id")
			kept := first.batch().Cursor
			if kept.Partition == moved.Partition {
				b.Errorf("both have %s", kept.Partition)
			}
		}},
		{"what the old owner never commits is sent to the newcomer after the timeout", func(b *bed) {
			b.filled(2, 1)
			first := b.open(b.subscribe("g", "a"), "commit_timeout=1")
			first.batch()
			first.batch()
			second := b.open(first.sub, "")
			got := []string{second.batch().Cursor.Partition, second.batch().Cursor.Partition}
			if slices.Sort(got); !slices.Equal(got, []string{"0", "1"}) {
				b.Errorf("%v", got)
			}
		}},
	}
}

// goneRules are the rules of clients that are gone, and of statistics.
func goneRules() []rule {
	return []rule{
		{"a client that is gone keeps its slot until a write fails", func(b *bed) {
			b.filled(1, 1)
			r := b.open(b.subscribe("g", "a"), "batch_flush_timeout=2&commit_timeout=60")
			r.batch()
			began := time.Now()
			r.body.Close()
			b.http.CloseIdleConnections()
			b.want(b.do("GET", "/subscriptions/"+r.sub+"/events", ""), 409, "No free slots")
			b.until("free", func() bool {
				return strings.Contains(b.do("GET", "/subscriptions/"+r.sub+"/stats", "").body, "unassigned")
			})
			if took := time.Since(began); took < time.Second {
				b.Errorf("free after %s", took)
			}
		}},
		{"after the connection has gone the stream id may commit", func(b *bed) {
			b.filled(1, 1)
			r := b.open(b.subscribe("g", "a"), "batch_flush_timeout=30")
			c := r.batch().Cursor
			r.body.Close()
			b.want(r.commit(c), 204, "")
		}},
		{"stats tell the state, what is not consumed, and the lag", func(b *bed) {
			b.filled(1, 2)
			id := b.subscribe("g", "a")
			path := "/subscriptions/" + id + "/stats?show_time_lag=true"
			b.want(b.do("GET", path, ""), 200, `"state":"unassigned","unconsumed_events":2,`+
				`"consumer_lag_seconds":`)
			r := b.open(id, "")
			b.want(b.do("GET", path, ""), 200, `"stream_id":"`+r.id+`"`)
		}},
	}
}
