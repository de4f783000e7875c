package adaptertest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/adapters/file"
)

func TestFileJSON(t *testing.T)  { t.Parallel(); adaptertest.Run(t, fileHarness()) }
func TestFileLines(t *testing.T) { t.Parallel(); adaptertest.Run(t, linesHarness()) }
func TestStream(t *testing.T)    { t.Parallel(); adaptertest.Run(t, streamHarness()) }

// every is how often a followed file is looked at.
const every = 10 * time.Millisecond

// logFeatures are those of every source of lines.
func logFeatures() *ackwise.Features {
	return &ackwise.Features{Order: ackwise.OrderKey, Extend: true, MaxNackDelay: 24 * time.Hour,
		Counts: true, Causes: true, KeyRuns: true}
}

const locked = "docs/systems/file.md: The position file is locked while a source uses it."

// fileHarness is file://PATH with format: json.
func fileHarness() adaptertest.Harness {
	return adaptertest.Harness{
		Name: "file json", Source: logFeatures(), Sink: &ackwise.SinkFeatures{KeyRunSafe: true},
		Cannot: map[adaptertest.Check]string{adaptertest.Moving: locked},
		OpenSource: func(_ context.Context, path string) (ackwise.Source, error) {
			return file.NewSource(path, file.SourceOptions{Follow: true, Every: every,
				Format: file.JSON})
		},
		OpenSink: func(_ context.Context, path string) (ackwise.Sink, error) {
			return file.OpenSink(path, file.SinkOptions{Format: file.JSON})
		},
		New: func(t *testing.T) *adaptertest.Bed {
			path := newFile(t)
			return &adaptertest.Bed{Source: path, Sink: path, Patience: patience}
		},
	}
}

// linesHarness is file://PATH with lines that are JSON objects of somebody else's.
func linesHarness() adaptertest.Harness {
	return adaptertest.Harness{
		Name: "file lines", Source: logFeatures(),
		Cannot: map[adaptertest.Check]string{adaptertest.Moving: locked},
		OpenSource: func(_ context.Context, path string) (ackwise.Source, error) {
			return file.NewSource(path, file.SourceOptions{Follow: true, Every: every,
				IDField: "id", KeyField: "key"})
		},
		New: func(t *testing.T) *adaptertest.Bed {
			path := newFile(t)
			return &adaptertest.Bed{Source: path, Patience: patience,
				Write: func(_ context.Context, ms []ackwise.Message) error {
					return appendLines(path, ms)
				}}
		},
	}
}

func newFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "messages")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func appendLines(path string, ms []ackwise.Message) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if _, err := f.Write(append(m.Body, '\n')); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// streamHarness is "-", which a pipe with a name stands for, so that other processes can open it.
func streamHarness() adaptertest.Harness {
	const gone = "docs/systems/file.md: What was read and not settled is gone when the process ends."
	features := logFeatures()
	features.Counts = false
	return adaptertest.Harness{
		Name: "- json", Source: features, Sink: &ackwise.SinkFeatures{KeyRunSafe: true},
		Cannot: map[adaptertest.Check]string{adaptertest.Crash: gone, adaptertest.LostAck: gone,
			adaptertest.Moving: gone, adaptertest.KeyOrder: gone, adaptertest.CleanStop: gone},
		OpenSource: openPipe,
		OpenSink: func(_ context.Context, path string) (ackwise.Sink, error) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			return &pipeSink{file.NewWriterSink(f, path, file.SinkOptions{Format: file.JSON}), f}, nil
		},
		New: func(t *testing.T) *adaptertest.Bed {
			path := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			held, err := os.OpenFile(path, os.O_RDWR, 0) // so that it does not end
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = held.Close() })
			return &adaptertest.Bed{Source: path, Sink: path, Patience: patience}
		},
	}
}

func openPipe(_ context.Context, path string) (ackwise.Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s, err := file.NewStream(f, path, file.SourceOptions{Format: file.JSON})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &pipeSource{s, f}, nil
}

// pipeSource is a source with the pipe that it reads.
type pipeSource struct {
	ackwise.Source
	f *os.File
}

// Close closes both.
func (s *pipeSource) Close() error { return errors.Join(s.Source.Close(), s.f.Close()) }

// pipeSink is a sink with the pipe that it writes.
type pipeSink struct {
	ackwise.Sink
	f *os.File
}

// Close closes both.
func (s *pipeSink) Close() error { return errors.Join(s.Sink.Close(), s.f.Close()) }
