package bench

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The picture: a row a size, throughput on the left and p99 on the right, both axes logarithmic.
const (
	panelWidth, panelHeight = 420, 240
	marginLeft, marginTop   = 76, 84
	gapX, gapY              = 92, 84
)

// series is one line of the picture.
type series struct {
	name   string
	start  string                      // the rows it is taken from
	stroke string                      // colour; readable on white, also without seeing red and green
	dashes string                      // of the line; "" = none
	value  func(p *Publish) [2]float64 // messages a second, p99 in milliseconds
}

func allSeries() []series {
	engine := func(p *Publish) [2]float64 { return [2]float64{p.PerSecond, p.P99} }
	return []series{
		{"engine, warm", "warm", "#0b5fa5", "", engine},
		{"engine, cold", "cold", "#58a6d6", "", engine},
		{"bare log, recycled file", "cold", "#b35900", "7 4",
			func(p *Publish) [2]float64 { return [2]float64{p.Recycled, p.RecycledP99} }},
		{"bare log, growing file", "cold", "#7a7a7a", "7 4",
			func(p *Publish) [2]float64 { return [2]float64{p.Growing, p.GrowingP99} }},
	}
}

// Plot writes the throughput and the p99 of publish over the number of publishers, as an SVG
// picture. A bare log that was not measured has no line.
func (r *Report) Plot(w io.Writer) error {
	var sizes []int
	for _, p := range r.Publish {
		if !slices.Contains(sizes, p.Size) {
			sizes = append(sizes, p.Size)
		}
	}
	d := &drawing{}
	width := marginLeft + 2*panelWidth + gapX + 24
	height := marginTop + len(sizes)*(panelHeight+gapY)
	d.f(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" `+
		`font-family="sans-serif" font-size="12" fill="#222222">`, width, height)
	d.f(`<title>Publish, synced before it is answered</title>`)
	d.f(`<rect width="%d" height="%d" fill="#ffffff"/>`, width, height)
	d.text(place{marginLeft, 24, "start", 16}, "Publish, synced before it is answered")
	d.text(place{marginLeft, 42, "start", 11},
		fmt.Sprintf("%s %s/%s, GOMAXPROCS %d, median of %d × %v s", r.Go, r.OS, r.Arch, r.GOMAXPROCS,
			r.Rounds, r.Seconds))
	d.legend()
	for row, size := range sizes {
		y := marginTop + row*(panelHeight+gapY) + 24
		of := slices.DeleteFunc(slices.Clone(r.Publish), func(p Publish) bool { return p.Size != size })
		for i, unit := range []string{"messages a second", "p99 of a publish, ms"} {
			p := &panel{x: marginLeft + i*(panelWidth+gapX), y: y, rows: of, value: i}
			p.draw(d, fmt.Sprintf("%d B: %s", size, unit))
		}
	}
	d.f(`</svg>`)
	_, err := io.WriteString(w, d.String())
	return err
}

// drawing is the picture's text.
type drawing struct{ strings.Builder }

func (d *drawing) f(format string, args ...any) {
	d.WriteString(fmt.Sprintf(format, args...) + "\n")
}

// place is where a text stands: its anchor is start, middle or end.
type place struct {
	x, y   float64
	anchor string
	size   int
}

func (d *drawing) text(at place, text string) {
	d.f(`<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>`, at.x, at.y, at.anchor,
		at.size, html.EscapeString(text))
}

func (d *drawing) legend() {
	x := float64(marginLeft)
	for _, s := range allSeries() {
		d.f(`<path d="M%.0f 62h30" stroke="%s" stroke-width="2.5" stroke-dasharray="%s"/>`, x,
			s.stroke, s.dashes)
		d.text(place{x + 36, 66, "start", 12}, s.name)
		x += 36 + 7*float64(len(s.name)) + 28
	}
}

// panel is one of the pictures: one size, one value.
type panel struct {
	x, y       int // of its upper left corner
	rows       []Publish
	value      int // which of a series' two values
	minX, maxX float64
	steps      []float64 // of the vertical axis, at least two
}

