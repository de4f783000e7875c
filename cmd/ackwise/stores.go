package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	endpoints "github.com/ackwise/ackwise/internal/endpoint"
)

// storeScheme is one kind of dedup store.
type storeScheme struct {
	prefix string // what its URLs begin with
	form   string // what they look like
	parse  func(u *storeURL) error
	open   func(ctx context.Context, u storeURL, o storeOptions) (idempotency.Store, error)
	// insert makes the plain insert that bench compares with, and insertName is its word. nil =
	// bench has one itself.
	insert     func(ctx context.Context, u storeURL) (*plainInsert, error)
	insertName string
}

// storeOptions are what every kind of store can be told.
type storeOptions struct {
	window  time.Duration
	maxKeys int  // 0 = the store's own default
	create  bool // make the table of dynamodb:// where it is missing
	// directory opens the directory of a queue:// store.
	directory func(dir string) (*directory, error)
}

// storeSchemes is every kind of dedup store. A new one is one row here, and its opener in wire.go.
func storeSchemes() []storeScheme {
	return []storeScheme{
		{prefix: "memory:", form: "memory:", parse: parseMemoryStore, open: openMemoryStore},
		{prefix: "queue://", form: "queue://DIR/NAME", parse: parseQueueStore, open: openQueueStore},
		{prefix: "postgres://", form: "postgres://USER@HOST/DATABASE?name=NAME",
			parse: parseServerStore, open: openPostgresStore, insert: insertPostgres,
			insertName: "INSERT"},
		{prefix: "redis://", form: "redis://HOST:PORT?name=NAME", parse: parseServerStore,
			open: openRedisStore, insert: insertRedis, insertName: "SET"},
		{prefix: "dynamodb://", form: "dynamodb://REGION/TABLE?name=NAME", parse: parseDynamoStore,
			open: openDynamoStore, insert: insertDynamo, insertName: "PutItem"},
	}
}

func storeForms() string {
	var forms []string
	for _, s := range storeSchemes() {
		forms = append(forms, s.form)
	}
	return strings.Join(forms, ", ")
}

// storeURL says where a dedup store is. Its text may hold a password and is never shown: key is.
type storeURL struct {
	scheme storeScheme
	name   string // tells the stores of one server apart
	dir    string // queue://: absolute

	server        string           // postgres://, redis://: the URL without the name and password=
	host          string           // the same, as it may be shown
	password      endpoints.Secret // postgres://, redis://: kept elsewhere; nil = it is not
	literal       bool             // postgres://, redis://: a password stands in the address itself
	region, table string           // dynamodb://
	endpoint      string           // dynamodb://: another address than the region's; "" = that one
}

func (u storeURL) is(prefix string) bool { return u.scheme.prefix == prefix }

// kind is the store's word, such as postgres.
func (u storeURL) kind() string { return strings.TrimRight(u.scheme.prefix, ":/") }

// key names the store without secrets: two URLs with the same key are the same store.
func (u storeURL) key() string {
	switch u.scheme.prefix {
	case "queue://":
		return "queue://" + u.dir + "/" + u.name
	case "memory:":
		return "memory:"
	case "dynamodb://":
		return "dynamodb://" + u.region + "/" + u.table + "?name=" + u.name
	}
	return u.scheme.prefix + u.host + "?name=" + u.name
}

// parseStoreURL reads where a dedup store is. Its errors show nothing behind the scheme of a URL
// that may hold a password.
func parseStoreURL(text string) (storeURL, error) {
	var u storeURL
	var prefixes []string
	for _, s := range storeSchemes() {
		rest, ok := strings.CutPrefix(text, s.prefix)
		if !ok {
			prefixes = append(prefixes, s.prefix)
			continue
		}
		u.scheme, u.server = s, rest
		if err := s.parse(&u); err != nil {
			return storeURL{}, fmt.Errorf("%w; here it is %s", err, s.form)
		}
		return u, nil
	}
	scheme, _, found := strings.Cut(text, ":")
	if !found || len(scheme) > 40 {
		return u, fmt.Errorf("it does not begin with the kind of store; the stores are %s",
			storeForms())
	}
	near := ""
	for _, ending := range []string{"://", ":"} {
		if n := nearestWord(scheme+ending, prefixes); n != "" && near == "" {
			near = fmt.Sprintf("did you mean %q? ", n)
		}
	}
	return u, fmt.Errorf("unknown kind of store %q; %sthe stores are %s", scheme+":", near,
		storeForms())
}

