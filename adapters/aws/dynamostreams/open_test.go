package dynamostreams

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/ackwise/ackwise"
)

func TestURLs(t *testing.T) {
	o, err := ParseSource("dynamodb-streams://eu-central-1/orders?group=g&leases=l&create=true" +
		"&endpoint=http://127.0.0.1:8000&keys_only=true&on_trimmed=skip&max_age=1h&lease=30s&drain=5s" +
		"&list=1m&idle=2s&read=10&max_shards=3&topic=t&start=oldest&stream=arn")
	if err != nil {
		t.Fatal(err)
	}
	if !o.Create || !o.KeysOnly || o.OnTrimmed != TrimmedSkip || o.MaxAge != time.Hour ||
		o.Lease != 30*time.Second || o.Drain != 5*time.Second || o.List != time.Minute ||
		o.Idle != 2*time.Second || o.ReadRecords != 10 || o.MaxShards != 3 || o.Topic != "t" ||
		o.Start != StartOldest || o.Stream != "arn" || o.Leases != "l" || o.Endpoint == "" {
		t.Errorf("read %+v", o)
	}
	const good = "dynamodb-streams://eu-central-1/orders?group=g"
	for _, c := range [][3]string{
		{"dynamodb-streams:", "dynamodb-stream:", "the scheme is"},
		{"eu-central-1", "eu_central1", `did you mean "eu-central-1"?`},
		{"/orders", "", "not one table's name"},
		{"/orders", "/a/b", "not one table's name"},
		{"group=g", "grup=g", `did you mean "group"?`},
		{"group=g", "lease=1s", "invalid group: it is missing"},
		{"group=g", "group=g&start=latest", "oldest or newest"},
		{"group=g", "group=g&lease=1ms", "from 1s to 1h"},
		{"group=g", "group=g&leases=orders", "it is the table that is read"},
		{"group=g", "group=g&endpoint=x", "invalid endpoint"},
		{"orders", strings.Repeat("o", 100), "choose another with topic"},
	} {
		text := strings.Replace(good, c[0], c[1], 1)
		if _, err := ParseSource(text); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v, want %q", text, err, c[2])
		}
	}
	_, err = ParseSource("dynamodb-streams://nowhere/orders?start=x&lease=0s")
	for _, want := range []string{"invalid region", "start=x", "lease=0s", "invalid group"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not all faults at once: %v lacks %q", err, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := OpenSource(t.Context(), SourceOptions{Lease: time.Millisecond, MaxShards: -1,
		ReadRecords: 2000})
	for _, want := range []string{"region", "table", "group", "Lease", "ReadRecords", "MaxShards"} {
		if err == nil || !strings.Contains(err.Error(), "invalid "+want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

// What is missing or does not fit is said when the source is opened, with what to do.
func TestOpeningSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f *fake)
		with  func(o *SourceOptions)
		want  string
	}{
		"no table":   {func(f *fake) { delete(f.tables, "orders") }, nil, `no table "orders"`},
		"no stream":  {func(f *fake) { f.tables["orders"].stream = false }, nil, "update-table"},
		"no leases":  {func(f *fake) { delete(f.tables, "leases") }, nil, "create=true"},
		"bad leases": {func(f *fake) { f.tables["leases"].sort = "" }, nil, "not one of leases"},
		"no images":  {func(f *fake) { f.view = "KEYS_ONLY" }, nil, "keys_only=true"},
		"old stream": {nil, func(o *SourceOptions) { o.Stream = "arn:gone" }, `no stream "arn:gone"`},
		"denied": {func(f *fake) { f.fault = func(string) faultKind { return denies } }, nil,
			"needs the permission dynamodb:DescribeTable"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				if c.spoil != nil {
					c.spoil(f)
				}
				o := options(newBook())
				if c.with != nil {
					c.with(&o)
				}
				db, streams := clients(&wire{f: f})
				_, err := join(t.Context(), o, db, streams)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
			})
		})
	}
}

