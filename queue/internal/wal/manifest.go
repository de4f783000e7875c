package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise/internal/vfs"
)

const (
	manifestName  = "segments"
	manifestMagic = "ackwseg\n"
	manifestHead  = 32 // bytes before the entries
	manifestEntry = 40 // bytes of an entry
	segmentSuffix = ".log"
	freeSuffix    = ".free"
	tempSuffix    = vfs.TempSuffix
)

// manifest is the content of the file "segments": which segment files belong to the log. Without
// it, a missing last file could not be told from one that never was, and the end of a sealed one
// whose successor is freed would be unknown.
type manifest struct {
	storeID  [16]byte
	segments []manifestSegment // sorted by base; the last one is open: it reaches its end at least
}

type manifestSegment struct {
	id        SegmentID
	epoch     uint64
	base, end uint64
	kind      uint32
}

func segmentName(id SegmentID) string { return fileName(id, segmentSuffix) }

// freeName is the name of a file that holds nothing any more, of the segment that it was last.
func freeName(id SegmentID) string { return fileName(id, freeSuffix) }

func fileName(id SegmentID, suffix string) string {
	return fmt.Sprintf("%012d%s", uint64(id), suffix)
}

// parseName is the inverse of fileName.
func parseName(name, suffix string) (SegmentID, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || fileName(SegmentID(id), suffix) != name {
		return 0, false
	}
	return SegmentID(id), true
}

func (m manifest) encode() []byte {
	b := make([]byte, manifestHead, manifestHead+manifestEntry*len(m.segments)+4)
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(m.segments)))
	copy(b[16:], m.storeID[:])
	for _, s := range m.segments {
		b = binary.LittleEndian.AppendUint64(b, uint64(s.id))
		b = binary.LittleEndian.AppendUint64(b, s.epoch)
		b = binary.LittleEndian.AppendUint64(b, s.base)
		b = binary.LittleEndian.AppendUint64(b, s.end)
		b = binary.LittleEndian.AppendUint32(b, s.kind)
		b = binary.LittleEndian.AppendUint32(b, 0)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeManifest(name string, b []byte) (manifest, error) {
	var m manifest
	if len(b) < manifestHead+4 || string(b[:8]) != manifestMagic {
		return m, errors.New("not a list of segments")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > formatVersion {
		return m, &FormatError{File: name, Found: v, Supported: formatVersion}
	}
	body := b[:len(b)-4]
	if binary.LittleEndian.Uint32(b[len(b)-4:]) != crc32.Checksum(body, castagnoli) {
		return m, errors.New("the checksum of the list of segments does not match")
	}
	count := int(binary.LittleEndian.Uint32(b[12:]))
	if count == 0 || count != (len(body)-manifestHead)/manifestEntry {
		return m, errors.New("the list of segments has another length than it says")
	}
	copy(m.storeID[:], b[16:32])
	for e := body[manifestHead:]; len(e) >= manifestEntry; e = e[manifestEntry:] {
		m.segments = append(m.segments, manifestSegment{
			id:    SegmentID(binary.LittleEndian.Uint64(e)),
			epoch: binary.LittleEndian.Uint64(e[8:]),
			base:  binary.LittleEndian.Uint64(e[16:]),
			end:   binary.LittleEndian.Uint64(e[24:]),
			kind:  binary.LittleEndian.Uint32(e[32:]),
		})
	}
	if m.segments[count-1].kind != kindLog {
		return m, errors.New("the last of the list of segments is not one that can be written to")
	}
	return m, nil
}

// readFile reads a whole file.
func readFile(fs vfs.FS, name string) (b []byte, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b = make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return b, nil
}

// unsettled wraps a failure after which the directory may show the old or the new list.
type unsettled struct{ error }

func (u unsettled) Unwrap() error { return u.error }

// writeManifest replaces the list of segments.
func writeManifest(fs vfs.FS, dir string, m manifest) error {
	path := filepath.Join(dir, manifestName)
	f, err := vfs.WriteNew(fs, path, func(f vfs.File) error {
		_, err := f.WriteAt(m.encode(), 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the list of segments: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close the list of segments: %w", unsettled{err})
	}
	if err := vfs.GiveName(fs, path); err != nil {
		return fmt.Errorf("rename the list of segments: %w", unsettled{err})
	}
	return nil
}