func parseMemoryStore(u *storeURL) error {
	if u.server != "" {
		return fmt.Errorf("memory: has nothing behind it, found %.40q", u.server)
	}
	u.name = "memory"
	return nil
}

func parseQueueStore(u *storeURL) error {
	i := strings.LastIndexByte(u.server, '/')
	if i < 0 {
		return fmt.Errorf("%.80q is not whole", "queue://"+u.server)
	}
	dir := u.server[:max(i, 1)]
	u.name = u.server[i+1:]
	if err := ackwise.ValidateName("name", u.name); err != nil {
		return err
	}
	var err error
	u.dir, err = filepath.Abs(dir)
	return err
}

// parseServerStore takes the name out of a URL, and where its password is kept, and leaves the rest
// to the client of its server.
func parseServerStore(u *storeURL) error {
	at, err := url.Parse(u.scheme.prefix + u.server)
	if err != nil || at.Host == "" {
		return fmt.Errorf("the URL behind %s names no host or cannot be read", u.scheme.prefix)
	}
	if u.password, u.literal, err = takePassword(at); err != nil {
		return err
	}
	query := at.Query()
	u.name = query.Get("name")
	query.Del("name")
	at.RawQuery = query.Encode()
	u.server, u.host = at.String(), at.Host+at.Path
	return ackwise.ValidateName("name", u.name)
}

// takePassword takes password=env:NAME or password=file:PATH out of the URL of a server, and
// returns what reads it there; nil where the URL does not say so. literal says that a password
// stands in the URL itself, where the server's client finds it. No error shows one.
func takePassword(at *url.URL) (kept endpoints.Secret, literal bool, err error) {
	query, err := url.ParseQuery(at.RawQuery)
	if err != nil {
		return nil, false, errors.New("an option behind ? is not NAME=VALUE, well encoded")
	}
	if at.User != nil {
		before, _ := at.User.Password()
		literal = before != ""
	}
	given := query["password"]
	switch {
	case len(given) == 0:
		return nil, literal, nil
	case len(given) > 1:
		return nil, false, errors.New("the option password stands twice")
	}
	kind, _, _ := strings.Cut(given[0], ":")
	switch {
	case kind != "env" && kind != "file" && at.Scheme != "redis":
		return nil, literal || given[0] != "", nil // Postgres knows such an option itself
	case literal:
		return nil, false, errors.New("a password stands before the host, and the option password " +
			"names another one: leave one of them out")
	}
	e, err := endpoints.Parse(at.Scheme + "://?password=" + url.QueryEscape(given[0]))
	if err != nil {
		return nil, false, err
	}
	if kept = e.Secret("password"); kept == nil {
		return nil, false, errors.New("the option password holds no secret itself: it is env:NAME " +
			"or file:PATH")
	}
	query.Del("password")
	at.RawQuery = query.Encode()
	return kept, false, nil
}

// beforeConnect has a pool of Postgres read its password for each connection. nil = there is
// nothing to read.
func beforeConnect(password endpoints.Secret) func(context.Context, *pgx.ConnConfig) error {
	if password == nil {
		return nil
	}
	return func(ctx context.Context, c *pgx.ConnConfig) (err error) {
		c.Password, err = password(ctx)
		return err
	}
}

func parseDynamoStore(u *storeURL) error {
	at, err := url.Parse(u.scheme.prefix + u.server)
	if err != nil {
		return fmt.Errorf("the URL behind %s cannot be read", u.scheme.prefix)
	}
	query := at.Query()
	u.region, u.table = at.Host, strings.Trim(at.Path, "/")
	u.name, u.endpoint = query.Get("name"), query.Get("endpoint")
	for word := range query {
		if word != "name" && word != "endpoint" {
			return fmt.Errorf("unknown word %.40q; the words are name and endpoint", word)
		}
	}
	switch {
	case u.region == "":
		return fmt.Errorf("it names no region")
	case u.table == "":
		return fmt.Errorf("it names no table")
	}
	return ackwise.ValidateName("name", u.name)
}