// A table that is missing is named with the one that was meant, where the tables may be listed, and
// what answers without being DynamoDB is not believed.
func TestNearestTable(t *testing.T) {
	for name, c := range map[string]struct {
		spoil      func(f *fake)
		table      string
		want, near string
		lists      int
	}{
		"near":        {nil, "order", "order", "orders", 1},
		"leases":      {nil, "", "lease", "leases", 1},
		"nothing":     {nil, "customers", "customers", "", 1},
		"many tables": {func(f *fake) { f.more = 500 }, "order", "order", "", 2},
		"denied": {func(f *fake) {
			f.fault = func(operation string) faultKind {
				if operation == "ListTables" {
					return denies
				}
				return works
			}
		}, "order", "order", "", 1},
		"throttled": {func(f *fake) {
			f.fault = func(operation string) faultKind {
				if operation == "ListTables" {
					return throttles
				}
				return works
			}
		}, "order", "order", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				if c.spoil != nil {
					c.spoil(f)
				}
				o := options(newBook())
				o.Table = cmp.Or(c.table, o.Table)
				if c.table == "" {
					o.Leases = "lease"
				}
				db, streams := clients(&wire{f: f})
				_, err := join(t.Context(), o, db, streams)
				missing, ok := errors.AsType[*ackwise.NotFoundError](err)
				if !ok || missing.Name != c.want || missing.Nearest != c.near {
					t.Errorf("%v, want %q near %q", err, c.near, c.want)
				}
				if f.calls["ListTables"] != c.lists {
					t.Errorf("%d lists, want %d", f.calls["ListTables"], c.lists)
				}
			})
		})
	}
}

// A server of something else that says yes to everything is told, and no crash.
func TestAnotherServerSaysYes(t *testing.T) {
	for name, with := range map[string]func(o *SourceOptions){
		"by the table":  func(*SourceOptions) {},
		"by the stream": func(o *SourceOptions) { o.Stream = strings.Repeat("arn", 20) },
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `{"status":"ok"}`)
			}))
			defer s.Close()
			o := SourceOptions{Region: "eu-central-1", Table: "orders", Group: "g", Endpoint: s.URL,
				Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}
			with(&o)
			_, err := OpenSource(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), "does not speak DynamoDB") {
				t.Errorf("%v", err)
			}
		})
	}
}

// What is missing is made when told.
func TestCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		delete(f.tables, "leases")
		f.tables["orders"].stream = false
		j := open(t, f, func(o *SourceOptions) { o.Create = true })
		defer j.close(t)
		if id := f.put("a", "1"); j.get(t, 1)[0] != id {
			t.Error("another message came")
		}
	})
}

// A stream without images is taken when told.
func TestKeysOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.view = "KEYS_ONLY"
		j := open(t, f, func(o *SourceOptions) { o.KeysOnly = true })
		j.close(t)
	})
}

// A stream that was made anew is another one: what was between the two is lost, and that is said.
func TestAStreamMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		open(t, f, nil).close(t)
		old := f.arn
		f.arn += "-anew"
		db, streams := clients(&wire{f: f})
		_, err := join(t.Context(), options(newBook()), db, streams)
		var hint *ackwise.HintError
		if !errors.As(err, &hint) || !strings.Contains(err.Error(), "made anew") ||
			!strings.Contains(hint.Hint, "stream="+old) {
			t.Errorf("%v", err)
		}
	})
}

// An error that lasts is told by Receive; one that passes is not. Neither ends the source.
func TestErrorsThatLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		j := open(t, f, nil)
		defer j.close(t)
		set := func(kind faultKind) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.fault = func(operation string) faultKind {
				if operation == "GetRecords" {
					return kind
				}
				return works
			}
		}
		set(throttles)
		j.quiet(t, 9*time.Second)
		set(works)
		j.quiet(t, time.Minute)
		if len(j.has("throttled")) == 0 {
			t.Error("nothing was throttled")
		}
		set(loses)
		if err := j.fails(t); !errors.Is(err, io.EOF) {
			t.Errorf("cut connections give %v", err)
		}
		set(denies)
		if err := j.fails(t); !strings.Contains(err.Error(), "needs the permission dynamodb:GetRecords") {
			t.Errorf("%v", err)
		}
		set(works)
		if id := f.put("a", "1"); j.get(t, 1)[0] != id {
			t.Error("another message came")
		}
	})
}
