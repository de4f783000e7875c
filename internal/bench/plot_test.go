package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func plotted() *Report {
	r := &Report{Machine: Machine{Go: "go1.26", OS: "linux", Arch: "amd64", GOMAXPROCS: 2},
		Rounds: 5, Seconds: 10}
	for _, size := range []int{100, 1024} {
		for i, n := range []int{1, 64, 512} {
			f := float64(i + 1)
			for j, start := range []string{"cold", "warm"} {
				k := float64(j + 1)
				r.Publish = append(r.Publish, Publish{Publishers: n, Size: size, Start: start,
					PerSecond: 6000 * f * f * f * k, P99: 0.4 * f / k, Growing: 7000 * f * f * f,
					GrowingP99: 0.15 * f, Recycled: 9000 * f * f * f * 4, RecycledP99: 0.11 * f})
			}
		}
	}
	return r
}

// element is what the test reads of a picture.
type element struct {
	XMLName  xml.Name
	D        string    `xml:"d,attr"`
	CX       float64   `xml:"cx,attr"`
	CY       float64   `xml:"cy,attr"`
	Width    float64   `xml:"width,attr"`
	Height   float64   `xml:"height,attr"`
	Text     string    `xml:",chardata"`
	Children []element `xml:",any"`
}

func (e *element) walk(visit func(*element)) {
	visit(e)
	for i := range e.Children {
		e.Children[i].walk(visit)
	}
}

func picture(t *testing.T, r *Report) (texts []string, circles []element, svg element) {
	t.Helper()
	var b strings.Builder
	if err := r.Plot(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Errorf("a coordinate is no number:\n%s", b.String())
	}
	if err := xml.Unmarshal([]byte(b.String()), &svg); err != nil {
		t.Fatalf("not XML: %v", err)
	}
	svg.walk(func(e *element) {
		if s := strings.TrimSpace(e.Text); s != "" {
			texts = append(texts, s)
		}
		if e.XMLName.Local == "circle" {
			circles = append(circles, *e)
		}
	})
	return texts, circles, svg
}

func TestPlotShowsEverySeries(t *testing.T) {
	texts, circles, svg := picture(t, plotted())
	all := strings.Join(texts, "\n")
	for _, want := range []string{"publishers", "100 B: messages a second", "1024 B: p99 of a publish, ms",
		"200,000", "512", "median of 5 × 10 s"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in\n%s", want, all)
		}
	}
	for _, s := range allSeries() { // its legend, and a line in each of the four panels
		if n := strings.Count("\n"+all+"\n", "\n"+s.name+"\n"); n != 5 {
			t.Errorf("%s is named %d times, want 5", s.name, n)
		}
	}
	if len(circles) != 4*4*3 {
		t.Errorf("%d points, want 48", len(circles))
	}
	for _, c := range circles {
		if c.CX < 0 || c.CX > svg.Width || c.CY < marginTop || c.CY > svg.Height {
			t.Errorf("a point outside: %v %v", c.CX, c.CY)
		}
	}
}

// The golden picture is for a person to look at; UPDATE=1 writes it anew.
func TestPlotIsAsBefore(t *testing.T) {
	const golden = "testdata/publish.svg"
	var b strings.Builder
	if err := plotted().Plot(&b); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the picture differs from %s; look at both, and run with UPDATE=1", golden)
	}
}

func TestPlotWithoutBareLogsAndWithOneNumber(t *testing.T) {
	r := &Report{Publish: []Publish{{Publishers: 8, Size: 10, Start: "cold", PerSecond: 1000, P99: 1},
		{Publishers: 8, Size: 10, Start: "warm", PerSecond: 1000, P99: 1}}}
	if _, circles, _ := picture(t, r); len(circles) != 4 {
		t.Errorf("%d points, want 4", len(circles))
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestPlotTellsAFailedWrite(t *testing.T) {
	if err := plotted().Plot(broken{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}