// draw draws axes and lines. The vertical axis has steps of 1, 2 and 5 times a power of ten; where
// there are many, only the powers have their number.
func (p *panel) draw(d *drawing, title string) {
	p.bounds()
	d.text(place{float64(p.x), float64(p.y) - 8, "start", 13}, title)
	right, bottom := p.x+panelWidth, p.y+panelHeight
	for i, v := range p.steps {
		y := p.atY(v)
		d.f(`<path d="M%d %.1fH%d" stroke="#e2e2e2"/>`, p.x, y, right)
		if len(p.steps) <= 8 || isPower(v) || i == len(p.steps)-1 {
			d.text(place{float64(p.x) - 8, y + 4, "end", 11}, tick(v))
		}
	}
	var seen []int
	for _, row := range p.rows {
		if slices.Contains(seen, row.Publishers) {
			continue
		}
		seen = append(seen, row.Publishers)
		x := p.atX(row.Publishers)
		d.f(`<path d="M%.1f %dv5" stroke="#222222"/>`, x, bottom)
		d.text(place{x, float64(bottom) + 18, "middle", 11}, strconv.Itoa(row.Publishers))
	}
	d.f(`<path d="M%d %dV%dH%d" fill="none" stroke="#222222"/>`, p.x, p.y, bottom, right)
	d.text(place{float64(p.x + panelWidth/2), float64(bottom) + 36, "middle", 11},
		"concurrent publishers, logarithmic")
	for _, s := range allSeries() {
		p.line(d, s)
	}
}

func (p *panel) bounds() {
	p.minX, p.maxX = math.Inf(1), 0
	least, most := math.Inf(1), 0.0
	for _, row := range p.rows {
		p.minX = min(p.minX, float64(row.Publishers))
		p.maxX = max(p.maxX, float64(row.Publishers))
		for _, s := range allSeries() {
			if v := s.value(&row)[p.value]; v > 0 {
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if p.steps = nil; most == 0 {
		p.steps = []float64{1, 2} // nothing to show
		return
	}
	for power := math.Floor(math.Log10(least)); ; power++ {
		for _, digit := range []float64{1, 2, 5} {
			step := digit * math.Pow(10, power)
			if step <= least {
				p.steps = p.steps[:0]
			}
			if p.steps = append(p.steps, step); step >= most && len(p.steps) > 1 {
				return
			}
		}
	}
}

func isPower(v float64) bool {
	log := math.Log10(v)
	return math.Abs(log-math.Round(log)) < 1e-9
}

// line draws a series with a point for each number of publishers.
func (p *panel) line(d *drawing, s series) {
	var path, points strings.Builder
	step := "M"
	rows := slices.Clone(p.rows)
	slices.SortFunc(rows, func(a, b Publish) int { return a.Publishers - b.Publishers })
	for _, row := range rows {
		v := s.value(&row)[p.value]
		if row.Start != s.start || v <= 0 {
			continue
		}
		x, y := p.atX(row.Publishers), p.atY(v)
		fmt.Fprintf(&path, "%s%.1f %.1f", step, x, y)
		fmt.Fprintf(&points, `<circle cx="%.1f" cy="%.1f" r="3.5"><title>%s, %d publishers: %s`+
			"</title></circle>\n", x, y, s.name, row.Publishers, tick(v))
		step = "L"
	}
	if step == "M" {
		return
	}
	d.f(`<g fill="%s"><title>%s</title>`, s.stroke, s.name)
	d.f(`<path d="%s" fill="none" stroke="%s" stroke-width="2.5" stroke-dasharray="%s"/>`,
		path.String(), s.stroke, s.dashes)
	d.f(`%s</g>`, points.String())
}

func (p *panel) atX(publishers int) float64 {
	const inset = 24 // so that no point lies on the axis
	part := 0.5
	if p.maxX > p.minX {
		part = math.Log(float64(publishers)/p.minX) / math.Log(p.maxX/p.minX)
	}
	return float64(p.x) + inset + part*(panelWidth-2*inset)
}

func (p *panel) atY(v float64) float64 {
	least, most := p.steps[0], p.steps[len(p.steps)-1]
	return float64(p.y) + panelHeight*(1-math.Log(v/least)/math.Log(most/least))
}

// tick is a number as an axis shows it.
func tick(v float64) string {
	if v < 1000 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	text := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
