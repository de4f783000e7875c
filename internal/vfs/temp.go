package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// TempSuffix ends the temporary name of a file that is not finished.
const TempSuffix = ".tmp"

// WriteNew makes a synced file under path's temporary name, whose content is written by fill. Where
// it fails, nothing has changed.
func WriteNew(fsys FS, path string, fill func(File) error) (f File, err error) {
	temp := path + TempSuffix
	f, err = fsys.Create(temp)
	if errors.Is(err, fs.ErrExist) { // left by an attempt that failed half way
		if err = fsys.Remove(temp); err == nil {
			f, err = fsys.Create(temp)
		}
	}
	if err != nil {
		return nil, err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), fsys.Remove(temp))
	}
	return f, nil
}

// GiveName renames a temporary file to its name and syncs the directory.
func GiveName(fsys FS, path string) error {
	if err := fsys.Rename(path+TempSuffix, path); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}
