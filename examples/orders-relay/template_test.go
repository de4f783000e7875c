package orders

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ackwise/ackwise/test/lambdahost"
)

// template is what the tests need of template.yaml.
type template struct {
	Parameters map[string]struct{ Type, Default string }
	Resources  map[string]struct {
		Type       string
		Properties struct {
			Runtime, Handler string
			Architectures    []string
			Timeout          int
			Environment      struct{ Variables map[string]string }
			Policies         []struct {
				Statement []struct {
					Effect           string
					Action, Resource any
				}
			}
			Events map[string]struct {
				Type       string
				Properties struct {
					StartingPosition           string
					BatchSize                  int
					ParallelizationFactor      int
					FunctionResponseTypes      []string
					BisectBatchOnFunctionError bool
					MaximumRetryAttempts       int
					MaximumRecordAgeInSeconds  int
					DestinationConfig          struct {
						OnFailure struct{ Type, Destination string }
					}
				}
			}
			MessageRetentionPeriod int
		}
	}
}

func readTemplate(t *testing.T) template {
	t.Helper()
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f template
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		t.Fatal(err)
	}
	plain(&node)
	var all any
	err = node.Decode(&all)
	if err == nil {
		text, err = json.Marshal(all) // encoding/json takes the names as they are written
	}
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// plain takes CloudFormation's tags (!Sub and others) away: what they are put on stays.
func plain(n *yaml.Node) {
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		n.Tag = ""
	}
	for _, child := range n.Content {
		plain(child)
	}
}

// variables are the function's, with the parameters' defaults and a table's name put in.
func (f template) variables(table string) map[string]string {
	pairs := []string{"${AWS::Region}", region, "${Table}", table}
	for name, p := range f.Parameters {
		pairs = append(pairs, "${"+name+"}", p.Default)
	}
	all := map[string]string{}
	for name, value := range f.Resources["Relay"].Properties.Environment.Variables {
		all[name] = strings.NewReplacer(pairs...).Replace(value)
	}
	return all
}

// mapping is the function's event source mapping.
func (f template) mapping() lambdahost.Mapping {
	e := f.Resources["Relay"].Properties.Events["Changes"].Properties
	return lambdahost.Mapping{BatchSize: e.BatchSize, Parallel: e.ParallelizationFactor,
		Report: len(e.FunctionResponseTypes) == 1, Bisect: e.BisectBatchOnFunctionError,
		MaxAttempts: e.MaximumRetryAttempts + 1,
		MaxAge:      time.Duration(e.MaximumRecordAgeInSeconds) * time.Second}
}

// TestFilesFitTheBinaries has the commands judge the files of the example: lint finds nothing, and
// the function takes the template's variables, while it refuses an unknown one.
func TestFilesFitTheBinaries(t *testing.T) {
	t.Parallel()
	command, bootstrap := build(t)
	for _, name := range []string{"orders.yaml", "bridge.yaml"} {
		out, err := exec.CommandContext(t.Context(), command, "lint", name).CombinedOutput()
		if err != nil {
			t.Errorf("lint %s: %v\n%s", name, err, out)
		}
	}
	check := func(vars map[string]string) (string, error) {
		cmd := exec.CommandContext(t.Context(), bootstrap, "--check")
		for name, value := range vars {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	vars := readTemplate(t).variables("orders")
	if out, err := check(vars); err != nil || vars["ACKWISE_TO"] == "" {
		t.Errorf("the template's variables: %v: %s", err, out)
	}
	for name, value := range vars {
		if strings.Contains(value, "${") {
			t.Errorf("%s has a parameter that there is not: %s", name, value)
		}
	}
	vars["ACKWISE_BACKOF_CAP"] = "5s"
	if out, err := check(vars); err == nil || !strings.Contains(out, "ACKWISE_BACKOFF_CAP") {
		t.Errorf("an unknown variable: %v: %s", err, out)
	}
}

// TestTemplateSaysWhatTheRelayNeeds checks what nobody is told of where it is missing: partial
// answers, limits, the destination on failure, how long dead letters are kept, and the permissions.
func TestTemplateSaysWhatTheRelayNeeds(t *testing.T) {
	t.Parallel()
	f := readTemplate(t)
	relay := f.Resources["Relay"].Properties
	if relay.Runtime != "provided.al2023" || relay.Handler != "bootstrap" ||
		!slices.Equal(relay.Architectures, []string{"arm64"}) || relay.Timeout < 10 {
		t.Errorf("the function is %+v", relay)
	}
	changes := relay.Events["Changes"]
	e := changes.Properties
	if changes.Type != "DynamoDB" || e.StartingPosition != "TRIM_HORIZON" ||
		!slices.Equal(e.FunctionResponseTypes, []string{"ReportBatchItemFailures"}) ||
		!e.BisectBatchOnFunctionError || e.MaximumRetryAttempts < 1 ||
		e.MaximumRecordAgeInSeconds < 3600 || e.MaximumRecordAgeInSeconds >= 24*3600 ||
		e.ParallelizationFactor < 1 || e.ParallelizationFactor > 10 ||
		e.DestinationConfig.OnFailure.Destination != "Discarded.Arn" {
		t.Errorf("the mapping is %+v", e)
	}
	for _, name := range []string{"Dead", "Discarded"} {
		if got := f.Resources[name].Properties.MessageRetentionPeriod; got != 14*24*3600 {
			t.Errorf("%s keeps messages for %d s", name, got)
		}
	}
	want := map[string]string{"dynamodb:DescribeStream": "StreamArn",
		"dynamodb:GetRecords": "StreamArn", "dynamodb:GetShardIterator": "StreamArn",
		"dynamodb:ListStreams": "*", "sqs:GetQueueUrl": "Dead.Arn", "sqs:GetQueueAttributes": "Dead.Arn",
		"sqs:SendMessage": "Dead.Arn Discarded.Arn"}
	got := map[string]string{}
	for _, p := range relay.Policies {
		for _, s := range p.Statement {
			actions, _ := s.Action.([]any)
			if one, ok := s.Action.(string); ok {
				actions = []any{one}
			}
			for _, a := range actions {
				name, on := a.(string), s.Resource.(string)
				got[name] = strings.TrimSpace(got[name] + " " + on)
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the permissions are %v, want %v", got, want)
	}
}
