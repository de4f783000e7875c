package attr_test

import (
	"fmt"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

// What a filter policy may look at is an attribute; the rest travels in one.
func ExampleEncode() {
	m := ackwise.Message{ID: "o-1", Key: "N12345", Headers: []ackwise.Header{
		{Name: "kind", Value: []byte("paid")}, {Name: "trace id", Value: []byte{1}}}}
	e, err := attr.Encode(&m, attr.SQSBytes)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range e.Attributes {
		fmt.Println(a.Name, a.Type, strings.ReplaceAll(a.Text, `,"headers"`, "\n\t,\"headers\""))
	}
	back := attr.Decode(e.Body, e.Attributes, "")
	fmt.Println(back.Message.ID, back.Message.Key, len(back.Message.Headers), back.Message.Body == nil)
	// Output:
	// ackwise-id String o-1
	// kind String paid
	// ackwise String {"key":"N12345","body":"nil"
	// 	,"headers":[{"name":"kind"},{"name":"trace id","value64":"AQ=="}]}
	// o-1 N12345 2 true
}

func ExampleDecode() {
	d := attr.Decode("text", []attr.Attribute{{Name: "kind", Type: "String", Text: "paid"}}, "m-1")
	fmt.Println(d.Message.ID, string(d.Message.Body), d.Message.Headers[0].Name, d.Foreign)
	// Output: m-1 text kind true
}
