package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"

	"ontagent/collectors"
	"ontagent/transport/durable"
)

// kept is one small document in the state directory. What of it can't be read is
// put aside and told, and the part that it belongs to begins anew.
type kept struct {
	fs       durable.FS
	op, path string
	limit    int
	tell     func(collectors.Event)
	log      *slog.Logger
}

// kept returns the document of a name in the state directory.
func (d *daemon) kept(name string, limit int) kept {
	return kept{
		fs: d.fs, op: name, path: filepath.Join(d.c.Main.StateDir, name+".json"), limit: limit, tell: d.reporter.Event, log: d.log,
	}
}

// Load returns nothing for a document that isn't there, or isn't any more.
func (k kept) Load() ([]byte, error) {
	data, err := durable.ReadFile(k.fs, k.op+".read", k.path, k.limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, durable.ErrTooLarge):
		k.SetAside(err)
		return nil, nil
	}
	return data, err
}

func (k kept) Save(data []byte) error {
	return durable.WriteFile(k.fs, k.op+".write", k.path, data, 0o600)
}

// asideSuffix ends the name of a document that could not be read. There is one:
// the last.
const asideSuffix = ".bad"

func (k kept) SetAside(why error) {
	err := k.fs.Rename(k.op+".aside", k.path, k.path+asideSuffix)
	if err == nil {
		err = k.fs.SyncDir(k.op+".aside", filepath.Dir(k.path))
	}
	k.log.Error("state file is damaged, beginning anew", "file", k.path, "error", errors.Join(why, err))
	k.tell(collectors.Event{
		Type: "state_file", Subject: filepath.Base(k.path), What: "content", After: "damaged",
		Fields: []collectors.Field{collectors.F("reason", why.Error())},
	})
}
