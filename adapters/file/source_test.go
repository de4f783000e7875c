package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// fast makes a followed file be looked at often.
const fast = time.Millisecond

// write makes or replaces a file.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func add(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, o SourceOptions) ackwise.Source {
	t.Helper()
	if o.Every == 0 {
		o.Every = fast
	}
	s, err := NewSource(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// receive returns the next deliveries, at least one.
func receive(t *testing.T, s ackwise.Source, max int) []*ackwise.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ds, err := s.Receive(ctx, max)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func ack(t *testing.T, s ackwise.Source, ds ...*ackwise.Delivery) {
	t.Helper()
	for _, d := range ds {
		if r := s.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	}
}

// bodies receives and acks n deliveries and returns their bodies.
func bodies(t *testing.T, s ackwise.Source, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n {
		ds := receive(t, s, n-len(out))
		ack(t, s, ds...)
		for _, d := range ds {
			out = append(out, string(d.Body))
		}
	}
	return out
}

// failure receives until there is an error.
func failure(t *testing.T, s ackwise.Source) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		ds, err := s.Receive(ctx, 100)
		if err != nil {
			return err
		}
		ack(t, s, ds...)
	}
}

func wantBodies(t *testing.T, s ackwise.Source, want ...string) {
	t.Helper()
	if got := bodies(t, s, len(want)); !slices.Equal(got, want) {
		t.Errorf("got lines %q, want %q", got, want)
	}
}

// TestSourceNeverSkipsALine reads a file with a source that is dropped again and again, as a killed
// process drops it, with settlements in random order. The oracle is the test's own list.
func TestSourceNeverSkipsALine(t *testing.T) {
	crashes := 0
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { crashes += neverSkips(t, seed) })
	}
	if crashes == 0 {
		t.Error("nothing was in flight at any kill")
	}
}

