package orders

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/ackwise/ackwise/internal/demo"
	fake "github.com/ackwise/ackwise/test/nakadi"
	"github.com/ackwise/ackwise/test/servers"
)

const sigterm = syscall.SIGTERM

// rig is what all passes share.
type rig struct {
	dynamo, elastic, moto *servers.Server
	ackwise, bootstrap    string // the commands
}

// pass is one run of the pipeline.
type pass struct {
	*rig
	name, dir, prefix string
	all               bool // all faults
	flights           []demo.Flight
	streamARN         string

	nakadi                                         *nakadiServer
	toDynamo, toNakadi, requeue, toElastic, toMoto *gate
	dead                                           *sqsQueue
	writer                                         *writer
	relay                                          relay
	bridge                                         *process
	job                                            *cronJob
	consumers                                      map[string]*process
	traces                                         map[string]*trace
	faults                                         []fault
	began                                          time.Time
	took                                           time.Duration
}

// fault is one that was made, with work in flight.
type fault struct{ system, what string }

func newPass(t *testing.T, r *rig, name string, flights []demo.Flight) *pass {
	t.Helper()
	p := &pass{rig: r, name: name, prefix: name + "-", dir: t.TempDir(), flights: flights,
		consumers: map[string]*process{}, traces: map[string]*trace{}, began: time.Now()}
	p.nakadi = startNakadi(t, p.dir)
	p.toDynamo = newGate(t, "d", r.dynamo.Address)
	p.toElastic = newGate(t, "e", r.elastic.Address)
	p.toMoto = newGate(t, "m", r.moto.Address)
	p.toNakadi = newGate(t, "relay", "http://"+p.nakadi.address)
	p.requeue = newGate(t, "requeue", "http://"+p.nakadi.address)
	api := dynamodb.New(dynamodb.Options{Region: region, BaseEndpoint: &p.toDynamo.url,
		Credentials: static()})
	p.streamARN = makeTable(t, api, p.prefix+"orders")
	p.dead = makeQueue(t, r.elastic.Address, p.prefix+"orders-dead")
	fanOut(t, r.moto.Address, p.prefix)
	if err := os.WriteFile(p.path("token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	p.writer = startWriter(t, api, p.prefix+"orders", flights)
	t.Cleanup(func() {
		if t.Failed() {
			p.tell(t)
		}
	})
	return p
}

func (p *pass) path(name string) string { return filepath.Join(p.dir, name) }

// aws is the environment of a program that speaks to AWS: to the gates.
func (p *pass) aws() []string {
	return []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL_DYNAMODB=" + p.toDynamo.url,
		"AWS_ENDPOINT_URL_DYNAMODB_STREAMS=" + p.toDynamo.url,
		"AWS_ENDPOINT_URL_SQS=" + p.toElastic.url, "AWS_ENDPOINT_URL_SNS=" + p.toMoto.url}
}

// adapt puts the run's names and addresses in place of those of the files, and shorter times.
func (p *pass) adapt(text string) string {
	return p.adaptTo(text, p.toNakadi.host())
}

func (p *pass) adaptTo(text, nakadi string) string {
	switch text { // the values of variables
	case "500ms":
		return "50ms"
	case "5s":
		return "1s"
	}
	return strings.NewReplacer("eu-central-1/", "eu-central-1/"+p.prefix,
		"nakadi.example.org", nakadi,
		"token=file:/run/ackwise/nakadi-token", "tls=false&token=file:"+p.path("token"),
		"token=env:", "tls=false&token=env:", "/var/lib/ackwise/bridge", p.path("bridge"),
		"timeout=40s", "timeout=2s", "first: 500ms", "first: 50ms", "cap: 30s", "cap: 1s",
		"quiet: 5s", "quiet: 2s", "lease=20s", "lease=4s", "lease=60s", "lease=5s").Replace(text)
}

// file writes a configuration file of the example as this pass needs it.
func (p *pass) file(t *testing.T, name, as, nakadi string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path(as), []byte(p.adaptTo(string(text), nakadi)), 0o600); err != nil {
		t.Fatal(err)
	}
	return p.path(as)
}

