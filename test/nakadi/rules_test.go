package nakadi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rule is one sentence of how Nakadi behaves, and its test.
type rule struct {
	text string
	test func(b *bed)
}

func run(t *testing.T, rules []rule) {
	for _, r := range rules {
		t.Run(r.text, func(t *testing.T) {
			t.Parallel()
			r.test(newBed(t, Options{}))
		})
	}
}

type m = map[string]any

// TestEventTypeRules are the rules of event types.
func TestEventTypeRules(t *testing.T) {
	run(t, slices.Concat(creationRules(), changeRules()))
}

// creationRules are the rules of a new type.
func creationRules() []rule {
	invalid := func(more m, text string) func(b *bed) {
		return func(b *bed) { b.want(b.kind("a.b-c_d", more), 422, text) }
	}
	return []rule{
		{"creation answers 201 with an empty body", func(b *bed) {
			if g := b.want(b.kind("a.b-c_d", nil), 201, ""); g.body != "" {
				b.Errorf("body %s", g.body)
			}
		}},
		{"a name that is taken is 409", func(b *bed) {
			b.want(b.kind("a", nil), 201, "")
			b.want(b.kind("a", nil), 409, "already exists")
		}},
		{"a name begins with a letter", func(b *bed) { b.want(b.kind("1a", nil), 422, "name") }},
		{"a name has at most 255 characters", func(b *bed) {
			b.want(b.kind(strings.Repeat("a", 256), nil), 422, "name")
			b.want(b.kind(strings.Repeat("a", 255), nil), 201, "")
		}},
		{"owning_application is required", invalid(m{"owning_application": nil}, "owning")},
		{"the category is required", invalid(m{"category": nil}, "category")},
		{"the schema is required", invalid(m{"schema": nil}, "schema")},
		{"the schema is a string of JSON", invalid(m{"schema": m{"type": "json_schema",
			"schema": "{"}}, "schema")},
		{"business needs the enrichment of metadata",
			invalid(m{"enrichment_strategies": nil}, "enrichment")},
		{"undefined forbids it", invalid(m{"category": "undefined"}, "enrichment")},
		{"hash needs key fields", invalid(m{"partition_strategy": "hash"}, "partition_key_fields")},
		{"a retention below the minimum is refused",
			invalid(m{"options": m{"retention_time": 1000}}, "retention")},
		{"more partitions than the maximum are cut in silence", func(b *bed) {
			b.want(b.kind("a", m{"default_statistic": m{"read_parallelism": 20,
				"write_parallelism": 1}}), 201, "")
			g := b.do("GET", "/event-types/a/partitions", "")
			if n := strings.Count(g.body, `"partition"`); n != 8 {
				b.Errorf("%d partitions", n)
			}
		}},
	}
}

// changeRules are the rules of changing and deleting a type.
func changeRules() []rule {
	return []rule{
		{"the number of partitions only grows, and that ends streams", func(b *bed) {
			two := m{"default_statistic": m{"read_parallelism": 2, "write_parallelism": 2}}
			b.want(b.kind("a", nil), 201, "")
			r := b.open(b.subscribe("g", "a"), "")
			b.want(b.do("PUT", "/event-types/a", kindText(b.T, "a", two)), 200, "")
			if _, ok := r.next(); ok {
				b.Error("the stream goes on")
			}
			b.want(b.do("PUT", "/event-types/a", kindText(b.T, "a", nil)), 422, "shrink")
		}},
		{"cleanup_policy changes only from delete to compact_and_delete", func(b *bed) {
			b.want(b.kind("a", nil), 201, "")
			put := func(policy string) got {
				return b.do("PUT", "/event-types/a", kindText(b.T, "a", m{"cleanup_policy": policy}))
			}
			b.want(put("compact"), 422, "cleanup_policy")
			b.want(put("compact_and_delete"), 200, "")
			b.want(put("delete"), 422, "cleanup_policy")
		}},
		{"deleting a type with subscriptions is 409", func(b *bed) {
			b.want(b.kind("a", nil), 201, "")
			id := b.subscribe("g", "a")
			b.want(b.do("DELETE", "/event-types/a", ""), 409, "subscriptions")
			b.want(b.do("DELETE", "/subscriptions/"+id, ""), 204, "")
			b.want(b.do("DELETE", "/event-types/a", ""), 200, "")
			b.want(b.do("GET", "/event-types/a", ""), 404, "does not exist")
		}},
	}
}