// neverSkips returns how many deliveries were in flight at a kill.
func neverSkips(t *testing.T, seed uint64) (crashes int) {
	const count = 120
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "line %d%s\n", i, strings.Repeat("+", rng.IntN(20)))
	}
	path := write(t, filepath.Join(dir, "in"), text.String())
	acked := map[string]bool{}
	open := map[string]bool{} // handed out when the process was killed
	for life := 0; len(acked) < count; life++ {
		s, err := NewSource(path, SourceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var held []*ackwise.Delivery
		for steps := rng.IntN(60); steps > 0 && len(acked) < count; steps-- {
			if len(held) < 15 && len(held)+len(acked) < count {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				ds, err := s.Receive(ctx, 1+rng.IntN(5))
				cancel()
				for _, d := range ds {
					if acked[d.ID] {
						t.Fatalf("%s is handed out after its ack: cause %s", d.ID, d.Cause)
					}
					if open[d.ID] && d.Cause != ackwise.CauseConsumerLost {
						t.Fatalf("%s was lost with its consumer, its cause is %s", d.ID, d.Cause)
					}
					delete(open, d.ID)
					held = append(held, d)
				}
				// A suspect runs alone: nothing comes while others are held.
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
			}
			for len(held) > 0 && (rng.IntN(3) > 0 || held[0].Suspect) {
				i := rng.IntN(len(held))
				ack(t, s, held[i])
				acked[held[i].ID] = true
				held = slices.Delete(held, i, i+1)
			}
		}
		for _, d := range held {
			open[d.ID] = true
			crashes++
		}
		kill(t, s, path+".position")
	}
	s, err := NewSource(path, SourceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := failure(t, s); !errors.Is(err, io.EOF) {
		t.Errorf("when all is settled: %v, want io.EOF", err)
	}
	return crashes
}

// kill ends a source as a killed process does: what it writes at its end is undone.
func kill(t *testing.T, s ackwise.Source, position string) {
	t.Helper()
	data, err := os.ReadFile(position)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(position, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSourceIDs(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "a\n\nbb\nno line feed")
	s := open(t, path, SourceOptions{Topic: "lines"})
	var got []string
	for len(got) < 4 {
		for _, d := range receive(t, s, 10) {
			got = append(got, strings.TrimPrefix(d.ID, path)+" "+string(d.Body)+" "+d.Topic)
			ack(t, s, d)
		}
	}
	want := []string{":0 a lines", ":2  lines", ":3 bb lines", ":6 no line feed lines"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := failure(t, s); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	if p := idPrefix("/" + strings.Repeat("long/", 60)); len(p) > 40 {
		t.Errorf("a long path gives the ID prefix %q", p)
	}
	if p := idPrefix("/bad\nname"); ackwise.ValidateID(p+":12") != nil {
		t.Errorf("a path that no ID can hold gives %q", p)
	}
}

func TestSourceFields(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"),
		`{"n":17,"k":"red"}`+"\n"+`{"n":"x","k":3}`+"\n")
	s := open(t, path, SourceOptions{IDField: "n", KeyField: "k"})
	for _, want := range []string{"17 red", "x 3"} {
		d := receive(t, s, 1)[0]
		if got := d.ID + " " + d.Key; got != want {
			t.Errorf("got ID and key %s, want %s", got, want)
		}
		ack(t, s, d)
	}
}

func TestSourceBadLines(t *testing.T) {
	const text = `{"n":1}` + "\nnot json\n" + `{"m":1}` + "\n" + `{"n":[]}` + "\n" + `{"n":""}` +
		"\nnull\n" + `{"n":2}` + "\n"
	path := write(t, filepath.Join(t.TempDir(), "in"), text)
	var bad []string
	s := open(t, path, SourceOptions{IDField: "n", OnBad: SkipBad, Position: path + ".skip",
		Bad: func(line int, err error) { bad = append(bad, fmt.Sprintf("%d: %v", line, err)) }})
	wantBodies(t, s, `{"n":1}`, `{"n":2}`)
	s.Close()
	want := []string{
		"2: the line is not a JSON object: invalid character 'o' in literal null (expecting 'u')",
		`3: no field "n"; did you mean "m"?`,
		`4: the field "n" is []; it must be a string or a number`,
		`5: the field "n" is empty`,
		"6: the line is null, not a JSON object",
	}
	if !slices.Equal(bad, want) {
		t.Errorf("skipped lines:\n%s\nwant\n%s", strings.Join(bad, "\n"), strings.Join(want, "\n"))
	}

	s = open(t, path, SourceOptions{IDField: "n"})
	wantBodies(t, s, `{"n":1}`)
	err := failure(t, s)
	if err == nil || !strings.Contains(err.Error(), path+", line 2: the line is not a JSON object") {
		t.Errorf("a bad line says %v, want file and line 2", err)
	}
	s.Close()
	// The position stays before the bad line, and its number is still known.
	s = open(t, path, SourceOptions{IDField: "n"})
	if err := failure(t, s); err == nil || !strings.Contains(err.Error(), "line 2:") {
		t.Errorf("the second time it says %v, want line 2", err)
	}
}

func TestSourceLongLine(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "12345\n123456\n1\n")
	s := open(t, path, SourceOptions{MaxLine: 5})
	wantBodies(t, s, "12345")
	if err := failure(t, s); !errors.Is(err, ackwise.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestSourceJSONLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	sink, err := OpenSink(path, SinkOptions{Format: JSON})
	if err != nil {
		t.Fatal(err)
	}
	sent := []ackwise.Message{{ID: "1", Key: "k\xff", Body: []byte("two\nlines"), Topic: "t",
		Headers: []ackwise.Header{{Name: "h", Value: []byte("v")}}}, {ID: "2", Topic: "t"}}
	for _, r := range sink.Publish(t.Context(), sent) {
		if r.Class != ackwise.ResultAccepted {
			t.Fatal(r.Err)
		}
	}
	sink.Close()
	s := open(t, path, SourceOptions{Format: JSON, Topic: "t"})
	for _, want := range sent {
		d := receive(t, s, 1)[0]
		if fmt.Sprint(d.Message) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", d.Message, want)
		}
		ack(t, s, d)
	}
}

func TestSourceOptionsContradict(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "")
	_, err := NewSource(path, SourceOptions{Once: true, Every: -1, Format: JSON, IDField: "x"})
	for _, part := range []string{"Once", "Every", "IDField"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want all faults at once, %s among them", err, part)
		}
	}
}

func TestSourceOfWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewSource(dir, SourceOptions{Position: dir + "/p"}); err == nil ||
		!strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("of a directory: %v", err)
	}
	if _, err := NewSource(dir+"/no", SourceOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	if _, err := os.Stat(dir + "/no.position"); err == nil {
		t.Error("a position file was made for a file that is not there")
	}
}

func TestSourceOnAReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("the superuser may write everywhere")
	}
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "in"), "a\n")
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(dir, 0o700) }()
	var hint *ackwise.HintError
	if _, err := NewSource(path, SourceOptions{}); !errors.As(err, &hint) {
		t.Errorf("got %v, want a hint to name another position file", err)
	}
	s := open(t, path, SourceOptions{Position: filepath.Join(t.TempDir(), "p")})
	wantBodies(t, s, "a")
}
