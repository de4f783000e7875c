package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/sqs"
	"github.com/ackwise/ackwise/test/nakadi"
	"github.com/ackwise/ackwise/test/servers"
)

const (
	typeName  = "orders.changed"
	namespace = "orders"
	letters   = 20
	patience  = 60 * time.Second
	onMinute  = 100 * time.Second // a schedule of every minute, and a slow machine
)

// cluster is a Kubernetes API by its kubectl.
type cluster struct {
	t          *testing.T
	kubeconfig string
}

func (c cluster) kubectl(args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "kubectl",
		append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

func TestManifestsAreAccepted(t *testing.T) {
	c := cluster{t, servers.Address(t, "ACKWISE_TEST_KUBERNETES")}
	for _, how := range [][]string{{"-f", "kubernetes"}, {"-k", "kubernetes"},
		{"-k", "overlays/example"}} {
		t.Run(strings.Join(how, " "), func(t *testing.T) {
			c := cluster{t, c.kubeconfig}
			said := c.kubectl(append([]string{"apply", "--validate=strict"}, how...)...)
			for _, want := range []string{"configmap/ackwise-config", "cronjob.batch/ackwise-redrive",
				"deployment.apps/ackwise-relay"} {
				if !strings.Contains(said, want) {
					t.Errorf("%s was not applied:\n%s", want, said)
				}
			}
			c.kubectl(append([]string{"delete", "--wait=true"}, how...)...)
		})
	}
}

// pod is what a kubelet would read of a pod.
type pod struct {
	Metadata struct{ Name string }
	Spec     struct {
		Containers []struct {
			Command      []string
			Args         []string
			Env          []struct{ Name, Value string }
			VolumeMounts []struct{ Name, MountPath string }
		}
		Volumes []struct {
			Name      string
			ConfigMap *struct{ Name string }
			Secret    *struct {
				SecretName string
				Optional   bool
			}
		}
	}
}

// TestCronJobRedrivesUntilTheTargetAccepts lets the controller make jobs and pods of the CronJob,
// on its schedule, and plays the kubelet: it runs each pod's command and says how it ended.
func TestCronJobRedrivesUntilTheTargetAccepts(t *testing.T) {
	c := cluster{t, servers.Address(t, "ACKWISE_TEST_KUBERNETES")}
	queue := servers.Address(t, "ACKWISE_TEST_ELASTICMQ")
	binary := command(t)
	target, url := startTarget(t)
	sent := deadLetters(t, queue)

	c.kubectl("apply", "-k", "overlays/example")
	t.Cleanup(func() { // the test's context is over by then
		_ = exec.Command("kubectl", "--kubeconfig", c.kubeconfig, "delete", "namespace", namespace,
			"--wait=false").Run()
	})
	config := fmt.Sprintf("redrive:\n  - name: orders\n    from: sqs://eu-central-1/orders-dead\n"+
		"    to: %s\n    quiet: 2s\n    deadline: 5s\n", url)
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"relay.yaml": config}})
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl("-n", namespace, "patch", "configmap", "ackwise-config", "-p", string(patch))
	c.kubectl("-n", namespace, "patch", "cronjob", "ackwise-redrive", "-p",
		`{"spec":{"schedule":"* * * * *"}}`)

	k := kubelet{c: c, binary: binary, queue: queue, done: map[string]bool{}}
	target.Inject(nakadi.Fault{Kind: nakadi.Status, Code: 503})
	if code, said := k.runNext(); code != 4 {
		t.Errorf("with its target down the pod ended with %d, want 4 (some are left):\n%s", code, said)
	}
	if n := len(target.Events(typeName)); n != 0 || target.Fired(nakadi.Status) == 0 {
		t.Errorf("the target was down: it has %d letters, and refused %d calls", n,
			target.Fired(nakadi.Status))
	}
	target.Heal()
	// Letters that the first run held come back when their lease is over: at a later run, if need be.
	// Until then a run says that some are left.
	code, said := 4, ""
	for run := 0; code == 4 && run < 3; run++ {
		code, said = k.runNext()
	}
	if n := len(target.Copies(typeName)); code != 0 || n != letters {
		t.Fatalf("the pod ended with %d, and the target has %d of %d:\n%s", code, n, letters, said)
	}
	copies := target.Copies(typeName)
	for _, id := range sent {
		if copies[id] == 0 {
			t.Errorf("the letter %s was not redriven", id)
		}
	}
	if len(copies) != len(sent) {
		t.Errorf("the target has %d messages, want %d", len(copies), len(sent))
	}
}

// command builds the command and returns where it is.
func command(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "ackwise")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../cmd/ackwise")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	return binary
}

