package demo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
)

//go:embed flights-2013-01.ndjson.gz
var flightsFile []byte

// Flight is one line of the input.
type Flight struct {
	ID      string `json:"id"`
	Key     string `json:"key"` // the aircraft; "" = unknown
	Type    string `json:"type"`
	Day     string `json:"day"`
	Minute  int    `json:"minute"`
	Carrier string `json:"carrier"`
	Origin  string `json:"origin"`
	Dest    string `json:"dest"`
	Miles   int64  `json:"miles"`
	Seq     int    `json:"seq"`

	Body  []byte        `json:"-"` // the line
	Stamp ackwise.Stamp `json:"-"` // when it happened; the later line of a minute is the later one
	Total int64         `json:"-"` // what its aircraft has flown by then, itself included
}

// headerTotal is the header that holds Flight.Total, as the aircraft's own log would give it.
const headerTotal = "total-miles"

// Flown is what the flight adds to the sum.
func (f *Flight) Flown() int64 {
	if f.Type != "departed" {
		return 0
	}
	return f.Miles
}

// Place is where the aircraft is after the flight.
func (f *Flight) Place() string {
	if f.Type != "departed" {
		return f.Origin
	}
	return f.Dest
}

// Message makes the flight a message, with its order in the headers.
func (f *Flight) Message(topic string) ackwise.Message {
	m := ackwise.Message{ID: f.ID, Topic: topic, Key: f.Key, Body: f.Body,
		Headers: []ackwise.Header{
			{Name: ackwise.HeaderStamp, Value: []byte(f.Stamp.String())},
			{Name: headerTotal, Value: strconv.AppendInt(nil, f.Total, 10)}}}
	if f.Seq > 0 {
		m.Headers = append(m.Headers, ackwise.Header{Name: ackwise.HeaderSequence,
			Value: strconv.AppendInt(nil, int64(f.Seq), 10)})
	}
	return m
}

// FlightOf reads the flight that a message is of.
func FlightOf(m *ackwise.Message) (Flight, error) {
	f := Flight{Body: m.Body}
	if err := json.Unmarshal(m.Body, &f); err != nil {
		return f, ackwise.Reject(fmt.Errorf("read flight: %w", err))
	}
	var err error
	stamp, _ := m.Header(ackwise.HeaderStamp)
	if f.Stamp, err = ackwise.ParseStamp(string(stamp)); err != nil {
		return f, ackwise.Reject(fmt.Errorf("read flight: %w", err))
	}
	total, _ := m.Header(headerTotal)
	if f.Total, err = strconv.ParseInt(string(total), 10, 64); err != nil {
		return f, ackwise.Reject(fmt.Errorf("read flight: %w", err))
	}
	return f, nil
}

// Flights returns the first n flights of the input, in the order in which they happened; 0 = all.
func Flights(n int) ([]Flight, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(flightsFile))
	if err != nil {
		return nil, fmt.Errorf("unzip the flights: %w", err)
	}
	var out []Flight
	totals := map[string]int64{}
	lines := bufio.NewScanner(unzipped)
	for lines.Scan() && (n == 0 || len(out) < n) {
		f := Flight{Body: bytes.Clone(lines.Bytes())}
		if err := json.Unmarshal(f.Body, &f); err != nil {
			return nil, fmt.Errorf("read flight %d: %w", len(out)+1, err)
		}
		day, err := time.Parse(time.DateOnly, f.Day)
		if err != nil {
			return nil, fmt.Errorf("read flight %d: %w", len(out)+1, err)
		}
		f.Stamp = ackwise.Stamp{Node: "flights", Counter: uint32(len(out)),
			Millis: day.Add(time.Duration(f.Minute) * time.Minute).UnixMilli()}
		if f.Total = f.Flown(); f.Key != "" {
			totals[f.Key] += f.Total
			f.Total = totals[f.Key]
		}
		out = append(out, f)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the flights: %w", err)
	}
	return out, nil
}

// Sum is the miles that any consumer has to reach.
func Sum(flights []Flight) int64 {
	var miles int64
	for i := range flights {
		miles += flights[i].Flown()
	}
	return miles
}
