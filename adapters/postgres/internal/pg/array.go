package pg

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// Array writes an array as Postgres reads it from text: {…}. A nil []byte is NULL.
func Array[E []byte | string | int64](list []E) string {
	b := make([]byte, 0, 2+16*len(list))
	b = append(b, '{')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		switch e := any(e).(type) {
		case int64:
			b = strconv.AppendInt(b, e, 10)
		case []byte:
			b = appendBytes(b, e)
		case string:
			b = append(b, '"')
			b = append(b, escaper().Replace(e)...)
			b = append(b, '"')
		}
	}
	return string(append(b, '}'))
}

func appendBytes(b, e []byte) []byte {
	if e == nil {
		return append(b, "NULL"...)
	}
	b = append(b, `"\\x`...)
	b = hex.AppendEncode(b, e)
	return append(b, '"')
}

func escaper() *strings.Replacer { return strings.NewReplacer(`\`, `\\`, `"`, `\"`) }
