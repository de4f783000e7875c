package ddbstore_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/test/servers"
)

// TestOpenRegionSaysWhatToDo: whoever names a region gets an error that helps.
func TestOpenRegionSaysWhatToDo(t *testing.T) {
	foreign := servers.Listen(t, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 1<<16)); err == nil { // what comes before it asks shows nothing
			_, _ = io.WriteString(c, "220 good day\r\n")
		}
	})
	for name, c := range map[string]struct {
		region ddbstore.Region
		key    string
		parts  []string
	}{
		"no such region": {ddbstore.Region{Name: "eu-central"}, "x", []string{`"eu-central-1"`}},
		"no credentials": {ddbstore.Region{Name: "eu-central-1"}, "", []string{"AWS_ACCESS_KEY_ID"}},
		"nobody answers": {ddbstore.Region{Name: "eu-central-1", Endpoint: "http://127.0.0.1:1"}, "x",
			[]string{"the table dedup in eu-central-1", "Nobody answers at the endpoint"}},
		"another server": {ddbstore.Region{Name: "eu-central-1", Endpoint: "http://" + foreign}, "x",
			[]string{"does not speak DynamoDB"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", c.key)
			t.Setenv("AWS_SECRET_ACCESS_KEY", c.key)
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			_, err := ddbstore.OpenRegion(t.Context(), c.region,
				ddbstore.Options{Table: "dedup", Name: "n", Window: time.Hour})
			text := ""
			if err != nil {
				text = err.Error()
			}
			if h, ok := errors.AsType[*ackwise.HintError](err); ok {
				text += " " + h.Hint
			}
			for _, part := range c.parts {
				if !strings.Contains(text, part) {
					t.Errorf("%q lacks %q", text, part)
				}
			}
		})
	}
}
