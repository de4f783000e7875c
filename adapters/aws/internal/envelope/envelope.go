// Package envelope takes what SNS wraps into JSON out again: the body and the attributes that a
// subscription with raw delivery would have got.
//
//	{"Type":"Notification","MessageId":"…","TopicArn":"…","Message":"BODY","MessageAttributes":{…}}
//
// It promises that a message that package attr has encoded is the same behind both ways of
// delivery. Only a body without attributes beside it can be a notification: SNS puts none there,
// and everything of ours has some. The subject is left out, as raw delivery leaves it out;
// signatures are not checked, because queues and functions get their messages from AWS itself. See
// ExampleUnwrap.
package envelope

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

// Notification is a message that SNS delivered.
type Notification struct {
	ID         string // SNS's own ID of it, the same at each subscriber
	TopicARN   string
	Body       string
	Attributes []attr.Attribute
}

// Record is a notification as it stands in a queue's body and in an event of Lambda.
type Record struct {
	Type              string           `json:"Type"`
	MessageID         string           `json:"MessageId"`
	TopicARN          string           `json:"TopicArn"`
	Message           *string          `json:"Message"`
	MessageAttributes map[string]value `json:"MessageAttributes"`
}

type value struct{ Type, Value string }

// Unwrap reads a queue's message, and reports whether it is a notification.
func Unwrap(body string, attributes []attr.Attribute) (Notification, bool) {
	if len(attributes) > 0 || !strings.HasPrefix(strings.TrimLeft(body, " \t\r\n"), "{") {
		return Notification{}, false
	}
	var r Record
	if json.Unmarshal([]byte(body), &r) != nil {
		return Notification{}, false
	}
	return r.Notification()
}

// Notification returns what the record says, and whether it is one.
func (r *Record) Notification() (Notification, bool) {
	if r.Type != "Notification" || r.MessageID == "" || r.TopicARN == "" || r.Message == nil {
		return Notification{}, false
	}
	n := Notification{ID: r.MessageID, TopicARN: r.TopicARN, Body: *r.Message}
	for name, v := range r.MessageAttributes {
		a := attr.Attribute{Name: name, Type: v.Type, Text: v.Value}
		if v.Type == attr.Binary || strings.HasPrefix(v.Type, attr.Binary+".") {
			data, err := base64.StdEncoding.DecodeString(v.Value)
			if err != nil {
				return Notification{}, false
			}
			a.Text, a.Data = "", data
		}
		n.Attributes = append(n.Attributes, a)
	}
	slices.SortFunc(n.Attributes, func(a, b attr.Attribute) int { return cmp.Compare(a.Name, b.Name) })
	return n, true
}

// Topic returns the name of the topic: the last part of its ARN.
func (n *Notification) Topic() string {
	return n.TopicARN[strings.LastIndexByte(n.TopicARN, ':')+1:]
}
