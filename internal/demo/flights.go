package demo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/ackwise/ackwise"
)

//go:embed flights-2013-01.ndjson.gz
var flightsFile []byte

// flight is one line of the input.
type flight struct {
	ID      string `json:"id"`
	Key     string `json:"key"`
	Type    string `json:"type"`
	Carrier string `json:"carrier"`
	Miles   int64  `json:"miles"`
	Seq     int    `json:"seq"`
	body    []byte // the line
}

// flown is what the flight adds to the sum.
func (f *flight) flown() int64 {
	if f.Type != "departed" {
		return 0
	}
	return f.Miles
}

func (f *flight) message(topic string) ackwise.Message {
	return ackwise.Message{ID: f.ID, Topic: topic, Key: f.Key, Body: f.body}
}

// readFlights returns the first n flights of the input; 0 = all.
func readFlights(n int) ([]flight, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(flightsFile))
	if err != nil {
		return nil, fmt.Errorf("unzip the flights: %w", err)
	}
	var out []flight
	lines := bufio.NewScanner(unzipped)
	for lines.Scan() && (n == 0 || len(out) < n) {
		f := flight{body: bytes.Clone(lines.Bytes())}
		if err := json.Unmarshal(f.body, &f); err != nil {
			return nil, fmt.Errorf("read flight %d: %w", len(out)+1, err)
		}
		out = append(out, f)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the flights: %w", err)
	}
	return out, nil
}

// sum is the miles that any consumer has to reach.
func sum(flights []flight) int64 {
	var miles int64
	for i := range flights {
		miles += flights[i].flown()
	}
	return miles
}
