package main

import (
	"encoding/json"
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

// Load decodes the document into v, and returns false if there is none, or none
// that check agrees to.
func (k kept) Load(v any, check func() error) bool {
	data, err := durable.ReadFile(k.fs, k.op+".read", k.path, k.limit)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		k.setAside(err)
	}
	return err == nil
}

func (k kept) Save(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(k.fs, k.op+".write", k.path, data, 0o600)
}

// asideSuffix ends the name of a document that could not be read. There is one:
// the last.
const asideSuffix = ".bad"

func (k kept) setAside(why error) {
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
