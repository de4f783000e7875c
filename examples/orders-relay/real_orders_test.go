package orders

import (
	"os"
	"strings"
	"testing"

	"github.com/ackwise/ackwise/internal/demo"
	"github.com/ackwise/ackwise/test/servers"
)

// sample is how many changes a pass has where the whole is not asked for.
const sample = 400

// TestRealOrdersRelay is the run: the flights of January as changes of orders, through the relay as
// Lambda and through the relay as a process, while each system is killed, frozen or cut off.
func TestRealOrdersRelay(t *testing.T) {
	flights, err := demo.Flights(0)
	if err != nil {
		t.Fatal(err)
	}
	long := os.Getenv("ACKWISE_FAULTS") == "long"
	if !long {
		flights = sampleOf(flights, sample)
	}
	r := &rig{elastic: servers.Start(t, "elasticmq"), moto: servers.Start(t, "moto")}
	r.ackwise, r.bootstrap = build(t)
	var reports []*report
	for _, name := range []string{nameLambda, nameProcess} {
		t.Run(name, func(t *testing.T) {
			// Each pass has its own: with every request DynamoDB Local looks for the first record of a
			// stream through those of all older streams, which takes it 0.3 s after a whole pass.
			r.dynamo = servers.Start(t, "dynamodb")
			p := newPass(t, r, name, flights)
			p.all = long
			p.startAll(t)
			if name == nameLambda {
				p.relay = startLambda(t, p, r.bootstrap)
			} else {
				p.relay = asProcess{startProcess(t, p.dir, "relay",
					p.command(t, "run", p.file(t, "orders.yaml", "relay.yaml", p.toNakadi.host())))}
			}
			p.script(t, p.relayName())
			report := judge(t, p)
			report.check(t)
			reports = append(reports, report)
		})
	}
	if len(reports) == 2 {
		checkFaults(t, reports)
	}
	if len(reports) == 0 {
		return
	}
	var text strings.Builder
	if err := table(&text, reports); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text.String())
}

const (
	nameLambda  = "lambda"
	nameProcess = "process"
)

// relayName is what the relay is.
func (p *pass) relayName() string {
	if p.name == nameLambda {
		return "bootstrap"
	}
	return "ackwise run (relay)"
}

// sampleOf is the whole month of a few busy aircraft, so that each has changes all through the run,
// and some flights whose aircraft is not known.
func sampleOf(all []demo.Flight, n int) (some []demo.Flight) {
	const busy = 20
	months := map[string]int{}
	for i := range all {
		months[all[i].Key]++
	}
	chosen, total := map[string]bool{}, 0
	for i := range all {
		key := all[i].Key
		if key != "" && months[key] >= busy && !chosen[key] && total < n-busy {
			chosen[key] = true
			total += months[key]
		}
	}
	nameless := busy
	for i := range all {
		if all[i].Key == "" && nameless > 0 {
			nameless--
			some = append(some, all[i])
		} else if chosen[all[i].Key] {
			some = append(some, all[i])
		}
	}
	return some
}