// TestPublishRules are the rules of publishing.
func TestPublishRules(t *testing.T) {
	run(t, slices.Concat(metadataRules(), batchRules(), contentRules(), partitionRules()))
}

// batchRules are the rules of whole batches.
func batchRules() []rule {
	return []rule{
		{"all stored is 200 with an empty body, an empty array too", func(b *bed) {
			b.kind("a", nil)
			if g := b.want(b.publish("a", business(1, "")), 200, ""); g.body != "" {
				b.Errorf("body %s", g.body)
			}
			b.want(b.publish("a"), 200, "")
		}},
		{"the same eid is stored twice", func(b *bed) {
			b.kind("a", nil)
			b.want(b.publish("a", business(1, ""), business(1, "")), 200, "")
			if n := b.s.Copies("a")[eid(1)]; n != 2 {
				b.Errorf("%d copies", n)
			}
		}},
		{"422 stops at the first bad event and stores nothing", func(b *bed) {
			b.kind("a", m{"schema": m{"type": "json_schema", "schema": `{"required":["x"]}`}})
			g := b.want(b.publish("a", business(1, `"x":1`), business(2, ""), business(3, ""),
				business(4, `"x":1`)), 422, "")
			var said []string
			for _, it := range itemsOf(b.T, g) {
				said = append(said, it.Status+"/"+it.Step)
			}
			if want := []string{"aborted/validating", "failed/validating", "aborted/none",
				"aborted/none"}; !slices.Equal(said, want) {
				b.Errorf("%v", said)
			}
			if len(b.s.Events("a")) > 0 {
				b.Error("something is stored")
			}
		}},
		{"an error of partitioning leaves later events at the step before", func(b *bed) {
			b.kind("a", m{"partition_strategy": "hash", "partition_key_fields": []string{"k"}})
			g := b.want(b.publish("a", business(1, ""), business(2, `"k":1`)), 422, "")
			list := itemsOf(b.T, g)
			if list[0].Step != "partitioning" || list[1].Step != "validating" ||
				list[1].Status != "aborted" {
				b.Errorf("%+v", list)
			}
		}},
		{"a missing eid is 400 without items", func(b *bed) {
			b.kind("a", nil)
			b.want(b.publish("a", business(1, ""), `{"metadata":{}}`), 400, `"title"`)
		}},
		{"what is no array of objects is 400", func(b *bed) {
			b.kind("a", nil)
			for _, body := range []string{"", "{}", "[", "[1]", "[] 1"} {
				b.want(b.do("POST", "/event-types/a/events", body), 400, "title")
			}
		}},
	}
}

// contentRules are the rules of what is in a batch.
func contentRules() []rule {
	return []rule{
		{"an unknown type is 404", func(b *bed) { b.want(b.publish("a"), 404, "does not exist") }},
		{"a body may be gzip", func(b *bed) {
			b.kind("a", nil)
			b.want(b.do("POST", "/event-types/a/events", gzipped(b.T, "["+business(1, "")+"]"),
				"Content-Encoding", "gzip"), 200, "")
			if b.s.Copies("a")[eid(1)] != 1 {
				b.Error("it is not stored")
			}
		}},
		{"an event has at most 999,000 bytes, white space counts", func(b *bed) {
			b.kind("a", nil)
			fill := 999_000 - len(business(1, `"x":""`))
			b.want(b.publish("a", business(1, `"x":"`+strings.Repeat("y", fill)+`"`)), 200, "")
			g := b.publish("a", business(1, `"x": "`+strings.Repeat("y", fill)+`"`))
			b.want(g, 422, "999001 bytes, at most 999000")
		}},
		{"the schema of undefined is enforced", func(b *bed) {
			b.kind("a", m{"category": "undefined", "enrichment_strategies": nil,
				"schema": m{"type": "json_schema", "schema": `{"properties":{"x":{"type":"number"}}}`}})
			b.want(b.publish("a", `{"x":"text"}`), 422, "expected type")
			b.want(b.publish("a", `{"x":1}`), 200, "")
		}},
		{"compatible refuses extra properties, forward takes them", func(b *bed) {
			schema := m{"type": "json_schema", "schema": `{"properties":{"x":{}}}`}
			b.kind("a", m{"schema": schema, "compatibility_mode": "compatible"})
			b.kind("b", m{"schema": schema})
			b.want(b.publish("a", business(1, `"y":1`)), 422, "extraneous key [y]")
			b.want(b.publish("b", business(1, `"y":1`)), 200, "")
		}},
	}
}

