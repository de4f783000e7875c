package patterns

import (
	"context"
	"testing"

	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/test/servers"
)

// realBackends are those that need a server.
func realBackends() []*backend {
	var out []*backend
	for _, b := range adaptertest.Backends() {
		out = append(out, &backend{name: b.Name, slow: b.Name == "dynamodb",
			address: func(t *testing.T) string {
				address := servers.Address(t, b.Variable)
				if err := b.Prepare(t.Context(), address); err != nil {
					t.Fatal(err)
				}
				return address
			},
			open: func(ctx context.Context, address, name string) (*opened, error) {
				o, err := b.Open(ctx, address, name, window)
				if err != nil {
					return nil, err
				}
				return &opened{o.Store, o.Table, []func() error{o.Close}}, nil
			}})
	}
	return out
}

func TestEveryPatternOnRealServers(t *testing.T) { everyPattern(t, realBackends()) }
