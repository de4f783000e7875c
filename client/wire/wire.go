// Package wire holds the JSON forms of the native API, which package server answers and package
// client asks, and the one table that turns errors into problems and back.
//
//	POST /v1/NAME  {…}  ─▶ 200 {…}
//	                    └▶ 4xx, 5xx application/problem+json {"type":"urn:ackwise:full",…}
//
// It promises that every value and every error of package queue comes out as it went in: bytes that
// are not UTF-8 travel base64-coded under the same name with 64 added, and an error keeps its text,
// its types and what errors.Is finds in it. It opens no connection.
package wire

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// Prefix is what the path of every call begins with.
const Prefix = "/v1/"

// Call is the name of a call: its path behind Prefix.
type Call string

// The calls. Receivers and Owner are streams: they answer one line and stay open.
const (
	Owner              Call = "owner"      // Hello ─▶ Welcome, then a blank line a pulse
	Receivers          Call = "receivers"  // OpenReceiver ─▶ OpenedReceiver; open = the session lives
	Receive            Call = "receive"    // SessionRequest ─▶ Received
	Settle             Call = "settle"     // SettleRequest ─▶ Settled
	Keep               Call = "keep"       // SessionRequest ─▶ {}
	CloseReceiver      Call = "close"      // SessionRequest ─▶ {}
	LoseReceiver       Call = "lose"       // SessionRequest ─▶ {}
	CreateTopic        Call = "topics/add" // TopicRequest ─▶ {}
	DeleteTopic        Call = "topics/delete"
	Topics             Call = "topics"            // {} ─▶ [queue.TopicInfo]
	CreateSubscription Call = "subscriptions/add" // SubscriptionRequest ─▶ {}
	DeleteSubscription Call = "subscriptions/delete"
	Subscriptions      Call = "subscriptions" // SubscriptionRequest ─▶ [queue.SubscriptionInfo]
	Publish            Call = "publish"       // PublishRequest ─▶ Published
	Get                Call = "get"           // TableRequest ─▶ queue.Entry
	Keys               Call = "keys"          // TableRequest ─▶ [Bytes]
	Commit             Call = "commit"        // Transaction ─▶ Published
	CommitOnce         Call = "commit/once"   // Transaction with Once ─▶ Published
	Peek               Call = "peek"          // PeekRequest ─▶ [queue.Peeked]
	Read               Call = "read"          // PeekRequest ─▶ [ackwise.Message]
	Scan               Call = "scan"          // PeekRequest ─▶ [queue.Peeked]
	DeadLetters        Call = "dead"          // DeadRequest ─▶ [queue.DeadLetter]
	Redrive            Call = "dead/redrive"  // DeadRequest ─▶ how many
	DropDead           Call = "dead/drop"     // DeadRequest ─▶ how many
	ParkedKeys         Call = "parked"        // DeadRequest ─▶ [ParkedKey]
	Books              Call = "books"         // {} ─▶ [queue.Books]
	Verify             Call = "verify"        // {} ─▶ queue.VerifyReport
	OpenSet            Call = "sets/add"      // claims.SetRequest ─▶ {}
	BindSet            Call = "sets/bind"     // claims.SetRequest ─▶ {}
	Claim              Call = "claim"         // claims.Asks ─▶ claims.Answers
	Look               Call = "look"          // claims.Asks, of one ─▶ claims.Answers
	SettleClaims       Call = "claim/settle"  // claims.Settlements ─▶ claims.Settled
)

// Bytes is a string of any bytes: a JSON string where it is UTF-8, else {"64": base64}.
type Bytes string

// Hello opens the stream that tells a client that its owner lives.
type Hello struct {
	PulseMillis int64 `json:"pulse_millis"` // how often the owner is to write
}

// Welcome is the first line of an Owner stream.
type Welcome struct {
	PID      int                  `json:"pid"`
	Features ackwise.SinkFeatures `json:"features"`
}

// TopicRequest names a topic.
type TopicRequest struct {
	Topic   string             `json:"topic"`
	Options queue.TopicOptions `json:"options,omitzero"` // CreateTopic
	Reason  string             `json:"reason,omitempty"` // DeleteTopic
}