// partitionRules are the rules of partitions, and of what comes behind them.
func partitionRules() []rule {
	return []rule{
		{"hash sums Java's string hashes, absolute of the remainder", func(b *bed) {
			b.kind("a", m{"partition_strategy": "hash", "partition_key_fields": []string{"k", "l.m"},
				"default_statistic": m{"read_parallelism": 5, "write_parallelism": 1}})
			b.want(b.publish("a", business(1, `"k":"polygenelubricants","l":{"m":"a"}`)), 200, "")
			// -2147483648 + 97 = -2147483551, remainder by 5 = -1
			if p := b.s.Events("a")[0].Partition; p != "1" {
				b.Errorf("partition %s", p)
			}
		}},
		{"the key fields of data are those within data", func(b *bed) {
			data := m{"category": "data", "partition_strategy": "hash"}
			event := strings.TrimSuffix(business(1,
				`"data_op":"U","data_type":"t","data":{"k":"v"}`), "")
			data["partition_key_fields"] = []string{"data.k"}
			b.want(b.kind("a", data), 201, "")
			b.want(b.publish("a", event), 422, "partitioning")
			data["partition_key_fields"] = []string{"k"}
			b.kind("b", data)
			b.want(b.publish("b", event), 200, "")
		}},
		{"data needs data_op, data_type and data", func(b *bed) {
			b.kind("a", m{"category": "data"})
			b.want(b.publish("a", business(1, `"data_op":"X","data_type":"t","data":{}`)), 422, "data_op")
			b.want(b.publish("a", business(1, `"data_op":"C","data":{}`)), 422, "data_type")
			b.want(b.publish("a", business(1, `"data_op":"C","data_type":"t"`)), 422, "[data]")
		}},
		{"user_defined takes metadata.partition and refuses an unknown one", func(b *bed) {
			b.kind("a", m{"partition_strategy": "user_defined",
				"default_statistic": m{"read_parallelism": 2, "write_parallelism": 2}})
			with := func(p string) string {
				return strings.Replace(business(1, ""), `"eid"`, `"partition":"`+p+`","eid"`, 1)
			}
			b.want(b.publish("a", with("1")), 200, "")
			b.want(b.publish("a", with("7")), 422, "partitioning")
			if p := b.s.Events("a")[0].Partition; p != "1" {
				b.Errorf("partition %s", p)
			}
		}},
		{"the server adds to the metadata, the flow id of the request too", func(b *bed) {
			b.kind("a", nil)
			b.do("POST", "/event-types/a/events", "["+business(1, "")+"]", "X-Flow-Id", "flow")
			text := string(b.s.Events("a")[0].Event)
			for _, want := range []string{"received_at", `"event_type":"a"`, `"partition":"0"`,
				`"version":"1.0.0"`, `"flow_id":"flow"`} {
				if !strings.Contains(text, want) {
					b.Errorf("no %s in %s", want, text)
				}
			}
		}},
		{"207 calls events failed that may be stored", func(b *bed) {
			b.kind("a", nil)
			b.s.Inject(Fault{Kind: Partial, Times: 1, Store: true})
			g := b.want(b.publish("a", business(1, ""), business(2, "")), 207, "timed out")
			for _, it := range itemsOf(b.T, g) {
				if it.Status != "failed" || it.Step != "publishing" {
					b.Errorf("%+v", it)
				}
			}
			if len(b.s.Events("a")) != 2 || b.s.Fired(Partial) != 1 {
				b.Error("they are not stored")
			}
		}},
	}
}

