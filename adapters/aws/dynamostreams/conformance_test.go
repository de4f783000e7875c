package dynamostreams

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/test/servers"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "local",
		"AWS_SECRET_ACCESS_KEY": "local", "AWS_EC2_METADATA_DISABLED": "true"} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(adaptertest.Main(m, fakeHarness(), realHarness()))
}

func TestConformance(t *testing.T) { adaptertest.Run(t, fakeHarness()) }

// fakeHarness is the reader on a fake whose shards split and roll while it is written to.
func fakeHarness() adaptertest.Harness {
	return adaptertest.Harness{Name: "dynamodb streams (fake)", Source: features(),
		OpenSource: openURL, Undo: undo, New: fakeBed}
}

func features() *ackwise.Features {
	return &ackwise.Features{Order: ackwise.OrderKey, Extend: true, MaxNackDelay: 24 * time.Hour,
		Counts: true, Causes: true, KeyRuns: true}
}

func openURL(ctx context.Context, address string) (ackwise.Source, error) {
	o, err := ParseSource(address)
	if err != nil {
		return nil, err
	}
	return OpenSource(ctx, o)
}

// address is the URL of a consumer. Its options let members find each other fast, on a machine that
// may stall for seconds.
func address(endpoint, table, leases, lease string) string {
	return "dynamodb-streams://eu-central-1/" + table + "?endpoint=" + url.QueryEscape(endpoint) +
		"&leases=" + leases + "&lease=" + lease + "&group=suite&drain=2s&list=1s&idle=250ms"
}

func fakeBed(t *testing.T) *adaptertest.Bed {
	t.Helper()
	p := &fakeProcess{f: newFake(2)}
	p.cond = sync.NewCond(&p.mu)
	p.listen(t, servers.Fixed(t))
	t.Cleanup(func() { p.Kill(t) })
	proxy := servers.StartProxy(t, p.address)
	db := client("http://" + p.address)
	written := 0
	return &adaptertest.Bed{Source: address("http://"+proxy.Address, "orders", "leases", "3s"),
		Server: p, Proxy: proxy, Patience: time.Minute,
		Write: func(ctx context.Context, ms []ackwise.Message) error {
			for i := range ms {
				if err := putMessage(ctx, db, "orders", &ms[i]); err != nil {
					return err
				}
				switch written++; {
				case written > 20 && written%10 == 3 && written < 60:
					p.f.split(written)
				case written > 20 && written%10 == 8 && written < 60:
					p.f.roll(written)
				}
			}
			return nil
		}}
}

// client makes a client that does not repeat calls.
func client(endpoint string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{Region: "eu-central-1", BaseEndpoint: &endpoint,
		Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""),
		Retryer:     aws.NopRetryer{}})
}

// putMessage writes an item whose key is the message's, so that its change has the message's order.
func putMessage(ctx context.Context, db *dynamodb.Client, table string, m *ackwise.Message) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	key := m.Key
	if key == "" {
		key = "no key: " + m.ID
	}
	_, err := db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table,
		Item: map[string]types.AttributeValue{
			"id":   &types.AttributeValueMemberS{Value: key},
			"mid":  &types.AttributeValueMemberS{Value: m.ID},
			"mkey": &types.AttributeValueMemberB{Value: []byte(m.Key)},
			"body": &types.AttributeValueMemberB{Value: m.Body},
		}})
	return err
}

// undo makes the message again that putMessage was given.
func undo(m *ackwise.Message) {
	var body struct {
		NewImage map[string]struct{ S, B string }
	}
	if json.Unmarshal(m.Body, &body) != nil || body.NewImage["mid"].S == "" {
		return
	}
	key, err1 := base64.StdEncoding.DecodeString(body.NewImage["mkey"].B)
	data, err2 := base64.StdEncoding.DecodeString(body.NewImage["body"].B)
	if errors.Join(err1, err2) != nil {
		return
	}
	*m = ackwise.Message{ID: body.NewImage["mid"].S, Topic: "suite", Key: string(key), Body: data}
}

// fakeProcess makes a fake behave as a server's process: it can be killed, started again with its
// data, stopped where it stands and woken.
type fakeProcess struct {
	f       *fake
	address string
	server  *http.Server
	wg      sync.WaitGroup // the server

	mu     sync.Mutex // guards frozen
	cond   *sync.Cond
	frozen bool
}

func (p *fakeProcess) listen(t testing.TB, address string) {
	t.Helper()
	var c net.ListenConfig
	listener, err := c.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p.address = listener.Addr().String()
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	server := p.server
	p.wg.Go(func() { _ = server.Serve(listener) }) // until Kill closes it
}

// ServeHTTP waits while the process is stopped.
func (p *fakeProcess) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	for p.frozen {
		p.cond.Wait()
	}
	p.mu.Unlock()
	p.f.ServeHTTP(w, r)
}

func (p *fakeProcess) Kill(t testing.TB) {
	p.Thaw(t)
	_ = p.server.Close() // its connections may be broken already
	p.wg.Wait()
}

func (p *fakeProcess) Restart(t testing.TB) { p.listen(t, p.address) }
func (p *fakeProcess) Freeze(testing.TB)    { p.freeze(true) }
func (p *fakeProcess) Thaw(testing.TB)      { p.freeze(false) }

func (p *fakeProcess) freeze(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
	p.cond.Broadcast()
}