// SubscriptionRequest names a subscription.
type SubscriptionRequest struct {
	Topic        string                    `json:"topic"`
	Subscription string                    `json:"subscription,omitempty"`
	Options      queue.SubscriptionOptions `json:"options,omitzero"` // CreateSubscription
	Reason       string                    `json:"reason,omitempty"` // DeleteSubscription
}

// PublishRequest is a Publish, or with a delay a Schedule.
type PublishRequest struct {
	Messages []ackwise.Message `json:"messages"`
	Delay    time.Duration     `json:"delay,omitempty"`
}

// Published answers a PublishRequest and a Transaction.
type Published struct {
	Results []result `json:"results"`
}

// TableRequest names a table's entry, or with Keys those whose key begins with Key.
type TableRequest struct {
	Table string `json:"table"`
	Key   Bytes  `json:"key"`
	Max   int    `json:"max,omitempty"` // Keys
}

// PeekRequest asks to see messages: of a subscription, with Scan of a topic behind a position, with
// Read at positions.
type PeekRequest struct {
	Topic        string             `json:"topic"`
	Subscription string             `json:"subscription,omitempty"` // Peek
	Options      queue.PeekOptions  `json:"options,omitzero"`       // Peek; Scan: After and Max
	Positions    []ackwise.Position `json:"positions,omitempty"`    // Read
}

// DeadRequest chooses dead letters, or with ParkedKeys only names the subscription and Filter.Max.
type DeadRequest struct {
	Topic        string           `json:"topic"`
	Subscription string           `json:"subscription"`
	Filter       queue.DeadFilter `json:"filter"` // its Key travels in Key
	Key          Bytes            `json:"key,omitempty"`
	Redo         bool             `json:"redo,omitempty"`   // Redrive
	Reason       string           `json:"reason,omitempty"` // DropDead
}

// ParkedKey is a queue.ParkedKey whose key may be any bytes.
type ParkedKey struct {
	queue.ParkedKey
	Key Bytes `json:"key"`
}

// OpenReceiver opens a session, or takes up the one that its options name.
type OpenReceiver struct {
	Topic        string                `json:"topic"`
	Subscription string                `json:"subscription"`
	Options      queue.ReceiverOptions `json:"options"`
	// Held lists what the consumer has: whatever else the session holds never reached it.
	Held []ackwise.LeaseToken `json:"held,omitempty"`
	Seq  int64                `json:"seq,omitempty"` // as in SessionRequest
}

// OpenedReceiver is the first line of a Receivers stream.
type OpenedReceiver struct {
	Session  string           `json:"session"`
	Features ackwise.Features `json:"features"`
}

// SessionRequest names a session.
type SessionRequest struct {
	Session string               `json:"session"`
	Held    []ackwise.LeaseToken `json:"held,omitempty"` // Keep: what its consumer has
	// Seq numbers the Receives of a session. A Keep ends those up to its own number, also one that
	// is still on its way here.
	Seq        int64 `json:"seq,omitempty"`
	Max        int   `json:"max,omitempty"`         // Receive
	WaitMillis int64 `json:"wait_millis,omitempty"` // Receive: then the answer is empty
}

// Received answers a Receive.
type Received struct {
	Deliveries []delivery `json:"deliveries"`
}

// SettleRequest settles deliveries of a session.
type SettleRequest struct {
	Session     string       `json:"session"`
	Settlements []settlement `json:"settlements"`
}

// Settled answers a SettleRequest.
type Settled struct {
	Results []settleResult `json:"results"`
}

// MarshalJSON writes the string, or its bytes base64-coded.
func (b Bytes) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(b)) {
		return json.Marshal(string(b))
	}
	return json.Marshal(bytes64{Base64: []byte(b)})
}

// UnmarshalJSON reads either form.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var v bytes64
		err := json.Unmarshal(data, &v)
		*b = Bytes(v.Base64)
		return err
	}
	return json.Unmarshal(data, (*string)(b))
}

type bytes64 struct {
	Base64 []byte `json:"64"`
}