// TestConfigurationsAreRight lints the files that the manifests hold.
func TestConfigurationsAreRight(t *testing.T) {
	binary := command(t)
	for _, path := range []string{"kubernetes/config.yaml", "overlays/example/config.yaml"} {
		t.Run(path, func(t *testing.T) {
			manifest, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, text, ok := strings.Cut(string(manifest), "  relay.yaml: |\n")
			if !ok {
				t.Fatal("the manifest holds no relay.yaml")
			}
			file := filepath.Join(t.TempDir(), "relay.yaml")
			text = strings.ReplaceAll("\n"+text, "\n    ", "\n")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			lint := exec.CommandContext(t.Context(), binary, "lint", file)
			if out, err := lint.CombinedOutput(); err != nil {
				t.Errorf("lint: %v\n%s", err, out)
			}
		})
	}
}

func startTarget(t *testing.T) (*nakadi.Server, string) {
	t.Helper()
	target, err := nakadi.New(nakadi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(target)
	t.Cleanup(web.Close)
	t.Cleanup(func() { _ = target.Close() })
	body := fmt.Sprintf(`{"name":%q,"owning_application":"test","category":"undefined",
		"schema":{"type":"json_schema","schema":"{}"}}`, typeName)
	post(t, web.URL+"/event-types", body)
	return target, "nakadi://" + strings.TrimPrefix(web.URL, "http://") + "/" + typeName + "?tls=false"
}

// deadLetters fills the dead-letter queue and returns the IDs.
func deadLetters(t *testing.T, queue string) []string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	o, err := sqs.ParseSink("sqs://eu-central-1/orders-dead?endpoint=" + queue)
	if err != nil {
		t.Fatal(err)
	}
	o.Create = true
	sink, err := sqs.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	var ids []string
	var ms []ackwise.Message
	for i := range letters {
		ids = append(ids, fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
		ms = append(ms, ackwise.Message{ID: ids[i], Key: fmt.Sprint(i % 5),
			Body: []byte(fmt.Sprintf(`{"order":%d}`, i)), Time: time.Unix(1_700_000_000, 0)})
	}
	for _, r := range sink.Publish(t.Context(), ms) {
		if r.Class != ackwise.ResultAccepted {
			t.Fatalf("write a dead letter: %v", r.Err)
		}
	}
	return ids
}

// kubelet runs the pods of the CronJob, each once.
type kubelet struct {
	c             cluster
	binary, queue string
	done          map[string]bool
}

// runNext waits for a new pod, runs it, and tells the API how it ended.
func (k *kubelet) runNext() (code int, said string) {
	k.c.t.Helper()
	var p pod
	servers.Until(k.c.t, "the CronJob makes a job, and the job a pod", onMinute, func() bool {
		var list struct{ Items []pod }
		text := k.c.kubectl("-n", namespace, "get", "pods", "-o", "json", "-l",
			"app.kubernetes.io/component=redrive")
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			k.c.t.Fatal(err)
		}
		for _, p = range list.Items {
			if !k.done[p.Metadata.Name] {
				return true
			}
		}
		return false
	})
	k.done[p.Metadata.Name] = true
	code, said = k.run(p)
	phase := "Succeeded"
	if code != 0 {
		phase = "Failed"
	}
	k.c.kubectl("-n", namespace, "patch", "pod/"+p.Metadata.Name, "--subresource=status",
		"--type=merge", "-p", fmt.Sprintf(`{"status":{"phase":%q}}`, phase))
	servers.Until(k.c.t, "the job ends with its pod", patience, func() bool {
		return !strings.Contains(k.c.kubectl("-n", namespace, "get", "jobs", "-o",
			"jsonpath={.items[*].status.active}"), "1")
	})
	return code, said
}

// run runs the pod's command with its environment and its files, which stand under a folder of the
// test instead of the root.
func (k *kubelet) run(p pod) (code int, said string) {
	t := k.c.t
	t.Helper()
	root := t.TempDir()
	one := p.Spec.Containers[0]
	for _, m := range one.VolumeMounts {
		dir := filepath.Join(root, m.MountPath)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, v := range p.Spec.Volumes {
			if v.Name == m.Name && v.ConfigMap != nil {
				k.mount(v.ConfigMap.Name, dir)
			}
		}
	}
	args := append(one.Command, one.Args...)
	if args[0] != "/ackwise" {
		t.Fatalf("the pod runs %q", args)
	}
	for i, a := range args[1:] {
		if strings.HasPrefix(a, "/") {
			args[i+1] = filepath.Join(root, a)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.binary, args[1:]...)
	// What the platform gives a pod: credentials, and here where the queue is.
	cmd.Env = []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_ENDPOINT_URL_SQS=" + k.queue}
	for _, e := range one.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %q: %v", args, err)
	}
	t.Logf("pod %s ended with %d:\n%s", p.Metadata.Name, cmd.ProcessState.ExitCode(), out)
	return cmd.ProcessState.ExitCode(), string(out)
}

// mount writes a config map's files.
func (k *kubelet) mount(name, dir string) {
	t := k.c.t
	t.Helper()
	var m struct{ Data map[string]string }
	text := k.c.kubectl("-n", namespace, "get", "configmap", name, "-o", "json")
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	for file, content := range m.Data {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
