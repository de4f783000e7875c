package kafka

import (
	"errors"
	"strings"
	"time"

	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// maxTime bounds the times that a URL may give.
const maxTime = 24 * time.Hour

// ParseSource reads kafka://HOST[,HOST]/TOPIC[,TOPIC]?group=NAME with its options. It touches no
// network and returns every fault at once.
func ParseSource(text string) (SourceOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SourceOptions{}, err
	}
	o := SourceOptions{
		Conn:  parseConn(e),
		Group: e.Text("group", ""),
		Share: e.Word("mode", "group", "group", "share") == "share",
		Consumer: e.Word("protocol", "classic", "classic",
			"consumer") == "consumer",
		Latest:           e.Word("start", "earliest", "earliest", "latest") == "latest",
		SkipTrimmed:      e.Word("on-trimmed", "stop", "stop", "skip") == "skip",
		Instance:         e.Text("instance", ""),
		Uncommitted:      e.Word("isolation", "committed", "committed", "uncommitted") == "uncommitted",
		SessionTimeout:   e.Duration("session-timeout", 0, 500*time.Millisecond, maxTime),
		RebalanceTimeout: e.Duration("rebalance-timeout", 0, 500*time.Millisecond, maxTime),
		Drain:            e.Duration("drain", 0, time.Millisecond, maxTime),
		IDHeader:         e.Text("id-header", ""),
		Dead:             e.Word("dead", "", deadFormats...),
		Create:           e.Bool("create"),
		Records:          e.Int("records", 0, 1, 10_000),
	}
	o.Log = logsource.Options{
		NoteBytes:   e.Int("note-bytes", 0, logsource.MinNoteBytes, 1<<20),
		CommitEvery: e.Duration("commit-every", 0, 0, time.Hour),
	}
	if e.Word("journal", "hand-outs", "hand-outs", "ceiling") == "ceiling" {
		o.Log.Journal = logsource.JournalCeiling
	}
	if e.Scheme != "kafka" {
		e.Fault("the scheme %.20q is not kafka", e.Scheme)
	}
	if len(e.Path) == 1 {
		o.Topics = strings.Split(e.Path[0], ",")
	} else {
		e.Fault("it names %d topics with slashes between; several topics stand with commas", len(e.Path))
	}
	rest := o
	rest.Conn = Conn{Brokers: []string{"checked"}} // its faults are among e's already
	if err := rest.validate(); err != nil && len(e.Path) == 1 {
		for _, fault := range flatten(err) {
			e.Fault("%w", fault)
		}
	}
	return o, e.Done("kafka://HOST[:PORT][,HOST…]/TOPIC[,TOPIC…]?group=NAME")
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	if !ok {
		return []error{err}
	}
	return joined.Unwrap()
}