// metadataRules are the rules of metadata.
func metadataRules() []rule {
	with := func(meta, text string, status int) func(b *bed) {
		return func(b *bed) {
			b.kind("a", nil)
			b.want(b.publish("a", `{"metadata":{`+meta+`}}`), status, text)
		}
	}
	id, at := fmt.Sprintf(`"eid":"%s"`, eid(1)), `"occurred_at":"2026-01-02T03:04:05.123+01:00"`
	return []rule{
		{"an eid is a UUID", with(`"eid":"x",`+at, "pattern", 422)},
		{"an eid in capitals is none",
			with(`"eid":"ABCDEF00-0000-4000-8000-000000000001",`+at, "pattern", 422)},
		{"occurred_at is required", with(id, "occurred_at", 422)},
		{"occurred_at has a zone", with(id+`,"occurred_at":"2026-01-02T03:04:05"`, "date-time", 422)},
		{"occurred_at may have another zone and a fraction", with(id+","+at, "", 200)},
		{"an unknown key is refused", with(id+","+at+`,"x":"y"`, "extraneous key [x]", 422)},
		{"received_at too", with(id+","+at+`,"received_at":"y"`, "received_at", 422)},
		{"event_type equals the path", with(id+","+at+`,"event_type":"b"`, "event_type", 422)},
		{"parent_eids are UUIDs", with(id+","+at+`,"parent_eids":["x"]`, "parent_eids", 422)},
		{"span_ctx is a map of strings", with(id+","+at+`,"span_ctx":{"a":1}`, "span_ctx", 422)},
		{"a type that deletes refuses a compaction key",
			with(id+","+at+`,"partition_compaction_key":"k"`, "compaction", 422)},
		{"a type that compacts needs one", func(b *bed) {
			b.kind("a", m{"cleanup_policy": "compact"})
			b.want(b.publish("a", business(1, "")), 422, "compaction")
			b.want(b.publish("a", `{"metadata":{`+id+","+at+`,"partition_compaction_key":"k"}}`), 200, "")
		}},
	}
}

// TestAuthRules are the rules of tokens and of errors.
func TestAuthRules(t *testing.T) {
	b := newBed(t, Options{Tokens: map[string]string{"good": "me", "other": "you"}})
	as := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	own := m{"authorization": m{"admins": []m{{"data_type": "user", "value": "me"}},
		"readers": []m{{"data_type": "user", "value": "me"}},
		"writers": []m{{"data_type": "user", "value": "me"}}}}
	b.want(b.do("POST", "/event-types", kindText(t, "a", own), as("good")...), 201, "")
	g := b.want(b.do("GET", "/event-types/a", ""), 401, "token")
	if g.header.Get("Content-Type") != "application/json" ||
		!strings.Contains(g.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("a missing token: %v", g.header)
	}
	g = b.want(b.do("POST", "/event-types/a/events", "[]", as("other")...), 403, "denied")
	if g.header.Get("Content-Type") != "application/problem+json" || g.header.Get("X-Flow-Id") == "" {
		t.Errorf("a problem: %v", g.header)
	}
	if g := b.do("GET", "/health", "", append(as("good"), "X-Flow-Id", "f")...); g.body != "OK" ||
		g.header.Get("X-Flow-Id") != "f" {
		t.Errorf("health: %+v", g)
	}
	b.s.Inject(Fault{Kind: TokenExpired, Times: 1})
	b.want(b.do("POST", "/event-types/a/events", "[]", as("good")...), 401, "token")
	b.want(b.do("GET", "/event-types/a", "", as("good")...), 401, "token")
	if b.s.Fired(TokenExpired) != 1 {
		t.Error("the token did not expire")
	}
}