func (p *pass) command(t *testing.T, args ...string) func(int) *exec.Cmd {
	ctx := context.WithoutCancel(t.Context())
	return func(int) *exec.Cmd {
		cmd := exec.CommandContext(ctx, p.ackwise, args...)
		cmd.Env = append(os.Environ(), p.aws()...)
		return cmd
	}
}

// startAll starts everything but the relay.
func (p *pass) startAll(t *testing.T) {
	t.Helper()
	moto := "?lease=10s&wait=2s&polls=1&endpoint=" + url.QueryEscape(p.moto.Address)
	sources := map[string]string{
		kindUpsert: "nakadi://" + p.nakadi.address + "?event_types=orders.changed&application=board" +
			"&group=upsert&create=true&tls=false&token=file:" + p.path("token") + "&notes=file:" +
			p.path("upsert-notes"),
		kindDedup:    "sqs://" + region + "/" + p.prefix + "orders-miles" + moto,
		kindSequence: "sqs://" + region + "/" + p.prefix + "orders-legs" + moto,
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	for kind, source := range sources {
		dir := p.path(kind)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p.traces[kind] = newTrace(filepath.Join(dir, "trace"))
		p.consumers[kind] = startProcess(t, p.dir, "consumer-"+kind, func(start int) *exec.Cmd {
			a := assignment{Kind: kind, Dir: dir, Source: source}
			if start == 0 {
				a.KillAt = len(p.flights)/4 + 1
			}
			text, err := json.Marshal(a)
			if err != nil {
				panic(err) // texts and numbers only
			}
			cmd := exec.CommandContext(ctx, self)
			cmd.Env = append(append(os.Environ(), p.aws()...), consumerVariable+"="+string(text),
				"GORACE=atexit_sleep_ms=0")
			return cmd
		})
	}
	p.bridge = startProcess(t, p.dir, "bridge",
		p.command(t, "run", p.file(t, "bridge.yaml", "bridge.yaml", p.nakadi.address)))
	job := p.command(t, "redrive", "--once", p.file(t, "orders.yaml", "redrive.yaml",
		p.requeue.host()))
	p.job = startCronJob(t, func() *exec.Cmd { return job(0) })
}

// more lets some more changes be written, so that all systems have work.
func (p *pass) more() { p.writer.allow(len(p.flights)/30 + 1) }

// makes reports whether this pass makes a fault. The whole run makes each in both passes; the
// sample in one of them, so that it takes half of the time.
func (p *pass) makes(f fault) bool {
	first := map[fault]bool{{"DynamoDB Local", "killed"}: true, {"bootstrap", "killed"}: true,
		{"ElasticMQ", "killed"}: true, {"moto", "cut off"}: true, scripted(): true}
	return p.all || first[f] == (p.name == nameLambda)
}

// scripted are Nakadi's own faults, for a few requests each.
func scripted() fault { return fault{"Nakadi", "slow, down, 500, 207, answers lost"} }

// tell logs how far everything is.
func (p *pass) tell(t *testing.T) {
	t.Helper()
	t.Logf("%d of %d written, %d letters", p.writer.done(), len(p.flights),
		p.dead.letters(context.WithoutCancel(t.Context())))
	for kind, tr := range p.traces {
		tr.read(t)
		t.Logf("consumer %s: %d came, %d had their effect; it ended %q", kind, len(tr.in), len(tr.did),
			p.consumers[kind].ends)
	}
	if p.job != nil {
		t.Logf("requeue job: %d runs, exit codes %v, %d accepted; could not work: %q", p.job.runs,
			p.job.codes, p.job.accepted, p.job.broken)
	}
}

// strike makes a fault at the moment at which a request is held: before it is forwarded, or when
// its answer is there, which is then lost.
func (p *pass) strike(t *testing.T, g *gate, match func(*http.Request, []byte) bool, f fault,
	do func()) {
	t.Helper()
	if !p.makes(f) {
		return
	}
	tr := g.set(false, match)
	p.more()
	p.await(t, f, tr)
	do()
	tr.release(true)
	p.note(t, f)
}

func (p *pass) await(t *testing.T, f fault, tr *trap) {
	t.Helper()
	servers.Until(t, f.system+" "+f.what+": nothing is in flight", patience, func() bool {
		select {
		case <-tr.caught:
			return true
		default:
			return false
		}
	})
}

func (p *pass) note(t *testing.T, f fault) {
	t.Helper()
	p.faults = append(p.faults, f)
	t.Logf("%5.1f s: %s %s, %d of %d written", time.Since(p.began).Seconds(), f.system, f.what,
		p.writer.done(), len(p.flights))
}

// freezer is a server that can be stopped where it stands.
type freezer interface {
	Freeze(t testing.TB)
	Thaw(t testing.TB)
}

// freeze stops a server while a request is on its way to it, for longer than its clients wait.
func (p *pass) freeze(t *testing.T, g *gate, match func(*http.Request, []byte) bool, f fault) {
	t.Helper()
	if !p.makes(f) {
		return
	}
	server := map[string]freezer{"DynamoDB Local": p.dynamo, "ElasticMQ": p.elastic, "moto": p.moto,
		"Nakadi": p.nakadi}[f.system]
	tr := g.set(true, match)
	p.more()
	p.await(t, f, tr)
	server.Freeze(t)
	tr.release(false)
	pause(2500 * time.Millisecond)
	server.Thaw(t)
	p.note(t, f)
}

// script runs the pass with all its faults until everything has arrived.
func (p *pass) script(t *testing.T, relayName string) {
	t.Helper()
	put := action("PutItem")
	p.writer.allow(len(p.flights)/10 + 1)
	servers.Until(t, "changes arrive", patience, func() bool {
		return p.nakadi.size(t) >= len(p.flights)/20
	})
	p.strike(t, p.toDynamo, put, fault{"DynamoDB Local", "killed"}, func() {
		p.dynamo.Kill(t)
		p.dynamo.Restart(t)
	})
	p.freeze(t, p.toDynamo, put, fault{"DynamoDB Local", "frozen"})
	p.strike(t, p.toDynamo, put, fault{"DynamoDB Local", "cut off"}, func() {})
	p.strike(t, p.toNakadi, publishes, fault{relayName, "killed"}, func() {
		p.toNakadi.killed()
		if p.relay.kill(t) == 0 {
			t.Error("the relay had nothing in flight when it was killed")
		}
	})
	p.targetFails(t)
	p.outage(t)
	p.strike(t, p.toNakadi, publishes, fault{"Nakadi", "killed"}, func() {
		p.nakadi.kill(t)
		p.nakadi.start(t)
	})
	p.freeze(t, p.toNakadi, publishes, fault{"Nakadi", "frozen"})
	p.fanOutFails(t)
	p.writer.allow(len(p.flights))
	p.settle(t)
}

// targetFails is Nakadi failing in scripted ways, for a few requests each.
func (p *pass) targetFails(t *testing.T) {
	t.Helper()
	if !p.makes(scripted()) {
		return
	}
	for _, f := range []fake.Fault{
		{Kind: fake.Slow, Delay: 10 * time.Second, Times: 1},
		{Kind: fake.LoseAnswer, Times: 3}, {Kind: fake.Partial, Every: 2, Store: true, Times: 3},
		{Kind: fake.Down, Times: 3}, {Kind: fake.Status, Code: 500, Times: 3},
		{Kind: fake.Partial, Every: 3, Times: 3},
	} {
		p.nakadi.inject(t, f)
		p.more()
	}
	for kind, times := range map[fake.FaultKind]int{fake.Slow: 1, fake.LoseAnswer: 3,
		fake.Partial: 6, fake.Down: 3, fake.Status: 3} {
		p.nakadi.fired(t, kind, times)
	}
	servers.Until(t, "a request times out", patience, func() bool {
		return p.toNakadi.heard(fateTimeout)
	})
	p.note(t, scripted())
}

// letters waits for dead letters.
func (p *pass) letters(t *testing.T, what string, ok func(n int) bool) {
	t.Helper()
	servers.Until(t, what, patience, func() bool { return ok(p.dead.letters(t.Context())) })
}

// outage is Nakadi refusing everything until letters are in the queue, whose server is killed and
// frozen meanwhile; and the requeue job killed. Then Nakadi stores what it calls failed, so that
// letters are copies.
func (p *pass) outage(t *testing.T) {
	t.Helper()
	send := action("SendMessage")
	p.quiet(t)
	p.nakadi.inject(t, fake.Fault{Kind: fake.Status, Code: 503})
	p.more()
	p.strike(t, p.toElastic, send, fault{"ElasticMQ", "killed"}, func() {
		p.elastic.Kill(t)
		p.elastic.Restart(t)
	})
	p.freeze(t, p.toElastic, send, fault{"ElasticMQ", "frozen"})
	p.more()
	p.letters(t, "dead letters", func(n int) bool { return n >= 25 })
	p.note(t, fault{"Nakadi", "503 until letters are dead"})
	p.overtake(t)
	p.letters(t, "the letters are requeued", func(n int) bool { return n == 0 })
	p.nakadi.inject(t, fake.Fault{Kind: fake.Partial, Store: true})
	p.more()
	p.letters(t, "dead letters of what is stored", func(n int) bool { return n >= 5 })
	p.nakadi.call(t, http.MethodDelete, "/admin/faults", nil, nil)
}

// long is more than all changes take.
func (p *pass) long() time.Duration {
	return patience + time.Duration(len(p.flights))*100*time.Millisecond
}

// quiet waits until the relay has nothing in hand. What an earlier fault made it send again may be
// at Nakadi already: the letters of an outage are to be the first copies that Nakadi gets.
func (p *pass) quiet(t *testing.T) {
	t.Helper()
	there := p.traces[kindUpsert]
	servers.Until(t, "the relay has nothing in hand", p.long(), func() bool {
		there.read(t)
		return p.writer.waits() && len(there.did) == p.writer.done() && p.toNakadi.quiet(2*time.Second)
	})
}

// overtake lets newer changes pass while the requeue job has the letters, which is how the order is
// lost; then the job is killed.
func (p *pass) overtake(t *testing.T) {
	t.Helper()
	f := fault{"requeue job", "frozen and killed"}
	tr := p.requeue.set(true, publishes)
	p.nakadi.call(t, http.MethodDelete, "/admin/faults", nil, nil)
	p.await(t, f, tr)
	p.job.signal(syscall.SIGSTOP)
	newer := len(p.flights) / 10
	size := p.nakadi.size(t)
	p.writer.allow(newer)
	servers.Until(t, "newer changes pass", patience, func() bool {
		return p.nakadi.size(t) >= size+newer
	})
	p.requeue.killed()
	p.job.signal(syscall.SIGKILL)
	tr.release(true)
	p.note(t, f)
}

// fanOutFails is moto cut off and frozen, and the bridge killed.
func (p *pass) fanOutFails(t *testing.T) {
	t.Helper()
	publish := action("Publish")
	p.strike(t, p.toMoto, publish, fault{"moto", "cut off"}, func() {})
	p.freeze(t, p.toMoto, publish, fault{"moto", "frozen"})
	p.strike(t, p.toMoto, publish, fault{"ackwise run (bridge)", "killed"}, func() {
		p.toMoto.killed()
		p.bridge.kill(t)
	})
}

// settle waits until everything has arrived everywhere, and ends all.
func (p *pass) settle(t *testing.T) {
	t.Helper()
	n := len(p.flights)
	servers.Until(t, "all is written", p.long(), func() bool { return p.writer.done() == n })
	for kind, tr := range p.traces {
		servers.Until(t, "all effects of "+kind, p.long(), func() bool {
			tr.read(t)
			return len(tr.did) >= n
		})
	}
	servers.Until(t, "no dead letter is left", patience, func() bool {
		return p.dead.letters(t.Context()) == 0
	})
	servers.Until(t, "a requeue job finds nothing", patience, func() bool {
		return p.job.emptyRuns() > 0
	})
	p.took = time.Since(p.began)
	p.relay.end()
	p.bridge.end(sigterm)
	p.job.end()
	for _, kind := range kinds() {
		c := p.consumers[kind]
		if c.ended("killed") > 0 {
			p.note(t, fault{"consumer " + kind, "killed"})
		}
		c.end(sigterm)
	}
}
