package queuestore

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/ackwise/ackwise"
)

// FuzzValue reads any bytes as a table's value: they are refused, or what they say is written as it
// was read.
func FuzzValue(f *testing.F) {
	stamp := ackwise.Stamp{Millis: 1 << 40, Counter: 7, Node: "radar"}
	for _, v := range []value{{kind: plain}, {kind: plain, data: []byte("a")},
		{kind: stamped, stamp: stamp, data: []byte("b")},
		{kind: tombstone, stamp: stamp, written: 5}} {
		f.Add(v.encode())
	}
	f.Add([]byte{stamped, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(v.encode())
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%+v is read again as %+v, %v", v, again, err)
		}
		if v.kind == plain && !bytes.Equal(v.data, b[1:]) {
			t.Errorf("the data of %q is %q", b, v.data)
		}
	})
}
